//! Where a workload lives: addresses and ports, and the environment that follows from them.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::capture::{PROXY_MARK, PROXY_USER};
use super::data::{DataError, PodDirectory};
use super::fabric::Mode;
use super::file::{CommandLine, ServiceSpec};
use super::network::PodAddress;
use super::plane::{KnownService, NAMESPACE, WorkloadDocument};
use super::protocol::{Launch, Program, RunAs};
use super::shared::Shared;

/// How long a proxy lets connections end by themselves.
pub(super) const PROXY_DRAIN: Duration = Duration::from_secs(5);

/// The place of one workload, kept as long as the workload exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A network of its own.
    Namespace { number: u16, address: PodAddress },
    /// Ports on the machine's loopback interface.
    Loopback(Ports),
}

/// The ports of a workload without a network of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    /// The application listens here.
    application: Option<u16>,
    /// Its proxy takes mesh connections for it here.
    inbound: Option<u16>,
    /// Its proxy takes connections for a service here.
    outbound: Vec<OutboundPort>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct OutboundPort {
    service: String,
    listen: u16,
    original: SocketAddr,
}

impl Place {
    /// A place for the replica of that index.
    pub(super) fn choose(shared: &Shared, service: &ServiceSpec, index: u32) -> io::Result<Self> {
        if let Some(fabric) = &shared.fabric {
            let number = shared.taken.number();
            return Ok(Self::Namespace { number, address: PodAddress::of(number, fabric.with_v6) });
        }
        let mut outbound = Vec::new();
        for called in shared.mesh.services.iter().filter(|called| called.name != service.name) {
            let Some(port) = called.port else { continue };
            let known = shared.known.borrow();
            let virtual_address = known.iter().find(|known| known.namespace == NAMESPACE && known.name == called.name);
            if let Some(ip) = virtual_address.and_then(first_v4) {
                let original = SocketAddr::from((ip, port.port));
                outbound.push(OutboundPort { service: called.name.clone(), listen: shared.taken.port()?, original });
            }
        }
        let application = match service.port {
            None => None,
            // A program that does not read PORT listens where the file says.
            Some(port) if !service.uses_port_variable() => Some(port.target_port),
            // The first replica of the others does so too where it can, for people who know that port.
            Some(port) if index == 0 && shared.taken.claim(port.target_port) => Some(port.target_port),
            Some(_) => Some(shared.taken.port()?),
        };
        let inbound = if service.port.is_some() { Some(shared.taken.port()?) } else { None };
        Ok(Self::Loopback(Ports { application, inbound, outbound }))
    }

    pub(super) fn release(&self, shared: &Shared) {
        match self {
            Self::Namespace { number, .. } => shared.taken.release_number(*number),
            Self::Loopback(own) => {
                let listening = own.outbound.iter().map(|out| out.listen);
                shared.taken.release_ports(listening.chain(own.application).chain(own.inbound));
            }
        }
    }

    /// The address it has in the mesh.
    pub(super) fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Self::Namespace { address, .. } => address.all(),
            Self::Loopback(_) => vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        }
    }

    /// The port the application listens on.
    pub(super) fn application_port(&self, service: &ServiceSpec) -> Option<u16> {
        match self {
            Self::Namespace { .. } => service.port.map(|port| port.target_port),
            Self::Loopback(ports) => ports.application,
        }
    }

    /// What others are told of it.
    pub(super) fn document(&self, service: &ServiceSpec, name: &str) -> WorkloadDocument {
        let advertise = match self {
            Self::Namespace { .. } => None,
            Self::Loopback(ports) => service
                .port
                .zip(ports.inbound)
                .map(|(port, inbound)| (port.target_port, format!("127.0.0.1:{inbound}"))),
        };
        let own_port = service.port.zip(self.application_port(service));
        let own_port = own_port.filter(|(declared, port)| declared.target_port != *port);
        WorkloadDocument {
            name: name.to_owned(),
            service: service.name.clone(),
            addresses: self.addresses(),
            advertise,
            own_port: own_port.map(|(declared, port)| (port, declared.protocol)),
        }
    }

    /// The service's program, as this replica runs it.
    pub(super) fn application(&self, shared: &Shared, service: &ServiceSpec, index: u32) -> Program {
        let port = self.application_port(service).map(|port| port.to_string());
        let filled = |text: &str| match &port {
            Some(port) => text.replace("${PORT}", port),
            None => text.to_owned(),
        };
        let mut env = self.urls(shared, service);
        env.insert("WEFT_WORKLOAD".to_owned(), service.workload(index));
        env.extend(port.iter().map(|port| ("PORT".to_owned(), port.clone())));
        let extra = service.replica_env.get(index as usize).into_iter().flatten();
        env.extend(service.env.iter().chain(extra).map(|(key, value)| (key.clone(), filled(value))));
        let (command, signal_group) = match &service.command {
            CommandLine::Program(arguments) => (arguments.iter().map(|argument| filled(argument)).collect(), false),
            CommandLine::Shell(line) => (vec!["sh".to_owned(), "-c".to_owned(), line.clone()], true),
        };
        let run_as = match (&service.user, &shared.mode) {
            (Some(name), _) => RunAs::Account(name.clone()),
            (None, &Mode::User { uid, gid }) => RunAs::Nested { uid, gid },
            (None, _) => RunAs::Same,
        };
        let launch =
            Launch { directory: shared.mesh.directory.clone(), run_as, die_with_parent: !shared.mode.has_namespaces() };
        Program { command, env, launch, log: None, signal_group }
    }

    fn urls(&self, shared: &Shared, service: &ServiceSpec) -> BTreeMap<String, String> {
        let others = shared.mesh.services.iter().filter(|other| other.name != service.name);
        let url = |other: &ServiceSpec| match self {
            Self::Namespace { .. } => other.port.map(|port| format!("http://{}:{}", other.name, port.port)),
            Self::Loopback(ports) => {
                let out = ports.outbound.iter().find(|out| out.service == other.name);
                out.map(|out| format!("http://127.0.0.1:{}", out.listen))
            }
        };
        let variable = |name: &str| format!("WEFT_URL_{}", name.to_uppercase().replace('-', "_"));
        others.filter_map(|other| Some((variable(&other.name), url(other)?))).collect()
    }

    /// The proxy of this workload.
    pub(super) fn proxy(
        &self,
        shared: &Shared,
        service: &ServiceSpec,
        name: &str,
        directory: &PodDirectory,
    ) -> Result<Program, DataError> {
        let mut env = BTreeMap::new();
        let mut set = |key: &str, value: String| env.insert(key.to_owned(), value);
        set("WEFT_NAMESPACE", NAMESPACE.to_owned());
        set("WEFT_WORKLOAD", name.to_owned());
        set("WEFT_SERVICE_ACCOUNT", service.name.clone());
        set("WEFT_CONTROL_PLANE", shared.control_plane.to_string());
        set("WEFT_BUNDLE", shared.data.bundle().display().to_string());
        set("WEFT_JOIN_TOKEN_FILE", directory.token().display().to_string());
        set("WEFT_STATE_DIR", directory.state()?.display().to_string());
        set("WEFT_ADMIN", format!("unix:{}", directory.admin_socket().display()));
        set("WEFT_DRAIN_SECONDS", PROXY_DRAIN.as_secs().to_string());
        if std::env::var_os("WEFT_WORKERS").is_none() {
            // Many proxies share the machine; one worker each is plenty for what a program here gets.
            set("WEFT_WORKERS", "1".to_owned());
        }
        match self {
            Self::Namespace { address, .. } if address.v6.is_none() => {
                set("WEFT_OUTBOUND", "127.0.0.1:15001".to_owned());
                set("WEFT_INBOUND", "0.0.0.0:15006".to_owned());
            }
            Self::Namespace { .. } => {}
            Self::Loopback(ports) => {
                let outbound = ports.outbound.iter().map(|out| format!("127.0.0.1:{}={}", out.listen, out.original));
                set("WEFT_OUTBOUND", or_unused(&outbound.collect::<Vec<_>>()));
                let inbound = ports.inbound.zip(ports.application);
                let inbound = inbound.map(|(listen, port)| format!("127.0.0.1:{listen}=127.0.0.1:{port}"));
                set("WEFT_INBOUND", or_unused(inbound.as_slice()));
            }
        }
        let run_as = match shared.mode {
            Mode::Root => RunAs::Ids { uid: PROXY_USER, gid: PROXY_USER },
            Mode::User { .. } => {
                set("WEFT_SOCKET_MARK", PROXY_MARK.to_string());
                RunAs::Same
            }
            Mode::Loopback { .. } => RunAs::Same,
        };
        Ok(Program {
            command: std::iter::once(String::new()).chain(shared.sidecar.iter().cloned()).collect(),
            env,
            launch: Launch { directory: "/".into(), run_as, die_with_parent: !shared.mode.has_namespaces() },
            log: Some(shared.data.log(&format!("{name}-proxy"))),
            signal_group: false,
        })
    }
}

/// A list of listeners; an empty one would mean the default ports, so it names a port nobody is told of.
fn or_unused(list: &[String]) -> String {
    if list.is_empty() { "127.0.0.1:0".to_owned() } else { list.join(",") }
}

fn first_v4(service: &KnownService) -> Option<IpAddr> {
    service.addresses.iter().copied().find(IpAddr::is_ipv4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_address_of_each_family() {
        let address = PodAddress::of(0x0105, true);
        assert_eq!(address.all(), ["10.97.1.5".parse::<IpAddr>().unwrap(), "fd58::105".parse().unwrap()]);
        assert_eq!(PodAddress::of(2, false).all().len(), 1);
    }
}
