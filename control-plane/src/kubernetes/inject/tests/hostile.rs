//! Pods that cannot have a proxy, and pods that must not.

use super::*;

fn refusal(pod: &Value) -> String {
    match inject(pod, &shop(), &settings(&[])) {
        Err(error) => error.to_string(),
        Ok(other) => panic!("{other:?} of {pod:#}"),
    }
}

#[test]
fn a_pod_that_takes_what_the_proxy_needs_is_refused_by_name() {
    let container = |fields: Value| {
        let mut container = json!({"name": "web"});
        merge(&mut container, &fields);
        json!({"spec": {"containers": [container]}})
    };
    let port = |port: u16| container(json!({"ports": [{"containerPort": port}]}));
    let ours = |list: &str, name: &str| json!({"spec": {list: [{"name": name}]}});
    for (fields, words) in [
        (port(15001), "container web uses port 15001, which is the proxy's for outbound connections"),
        (port(15006), "port 15006, which is the proxy's for inbound connections"),
        (port(15020), "port 15020, which is the proxy's for probes and metrics"),
        (port(15000), "port 15000, which is the proxy's for administration"),
        (
            json!({"spec": {"initContainers": [{"name": "side", "restartPolicy": "Always", "ports": [{"containerPort": 15020}]}]}}),
            "container side uses port 15020",
        ),
        (container(json!({"securityContext": {"runAsUser": 14001}})), "container web runs as user 14001"),
        (json!({"spec": {"securityContext": {"runAsUser": 14001}}}), "container web runs as user 14001"),
        (ours("containers", "weft-proxy"), "a container is called `weft-proxy`"),
        (ours("containers", "weft-init"), "a container is called `weft-init`"),
        (ours("initContainers", "weft-proxy"), "an init container is called `weft-proxy`"),
        (ours("volumes", "weft-token"), "a volume is called `weft-token`"),
        (
            json!({"metadata": {"labels": {"weft.dev/inject": "true"}}}),
            "label weft.dev/inject is `true`; allowed: enabled, disabled",
        ),
        (json!({"spec": null}), "`spec`"),
        (json!({"spec": {"containers": "web"}}), "`spec.containers` is not what Kubernetes takes there"),
        (json!({"spec": {"containers": [{"name": "a", "image": 5}]}}), "`spec.containers[0].image`"),
        (
            json!({"metadata": {"annotations": {"weft.dev/proxy-cpu-request": "2", "weft.dev/proxy-cpu-limit": "1"}}}),
            "the proxy's cpu request 2 is above its limit 1; change annotation weft.dev/proxy-cpu-request",
        ),
        (
            container(json!({"readinessProbe": {"httpGet": {"port": 15020, "path": "/app-probe/web/readiness"}}})),
            "the readiness probe of container web asks the proxy, but what it asked before is not known",
        ),
        (
            json!({"metadata": {"annotations": {"weft.dev/injected": "x"}}, "spec": {"initContainers":
                [{"name": "weft-proxy", "env": [{"name": "WEFT_APP_PROBES", "value": "{"}]}]}}),
            "has an unreadable WEFT_APP_PROBES",
        ),
    ] {
        let refusal = refusal(&pod(&fields));
        assert!(refusal.contains(words), "{refusal}");
    }
}

#[test]
fn what_only_resembles_a_conflict_is_no_conflict() {
    for fields in [
        json!({"spec": {"containers": [{"name": "web", "ports": [{"containerPort": 15001, "protocol": "UDP"}]}]}}),
        json!({"spec": {"securityContext": {"runAsUser": 14001}, "containers": [{"name": "web", "securityContext": {"runAsUser": 1}}]}}),
        json!({"metadata": {"annotations": {"weft.dev/injected": "spoofed"}}}),
        json!({"metadata": {"annotations": {"weft.dev/unknown": "x"}, "labels": null}}),
        json!({"metadata": null}),
        json!({"spec": {"initContainers": null, "volumes": null}}),
        json!({"spec": {"containers": []}}),
    ] {
        let after = injected(&pod(&fields), &settings(&[]));
        assert_eq!(names_of(&after["spec"]["initContainers"])[..2], ["weft-init", "weft-proxy"]);
    }
}

#[test]
fn long_and_unprintable_values_do_not_get_far() {
    let value = format!("\u{1b}[31m{}", "x".repeat(100_000));
    let refusal = refusal(&pod(&json!({"metadata": {"annotations": {"weft.dev/capture": value}}})));
    assert!(refusal.len() < 400 && !refusal.contains('\u{1b}'), "{refusal}");
}

#[test]
fn a_pods_label_counts_before_its_namespaces_and_some_never_have_a_proxy() {
    let labelled = |value: &str| pod(&json!({"metadata": {"labels": {"weft.dev/inject": value}}}));
    let unlabelled = |name: &str| NamespaceFacts { name: name.into(), ..NamespaceFacts::default() };
    let spec = |fields: Value| pod(&json!({ "spec": fields }));
    let mirror = pod(&json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}));
    for (pod, namespace, expected) in [
        (pod(&json!({})), shop(), None),
        (labelled("enabled"), unlabelled("shop"), None),
        (labelled("disabled"), shop(), Some(Reason::Disabled)),
        (pod(&json!({})), unlabelled("shop"), Some(Reason::NamespaceNotEnabled("shop".into()))),
        (
            labelled("enabled"),
            NamespaceFacts::enabled("kube-system"),
            Some(Reason::ExemptNamespace("kube-system".into())),
        ),
        (labelled("enabled"), unlabelled("weft-system"), Some(Reason::ExemptNamespace("weft-system".into()))),
        (labelled("nonsense"), unlabelled("kube-public"), Some(Reason::ExemptNamespace("kube-public".into()))),
        (mirror, shop(), Some(Reason::MirrorPod)),
        (spec(json!({"hostNetwork": true})), shop(), Some(Reason::HostNetwork)),
        (spec(json!({"hostNetwork": false})), shop(), None),
        (spec(json!({"os": {"name": "windows"}})), shop(), Some(Reason::Windows)),
        (spec(json!({"os": {"name": "linux"}})), shop(), None),
    ] {
        let got = match inject(&pod, &namespace, &settings(&[])) {
            Ok(Injected::Unchanged(reason)) => Some(reason),
            Ok(Injected::Changed(_)) => None,
            Err(error) => panic!("{error} of {pod:#}"),
        };
        assert_eq!(got, expected, "{pod:#}");
    }
}

#[test]
fn a_namespace_that_forbids_the_init_container_gets_its_remedy() {
    for (level, capture, refused) in [
        ("restricted", "init", true),
        ("baseline", "init", true),
        ("privileged", "init", false),
        ("restricted", "cni", false),
    ] {
        let mut namespace = shop();
        namespace.labels.insert(POD_SECURITY.to_owned(), level.to_owned());
        let pod = pod(&json!({"metadata": {"annotations": {"weft.dev/capture": capture}}}));
        let outcome = inject(&pod, &namespace, &settings(&[]));
        assert_eq!(outcome.is_err(), refused, "{level} {capture}: {outcome:?}");
        if let Err(error) = outcome {
            let text = error.to_string();
            assert!(text.contains(&format!("namespace shop has Pod Security level `{level}`")), "{text}");
            assert!(text.contains("CNI plugin") && text.contains("weft.dev/capture"), "{text}");
        }
    }
}
