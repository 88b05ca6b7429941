//! What happens while replicas or the API server are away, and what is left after the end. One cluster goes through all
//! of it: each part leaves a mesh that runs.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use serde_json::{Value, json};
use weft_tests::kubernetes::{Cluster, Version};

use super::{
    SYSTEM, apply, ask, condition, idle, install, is_ready, log_of, metrics, nothing_was_forbidden, rehearse, replicas,
    until_custom,
};

#[test]
fn a_mesh_survives_the_loss_of_its_parts_and_leaves_nothing_behind() {
    let Some(cluster) = Cluster::start(Version::Newest) else { return };
    install(&cluster, 2);
    cluster.namespace("shop", &[("weft.dev/inject", "enabled")]);
    cluster.namespace("beside", &[]);
    let first = replicas(&cluster);
    two_replicas_have_one_root(&cluster, &first);
    roots_that_somebody_changes_are_back_and_the_rest_stays(&cluster);
    let event = a_pod_without_a_proxy_has_an_event(&cluster);
    another_replica_leads_when_the_first_is_killed(&cluster);
    the_next_leader_counts_it_up(&cluster, &event);
    apply(&cluster, &idle("shop", "it").to_string()).succeeded();
    cluster.until_object::<Pod>("shop", "it", "is ready", is_ready);
    // An API server that has just started knows no roles for a moment, and says so.
    nothing_was_forbidden(&cluster, &[first, replicas(&cluster)].concat());
    the_last_state_is_served_while_the_api_server_is_away(&cluster);
    no_pod_is_refused_while_replicas_are_replaced(&cluster);
    labelled_pods_wait_for_the_injector_and_no_others_do(&cluster);
    nothing_was_forbidden(&cluster, &replicas(&cluster));
    nothing_is_left_behind(&cluster);
}

fn two_replicas_have_one_root(cluster: &Cluster, replicas: &[String]) {
    let logs: Vec<String> = replicas.iter().map(|replica| log_of(cluster, replica)).collect();
    let made = logs.iter().filter(|log| log.contains("root certificate created")).count();
    assert_eq!((logs.len(), made), (2, 1), "{logs:#?}");
    let secret = cluster.until_object::<Secret>(SYSTEM, "weft-root", "is there", |_| true);
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let holder = leader(cluster);
    assert!(replicas.contains(&holder), "{holder}");
}

fn leader(cluster: &Cluster) -> String {
    let led = |lease: &Lease| {
        lease.spec.as_ref().is_some_and(|spec| spec.holder_identity.as_deref().is_some_and(|it| !it.is_empty()))
    };
    let lease = cluster.until_object::<Lease>(SYSTEM, "weft-leader", "is held", led);
    lease.spec.unwrap().holder_identity.unwrap()
}

fn injector(cluster: &Cluster) -> Value {
    let words = ["get", "mutatingwebhookconfiguration", "weft-injector", "-o", "json", "--show-managed-fields"];
    serde_json::from_str(&cluster.kubectl(&words).succeeded()).unwrap()
}

fn roots(configuration: &Value) -> Vec<Value> {
    let webhooks = configuration["webhooks"].as_array().unwrap();
    webhooks.iter().map(|webhook| webhook["clientConfig"]["caBundle"].clone()).collect()
}

fn roots_that_somebody_changes_are_back_and_the_rest_stays(cluster: &Cluster) {
    let before = injector(cluster);
    assert!(roots(&before).iter().all(Value::is_string), "{before:#}");
    let patch = json!([
        {"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": ""},
        {"op": "add", "path": "/webhooks/0/timeoutSeconds", "value": 7},
        {"op": "add", "path": "/metadata/annotations", "value": {"example.com/note": "theirs"}},
    ]);
    let words = ["patch", "mutatingwebhookconfiguration", "weft-injector", "--type=json", "-p", &patch.to_string()];
    cluster.kubectl(&words).succeeded();
    let after = cluster.until("the roots are back", async || {
        let now = injector(cluster);
        if roots(&now) == roots(&before) { Ok(now) } else { Err(now["webhooks"].to_string()) }
    });
    assert_eq!(after["webhooks"][0]["timeoutSeconds"], 7);
    assert_eq!(after["metadata"]["annotations"]["example.com/note"], "theirs");
    let fields = after["metadata"]["managedFields"].as_array().unwrap();
    let ours = fields.iter().find(|entry| entry["manager"] == "weft-bundle").unwrap();
    let webhook = json!({".": {}, "f:clientConfig": {"f:caBundle": {}}, "f:name": {}});
    let owned: Vec<&Value> = ours["fieldsV1"]["f:webhooks"].as_object().unwrap().values().collect();
    assert_eq!(owned, [&webhook, &webhook], "the keeper of the roots owns them and nothing else");

    cluster.kubectl(&["delete", "configmap", "weft-bundle", "-n", SYSTEM]).succeeded();
    cluster.until_object::<k8s_openapi::api::core::v1::ConfigMap>(SYSTEM, "weft-bundle", "is back", |_| true);
}

/// The name of the Event.
fn a_pod_without_a_proxy_has_an_event(cluster: &Cluster) -> String {
    apply(cluster, &idle("beside", "early").to_string()).succeeded();
    cluster.kubectl(&["label", "namespace", "beside", "weft.dev/inject=enabled"]).succeeded();
    let name = cluster.until("the pod has an Event", async || {
        let words = ["get", "events", "-n", "beside", "--field-selector", "reason=Unmeshed", "-o", "name"];
        let name = cluster.kubectl(&words).succeeded();
        if name.is_empty() { Err("there is none".to_owned()) } else { Ok(name.trim().to_owned()) }
    });
    name.trim_start_matches("event/").to_owned()
}

/// It knows nothing of what the former one said; the API server does.
fn the_next_leader_counts_it_up(cluster: &Cluster, event: &str) {
    cluster.until_object::<Event>("beside", event, "has been said again", |event| {
        event.series.as_ref().is_some_and(|series| series.count == 2)
    });
    cluster.kubectl(&["label", "namespace", "beside", "weft.dev/inject-"]).succeeded();
}

fn another_replica_leads_when_the_first_is_killed(cluster: &Cluster) {
    let first = leader(cluster);
    cluster.kubectl(&["delete", "pod", &first, "-n", SYSTEM, "--grace-period=0", "--force"]).succeeded();
    let second = cluster.until("another replica leads", async || {
        let words = ["get", "lease", "weft-leader", "-n", SYSTEM, "-o", "jsonpath={.spec.holderIdentity}"];
        let holder = cluster.kubectl(&words).succeeded();
        if holder.is_empty() || holder == first { Err(holder) } else { Ok(holder) }
    });
    // It does a leader's work: it was listening before.
    let before = roots(&injector(cluster));
    let patch = json!([{"op": "remove", "path": "/webhooks/1/clientConfig/caBundle"}]).to_string();
    cluster
        .kubectl(&["patch", "mutatingwebhookconfiguration", "weft-injector", "--type=json", "-p", &patch])
        .succeeded();
    cluster.until("the roots are back", async || {
        let now = roots(&injector(cluster));
        if now == before { Ok(()) } else { Err(json!(now).to_string()) }
    });
    assert!(log_of(cluster, &second).contains("the roots were put in place"));
    all_replicas_run(cluster);
}

fn all_replicas_run(cluster: &Cluster) {
    cluster.until_object::<Deployment>(SYSTEM, "weft-control-plane", "runs", |deployment| {
        let status = deployment.status.clone().unwrap_or_default();
        let generation = deployment.metadata.generation;
        status.ready_replicas == Some(2) && status.replicas == Some(2) && status.observed_generation == generation
    });
}

/// How many watches of a replica know the API server's state, and how many there are.
fn watches(cluster: &Cluster, replica: &str) -> Result<(u64, u64), String> {
    let answer = ask(cluster, replica, "/metrics")?;
    let all = answer.body.lines().filter(|line| line.starts_with("weft_kubernetes_watch_synced{")).count() as u64;
    Ok((metrics(cluster, replica)?.sum("weft_kubernetes_watch_synced", &[]), all))
}

fn the_last_state_is_served_while_the_api_server_is_away(cluster: &Cluster) {
    let all = replicas(cluster);
    let documents = |replica: &str| metrics(cluster, replica).unwrap().sum("weft_control_plane_documents", &[]);
    let proxies = || {
        all.iter().map(|replica| metrics(cluster, replica).unwrap().sum("weft_control_plane_proxies", &[])).sum::<u64>()
    };
    let before = documents(&all[0]);
    assert!(before >= 3 && proxies() == 1, "{before} {}", proxies());
    cluster.kill_api();
    for replica in &all {
        cluster.until("every watch is known to be lost", async || match watches(cluster, replica)? {
            (0, all) if all > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let ready = ask(cluster, replica, "/ready").unwrap();
        assert_eq!(ready.status, 200, "{ready:?}");
        assert_eq!(documents(replica), before, "what was seen last stays in force");
        assert!(
            metrics(cluster, replica).unwrap().has("weft_kubernetes_watch_errors_total", &[("resource", "services")])
        );
    }
    // A proxy that loses its control plane's connection comes back to the same state, by the certificate it has.
    let log = cluster.nodes().log("shop", "it", "weft-proxy");
    assert!(log.contains("the first configuration is complete"), "{log}");
    assert_eq!(proxies(), 1);
    cluster.start_api();
    let document = "{apiVersion: weft.dev/v1alpha1, kind: Service, metadata: {name: back, namespace: shop}, \
                    spec: {ports: [{port: 80}], endpoints: [{address: 192.0.2.1}]}}";
    cluster.until("the control plane takes documents again", async || {
        let taken = apply(cluster, document);
        if taken.code == Some(0) { Ok(()) } else { Err(taken.stderr) }
    });
    for replica in &all {
        cluster.until("every watch is back", async || match watches(cluster, replica)? {
            (synced, all) if synced == all => Ok(()),
            other => Err(format!("{other:?}")),
        });
        cluster.until("the new document is known", async || {
            let known = documents(replica);
            if known == before + 1 { Ok(()) } else { Err(known.to_string()) }
        });
    }
    until_custom(cluster, "weft.dev/services", "shop", "back", |it| {
        condition(&it["status"]["conditions"], "Accepted").starts_with("True Accepted 1")
    });
    cluster.kubectl(&["delete", "wsvc", "back", "-n", "shop"]).succeeded();
}

fn no_pod_is_refused_while_replicas_are_replaced(cluster: &Cluster) {
    let old = replicas(cluster);
    let resource = "deployment/weft-control-plane";
    cluster.kubectl(&["rollout", "restart", resource, "-n", SYSTEM]).succeeded();
    let mut tried = 0;
    let is_over = || {
        let names = cluster.kubectl(&["get", "pods", "-n", SYSTEM, "-o", "name"]).succeeded();
        names.lines().count() == 2 && !old.iter().any(|replica| names.contains(replica.as_str()))
    };
    cluster.until("all replicas are replaced", async || {
        for _ in 0..5 {
            let words = ["apply", "--server-side", "--dry-run=server", "-o", "name", "-f", "-"];
            cluster.kubectl_with(&words, &idle("shop", "meanwhile").to_string()).succeeded();
            tried += 1;
        }
        if is_over() { Ok(()) } else { Err(format!("{tried} pods were taken")) }
    });
    assert!(tried >= 10, "{tried}");
    all_replicas_run(cluster);
}

fn labelled_pods_wait_for_the_injector_and_no_others_do(cluster: &Cluster) {
    let scale = |count: &str| {
        cluster.kubectl(&["scale", "deployment", "weft-control-plane", "-n", SYSTEM, "--replicas", count]).succeeded()
    };
    scale("0");
    cluster.until("no control plane runs", async || {
        let left = cluster.kubectl(&["get", "pods", "-n", SYSTEM, "-o", "name"]).succeeded();
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    let mut asking = idle("beside", "it");
    asking["metadata"]["labels"]["weft.dev/inject"] = json!("enabled");
    let mut silent = idle("shop", "silent");
    silent["metadata"]["labels"]["weft.dev/inject"] = json!("disabled");
    let mut system = idle("kube-system", "it");
    system["spec"]["automountServiceAccountToken"] = json!(false);
    for (pod, is_taken) in
        [(idle("shop", "new"), false), (asking, false), (idle("beside", "it"), true), (silent, true), (system, true)]
    {
        let taken = rehearse(cluster, &pod);
        assert_eq!(taken.is_ok(), is_taken, "{pod}: {taken:?}");
        let refused = taken.err().map(|status| status.message).unwrap_or_default();
        assert!(is_taken || refused.contains("failed calling webhook"), "{refused}");
    }
    // Documents wait too, deleting does not, and what runs runs.
    let document = json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "default"}, "spec": {"mtls": "permissive"},
    });
    assert!(rehearse(cluster, &document).is_err());
    let checked = cluster.weft(&["check", "-o", "json"]);
    let findings: Vec<Value> = serde_json::from_str(&checked.stdout).unwrap();
    for check in ["control plane", "injection"] {
        let is_told = findings.iter().any(|finding| finding["check"] == check && finding["verdict"] == "failed");
        assert!(checked.code == Some(1) && is_told, "{check}: {findings:#?}");
    }
    let running = cluster.until_object::<Pod>("shop", "it", "is ready", is_ready);
    assert_eq!(running.status.unwrap().phase.as_deref(), Some("Running"));
    scale("2");
    all_replicas_run(cluster);
    cluster.until("labelled pods are taken again", async || {
        let words = ["apply", "--server-side", "-f", "-"];
        let taken = cluster.kubectl_with(&words, &idle("shop", "new").to_string());
        if taken.code == Some(0) { Ok(()) } else { Err(taken.stderr) }
    });
    cluster.until_object::<Pod>("shop", "new", "is ready", is_ready);
}

fn nothing_is_left_behind(cluster: &Cluster) {
    let refused = cluster.weft(&["uninstall"]);
    assert!(refused.code == Some(1) && refused.stderr.contains("shop/it"), "{refused:#?}");
    cluster.kubectl(&["delete", "namespace", "shop"]).succeeded();
    cluster.weft(&["uninstall", "--crds"]).succeeded();
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).succeeded();
    assert!(!kinds.contains("weft.dev"), "{kinds}");
    let kinds: Vec<&str> = kinds.lines().filter(|kind| !kind.contains("events")).collect();
    let words = ["get", &kinds.join(","), "-A", "-o", "name", "--ignore-not-found"];
    let left = cluster.kubectl(&words).succeeded();
    let ours: Vec<&str> = left.lines().filter(|name| name.contains("weft")).collect();
    assert!(ours.is_empty(), "{ours:#?}");
}
