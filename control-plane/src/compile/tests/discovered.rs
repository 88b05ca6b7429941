//! Services whose endpoints discovery found.

use std::collections::HashMap;

use super::*;
use crate::document::{Discovered, DiscoveredEndpoint, EndpointGroup, Locality, PortMapping, WorkloadState};

/// Workloads `NAME ADDRESS[,ADDRESS]` of namespace shop, each of an account of its own.
fn workloads(lines: &[&str]) -> Vec<Document> {
    let workload = |line: &&str| {
        let (name, addresses) = line.split_once(' ').unwrap();
        let text = format!(
            "kind: Workload\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{addresses: [{}], serviceAccount: of-{name}}}\n",
            addresses.split(',').map(|address| format!("\"{address}\"")).collect::<Vec<_>>().join(",")
        );
        documents(&text).remove(0)
    };
    lines.iter().map(workload).collect()
}

/// A service with the port 80 and groups of endpoints, `TARGET: ADDRESS POD STATE`; a pod that begins with `+` is meshed.
fn service(name: &str, protocol: &str, headless: bool, groups: &[(u16, &[&str])]) -> Document {
    let addresses = if headless { "" } else { "addresses: [10.96.0.7], " };
    let text = format!(
        "kind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{addresses}ports: [{{port: 80, protocol: {protocol}}}], selector: {{a: b}}}}\n"
    );
    let Document::Service(mut service) = documents(&text).remove(0) else { panic!() };
    let endpoint = |line: &&str| {
        let [address, pod, state] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let (is_meshed, pod) = pod.strip_prefix('+').map_or((false, pod), |pod| (true, pod));
        DiscoveredEndpoint {
            address: address.parse().unwrap(),
            state: serde_json::from_value(state.into()).unwrap(),
            pod: (pod != "-").then(|| pod.to_owned()),
            workload: is_meshed.then(|| format!("shop/{pod}")),
            locality: None,
        }
    };
    let group = |(target_port, lines): &(u16, &[&str])| EndpointGroup {
        ports: vec![PortMapping { port: 80, target_port: *target_port }],
        endpoints: lines.iter().map(endpoint).collect(),
    };
    service.spec.backends = Backends::Discovered(Discovered { headless, groups: groups.iter().map(group).collect() });
    Document::Service(service)
}

fn assignment(compiled: &Compiled, name: &str) -> Vec<String> {
    let assignment: ClusterLoadAssignment = one(&compiled.shared, names::ENDPOINTS, name);
    let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
    let line = |endpoint: &LbEndpoint| {
        let health = ["unknown", "healthy", "unhealthy", "draining"][endpoint.health_status as usize];
        // One without a proxy says so beside others that have one, and nothing where none has.
        let workload = endpoint.metadata.as_ref().and_then(|metadata| metadata.filter_metadata.get(names::METADATA));
        let meshed = if workload.is_some() { "meshed" } else { "plain" };
        format!("{} {health} {meshed}", endpoint_address(endpoint))
    };
    endpoints.map(line).collect()
}

fn listeners(compiled: &Compiled) -> HashMap<String, Vec<String>> {
    let listeners = compiled.shared.iter().filter(|resource| resource.type_url == names::LISTENER);
    let addresses = |resource: &Resource| {
        let listener = Listener::decode(resource.body.clone()).unwrap();
        let others = listener.additional_addresses.iter().map(|additional| additional.address.as_ref());
        let all = std::iter::once(listener.address.as_ref()).chain(others).map(socket).collect();
        (resource.name.clone(), all)
    };
    listeners.map(addresses).collect()
}

#[test]
fn endpoints_have_the_port_of_their_group_and_their_own_proxies_listen_there() {
    let mut all = workloads(&["a 10.1.0.1", "b 10.1.0.2"]);
    all.push(service(
        "orders",
        "http",
        false,
        &[(8080, &["10.1.0.1 +a ready", "10.1.0.9 plain ready"]), (9090, &["10.1.0.2 +b draining"])],
    ));
    let compiled = compile(&all, "shop.local", &Seen::default());
    assert_eq!(
        assignment(&compiled, "shop/orders:80"),
        ["10.1.0.1 8080 healthy meshed", "10.1.0.9 8080 healthy plain", "10.1.0.2 9090 draining meshed"]
    );
    let inbound = |workload: &str| names_of(&compiled.scoped[workload]);
    assert_eq!(inbound("shop/a"), ["Cluster inbound/8080", "Listener inbound/8080"]);
    assert_eq!(inbound("shop/b"), ["Cluster inbound/9090", "Listener inbound/9090"]);
    assert_eq!(listeners(&compiled)["outbound/shop/orders:80"], ["10.96.0.7 80"]);
    assert_eq!(compiled.warnings, []);
}

#[test]
fn a_workload_that_is_not_there_yet_gets_nothing_rather_than_plaintext() {
    let all = [service("orders", "http", false, &[(8080, &["10.1.0.1 +a ready"])])];
    let compiled = compile(&all, "shop.local", &Seen::default());
    assert_eq!(assignment(&compiled, "shop/orders:80"), [] as [&str; 0]);
    let cluster: Cluster = one(&compiled.shared, names::CLUSTER, "shop/orders:80");
    assert!(cluster.transport_socket.is_some(), "what is of the mesh stays so");
}

#[test]
fn a_service_of_plain_endpoints_alone_is_plaintext() {
    let all = [service("orders", "http", false, &[(8080, &["10.1.0.1 a ready"])])];
    let compiled = compile(&all, "shop.local", &Seen::default());
    let cluster: Cluster = one(&compiled.shared, names::CLUSTER, "shop/orders:80");
    assert!(cluster.transport_socket.is_none());
}

#[test]
fn each_pod_of_a_headless_service_is_reached_as_itself_by_its_own_identity() {
    let mut all = workloads(&["db-0 10.1.0.1,fd00::1", "db-1 10.1.0.2"]);
    let endpoints: &[&str] = &[
        "10.1.0.1 +db-0 ready",
        "fd00::1 +db-0 ready",
        "10.1.0.2 +db-1 unhealthy",
        "10.1.0.3 old ready",
        "192.0.2.7 - ready",
    ];
    all.push(service("db", "tcp", true, &[(5432, endpoints)]));
    let compiled = compile(&all, "shop.local", &Seen::default());
    let listeners = listeners(&compiled);
    let expected = [
        ("outbound/shop/db-0.db:80", vec!["10.1.0.1 5432", "fd00::1 5432"]),
        ("outbound/shop/db-1.db:80", vec!["10.1.0.2 5432"]),
        ("outbound/shop/old.db:80", vec!["10.1.0.3 5432"]),
        ("outbound/shop/192-0-2-7.db:80", vec!["192.0.2.7 5432"]),
    ];
    assert_eq!(listeners.len(), expected.len(), "{listeners:?}");
    for (name, addresses) in expected {
        assert_eq!(listeners[name], addresses, "{name}");
    }
    // Whoever calls a pod has chosen it: its state is the caller's business.
    assert_eq!(assignment(&compiled, "shop/db-1.db:80"), ["10.1.0.2 5432 healthy meshed"]);
    assert_eq!(assignment(&compiled, "shop/old.db:80"), ["10.1.0.3 5432 healthy plain"]);
    let may_answer = |name: &str| may_answer(&one(&compiled.shared, names::CLUSTER, name));
    assert_eq!(may_answer("shop/db-1.db:80"), Some(vec!["spiffe://shop.local/ns/shop/sa/of-db-1".to_owned()]));
    assert_eq!(may_answer("shop/old.db:80"), None);
    assert_eq!(names_of(&compiled.scoped["shop/db-0"]), ["Cluster inbound/5432", "Listener inbound/5432"]);
}

#[test]
fn a_pod_of_two_headless_services_has_one_listener() {
    let mut all = workloads(&["db-0 10.1.0.1"]);
    for name in ["db", "db-peers"] {
        all.push(service(name, "tcp", true, &[(5432, &["10.1.0.1 +db-0 ready"])]));
    }
    let compiled = compile(&all, "shop.local", &Seen::default());
    assert_eq!(listeners(&compiled).into_keys().collect::<Vec<_>>(), ["outbound/shop/db-0.db:80"]);
}

#[test]
fn what_a_workload_saw_counts_for_the_port_it_has_there() {
    let mut all = workloads(&["a 10.1.0.1", "b 10.1.0.2"]);
    all.push(service("mail", "auto", false, &[(25, &["10.1.0.1 +a ready"]), (2525, &["10.1.0.2 +b ready"])]));
    let verdicts = Verdicts::default();
    let first = compile(&all, "shop.local", &verdicts.seen());
    verdicts.published(first.said());
    // The right port of b, a port of a that is b's.
    let account = |name: &str| SpiffeId::workload("shop.local", "shop", &format!("of-{name}"));
    verdicts.report(&account("b"), "b", [(2525, Verdict::ServerFirst)]).unwrap();
    verdicts.report(&account("a"), "a", [(2525, Verdict::Http1)]).unwrap();
    let compiled = compile(&all, "shop.local", &verdicts.seen());
    assert_eq!(compiled.verdicts.get("shop/mail:80"), Some(&Verdict::ServerFirst));
}

#[test]
fn states_are_told_as_they_are() {
    let states = [WorkloadState::Ready, WorkloadState::Draining, WorkloadState::Unhealthy];
    let lines = states.map(|state| format!("10.1.0.{} p{} {state}", state as u8 + 1, state as u8));
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let compiled = compile(&[service("orders", "tcp", false, &[(1, &lines)])], "shop.local", &Seen::default());
    let expected = ["10.1.0.1 1 healthy plain", "10.1.0.2 1 draining plain", "10.1.0.3 1 unhealthy plain"];
    assert_eq!(assignment(&compiled, "shop/orders:80"), expected);
}

#[test]
fn endpoints_stand_together_by_where_they_are() {
    let Document::Service(mut orders) = service(
        "orders",
        "tcp",
        false,
        &[(1, &["10.1.0.1 a ready", "10.1.0.2 b ready", "10.1.0.3 c draining", "10.1.0.4 d ready"])],
    ) else {
        panic!()
    };
    let Backends::Discovered(discovered) = &mut orders.spec.backends else { panic!() };
    for (index, zone) in [(0, "z2"), (1, "z1"), (2, "z2")] {
        let locality = Locality { region: "r".into(), zone: zone.into() };
        discovered.groups[0].endpoints[index].locality = Some(locality);
    }
    let compiled = compile(&[Document::Service(orders)], "shop.local", &Seen::default());
    let assignment: ClusterLoadAssignment = one(&compiled.shared, names::ENDPOINTS, "shop/orders:80");
    let lines = assignment.endpoints.iter().map(|of_zone| {
        let locality = of_zone.locality.as_ref().unwrap();
        let addresses: Vec<String> = of_zone.lb_endpoints.iter().map(endpoint_address).collect();
        let weight = of_zone.load_balancing_weight.as_ref().unwrap().value;
        format!("{}/{} {weight}: {}", locality.region, locality.zone, addresses.join(", "))
    });
    // Those who weigh localities give each of those that are ready the same.
    let expected = ["/ 1: 10.1.0.4 1", "r/z1 1: 10.1.0.2 1", "r/z2 1: 10.1.0.1 1, 10.1.0.3 1"];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    let resource = compiled.shared.iter().find(|resource| resource.type_url == names::ENDPOINTS).unwrap();
    weft_proxy::xds::decode::decode(resource.type_url, &resource.name, &resource.body).unwrap();
}

#[test]
fn a_workload_that_says_where_it_is_is_there() {
    let text = "kind: Service\nmetadata: {name: a}\nspec: {addresses: [10.96.0.9], ports: [{port: 80}], selector: {app: a}}\n---\nkind: Workload\nmetadata: {name: w, labels: {app: a, topology.kubernetes.io/zone: z1}}\nspec: {addresses: [10.97.0.1]}\n";
    let compiled = compiled(text);
    let assignment: ClusterLoadAssignment = one(&compiled.shared, names::ENDPOINTS, "default/a:80");
    assert_eq!(assignment.endpoints[0].locality.as_ref().unwrap().zone, "z1");
}
