//! Calls to workloads by their own addresses, at ports that no service has.

use std::collections::BTreeSet;

use weft_core::model::{EndpointSource, InboundTls};
use weft_proxy::xds::decode;

use super::*;
use crate::document::{Captured, WorkloadState};

/// Captured workloads `NAME ACCOUNT ADDRESS,... PORT,...` of namespace shop; the ports go past their proxies.
fn captured(lines: &[&str]) -> Vec<Document> {
    let workload = |line: &&str| {
        let [name, account, addresses, except] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let addresses: Vec<String> = addresses.split(',').map(|address| format!("\"{address}\"")).collect();
        let text = format!(
            "kind: Workload\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {name}}}}}\nspec: {{addresses: [{}], serviceAccount: {account}}}\n",
            addresses.join(",")
        );
        let Document::Workload(mut workload) = documents(&text).remove(0) else { panic!() };
        let except_ports: BTreeSet<u16> = except.split(',').map(|port| port.parse().unwrap()).collect();
        workload.spec.captured = Some(Captured { except_ports });
        Document::Workload(workload)
    };
    lines.iter().map(workload).collect()
}

/// `NAME IDENTITY but PORTS: ADDRESSES` of every cluster of any port, as proxies read it.
fn peers(all: &[Document]) -> Vec<String> {
    let compiled = compile(all, "shop.local", &Seen::default());
    let of_type = |url: &'static str| compiled.shared.iter().filter(move |resource| resource.type_url == url);
    let describe = |resource: &Resource| {
        let spec = decode::cluster(&resource.body).unwrap();
        let EndpointSource::AnyPort { endpoints, except } = &spec.endpoints else { return None };
        let assignment = of_type(names::ENDPOINTS).find(|set| set.name == endpoints.as_str()).unwrap();
        let endpoints = decode::endpoints(&assignment.body).unwrap().endpoints;
        let addresses: Vec<String> = endpoints.iter().map(|endpoint| endpoint.address.ip().to_string()).collect();
        let identity = &spec.tls.as_ref().unwrap().identities[0];
        Some(format!("{} {identity} but {except:?}: {}", spec.name, addresses.join(" ")))
    };
    of_type(names::CLUSTER).filter_map(describe).collect()
}

#[test]
fn workloads_that_are_reached_in_the_same_way_share_a_cluster() {
    let mut all = captured(&[
        "web-1 web 10.1.0.2,fd00::2 15020",
        "web-2 web 10.1.0.1 15020",
        "web-3 web 10.1.0.3 9100,15020",
        "db-0 db 10.1.0.4 15020",
    ]);
    let expected = [
        "peers/shop/db/15020 spiffe://shop.local/ns/shop/sa/db but [15020]: 10.1.0.4",
        "peers/shop/web/9100,15020 spiffe://shop.local/ns/shop/sa/web but [9100, 15020]: 10.1.0.3",
        "peers/shop/web/15020 spiffe://shop.local/ns/shop/sa/web but [15020]: 10.1.0.1 10.1.0.2 fd00::2",
    ];
    assert_eq!(peers(&all), expected);
    all.reverse();
    assert_eq!(peers(&all), expected, "whatever the order");
}

#[test]
fn workloads_that_are_not_captured_as_a_whole_are_passed_over() {
    let compiled = compiled(SHOP);
    assert!(!compiled.shared.iter().any(|resource| resource.name.starts_with("peers/")));
    assert!(!compiled.scoped.values().flatten().any(|resource| resource.name == "inbound/any"));
}

#[test]
fn readiness_changes_nothing_of_peers() {
    let mut all = captured(&["web-1 web 10.1.0.1 15020"]);
    let before = peers(&all);
    for state in [WorkloadState::Unhealthy, WorkloadState::Draining] {
        let Document::Workload(workload) = &mut all[0] else { panic!() };
        workload.spec.state = state;
        assert_eq!(peers(&all), before);
    }
}

#[test]
fn an_address_that_is_given_again_is_the_one_s_that_stays() {
    for (leaves, stays) in [("a", "b"), ("b", "a")] {
        let mut all = captured(&["a a 10.1.0.1 15020", "b b 10.1.0.1 15020"]);
        for document in &mut all {
            let Document::Workload(workload) = document else { panic!() };
            if workload.metadata.name == leaves {
                workload.spec.state = WorkloadState::Draining;
            }
        }
        let identity = format!("spiffe://shop.local/ns/shop/sa/{stays}");
        assert_eq!(peers(&all), [format!("peers/shop/{stays}/15020 {identity} but [15020]: 10.1.0.1")]);
    }
}

#[test]
fn a_captured_workload_takes_calls_at_any_port_as_the_mesh_takes_them() {
    for (mtls, tls) in [("strict", InboundTls::Strict), ("permissive", InboundTls::Permissive)] {
        let mut all = captured(&["web-1 web 10.1.0.1 15020"]);
        all.extend(documents(&format!("kind: Mesh\nmetadata: {{name: default}}\nspec: {{mtls: {mtls}}}\n")));
        let compiled = compile(&all, "shop.local", &Seen::default());
        let scoped = &compiled.scoped["shop/web-1"];
        assert_eq!(names_of(scoped), ["Cluster inbound/any", "Listener inbound/any"], "there is no service");
        let cluster = decode::cluster(&scoped[0].body).unwrap();
        assert_eq!((cluster.endpoints, cluster.tls), (EndpointSource::OriginalDestination, None));
        let listener = decode::listener(&scoped[1].body).unwrap();
        assert_eq!((listener.tls, listener.protocol), (tls, weft_core::model::Protocol::Detect));
        assert!(listener.addresses.iter().all(|address| address.ip().is_unspecified()));
        assert_eq!(listener.addresses.len(), 2, "of both families");
    }
}

#[test]
fn a_captured_workload_is_called_at_the_address_its_caller_used() {
    let mut all = captured(&["web web 10.1.0.1 15020"]);
    all.extend(documents(
        "kind: Service\nmetadata: {name: web, namespace: shop}\nspec: {addresses: [10.96.0.7], ports: [{port: 80, targetPort: 8080}], selector: {app: web}}\n",
    ));
    let compiled = compile(&all, "shop.local", &Seen::default());
    let scoped = &compiled.scoped["shop/web"];
    let cluster: &Resource = scoped.iter().find(|resource| resource.name == "inbound/8080").unwrap();
    let cluster = decode::cluster(&cluster.body).unwrap();
    assert_eq!(cluster.endpoints, EndpointSource::OriginalDestination);
    assert_eq!(cluster.service.to_string(), "shop/web:80");
}
