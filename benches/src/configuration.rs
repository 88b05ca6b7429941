//! What the workers are told: one service, as its caller's proxy and as its own proxy see it, and their certificates.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use weft_core::model::{
    ClusterSpec, Direction, EndpointHealth, EndpointSetSpec, EndpointSource, EndpointSpec, InboundTls, ListenerSpec,
    OutlierPolicy, PathMatch, Protocol, RequestConditions, RouteSource, RouteSpec, RouteTableSpec, TextMatch,
    UpstreamProtocol, UpstreamTls, ValueMatch, VirtualHostSpec, WeightedCluster,
};
use weft_core::names::{ServiceRef, SpiffeId};
use weft_proxy::state::Change;
use weft_proxy::tls::Credentials;

/// The service's virtual address.
pub const SERVICE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 96, 0, 1)), 80);
/// The workload's own address and port.
pub const WORKLOAD: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 97, 0, 5)), 8080);

/// Who calls.
pub fn caller() -> SpiffeId {
    SpiffeId::workload("bench.local", "default", "caller")
}

/// Who is called.
pub fn callee() -> SpiffeId {
    SpiffeId::workload("bench.local", "default", "orders")
}

/// The caller's side: requests to [`SERVICE`] go to `endpoints`, with mutual TLS when they must be `identity`.
pub fn outbound(endpoints: &[SocketAddr], identity: Option<SpiffeId>) -> Change {
    let name = "default/orders:80";
    Change {
        listeners: vec![listener("outbound/default/orders:80", Direction::Outbound, RouteSource::Named(name.into()))],
        routes: vec![routes(name)],
        clusters: vec![cluster(name, EndpointSource::Discovered(name.into()), identity)],
        endpoints: vec![EndpointSetSpec { name: name.into(), endpoints: endpoint_specs(endpoints) }],
        ..Change::default()
    }
}

/// The same by routes of which several must be looked at, the last of them for requests as [`crate::traffic::Shape`] sends
/// them, with a draw between its cluster and one that gets nothing: connections to a second one would be counted as well.
pub fn routed(mut change: Change) -> Change {
    let value = |name: &str, value| ValueMatch { name: name.into(), value };
    let conditions = |method: &str, version| RequestConditions {
        method: Some(method.into()),
        headers: vec![value("x-version", version), value("accept-language", TextMatch::Present)],
        query: vec![value("page", TextMatch::Exact("2".into()))],
    };
    let canary = conditions("GET", TextMatch::Exact("canary".into()));
    let [stable, writes] = ["GET", "POST"].map(|method| conditions(method, TextMatch::Absent));
    let weighted = |name: &str, weight| WeightedCluster { cluster: name.into(), weight };
    let name = "default/orders:80";
    let route = |conditions| RouteSpec {
        conditions,
        clusters: vec![weighted(name, 1), weighted("default/orders-next:80", 0)],
        ..RouteSpec::new(PathMatch::Segments("/orders".to_owned()), name)
    };
    for table in &mut change.routes {
        for host in &mut table.virtual_hosts {
            host.routes = [canary.clone(), writes.clone(), stable.clone()].map(route).to_vec();
        }
    }
    change
}

/// The workload's side: mutual TLS to [`WORKLOAD`] goes to the application.
pub fn inbound(application: SocketAddr) -> Change {
    let name = "inbound/8080";
    Change {
        listeners: vec![listener(name, Direction::Inbound, RouteSource::Inline(routes(name)))],
        clusters: vec![cluster(name, EndpointSource::Static(endpoint_specs(&[application])), None)],
        ..Change::default()
    }
}

fn listener(name: &str, direction: Direction, routes: RouteSource) -> ListenerSpec {
    let address = match direction {
        Direction::Outbound => SERVICE,
        Direction::Inbound => WORKLOAD,
    };
    ListenerSpec {
        name: name.into(),
        direction,
        addresses: vec![address],
        protocol: Protocol::Http,
        tls: InboundTls::Strict,
        routes: Some(routes),
        cluster: None,
        http: None,
        server_names: Vec::new(),
        detected: None,
    }
}

/// One route to the cluster of the same name, as the control plane makes it.
pub fn routes(name: &str) -> RouteTableSpec {
    let route = RouteSpec::new(PathMatch::Prefix("/".to_owned()), name);
    let host = VirtualHostSpec { domains: vec!["*".to_owned()], routes: vec![route] };
    RouteTableSpec { name: name.into(), virtual_hosts: vec![host] }
}

fn cluster(name: &str, endpoints: EndpointSource, identity: Option<SpiffeId>) -> ClusterSpec {
    ClusterSpec {
        name: name.into(),
        service: ServiceRef { namespace: "default".into(), name: "orders".into(), port: 80 },
        endpoints,
        connect_timeout: Duration::from_secs(1),
        tls: identity.map(|identity| UpstreamTls { identities: vec![identity], exceptions: Box::default() }),
        protocol: UpstreamProtocol::AsDownstream,
        outlier: OutlierPolicy::default(),
    }
}

/// Ready endpoints.
pub fn endpoint_specs(addresses: &[SocketAddr]) -> Vec<EndpointSpec> {
    let spec = |(index, &address): (usize, &SocketAddr)| EndpointSpec {
        address,
        workload: format!("default/orders-{index}").into(),
        health: EndpointHealth::Ready,
        transport: None,
    };
    addresses.iter().enumerate().map(spec).collect()
}

/// A root in memory that signs identities.
pub struct Root {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Root")
    }
}

impl Root {
    pub fn new() -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?.der().clone();
        Ok(Self { certificate, issuer: Issuer::new(params, key) })
    }

    /// Credentials of a workload (P-256), as the control plane would sign them.
    pub fn credentials(&self, identity: &SpiffeId) -> Result<Credentials> {
        self.signed(identity)?.credentials()
    }

    /// Key and certificate of a workload.
    pub fn signed(&self, identity: &SpiffeId) -> Result<Signed> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = vec![SanType::URI(identity.as_str().try_into()?)];
        let certificate = params.signed_by(&key, &self.issuer)?.der().clone();
        Ok(Signed { certificate, key, root: self.certificate.clone() })
    }
}

/// What credentials are made of.
pub struct Signed {
    certificate: CertificateDer<'static>,
    key: KeyPair,
    root: CertificateDer<'static>,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signed")
    }
}

impl Signed {
    /// Credentials that have met nobody.
    pub fn credentials(&self) -> Result<Credentials> {
        let key = PrivatePkcs8KeyDer::from(self.key.serialize_der()).into();
        Ok(Credentials::new(vec![self.certificate.clone()], &key, vec![self.root.clone()])?)
    }
}
