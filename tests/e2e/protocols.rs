//! What applications speak, and where to: all of it passes, and nothing goes in circles.

use std::sync::Arc;

use weft_tests::mesh::command::{Running, run};
use weft_tests::mesh::machine::{has_ipv6, has_namespaces, python};
use weft_tests::mesh::{Ground, How, Mesh};

const CALLER: &str = "caller: {command: [sleep, infinity]}";
/// The same program twice: once declared as `tcp`, once not declared at all.
const TALK_TCP: &str = "talk: {command: ['<python>', talk.py], port: 7000, targetPort: 9000, protocol: tcp}";
const TALK_UNDECLARED: &str = "guess: {command: ['<python>', talk.py], port: 7000, targetPort: 9000}";
const FILES_HTTP: &str = "files: {command: ['<python>', files.py], port: 80, targetPort: 8080, protocol: http}";
const FILES_UNDECLARED: &str = "plain: {command: ['<python>', files.py], port: 80, targetPort: 8080}";

/// Speaks first, then listens until the other side has said all, and says it back.
const TALK_PROGRAM: &str = "
import socket, threading
listener = socket.create_server(('127.0.0.1', 9000))
def serve(client):
    client.sendall(b'220 speak, then close your side\\r\\n')
    heard = b''
    while chunk := client.recv(65536):
        heard += chunk
    client.sendall(b'heard %d: ' % len(heard) + heard[-20:])
    client.close()
while True:
    threading.Thread(target=serve, args=listener.accept()[:1]).start()
";
/// Calls `talk.py`: waits for the greeting, says `size` bytes, closes its side, and prints the answer.
const CALL_PROGRAM: &str = "
import socket, sys
server = socket.create_connection((sys.argv[1], 7000), timeout=30)
greeting = server.recv(1000)
assert greeting.startswith(b'220 '), greeting
server.sendall(b'x' * (int(sys.argv[2]) - 3) + b'end')
server.shutdown(socket.SHUT_WR)
answer = b''
while chunk := server.recv(65536):
    answer += chunk
print(answer.decode())
";
/// 50 MiB that no compression or repetition can stand in for.
const FILES_PROGRAM: &str = "
import hashlib, http.server
block = b''.join(hashlib.sha256(b'%d' % i).digest() for i in range(32768))
body = b''.join(bytes([i]) + block[1:] for i in range(50))
digest = hashlib.sha256(body).hexdigest().encode()
class Files(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        answer = {'/large': body, '/digest': digest}.get(self.path, b'hello\\n')
        self.send_response(200)
        self.send_header('content-length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def do_POST(self):
        heard = hashlib.sha256()
        left = int(self.headers['content-length'])
        while left:
            chunk = self.rfile.read(min(left, 65536))
            heard.update(chunk)
            left -= len(chunk)
        answer = heard.hexdigest().encode()
        self.send_response(200)
        self.send_header('content-length', str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *words):
        pass
http.server.ThreadingHTTPServer(('127.0.0.1', 8080), Files).serve_forever()
";

fn mesh(services: &[&str]) -> Mesh {
    let ground = Ground::new(How::Root, &format!("services:\n  {}\n", services.join("\n  ")));
    for (name, text) in [("talk.py", TALK_PROGRAM), ("call.py", CALL_PROGRAM), ("files.py", FILES_PROGRAM)] {
        ground.write(name, text);
    }
    Mesh::on(&Arc::new(ground))
}

/// Runs a shell line beside an application, where `curl` gives up in time.
fn shell(mesh: &Mesh, workload: &str, line: &str) -> String {
    let line = format!("curl() {{ command curl -sS --max-time 50 \"$@\"; }}\n{line}");
    mesh.exec(workload, &["bash", "-euo", "pipefail", "-c", &line]).ok()
}

#[test]
fn a_server_may_speak_first_and_a_client_may_close_its_side() {
    if !has_namespaces() {
        return;
    }
    let mesh = mesh(&[CALLER, TALK_TCP, TALK_UNDECLARED]);
    let script = mesh.ground().path().join("call.py").display().to_string();
    for service in ["talk", "guess"] {
        for size in ["3", "1000000"] {
            let said = mesh.exec("caller-1", &[&python(), &script, service, size]).ok();
            let tail: String = "x".repeat(size.parse::<usize>().unwrap().min(20) - 3) + "end";
            assert_eq!(said.trim(), format!("heard {size}: {tail}"), "{service}");
        }
        let figures = mesh.scrape(&format!("{service}-1"));
        let labels = [("direction", "inbound"), ("source", "default/caller"), ("tls", "mutual")];
        assert_eq!(figures.sum("weft_connections_total", &labels), 2, "{service} over mTLS");
    }
}

#[test]
fn large_bodies_arrive_whole() {
    if !has_namespaces() {
        return;
    }
    let mesh = mesh(&[CALLER, FILES_HTTP, FILES_UNDECLARED]);
    for service in ["files", "plain"] {
        let digest = shell(&mesh, "caller-1", &format!("curl http://{service}/digest"));
        assert_eq!(digest.len(), 64, "{digest}");
        let down = shell(&mesh, "caller-1", &format!("curl http://{service}/large | sha256sum"));
        assert_eq!(down.split(' ').next(), Some(digest.as_str()), "{service}: download");
    }
    let line = "curl http://files/large >large; curl --data-binary @large http://files/; rm large";
    let digest = shell(&mesh, "caller-1", "curl http://files/digest");
    let up = shell(&mesh, "caller-1", &format!("cd {}; {line}", mesh.ground().path().display()));
    assert_eq!(up, digest, "upload");
}

#[test]
fn names_work_over_ipv6() {
    if !has_namespaces() || !has_ipv6() {
        return;
    }
    let mesh = mesh(&[CALLER, FILES_HTTP, FILES_UNDECLARED]);
    for service in ["files", "plain"] {
        let line = format!("curl -6 -w '%{{remote_ip}}' http://{service}/");
        let said = shell(&mesh, "caller-1", &line);
        let (body, address) = said.split_once('\n').unwrap();
        assert_eq!(body, "hello");
        assert!(address.contains(':'), "{address}");
    }
}

#[test]
fn a_pod_calls_its_own_service() {
    if !has_namespaces() {
        return;
    }
    let mesh = mesh(&[FILES_HTTP]);
    assert_eq!(shell(&mesh, "files-1", "curl http://files/; curl -6 http://files/"), "hello\nhello\n");
    let own = [("direction", "inbound"), ("source", "default/files")];
    assert_eq!(mesh.settled("files-1").sum("weft_requests_total", &own), 2);
}

#[test]
fn what_is_outside_the_mesh_is_reached_as_it_is() {
    if !has_namespaces() {
        return;
    }
    let mesh = mesh(&[CALLER]);
    let server = "
import http.server, os
class Outside(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'outside')
server = http.server.HTTPServer(('10.97.0.1', 0), Outside)
print('port=%d.' % server.server_address[1], flush=True)
server.serve_forever()
";
    let server = Running::start(mesh.outside(&[&python(), "-c", server]));
    server.says(".");
    let port = server.stdout().replace("port=", "").replace('.', "").trim().to_owned();
    let labels = [("direction", "outbound"), ("destination", "passthrough")];
    let before = mesh.scrape("caller-1").sum("weft_connections_total", &labels);
    assert_eq!(shell(&mesh, "caller-1", &format!("curl http://10.97.0.1:{port}/")), "outside");
    assert_eq!(mesh.scrape("caller-1").sum("weft_connections_total", &labels) - before, 1, "through the proxy");
    drop(server);
    // Nobody there: an end, not a wait.
    let refused = mesh.exec("caller-1", &["curl", "-sS", "--max-time", "30", &format!("http://10.97.0.1:{port}/")]);
    assert!(!refused.status.success() && refused.status.code() != Some(28), "{refused}");
}

#[test]
fn the_proxys_own_ports_take_nobody_in() {
    if !has_namespaces() {
        return;
    }
    let mesh = mesh(&[FILES_HTTP]);
    // A connection straight to a port of the proxy has no destination but the proxy: it would be forwarded for ever.
    let address = mesh.address("files-1");
    let refused = |workload: &str| mesh.scrape(workload).sum("weft_connections_refused_total", &[]);
    let get = |url: &str| ["curl", "-sS", "-g", "--max-time", "30", url].map(str::to_owned);
    for port in [15001, 15006] {
        let inside = ["127.0.0.1", "[::1]", &address].map(|host| (true, format!("http://{host}:{port}/")));
        let outside = (false, format!("http://{address}:{port}/"));
        for (is_inside, url) in inside.into_iter().chain([outside]) {
            let before = refused("files-1");
            let words = get(&url);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let said = if is_inside { mesh.exec("files-1", &words) } else { run(mesh.outside(&words)) };
            assert!(!said.status.success() && said.stdout.is_empty(), "{url}: {said}");
            assert_ne!(said.status.code(), Some(28), "{url}: refused at once: {said}");
            let counted = refused("files-1") - before;
            assert!(counted <= 1, "{url}: one connection, refused {counted} times");
        }
    }
    let active = mesh.scrape("files-1");
    assert_eq!(active.sum("weft_requests_in_flight", &[]), 0);
}
