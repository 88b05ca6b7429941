use serde_json::json;

use super::*;
use crate::document::{Backends, Document, ParentRef, Source, read};

fn service(spec: &Json) -> Json {
    json!({
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Service",
        "metadata": {
            "name": "orders", "namespace": "shop", "uid": "0c9a8d74", "resourceVersion": "17", "generation": 3,
            "labels": {"app.kubernetes.io/part-of": "shop"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
            "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {".": {}, "f:ports": {}}}}],
        },
        "spec": spec,
        "status": {"conditions": [{"type": "Accepted"}], "nonsense": 1},
    })
}

fn problems(object: &Json) -> Vec<String> {
    match from_object(object, "the API server") {
        Ok(located) => panic!("accepted: {located:#?}"),
        Err(Problems(problems)) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn an_object_is_read_as_the_same_document_from_a_file_would_be() {
    let spec = json!({"ports": [{"port": 80, "name": "http", "targetPort": 8080}], "selector": {"app": "orders"}});
    let located = from_object(&service(&spec), "the API server").unwrap();
    assert_eq!(located.place.to_string(), "the API server");
    let text = json!({
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Service",
        "metadata": {"name": "orders", "namespace": "shop", "labels": {"app.kubernetes.io/part-of": "shop"}},
        "spec": spec,
    });
    let file = Source { name: "a.yaml".to_owned(), text: text.to_string() };
    assert_eq!(located.document, read(&[file]).unwrap()[0].document);
}

#[test]
fn what_is_wrong_with_an_object_is_told_by_field_and_not_by_line() {
    let spec = json!({
        "ports": [{"port": 80}, {"port": 80}, {"port": 0, "protocol": "htttp"}],
        "selector": {}, "endpoints": null,
    });
    assert_eq!(
        problems(&service(&spec)),
        [
            "the API server: Service shop/orders: spec.ports[1].port: port 80 is given twice; it already stands at \
             spec.ports[0].port: remove one",
            "the API server: Service shop/orders: spec.ports[2].port: found the number 0; expected a port from 1 to \
             65535",
            "the API server: Service shop/orders: spec.ports[2].protocol: unknown protocol `htttp`; did you mean \
             `http`? (allowed: http, http1, http2, grpc, tcp, tls, auto)",
            "the API server: Service shop/orders: spec.selector: the selector is empty, which would select every \
             workload; name a label, such as `{app: NAME}`",
        ]
    );
}

#[test]
fn a_value_that_is_no_object_is_refused_not_followed() {
    assert_eq!(problems(&json!([1])), ["the API server: found a list; expected a mapping (`field: value` lines)"]);
    let mut deep = json!("x");
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let found = problems(&service(&json!({"ports": deep})));
    assert_eq!(found, ["the API server: Service shop/orders: nested deeper than 32 levels"]);
}

#[test]
fn parents_of_a_gateway_api_route_that_are_no_services_are_others_to_take() {
    let gateway =
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge", "sectionName": "tls"});
    let front = json!({"group": "", "kind": "Service", "name": "front", "port": 443});
    let route = |api_version: &str, parents: &[&Json]| {
        json!({
            "apiVersion": api_version,
            "kind": "TLSRoute",
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {
                "parentRefs": parents,
                "hostnames": ["orders.example"],
                "rules": [{"backendRefs": [{"group": "", "kind": "Service", "name": "orders", "port": 443, "weight": 1}]}],
            },
        })
    };
    let version = "gateway.networking.k8s.io/v1alpha2";
    let mixed = route(version, &[&gateway, &front]);
    assert!(is_ours(&mixed));
    let Document::TlsRoute(read) = from_object(&mixed, "x").unwrap().document else { panic!("not a route") };
    assert_eq!(read.spec.parent_refs, [ParentRef { name: "front".to_owned(), port: Some(443) }]);
    assert!(!is_ours(&route(version, &[&gateway])));
    assert!(!is_ours(&route(version, &[])));
    // Of our own version, whose parents are services alone, a gateway is a mistake.
    let own = route("weft.dev/v1alpha1", &[&gateway, &front]);
    assert!(is_ours(&own));
    assert!(problems(&own)[0].contains("spec.parentRefs[0].sectionName: unknown field"), "{:?}", problems(&own));
    // What is wrong keeps its place among the others.
    let twice = route(version, &[&front, &gateway, &front]);
    assert!(problems(&twice)[0].contains("spec.parentRefs[2]: this parent is given twice"), "{:?}", problems(&twice));
}

#[test]
fn an_object_without_a_namespace_or_a_spec_has_the_defaults_of_its_kind() {
    let mesh = json!({"apiVersion": "weft.dev/v1alpha1", "kind": "Mesh", "metadata": {"name": "default", "uid": "1"}});
    let located = from_object(&mesh, "x").unwrap();
    assert_eq!(located.document.key(), key_of(&mesh).unwrap());
    let object = service(&json!({"ports": [{"port": 80}], "endpoints": [{"address": "192.0.2.1"}]}));
    let Document::Service(service) = from_object(&object, "x").unwrap().document else { panic!("not a service") };
    assert!(matches!(service.spec.backends, Backends::Endpoints(_)));
    assert_eq!(key_of(&json!({"kind": "Pod", "metadata": {"name": "a"}})), None);
}
