//! Rules that hold for any pod.

use fastrand::Rng;

use super::*;

const PODS: u64 = 400;

fn probe(rng: &mut Rng) -> Value {
    let mut probe = match rng.u8(0..5) {
        0 => json!({"httpGet": {"port": rng.u16(1..15000), "path": "/$a", "scheme": "HTTPS"}}),
        1 => json!({"httpGet": {"port": "http"}}),
        2 => json!({"tcpSocket": {"port": rng.u16(1..15000).to_string()}}),
        3 => json!({"grpc": {"port": rng.u16(1..15000)}}),
        _ => json!({"exec": {"command": ["true"]}}),
    };
    if rng.bool() {
        probe["timeoutSeconds"] = json!(rng.u8(0..9));
    }
    probe
}

fn container(rng: &mut Rng, name: &str) -> Value {
    let mut container = json!({"name": name, "ports": [{"name": "http", "containerPort": 8080}]});
    for field in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if rng.bool() {
            container[field] = probe(rng);
        }
    }
    if rng.bool() {
        container["lifecycle"] =
            json!({"preStop": {"httpGet": {"port": "http"}}, "postStart": {"sleep": {"seconds": 1}}});
    }
    container
}

fn any_pod(rng: &mut Rng) -> Value {
    let containers: Vec<Value> = (0..rng.usize(1..4)).map(|index| container(rng, &format!("c{index}"))).collect();
    let mut pod = json!({"metadata": {}, "spec": {"containers": containers}});
    if rng.bool() {
        let init = (0..rng.usize(0..3)).map(|index| {
            let mut container = container(rng, &format!("i{index}"));
            if rng.bool() {
                container["restartPolicy"] = json!("Always");
            }
            container
        });
        pod["spec"]["initContainers"] = init.collect();
    }
    if rng.bool() {
        pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    }
    if rng.bool() {
        pod["spec"]["terminationGracePeriodSeconds"] = json!(rng.u16(0..600));
    }
    for (name, value) in [
        (names::CAPTURE, "cni"),
        (names::EXCLUDE_INBOUND_PORTS, "1,2"),
        (names::PROXY_CPU_LIMIT, "1"),
        (names::PROXY_ENV, "A=1"),
        (names::PROXY_PATCH, r#"{"env": [{"name": "B", "value": "2"}], "livenessProbe": {"periodSeconds": 3}}"#),
        ("example.com/own", "x"),
    ] {
        if rng.u8(0..4) == 0 {
            pod["metadata"]["annotations"][name] = json!(value);
        }
    }
    pod
}

fn probes_of(pod: &Value) -> Vec<String> {
    let containers = ["containers", "initContainers"].iter().filter_map(|list| pod["spec"][list].as_array()).flatten();
    containers
        .filter(|container| container["name"] != names::PROXY_CONTAINER)
        .flat_map(|container| {
            let stays = !container["name"].as_str().is_some_and(|name| name.starts_with('i'))
                || container["restartPolicy"] == "Always";
            ["startupProbe", "readinessProbe", "livenessProbe"]
                .into_iter()
                .filter_map(move |field| Some(container.get(field)?.to_string()).filter(|_| stays))
        })
        .collect()
}

#[test]
fn injecting_twice_is_injecting_once_and_the_patch_makes_the_same() {
    for seed in 0..PODS {
        let before = any_pod(&mut Rng::with_seed(seed));
        let settings = settings(&[]);
        let after = injected(&before, &settings);
        let again = inject(&after, &shop(), &settings);
        assert_eq!(again, Ok(Injected::Unchanged(Reason::AlreadyInjected)), "seed {seed}");
        let mut patched = before.clone();
        json_patch::patch(&mut patched, &between(&before, &after)).expect("it applies");
        assert_eq!(patched, after, "seed {seed}");
    }
}

#[test]
fn any_pod_keeps_what_is_its_own_and_has_the_proxy_first() {
    for seed in 0..PODS {
        let before = any_pod(&mut Rng::with_seed(seed));
        let after = injected(&before, &settings(&[]));
        let own = names_of(&before["spec"]["initContainers"]);
        let list = names_of(&after["spec"]["initContainers"]);
        let ours = list.len() - own.len();
        assert_eq!(list[ours..], own, "seed {seed}");
        let expected: &[&str] = if ours == 1 { &["weft-proxy"] } else { &["weft-init", "weft-proxy"] };
        assert_eq!(&list[..ours], expected, "seed {seed}");
        assert_eq!(names_of(&after["spec"]["containers"]), names_of(&before["spec"]["containers"]), "seed {seed}");

        let expected_to_stay = probes_of(&before).iter().filter(|probe| probe.contains("\"exec\"")).count();
        let stayed = probes_of(&after).iter().filter(|probe| probe.contains("\"exec\"")).count();
        assert_eq!(stayed, expected_to_stay, "seed {seed}");
        let redirected = probes_of(&after).iter().filter(|probe| probe.contains("/app-probe/")).count();
        assert_eq!(stayed + redirected, probes_of(&after).len(), "seed {seed}");

        let grace = before["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let drain: u64 = variable(&after, "WEFT_DRAIN_SECONDS").expect("set").parse().expect("a number");
        assert!(drain < grace || grace == 0, "seed {seed}: {drain} of {grace}");
    }
}
