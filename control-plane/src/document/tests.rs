use super::*;

mod http_route;

fn source(name: &str, text: &str) -> Source {
    Source { name: name.into(), text: text.into() }
}

fn problems(text: &str) -> Vec<String> {
    match read(&[source("a.yaml", text)]) {
        Ok(documents) => panic!("accepted: {documents:#?}"),
        Err(Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
    }
}

/// A Service whose `spec` holds these lines.
fn service(spec: &str) -> String {
    let mut text = "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {name: orders}\nspec:\n".to_owned();
    for line in spec.lines() {
        text.push_str("  ");
        text.push_str(line);
        text.push('\n');
    }
    text
}

fn workload(spec: &str) -> String {
    service(spec).replace("kind: Service", "kind: Workload")
}

const ALL_KINDS: &str = r#"
apiVersion: weft.dev/v1alpha1
kind: Mesh
metadata: {name: default}
spec: {mtls: permissive}
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  addresses: [10.96.0.2, "fd57::2"]
  ports:
  - {name: http, port: 80, targetPort: 8080, protocol: http}
  - {port: 5432}
  selector: {app: orders}
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: database}
spec:
  ports: [{port: 5432, protocol: tcp}]
  endpoints: [{address: 192.0.2.1}, {address: 192.0.2.1, port: 6432}]
---
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: orders-1, namespace: shop, labels: {app: orders, "example.com/tier": ""}}
spec:
  addresses: [10.97.0.5, "fd58::5"]
  serviceAccount: orders
  state: draining
  advertise: [{port: 8080, at: "127.0.0.1:34567"}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TLSRoute
metadata: {name: orders.example, namespace: shop}
spec:
  parentRefs: [{group: "", kind: Service, name: front, namespace: shop, port: 443}, {name: back}]
  hostnames: [orders.example, "*.orders.example"]
  rules: [{backendRefs: [{kind: Service, name: orders, port: 443, weight: 9}, {name: old, port: 8443}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: canary, namespace: shop, creationTimestamp: 2026-01-31T08:00:00Z}
spec:
  parentRefs:
  - {group: "", kind: Service, name: orders, namespace: shop, port: 80, sectionName: http}
  - {group: gateway.networking.k8s.io, kind: Gateway, name: public}
  hostnames: [orders.example]
  rules:
  - name: first
    matches:
    - path: {type: Exact, value: /orders}
      method: POST
      headers: [{name: X-Version, value: v2}, {type: RegularExpression, name: agent, value: "curl/.*"}]
      queryParams: [{type: Exact, name: page, value: "2"}]
    - {}
    backendRefs: [{kind: Service, name: orders, port: 80, weight: 0}, {name: next, namespace: other, port: 80}]
    timeouts: {request: 1m30s, backendRequest: 500ms}
    retry: {codes: [503], attempts: 2, backoff: 0s}
  - {}
"#;

#[test]
fn a_port_says_what_it_speaks_by_protocol_then_app_protocol_then_its_name() {
    let table = [
        ("{port: 80}", Protocol::Auto),
        ("{port: 80, name: web}", Protocol::Auto),
        ("{port: 80, name: grpc-orders}", Protocol::Grpc),
        ("{port: 80, name: http2}", Protocol::Http2),
        ("{port: 80, name: https}", Protocol::Tls),
        ("{port: 80, name: tls-orders}", Protocol::Tls),
        ("{port: 80, name: web, appProtocol: https}", Protocol::Tls),
        ("{port: 80, appProtocol: tls}", Protocol::Tls),
        ("{port: 80, protocol: tls}", Protocol::Tls),
        ("{port: 80, name: https, protocol: tcp}", Protocol::Tcp),
        ("{port: 80, name: httpbin}", Protocol::Auto),
        ("{port: 80, name: tcp-x, appProtocol: kubernetes.io/h2c}", Protocol::Http2),
        ("{port: 80, name: tcp-x, appProtocol: example.com/mine}", Protocol::Tcp),
        ("{port: 80, name: tcp-x, appProtocol: grpc, protocol: http1}", Protocol::Http1),
        ("{port: 80, protocol: auto, appProtocol: grpc}", Protocol::Auto),
    ];
    for (port, expected) in table {
        let text = format!(
            "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: a}}\nspec: {{ports: [{port}], selector: {{a: b}}}}\n"
        );
        let documents = read(&[source("a.yaml", &text)]).unwrap();
        let Document::Service(service) = &documents[0].document else { panic!("not a service") };
        assert_eq!(service.spec.ports[0].protocol, expected, "{port}");
    }
}

#[test]
fn every_kind_is_read_with_its_defaults() {
    let documents = read(&[source("a.yaml", ALL_KINDS)]).unwrap();
    let keys: Vec<String> = documents.iter().map(|located| located.document.key().to_string()).collect();
    assert_eq!(
        keys,
        [
            "Mesh default",
            "Service shop/orders",
            "Service default/database",
            "Workload shop/orders-1",
            "TLSRoute shop/orders.example",
            "HTTPRoute shop/canary"
        ]
    );
    let Document::TlsRoute(route) = &documents[4].document else { panic!("not a route") };
    let parent = |name: &str, port| ParentRef { name: name.to_owned(), port };
    assert_eq!(route.spec.parent_refs, [parent("front", Some(443)), parent("back", None)]);
    let backend = |name: &str, port, weight| BackendRef { name: name.to_owned(), port, weight };
    assert_eq!(route.spec.rules[0].backend_refs, [backend("orders", 443, 9), backend("old", 8443, 1)]);
    let Document::Service(orders) = &documents[1].document else { panic!("not a service") };
    assert_eq!(
        orders.spec.ports[1],
        ServicePort { name: None, port: 5432, target_port: 5432, protocol: Protocol::Auto }
    );
    assert_eq!(documents[1].place.to_string(), "a.yaml:7:1");
    let Document::Workload(workload) = &documents[3].document else { panic!("not a workload") };
    assert_eq!(workload.spec.state, WorkloadState::Draining);
    assert_eq!(workload.spec.advertise[0].at, "127.0.0.1:34567".parse().unwrap());
}

#[test]
fn what_is_written_out_reads_back_the_same_by_serde_and_as_input() {
    for Located { document, .. } in read(&[source("a.yaml", ALL_KINDS)]).unwrap() {
        let json = document.to_json();
        assert_eq!(Document::from_json(json.clone()).unwrap(), document);
        let again = read(&[source("again", &serde_json::to_string_pretty(&json).unwrap())]).unwrap();
        assert_eq!(again[0].document, document);
        let yaml = serde_yaml_ng::to_string(&json).unwrap();
        assert_eq!(read(&[source("again", &yaml)]).unwrap()[0].document, document);
    }
}

#[test]
fn a_problem_names_place_document_field_value_and_remedy() {
    let cases: &[(&str, String, &str)] = &[
        (
            "unknown kind",
            service("ports: []").replace("kind: Service", "kind: Servise"),
            "a.yaml:2:7: Servise default/orders: kind: unknown kind `Servise`; did you mean `Service`? (allowed: Mesh, Service, Workload, TLSRoute, HTTPRoute)",
        ),
        (
            "no kind",
            "apiVersion: weft.dev/v1alpha1\nmetadata: {name: a}\n".into(),
            "a.yaml:1:1: document default/a: kind: missing; write for example `kind: Service`",
        ),
        (
            "wrong apiVersion",
            service("ports: [{port: 80}]\nselector: {a: b}").replace("weft.dev/v1alpha1", "v1"),
            "a.yaml:1:13: Service default/orders: apiVersion: `v1` is not an API version this control plane knows; use weft.dev/v1alpha1",
        ),
        (
            "no apiVersion",
            service("ports: [{port: 80}]\nselector: {a: b}").replace("apiVersion: weft.dev/v1alpha1\n", ""),
            "a.yaml:1:1: Service default/orders: apiVersion: missing; write for example `apiVersion: weft.dev/v1alpha1`",
        ),
        (
            "unknown field",
            service("ports: [{port: 80, targetport: 8080}]\nselector: {a: b}"),
            "a.yaml:5:22: Service default/orders: spec.ports[0].targetport: unknown field `targetport`; did you mean `targetPort`? (allowed: name, port, targetPort, protocol, appProtocol)",
        ),
        (
            "unknown field far from all",
            service("ports: [{port: 80}]\nselector: {a: b}\nreplicas: 3"),
            "a.yaml:7:3: Service default/orders: spec.replicas: unknown field `replicas`; allowed: addresses, ports, selector, endpoints, timeouts, retries",
        ),
        (
            "field twice",
            service("ports: [{port: 80}]\nselector: {a: b}\nselector: {a: c}"),
            "a.yaml:7:3: Service default/orders: spec.selector: given twice; it already stands in line 6: remove one",
        ),
        (
            "wrong type",
            service("ports: 80\nselector: {a: b}"),
            "a.yaml:5:10: Service default/orders: spec.ports: found the number 80; expected a list of ports, such as `{port: 80}`",
        ),
        (
            "number for text",
            service("ports: [{port: 80}]\nselector: {version: 1}"),
            "a.yaml:6:23: Service default/orders: spec.selector.version: found the number 1; expected text; write it in quotes: \"1\"",
        ),
        (
            "missing field",
            service("selector: {a: b}"),
            "a.yaml:5:3: Service default/orders: spec.ports: missing; write for example `ports: [{port: 80}]`",
        ),
        (
            "missing spec",
            service(""),
            "a.yaml:1:1: Service default/orders: spec: missing; write for example `spec: ...`",
        ),
        (
            "port 0",
            service("ports:\n- port: 0\nselector: {a: b}"),
            "a.yaml:6:11: Service default/orders: spec.ports[0].port: found the number 0; expected a port from 1 to 65535",
        ),
        (
            "port 65536",
            service("ports: [{port: 80, targetPort: 65536}]\nselector: {a: b}"),
            "a.yaml:5:34: Service default/orders: spec.ports[0].targetPort: found the number 65536; expected a port from 1 to 65535",
        ),
        (
            "port in quotes",
            service("ports: [{port: \"80\"}]\nselector: {a: b}"),
            "a.yaml:5:18: Service default/orders: spec.ports[0].port: found the text \"80\"; expected a port from 1 to 65535; remove the quotes",
        ),
        (
            "duplicate port",
            service("ports:\n- {port: 80}\n- {port: 80}\nselector: {a: b}"),
            "a.yaml:7:12: Service default/orders: spec.ports[1].port: port 80 is given twice; it already stands in line 6: remove one",
        ),
        (
            "no ports",
            service("ports: []\nselector: {a: b}"),
            "a.yaml:5:10: Service default/orders: spec.ports: the list is empty; give at least one of ports, such as `{port: 80}`",
        ),
        (
            "neither selector nor endpoints",
            service("ports: [{port: 80}]"),
            "a.yaml:5:3: Service default/orders: spec: neither `selector` nor `endpoints`; give `selector: {app: NAME}` for workloads of the mesh, or `endpoints: [{address: IP}]` for addresses outside",
        ),
        (
            "both selector and endpoints",
            service("ports: [{port: 80}]\nselector: {a: b}\nendpoints: [{address: 192.0.2.1}]"),
            "a.yaml:7:14: Service default/orders: spec.endpoints: given beside `selector`; a service has exactly one of the two: remove one",
        ),
        (
            "empty endpoints",
            service("ports: [{port: 80}]\nendpoints: []"),
            "a.yaml:6:14: Service default/orders: spec.endpoints: the list is empty; give at least one of endpoints, such as `{address: 192.0.2.1}`",
        ),
        (
            "empty selector",
            service("ports: [{port: 80}]\nselector: {}"),
            "a.yaml:6:13: Service default/orders: spec.selector: the selector is empty, which would select every workload; name a label, such as `{app: NAME}`",
        ),
        (
            "bad protocol",
            service("ports: [{port: 80, protocol: htttp}]\nselector: {a: b}"),
            "a.yaml:5:32: Service default/orders: spec.ports[0].protocol: unknown protocol `htttp`; did you mean `http`? (allowed: http, http1, http2, grpc, tcp, tls, auto)",
        ),
        (
            "bad IP",
            service("addresses: [10.96.0.256]\nports: [{port: 80}]\nselector: {a: b}"),
            "a.yaml:5:15: Service default/orders: spec.addresses[0]: `10.96.0.256` is not an IP address; expected one such as 10.96.0.2 or fd57::2",
        ),
        (
            "unspecified IP",
            workload("addresses: [0.0.0.0]"),
            "a.yaml:5:15: Workload default/orders: spec.addresses[0]: 0.0.0.0 means any address of a host; give the address of one host",
        ),
        (
            "bad name",
            service("ports: [{port: 80}]\nselector: {a: b}").replace("name: orders", "name: My_Orders"),
            "a.yaml:3:18: Service default/My_Orders: metadata.name: `My_Orders` is not a valid name; use at most 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit, such as `my-orders`",
        ),
        (
            "bad label",
            service("ports: [{port: 80}]\nselector: {a: \"-b\"}"),
            "a.yaml:6:17: Service default/orders: spec.selector.a: `-b` is not a label's value; use at most 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, beginning and ending with a letter or digit",
        ),
        (
            "namespace of a Mesh",
            "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default, namespace: shop}\n".into(),
            "a.yaml:3:27: Mesh default: metadata.namespace: unknown field `namespace`; allowed: name, labels",
        ),
        (
            "second Mesh",
            "apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: other}\n".into(),
            "a.yaml:3:18: Mesh other: metadata.name: unknown name of a Mesh `other`; allowed: default",
        ),
        (
            "bad advertised address",
            workload("addresses: [10.97.0.5]\nadvertise: [{port: 8080, at: \"127.0.0.1\"}]"),
            "a.yaml:6:32: Workload default/orders: spec.advertise[0].at: `127.0.0.1` is not ADDRESS:PORT; expected one such as 127.0.0.1:34567 or [::1]:34567",
        ),
        (
            "document is a list",
            "- a\n- b\n".into(),
            "a.yaml:1:1: found a list; expected a mapping (`field: value` lines)",
        ),
        ("empty", String::new(), "a.yaml: holds no document; begin one with `apiVersion: weft.dev/v1alpha1`"),
        (
            "only a comment",
            "# nothing\n---\n".into(),
            "a.yaml: holds no document; begin one with `apiVersion: weft.dev/v1alpha1`",
        ),
        (
            "tab",
            "apiVersion: weft.dev/v1alpha1\nmetadata:\n\tname: a\n".into(),
            "a.yaml:3:1: a tab in the indentation; YAML wants spaces",
        ),
        ("tag", service("ports: !secret [{port: 80}]"), "a.yaml:5:10: the tag `!secret` is not supported; remove it"),
    ];
    for (name, text, expected) in cases {
        assert_eq!(problems(text), [*expected], "{name}\n{text}");
    }
}

#[test]
fn unparsable_yaml_is_placed() {
    let found = problems("kind: [a\nmetadata: {\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("a.yaml:2:") && found[0].contains("not YAML: "), "{found:?}");
}

#[test]
fn a_name_used_twice_is_refused_with_both_places() {
    let text = service("ports: [{port: 80}]\nselector: {a: b}");
    let Err(Problems(found)) = read(&[source("a.yaml", &text), source("b.yaml", &text)]) else { panic!("accepted") };
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "b.yaml:1:1: Service default/orders: metadata.name: given twice; it already stands at a.yaml:1:1: remove or rename one"
        ]
    );
}

#[test]
fn every_problem_of_a_batch_is_reported_at_once() {
    let first = service("ports: [{port: 0}, {port: x, protocol: udp}]\nselectr: {a: b}");
    let second = workload("addresses: [nonsense]\nstate: sleepy");
    let Err(Problems(found)) =
        read(&[source("a.yaml", &format!("{first}---\n{second}---\nkind: [")), source("b.yaml", "")])
    else {
        panic!("accepted")
    };
    let fields: Vec<&str> = found.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.selectr",
            "spec.ports[0].port",
            "spec.ports[1].port",
            "spec.ports[1].protocol",
            "spec",
            "spec.addresses[0]",
            "spec.state",
            "",
            ""
        ],
        "{found:#?}"
    );
}

#[test]
fn aliases_are_followed_and_bounded() {
    let text = service("ports: [{port: 80}]\nselector: &labels {a: b}")
        .replace("{name: orders}", "{name: orders, labels: &l {a: b}}");
    assert!(read(&[source("a.yaml", &text.replace("&labels {a: b}", "*l"))]).is_ok());
    let mut bomb = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        use std::fmt::Write;
        let item = format!("*a{}", level - 1);
        writeln!(bomb, "b{level}: &a{level} [{}]", vec![item; 10].join(", ")).unwrap();
    }
    let found = problems(&bomb);
    assert!(found[0].contains("aliases repeat more than 10000 values"), "{found:?}");
}

#[test]
fn deep_nesting_is_refused_not_followed() {
    let found = problems(&format!("{}{}", "[".repeat(40), "]".repeat(40)));
    assert!(found[0].contains("nested deeper than 32 levels"), "{found:?}");
    assert_eq!(problems(&"[".repeat(100_000)).len(), 1);
    assert_eq!(problems(&"- ".repeat(100_000)).len(), 1);
}

mod property {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn any_text_is_read_or_refused_without_a_panic(text in "\\PC*") {
            let _ = read(&[source("a.yaml", &text)]);
        }

        #[test]
        fn any_damage_to_a_document_is_read_or_refused_without_a_panic(
            at in 0..ALL_KINDS.len(), insert in "[\\[\\]{}:,&*!|>'\"%@`\\-\t\n a0]{0,4}", remove in 0usize..8,
        ) {
            let mut text = ALL_KINDS.to_owned();
            let end = (at + remove).min(text.len());
            text.replace_range(at..end, &insert);
            let _ = read(&[source("a.yaml", &text)]);
        }

        #[test]
        fn one_bad_document_keeps_the_whole_batch_out(good in 0usize..5, bad_at in 0usize..5) {
            let mut sources: Vec<Source> = (0..good)
                .map(|index| source(&format!("{index}.yaml"), &service("ports: [{port: 80}]\nselector: {a: b}").replace("orders", &format!("s{index}"))))
                .collect();
            prop_assert_eq!(read(&sources).map(|documents| documents.len()).ok(), Some(good));
            sources.insert(bad_at.min(good), source("bad.yaml", &service("ports: [{port: 0}]\nselector: {a: b}")));
            let Err(Problems(found)) = read(&sources) else { return Err(TestCaseError::fail("accepted")) };
            prop_assert_eq!(found.len(), 1);
        }
    }
}

#[test]
fn what_a_tls_route_may_not_say_is_named_with_its_place() {
    let route = |spec: &str| {
        problems(&format!("apiVersion: weft.dev/v1alpha1\nkind: TLSRoute\nmetadata: {{name: a}}\nspec: {spec}\n"))
    };
    let good = "parentRefs: [{name: front}], rules: [{backendRefs: [{name: b, port: 443}]}]";
    let with = |field: &str| format!("{{{good}, {field}}}");
    let table: [(String, &str); 16] = [
        ("{}".into(), "spec.parentRefs: missing"),
        ("{parentRefs: [{name: a}]}".into(), "spec.rules: missing"),
        (good.replace("{name: front}", ""), "spec.parentRefs: the list is empty"),
        (good.replace("name: front", "name: front, sectionName: https"), "sectionName: unknown field"),
        (good.replace("name: front", "kind: Gateway, name: front"), "unknown kind of a reference `Gateway`"),
        (good.replace("name: front", "group: apps, name: front"), "unknown group `apps`"),
        (good.replace("name: front", "namespace: other, name: front"), "another namespace than the route's, default"),
        (good.replace("{name: front}", "{name: f}, {name: f}"), "spec.parentRefs[1]: this parent is given twice"),
        (good.replace("b, port: 443", "b"), "spec.rules[0].backendRefs[0].port: missing"),
        (good.replace("port: 443", "port: 443, weight: 1000001"), "a whole number from 0 to 1000000"),
        (good.replace("port: 443", "port: 443, weight: -1"), "a whole number from 0 to 1000000"),
        (good.replace("port: 443", "port: 443, weight: 0"), "spec.rules[0].backendRefs: every weight is 0"),
        (good.replace("443}]}", "443}]}, {}"), "spec.rules[1]: a TLSRoute has one rule"),
        (with("hostnames: [Orders.example]"), "spec.hostnames[0]: `Orders.example` is not a host's name"),
        (with("hostnames: [a.b, 'w*.b', '*', '*.*.b', 10.0.0.1]"), "spec.hostnames[4]: `10.0.0.1` is not"),
        (with("hostnames: [a.b, c.d, a.b]"), "spec.hostnames[2]: `a.b` is given twice"),
    ];
    for (spec, expected) in table {
        let spec = if spec.starts_with('{') { spec } else { format!("{{{spec}}}") };
        let found = route(&spec);
        assert!(found.iter().any(|problem| problem.contains(expected)), "{spec}: {found:#?}");
        assert!(found.iter().all(|problem| problem.starts_with("a.yaml:4:")), "{found:#?}");
    }
    // A gateway's version is for its kinds alone.
    let service =
        service("ports: [{port: 80}]\nselector: {a: b}").replace("weft.dev/v1alpha1", "gateway.networking.k8s.io/v1");
    assert!(problems(&service)[0].contains("not an API version this control plane knows"));
}

#[test]
fn a_service_says_how_long_requests_take_and_when_they_are_tried_again() {
    let text = service(
        "ports: [{port: 80, protocol: http}]\nselector: {app: a}\ntimeouts: {request: 2s, perTry: 300ms}\n\
         retries: {attempts: 3, on: [connect-failure, 5xx, unavailable], statuses: [429]}",
    );
    let documents = read(&[source("a.yaml", &text)]).unwrap();
    let Document::Service(service) = &documents[0].document else { panic!("{documents:?}") };
    let timeouts = service.spec.timeouts.unwrap();
    assert_eq!(timeouts.request.unwrap().to_string(), "2s");
    assert_eq!(timeouts.per_try.unwrap().duration(), std::time::Duration::from_millis(300));
    let expected = Retries {
        attempts: 3,
        on: vec![RetryOn::ConnectFailure, RetryOn::ServerError, RetryOn::Unavailable],
        statuses: vec![429],
    };
    assert_eq!(service.spec.retries, Some(expected));
    assert_eq!(Document::from_json(documents[0].document.to_json()).unwrap(), documents[0].document);
}

#[test]
fn what_a_service_may_not_say_of_its_requests_is_told_with_what_it_may() {
    let table = [
        ("timeouts: {request: 2}", "spec.timeouts.request", "has no unit"),
        ("timeouts: {request: soon}", "spec.timeouts.request", "300ms, 2s or 1m"),
        ("timeouts: {perTry: 0s}", "spec.timeouts.perTry", "longer than 0"),
        ("timeouts: {request: 25h}", "spec.timeouts.request", "up to 24h"),
        ("timeouts: {request: 1s, perTry: 1s}", "spec.timeouts.perTry", "not less than `request`"),
        ("timeouts: {idle: 1s}", "spec.timeouts.idle", "perTry"),
        ("retries: {attempts: 11}", "spec.retries.attempts", "from 0 to 10"),
        ("retries: {on: []}", "spec.retries.on", "at least one"),
        ("retries: {on: [4xx]}", "spec.retries.on[0]", "retriable-4xx"),
        ("retries: {statuses: [200]}", "spec.retries.statuses[0]", "from 400 to 599"),
    ];
    for (line, field, told) in table {
        let found = problems(&service(&format!("ports: [{{port: 80}}]\nselector: {{app: a}}\n{line}")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(field) && found[0].contains(told), "{}", found[0]);
    }
    for line in ["timeouts: {request: 1s}", "retries: {attempts: 1}"] {
        let found = problems(&service(&format!("ports: [{{port: 80, protocol: tcp}}]\nselector: {{app: a}}\n{line}")));
        assert!(found[0].contains("every port speaks tcp"), "{found:?}");
    }
}
