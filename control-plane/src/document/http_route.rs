//! `HTTPRoute`: which requests to a service go where, in the shape of the Gateway API with a Service as parent.
//!
//! What the proxies cannot do (filters, affinity, backends that are no services) has no place in these types: a document
//! that asks for it is refused where it asks, not served half.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use weft_core::retry::MOST_RETRIES;

use super::tls_route::{MAX_WEIGHT, default_weight};
use super::{limits, schema};

/// Routes of requests to services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// Services of the same namespace; at least one.
    #[schemars(length(min = 1, max = limits::PARENTS), extend("x-kubernetes-validations" = schema::HTTP_PARENTS))]
    pub parent_refs: Vec<HttpParentRef>,
    /// Hosts the requests name: whole names, and `*.example` for all below `example`, in lower case. Empty: every host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        with = "Vec<schema::Hostname>",
        length(min = 1, max = limits::ROUTE_ENTRIES),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Vec<String>,
    /// At least one.
    #[schemars(length(min = 1, max = limits::ROUTE_RULES), extend("x-kubernetes-validations" = schema::RULE_NAMES))]
    pub rules: Vec<HttpRouteRule>,
    /// When it was made, as Kubernetes writes it: of two that take the same requests the older one has them. Part of the
    /// document's metadata.
    #[serde(skip)]
    pub created: Option<String>,
}

/// A service whose requests a route takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(transform = schema::to_service_or_gateway)]
pub struct HttpParentRef {
    #[schemars(with = "schema::Label")]
    pub name: String,
    /// All its ports that carry HTTP when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Port>")]
    pub port: Option<u16>,
    /// The name of its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Label>")]
    pub section_name: Option<String>,
}

/// What happens to the requests that one of `matches` takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteRule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Subdomain>")]
    pub name: Option<String>,
    /// Empty: every request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ROUTE_MATCHES))]
    pub matches: Vec<HttpRouteMatch>,
    /// Who shares the requests. Where nobody does they are answered with 500.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ROUTE_ENTRIES))]
    pub backend_refs: Vec<HttpBackendRef>,
    #[serde(default, skip_serializing_if = "RouteTimeouts::is_empty")]
    pub timeouts: RouteTimeouts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RouteRetry>,
}

/// What a request must be: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct HttpRouteMatch {
    #[serde(default)]
    pub path: HttpPathMatch,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
    /// Of several with one name the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ROUTE_ENTRIES))]
    headers: Vec<HttpValueMatch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = limits::ROUTE_ENTRIES))]
    query_params: Vec<HttpValueMatch>,
}

/// What the path of a request must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = schema::PATH))]
pub struct HttpPathMatch {
    #[serde(default)]
    pub r#type: PathMatchType,
    #[schemars(length(max = limits::PATH_CHARACTERS), default = "root")]
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    Exact,
    /// By whole segments: `/a` takes `/a` and `/a/b`, not `/ab`.
    #[default]
    PathPrefix,
    /// In the syntax of RE2; the whole path must match.
    RegularExpression,
}

/// Methods a route can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
}

/// What a header or a parameter of the query must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpValueMatch {
    #[serde(default)]
    pub r#type: ValueMatchType,
    #[schemars(with = "schema::Token")]
    pub name: String,
    pub value: String,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueMatchType {
    #[default]
    Exact,
    /// In the syntax of RE2; the whole value must match.
    RegularExpression,
}

/// A service port and its share of the requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(transform = schema::to_service)]
pub struct HttpBackendRef {
    #[schemars(with = "schema::Label")]
    pub name: String,
    /// The route's own when absent. Another one has to permit it by a ReferenceGrant: until then its share is answered with
    /// 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Label>")]
    pub namespace: Option<String>,
    #[schemars(with = "schema::Port")]
    pub port: u16,
    /// The share is this of the sum; 0 takes nothing.
    #[schemars(range(max = MAX_WEIGHT), default = "default_weight")]
    pub weight: u32,
    /// Whether the other namespace permits it: nobody can write this, it is found in the cluster.
    #[serde(skip)]
    pub permitted: bool,
}

/// How long requests may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = schema::ROUTE_TIMEOUTS))]
pub struct RouteTimeouts {
    /// From the request's head to the last byte of its answer, all tries together. Zero: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RouteDuration>,
    /// To the head of an answer, for each try. Zero: as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<RouteDuration>,
}

/// When requests are tried again, beside those that got no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteRetry {
    /// Statuses of answers that are given up for another try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<schema::Status>", length(max = limits::STATUSES))]
    pub codes: Vec<u16>,
    /// Tries after the first.
    #[schemars(range(max = MOST_RETRIES), default = "default_tries")]
    pub attempts: u32,
    /// Limit of the first wait between two tries; it doubles with each further one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<RouteDuration>,
}

/// A duration as the Gateway API writes it (GEP-2257): `300ms`, `1m30s`, `0s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteDuration(Duration);

impl HttpRouteSpec {
    /// Where the route sends, 0 shares left out.
    pub fn backends(&self) -> impl Iterator<Item = &HttpBackendRef> {
        self.rules.iter().flat_map(|rule| &rule.backend_refs).filter(|backend| backend.weight > 0)
    }
}

impl HttpRouteMatch {
    pub(super) fn new(
        path: HttpPathMatch,
        method: Option<HttpMethod>,
        headers: Vec<HttpValueMatch>,
        query_params: Vec<HttpValueMatch>,
    ) -> Self {
        Self { path, method, headers, query_params }
    }

    /// Headers that are looked at: of those with one name, whatever its case, the first (Gateway API).
    pub fn headers(&self) -> impl Iterator<Item = &HttpValueMatch> {
        let is_first = |index: usize, name: &str| {
            !self.headers[..index].iter().any(|earlier| earlier.name.eq_ignore_ascii_case(name))
        };
        self.headers.iter().enumerate().filter(move |(index, header)| is_first(*index, &header.name)).map(|(_, it)| it)
    }

    /// Parameters that are looked at: of those with one name the first.
    pub fn query_params(&self) -> impl Iterator<Item = &HttpValueMatch> {
        let is_first =
            |index: usize, name: &str| !self.query_params[..index].iter().any(|earlier| earlier.name == name);
        let all = self.query_params.iter().enumerate();
        all.filter(move |(index, parameter)| is_first(*index, &parameter.name)).map(|(_, it)| it)
    }
}

impl Default for HttpPathMatch {
    /// Every path.
    fn default() -> Self {
        Self { r#type: PathMatchType::PathPrefix, value: root() }
    }
}

/// What a match of a path that says no value compares with.
fn root() -> String {
    "/".to_owned()
}

/// The tries of a rule that says no number.
pub(super) fn default_tries() -> u32 {
    1
}

impl HttpMethod {
    pub const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Delete, Self::Options, Self::Trace, Self::Patch];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
        }
    }
}

impl RouteTimeouts {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl RouteDuration {
    /// Numbers of up to five digits with their units, at most four of them.
    const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

    pub fn duration(self) -> Duration {
        self.0
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut milliseconds = 0_u64;
        let mut parts = 0;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit())?;
            let (number, tail) = rest.split_at(digits);
            let unit = &tail[..tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len())];
            let scale = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
            parts += 1;
            if number.len() > 5 || parts > 4 {
                return None;
            }
            milliseconds += number.parse::<u64>().ok()? * scale;
            rest = &tail[unit.len()..];
        }
        (parts > 0).then(|| Self(Duration::from_millis(milliseconds)))
    }
}

impl fmt::Display for RouteDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        // Five digits each, the largest unit first.
        let parts = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
        let mut rest = milliseconds;
        for (unit, scale) in parts {
            let number = rest / scale;
            rest %= scale;
            if number > 0 {
                write!(f, "{number}{unit}")?;
            }
        }
        if milliseconds == 0 { f.write_str("0s") } else { Ok(()) }
    }
}

impl Serialize for RouteDuration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RouteDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format_args!("`{text}` is not a duration")))
    }
}

impl JsonSchema for RouteDuration {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RouteDuration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "maxLength": 28, "pattern": Self::PATTERN })
    }
}
