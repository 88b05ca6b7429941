//! The command line against a cluster with Weft and the sample shop under load: what an operator asks, and what is answered.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::path::Path;
use std::sync::Once;

use serde_json::Value;
use weft_tests::kubernetes::Cluster;
use weft_tests::kubernetes::mesh::Load;
use weft_tests::process::{run, system};

const SHOP: &str = "shop";

/// The shared cluster with a node, the mesh and the shop; `None` where there can be none.
fn cluster() -> Option<&'static Cluster> {
    static INSTALLED: Once = Once::new();
    let cluster = Cluster::shared()?;
    INSTALLED.call_once(|| {
        cluster.add_nodes(&["one"]);
        cluster.install_mesh(&[]);
        cluster.open_shop(SHOP);
    });
    Some(cluster)
}

fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let text = cluster.weft(&[arguments, &["--kubernetes", "-o", "json"]].concat()).succeeded();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn names<'v>(list: &'v Value, field: &str) -> Vec<&'v str> {
    list.as_array().unwrap().iter().filter_map(|item| item[field].as_str()).collect()
}

/// Has each replica of the shop called: a proxy has only what its workload uses.
fn call(cluster: &Cluster) {
    Load::begin(cluster, SHOP, "http://frontend/", 50).until_more(100);
}

#[test]
fn the_configuration_of_every_pods_proxy_is_told_by_itself_at_whichever_replica_it_is() {
    let Some(cluster) = cluster() else { return };
    for pod in cluster.pod_names(SHOP, "") {
        let shown = json(cluster, &["proxy", "config", &pod, "-n", SHOP]);
        assert_eq!((&shown["source"], &shown["notAsked"]), (&Value::from("proxy"), &Value::Null), "{pod}");
        assert_eq!(shown["proxy"]["workload"], format!("{SHOP}/{pod}"));
    }
    call(cluster);
    let pod = &cluster.pod_names(SHOP, "app=orders")[0];
    let shown = json(cluster, &["proxy", "config", pod, "-n", SHOP]);
    assert_eq!(shown["proxy"]["spiffeId"], "spiffe://cluster.local/ns/shop/sa/orders");
    assert_eq!(shown["certificate"]["identity"], shown["proxy"]["spiffeId"]);
    assert_eq!((&shown["refused"], &shown["unreadable"]), (&Value::Array(Vec::new()), &Value::Array(Vec::new())));
    // Of all the cluster's services the one that this workload called, beside its own ports.
    let outbound = names(&shown["listeners"], "name").into_iter().filter(|name| name.starts_with("outbound/"));
    assert_eq!(outbound.collect::<Vec<_>>(), ["outbound/shop/inventory:80"], "{shown:#}");
    assert_eq!(shown["resources"]["Destination"], 1, "{shown:#}");
    let clusters = shown["clusters"].as_array().unwrap();
    let inventory = clusters.iter().find(|cluster| cluster["name"] == "shop/inventory:80").unwrap();
    assert_eq!(inventory["identities"][0], "spiffe://cluster.local/ns/shop/sa/inventory");
    let callees = cluster.pod_names(SHOP, "app=inventory");
    assert!(
        names(&inventory["endpoints"], "workload").iter().all(|name| callees.iter().any(|pod| name.ends_with(pod)))
    );
    // What it alone knows.
    assert!(inventory["endpoints"][0]["requests"].is_u64(), "{inventory:#}");

    let table = cluster.weft(&["proxy", "config", &format!("{SHOP}/{pod}"), "endpoints", "--kubernetes"]).succeeded();
    assert!(table.contains("shop/inventory:80") && table.contains("mutual"), "{table}");
    let facts = cluster.weft(&["proxy", "config", &format!("{SHOP}/{pod}"), "--kubernetes"]).succeeded();
    assert!(facts.contains("the proxy itself, through the control plane weft-control-plane-"), "{facts}");
    let refusal = cluster.weft(&["proxy", "config", "nobody", "-n", SHOP, "--kubernetes"]).failed(1);
    assert!(refusal.contains("no proxy of shop/nobody is connected") && refusal.contains(pod), "{refusal}");
}

/// A kubeconfig of a service account in the namespace `default`, bound to a role of the mesh if one is named.
fn user(cluster: &Cluster, name: &str, role: Option<&str>) -> String {
    cluster.kubectl(&["-n", "default", "create", "serviceaccount", name]).succeeded();
    if let Some(role) = role {
        let (role, account) = (format!("--role={role}"), format!("--serviceaccount=default:{name}"));
        cluster.kubectl(&["-n", "weft-system", "create", "rolebinding", name, &role, &account]).succeeded();
    }
    let token = cluster.kubectl(&["-n", "default", "create", "token", name]).succeeded();
    let mut config: Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig()).unwrap()).unwrap();
    config["users"][0]["user"] = serde_json::json!({ "token": token.trim() });
    let path = cluster.place().join(format!("{name}.kubeconfig"));
    std::fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_a_pods_proxy_logs_is_changed_by_those_who_may_and_the_change_is_told() {
    let Some(cluster) = cluster() else { return };
    let pod = &cluster.pod_names(SHOP, "app=orders")[0];
    let proxy = format!("{SHOP}/{pod}");
    let [nobody, reader, operator] =
        [("nobody", None), ("looks", Some("weft-reader")), ("acts", Some("weft-operator"))]
            .map(|(name, role)| user(cluster, name, role));
    let level = |kubeconfig: &str, more: &[&str]| {
        cluster.weft(&[&["proxy", "log-level", &proxy, "--kubeconfig", kubeconfig], more].concat())
    };
    assert!(level(&nobody, &[]).failed(1).contains("forbidden"));
    assert_eq!(level(&reader, &[]).succeeded().trim(), "info");
    let refusal = level(&reader, &["debug"]).failed(1);
    assert!(refusal.contains("have yourself bound to role weft-operator in namespace weft-system"), "{refusal}");

    let written = || cluster.nodes().log(SHOP, pod, "weft-proxy");
    assert!(!written().contains("the log level was changed"), "{}", written());
    assert_eq!(level(&operator, &["debug"]).succeeded().trim(), "debug");
    assert_eq!(level(&reader, &[]).succeeded().trim(), "debug");
    cluster.until("the proxy says more", async || {
        let log = written();
        let lines: Vec<&str> = log.lines().skip_while(|line| !line.contains("the log level was changed")).collect();
        if lines.iter().any(|line| line.contains("DEBUG")) { Ok(()) } else { Err(lines.join("\n")) }
    });
    assert_eq!(level(&operator, &["info"]).succeeded().trim(), "info");

    let planes = cluster.pod_names("weft-system", "app.kubernetes.io/component=control-plane");
    let logs: String =
        planes.iter().map(|plane| cluster.nodes().log("weft-system", plane, "weft-control-plane")).collect();
    let change = logs.lines().find(|line| line.contains("the log level of a proxy was changed")).expect("it is logged");
    for part in [proxy.as_str(), "debug", "system:serviceaccount:weft-system:weft-operator JTI=", "cli:"] {
        assert!(change.contains(part), "{part} is missing: {change}");
    }
}

#[test]
fn top_shows_what_goes_through_the_mesh() {
    let Some(cluster) = cluster() else { return };
    let load = Load::begin(cluster, SHOP, "http://frontend/", 50);
    load.until_more(50);
    let shown = json(cluster, &["top"]);
    assert_eq!(shown["silent"], serde_json::json!({}), "every proxy answers through the API server");
    let row = |shown: &Value, name: &str| {
        let rows = shown["rows"].as_array().unwrap();
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {shown:#}")).clone()
    };
    for service in ["shop/frontend:80", "shop/orders:80"] {
        let row = row(&shown, service);
        let rate = row["requestsPerSecond"].as_f64().unwrap();
        assert!(rate > 5.0 && row["success"].as_f64().unwrap() > 0.0 && row["p99Ms"].as_f64().is_some(), "{row}");
    }
    let workloads = json(cluster, &["top", "workloads", "-n", SHOP]);
    let caller = format!("{SHOP}/{}", cluster.pod_names(SHOP, "app=load")[0]);
    assert!(row(&workloads, &caller)["sentRequestsPerSecond"].as_f64().unwrap() > 5.0, "{workloads:#}");
    let edges = cluster.weft(&["top", "edges", "--kubernetes"]).succeeded();
    assert!(edges.contains("shop/frontend -> shop/orders:80"), "{edges}");
    drop(load);
}

#[test]
fn a_support_bundle_has_the_mesh_in_it_and_no_secret() {
    let Some(cluster) = cluster() else { return };
    call(cluster);
    let pod = &cluster.pod_names(SHOP, "app=orders")[0];
    let file = cluster.place().join("support.tar.gz");
    let path = file.to_str().unwrap();
    let proxy = format!("{SHOP}/{pod}");
    let made =
        cluster.weft(&["support-bundle", "--kubernetes", "-f", path, "--proxy", &proxy, "-o", "json"]).succeeded();
    let made: Value = serde_json::from_str(&made).unwrap();
    let missing = names(&made["missing"], "part");
    // A node in miniature gives no logs; everything else is there.
    assert!(!missing.is_empty() && missing.iter().all(|part| part.split('.').next_back() == Some("log")), "{made:#}");
    let directory = cluster.place().join("support");
    std::fs::create_dir(&directory).unwrap();
    run(system("tar").args(["-xzf", path, "--strip-components=1", "-C"]).arg(&directory)).succeeded();
    let read =
        |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    assert!(read(&format!("proxies/{proxy}/metrics.txt")).contains("weft_xds_updates_applied_total"));
    assert!(read(&format!("proxies/{proxy}/configuration.json")).contains("shop/inventory:80"));
    let dump = read(&format!("proxies/{proxy}/config_dump.json"));
    assert!(dump.contains("shop/inventory:80") && dump.contains("in_flight"), "{dump}");
    assert!(read("documents.json").contains("inventory") && read("check.json").contains("webhooks"));
    assert!(read("objects/deployments.json").contains("weft-control-plane"));

    let key = cluster.kubectl(&["-n", "weft-system", "get", "secret", "weft-root", "-o", "jsonpath={.data.tls\\.key}"]);
    assert!(!key.stdout.is_empty());
    let all =
        |directory: &Path| run(system("grep").args(["-rlE", "PRIVATE KEY|eyJ[A-Za-z0-9_-]{10}"]).arg(directory)).stdout;
    assert_eq!(all(&directory), "");
    let again = cluster.weft(&["support-bundle", "--kubernetes", "-f", path]).failed(1);
    assert!(again.contains("name another file with --file"), "{again}");
}
