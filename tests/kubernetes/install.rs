//! What `weft install` and `weft uninstall` do to a real API server, and what its roles allow there.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use weft_tests::kubernetes::Cluster;

/// A cluster has one mesh: tests that install take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the mesh away, however a test ends.
struct Installed<'c>(&'c Cluster);

impl<'c> Installed<'c> {
    fn new(cluster: &'c Cluster, arguments: &[&str]) -> Self {
        let installed = Self(cluster);
        cluster.weft(&[&["install", "--no-wait"], arguments].concat()).succeeded();
        installed
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        let uninstalled = self.0.weft(&["uninstall"]);
        if !std::thread::panicking() {
            uninstalled.succeeded();
        }
    }
}

/// How often each action stands in a plan.
fn counts(plan: &str) -> Vec<(String, usize)> {
    let steps: Value = serde_json::from_str(plan).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for step in steps.as_array().unwrap() {
        *counts.entry(step["action"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts.into_iter().collect()
}

/// Everything that carries our label.
fn ours(cluster: &Cluster) -> String {
    let kinds = "namespaces,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings,secrets,configmaps,leases,\
                 services,poddisruptionbudgets,deployments,daemonsets,horizontalpodautoscalers,\
                 mutatingwebhookconfigurations,validatingwebhookconfigurations";
    let selector = ["-A", "-l", "app.kubernetes.io/name=weft", "--ignore-not-found", "-o", "name"];
    cluster.kubectl(&[&["get", kinds][..], &selector].concat()).succeeded()
}

/// Every capability of an installation turned on, then off, then gone.
fn comes_and_goes(cluster: &Cluster) {
    let _turn = turn();
    let all_on = ["--set", "capture=cni", "--set", "autoscaling.enabled=true"];
    cluster.weft(&["check", "--pre"]).succeeded();
    let plan =
        |more: &[&str]| counts(&cluster.weft(&[&["install", "--plan", "-o", "json"], more].concat()).succeeded());
    let [(created, all)] = &plan(&all_on)[..] else { panic!("not everything is created: {:?}", plan(&all_on)) };
    assert_eq!((created.as_str(), ours(cluster).as_str()), ("created", ""), "a plan changes nothing");

    let installed = Installed::new(cluster, &all_on);
    assert_eq!(plan(&all_on), [("unchanged".to_owned(), *all)]);
    assert_eq!(plan(&[]), [("unchanged".to_owned(), *all)], "settings are remembered");
    assert!(ours(cluster).contains("daemonset.apps/weft-cni"));
    cluster.weft(&["upgrade", "--no-wait", "--set", "capture=init"]).succeeded();
    assert!(!ours(cluster).contains("weft-cni"), "what is not wanted any more goes: {}", ours(cluster));
    // The bundle of another field manager stays when we apply ours again.
    let bundle = "[{\"op\": \"add\", \"path\": \"/webhooks/0/clientConfig/caBundle\", \"value\": \"Y2E=\"}]";
    cluster
        .kubectl(&["patch", "mutatingwebhookconfiguration", "weft-injector", "--type=json", "-p", bundle])
        .succeeded();
    cluster.weft(&["install", "--no-wait", "--set", "logLevel=debug"]).succeeded();
    let path = "jsonpath={.webhooks[0].clientConfig.caBundle}";
    let kept = cluster.kubectl(&["get", "mutatingwebhookconfiguration", "weft-injector", "-o", path]).succeeded();
    assert_eq!(kept, "Y2E=");

    drop(installed);
    assert_eq!(ours(cluster), "", "nothing of ours is left");
    let namespace =
        cluster.kubectl(&["get", "namespace", "weft-system", "--ignore-not-found", "-o", "name"]).succeeded();
    assert_eq!(namespace, "");
    assert!(cluster.weft(&["uninstall"]).succeeded().contains("nothing of weft is installed"));
}

#[test]
fn an_installation_comes_once_and_leaves_nothing_in_the_newest_kubernetes() {
    let Some(cluster) = Cluster::shared() else { return };
    comes_and_goes(cluster);
}

#[test]
fn an_installation_comes_once_and_leaves_nothing_in_the_oldest_kubernetes() {
    let Some(cluster) = Cluster::oldest() else { return };
    comes_and_goes(cluster);
}

#[test]
fn the_roles_allow_what_the_programs_do_and_nothing_more() {
    let Some(cluster) = Cluster::shared() else { return };
    let _turn = turn();
    let _installed = Installed::new(cluster, &["--set", "capture=cni"]);
    let may = |account: &str, question: &str| {
        let user = format!("--as=system:serviceaccount:weft-system:{account}");
        let words: Vec<&str> = ["auth", "can-i", user.as_str()].into_iter().chain(question.split(' ')).collect();
        cluster.kubectl(&words).stdout.trim() == "yes"
    };
    for (account, question, expected) in [
        ("weft-control-plane", "watch pods -A", true),
        ("weft-control-plane", "watch endpointslices.discovery.k8s.io -A", true),
        ("weft-control-plane", "create tokenreviews.authentication.k8s.io", true),
        ("weft-control-plane", "update secrets/weft-root -n weft-system", true),
        ("weft-control-plane", "patch mutatingwebhookconfigurations/weft-injector", true),
        ("weft-control-plane", "get secrets/other -n weft-system", false),
        ("weft-control-plane", "list secrets -n weft-system", false),
        ("weft-control-plane", "get secrets -n default", false),
        ("weft-control-plane", "patch mutatingwebhookconfigurations/other", false),
        ("weft-control-plane", "patch services -n shop", false),
        ("weft-control-plane", "delete pods -n shop", false),
        ("weft-control-plane", "create pods -n weft-system", false),
        ("weft-control-plane", "patch nodes", false),
        ("weft-control-plane", "create serviceaccounts --subresource=token -n weft-system", false),
        ("weft-cni", "get pods -n shop", true),
        ("weft-cni", "patch nodes", true),
        ("weft-cni", "get daemonsets/weft-cni -n weft-system", true),
        ("weft-cni", "get daemonsets/other -n weft-system", false),
        ("weft-cni", "list pods -n shop", false),
        ("weft-cni", "get secrets -n weft-system", false),
        ("weft-reader", "list pods -n weft-system", false),
    ] {
        assert_eq!(may(account, question), expected, "{account}: {question}");
    }
    // Every rule of the roles, of kinds too that nobody has defined yet.
    let checked = cluster.weft(&["check", "-o", "json"]);
    assert_eq!(checked.code, Some(1), "no control plane runs: {checked:?}");
    let findings: Vec<Value> = serde_json::from_str(&checked.stdout).unwrap();
    let verdict = findings.iter().find(|finding| finding["check"] == "control plane's permissions").unwrap();
    assert_eq!(verdict["verdict"], "ok", "{verdict}");
}
