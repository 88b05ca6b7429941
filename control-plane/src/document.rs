//! Documents: what a mesh is told, Kubernetes-shaped (`apiVersion`, `kind`, `metadata`, `spec`).
//!
//! [`read`] turns YAML into these types, [`from_object`] what an API server has. Both find every problem, not the first
//! alone, and say of each where it is, what was found and what is allowed. A value of these types is valid by itself; what
//! depends on other documents (one owner per virtual address) is the store's to check.

mod discovered;
mod field;
mod http_route;
mod limits;
mod object;
mod policy;
mod problem;
mod read;
mod schema;
#[cfg(test)]
pub(crate) mod tests;
mod tls_route;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

pub use discovered::{Discovered, DiscoveredEndpoint, EndpointGroup, Locality, PortMapping, REGION_LABEL, ZONE_LABEL};
pub use http_route::{
    HttpBackendRef, HttpMethod, HttpParentRef, HttpPathMatch, HttpRouteMatch, HttpRouteRule, HttpRouteSpec,
    HttpValueMatch, PathMatchType, RouteDuration, RouteRetry, RouteTimeouts, ValueMatchType,
};
pub use object::{from_object, is_ours, is_service_reference, key_of};
pub use policy::{ProxyUpgrade, Retries, RetryOn, Timeouts, Wait};
pub use problem::{Place, Position, Problem, Problems};
pub use read::{Source, duplicates, read};
pub(crate) use schema::name_rule;
pub use tls_route::{BackendRef, ParentRef, TlsRouteRule, TlsRouteSpec};

/// The one version of the documents' schema.
pub const API_VERSION: &str = "weft.dev/v1alpha1";
/// The group of the Gateway API.
pub const GATEWAY_API_GROUP: &str = "gateway.networking.k8s.io";
/// What a kind of the Gateway API may also say, so that a file written for Kubernetes is valid here.
pub const GATEWAY_API_VERSIONS: [&str; 3] =
    ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1alpha3", "gateway.networking.k8s.io/v1alpha2"];
/// The namespace of a document that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// The service account of a workload that names none.
pub const DEFAULT_ACCOUNT: &str = "default";
/// The field of metadata that says when a document was made.
const CREATED: &str = "creationTimestamp";
/// The one name a Mesh may have.
pub const MESH_NAME: &str = "default";

/// One document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    Mesh(Manifest<MeshSpec>),
    Service(Manifest<ServiceSpec>),
    Workload(Manifest<WorkloadSpec>),
    TlsRoute(Manifest<TlsRouteSpec>),
    HttpRoute(Manifest<HttpRouteSpec>),
}

/// What every kind has: names and labels around its own part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest<S> {
    pub metadata: Metadata,
    pub spec: S,
}

/// What a document is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    pub name: String,
    /// Empty for a Mesh, which belongs to no namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Settings of the whole mesh.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MeshSpec {
    /// How inbound ports treat plaintext.
    #[schemars(default)]
    pub mtls: Mtls,
    /// When running proxies get the program of a newer control plane.
    // Left out where it is the default: control planes before this one know no such field.
    #[serde(default, skip_serializing_if = "ProxyUpgrade::is_default")]
    pub proxy_upgrade: ProxyUpgrade,
}

/// How inbound ports treat plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mtls {
    /// Refused.
    #[default]
    Strict,
    /// Taken as well, while a mesh is being rolled out.
    Permissive,
}

/// A name for interchangeable endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = schema::SERVICE))]
pub struct ServiceSpec {
    /// Virtual addresses. The control plane gives some when the document has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<schema::Address>", length(max = limits::ADDRESSES), extend("x-kubernetes-list-type" = "set"))]
    pub addresses: Vec<IpAddr>,
    /// At least one; neither a port nor a name occurs twice.
    #[schemars(
        length(min = 1, max = limits::PORTS),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["port"],
            "x-kubernetes-validations" = schema::PORTS,
        )
    )]
    pub ports: Vec<ServicePort>,
    /// Of requests: ports of TCP alone carry none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<Retries>,
    #[serde(flatten)]
    #[schemars(with = "schema::EitherBackends")]
    pub backends: Backends,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(transform = schema::with_app_protocol)]
pub struct ServicePort {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Label>")]
    pub name: Option<String>,
    #[schemars(with = "schema::Port")]
    pub port: u16,
    /// Where the application listens: at the same port, if absent.
    #[schemars(with = "Option<schema::Port>")]
    pub target_port: u16,
    /// What it speaks: if absent, what `appProtocol` says, or the first word of its name, or what the proxies see.
    #[schemars(with = "Option<Protocol>")]
    pub protocol: Protocol,
}

/// What a service port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP, to the application in the version its client speaks.
    Http,
    /// HTTP; the application speaks version 1 alone.
    Http1,
    /// HTTP; the application speaks version 2 alone, without TLS.
    Http2,
    /// HTTP/2, as what it is for.
    Grpc,
    Tcp,
    /// TLS of the application's own, carried as it is; where TLSRoutes name the port, by the server name it asks for.
    Tls,
    /// Not declared: the proxies watch who speaks first.
    #[default]
    Auto,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Auto => "auto",
        })
    }
}

impl Protocol {
    pub const ALL: [Self; 7] = [Self::Http, Self::Http1, Self::Http2, Self::Grpc, Self::Tcp, Self::Tls, Self::Auto];

    /// By the name it is written with in documents.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.to_string() == name)
    }

    /// What Kubernetes' `appProtocol` says; `None` for a name that says nothing to us.
    pub fn of_app_protocol(name: &str) -> Option<Self> {
        match name {
            "http" | "kubernetes.io/ws" => Some(Self::Http),
            "http2" | "kubernetes.io/h2c" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "tcp" => Some(Self::Tcp),
            "tls" | "https" | "kubernetes.io/wss" => Some(Self::Tls),
            _ => None,
        }
    }

    /// What the name of a port says by its first word, as is the custom: `grpc-orders`, `https`.
    pub fn of_port_name(name: &str) -> Option<Self> {
        Self::of_app_protocol(name.split('-').next()?)
    }
}

/// Where a service's traffic goes: exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backends {
    /// Workloads of the same namespace that carry all these labels. Never empty.
    Selector(BTreeMap<String, String>),
    /// Addresses outside the mesh, reached in plaintext. Never empty.
    Endpoints(Vec<ExternalEndpoint>),
    /// What the discovery of a cluster found. Not for files: [`read`] refuses it.
    Discovered(Discovered),
}

/// An address outside the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExternalEndpoint {
    #[schemars(with = "schema::Address")]
    pub address: IpAddr,
    /// The service port's target port when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<schema::Port>")]
    pub port: Option<u16>,
}

/// One running instance with a proxy beside it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct WorkloadSpec {
    /// At least one; peers connect to the first.
    #[schemars(
        with = "Vec<schema::Address>",
        length(min = 1, max = limits::ADDRESSES),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub addresses: Vec<IpAddr>,
    /// The account whose identity its proxy has.
    #[schemars(with = "schema::Subdomain", default = "default_account")]
    pub service_account: String,
    #[schemars(default)]
    pub state: WorkloadState,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = limits::ADVERTISED),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["port"])
    )]
    pub advertise: Vec<Advertised>,
    /// Not for files: where a cluster's discovery knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(skip)]
    pub captured: Option<Captured>,
}

/// A workload all of whose ports of TCP are behind its proxy, those that no service has too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Captured {
    /// Ports that are not.
    pub except_ports: BTreeSet<u16>,
}

/// Whether a workload takes new work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WorkloadState {
    #[default]
    Ready,
    /// Finishes what it has, takes nothing new.
    Draining,
    Unhealthy,
}

impl fmt::Display for WorkloadState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// Where a target port is really reached, when that is not the workload's address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Advertised {
    #[schemars(with = "schema::Port")]
    pub port: u16,
    /// `ADDRESS:PORT`
    #[schemars(with = "schema::SocketAddress")]
    pub at: SocketAddr,
}

/// The account of a workload that names none.
fn default_account() -> String {
    DEFAULT_ACCOUNT.to_owned()
}

/// The kinds of document, in the order they are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Mesh,
    Service,
    Workload,
    TlsRoute,
    HttpRoute,
}

/// What identifies a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    /// Empty for a Mesh.
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

/// A document and where it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    pub document: Document,
    pub place: Place,
}

/// A document the control plane wrote and cannot read back.
#[derive(Debug, thiserror::Error)]
pub enum StoredFormatError {
    #[error("`{0}` is not a kind of document this version knows")]
    Kind(String),
    #[error("not a document of this version: {0}")]
    Json(#[from] serde_json::Error),
}

impl Kind {
    pub const ALL: [Self; 5] = [Self::Mesh, Self::Service, Self::Workload, Self::TlsRoute, Self::HttpRoute];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mesh => "Mesh",
            Self::Service => "Service",
            Self::Workload => "Workload",
            Self::TlsRoute => "TLSRoute",
            Self::HttpRoute => "HTTPRoute",
        }
    }

    /// Whether documents of this kind live in a namespace.
    pub fn is_namespaced(self) -> bool {
        self != Self::Mesh
    }

    /// A kind as people type it: any case, singular, plural or short.
    ///
    /// # Errors
    /// A sentence with the kinds there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "mesh" | "meshes" => Ok(Self::Mesh),
            "service" | "services" | "svc" => Ok(Self::Service),
            "workload" | "workloads" | "wl" => Ok(Self::Workload),
            "tlsroute" | "tlsroutes" => Ok(Self::TlsRoute),
            "httproute" | "httproutes" => Ok(Self::HttpRoute),
            _ => Err(problem::not_one_of("kind", text, &Self::ALL.map(Self::as_str))),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Key {
    /// The namespace is dropped for kinds that live in none.
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.is_namespaced() { namespace } else { "" };
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind.is_namespaced() {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        } else {
            write!(f, "{} {}", self.kind, self.name)
        }
    }
}

impl Document {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Mesh(_) => Kind::Mesh,
            Self::Service(_) => Kind::Service,
            Self::Workload(_) => Kind::Workload,
            Self::TlsRoute(_) => Kind::TlsRoute,
            Self::HttpRoute(_) => Kind::HttpRoute,
        }
    }

    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Mesh(mesh) => &mesh.metadata,
            Self::Service(service) => &service.metadata,
            Self::Workload(workload) => &workload.metadata,
            Self::TlsRoute(route) => &route.metadata,
            Self::HttpRoute(route) => &route.metadata,
        }
    }

    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key::new(self.kind(), &metadata.namespace, &metadata.name)
    }

    /// The whole document as it is stored and shown: valid input again, except for what discovery found.
    pub fn to_json(&self) -> serde_json::Value {
        let spec = match self {
            Self::Mesh(mesh) => json!(mesh.spec),
            Self::Service(service) => json!(service.spec),
            Self::Workload(workload) => json!(workload.spec),
            Self::TlsRoute(route) => json!(route.spec),
            Self::HttpRoute(route) => json!(route.spec),
        };
        let mut metadata = json!(self.metadata());
        if let Self::HttpRoute(Manifest { spec: HttpRouteSpec { created: Some(created), .. }, .. }) = self {
            metadata[CREATED] = json!(created);
        }
        json!({"apiVersion": API_VERSION, "kind": self.kind().as_str(), "metadata": metadata, "spec": spec})
    }

    /// Reads back what [`Document::to_json`] wrote.
    ///
    /// # Errors
    /// When the value was written by something else.
    pub fn from_json(mut json: serde_json::Value) -> Result<Self, StoredFormatError> {
        #[derive(Deserialize)]
        struct Stored {
            kind: String,
            metadata: Metadata,
            spec: serde_json::Value,
        }
        let created = json.pointer_mut("/metadata").and_then(|metadata| metadata.as_object_mut()?.remove(CREATED));
        let Stored { kind, metadata, spec } = serde_json::from_value(json)?;
        Ok(match kind.as_str() {
            "Mesh" => Self::Mesh(Manifest { metadata, spec: serde_json::from_value(spec)? }),
            "Service" => Self::Service(Manifest { metadata, spec: serde_json::from_value(spec)? }),
            "Workload" => Self::Workload(Manifest { metadata, spec: serde_json::from_value(spec)? }),
            "TLSRoute" => Self::TlsRoute(Manifest { metadata, spec: serde_json::from_value(spec)? }),
            "HTTPRoute" => {
                let spec: HttpRouteSpec = serde_json::from_value(spec)?;
                let created = created.map(serde_json::from_value).transpose()?;
                Self::HttpRoute(Manifest { metadata, spec: HttpRouteSpec { created, ..spec } })
            }
            _ => return Err(StoredFormatError::Kind(kind)),
        })
    }
}

impl Located {
    /// A document made by the program itself, under the name problems are reported with.
    pub fn generated(document: Document, by: &str) -> Self {
        Self { document, place: Place { source: by.into(), position: None } }
    }
}
