//! TLS that the mesh carries and does not open: nginx with certificates of its own behind one service port, curl before it.
//!
//! curl trusts the certificate of one backend alone each time: who answers with another, or somebody between that opens
//! the connection, is refused by curl itself.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{Finished, Port, Process, command, holds, run, until};

/// Hosts of the backends, in the order of their ports.
const HOSTS: [&str; 2] = ["a.example", "b.example"];

/// How a connection gets to nginx.
const WAYS: [&str; 2] = ["plain", "pair"];

/// nginx, two proxies and their control plane. Dropped in this order.
struct Passing {
    client: Sidecar,
    server: Sidecar,
    plane: Plane,
    _nginx: Process,
    /// Where nginx listens, one for each host.
    backends: [Port; 2],
    /// Where the client's proxy takes what is meant for the port with routes, one for each way.
    entrances: [Port; 2],
    /// The same for ports without routes: declared as TLS, and not declared at all.
    bare: [Port; 2],
    /// Where the server's proxy takes mesh connections, one for each backend.
    inbound: [Port; 2],
}

fn certificate(place: &Path, host: &str) -> PathBuf {
    let made = rcgen::generate_simple_self_signed([host.to_owned(), format!("other.{host}")]).unwrap();
    std::fs::write(place.join(format!("{host}.key")), made.signing_key.serialize_pem()).unwrap();
    let path = place.join(format!("{host}.pem"));
    std::fs::write(&path, made.cert.pem()).unwrap();
    path
}

/// One server for each host, each with its own certificate.
fn nginx(place: &Path, backends: &[Port; 2]) -> Process {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", place.display()))
        .join(" ");
    let here = place.display();
    let mut servers = String::new();
    for (host, port) in HOSTS.iter().zip(backends) {
        certificate(place, host);
        let _ = writeln!(
            servers,
            "  server {{ listen {} ssl http2;\n    ssl_certificate {here}/{host}.pem;\n    \
             ssl_certificate_key {here}/{host}.key;\n    \
             location / {{ return 200 '{host} for $ssl_server_name by $server_protocol\\n'; }}\n  }}",
            port.address()
        );
    }
    let text = format!(
        "daemon off;\nmaster_process off;\npid {here}/nginx.pid;\nerror_log {here}/error.log;\n\
         events {{ worker_connections 512; }}\nhttp {{\n  {temporary}\n  access_log off;\n{servers}}}\n"
    );
    let file = place.join("nginx.conf");
    std::fs::write(&file, text).unwrap();
    let mut nginx = command("nginx");
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin";
    nginx.env("PATH", path).arg("-p").arg(place).arg("-c").arg(&file);
    Process::start("nginx", &mut nginx, &place.join("nginx.log"))
}

/// A service whose endpoints are outside the mesh, and one of the workload.
fn service(name: &str, address: &str, port: &str, target: &Port) -> String {
    let head = "apiVersion: weft.dev/v1alpha1\nkind: Service\n";
    format!(
        "{head}metadata: {{name: {name}-plain}}\nspec:\n  addresses: [127.96.1.{address}]\n  ports: [{{{port}}}]\n  \
         endpoints: [{{address: 127.0.0.1, port: {target}}}]\n---\n\
         {head}metadata: {{name: {name}-pair}}\nspec:\n  addresses: [127.96.2.{address}]\n  \
         ports: [{{{port}, targetPort: {target}}}]\n  selector: {{app: server}}\n---\n",
        target = target.number()
    )
}

fn route(name: &str, way: &str, hostnames: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: TLSRoute\nmetadata: {{name: {name}-{way}}}\nspec:\n  \
         parentRefs: [{{kind: Service, name: front-{way}, port: 443}}]\n  {hostnames}\n  \
         rules: [{{backendRefs: [{{name: {backend}-{way}, port: 443}}]}}]\n---\n"
    )
}

impl Passing {
    fn start(place: &Path) -> Self {
        let plane = Plane::start(place);
        let ports = || [Port::reserve(), Port::reserve()];
        let (backends, entrances, bare, inbound) = (ports(), ports(), ports(), ports());
        let nginx = nginx(place, &backends);
        let [a, b] = &backends;
        let mut documents = service("front", "1", "port: 443, protocol: tls", a);
        documents += &service("a", "2", "port: 443, name: https", a);
        documents += &service("b", "3", "port: 443, appProtocol: tls", b);
        documents += &service("guess", "4", "port: 443", b);
        for way in WAYS {
            documents += &route("a", way, "hostnames: [a.example]", "a");
            documents += &route("b", way, "hostnames: [b.example, '*.b.example']", "b");
        }
        let advertised = backends.iter().zip(&inbound);
        let advertised: Vec<String> =
            advertised.map(|(port, at)| format!("{{port: {}, at: \"{}\"}}", port.number(), at.address())).collect();
        let _ = write!(
            documents,
            "apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: server-1, labels: {{app: server}}}}\n\
             spec:\n  addresses: [127.0.0.1]\n  serviceAccount: server\n  advertise: [{}]\n---\n\
             apiVersion: weft.dev/v1alpha1\nkind: Workload\nmetadata: {{name: client-1}}\n\
             spec: {{addresses: [127.0.0.1], serviceAccount: client}}\n",
            advertised.join(", ")
        );
        plane.apply(&documents);
        let mut server = Settings::new(&plane, "server-1", "server");
        for (backend, inbound) in backends.iter().zip(&inbound) {
            server = server.inbound(inbound, backend.address());
        }
        let original = |text: &str| text.parse::<SocketAddr>().unwrap();
        let client = Settings::new(&plane, "client-1", "client")
            .outbound(&entrances[0], original("127.96.1.1:443"))
            .outbound(&entrances[1], original("127.96.2.1:443"))
            .outbound(&bare[0], original("127.96.2.2:443"))
            .outbound(&bare[1], original("127.96.2.4:443"));
        let (server, client) = (server.start(&plane), client.start(&plane));
        server.ready();
        client.ready();
        let passing = Self { client, server, plane, _nginx: nginx, backends, entrances, bare, inbound };
        passing.settles();
        for (host, backend) in HOSTS.iter().zip(&passing.backends) {
            until("nginx answers", || {
                let said = passing.curl(backend, host, host);
                holds(said.code == Some(0), || format!("{said:?}"))
            });
        }
        passing
    }

    /// Waits until both proxies have what was applied last.
    fn settles(&self) {
        for sidecar in [&self.client, &self.server] {
            until("the proxies are up to date", || {
                let proxy = self.plane.proxy(&sidecar.workload()).ok_or("it is not connected")?;
                assert_eq!(proxy["nack"], "", "{proxy:#}");
                let current = proxy["appliedRevision"] == self.plane.revision() && proxy["pending"] == 0;
                holds(current, || proxy.to_string())
            });
        }
    }

    /// curl to `port` for `host`; it trusts nobody but `backend`.
    fn curl(&self, port: &Port, host: &str, backend: &str) -> Finished {
        let (number, place) = (port.number(), self.plane.place());
        run(command("curl")
            .args(["--silent", "--show-error", "--max-time", "25", "--noproxy", "*"])
            .args(["--resolve", &format!("{host}:{number}:127.0.0.1"), "--cacert"])
            .arg(place.join(format!("{backend}.pem")))
            .arg(format!("https://{host}:{number}/")))
    }

    /// Waits until so many connections were refused for this reason: they are counted after they are closed.
    fn has_refused(&self, reason: &str, count: u64) {
        let labels = [("direction", "outbound"), ("reason", reason)];
        until("the client's proxy has counted the refusals", || {
            let counted = self.client.metrics().sum("weft_connections_refused_total", &labels);
            holds(counted == count, || format!("{reason}: {counted}, not {count}"))
        });
    }
}

#[test]
fn two_names_behind_one_port_arrive_at_their_own_backends() {
    let place = tempfile::tempdir().unwrap();
    let passing = Passing::start(place.path());
    for (way, entrance) in WAYS.iter().zip(&passing.entrances) {
        for host in HOSTS {
            let said = passing.curl(entrance, host, host).succeeded();
            assert_eq!(said, format!("{host} for {host} by HTTP/2.0\n"), "{way}");
        }
        // Below `b.example`; and the backend's certificate is what curl sees: it trusts no other.
        assert_eq!(
            passing.curl(entrance, "other.b.example", "b.example").succeeded(),
            "b.example for other.b.example by HTTP/2.0\n"
        );
        assert!(passing.curl(entrance, "b.example", "a.example").failed(60).contains("certificate"));
        for backend in ["a", "b"] {
            let destination = format!("default/{backend}-{way}:443");
            let tls = if *way == "pair" { "mutual" } else { "none" };
            let labels = [("direction", "outbound"), ("destination", destination.as_str()), ("tls", tls)];
            let counted = passing.client.metrics().sum("weft_connections_total", &labels);
            assert_eq!(counted, if backend == "a" { 1 } else { 3 }, "{destination}");
        }
    }
    // Inside the mesh's own TLS, from a caller that is known.
    let inbound = [("direction", "inbound"), ("source", "default/client"), ("tls", "mutual")];
    assert_eq!(passing.server.metrics().sum("weft_connections_total", &inbound), 4);
    // What was read of each connection is its first message; what the backend got is all of it.
    let route = passing.plane.weft(&["get", "tlsroute"]).succeeded();
    assert!(route.contains("b.example,*.b.example") && route.contains("front-pair:443"), "{route}");
    let dump = passing.client.dump();
    let listeners = dump["listeners"].as_array().unwrap();
    let front = listeners.iter().find(|listener| listener["name"] == "outbound/default/front-pair:443").unwrap();
    assert_eq!(front["protocol"], "tls");
    assert_eq!(front["server_names"][0]["clusters"][0]["name"], "default/a-pair:443", "{front:#}");
}

#[test]
fn a_name_nobody_routes_is_refused_until_a_route_takes_all_others() {
    let place = tempfile::tempdir().unwrap();
    let passing = Passing::start(place.path());
    for (count, entrance) in (1..).zip(&passing.entrances) {
        let said = passing.curl(entrance, "other.a.example", "a.example").failed(35);
        assert!(said.contains("unrecognized name"), "the alert says why: {said}");
        passing.has_refused("unknown-server-name", count);
        // A request in plaintext has no name at all.
        let plain = run(command("curl")
            .args(["--silent", "--max-time", "25", "--noproxy", "*"])
            .arg(format!("http://{}/", entrance.address())));
        assert_eq!((plain.code, plain.stdout.as_str()), (Some(52), ""), "{plain:?}");
        passing.has_refused("not-tls", count);
    }
    assert!(passing.plane.weft(&["explain-code", "unknown-server-name"]).succeeded().contains("TLSRoute"));
    let others: String = WAYS.iter().map(|way| route("others", way, "", "a")).collect();
    passing.plane.apply(others.trim_end_matches("---\n"));
    passing.settles();
    for entrance in &passing.entrances {
        let said = passing.curl(entrance, "other.a.example", "a.example").succeeded();
        assert_eq!(said, "a.example for other.a.example by HTTP/2.0\n");
        assert_eq!(
            passing.curl(entrance, "b.example", "b.example").succeeded(),
            "b.example for b.example by HTTP/2.0\n"
        );
    }
}

#[test]
fn without_a_route_the_services_own_endpoints_get_it_declared_or_not() {
    let place = tempfile::tempdir().unwrap();
    let passing = Passing::start(place.path());
    let [declared, detected] = &passing.bare;
    for host in ["a.example", "other.a.example"] {
        assert!(passing.curl(declared, host, "a.example").succeeded().starts_with("a.example for"));
    }
    // The routes go, and with them what they said.
    assert!(passing.curl(detected, "b.example", "b.example").succeeded().starts_with("b.example for"));
    for way in WAYS {
        for route in ["a", "b"] {
            passing.plane.weft(&["delete", "tlsroute", &format!("{route}-{way}")]).succeeded();
        }
    }
    passing.settles();
    for entrance in &passing.entrances {
        let said = passing.curl(entrance, "other.a.example", "a.example").succeeded();
        assert_eq!(said, "a.example for other.a.example by HTTP/2.0\n");
    }
}

#[test]
fn a_permissive_port_takes_the_applications_tls_from_outside_and_ours_from_the_mesh() {
    let place = tempfile::tempdir().unwrap();
    let passing = Passing::start(place.path());
    let [inbound, _] = &passing.inbound;
    // Strict: who has no certificate of the mesh does not get in.
    assert_ne!(passing.curl(inbound, "a.example", "a.example").code, Some(0));
    passing
        .plane
        .apply("apiVersion: weft.dev/v1alpha1\nkind: Mesh\nmetadata: {name: default}\nspec: {mtls: permissive}\n");
    passing.settles();
    assert!(passing.curl(inbound, "a.example", "a.example").succeeded().starts_with("a.example for"));
    assert!(passing.curl(&passing.entrances[1], "a.example", "a.example").succeeded().starts_with("a.example for"));
    let labels = |source, tls| [("direction", "inbound"), ("source", source), ("tls", tls)];
    let metrics = passing.server.metrics();
    assert_eq!(metrics.sum("weft_connections_total", &labels("unknown", "none")), 1);
    assert_eq!(metrics.sum("weft_connections_total", &labels("default/client", "mutual")), 1);
}
