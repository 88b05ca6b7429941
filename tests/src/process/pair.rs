//! The smallest mesh: a client's proxy, mTLS, a server's proxy, and the application behind it.

use std::net::SocketAddr;
use std::path::Path;

use super::application::Application;
use super::plane::Plane;
use super::sidecar::{Settings, Sidecar};
use super::{Port, http, until};

/// The service's cluster, as proxies call it.
pub const CLUSTER: &str = "default/echo:80";
/// The service's virtual address: one where nobody listens, and from which nothing leaves the machine.
pub const VIRTUAL: &str = "127.96.0.9:80";

/// `client-1` calls the service `echo`, which is the workload `echo-1`.
///
/// Fields are dropped in this order: proxies before what they talk to.
#[derive(Debug)]
pub struct Pair {
    pub client: Sidecar,
    pub server: Sidecar,
    pub application: Application,
    pub plane: Plane,
    /// Where the client's proxy takes what is meant for the service.
    pub outbound: Port,
    /// Where the server's proxy takes mesh connections.
    pub inbound: Port,
}

impl Pair {
    /// Starts all of it; both proxies are ready.
    pub fn start(place: &Path) -> Self {
        Self::start_with(place, &[], |settings| settings)
    }

    /// Starts it with more arguments for the control plane and other settings for both proxies.
    pub fn start_with(place: &Path, arguments: &[&str], adjust: impl Fn(Settings) -> Settings) -> Self {
        let plane = Plane::start_with(place, arguments);
        let application = Application::start("echo-1");
        let (outbound, inbound) = (Port::reserve(), Port::reserve());
        plane.apply(&documents(&application, inbound.address()));
        let server = Settings::new(&plane, "echo-1", "echo").inbound(&inbound, application.address());
        let server = adjust(server).start(&plane);
        let client = Settings::new(&plane, "client-1", "client").outbound(&outbound, virtual_address());
        let client = adjust(client).start(&plane);
        server.ready();
        client.ready();
        Self { client, server, application, plane, outbound, inbound }
    }

    /// curl through both proxies.
    pub fn curl(&self, path: &str) -> (u16, String) {
        http::curl(self.outbound.address(), path)
    }

    /// Waits until the client's proxy has exactly these endpoints of the service.
    pub fn has_endpoints(&self, expected: &[SocketAddr]) {
        let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        until("the client's proxy follows the endpoints", || {
            let found = self.client.endpoints(CLUSTER);
            if found == expected { Ok(()) } else { Err(format!("{found:?}, not {expected:?}")) }
        });
    }
}

pub fn virtual_address() -> SocketAddr {
    VIRTUAL.parse().expect("a constant that is an address")
}

/// The service, its one workload, and the client.
pub fn documents(application: &Application, inbound: SocketAddr) -> String {
    [service(application.port()), workload("echo-1", application.port(), inbound), client()].join("---\n")
}

pub fn service(target: u16) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Service\nmetadata: {{name: echo}}\nspec:\n  addresses: [127.96.0.9]\n  \
         ports: [{{name: http, port: 80, targetPort: {target}, protocol: http}}]\n  selector: {{app: echo}}\n"
    )
}

/// A workload of the service whose proxy takes mesh connections at `inbound`.
pub fn workload(name: &str, target: u16, inbound: SocketAddr) -> String {
    format!(
        "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}, labels: {{app: echo}}}}\nspec:\n  \
         addresses: [127.0.0.1]\n  serviceAccount: echo\n  advertise: [{{port: {target}, at: \"{inbound}\"}}]\n"
    )
}

fn client() -> String {
    "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {name: client-1}\n\
     spec: {addresses: [127.0.0.1], serviceAccount: client}\n"
        .to_owned()
}
