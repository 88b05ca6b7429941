//! Several servers behind the same two proxies: each is reached through one proxy in plaintext, and through both with
//! mutual TLS between them.
//!
//! Servers on 127.0.0.1 that know nothing of the mesh: real programs, or threads of the test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use super::plane::Plane;
use super::sidecar::{Settings, Sidecar};
use super::{Port, Programs, holds, until};

/// A server, and how its port is declared.
#[derive(Debug, Clone)]
pub struct Behind {
    pub name: String,
    pub address: SocketAddr,
    /// What the service port says of its protocol; `None`: nobody said.
    pub protocol: Option<&'static str>,
    /// Further replicas, behind the one proxy alone.
    pub replicas: Vec<SocketAddr>,
}

impl Behind {
    pub fn new(name: &str, address: SocketAddr, protocol: Option<&'static str>) -> Self {
        Self { name: name.to_owned(), address, protocol, replicas: Vec::new() }
    }
}

/// How a client reaches a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// One proxy, plaintext behind it.
    Plain,
    /// Two proxies, mutual TLS between them.
    Pair,
}

impl Way {
    pub const BOTH: [Self; 2] = [Self::Plain, Self::Pair];

    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Pair => "pair",
        }
    }
}

/// Whose programs the parts of a crossing are.
#[derive(Debug, Clone)]
pub struct Cast {
    pub plane: Programs,
    pub client: Programs,
    pub server: Programs,
}

impl Cast {
    /// All of this workspace.
    pub fn ours() -> Self {
        Self { plane: Programs::ours(), client: Programs::ours(), server: Programs::ours() }
    }
}

/// The two proxies and their control plane. Dropped in this order: proxies before what they talk to.
#[derive(Debug)]
pub struct Crossing {
    pub client: Sidecar,
    pub server: Sidecar,
    pub plane: Plane,
    entrances: BTreeMap<(String, Way), Port>,
    _inbound: Vec<Port>,
}

impl Crossing {
    /// Starts all of it; both proxies are ready and know all servers.
    pub fn start(place: &Path, servers: &[Behind]) -> Self {
        Self::start_with(place, servers, |settings| settings)
    }

    /// Starts it with other settings for both proxies.
    pub fn start_with(place: &Path, servers: &[Behind], adjust: impl Fn(Settings) -> Settings) -> Self {
        Self::play(place, servers, &Cast::ours(), adjust)
    }

    /// Starts it with these programs and other settings for both proxies.
    pub fn play(place: &Path, servers: &[Behind], cast: &Cast, adjust: impl Fn(Settings) -> Settings) -> Self {
        let plane = Plane::start_as(place, &[], &cast.plane);
        let mut documents = String::new();
        let mut advertised = Vec::new();
        let mut entrances = BTreeMap::new();
        let mut inbound = Vec::new();
        let settings = |name, account| Settings::new(&plane, name, account).set("WEFT_LOG", &"info");
        let mut server = settings("server-1", "server").of(&cast.server);
        let mut client = settings("client-1", "client").of(&cast.client);
        for (number, behind) in (1..).zip(servers) {
            documents += &services(behind, number);
            let port = Port::reserve();
            advertised.push(format!("{{port: {}, at: \"{}\"}}", behind.address.port(), port.address()));
            server = server.inbound(&port, behind.address);
            inbound.push(port);
            for way in Way::BOTH {
                let entrance = Port::reserve();
                let original = format!("{}:80", virtual_address(way, number));
                client = client.outbound(&entrance, original.parse().expect("it is made to be an address"));
                entrances.insert((behind.name.clone(), way), entrance);
            }
        }
        let _ = write!(
            documents,
            "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: server-1, labels: {{app: server}}}}\n\
             spec:\n  addresses: [127.0.0.1]\n  serviceAccount: server\n  advertise: [{}]\n---\n\
             apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: client-1}}\n\
             spec: {{addresses: [127.0.0.1], serviceAccount: client}}\n",
            advertised.join(", ")
        );
        plane.apply(&documents);
        let (server, client) = (adjust(server).start(&plane), adjust(client).start(&plane));
        server.ready();
        client.ready();
        let crossing = Self { client, server, plane, entrances, _inbound: inbound };
        crossing.is_settled();
        crossing
    }

    /// Waits until both proxies have taken all there is.
    pub fn is_settled(&self) {
        for sidecar in [&self.client, &self.server] {
            until("the proxies are up to date", || {
                let proxy = self.plane.proxy(&sidecar.workload()).ok_or("it is not connected")?;
                let current = proxy["appliedRevision"] == self.plane.revision() && proxy["pending"] == 0;
                holds(current, || proxy.to_string())
            });
        }
    }

    /// Where the client's proxy takes what is meant for a server.
    pub fn entrance(&self, server: &str, way: Way) -> SocketAddr {
        let entrance = self.entrances.get(&(server.to_owned(), way));
        entrance.unwrap_or_else(|| panic!("no server `{server}` was named")).address()
    }

    /// Waits until neither proxy has anything under way.
    pub fn is_quiet(&self) {
        for sidecar in [&self.client, &self.server] {
            until("nothing is under way", || {
                let metrics = sidecar.metrics();
                let left =
                    ["weft_requests_in_flight", "weft_connections_active"].map(|name| (name, metrics.sum(name, &[])));
                // Connections kept for later requests are idle, not active, and may stay.
                holds(left[0].1 == 0, || format!("{}: {left:?}", sidecar.workload()))
            });
        }
    }
}

fn virtual_address(way: Way, number: u8) -> String {
    match way {
        Way::Plain => format!("127.96.1.{number}"),
        Way::Pair => format!("127.96.2.{number}"),
    }
}

/// The same server as a service outside the mesh, and as one of the workload `server-1`.
fn services(behind: &Behind, number: u8) -> String {
    let Behind { name, address, protocol, replicas } = behind;
    let all = std::iter::once(address).chain(replicas);
    let endpoints: Vec<String> = all.map(|at| format!("{{address: 127.0.0.1, port: {}}}", at.port())).collect();
    let endpoints = endpoints.join(", ");
    let protocol = protocol.map(|protocol| format!(", protocol: {protocol}")).unwrap_or_default();
    let head = "apiVersion: weft.dev/v1alpha1\nkind: Service\n";
    format!(
        "{head}metadata: {{name: {name}-plain}}\nspec:\n  addresses: [{plain}]\n  ports: [{{port: 80{protocol}}}]\n  \
         endpoints: [{endpoints}]\n---\n\
         {head}metadata: {{name: {name}}}\nspec:\n  addresses: [{pair}]\n  \
         ports: [{{port: 80, targetPort: {port}{protocol}}}]\n  selector: {{app: server}}\n---\n",
        plain = virtual_address(Way::Plain, number),
        pair = virtual_address(Way::Pair, number),
        port = address.port(),
    )
}
