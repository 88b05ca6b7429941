mod destinations;
mod discovered;
mod incremental;

pub(crate) use incremental::Told;
use proptest::prelude::*;
use prost::Message;
use weft_proto::envoy::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::envoy::config::cluster::v3::cluster::ClusterDiscoveryType;
use weft_proto::envoy::envoy::config::core::v3::transport_socket::ConfigType as SocketConfig;
use weft_proto::envoy::envoy::config::core::v3::{address, socket_address};
use weft_proto::envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use weft_proto::envoy::envoy::config::endpoint::v3::{ClusterLoadAssignment, LbEndpoint};
use weft_proto::envoy::envoy::config::listener::v3::filter::ConfigType as FilterConfig;
use weft_proto::envoy::envoy::config::listener::v3::{FilterChain, Listener};
use weft_proto::envoy::envoy::config::route::v3::RouteConfiguration;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use weft_proto::envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use weft_proto::envoy::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::ClusterSpecifier;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use weft_proto::envoy::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use weft_proto::envoy::envoy::r#type::matcher::v3::string_matcher::MatchPattern;

use weft_core::model::UpstreamProtocol;

use super::*;
use crate::document::{Source, read};
use crate::verdicts::{self, Undeclared, Verdicts};

mod http_routes;
mod peers;

fn documents(text: &str) -> Vec<Document> {
    let text = text.replace("kind:", "apiVersion: weft.dev/v1alpha1\nkind:");
    let sources = [Source { name: "a.yaml".into(), text }];
    read(&sources).unwrap().into_iter().map(|located| located.document).collect()
}

/// All that is made of a mesh, flat.
#[derive(Debug, PartialEq)]
struct Compiled {
    shared: Vec<Resource>,
    /// By workload, `NAMESPACE/NAME`.
    scoped: BTreeMap<String, Vec<Resource>>,
    accounts: BTreeMap<String, String>,
    verdicts: BTreeMap<String, Verdict>,
    undeclared: BTreeMap<String, Undeclared>,
    routes: BTreeMap<Key, Vec<ParentStatus>>,
    warnings: Vec<Warning>,
}

impl Compiled {
    /// What is told of undeclared ports when this is in force.
    fn said(&self) -> verdicts::Change {
        verdicts::Change {
            services: self.verdicts.iter().map(|(port, verdict)| (port.clone(), Some(*verdict))).collect(),
            undeclared: self.undeclared.iter().map(|(name, own)| (name.clone(), Some(own.clone()))).collect(),
        }
    }
}

fn compile<'d>(documents: impl IntoIterator<Item = &'d Document>, trust_domain: &str, seen: &Seen) -> Compiled {
    let documents: Vec<&Document> = documents.into_iter().collect();
    let captured = documents.iter().filter_map(|document| match document {
        Document::Workload(workload) => Some(workload),
        _ => None,
    });
    let of_peers: Vec<Resource> = super::peers::alike(captured)
        .into_iter()
        .flat_map(|(alike, addresses)| super::peers::outbound(alike, &addresses, trust_domain))
        .collect();
    let Made { services, workloads, routes, warnings } = make(documents, trust_domain, seen, |_| true);
    let verdicts = services.values().flat_map(|made| made.verdicts.clone()).collect();
    let shared = services.into_values().flat_map(|made| made.resources).chain(of_peers).collect();
    let name = |key: &Key| format!("{}/{}", key.namespace, key.name);
    let undeclared = |(key, made): (&Key, &OfWorkload)| {
        let own = Undeclared { service_account: made.account.clone(), ports: made.undeclared.clone() };
        (!own.ports.is_empty()).then(|| (name(key), own))
    };
    let undeclared = workloads.iter().filter_map(undeclared).collect();
    let accounts = workloads.iter().map(|(key, made)| (name(key), made.account.clone())).collect();
    let scoped = workloads.into_iter().map(|(key, made)| (name(&key), made.resources)).collect();
    Compiled { shared, scoped, accounts, verdicts, undeclared, routes, warnings }
}

fn compiled(text: &str) -> Compiled {
    compile(&documents(text), "shop.local", &Seen::default())
}

/// One resource of a type and name, decoded.
fn one<M: Message + Default>(resources: &[Resource], type_url: &str, name: &str) -> M {
    let found: Vec<&Resource> = resources.iter().filter(|r| r.type_url == type_url && r.name == name).collect();
    assert_eq!(found.len(), 1, "{type_url} {name}: {:?}", names_of(resources));
    M::decode(found[0].body.clone()).unwrap()
}

fn names_of(resources: &[Resource]) -> Vec<String> {
    let short = |url: &str| url.rsplit('.').next().unwrap().to_owned();
    resources.iter().map(|resource| format!("{} {}", short(resource.type_url), resource.name)).collect()
}

fn socket(address: Option<&weft_proto::envoy::envoy::config::core::v3::Address>) -> String {
    let Some(address::Address::SocketAddress(socket)) = address.and_then(|a| a.address.as_ref()) else {
        panic!("{address:?}")
    };
    let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!("{socket:?}") };
    format!("{} {port}", socket.address)
}

fn endpoint_address(endpoint: &LbEndpoint) -> String {
    let Some(HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { panic!("{endpoint:?}") };
    socket(endpoint.address.as_ref())
}

/// A chain as `[TRANSPORT] [ALPN] [tls] http|tcp -> TARGET`.
fn describe(chain: &FilterChain) -> String {
    let mut words = Vec::new();
    if let Some(rule) = &chain.filter_chain_match {
        words.push(format!("[{}]", rule.transport_protocol));
        words.extend(rule.application_protocols.clone());
        words.extend(rule.server_names.clone());
    }
    if chain.transport_socket.is_some() {
        words.push("tls".into());
    }
    let [filter] = &chain.filters[..] else { panic!("{chain:?}") };
    let Some(FilterConfig::TypedConfig(any)) = &filter.config_type else { panic!("{filter:?}") };
    if any.type_url == names::TCP_PROXY {
        let proxy = TcpProxy::decode(&any.value[..]).unwrap();
        words.push(match proxy.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => format!("tcp -> {name}"),
            Some(ClusterSpecifier::WeightedClusters(weighted)) => {
                let shares = weighted.clusters.iter().map(|share| format!("{}*{}", share.name, share.weight));
                format!("tcp -> {}", shares.collect::<Vec<_>>().join(", "))
            }
            None => panic!("{proxy:?}"),
        });
    } else {
        let manager = HttpConnectionManager::decode(&any.value[..]).unwrap();
        assert_eq!(manager.http_filters.len(), 1);
        words.push(match manager.route_specifier {
            Some(RouteSpecifier::Rds(rds)) => format!("http by {}", rds.route_config_name),
            Some(RouteSpecifier::RouteConfig(routes)) => format!("http inline {}", routes.name),
            other => panic!("{other:?}"),
        });
    }
    words.join(" ")
}

fn chains(listener: &Listener) -> Vec<String> {
    listener.filter_chains.iter().map(describe).collect()
}

const SHOP: &str = r#"
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  addresses: ["fd57::2", 10.96.0.2]
  ports:
  - {name: http, port: 80, targetPort: 8080, protocol: http}
  - {port: 9000, protocol: tcp}
  - {port: 9001}
  selector: {app: orders}
---
kind: Workload
metadata: {name: orders-2, namespace: shop, labels: {app: orders}}
spec: {addresses: [10.97.0.6], serviceAccount: old, state: draining, advertise: [{port: 8080, at: "127.0.0.1:34567"}]}
---
kind: Workload
metadata: {name: orders-1, namespace: shop, labels: {app: orders, tier: "1"}}
spec: {addresses: [10.97.0.5, "fd58::5"], serviceAccount: orders}
---
kind: Workload
metadata: {name: orders-3, namespace: shop, labels: {app: orders}}
spec: {addresses: [10.97.0.7], serviceAccount: orders, state: unhealthy}
---
kind: Workload
metadata: {name: orders-1, namespace: other, labels: {app: orders}}
spec: {addresses: [10.97.0.8]}
"#;

#[test]
fn a_service_becomes_listeners_routes_clusters_and_endpoints() {
    let compiled = compiled(SHOP);
    assert_eq!(
        names_of(&compiled.shared),
        [
            "Cluster shop/orders:80",
            "ClusterLoadAssignment shop/orders:80",
            "Listener outbound/shop/orders:80",
            "RouteConfiguration shop/orders:80",
            "Cluster shop/orders:9000",
            "ClusterLoadAssignment shop/orders:9000",
            "Listener outbound/shop/orders:9000",
            "Cluster shop/orders:9001",
            "ClusterLoadAssignment shop/orders:9001",
            "Listener outbound/shop/orders:9001",
            "RouteConfiguration shop/orders:9001",
        ]
    );
    let listener: Listener = one(&compiled.shared, names::LISTENER, "outbound/shop/orders:80");
    assert_eq!(socket(listener.address.as_ref()), "10.96.0.2 80");
    assert_eq!(socket(listener.additional_addresses[0].address.as_ref()), "fd57::2 80");
    assert_eq!(listener.bind_to_port.map(|b| b.value), Some(false));
    assert_eq!(listener.traffic_direction, 2);
    assert_eq!(chains(&listener), ["http by shop/orders:80"]);
    let tcp: Listener = one(&compiled.shared, names::LISTENER, "outbound/shop/orders:9000");
    assert_eq!(chains(&tcp), ["tcp -> shop/orders:9000"]);
    let auto: Listener = one(&compiled.shared, names::LISTENER, "outbound/shop/orders:9001");
    assert_eq!(chains(&auto), ["[] http/1.1 http by shop/orders:9001", "tcp -> shop/orders:9001"]);
    let routes: RouteConfiguration = one(&compiled.shared, names::ROUTE, "shop/orders:80");
    assert_eq!(routes.virtual_hosts[0].domains, ["*"]);
    assert!(compiled.warnings.is_empty(), "{:?}", compiled.warnings);
}

#[test]
fn endpoints_are_sorted_and_carry_state_and_advertised_address() {
    let compiled = compiled(SHOP);
    let assignment: ClusterLoadAssignment = one(&compiled.shared, names::ENDPOINTS, "shop/orders:80");
    let [locality] = &assignment.endpoints[..] else { panic!("{assignment:?}") };
    let rows: Vec<(String, i32)> =
        locality.lb_endpoints.iter().map(|endpoint| (endpoint_address(endpoint), endpoint.health_status)).collect();
    assert_eq!(rows, [("10.97.0.5 8080".into(), 1), ("127.0.0.1 34567".into(), 3), ("10.97.0.7 8080".into(), 2)]);
    let workload = &locality.lb_endpoints[0].metadata.as_ref().unwrap().filter_metadata["weft.dev"].fields["workload"];
    assert_eq!(
        workload,
        &weft_proto::envoy::google::protobuf::Value {
            kind: Some(weft_proto::envoy::google::protobuf::value::Kind::StringValue("shop/orders-1".into()))
        }
    );
}

#[test]
fn each_distinct_account_of_the_selected_workloads_may_answer() {
    let compiled = compiled(SHOP);
    let cluster: Cluster = one(&compiled.shared, names::CLUSTER, "shop/orders:80");
    let facts = &cluster.metadata.as_ref().unwrap().filter_metadata["weft.dev"].fields;
    assert_eq!(facts.len(), 3);
    assert_eq!(
        may_answer(&cluster),
        Some(vec!["spiffe://shop.local/ns/shop/sa/old".into(), "spiffe://shop.local/ns/shop/sa/orders".into()])
    );
}

/// The identities a cluster takes; `None` for plaintext.
fn may_answer(cluster: &Cluster) -> Option<Vec<String>> {
    let Some(SocketConfig::TypedConfig(any)) = cluster.transport_socket.as_ref()?.config_type.as_ref() else {
        panic!()
    };
    let context = UpstreamTlsContext::decode(&any.value[..]).unwrap().common_tls_context.unwrap();
    let Some(ValidationContextType::CombinedValidationContext(combined)) = context.validation_context_type else {
        panic!()
    };
    let names = combined.default_validation_context.unwrap().match_typed_subject_alt_names.into_iter();
    let exact = |pattern: Option<MatchPattern>| match pattern {
        Some(MatchPattern::Exact(name)) => name,
        other => panic!("{other:?}"),
    };
    Some(names.map(|san| exact(san.matcher.unwrap().match_pattern)).collect())
}

#[test]
fn a_verdict_is_a_hint_on_undeclared_ports_alone() {
    let text = "kind: Service\nmetadata: {name: mail}\nspec:\n  addresses: [10.96.0.9]\n  ports: \
                [{port: 25, targetPort: 2525}, {port: 80, targetPort: 8080, protocol: http}]\n  selector: {app: mail}\n\
                ---\nkind: Workload\nmetadata: {name: mail-1, labels: {app: mail}}\n\
                spec: {addresses: [10.97.0.9], serviceAccount: mail}\n";
    let documents = documents(text);
    let verdicts = Verdicts::default();
    let compiled = |verdicts: &Verdicts| {
        let compiled = compile(&documents, "shop.local", &verdicts.seen());
        verdicts.published(compiled.said());
        compiled
    };
    let hints = |compiled: &Compiled| {
        let all = compiled.shared.iter().chain(&compiled.scoped["default/mail-1"]);
        let listeners = all.filter(|resource| resource.type_url == names::LISTENER);
        let hint = |resource: &Resource| {
            let spec = weft_proxy::xds::decode::listener(&resource.body).unwrap();
            spec.detected.map(|verdict| format!("{} {verdict}", resource.name))
        };
        listeners.filter_map(hint).collect::<Vec<_>>()
    };
    assert!(hints(&compiled(&verdicts)).is_empty());
    let mail = SpiffeId::workload("shop.local", "default", "mail");
    verdicts.report(&mail, "mail-1", [(2525, Verdict::ServerFirst), (8080, Verdict::ServerFirst)]).unwrap();
    let after = compiled(&verdicts);
    assert_eq!(hints(&after), ["outbound/default/mail:25 server_first", "inbound/2525 server_first"]);
    assert_eq!(after.verdicts, BTreeMap::from([("default/mail:25".to_owned(), Verdict::ServerFirst)]));
}

#[test]
fn inbound_resources_go_to_their_workload_alone() {
    let compiled = compiled(SHOP);
    let workloads: Vec<&str> = compiled.scoped.keys().map(String::as_str).collect();
    assert_eq!(workloads, ["other/orders-1", "shop/orders-1", "shop/orders-2", "shop/orders-3"]);
    assert!(compiled.scoped["other/orders-1"].is_empty());
    let scoped = &compiled.scoped["shop/orders-1"];
    assert_eq!(
        names_of(scoped),
        [
            "Cluster inbound/8080",
            "Listener inbound/8080",
            "Cluster inbound/9000",
            "Listener inbound/9000",
            "Cluster inbound/9001",
            "Listener inbound/9001",
        ]
    );
    let listener: Listener = one(scoped, names::LISTENER, "inbound/8080");
    assert_eq!(socket(listener.address.as_ref()), "10.97.0.5 8080");
    assert_eq!(socket(listener.additional_addresses[0].address.as_ref()), "fd58::5 8080");
    assert_eq!(chains(&listener), ["tls http inline inbound/8080"]);
    let auto: Listener = one(scoped, names::LISTENER, "inbound/9001");
    assert_eq!(chains(&auto), ["[] http/1.1 tls http inline inbound/9001", "tls tcp -> inbound/9001"]);
    let cluster: Cluster = one(scoped, names::CLUSTER, "inbound/8080");
    assert_eq!(cluster.cluster_discovery_type, Some(ClusterDiscoveryType::Type(0)));
    assert!(cluster.transport_socket.is_none());
    let own = &cluster.load_assignment.unwrap().endpoints[0].lb_endpoints[0];
    assert_eq!(endpoint_address(own), "127.0.0.1 8080");
}

#[test]
fn a_permissive_mesh_takes_plaintext_after_tls() {
    let compiled = compiled(&format!("kind: Mesh\nmetadata: {{name: default}}\nspec: {{mtls: permissive}}\n---{SHOP}"));
    let scoped = &compiled.scoped["shop/orders-1"];
    let listener: Listener = one(scoped, names::LISTENER, "inbound/9001");
    assert_eq!(
        chains(&listener),
        [
            "[tls] http/1.1 tls http inline inbound/9001",
            "[tls] tls tcp -> inbound/9001",
            "[raw_buffer] http/1.1 http inline inbound/9001",
            "[raw_buffer] tcp -> inbound/9001",
        ]
    );
}

#[test]
fn addresses_outside_the_mesh_are_reached_in_plaintext() {
    let compiled = compiled(
        "kind: Service\nmetadata: {name: db}\nspec:\n  addresses: [10.96.0.9]\n  ports: [{port: 5432, targetPort: 5433, protocol: tcp}]\n  endpoints: [{address: 192.0.2.2}, {address: 192.0.2.1, port: 6432}]\n",
    );
    let cluster: Cluster = one(&compiled.shared, names::CLUSTER, "default/db:5432");
    assert!(cluster.transport_socket.is_none());
    let assignment: ClusterLoadAssignment = one(&compiled.shared, names::ENDPOINTS, "default/db:5432");
    let addresses: Vec<String> = assignment.endpoints[0].lb_endpoints.iter().map(endpoint_address).collect();
    assert_eq!(addresses, ["192.0.2.2 5433", "192.0.2.1 6432"]);
    assert!(compiled.warnings.is_empty());
}

#[test]
fn a_selector_without_workloads_gives_an_empty_assignment_and_a_warning() {
    let compiled = compiled(
        "kind: Service\nmetadata: {name: a}\nspec:\n  addresses: [10.96.0.9]\n  ports: [{port: 80}]\n  selector: {app: a, tier: b}\n",
    );
    let assignment: ClusterLoadAssignment = one(&compiled.shared, names::ENDPOINTS, "default/a:80");
    assert!(assignment.endpoints.is_empty());
    let warnings: Vec<String> = compiled.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(warnings, ["Service default/a: its selector app=a,tier=b selects no workload yet"]);
}

#[test]
fn services_that_share_a_target_port_share_one_inbound_listener_by_the_first_name() {
    let service = |name: &str, protocol: &str| {
        format!(
            "---\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  addresses: [10.96.0.{}]\n  ports: [{{port: 80, targetPort: 8080, protocol: {protocol}}}]\n  selector: {{app: a}}\n",
            name.as_bytes()[0]
        )
    };
    let workloads = "---\nkind: Workload\nmetadata: {name: w1, labels: {app: a}}\nspec: {addresses: [10.97.0.1]}\n---\nkind: Workload\nmetadata: {name: w2, labels: {app: a}}\nspec: {addresses: [10.97.0.2]}\n";
    let agreed = compiled(&(service("b", "http") + &service("a", "http") + workloads));
    assert_eq!(names_of(&agreed.scoped["default/w1"]), ["Cluster inbound/8080", "Listener inbound/8080"]);
    assert!(agreed.warnings.is_empty());
    let conflict = compiled(&(service("b", "http") + &service("a", "tcp") + workloads));
    let listener: Listener = one(&conflict.scoped["default/w2"], names::LISTENER, "inbound/8080");
    assert_eq!(chains(&listener), ["tls tcp -> inbound/8080"]);
    let warnings: Vec<String> = conflict.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "Service default/b: port 80 says that target port 8080 speaks http, but port 80 of Service default/a says tcp and decides; give both one protocol"
        ]
    );
}

#[test]
fn clusters_say_which_http_an_application_speaks_as_the_proxy_reads_it() {
    let table = [
        ("http", UpstreamProtocol::AsDownstream),
        ("auto", UpstreamProtocol::AsDownstream),
        ("http1", UpstreamProtocol::Http1),
        ("http2", UpstreamProtocol::Http2),
        ("grpc", UpstreamProtocol::Http2),
    ];
    for (protocol, expected) in table {
        let compiled = compiled(&format!(
            "---\nkind: Service\nmetadata: {{name: a}}\nspec:\n  addresses: [10.96.0.9]\n  ports: [{{port: 80, protocol: {protocol}}}]\n  selector: {{app: a}}\n---\nkind: Workload\nmetadata: {{name: w, labels: {{app: a}}}}\nspec: {{addresses: [10.97.0.1]}}\n"
        ));
        let everywhere = compiled.shared.iter().chain(&compiled.scoped["default/w"]);
        let clusters = everywhere.filter(|resource| resource.type_url == names::CLUSTER);
        let mut count = 0;
        for cluster in clusters {
            let decoded = weft_proxy::xds::decode::decode(cluster.type_url, &cluster.name, &cluster.body).unwrap();
            let weft_proxy::xds::decode::Decoded::Cluster(decoded) = decoded else { panic!("not a cluster") };
            assert_eq!(decoded.protocol, expected, "{protocol}: {}", cluster.name);
            count += 1;
        }
        assert_eq!(count, 2);
    }
}

#[test]
fn the_proxys_own_decoder_takes_every_compiled_resource() {
    let outside = "---\nkind: Service\nmetadata: {name: db}\nspec:\n  addresses: [10.96.0.9]\n  ports: [{port: 5432, protocol: tcp}]\n  endpoints: [{address: 192.0.2.2}]\n";
    let lonely = "---\nkind: Service\nmetadata: {name: lonely}\nspec:\n  addresses: [10.96.0.10]\n  ports: [{port: 80}]\n  selector: {app: lonely}\n";
    for mode in ["strict", "permissive"] {
        let mesh = format!("kind: Mesh\nmetadata: {{name: default}}\nspec: {{mtls: {mode}}}\n---");
        let compiled = compiled(&format!("{mesh}{SHOP}{outside}{lonely}"));
        for resource in compiled.shared.iter().chain(compiled.scoped.values().flatten()) {
            let decoded = weft_proxy::xds::decode::decode(resource.type_url, &resource.name, &resource.body);
            let decoded = decoded.unwrap_or_else(|error| panic!("{mode}: {error}"));
            if let weft_proxy::xds::decode::Decoded::Listener(listener) = decoded {
                let inbound = listener.name.as_str().starts_with("inbound/");
                let plaintext_too = listener.tls == weft_core::model::InboundTls::Permissive;
                assert_eq!(plaintext_too, inbound && mode == "permissive", "{listener:?}");
            }
        }
    }
}

/// Thousands of services with a few workloads each.
fn large(services: usize) -> Vec<Document> {
    use std::fmt::Write;
    let mut text = String::new();
    for index in 0..services {
        let (high, low) = (index / 256, index % 256);
        write!(
            text,
            "---\nkind: Service\nmetadata: {{name: s{index}}}\nspec:\n  addresses: [10.96.{high}.{low}]\n  ports: [{{port: 80, targetPort: 8080}}]\n  selector: {{mesh: all, app: s{index}}}\n---\nkind: Workload\nmetadata: {{name: w{index}, labels: {{mesh: all, app: s{index}}}}}\nspec: {{addresses: [10.97.{high}.{low}]}}\n"
        )
        .unwrap();
    }
    documents(&text)
}

#[test]
#[ignore = "a measurement: cargo test --release -p weft-control-plane ten_thousand -- --ignored --nocapture"]
fn ten_thousand_services_compile_within_a_second() {
    let documents = large(10_000);
    let start = weft_proxy::clock::now();
    let compiled = compile(&documents, "shop.local", &Seen::default());
    let took = start.elapsed();
    assert_eq!(compiled.shared.len(), 40_000);
    println!("10,000 services with a workload each: {took:?}");
    assert!(took < std::time::Duration::from_secs(1), "{took:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_order_of_documents_makes_no_difference(seed: u64) {
        let mut shuffled = documents(SHOP);
        shuffled.extend(large(20));
        let straight = compile(&shuffled, "shop.local", &Seen::default());
        fastrand::Rng::with_seed(seed).shuffle(&mut shuffled);
        prop_assert_eq!(compile(&shuffled, "shop.local", &Seen::default()), straight);
    }
}

const PASSED_THROUGH: &str = r#"
kind: Service
metadata: {name: front}
spec:
  addresses: [10.96.0.2]
  ports: [{port: 443, protocol: tls}, {port: 8443, name: https}, {port: 80, protocol: http}]
  selector: {app: front}
---
kind: Service
metadata: {name: orders}
spec: {addresses: [10.96.0.3], ports: [{port: 443, protocol: tls}, {port: 80, protocol: http}], selector: {app: front}}
---
kind: Workload
metadata: {name: front-1, labels: {app: front}}
spec: {addresses: [10.97.0.5]}
---
kind: TLSRoute
metadata: {name: a}
spec:
  parentRefs: [{name: front, port: 443}]
  hostnames: [a.example, "*.a.example"]
  rules: [{backendRefs: [{name: orders, port: 443, weight: 9}, {name: front, port: 443}, {name: old, port: 1, weight: 0}]}]
"#;

fn routes_of(more: &str) -> (Vec<String>, Vec<String>) {
    let compiled = compiled(&format!("{PASSED_THROUGH}---\n{more}"));
    for resource in compiled.shared.iter().chain(compiled.scoped.values().flatten()) {
        weft_proxy::xds::decode::decode(resource.type_url, &resource.name, &resource.body).unwrap();
    }
    let listener: Listener = one(&compiled.shared, names::LISTENER, "outbound/default/front:443");
    assert_eq!(listener.listener_filters.len(), 1, "what reads the names");
    (chains(&listener), compiled.warnings.iter().map(ToString::to_string).collect())
}

#[test]
fn tls_routes_become_chains_of_the_ports_they_are_for() {
    let (chains_of_front, warnings) = routes_of(
        "kind: TLSRoute\nmetadata: {name: z}\nspec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: front, port: 8443}]}]}\n",
    );
    let named = "[] a.example *.a.example tcp -> default/orders:443*9, default/front:443*1";
    assert_eq!(chains_of_front, [named, "tcp -> default/front:8443"]);
    assert!(warnings.is_empty(), "{warnings:?}");
    let compiled = compiled(PASSED_THROUGH);
    // No route names this one: its own endpoints get it, and nothing is looked at.
    let listener: Listener = one(&compiled.shared, names::LISTENER, "outbound/default/front:8443");
    assert_eq!((chains(&listener), listener.listener_filters.len()), (vec!["tcp -> default/front:8443".to_owned()], 0));
    let inbound: Listener = one(&compiled.scoped["default/front-1"], names::LISTENER, "inbound/443");
    assert_eq!(chains(&inbound), ["tls tcp -> inbound/443"]);
    assert!(!names_of(&compiled.shared).contains(&"RouteConfiguration default/front:443".to_owned()));
}

#[test]
fn of_two_routes_that_want_one_name_the_first_by_name_has_it() {
    let (chains, warnings) = routes_of(
        "kind: TLSRoute\nmetadata: {name: b}\nspec: {parentRefs: [{name: front, port: 443}], hostnames: [b.example, a.example], rules: [{backendRefs: [{name: front, port: 443}]}]}\n",
    );
    assert_eq!(chains[1], "[] b.example tcp -> default/front:443");
    assert_eq!(warnings, ["TLSRoute default/b: a.example at port 443 of front already goes by a"]);
}

#[test]
fn a_tls_route_to_what_is_not_there_is_a_warning() {
    let (_, warnings) = routes_of(
        "kind: TLSRoute\nmetadata: {name: b}\nspec:\n  parentRefs: [{name: front, port: 80}, {name: front, port: 81}, {name: nobody}]\n  rules: [{backendRefs: [{name: nobody, port: 1}, {name: orders, port: 80}]}]\n",
    );
    let expected = [
        "its backend, port 1 of the service nobody, does not exist yet",
        "its backend, port 80 of the service orders, says http and would not take TLS; give it `protocol: tls`",
        "it has no effect on port 80 of front, which says http; give that port `protocol: tls`",
        "its parent, the service front, has no port 81",
        "its parent, the service nobody, does not exist yet",
    ];
    assert_eq!(warnings, expected.map(|what| format!("TLSRoute default/b: {what}")));
}

#[test]
fn what_a_service_says_of_its_requests_stands_in_its_routes_as_proxies_read_them() {
    let routes_of = |lines: &str| {
        let text = SHOP.replacen("  selector: {app: orders}\n", &format!("  selector: {{app: orders}}\n{lines}"), 1);
        let compiled = compiled(&text);
        let body = |resource: &&Resource| resource.type_url == names::ROUTE && resource.name == "shop/orders:80";
        let body = compiled.shared.iter().find(body).unwrap().body.clone();
        weft_proxy::xds::decode::route(&body).unwrap().virtual_hosts.remove(0).routes.remove(0)
    };
    let plain = routes_of("");
    assert_eq!((plain.timeout, plain.retry), (None, None));

    let said = routes_of(
        "  timeouts: {request: 2s, perTry: 300ms}\n  retries: {attempts: 3, on: [5xx, unavailable], statuses: [429]}\n",
    );
    let retry = said.retry.unwrap();
    assert_eq!(said.timeout, Some(std::time::Duration::from_secs(2)));
    assert_eq!((retry.retries, retry.per_try_timeout), (3, Some(std::time::Duration::from_millis(300))));
    assert!(retry.on.server_error && !retry.on.reset);
    assert_eq!((retry.on.grpc, &retry.on.statuses[..]), (1 << 14, &[429][..]));

    // A try that may be late is one of those that are repeated anyway.
    let late = routes_of("  timeouts: {perTry: 300ms}\n").retry.unwrap();
    assert!(late.on.connect_failure && late.on.refused && late.on.reset && !late.on.server_error);
    assert_eq!(late.retries, 1);
}
