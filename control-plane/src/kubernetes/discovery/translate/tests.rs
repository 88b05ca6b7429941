use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::kubernetes::discovery::mirror::Step;
use crate::kubernetes::discovery::objects::Update;

/// Objects as they stand in a cluster, from YAML with short kinds.
pub(in crate::kubernetes::discovery) fn updates(text: &str) -> Vec<Update> {
    let documents = text.split("\n---\n").filter(|text| !text.trim().is_empty());
    documents
        .map(|text| update(serde_yaml_ng::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))))
        .collect()
}

fn of<T: DeserializeOwned>(object: Value) -> T {
    serde_json::from_value(object).unwrap()
}

fn update(mut object: Value) -> Update {
    let kind = object.as_object_mut().unwrap().remove("kind").unwrap();
    if object.pointer("/metadata/namespace").is_none() {
        object["metadata"]["namespace"] = "shop".into();
    }
    match kind.as_str().unwrap() {
        "Service" => {
            let service: Service = of(object);
            Update::Service(Step::Set(ObjectName::of(&service.metadata), ServiceFacts::of(&service)))
        }
        "EndpointSlice" => {
            let slice: EndpointSlice = of(object);
            Update::Slice(Step::Set(ObjectName::of(&slice.metadata), SliceFacts::of(&slice)))
        }
        "Pod" => {
            let pod: Pod = of(object);
            Update::Pod(Step::Set(ObjectName::of(&pod.metadata), PodFacts::of(&pod)))
        }
        "Node" => {
            let node: Node = of(object);
            let labels = node.metadata.labels.unwrap_or_default();
            let name = ObjectName::new("", node.metadata.name.as_deref().unwrap());
            Update::Node(Step::Set(name, Locality::of_labels(&labels)))
        }
        other => panic!("{other}"),
    }
}

/// All documents of a cluster, made at once.
pub(in crate::kubernetes::discovery) fn translate(objects: &Objects) -> BTreeMap<Key, Document> {
    let changed = Changed {
        services: objects.services.iter().map(|(name, _)| name.clone()).collect(),
        slices: objects.slices.iter().map(|(name, _)| name.clone()).collect(),
        pods: objects.pods.iter().map(|(name, _)| name.clone()).collect(),
        nodes: BTreeSet::new(),
        grants: BTreeSet::new(),
        custom: BTreeSet::new(),
    };
    let documents = Translator::default().follow(objects, changed).into_iter();
    documents.filter_map(|(key, document)| Some((key, document?))).collect()
}

fn translated(text: &str) -> BTreeMap<Key, Document> {
    let mut objects = Objects::default();
    for update in updates(text) {
        objects.take(update);
    }
    translate(&objects)
}

/// A pod with a proxy, ready.
fn meshed(name: &str, address: &str) -> String {
    format!(
        "kind: Pod
metadata: {{name: {name}, labels: {{app: orders}}}}
spec: {{serviceAccountName: orders, containers: [{{name: app}}], initContainers: [{{name: weft-proxy, restartPolicy: Always}}]}}
status: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}], conditions: [{{type: Ready, status: 'True'}}]}}
---
"
    )
}

/// A slice of a service with one port, given as `NAME=NUMBER`, and endpoints `ADDRESS POD`.
fn slice(name: &str, service: &str, port: &str, endpoints: &[&str]) -> String {
    let (port_name, number) = port.split_once('=').unwrap();
    let endpoints: Vec<String> = endpoints
        .iter()
        .map(|endpoint| {
            let (address, pod) = endpoint.split_once(' ').unwrap();
            format!(
                "{{addresses: [\"{address}\"], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {pod}}}}}"
            )
        })
        .collect();
    format!(
        "kind: EndpointSlice
metadata: {{name: {name}, labels: {{kubernetes.io/service-name: {service}}}}}
addressType: IPv4
ports: [{{name: \"{port_name}\", port: {number}, protocol: TCP}}]
endpoints: [{}]
---
",
        endpoints.join(", ")
    )
}

const ORDERS: &str = "kind: Service
metadata: {name: orders}
spec: {clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, \"fd00::7\"], selector: {app: orders}, ports: [{name: http, port: 80, targetPort: web}]}
---
";

fn service_spec(documents: &BTreeMap<Key, Document>, name: &str) -> ServiceSpec {
    match documents.get(&Key::new(Kind::Service, "shop", name)) {
        Some(Document::Service(service)) => service.spec.clone(),
        other => panic!("{name}: {other:?} in {:?}", documents.keys()),
    }
}

/// The endpoints of a service, each as `PORT>ADDRESS:TARGET STATE [WORKLOAD]`, sorted.
fn endpoints(documents: &BTreeMap<Key, Document>, name: &str) -> Vec<String> {
    let Backends::Discovered(discovered) = service_spec(documents, name).backends else { panic!("{name}") };
    let mut lines = Vec::new();
    for group in &discovered.groups {
        for (ports, endpoint) in group.ports.iter().flat_map(|port| group.endpoints.iter().map(move |e| (port, e))) {
            let workload = endpoint.workload.as_deref().unwrap_or("plain");
            lines.push(format!(
                "{}>{}:{} {} {workload}",
                ports.port, endpoint.address, ports.target_port, endpoint.state
            ));
        }
    }
    lines.sort();
    lines
}

#[test]
fn a_service_has_its_cluster_addresses_and_the_endpoints_of_its_slices() {
    let text =
        [ORDERS, &slice("orders-a", "orders", "http=8080", &["10.1.0.1 orders-1"]), &meshed("orders-1", "10.1.0.1")];
    let documents = translated(&text.concat());
    let spec = service_spec(&documents, "orders");
    assert_eq!(spec.addresses, ["10.96.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
    assert_eq!(
        (spec.ports[0].port, spec.ports[0].target_port, spec.ports[0].protocol.to_string()),
        (80, 8080, "http".into())
    );
    assert_eq!(endpoints(&documents, "orders"), ["80>10.1.0.1:8080 ready shop/orders-1"]);
    let Some(Document::Workload(workload)) = documents.get(&Key::new(Kind::Workload, "shop", "orders-1")) else {
        panic!("{documents:?}")
    };
    assert_eq!(workload.spec.service_account, "orders");
    assert_eq!(workload.spec.addresses, ["10.1.0.1".parse::<IpAddr>().unwrap()]);
    assert_eq!(workload.metadata.labels["app"], "orders");
}

#[test]
fn a_ports_protocol_is_what_says_it_most_exactly() {
    // appProtocol, name, annotation -> protocol.
    let table = [
        ("grpc", "http", "80=tcp", "grpc"),
        ("", "grpc-orders", "80=tcp", "grpc"),
        ("example.com/own", "https", "80=tcp", "tls"),
        ("", "web", "80=http1", "http1"),
        ("", "", " 80 = http2 , 81=tcp", "http2"),
        ("", "web", "81=http", "auto"),
        ("", "web", "80=smtp,x", "auto"),
        ("", "", "", "auto"),
    ];
    for (app_protocol, name, annotation, expected) in table {
        let app_protocol = if app_protocol.is_empty() { "null" } else { app_protocol };
        let text = format!(
            "kind: Service
metadata: {{name: orders, annotations: {{weft.dev/protocols: \"{annotation}\"}}}}
spec: {{clusterIP: 10.96.0.7, ports: [{{name: \"{name}\", port: 80, appProtocol: {app_protocol}}}]}}"
        );
        let found = service_spec(&translated(&text), "orders").ports[0].protocol.to_string();
        assert_eq!(found, expected, "{app_protocol} {name} {annotation}");
    }
}

#[test]
fn ports_of_udp_and_sctp_are_left_out_and_so_is_a_service_of_them_alone() {
    let text = "kind: Service
metadata: {name: dns}
spec: {clusterIP: 10.96.0.10, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53, protocol: TCP}, {name: s, port: 9, protocol: SCTP}]}
---
kind: Service
metadata: {name: quic}
spec: {clusterIP: 10.96.0.11, ports: [{port: 443, protocol: UDP}]}";
    let documents = translated(text);
    let ports: Vec<_> = service_spec(&documents, "dns").ports.into_iter().map(|port| port.name).collect();
    assert_eq!(ports, [Some("dns-tcp".to_owned())]);
    assert!(!documents.contains_key(&Key::new(Kind::Service, "shop", "quic")));
}

#[test]
fn a_named_target_port_may_be_another_number_in_each_slice() {
    let text = [
        ORDERS,
        &slice("orders-a", "orders", "http=8080", &["10.1.0.1 orders-1", "10.1.0.2 orders-2"]),
        &slice("orders-b", "orders", "http=9090", &["10.1.0.3 orders-3"]),
        &slice("orders-c", "orders", "admin=7070", &["10.1.0.4 orders-3"]),
        &meshed("orders-1", "10.1.0.1"),
        &meshed("orders-2", "10.1.0.2"),
        &meshed("orders-3", "10.1.0.3"),
    ];
    assert_eq!(
        endpoints(&translated(&text.concat()), "orders"),
        [
            "80>10.1.0.1:8080 ready shop/orders-1",
            "80>10.1.0.2:8080 ready shop/orders-2",
            "80>10.1.0.3:9090 ready shop/orders-3"
        ]
    );
}

#[test]
fn an_endpoints_state_follows_its_conditions() {
    // ready, serving, terminating as the slice has them; the pod is being deleted; publishNotReadyAddresses -> state.
    // Beside it stands another endpoint that is ready.
    let table = [
        ("true", "true", "false", false, false, "ready"),
        ("null", "null", "null", false, false, "ready"),
        ("false", "false", "false", false, false, "unhealthy"),
        ("false", "null", "null", false, false, "unhealthy"),
        ("false", "true", "true", false, false, "draining"),
        ("false", "false", "true", false, false, "unhealthy"),
        ("true", "true", "false", true, false, "draining"),
        ("true", "true", "true", true, true, "ready"),
        ("true", "false", "false", false, true, "ready"),
    ];
    for (ready, serving, terminating, deleted, publishes, expected) in table {
        let deleted = if deleted { ", deletionTimestamp: \"2026-01-01T00:00:00Z\"" } else { "" };
        let text = format!(
            "kind: Service
metadata: {{name: orders}}
spec: {{clusterIP: 10.96.0.7, publishNotReadyAddresses: {publishes}, ports: [{{port: 80}}]}}
---
kind: EndpointSlice
metadata: {{name: orders-a, labels: {{kubernetes.io/service-name: orders}}}}
addressType: IPv4
ports: [{{name: \"\", port: 80}}]
endpoints:
- {{addresses: [10.1.0.1], conditions: {{ready: {ready}, serving: {serving}, terminating: {terminating}}}, targetRef: {{kind: Pod, name: orders-1}}}}
- {{addresses: [10.1.0.2]}}
---
kind: Pod
metadata: {{name: orders-1{deleted}}}
spec: {{containers: [{{name: app}}]}}
status: {{phase: Running, podIPs: [{{ip: 10.1.0.1}}]}}"
        );
        let found = endpoints(&translated(&text), "orders");
        assert_eq!(found, [&format!("80>10.1.0.1:80 {expected} plain"), "80>10.1.0.2:80 ready plain"], "{text}");
    }
}

#[test]
fn while_nobody_is_ready_those_that_still_serve_take_the_traffic() {
    let text = "kind: Service
metadata: {name: orders}
spec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}
---
kind: EndpointSlice
metadata: {name: orders-a, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: \"\", port: 80}]
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: false, serving: true, terminating: true}}
- {addresses: [10.1.0.2], conditions: {ready: false, serving: false, terminating: false}}";
    assert_eq!(
        endpoints(&translated(text), "orders"),
        ["80>10.1.0.1:80 ready plain", "80>10.1.0.2:80 unhealthy plain"]
    );
}

#[test]
fn an_endpoint_that_stands_in_two_slices_counts_once_with_its_better_state() {
    let moving =
        slice("orders-b", "orders", "http=8080", &["10.1.0.1 orders-1"]).replace("ready: true", "ready: false");
    let text = [
        ORDERS,
        &slice("orders-a", "orders", "http=8080", &["10.1.0.1 orders-1"]),
        &moving,
        &meshed("orders-1", "10.1.0.1"),
    ];
    assert_eq!(endpoints(&translated(&text.concat()), "orders"), ["80>10.1.0.1:8080 ready shop/orders-1"]);
}

#[test]
fn whether_a_pod_takes_plaintext_is_known_before_it_gets_any_traffic() {
    let slice = slice("orders-a", "orders", "http=8080", &["10.1.0.1 orders-1"]);
    let pod = meshed("orders-1", "10.1.0.1");
    let table = [
        // The slice came before its pod, or the pod's address is not known yet, or it has none of its own any more.
        (String::new(), &[][..]),
        (pod.replace("podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}], ", ""), &[]),
        (pod.replace("phase: Running", "phase: Failed"), &[]),
        (pod.replace("phase: Running", "phase: Succeeded"), &[]),
        (pod.replace("phase: Running", "phase: Pending"), &["80>10.1.0.1:8080 ready shop/orders-1"]),
        (pod.replace("podIPs: [{ip: 10.1.0.1}], ", ""), &["80>10.1.0.1:8080 ready shop/orders-1"]),
        // No proxy; the node's network; an address of another network than the pod's; the application's own sidecar.
        (pod.replace("name: weft-proxy", "name: log"), &["80>10.1.0.1:8080 ready plain"]),
        (pod.replace("spec: {", "spec: {hostNetwork: true, "), &["80>10.1.0.1:8080 ready plain"]),
        (pod.replace("ip: 10.1.0.1", "ip: 10.9.0.1"), &["80>10.1.0.1:8080 ready plain"]),
        (
            pod.replace(
                "containers: [{name: app}], initContainers: [{name: weft-proxy, restartPolicy: Always}]",
                "containers: [{name: weft-proxy}]",
            ),
            &["80>10.1.0.1:8080 ready shop/orders-1"],
        ),
        // Connections of the port go past the proxy.
        (
            pod.replace("labels: {app: orders}", "annotations: {weft.dev/exclude-inbound-ports: \"9090, 8080\"}"),
            &["80>10.1.0.1:8080 ready plain"],
        ),
        (
            pod.replace("labels: {app: orders}", "annotations: {weft.dev/exclude-inbound-ports: \"9090\"}"),
            &["80>10.1.0.1:8080 ready shop/orders-1"],
        ),
    ];
    for (pod, expected) in table {
        let text = [ORDERS, &slice, &pod].concat();
        assert_eq!(endpoints(&translated(&text), "orders"), expected, "{pod}");
    }
}

#[test]
fn ports_that_go_past_the_proxy_are_plaintext_beside_others_that_do_not() {
    let text = "kind: Service
metadata: {name: orders}
spec: {clusterIP: 10.96.0.7, ports: [{name: http, port: 80}, {name: metrics, port: 9090}]}
---
kind: EndpointSlice
metadata: {name: orders-a, labels: {kubernetes.io/service-name: orders}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: metrics, port: 9090}]
endpoints: [{addresses: [10.1.0.1], targetRef: {kind: Pod, name: orders-1}}]
---
"
    .to_owned()
        + &meshed("orders-1", "10.1.0.1")
            .replace("labels: {app: orders}", "annotations: {weft.dev/exclude-inbound-ports: \"9090\"}");
    assert_eq!(
        endpoints(&translated(&text), "orders"),
        ["80>10.1.0.1:8080 ready shop/orders-1", "9090>10.1.0.1:9090 ready plain"]
    );
}

#[test]
fn a_service_without_selector_has_the_endpoints_somebody_wrote() {
    let text = "kind: Service
metadata: {name: database}
spec: {clusterIP: 10.96.0.9, ports: [{port: 5432, targetPort: 5433}]}
---
kind: EndpointSlice
metadata: {name: database-1, labels: {kubernetes.io/service-name: database}}
addressType: IPv4
ports: [{name: \"\", port: 5433}]
endpoints: [{addresses: [192.0.2.1]}, {addresses: [10.1.0.1]}]
---
kind: EndpointSlice
metadata: {name: database-2, labels: {kubernetes.io/service-name: database}}
addressType: FQDN
ports: [{name: \"\", port: 5433}]
endpoints: [{addresses: [database.example]}]
---
"
    .to_owned()
        + &meshed("orders-1", "10.1.0.1");
    // An address of a pod with a proxy gets no plaintext whoever wrote it down.
    assert_eq!(
        endpoints(&translated(&text), "database"),
        ["5432>10.1.0.1:5433 ready shop/orders-1", "5432>192.0.2.1:5433 ready plain"]
    );
}

#[test]
fn an_alias_for_a_name_is_no_document() {
    let text = "kind: Service
metadata: {name: outside}
spec: {type: ExternalName, externalName: api.example, ports: [{port: 443}]}";
    assert_eq!(translated(text), BTreeMap::new());
    // Nor is what was a service before.
    let mut objects = Objects::default();
    for update in updates(&[ORDERS, &text.replace("name: outside", "name: orders")].concat()) {
        objects.take(update);
    }
    assert_eq!(translate(&objects), BTreeMap::new());
}

#[test]
fn a_headless_service_has_no_address_and_says_so() {
    let headless = ORDERS
        .replace("clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, \"fd00::7\"]", "clusterIP: None, clusterIPs: [None]");
    let v6 = slice("orders-b", "orders", "http=8080", &["fd00:1::1 orders-0"]);
    let pod = meshed("orders-0", "10.1.0.1")
        .replace("podIPs: [{ip: 10.1.0.1}]", "podIPs: [{ip: 10.1.0.1}, {ip: \"fd00:1::1\"}]");
    let text = [headless, slice("orders-a", "orders", "http=8080", &["10.1.0.1 orders-0"]), v6, pod].concat();
    let documents = translated(&text);
    let spec = service_spec(&documents, "orders");
    assert_eq!(spec.addresses, [] as [IpAddr; 0]);
    let Backends::Discovered(discovered) = spec.backends else { panic!() };
    assert!(discovered.headless);
    assert_eq!(
        endpoints(&documents, "orders"),
        ["80>10.1.0.1:8080 ready shop/orders-0", "80>fd00:1::1:8080 ready shop/orders-0"]
    );
}

#[test]
fn a_service_that_waits_for_its_address_is_not_headless() {
    let waiting = ORDERS.replace("clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, \"fd00::7\"], ", "");
    let Backends::Discovered(discovered) = service_spec(&translated(&waiting), "orders").backends else { panic!() };
    assert!(!discovered.headless);
}

#[test]
fn a_pods_state_is_its_workloads() {
    let ready = meshed("orders-1", "10.1.0.1");
    let table = [
        (ready.clone(), Some("ready")),
        (ready.replace("status: 'True'", "status: 'False'"), Some("unhealthy")),
        (
            ready.replace("name: orders-1", "name: orders-1, deletionTimestamp: \"2026-01-01T00:00:00Z\""),
            Some("draining"),
        ),
        (ready.replace("name: weft-proxy", "name: log"), None),
        (ready.replace("phase: Running", "phase: Succeeded"), None),
        (ready.replace("podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}], ", ""), None),
    ];
    for (text, expected) in table {
        let documents = translated(&text);
        let found = documents.values().next().map(|document| match document {
            Document::Workload(workload) => workload.spec.state.to_string(),
            other => panic!("{other:?}"),
        });
        assert_eq!(found.as_deref(), expected, "{text}");
    }
}

#[test]
fn an_address_that_is_given_again_belongs_to_its_new_pod() {
    let going = meshed("a-going", "10.1.0.1")
        .replace("name: a-going", "name: a-going, deletionTimestamp: \"2026-01-01T00:00:00Z\"");
    let also_going = going.replace("a-going", "z-going");
    let service = "kind: Service
metadata: {name: by-hand}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}
---
kind: EndpointSlice
metadata: {name: by-hand-1, labels: {kubernetes.io/service-name: by-hand}}
addressType: IPv4
ports: [{name: \"\", port: 80}]
endpoints: [{addresses: [10.1.0.1]}]
---
";
    let text = [service, &going, &meshed("new", "10.1.0.1"), &also_going].concat();
    assert_eq!(endpoints(&translated(&text), "by-hand"), ["80>10.1.0.1:80 ready shop/new"]);
}

#[test]
fn every_document_survives_being_written_and_read_back() {
    let headless = ORDERS
        .replace("clusterIP: 10.96.0.7, clusterIPs: [10.96.0.7, \"fd00::7\"]", "clusterIP: None, clusterIPs: [None]");
    let text = [
        ORDERS,
        &headless.replace("name: orders}", "name: each}"),
        &slice("orders-a", "orders", "http=8080", &["10.1.0.1 orders-1"]),
        &slice("each-a", "each", "http=8080", &["10.1.0.1 orders-1"])
            .replace("conditions: {ready: true}", "conditions: {ready: false}"),
        &meshed("orders-1", "10.1.0.1"),
    ];
    let documents = translated(&text.concat());
    assert_eq!(documents.len(), 3);
    for document in documents.into_values() {
        let text = document.to_json().to_string();
        assert_eq!(Document::from_json(serde_json::from_str(&text).unwrap()).unwrap(), document, "{text}");
    }
}

#[test]
fn an_endpoint_is_where_its_node_is() {
    let node = "kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z1}}
---
";
    let pod = meshed("orders-1", "10.1.0.1").replace("spec: {", "spec: {nodeName: n1, ");
    let slice = slice("orders-a", "orders", "http=8080", &["10.1.0.1 orders-1"]);
    let of_slice = slice.replace("conditions:", "nodeName: n2, zone: z2, conditions:");
    let somewhere = |region: &str, zone: &str| Some(Locality { region: region.into(), zone: zone.into() });
    let table = [
        ([node, &pod, &slice], somewhere("r", "z1")),
        // What the pod says counts before what the slice says of it, and a slice is better than nothing.
        ([node, &pod, &of_slice], somewhere("r", "z1")),
        (["", &pod, &of_slice], somewhere("", "z2")),
        (["", &pod, &slice], None),
        (["kind: Node\nmetadata: {name: n1, labels: {a: b}}\n---\n", &pod, &slice], None),
    ];
    for (objects, expected) in table {
        let documents = translated(&[ORDERS, &objects.concat()].concat());
        let Backends::Discovered(discovered) = service_spec(&documents, "orders").backends else { panic!() };
        assert_eq!(discovered.groups[0].endpoints[0].locality, expected, "{objects:?}");
        let workload = &documents[&Key::new(Kind::Workload, "shop", "orders-1")];
        let of_node = if objects[0] == node { expected } else { None };
        assert_eq!(Locality::of_labels(&workload.metadata().labels), of_node, "{objects:?}");
    }
    // The address is another pod's than the slice says, on its own node.
    let plain = slice.replace(", targetRef: {kind: Pod, name: orders-1}", ", nodeName: n2");
    let documents = translated(&[ORDERS, node, &pod, &plain].concat());
    let Backends::Discovered(discovered) = service_spec(&documents, "orders").backends else { panic!() };
    assert_eq!(discovered.groups[0].endpoints[0].locality, somewhere("r", "z1"));
}
