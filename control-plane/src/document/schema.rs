//! What the schemas derived from the documents' types do not say by themselves: the forms of texts, and the rules between
//! fields, in the words of the reader.
//!
//! Rules are CEL as an API server runs it. Its oldest supported version knows neither addresses nor names, so that these
//! are patterns; what a pattern or a rule cannot say, the reader says when the object is admitted. A schema never refuses
//! what the reader takes. Patterns avoid backslashes, which CEL would want doubled.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{ExternalEndpoint, GATEWAY_API_GROUP, Kind, limits};

/// A rule of `x-kubernetes-validations`.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    #[serde(rename = "rule")]
    holds: &'static str,
    message: &'static str,
    /// The field that is wrong, when it is not the whole value.
    #[serde(skip_serializing_if = "str::is_empty")]
    field_path: &'static str,
}

/// The keyword of the rules.
pub(super) const RULES: &str = "x-kubernetes-validations";

/// Between the fields of a Service's spec.
pub(super) const SERVICE: [Rule; 4] = [
    Rule {
        holds: "has(self.selector) || has(self.endpoints)",
        message: "neither `selector` nor `endpoints`; give `selector: {app: NAME}` for workloads of the mesh, or `endpoints: [{address: IP}]` for addresses outside",
        field_path: "",
    },
    Rule {
        holds: "!has(self.selector) || !has(self.endpoints)",
        message: "given beside `selector`; a service has exactly one of the two: remove one",
        field_path: ".endpoints",
    },
    Rule { holds: TIMEOUTS_HAVE_REQUESTS, message: NO_REQUESTS, field_path: ".timeouts" },
    Rule { holds: RETRIES_HAVE_REQUESTS, message: NO_REQUESTS, field_path: ".retries" },
];
const NO_REQUESTS: &str = "every port speaks tcp, which has no requests; remove it, or say the protocol of a port";
/// A port's protocol is what it says, else what its `appProtocol`, else what the first word of its name says.
macro_rules! some_port_has_requests {
    ($unless:literal) => {
        concat!(
            $unless,
            " || self.ports.exists(p, (has(p.protocol) ? p.protocol : ",
            "(has(p.appProtocol) && p.appProtocol in ['http', 'kubernetes.io/ws', 'http2', 'kubernetes.io/h2c', ",
            "'grpc', 'tcp', 'tls', 'https', 'kubernetes.io/wss']) ? p.appProtocol : ",
            "(has(p.name) && p.name.matches('^tcp(-.*)?$')) ? 'tcp' : 'auto') != 'tcp')"
        )
    };
}
const TIMEOUTS_HAVE_REQUESTS: &str = some_port_has_requests!("!has(self.timeouts)");
const RETRIES_HAVE_REQUESTS: &str = some_port_has_requests!("!has(self.retries)");

/// Among a Service's ports; that no number occurs twice, the type of the list says.
pub(super) const PORTS: [Rule; 1] = [Rule {
    holds: "self.all(p, !has(p.name) || self.exists_one(q, has(q.name) && q.name == p.name))",
    message: "two ports have one name; rename or remove one",
    field_path: "",
}];

pub(super) const TIMEOUTS: [Rule; 1] = [Rule {
    holds: concat!(
        "!has(self.request) || !has(self.perTry) || !self.request.matches('^0*[1-9][0-9]*(ms|s|m|h)$') ",
        "|| !self.perTry.matches('^0*[1-9][0-9]*(ms|s|m|h)$') || duration(self.perTry) < duration(self.request)"
    ),
    message: "not less than `request`: no try could ever be too late by itself",
    field_path: ".perTry",
}];

/// Among a route's parents.
pub(super) const PARENTS: [Rule; 1] = [Rule {
    holds: concat!(
        "self.all(p, self.exists_one(q, q.name == p.name && ",
        "(has(q.port) ? q.port : 0) == (has(p.port) ? p.port : 0)))"
    ),
    message: "a parent is given twice; remove one",
    field_path: "",
}];

/// Among an HTTPRoute's parents.
pub(super) const HTTP_PARENTS: [Rule; 2] = [
    Rule {
        holds: "self.exists(p, !has(p.kind) || p.kind != 'Gateway')",
        message: "no parent is a service: a mesh routes what is sent to services; write `kind: Service`",
        field_path: "",
    },
    Rule {
        holds: concat!(
            "self.all(p, (has(p.kind) && p.kind == 'Gateway') || self.exists_one(q, (!has(q.kind) || q.kind != 'Gateway') ",
            "&& q.name == p.name && (has(q.port) ? q.port : 0) == (has(p.port) ? p.port : 0) ",
            "&& (has(q.sectionName) ? q.sectionName : '') == (has(p.sectionName) ? p.sectionName : '')))"
        ),
        message: "a parent is given twice; remove one",
        field_path: "",
    },
];

/// Among an HTTPRoute's rules.
pub(super) const RULE_NAMES: [Rule; 1] = [Rule {
    holds: "self.all(r, !has(r.name) || self.exists_one(q, has(q.name) && q.name == r.name))",
    message: "two rules have one name; rename or remove one",
    field_path: "",
}];

/// Of a path that requests are compared with; whether a pattern is one, the reader says.
pub(super) const PATH: [Rule; 2] = [
    Rule {
        holds: "(has(self.type) && self.type == 'RegularExpression') || !has(self.value) || self.value.matches('^/[!-~]*$')",
        message: "it does not begin with `/`, or has a character that must be escaped with `%`; write a path such as /api/orders",
        field_path: ".value",
    },
    Rule {
        holds: "(has(self.type) && self.type == 'RegularExpression') || !has(self.value) || !self.value.matches('//|[?#]|%2[fF]|/[.][.]?(/|$)')",
        message: "it has an empty segment, a segment `.` or `..`, an escaped `/`, a query or a fragment; write a path such as /api/orders",
        field_path: ".value",
    },
];

pub(super) const ROUTE_TIMEOUTS: [Rule; 1] = [Rule {
    holds: concat!(
        "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') ",
        "|| duration(self.backendRequest) <= duration(self.request)"
    ),
    message: "more than `request`: no try could ever take so long",
    field_path: ".backendRequest",
}];

/// Among a rule's backends.
pub(super) const BACKENDS: [Rule; 1] = [Rule {
    holds: "self.exists(b, !has(b.weight) || b.weight > 0)",
    message: "every weight is 0, so that nothing would take a connection; give one of them a weight",
    field_path: "",
}];

/// The rule that a whole object keeps for its name, where the API server's own is wider.
pub(crate) fn name_rule(kind: Kind) -> Option<Value> {
    match kind {
        Kind::Mesh => Some(json!({
            "rule": "self.metadata.name == 'default'",
            "message": "unknown name of a Mesh; allowed: default",
        })),
        Kind::Service => Some(json!({
            "rule": "size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "message": "not a valid name; use at most 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit",
        })),
        _ => None,
    }
}

/// A type whose schema is written out.
macro_rules! written {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        pub(super) enum $name {}

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

written!(
    /// A port's number.
    Port,
    {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
);

written!(
    /// A status that can call for another try.
    Status,
    {"type": "integer", "format": "int32", "minimum": 400, "maximum": 599}
);

written!(
    /// The address of one host.
    Address,
    {
        "type": "string",
        "maxLength": 45,
        "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}],
        RULES: [
            {
                "rule": "self.matches('^(([0-9]+[.]){3}[0-9]+|[0-9a-fA-F:]*:[0-9a-fA-F:.]*)$')",
                "message": "not an IP address; expected one such as 10.96.0.2 or fd57::2",
                "messageExpression":
                    "'`' + self + '` is not an IP address; expected one such as 10.96.0.2 or fd57::2'",
            },
            {
                "rule": "!self.matches('^(0[.]0[.]0[.]0|[0:]*:[0:]*)$')",
                "message": "it means any address of a host; give the address of one host",
            },
            {
                "rule": "!self.matches('^(255[.]255[.]255[.]255|(22[4-9]|23[0-9])[.].*|[fF][fF][0-9a-fA-F]{2}:.*)$')",
                "message": "it means many hosts at once; give the address of one host",
            },
        ],
    }
);

written!(
    /// An address and a port.
    SocketAddress,
    {
        "type": "string",
        "maxLength": 64,
        RULES: [{
            "rule":
                "self.matches('^(([0-9]+[.]){3}[0-9]+|\\\\[[0-9a-fA-F:.]+(%[0-9]+)?\\\\]):0*[1-9][0-9]{0,4}$')",
            "message": "not ADDRESS:PORT; expected one such as 127.0.0.1:34567 or [::1]:34567",
            "messageExpression":
                "'`' + self + '` is not ADDRESS:PORT; expected one such as 127.0.0.1:34567 or [::1]:34567'",
        }],
    }
);

written!(
    /// A DNS label: what a service, a namespace or a port may be called.
    Label,
    {
        "type": "string",
        "maxLength": 63,
        RULES: [{
            "rule": "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "message": "not a valid name; use at most 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit",
            "messageExpression": "'`' + self + '` is not a valid name; use at most 63 of a-z, 0-9 and `-`, beginning and ending with a letter or digit'",
        }],
    }
);

written!(
    /// DNS labels with dots between.
    Subdomain,
    {
        "type": "string",
        "maxLength": 253,
        RULES: [{
            "rule": "self.matches('^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$')",
            "message": "not a valid name; use at most 253 of a-z, 0-9, `-` and `.`, each part beginning and ending with a letter or digit",
        }],
    }
);

written!(
    /// The name of a header (RFC 9110 section 5.6.2), or of a parameter.
    Token,
    {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"}
);

written!(
    /// A host's name, or `*.` and the name above all that are meant.
    Hostname,
    {
        "type": "string",
        "maxLength": 255,
        RULES: [{
            "rule": "self.matches('^([*][.])?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$') && !self.matches('^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])([.]|$)){4}$')",
            "message": "not a host's name; write a whole name in lower case such as `orders.example`, or `*.example` for all below `example`",
            "messageExpression": "'`' + self + '` is not a host\\'s name; write a whole name in lower case such as `orders.example`, or `*.example` for all below `example`'",
        }],
    }
);

written!(
    /// A duration as people write it.
    Duration,
    {
        "type": "string",
        "maxLength": (limits::DURATION_CHARACTERS),
        RULES: [{
            "rule": "self.matches('^0*[1-9][0-9]*(ms|s|m|h)$') && duration(self) <= duration('24h')",
            "message": "not a duration such as 300ms, 2s or 1m, longer than 0 and up to 24h",
            "messageExpression":
                "'`' + self + '` is not a duration such as 300ms, 2s or 1m, longer than 0 and up to 24h'",
        }],
    }
);

written!(
    /// The value of a label.
    LabelValue,
    {
        "type": "string",
        "maxLength": 63,
        RULES: [{
            "rule": "self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
            "message": "not a label's value; use at most 63 of A-Z, a-z, 0-9, `-`, `_` and `.`, beginning and ending with a letter or digit",
        }],
    }
);

/// Where a service's traffic goes, as both are written: that it is exactly one of them, a rule says.
#[derive(JsonSchema)]
#[allow(dead_code, clippy::zero_sized_map_values, reason = "its schema is all that is wanted of it")]
pub(super) struct EitherBackends {
    /// Workloads of the same namespace that carry all these labels.
    #[schemars(extend("minProperties" = 1, "maxProperties" = limits::SELECTOR_LABELS))]
    selector: Option<BTreeMap<String, LabelValue>>,
    /// Addresses outside the mesh, reached in plaintext.
    #[schemars(length(min = 1, max = limits::ENDPOINTS))]
    endpoints: Option<Vec<ExternalEndpoint>>,
}

/// Adds what a port may say and no document keeps.
pub(super) fn with_app_protocol(schema: &mut Schema) {
    let description = "What Kubernetes calls the protocol; counts where `protocol` is absent.";
    add(schema, "appProtocol", json!({"type": "string", "maxLength": 317, "description": description}));
}

/// Adds what makes a reference the Gateway API's: that it is to a service of the same namespace.
pub(super) fn to_service(schema: &mut Schema) {
    add(schema, "group", json!({"type": "string", "enum": [""], "description": "The core group, if given."}));
    add(schema, "kind", json!({"type": "string", "enum": ["Service"], "description": "`Service`, if given."}));
    in_namespace(schema);
}

/// The same for a parent that may be a gateway too, which is somebody else's to serve.
pub(super) fn to_service_or_gateway(schema: &mut Schema) {
    let groups = json!(["", GATEWAY_API_GROUP]);
    add(schema, "group", json!({"type": "string", "enum": groups, "description": "The core group, if absent."}));
    let kinds = json!(["Service", "Gateway"]);
    let description = "`Service`, if absent. A gateway is its own controller's to serve.";
    add(schema, "kind", json!({"type": "string", "enum": kinds, "description": description}));
    in_namespace(schema);
}

/// Where what is referred to is. What the type says of it itself stays.
fn in_namespace(schema: &mut Schema) {
    if schema.pointer("/properties/namespace").is_some() {
        return;
    }
    let mut namespace = Label::json_schema(&mut SchemaGenerator::default());
    namespace.insert("description".to_owned(), "The namespace of the route itself, if given.".into());
    add(schema, "namespace", namespace.to_value());
}

fn add(schema: &mut Schema, name: &str, field: Value) {
    let properties = schema.ensure_object().entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        properties.insert(name.to_owned(), field);
    }
}
