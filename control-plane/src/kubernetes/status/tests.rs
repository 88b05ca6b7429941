//! Facts in, statuses out; and the whole against an API server in this process.

mod keeping;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;

use serde_json::json;

use super::condition::Difference;
use super::desk::Desk;
use super::facts::Write;
use super::proxies::{Group, Standing};
use super::wanted::Outcome;
use super::*;
use crate::compile::{Compiler, Warning};
use crate::serve::{Refused, RefusedResources};
use crate::store::testing;

const STAMP: &str = "2026-01-31T08:00:00Z";

/// Documents of revision 7, in a snapshot of a later one.
fn snapshot(text: &str) -> Snapshot {
    Snapshot { revision: 9, ..testing::snapshot(text, 7) }
}

const SHOP: &str = r"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: orders, namespace: shop}
spec: {addresses: [10.96.0.7], ports: [{port: 80}], selector: {app: orders}}
---
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: front, namespace: shop}
spec: {addresses: [10.96.0.8], ports: [{port: 443, protocol: tls}], selector: {app: front}}
---
apiVersion: weft.dev/v1alpha1
kind: TLSRoute
metadata: {name: front, namespace: shop}
spec: {parentRefs: [{name: front}], rules: [{backendRefs: [{name: front, port: 443}]}]}
";

/// The object of the document `shop/orders`.
fn orders() -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "Service",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "1", "resourceVersion": "5", "generation": 3},
        "spec": {"ports": [{"port": 80}], "selector": {"app": "orders"}},
    })
}

fn route() -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "TLSRoute",
        "metadata": {"name": "front", "namespace": "shop", "uid": "2", "resourceVersion": "5", "generation": 1},
        "spec": {
            "parentRefs": [
                {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"},
                {"group": "", "kind": "Service", "name": "front", "port": 443},
            ],
            "rules": [{"backendRefs": [{"group": "", "kind": "Service", "name": "front", "port": 443, "weight": 1}]}],
        },
    })
}

fn proxy(workload: &str, answered: u64, refused: &[(&str, &str)]) -> ProxyInfo {
    let refusal = |(name, message): &(&str, &str)| RefusedResources {
        refused: Refused {
            type_url: "type.googleapis.com/envoy.config.listener.v3.Listener",
            message: (*message).to_owned(),
            at: 0,
        },
        names: vec![(*name).into()],
        more: name.is_empty(),
    };
    ProxyInfo {
        workload: workload.to_owned(),
        namespace: workload.split('/').next().unwrap().to_owned(),
        spiffe_id: weft_core::names::SpiffeId::workload("cluster.local", "shop", "orders"),
        address: None,
        version: "0".to_owned(),
        connected_since: 0,
        applied_revision: 0,
        pending: 0,
        nack: None,
        admin: String::new(),
        answered_revision: answered,
        refused: refused.iter().map(refusal).collect(),
    }
}

/// What is known in a case.
struct Case {
    snapshot: Snapshot,
    readings: HashMap<ObjectKey, Reading>,
    findings: Findings,
    proxies: Vec<ProxyInfo>,
    others: Others,
    now: Instant,
}

impl Case {
    /// The shop, all of it in force.
    fn new() -> Self {
        Self {
            snapshot: snapshot(SHOP),
            readings: HashMap::new(),
            findings: Findings { revision: 9, ..Findings::default() },
            proxies: Vec::new(),
            others: Others::default(),
            now: clock::now(),
        }
    }

    fn observed(&self, object: &Value) -> Observed {
        Observed::new(object.clone(), self.now).unwrap()
    }

    /// With an object read, and what was wrong with it.
    fn read(mut self, object: &Value, problems: &[&str]) -> Self {
        let object = self.observed(object);
        let problems = problems.iter().map(ToString::to_string).collect();
        let reading = Reading { key: object.id.key.clone(), generation: object.generation, problems };
        self.readings.insert(object.id, reading);
        self
    }

    fn proxies(mut self, proxies: &[ProxyInfo]) -> Self {
        self.proxies = proxies.to_vec();
        self
    }

    fn with<T>(&self, look: impl FnOnce(&Facts<'_>) -> T) -> T {
        let proxies = Proxies::new(&self.proxies, self.others.groups(), self.others.silent);
        let (snapshot, readings, findings) = (&self.snapshot, &self.readings, &self.findings);
        look(&Facts { snapshot, readings, findings, proxies: &proxies, now: self.now })
    }

    fn outcome(&self, object: &Value) -> Outcome {
        self.with(|facts| facts.outcome(&self.observed(object), STAMP))
    }

    fn write(&self, object: &Value) -> Write {
        match self.outcome(object) {
            Outcome::Write(write) => write,
            other => panic!("{other:?}"),
        }
    }

    /// `TYPE STATUS REASON: MESSAGE` of what would be written.
    fn conditions(&self, object: &Value) -> Vec<String> {
        let (Patch::Apply(status) | Patch::Merge(status)) = self.write(object).patch;
        let ours = status.pointer("/parents").and_then(Value::as_array).map(|parents| parents.last().unwrap().clone());
        let conditions = ours.unwrap_or(status)["conditions"].clone();
        let text = |condition: &Value| {
            let field = |name: &str| condition[name].as_str().unwrap().to_owned();
            format!("{} {} {}: {}", field("type"), field("status"), field("reason"), field("message"))
        };
        conditions.as_array().unwrap().iter().map(text).collect()
    }
}

/// An object as it is after a write.
fn after(object: &Value, write: &Write) -> Value {
    let (Patch::Apply(status) | Patch::Merge(status)) = &write.patch;
    let mut object = object.clone();
    object["status"] = status.clone();
    object
}

#[test]
fn programmed_tells_how_many_proxies_have_applied_a_document_and_who_refused_it() {
    let refusal = [("outbound/shop/orders:80", "no such thing")];
    let other = [("outbound/shop/front:443", "no such thing")];
    let everything = [("", "cannot read")];
    // Revision 7 is the one in question.
    let table = [
        (vec![], "Unknown NoProxies: no proxy is connected"),
        (vec![proxy("shop/a", 7, &[])], "True Programmed: applied by 1 of 1 connected proxy"),
        (vec![proxy("shop/a", 9, &[]), proxy("shop/b", 6, &[])], "False Pending: applied by 1 of 2 connected proxies"),
        // One that is just starting has no part in it.
        (vec![proxy("shop/a", 9, &[]), proxy("shop/b", 0, &[])], "True Programmed: applied by 1 of 1 connected proxy"),
        (
            vec![proxy("shop/a", 9, &[]), proxy("shop/b", 9, &refusal)],
            "False Refused: 1 of 2 connected proxies refused it: shop/b: Listener: no such thing",
        ),
        // What it refused is somebody else's.
        (
            vec![proxy("shop/a", 9, &[]), proxy("shop/b", 9, &other)],
            "True Programmed: applied by 2 of 2 connected proxies",
        ),
        (
            vec![proxy("shop/b", 0, &everything)],
            "False Refused: 1 of 1 connected proxy refused it: shop/b: Listener: cannot read",
        ),
        (
            vec![proxy("shop/a", 6, &[]), proxy("shop/b", 9, &[refusal[0], everything[0]]), proxy("shop/c", 9, &[])],
            "False Refused: 1 of 3 connected proxies refused it: shop/b: Listener: no such thing",
        ),
    ];
    for (proxies, expected) in table {
        let conditions = Case::new().read(&orders(), &[]).proxies(&proxies).conditions(&orders());
        assert_eq!(
            conditions,
            ["Accepted True Accepted: valid and in force".to_owned(), format!("Programmed {expected}")]
        );
    }
}

#[test]
fn proxies_of_other_replicas_count_by_the_revisions_of_those() {
    let refusal = [("outbound/shop/orders:80", "no such thing")];
    // Revision 70 there is what 7 is here.
    let of_other = |proxies: &[ProxyInfo], generation: i64| {
        let standing = Standing { generation, since: 70 };
        let id = "weft.dev/v1alpha1 Service shop/orders".to_owned();
        let mut group = Group::new(proxies);
        group.objects = Some([(id, standing)].into());
        let report = Report { replica: "other".into(), group };
        // As it comes over the wire.
        let report: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        Others { reports: vec![Arc::new(report)], silent: 0 }
    };
    let silent = Others { silent: 1, ..Others::default() };
    let table = [
        (of_other(&[proxy("shop/b", 70, &[])], 3), "True Programmed: applied by 2 of 2 connected proxies"),
        (of_other(&[proxy("shop/b", 69, &[])], 3), "False Pending: applied by 1 of 2 connected proxies"),
        (of_other(&[proxy("shop/b", 99, &[])], 2), "False Pending: applied by 1 of 2 connected proxies"),
        (
            of_other(&[proxy("shop/b", 70, &refusal)], 3),
            "False Refused: 1 of 2 connected proxies refused it: shop/b: Listener: no such thing",
        ),
        (
            silent,
            "Unknown ReplicaSilent: applied by 1 of 1 connected proxy; of the proxies of 1 further replica of the control \
             plane nothing is known",
        ),
    ];
    for (others, expected) in table {
        let case = Case { others, ..Case::new().read(&orders(), &[]).proxies(&[proxy("shop/a", 7, &[])]) };
        assert_eq!(case.conditions(&orders())[1], format!("Programmed {expected}"));
    }
}

#[test]
fn what_a_proxy_refuses_is_told_to_the_object_it_was_made_of() {
    let object = |kind: &str, name: &str, spec: Value| {
        json!({"apiVersion": "weft.dev/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": "shop", "generation": 1}, "spec": spec})
    };
    let table = [
        (orders(), "shop/orders:80", true),
        (orders(), "outbound/shop/orders:80", true),
        (orders(), "shop/orders-2:80", false),
        (orders(), "other/shop/orders:80", false),
        (orders(), "inbound/80", false),
        (route(), "outbound/shop/front:443", true),
        (route(), "outbound/shop/front:80", false),
        (object("Mesh", "default", json!({})), "inbound/80", true),
        (object("Mesh", "default", json!({})), "shop/orders:80", false),
        (object("Workload", "orders-1", json!({})), "inbound/80", true),
        (object("Workload", "orders-2", json!({})), "inbound/80", false),
    ];
    for (object, resource, expected) in table {
        let observed = Observed::new(object, clock::now()).unwrap();
        let proxies = Proxies::new(&[proxy("shop/orders-1", 9, &[(resource, "no")])], [], 0);
        assert_eq!(proxies.tally(&observed, 7).refused == 1, expected, "{} {resource}", observed.id.key);
    }
}

#[test]
fn an_object_that_is_not_in_force_says_why_and_what_is() {
    let mut bad = orders();
    bad["spec"]["selector"] = json!({});
    let problem = "spec.selector: the selector is empty";
    let in_force = Case::new().read(&bad, &[problem]);
    assert_eq!(
        in_force.conditions(&bad),
        [
            format!("Accepted False Invalid: its last valid version stays in force: {problem}"),
            "Programmed False Invalid: no proxy has been told of it: it is not accepted".to_owned(),
        ]
    );
    let mut never = Case::new().read(&bad, &[problem]);
    never.snapshot = snapshot("apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\n");
    assert_eq!(never.conditions(&bad)[0], format!("Accepted False Invalid: nothing of it is in force: {problem}"));
    // Valid, but the name is another's.
    let shadowed = Case::new().read(&orders(), &["the cluster itself has it"]);
    assert_eq!(
        shadowed.conditions(&orders())[0],
        "Accepted False Conflicted: nothing of it is in force: the cluster itself has it"
    );
    let endless = "x".repeat(100_000);
    let message = &Case::new().read(&bad, &[&endless]).conditions(&bad)[0];
    assert!(message.len() < 1200 && message.ends_with("..."), "{}", message.len());
}

#[test]
fn nothing_is_said_before_it_is_known() {
    let mut case = Case::new();
    assert_eq!(case.outcome(&orders()), Outcome::Unknown, "not read yet");
    case = case.read(&orders(), &[]);
    let mut newer = orders();
    newer["metadata"]["generation"] = json!(4);
    assert_eq!(case.outcome(&newer), Outcome::Unknown, "an older generation was read");
    let older = case.observed(&orders());
    case = case.read(&newer, &[]);
    assert_eq!(case.with(|facts| facts.outcome(&older, STAMP)), Outcome::Unknown, "a newer generation was read");
    // At some point silence is news.
    case.readings.clear();
    let seen = case.observed(&orders());
    case.now += Duration::from_secs(10);
    let Outcome::Write(write) = case.with(|facts| facts.outcome(&seen, STAMP)) else { panic!("nothing is said") };
    assert_eq!(after(&orders(), &write)["status"]["conditions"][0]["reason"], "Pending");
}

#[test]
fn what_is_written_is_written_once_and_keeps_the_time_since_when() {
    let case = Case::new().read(&orders(), &[]).proxies(&[proxy("shop/a", 6, &[])]);
    let written = after(&orders(), &case.write(&orders()));
    assert_eq!(written["status"]["observedGeneration"], 3);
    assert_eq!(case.outcome(&written), Outcome::Same);
    let later = Case { proxies: vec![proxy("shop/a", 9, &[])], ..case };
    let Outcome::Write(write) = later.with(|facts| facts.outcome(&later.observed(&written), "2026-02-01T00:00:00Z"))
    else {
        panic!("nothing is said")
    };
    assert_eq!(write.difference, Difference::Real);
    let turned = after(&orders(), &write);
    let since = |index: usize| turned["status"]["conditions"][index]["lastTransitionTime"].clone();
    assert_eq!((since(0), since(1)), (json!(STAMP), json!("2026-02-01T00:00:00Z")));
    // One proxy more changes a number and nothing else.
    let more = Case { proxies: vec![proxy("shop/a", 9, &[]), proxy("shop/b", 9, &[])], ..later };
    assert_eq!(more.write(&turned).difference, Difference::Count);
}

#[test]
fn warnings_of_the_compiler_are_told_with_the_acceptance() {
    let mut case = Case::new().read(&orders(), &[]);
    let key = case.observed(&orders()).id.key;
    let what = "its selector app=orders selects no workload yet".to_owned();
    case.findings.warnings.insert(key.clone(), vec![Warning { key, what }]);
    let accepted = &case.conditions(&orders())[0];
    assert_eq!(accepted, "Accepted True Accepted: valid and in force; its selector app=orders selects no workload yet");
}

#[test]
fn a_route_has_an_entry_for_each_service_it_has_as_parent_beside_those_of_others() {
    let case = Case::new().read(&route(), &[]).proxies(&[proxy("shop/a", 9, &[])]);
    assert_eq!(
        case.conditions(&route()),
        [
            "Accepted True Accepted: valid and in force",
            "ResolvedRefs True ResolvedRefs: every backend exists",
            "weft.dev/Programmed True Programmed: applied by 1 of 1 connected proxy",
        ]
    );
    let other = json!({"parentRef": {"name": "edge"}, "controllerName": "example.com/gateway", "conditions": [{"type": "Accepted", "nonsense": 1}]});
    let mut shared = route();
    let stale = json!({"parentRef": {"group": "", "kind": "Service", "name": "gone"}, "controllerName": route::CONTROLLER, "conditions": []});
    shared["status"] = json!({"parents": [other, stale]});
    let written = after(&shared, &case.write(&shared));
    let parents = written["status"]["parents"].as_array().unwrap();
    assert_eq!((parents.len(), &parents[0]), (2, &other));
    assert_eq!(parents[1]["parentRef"], json!({"group": "", "kind": "Service", "name": "front", "port": 443}));
    assert_eq!(parents[1]["controllerName"], "weft.dev/controller");
    assert_eq!(case.outcome(&written), Outcome::Same);
    // Ours no more: only what we said goes.
    let mut left = written.clone();
    left["spec"]["parentRefs"].as_array_mut().unwrap().pop();
    assert_eq!(after(&left, &case.write(&left))["status"]["parents"], json!([other]));
    let mut never = route();
    never["spec"]["parentRefs"].as_array_mut().unwrap().pop();
    assert_eq!(case.outcome(&never), Outcome::Same);
}

#[test]
fn a_route_says_which_of_its_references_lead_nowhere() {
    let with = |pointer: &str, value: Value| {
        let mut route = route();
        *route.pointer_mut(pointer).unwrap() = value;
        route
    };
    let (parent, backend) = ("/spec/parentRefs/1", "/spec/rules/0/backendRefs/0");
    let service = |name: &str, port: u16| json!({"group": "", "kind": "Service", "name": name, "port": port});
    let table = [
        (with(parent, service("nobody", 443)), 0, "Accepted False NoMatchingParent: the service nobody does not exist"),
        (with(parent, service("front", 80)), 0, "Accepted False NoMatchingParent: the service front has no port 80"),
        (
            with(backend, service("nobody", 443)),
            1,
            "ResolvedRefs False BackendNotFound: the service nobody does not exist",
        ),
        (
            with(backend, service("front", 80)),
            1,
            "ResolvedRefs False BackendNotFound: the service front has no port 80",
        ),
        (
            with(backend, json!({"group": "", "kind": "Service", "name": "front", "port": 443, "namespace": "other"})),
            1,
            "ResolvedRefs False RefNotPermitted: the backend front is in namespace other; a route sends to services of its own, shop",
        ),
        (
            with(backend, json!({"group": "example.com", "kind": "Bucket", "name": "front"})),
            1,
            "ResolvedRefs False InvalidKind: the backend front is a Bucket; only services can be sent to",
        ),
    ];
    for (route, index, expected) in table {
        assert_eq!(Case::new().read(&route, &[]).conditions(&route)[index], expected);
    }
    // What the Gateway API allows and we cannot do has its own word there.
    let bad = with("/spec/rules/0", json!({"filters": [], "backendRefs": [service("front", 443)]}));
    let accepted = &Case::new().read(&bad, &["spec.rules[0].filters: unknown field"]).conditions(&bad)[0];
    assert!(accepted.starts_with("Accepted False UnsupportedValue: its last valid version"), "{accepted}");
}

const ROUTED: &str = r"
apiVersion: weft.dev/v1alpha1
kind: Service
metadata: {name: web, namespace: shop}
spec: {addresses: [10.96.0.9], ports: [{name: http, port: 80, protocol: http}, {port: 90, protocol: tcp}], selector: {app: web}}
---
apiVersion: weft.dev/v1alpha1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
";

/// A case with an HTTPRoute, compiled, under an API version; its parents and its backend as they stand in it.
fn http_route(api_version: &str, parents: &[Value], backend: &Value) -> (Case, Value) {
    let spec = json!({"parentRefs": parents, "rules": [{"backendRefs": [backend]}]});
    let text = format!("{SHOP}---\n{} {spec}\n", ROUTED.trim_end());
    let object = json!({
        "apiVersion": api_version, "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "uid": "3", "resourceVersion": "5", "generation": 1},
        "spec": spec,
    });
    let mut case = Case::new().read(&object, &[]).proxies(&[proxy("shop/a", 9, &[])]);
    case.snapshot = snapshot(&text);
    let mut compiler = Compiler::new("shop.local");
    compiler.follow(&Arc::new(snapshot(&text)), &Arc::default());
    case.findings = compiler.findings().clone();
    (case, object)
}

fn to_service(name: &str, port: Option<u16>) -> Value {
    let mut reference = json!({"group": "", "kind": "Service", "name": name});
    if let Some(port) = port {
        reference["port"] = port.into();
    }
    reference
}

#[test]
fn an_http_route_says_of_each_parent_what_the_compiler_did() {
    let gateway_api = "gateway.networking.k8s.io/v1";
    let in_force = "Accepted True Accepted: valid and in force";
    let resolved = "ResolvedRefs True ResolvedRefs: every backend exists";
    let mut by_section = to_service("web", None);
    by_section["sectionName"] = "nothing".into();
    let table = [
        (to_service("web", Some(80)), to_service("web", Some(80)), [in_force, resolved]),
        (to_service("web", None), to_service("web", Some(80)), [in_force, resolved]),
        (
            to_service("web", Some(90)),
            to_service("web", Some(80)),
            [
                "Accepted False NoMatchingParent: it has no effect on port 90 of web, which says tcp; give that port `protocol: http`",
                resolved,
            ],
        ),
        (
            by_section,
            to_service("web", Some(80)),
            ["Accepted False NoMatchingParent: its parent, the service web, has no port nothing", resolved],
        ),
        (
            to_service("nobody", None),
            to_service("web", Some(80)),
            ["Accepted False NoMatchingParent: its parent, the service nobody, does not exist yet", resolved],
        ),
        (
            to_service("web", None),
            to_service("web", Some(90)),
            [
                in_force,
                "ResolvedRefs False UnsupportedProtocol: its backend, port 90 of the service web, says tcp and takes no requests; give it `protocol: http`",
            ],
        ),
        (
            to_service("web", None),
            to_service("nobody", Some(80)),
            [
                in_force,
                "ResolvedRefs False BackendNotFound: its backend, port 80 of the service nobody, does not exist yet: its requests are answered with 500",
            ],
        ),
    ];
    for (parent, backend, expected) in table {
        let (case, object) = http_route(gateway_api, &[to_service("other", None), parent], &backend);
        assert_eq!(case.conditions(&object)[..2], expected);
    }
}

#[test]
fn an_http_route_of_our_own_is_accepted_where_one_of_its_parents_takes_it() {
    let own = "weft.dev/v1alpha1";
    let (case, object) =
        http_route(own, &[json!({"name": "nobody"}), json!({"name": "web"})], &json!({"name": "web", "port": 81}));
    let told = case.conditions(&object);
    assert!(told[0].starts_with("Accepted True Accepted: valid and in force; "), "{told:?}");
    assert!(
        told[1].starts_with("ResolvedRefs False BackendNotFound: its backend, port 81 of the service web"),
        "{told:?}"
    );
    assert!(told[2].starts_with("Programmed True"), "{told:?}");
    let (case, object) = http_route(own, &[json!({"name": "nobody"})], &json!({"name": "web", "port": 80}));
    let told = case.conditions(&object);
    assert_eq!(told[0], "Accepted False NoMatchingParent: its parent, the service nobody, does not exist yet");
}

#[test]
fn nothing_is_said_of_an_object_before_it_has_been_compiled() {
    let mut case = Case::new().read(&orders(), &[]);
    case.findings.revision = 6;
    assert_eq!(case.outcome(&orders()), Outcome::Unknown);
}

/// Objects by number, all read, seen by a desk.
fn desk(case: &mut Case, count: usize) -> Desk {
    let mut desk = Desk::default();
    let (what, _) = watching::candidates().nth(1).unwrap();
    let mut text = SHOP.to_owned();
    for index in 0..count {
        let name = format!("s{index}");
        let mut object = orders();
        object["metadata"]["name"] = json!(name);
        let id = case.observed(&object).id;
        let reading = Reading { key: id.key.clone(), generation: 3, problems: Vec::new() };
        case.readings.insert(id, reading);
        desk.take((what, watching::Change::Seen(object.into())), case.now);
        text += "---\napiVersion: weft.dev/v1alpha1\nkind: Service\nspec: {ports: [{port: 80}], selector: {a: b}}\n";
        writeln!(text, "metadata: {{name: {name}, namespace: shop}}").unwrap();
    }
    case.snapshot = snapshot(&text);
    desk
}

/// Writes what is planned; how many there were.
fn turn(desk: &mut Desk, case: &Case) -> (usize, Option<Instant>) {
    let plan = case.with(|facts| desk.plan(facts, STAMP));
    let count = plan.writes.len();
    for (object, write) in plan.writes {
        desk.written(&object, Some(after(&object.object, &write)), case.now);
    }
    (count, desk.next(plan.next, case.now))
}

#[test]
fn a_thousand_proxies_that_acknowledge_are_no_thousand_writes() {
    let mut case = Case::new();
    let mut desk = desk(&mut case, 10);
    let proxies = |applied: usize| {
        (0..1000).map(move |index| proxy(&format!("shop/p{index}"), if index < applied { 9 } else { 6 }, &[]))
    };
    let mut writes = 0;
    for applied in 0..=1000 {
        case.proxies = proxies(applied).collect();
        case.now += Duration::from_millis(10);
        writes += turn(&mut desk, &case).0;
    }
    // Pending, and then programmed.
    assert_eq!(writes, 20);
    // A number that is out of date is brought up to date when its time has come.
    case.proxies = proxies(1000).take(500).collect();
    let (count, next) = turn(&mut desk, &case);
    assert_eq!(count, 0);
    case.now = next.unwrap();
    assert_eq!(turn(&mut desk, &case).0, 10);
}

#[test]
fn a_round_writes_so_many_and_the_next_the_rest_what_matters_first() {
    let mut case = Case::new();
    let mut desk = desk(&mut case, 150);
    let mut counts = Vec::new();
    loop {
        let (count, next) = turn(&mut desk, &case);
        counts.push(count);
        if next.is_none() {
            break;
        }
    }
    assert_eq!(counts, [64, 64, 22]);
}

#[test]
fn a_write_that_fails_is_tried_again_later_each_time() {
    let mut case = Case::new();
    let mut desk = desk(&mut case, 1);
    let mut waits = Vec::new();
    for _ in 0..8 {
        let plan = case.with(|facts| desk.plan(facts, STAMP));
        assert_eq!(plan.writes.len(), 1);
        desk.written(&plan.writes[0].0, None, case.now);
        let next = desk.next(plan.next, case.now).unwrap();
        assert!(case.with(|facts| desk.plan(facts, STAMP)).writes.is_empty(), "not before its time");
        waits.push((next - case.now).as_secs());
        case.now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    turn(&mut desk, &case);
    assert_eq!(desk.next(None, case.now), None, "what is written is not tried again");
}

#[test]
fn what_a_list_has_no_more_is_forgotten() {
    let mut case = Case::new();
    let mut desk = desk(&mut case, 3);
    let (what, _) = watching::candidates().nth(1).unwrap();
    desk.take((what, watching::Change::ListBegins), case.now);
    assert_eq!(case.with(|facts| desk.plan(facts, STAMP)).writes.len(), 3, "a list that is under way says nothing");
    let mut stays = orders();
    stays["metadata"]["name"] = json!("s1");
    desk.take((what, watching::Change::Seen(stays.into())), case.now);
    desk.take((what, watching::Change::ListEnds), case.now);
    assert_eq!(turn(&mut desk, &case).0, 1);
}
