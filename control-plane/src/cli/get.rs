//! `weft get`: documents as they are stored.

use std::fmt::Display;

use weft_proto::weft::{Document as Message, GetRequest};

use super::output::{Cell, Format, Output, Style, age};
use super::target::{ClusterFlags, Target};
use super::{Context, Failure};
use crate::document::{
    Backends, DEFAULT_NAMESPACE, Document, HttpRouteSpec, Key, Kind, Mtls, ServiceSpec, TlsRouteSpec, WorkloadSpec,
    WorkloadState,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kind of the documents: mesh, service, workload, tlsroute or httproute; all kinds when left out.
    #[arg(value_parser = Kind::parse)]
    kind: Option<Kind>,
    /// Name of one document.
    name: Option<String>,
    /// Namespace of the documents.
    #[arg(short, long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE, conflicts_with = "all_namespaces")]
    namespace: String,
    /// Show the documents of all namespaces.
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    cluster: ClusterFlags,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let namespace = if self.all_namespaces { String::new() } else { self.namespace.clone() };
        let request = GetRequest {
            kind: self.kind.map(|kind| kind.to_string()).unwrap_or_default(),
            namespace,
            name: self.name.clone().unwrap_or_default(),
        };
        context.block_on(async {
            let found = match self.cluster.target(context).await? {
                Target::Local(mut client) => client.get(request).await?.into_inner(),
                Target::Cluster(remote) => remote.documents(&request).await?.into(),
            };
            self.show(&context.output, &found.documents)
        })
    }

    fn show(&self, output: &Output, found: &[Message]) -> Result<(), Failure> {
        if let (Some(kind), Some(name), []) = (self.kind, &self.name, found) {
            let namespace = if self.all_namespaces { "*" } else { &self.namespace };
            let key = Key::new(kind, namespace, name);
            return Err(Failure::new(format!("{key} does not exist; list what does with: weft get -A")));
        }
        let mut documents = Vec::with_capacity(found.len());
        for message in found {
            let json: serde_json::Value = serde_json::from_str(&message.json)
                .map_err(|error| Failure::new(format!("the control plane sent what is not JSON: {error}")))?;
            documents.push((message, json));
        }
        match output.format {
            Format::Json | Format::Yaml => {
                let values: Vec<_> = documents.into_iter().map(|(_, json)| json).collect();
                match (&self.name, &values[..]) {
                    (Some(_), [value]) => output.value(value)?,
                    _ => output.values(&values)?,
                }
            }
            Format::Table => tables(output, documents)?,
        }
        if found.is_empty() {
            let place =
                if self.all_namespaces { "any namespace".into() } else { format!("namespace {}", self.namespace) };
            output.note(&format!("no documents in {place}; -A shows all namespaces, `weft apply -f FILE` stores some"));
        }
        Ok(())
    }
}

/// A table for each kind there is.
fn tables(output: &Output, documents: Vec<(&Message, serde_json::Value)>) -> Result<(), Failure> {
    let now = weft_proxy::clock::unix_seconds();
    let mut rows: [Vec<Vec<Cell>>; Kind::ALL.len()] = Default::default();
    for (message, json) in documents {
        let document = Document::from_json(json).map_err(|error| {
            Failure::new(format!("the control plane is of another version ({error}); use -o json, or update"))
        })?;
        let name: Cell = message.name.clone().into();
        let namespace: Cell = message.namespace.clone().into();
        let tail = [Cell::from(message.revision.to_string()), age(message.changed_at, now).into()];
        let (table, head) = match &document {
            Document::Mesh(mesh) => (0, vec![name, mtls(mesh.spec.mtls), mesh.spec.proxy_upgrade.as_str().into()]),
            Document::Service(service) => (1, [vec![namespace, name], service_cells(&service.spec)].concat()),
            Document::Workload(workload) => (2, [vec![namespace, name], workload_cells(&workload.spec)].concat()),
            Document::TlsRoute(route) => (3, [vec![namespace, name], tls_route_cells(&route.spec)].concat()),
            Document::HttpRoute(route) => (4, [vec![namespace, name], http_route_cells(&route.spec)].concat()),
        };
        rows[table].push([head, tail.to_vec()].concat());
    }
    let headings: [&[&str]; Kind::ALL.len()] = [
        &["MESH", "MTLS", "PROXY UPGRADE", "REVISION", "AGE"],
        &["NAMESPACE", "SERVICE", "ADDRESSES", "PORTS", "BACKENDS", "REVISION", "AGE"],
        &["NAMESPACE", "WORKLOAD", "ADDRESSES", "ACCOUNT", "STATE", "REVISION", "AGE"],
        &["NAMESPACE", "TLSROUTE", "HOSTNAMES", "PARENTS", "BACKENDS", "REVISION", "AGE"],
        &["NAMESPACE", "HTTPROUTE", "HOSTNAMES", "PARENTS", "RULES", "BACKENDS", "REVISION", "AGE"],
    ];
    let mut first = true;
    for (headings, rows) in headings.iter().zip(&rows).filter(|(_, rows)| !rows.is_empty()) {
        if !first {
            output.line("")?;
        }
        first = false;
        output.table(headings, rows)?;
    }
    Ok(())
}

fn mtls(mtls: Mtls) -> Cell {
    match mtls {
        Mtls::Strict => "strict".into(),
        Mtls::Permissive => Cell::styled("permissive", Style::Warning),
    }
}

fn service_cells(spec: &ServiceSpec) -> Vec<Cell> {
    let port = |port: &crate::document::ServicePort| {
        let target = if port.target_port == port.port { String::new() } else { format!("->{}", port.target_port) };
        format!("{}{target}/{}", port.port, port.protocol)
    };
    let backends = match &spec.backends {
        Backends::Selector(labels) => listed(labels.iter().map(|(label, value)| format!("{label}={value}"))),
        Backends::Endpoints(endpoints) => listed(endpoints.iter().map(|endpoint| match endpoint.port {
            Some(port) => std::net::SocketAddr::new(endpoint.address, port).to_string(),
            None => endpoint.address.to_string(),
        })),
        Backends::Discovered(discovered) => listed(discovered.endpoints().map(|endpoint| match &endpoint.pod {
            Some(pod) => pod.clone(),
            None => endpoint.address.to_string(),
        })),
    };
    vec![listed(&spec.addresses).into(), listed(spec.ports.iter().map(port)).into(), backends.into()]
}

fn workload_cells(spec: &WorkloadSpec) -> Vec<Cell> {
    let style = match spec.state {
        WorkloadState::Ready => Style::Good,
        WorkloadState::Draining => Style::Warning,
        WorkloadState::Unhealthy => Style::Bad,
    };
    vec![
        listed(&spec.addresses).into(),
        spec.service_account.clone().into(),
        Cell::styled(spec.state.to_string(), style),
    ]
}

fn tls_route_cells(spec: &TlsRouteSpec) -> Vec<Cell> {
    let hostnames = if spec.hostnames.is_empty() { "(all others)".to_owned() } else { listed(&spec.hostnames) };
    let parents = spec.parent_refs.iter().map(|parent| match parent.port {
        Some(port) => format!("{}:{port}", parent.name),
        None => parent.name.clone(),
    });
    let backends = spec.backends().map(|backend| share(&backend.name, backend.port, backend.weight));
    vec![hostnames.into(), listed(parents).into(), listed(backends).into()]
}

fn http_route_cells(spec: &HttpRouteSpec) -> Vec<Cell> {
    let hostnames = if spec.hostnames.is_empty() { "(all)".to_owned() } else { listed(&spec.hostnames) };
    let parents = spec.parent_refs.iter().map(|parent| match (parent.port, &parent.section_name) {
        (Some(port), _) => format!("{}:{port}", parent.name),
        (None, Some(section)) => format!("{}:{section}", parent.name),
        (None, None) => parent.name.clone(),
    });
    let backends = spec.backends().map(|backend| share(&backend.name, backend.port, backend.weight));
    vec![hostnames.into(), listed(parents).into(), spec.rules.len().to_string().into(), listed(backends).into()]
}

/// A backend, and its weight where that says something.
fn share(name: &str, port: u16, weight: u32) -> String {
    if weight == 1 { format!("{name}:{port}") } else { format!("{name}:{port}*{weight}") }
}

fn listed<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(",")
}
