//! HTTPRoutes, found by the service port they are for, in the order the Gateway API gives them.
//!
//! A port that no route names serves all requests itself; one that routes name serves what they take. What a route refers
//! to may come later or be gone: that is told in the route's conditions, and the requests that would go there are answered
//! with 500. Such a backend gets a name no cluster ever has, so that a proxy which still holds the cluster of a service that
//! was deleted does not send there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use bytes::Bytes;

use super::envoy::routes::{Host, Retry, Rule, Waits, configuration};
use super::selection::Selection;
use super::{Warning, cluster_name, port_name};
use crate::document::{
    HttpBackendRef, HttpParentRef, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, Key, Kind, Manifest, PathMatchType,
    Protocol, RouteDuration, ServicePort, ServiceSpec, Wait,
};

/// What became of a route at one of its parents, in the terms of the Gateway API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentStatus {
    pub parent: HttpParentRef,
    /// `Accepted`: the parent exists and has a port for it.
    pub accepted: Condition,
    /// `ResolvedRefs`: every backend exists and may be named.
    pub resolved: Condition,
}

/// A condition of a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub holds: bool,
    pub reason: &'static str,
    /// Empty when it holds.
    pub message: String,
}

impl Condition {
    fn of(problems: &[(&'static str, String)], otherwise: &'static str) -> Self {
        match problems {
            [] => Self { holds: true, reason: otherwise, message: String::new() },
            [(reason, first), others @ ..] => {
                let message = others.iter().fold(first.clone(), |text, (_, what)| format!("{text}; {what}"));
                Self { holds: false, reason, message }
            }
        }
    }
}

/// Routes of service ports, by namespace, service and port.
pub(super) struct HttpRoutes<'d> {
    by_port: HashMap<(&'d str, &'d str, u16), Vec<&'d Manifest<HttpRouteSpec>>>,
    services: Services<'d>,
}

type Services<'d> = HashMap<(&'d str, &'d str), &'d Manifest<ServiceSpec>>;
type Problems = Vec<(&'static str, String)>;

impl<'d> HttpRoutes<'d> {
    /// Finds the ports of the routes, and says what became of each.
    pub(super) fn new(
        selection: &Selection<'d>,
        statuses: &mut BTreeMap<Key, Vec<ParentStatus>>,
        warnings: &mut Vec<Warning>,
    ) -> Self {
        let mut routes = Self { by_port: HashMap::new(), services: HashMap::new() };
        if selection.http_routes.is_empty() {
            return routes;
        }
        let by_name = |service: &&'d Manifest<ServiceSpec>| {
            ((service.metadata.namespace.as_str(), service.metadata.name.as_str()), *service)
        };
        routes.services = selection.services.iter().map(|(service, _)| service).map(by_name).collect();
        for route in selection.http_routes.iter().copied() {
            let namespace = route.metadata.namespace.as_str();
            let key = Key::new(Kind::HttpRoute, namespace, &route.metadata.name);
            let backends = backend_problems(route, &routes.services);
            let warning = |(_, what): &(&str, String)| Warning { key: key.clone(), what: what.clone() };
            warnings.extend(backends.iter().map(warning));
            let mut ports = BTreeSet::new();
            let mut parents = Vec::with_capacity(route.spec.parent_refs.len());
            for parent in &route.spec.parent_refs {
                let problems = parent_ports(route, parent, &routes.services, &mut ports);
                warnings.extend(problems.iter().map(warning));
                parents.push(ParentStatus {
                    parent: parent.clone(),
                    accepted: Condition::of(&problems, "Accepted"),
                    resolved: Condition::of(&backends, "ResolvedRefs"),
                });
            }
            for (service, port) in ports {
                routes.by_port.entry((namespace, service, port)).or_default().push(route);
            }
            statuses.insert(key, parents);
        }
        routes
    }

    /// The routes of a service port; `None` when no HTTPRoute names it.
    pub(super) fn configuration(&self, service: &'d Manifest<ServiceSpec>, port: &ServicePort) -> Option<Bytes> {
        let key = (service.metadata.namespace.as_str(), service.metadata.name.as_str(), port.port);
        let routes = self.by_port.get(&key)?;
        let entries: Vec<Entry<'d>> = routes.iter().flat_map(|route| self.entries(route, service)).collect();
        let domains: BTreeSet<&str> = entries.iter().flat_map(|entry| hostnames(entry.route)).collect();
        let hosts: Vec<Host<'d>> = domains.into_iter().map(|domain| host(domain, &entries)).collect();
        Some(configuration(&port_name(service, port), port.port, &hosts))
    }

    /// What a route says, match by match. `parent`: what the rules do not say of waits, it may.
    fn entries(&self, route: &'d Manifest<HttpRouteSpec>, parent: &'d Manifest<ServiceSpec>) -> Vec<Entry<'d>> {
        let mut entries = Vec::new();
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let (clusters, has_invalid) = self.clusters(route, rule);
            let called = rule.name.clone().unwrap_or_else(|| index.to_string());
            let made = Rule {
                name: format!("{}/{}/{called}", route.metadata.namespace, route.metadata.name),
                taken: None,
                clusters,
                has_invalid,
                waits: waits(rule, &parent.spec),
            };
            if rule.matches.is_empty() {
                entries.push(Entry { route, order: order(route, None), rule: made });
                continue;
            }
            for taken in &rule.matches {
                let rule = Rule { taken: Some(taken), ..made.clone() };
                entries.push(Entry { route, order: order(route, Some(taken)), rule });
            }
        }
        entries
    }

    /// Clusters and their shares, and whether some of them stand for what is not valid.
    fn clusters(&self, route: &Manifest<HttpRouteSpec>, rule: &HttpRouteRule) -> (Vec<(String, u32)>, bool) {
        let own = route.metadata.namespace.as_str();
        let mut has_invalid = false;
        let mut clusters = Vec::with_capacity(rule.backend_refs.len());
        for backend in rule.backend_refs.iter().filter(|backend| backend.weight > 0) {
            let namespace = backend.namespace.as_deref().unwrap_or(own);
            let name = cluster_name(namespace, &backend.name, backend.port);
            let is_valid = problem(own, backend, &self.services).is_none();
            has_invalid |= !is_valid;
            clusters.push((if is_valid { name } else { format!("{NO_BACKEND}/{name}") }, backend.weight));
        }
        if clusters.is_empty() {
            return (vec![(NO_BACKEND.to_owned(), 1)], true);
        }
        (clusters, has_invalid)
    }
}

/// Begins the names of clusters that nobody describes. Those of services begin with a namespace, which has no such letters.
const NO_BACKEND: &str = "NO-BACKEND";

/// One match of a route, and where it stands among the others.
struct Entry<'d> {
    route: &'d Manifest<HttpRouteSpec>,
    order: Order<'d>,
    rule: Rule<'d>,
}

/// The order of matches in the Gateway API: the least comes first. Within a route the order of its rules is kept, as
/// sorting does.
type Order<'d> = (
    // Of the path: exact, then patterns, which the API leaves open, then the longest prefix.
    (u8, Reverse<usize>),
    // Those that name a method.
    Reverse<bool>,
    // Headers, then parameters of the query.
    Reverse<usize>,
    Reverse<usize>,
    // The oldest route, then the first by name. What has no age is not older than what has one.
    (bool, Option<&'d str>),
    (&'d str, &'d str),
);

fn order<'d>(route: &'d Manifest<HttpRouteSpec>, taken: Option<&'d HttpRouteMatch>) -> Order<'d> {
    let path = taken.map_or((2, 1), |taken| {
        let kind = match taken.path.r#type {
            PathMatchType::Exact => 0,
            PathMatchType::RegularExpression => 1,
            PathMatchType::PathPrefix => 2,
        };
        (kind, taken.path.value.len())
    });
    let created = route.spec.created.as_deref();
    (
        (path.0, Reverse(path.1)),
        Reverse(taken.is_some_and(|taken| taken.method.is_some())),
        Reverse(taken.map_or(0, |taken| taken.headers().count())),
        Reverse(taken.map_or(0, |taken| taken.query_params().count())),
        (created.is_none(), created),
        (&route.metadata.namespace, &route.metadata.name),
    )
}

/// Requests to `domain`: rules of routes that name it, then of those that name what it is below, then all others. A request
/// that no rule of the more exact routes takes is asked of the others (Gateway API).
fn host<'d>(domain: &str, entries: &[Entry<'d>]) -> Host<'d> {
    let mut taken: Vec<_> = entries
        .iter()
        .filter_map(|entry| {
            let covering = hostnames(entry.route).into_iter().filter(|name| covers(name, domain));
            // Whole names before all others, the longest first.
            let exactness = |name: &str| (name.starts_with('*'), Reverse(name.len()));
            covering.map(exactness).min().map(|exactness| ((exactness, entry.order), &entry.rule))
        })
        .collect();
    taken.sort_by_key(|(order, _)| *order);
    Host { domain: domain.to_owned(), rules: taken.into_iter().map(|(_, rule)| rule.clone()).collect() }
}

/// The hosts a route is for; `*` stands for all.
fn hostnames(route: &Manifest<HttpRouteSpec>) -> Vec<&str> {
    let names = &route.spec.hostnames;
    if names.is_empty() { vec!["*"] } else { names.iter().map(String::as_str).collect() }
}

/// Whether whatever is of `domain` is of `name` as well.
fn covers(name: &str, domain: &str) -> bool {
    let below = |suffix: &str| suffix.is_empty() || domain.len() > suffix.len() && domain.ends_with(suffix);
    name == domain || name.strip_prefix('*').is_some_and(below)
}

/// What a rule says of waits, and where it says nothing, what the parent says.
fn waits<'d>(rule: &'d HttpRouteRule, parent: &'d ServiceSpec) -> Waits<'d> {
    // Zero is said, and means none.
    let choose = |own: Option<RouteDuration>, of_parent: Option<Wait>| match own {
        Some(own) => Some(own.duration()).filter(|wait| !wait.is_zero()),
        None => of_parent.map(Wait::duration),
    };
    let of_parent = parent.timeouts.unwrap_or_default();
    let request: Option<Duration> = choose(rule.timeouts.request, of_parent.request);
    let per_try = choose(rule.timeouts.backend_request, of_parent.per_try);
    let retry = match (&rule.retry, &parent.retries) {
        (Some(retry), _) => Retry::Rule(Some(retry)),
        (None, Some(retries)) => Retry::Service(retries),
        (None, None) => Retry::Rule(None),
    };
    Waits { request, per_try, retry }
}

/// Adds the ports of a parent that a route is for.
fn parent_ports<'d>(
    route: &'d Manifest<HttpRouteSpec>,
    parent: &'d HttpParentRef,
    services: &Services<'d>,
    into: &mut BTreeSet<(&'d str, u16)>,
) -> Problems {
    const REASON: &str = "NoMatchingParent";
    let name = parent.name.as_str();
    let Some(service) = services.get(&(route.metadata.namespace.as_str(), name)) else {
        return vec![(REASON, format!("its parent, the service {name}, does not exist yet"))];
    };
    let is_meant = |port: &&ServicePort| {
        parent.port.is_none_or(|number| port.port == number)
            && parent.section_name.as_ref().is_none_or(|section| port.name.as_ref() == Some(section))
    };
    let is_narrowed = parent.port.is_some() || parent.section_name.is_some();
    let meant: Vec<&ServicePort> = service.spec.ports.iter().filter(is_meant).collect();
    let found: Vec<&ServicePort> = meant.iter().copied().filter(|port| carries_http(port.protocol)).collect();
    into.extend(found.iter().map(|port| (name, port.port)));
    let what = match (meant.as_slice(), found.as_slice()) {
        (_, [_, ..]) => return Vec::new(),
        ([], []) => format!("its parent, the service {name}, has no port {}", called(parent)),
        ([port, ..], []) if is_narrowed => format!(
            "it has no effect on port {} of {name}, which says {}; give that port `protocol: http`",
            port.port, port.protocol
        ),
        _ => format!("its parent, the service {name}, has no port that carries HTTP"),
    };
    vec![(REASON, what)]
}

fn called(parent: &HttpParentRef) -> String {
    match (parent.port, &parent.section_name) {
        (Some(port), Some(section)) => format!("{port} named {section}"),
        (Some(port), None) => port.to_string(),
        (None, section) => section.as_deref().unwrap_or("at all").to_owned(),
    }
}

fn carries_http(protocol: Protocol) -> bool {
    !matches!(protocol, Protocol::Tcp | Protocol::Tls)
}

fn backend_problems(route: &Manifest<HttpRouteSpec>, services: &Services<'_>) -> Problems {
    let own = route.metadata.namespace.as_str();
    let of_backends = route.spec.backends().filter_map(|backend| problem(own, backend, services));
    let mut problems: Problems = of_backends.collect();
    problems.dedup();
    problems
}

/// Why a backend gets nothing: the reason as the Gateway API calls it, and what to do.
fn problem(own: &str, backend: &HttpBackendRef, services: &Services<'_>) -> Option<(&'static str, String)> {
    let (name, port) = (&backend.name, backend.port);
    let namespace = backend.namespace.as_deref().unwrap_or(own);
    if namespace != own && !backend.permitted {
        let what = format!(
            "its backend, port {port} of the service {name}, is of another namespace, {namespace}, which does not permit it; \
             let a ReferenceGrant there do so, or write the route where its backends are"
        );
        return Some(("RefNotPermitted", what));
    }
    let service = services.get(&(namespace, name.as_str()));
    let found = service.and_then(|service| service.spec.ports.iter().find(|known| known.port == port));
    match found.map(|port| port.protocol) {
        None => Some((
            "BackendNotFound",
            format!(
                "its backend, port {port} of the service {name}, does not exist yet: its requests are answered with 500"
            ),
        )),
        Some(protocol) if carries_http(protocol) => None,
        Some(protocol) => Some((
            "UnsupportedProtocol",
            format!(
                "its backend, port {port} of the service {name}, says {protocol} and takes no requests; give it `protocol: http`"
            ),
        )),
    }
}
