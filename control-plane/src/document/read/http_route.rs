//! `HTTPRoute` documents.

use std::collections::HashMap;

use weft_core::pattern::Pattern;
use weft_core::retry::MOST_RETRIES;

use crate::document::field::{Field, Fields, Reader};
use crate::document::http_route::default_tries;
use crate::document::limits::{PARENTS, PATH_CHARACTERS, ROUTE_ENTRIES, ROUTE_MATCHES, ROUTE_RULES, STATUSES};
use crate::document::problem::shortened;
use crate::document::tls_route::{MAX_WEIGHT, default_weight};
use crate::document::yaml::Value;
use crate::document::{
    HttpBackendRef, HttpMethod, HttpParentRef, HttpPathMatch, HttpRouteMatch, HttpRouteRule, HttpRouteSpec,
    HttpValueMatch, PathMatchType, RouteDuration, RouteRetry, RouteTimeouts, ValueMatchType,
};

const PATHS: [(&str, PathMatchType); 3] = [
    ("Exact", PathMatchType::Exact),
    ("PathPrefix", PathMatchType::PathPrefix),
    ("RegularExpression", PathMatchType::RegularExpression),
];
const VALUES: [(&str, ValueMatchType); 2] =
    [("Exact", ValueMatchType::Exact), ("RegularExpression", ValueMatchType::RegularExpression)];

impl Reader {
    /// `namespace` is the route's own: its parents are of no other.
    pub(super) fn http_route(
        &mut self,
        spec: &Field<'_>,
        namespace: &str,
        created: Option<String>,
    ) -> Option<HttpRouteSpec> {
        let fields = self.fields(spec, &["parentRefs", "hostnames", "rules"])?;
        let parents = fields
            .required(self, "parentRefs", "parentRefs: [{kind: Service, name: orders, port: 80}]")
            .and_then(|field| self.http_parents(&field, namespace));
        let hostnames = fields.get("hostnames").map_or(Some(Vec::new()), |field| {
            self.at_most(&field, ROUTE_ENTRIES);
            self.hostnames(&field)
        });
        let rules = fields
            .required(self, "rules", "rules: [{backendRefs: [{name: orders, port: 80}]}]")
            .and_then(|field| self.http_rules(&field, namespace));
        Some(HttpRouteSpec { parent_refs: parents?, hostnames: hostnames?, rules: rules?, created })
    }

    fn http_parents(&mut self, field: &Field<'_>, namespace: &str) -> Option<Vec<HttpParentRef>> {
        let items = self.some_items(field, "services, such as `{kind: Service, name: orders, port: 80}`")?;
        self.at_most(field, PARENTS);
        let mut seen = HashMap::new();
        let mut parents = Vec::new();
        let mut others = false;
        for item in &items {
            let allowed = ["group", "kind", "namespace", "name", "port", "sectionName"];
            let Some(fields) = self.fields(item, &allowed) else { continue };
            if is_gateway(&fields) || self.is_for_others(item) {
                // One route may serve a gateway as well: that one is somebody else's.
                others = true;
                continue;
            }
            let name = self.service_reference(&fields, namespace);
            let port = fields.get("port").map_or(Some(None), |field| self.port(&field).map(Some));
            let section = fields.get("sectionName").map_or(Some(None), |field| self.label(&field).map(Some));
            let (Some(name), Some(port), Some(section_name)) = (name, port, section) else { continue };
            self.unique(&mut seen, (name.clone(), port, section_name.clone()), item, "this parent");
            parents.push(HttpParentRef { name, port, section_name });
        }
        if parents.is_empty() && others {
            let what = "no parent is a service: a mesh routes what is sent to services; write `kind: Service`";
            self.problem(field.at(), &field.path, what.into());
        }
        Some(parents)
    }

    fn http_rules(&mut self, field: &Field<'_>, namespace: &str) -> Option<Vec<HttpRouteRule>> {
        let items = self.some_items(field, "rules, such as `{backendRefs: [{name: orders, port: 80}]}`")?;
        self.at_most(field, ROUTE_RULES);
        let mut seen = HashMap::new();
        let mut rules = Vec::new();
        for item in &items {
            let allowed = ["name", "matches", "filters", "backendRefs", "timeouts", "retry", "sessionPersistence"];
            let Some(fields) = self.fields(item, &allowed) else { continue };
            self.no_filters(&fields);
            if let Some(field) = fields.get("sessionPersistence") {
                let what = "the proxies keep no sessions: any endpoint may get any request; remove it";
                self.problem(field.at(), &field.path, what.into());
            }
            let name = match fields.get("name") {
                Some(field) => {
                    let name = self.subdomain(&field);
                    if let Some(name) = &name {
                        self.unique(&mut seen, name.clone(), &field, &format!("the name `{name}`"));
                    }
                    name.map(Some)
                }
                None => Some(None),
            };
            let matches = fields.get("matches").map_or(Some(Vec::new()), |field| self.http_matches(&field));
            let backends =
                fields.get("backendRefs").map_or(Some(Vec::new()), |field| self.http_backends(&field, namespace));
            let timeouts =
                fields.get("timeouts").map_or(Some(RouteTimeouts::default()), |field| self.http_timeouts(&field));
            let retry = fields.get("retry").map_or(Some(None), |field| self.http_retry(&field).map(Some));
            if let (Some(name), Some(matches), Some(backend_refs), Some(timeouts), Some(retry)) =
                (name, matches, backends, timeouts, retry)
            {
                rules.push(HttpRouteRule { name, matches, backend_refs, timeouts, retry });
            }
        }
        Some(rules)
    }

    /// What would change a message, or send it twice.
    fn no_filters(&mut self, fields: &Fields<'_>) {
        let Some(field) = fields.get("filters") else { return };
        let Some(items) = self.items(&field, "filters") else { return };
        for item in &items {
            let Some(fields) = self.mapping(item) else { continue };
            let kind = fields.get("type").and_then(|kind| self.text(&kind).map(str::to_owned));
            let what = format!(
                "the proxies pass requests and answers on as they are, so a filter ({}) cannot be followed; supported are \
                 matches, backendRefs with weights, timeouts and retry",
                kind.as_deref().map_or_else(|| "of no type".into(), shortened)
            );
            self.problem(item.at(), &item.path, what);
        }
    }

    fn http_matches(&mut self, field: &Field<'_>) -> Option<Vec<HttpRouteMatch>> {
        let items = self.items(field, "matches, such as `{path: {type: PathPrefix, value: /api}}`")?;
        self.at_most(field, ROUTE_MATCHES);
        let methods = HttpMethod::ALL.map(|method| (method.as_str(), method));
        let mut matches = Vec::new();
        for item in &items {
            let Some(fields) = self.fields(item, &["path", "method", "headers", "queryParams"]) else { continue };
            let path = fields.get("path").map_or(Some(HttpPathMatch::default()), |field| self.path_match(&field));
            let method = fields
                .get("method")
                .map_or(Some(None), |field| self.choice(&field, "method of a route", &methods).map(Some));
            let headers = fields.get("headers").map_or(Some(Vec::new()), |field| self.value_matches(&field, true));
            let query = fields.get("queryParams").map_or(Some(Vec::new()), |field| self.value_matches(&field, false));
            if let (Some(path), Some(method), Some(headers), Some(query)) = (path, method, headers, query) {
                matches.push(HttpRouteMatch::new(path, method, headers, query));
            }
        }
        Some(matches)
    }

    fn path_match(&mut self, field: &Field<'_>) -> Option<HttpPathMatch> {
        let fields = self.fields(field, &["type", "value"])?;
        let kind = fields
            .get("type")
            .map_or(Some(PathMatchType::default()), |field| self.choice(&field, "type of a path", &PATHS));
        let value = match fields.get("value") {
            None => Some("/".to_owned()),
            Some(field) if kind == Some(PathMatchType::RegularExpression) => self.path_pattern(&field),
            Some(field) => self.path(&field),
        };
        Some(HttpPathMatch { r#type: kind?, value: value? })
    }

    /// A path as requests have them. What some servers would take for another path is refused, as the Gateway API does:
    /// nothing is normalized here, and one who writes such a thing means something else.
    fn path(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        let lower = text.to_ascii_lowercase();
        let flaw = if !text.starts_with('/') {
            Some("does not begin with `/`")
        } else if text.len() > PATH_CHARACTERS {
            Some("is longer than 1024 bytes")
        } else if text.contains("//") {
            Some("has an empty segment")
        } else if text.split('/').any(|segment| segment == "." || segment == "..") {
            Some("has a segment `.` or `..`")
        } else if lower.contains("%2f") {
            Some("has an escaped `/`")
        } else if text.contains(['?', '#']) {
            Some("has a query or a fragment; use `queryParams`")
        } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Some("has a character that must be escaped with `%`")
        } else {
            None
        };
        if let Some(flaw) = flaw {
            let what = format!("`{}` {flaw}; write a path such as /api/orders", shortened(text));
            self.problem(field.at(), &field.path, what);
        }
        flaw.is_none().then(|| text.to_owned())
    }

    /// A pattern of paths is no longer than a path.
    fn path_pattern(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.pattern(field)?;
        if text.chars().count() > PATH_CHARACTERS {
            let what = format!("`{}` is longer than {PATH_CHARACTERS} characters", shortened(&text));
            self.problem(field.at(), &field.path, what);
            return None;
        }
        Some(text)
    }

    fn pattern(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        match Pattern::new(text) {
            Ok(_) => Some(text.to_owned()),
            Err(error) => {
                let what = format!("`{}` is not a regular expression of RE2: {error}", shortened(text));
                self.problem(field.at(), &field.path, what);
                None
            }
        }
    }

    /// Headers, else parameters of the query.
    fn value_matches(&mut self, field: &Field<'_>, of_headers: bool) -> Option<Vec<HttpValueMatch>> {
        let items = self.items(field, "values, such as `{name: x-version, value: v2}`")?;
        self.at_most(field, ROUTE_ENTRIES);
        let mut values = Vec::new();
        for item in &items {
            let Some(fields) = self.fields(item, &["type", "name", "value"]) else { continue };
            let kind = fields
                .get("type")
                .map_or(Some(ValueMatchType::default()), |field| self.choice(&field, "type of a value", &VALUES));
            let name = fields.required(self, "name", "name: x-version").and_then(|field| self.name(&field, of_headers));
            let value = fields.required(self, "value", "value: v2").and_then(|field| match kind {
                Some(ValueMatchType::RegularExpression) => self.pattern(&field),
                _ => self.text(&field).map(str::to_owned),
            });
            let (Some(r#type), Some(name), Some(value)) = (kind, name, value) else { continue };
            values.push(HttpValueMatch { r#type, name, value });
        }
        Some(values)
    }

    /// The name of a header (RFC 9110 section 5.6.2), or of a parameter, which the Gateway API bounds in the same way.
    fn name(&mut self, field: &Field<'_>, of_header: bool) -> Option<String> {
        let text = self.text(field)?;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let valid = !text.is_empty() && text.len() <= 256 && text.bytes().all(is_token);
        if !valid {
            let kind = if of_header { "header" } else { "parameter" };
            let what = format!(
                "`{}` is not the name of a {kind}; use at most 256 letters, digits and characters of !#$%&'*+-.^_`|~",
                shortened(text)
            );
            self.problem(field.at(), &field.path, what);
        }
        valid.then(|| text.to_owned())
    }

    fn http_backends(&mut self, field: &Field<'_>, namespace: &str) -> Option<Vec<HttpBackendRef>> {
        let items = self.items(field, "service ports, such as `{name: orders, port: 80, weight: 1}`")?;
        self.at_most(field, ROUTE_ENTRIES);
        let mut backends = Vec::new();
        for item in &items {
            let allowed = ["group", "kind", "namespace", "name", "port", "weight", "filters"];
            let Some(fields) = self.fields(item, &allowed) else { continue };
            self.no_filters(&fields);
            let name = self.service_anywhere(&fields);
            let own = fields.get("namespace").map_or(Some(None), |field| self.label(&field).map(Some));
            let port = fields.required(self, "port", "port: 80").and_then(|field| self.port(&field));
            let weight = fields.get("weight").map_or(Some(default_weight()), |field| self.whole(&field, MAX_WEIGHT));
            let (Some(name), Some(own), Some(port), Some(weight)) = (name, own, port, weight) else { continue };
            let namespace = own.filter(|own| own != namespace);
            backends.push(HttpBackendRef { name, namespace, port, weight, permitted: false });
        }
        Some(backends)
    }

    fn http_timeouts(&mut self, field: &Field<'_>) -> Option<RouteTimeouts> {
        let fields = self.fields(field, &["request", "backendRequest"])?;
        let mut wait = |name| fields.get(name).map_or(Some(None), |field| self.route_duration(&field).map(Some));
        let (request, backend_request) = (wait("request"), wait("backendRequest"));
        let timeouts = RouteTimeouts { request: request?, backend_request: backend_request? };
        let lasts = |wait: Option<RouteDuration>| wait.filter(|wait| !wait.duration().is_zero());
        if let (Some(request), Some(each), Some(field)) =
            (lasts(timeouts.request), lasts(timeouts.backend_request), fields.get("backendRequest"))
            && each > request
        {
            let what = format!("{each} is more than `request`, {request}: no try could ever take so long");
            self.problem(field.at(), &field.path, what);
        }
        Some(timeouts)
    }

    fn http_retry(&mut self, field: &Field<'_>) -> Option<RouteRetry> {
        let fields = self.fields(field, &["codes", "attempts", "backoff"])?;
        let codes = match fields.get("codes") {
            Some(field) => self.items(&field, "statuses, such as 503").map(|items| {
                self.at_most(&field, STATUSES);
                let status = |item| self.number(item, 400, 599, "a status").and_then(|code| u16::try_from(code).ok());
                items.iter().filter_map(status).collect()
            }),
            None => Some(Vec::new()),
        };
        let attempts = fields
            .get("attempts")
            .map_or(Some(default_tries()), |field| self.number(&field, 0, MOST_RETRIES, "a number of tries"));
        let backoff = fields.get("backoff").map_or(Some(None), |field| self.route_duration(&field).map(Some));
        Some(RouteRetry { codes: codes?, attempts: attempts?, backoff: backoff? })
    }

    fn route_duration(&mut self, field: &Field<'_>) -> Option<RouteDuration> {
        const EXPECTED: &str = "a duration such as 300ms, 2s or 1m30s; 0s is none";
        if let Value::Number(text) = &field.node.value {
            let what = format!("`{}` has no unit; expected {EXPECTED}", shortened(text));
            self.problem(field.at(), &field.path, what);
            return None;
        }
        let text = self.text(field)?;
        let duration = RouteDuration::parse(text);
        if duration.is_none() {
            self.problem(field.at(), &field.path, format!("`{}` is not {EXPECTED}", shortened(text)));
        }
        duration
    }

    /// A list in a field, if it is one, may have so many entries.
    fn at_most(&mut self, field: &Field<'_>, most: usize) {
        if let Value::List(items) = &field.node.value
            && items.len() > most
        {
            let what = format!("{} entries; at most {most} are allowed: write another HTTPRoute", items.len());
            self.problem(field.at(), &field.path, what);
        }
    }
}

/// A parent that is a Gateway of the same API.
fn is_gateway(fields: &Fields<'_>) -> bool {
    fields.get("kind").is_some_and(|kind| matches!(&kind.node.value, Value::Text(text) if text == "Gateway"))
}

/// When Kubernetes says that a document was made: `2026-01-31T08:00:00Z`, which sorts as it stands.
pub(super) fn is_timestamp(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00Z";
    let fits = |(found, form): (u8, &u8)| if *form == b'0' { found.is_ascii_digit() } else { found == *form };
    text.len() == FORM.len() && text.bytes().zip(FORM).all(fits)
}
