//! The real servers behind us, each of which writes down what it took for a request.
//!
//! A line of their logs is `SEEN STATUS METHOD TARGET BODY`; how the body is written differs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use weft_tests::process::python::{self, ENVOY};
use weft_tests::process::{Port, Process, command, http, need, run, system, until};

/// What a server says a request's body was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Bytes(Vec<u8>),
    Length(usize),
}

/// A request a server has read.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// What it answered; 4xx of its own and 0 are requests it did not read to their end.
    pub(crate) status: u16,
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nginx,
    Haproxy,
    Envoy,
    Python,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    kind: Kind,
    port: Port,
    process: Process,
    log: PathBuf,
    _more: Vec<Port>,
    _behind: Option<Process>,
}

impl Server {
    /// Every server.
    pub(crate) fn all(place: &Path) -> Vec<Self> {
        need(&["nginx", "haproxy"]);
        let mut servers = vec![nginx(place), haproxy(place), envoy(place), python(place)];
        for server in &mut servers {
            until(&format!("{} answers", server.name), || {
                if let Some(status) = server.process.has_ended() {
                    panic!("{} has ended with {status}: {}", server.name, server.process.log());
                }
                http::get(server.port.address(), "/ready").map_err(|error| error.to_string())
            });
        }
        servers
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Ends it, so that nothing is held back, and reads what it saw.
    pub(crate) fn end(mut self) -> Vec<Line> {
        self.process.signal(Signal::SIGTERM);
        self.process.ended();
        let log = std::fs::read(&self.log).unwrap_or_default();
        let lines = log.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"SEEN "));
        lines.map(|line| self.line(&String::from_utf8_lossy(line))).collect()
    }

    fn line(&self, text: &str) -> Line {
        let mut words = text.splitn(4, ' ');
        let mut next = || words.next().unwrap_or_default().to_owned();
        let (status, method, target, body) = (next(), next(), next(), next());
        let body = match self.kind {
            Kind::Nginx => Body::Bytes(unescaped(body.trim_end_matches('\n'))),
            Kind::Haproxy | Kind::Python => Body::Bytes(from_hex(&body)),
            Kind::Envoy => Body::Length(body.trim().parse().unwrap_or_default()),
        };
        // nginx answers 444 and 499 to nobody; it writes 000 or nothing where there was no request.
        Line { status: status.parse().unwrap_or_default(), method, target, body }
    }
}

fn from_hex(text: &str) -> Vec<u8> {
    let text = text.trim().trim_start_matches('-');
    let pairs = text.as_bytes().chunks(2).filter_map(|pair| std::str::from_utf8(pair).ok());
    pairs.filter_map(|pair| u8::from_str_radix(pair, 16).ok()).collect()
}

/// nginx writes control characters, quotes and backslashes as `\xHH`, and nothing as `-`.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = if text == "-" { "" } else { text };
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        bytes.extend(from_hex(rest.get(at + 2..at + 4).unwrap_or_default()));
        rest = rest.get(at + 4..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// nginx with a server of its own behind it: it reads whole bodies only where it has to pass them on.
fn nginx(place: &Path) -> Server {
    let (port, inner) = (Port::reserve(), Port::reserve());
    let place = place.join("nginx");
    std::fs::create_dir(&place).expect("the place can be written to");
    let log = place.join("access.log");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {}/{kind};", place.display()))
        .join(" ");
    let text = format!(
        "daemon off;\nmaster_process off;\npid {place}/nginx.pid;\nerror_log {place}/error.log;\n\
         events {{ worker_connections 512; }}\nhttp {{\n  {temporary}\n  client_max_body_size 0;\n  \
         client_body_buffer_size 1m;\n  keepalive_requests 100000;\n  log_format seen 'SEEN $status $request_method $request_uri $request_body';\n  \
         server {{ listen {port};\n    access_log {log} seen;\n    \
         location / {{ proxy_pass http://{inner}; proxy_http_version 1.1; proxy_set_header Connection ''; }}\n  }}\n  \
         server {{ listen {inner}; access_log off;\n    \
         location / {{ return 200 '$request_method $request_uri\\n'; }}\n  }}\n}}\n",
        place = place.display(),
        port = port.address(),
        inner = inner.address(),
        log = log.display(),
    );
    let file = place.join("nginx.conf");
    std::fs::write(&file, text).expect("the place can be written to");
    let mut nginx = system("nginx");
    nginx.arg("-p").arg(&place).arg("-c").arg(&file);
    let process = Process::start("nginx", &mut nginx, &place.join("nginx.log"));
    Server { name: "nginx", kind: Kind::Nginx, port, process, log, _more: vec![inner], _behind: None }
}

/// HAProxy with a server of its own behind it: by itself it answers before a body has ended.
fn haproxy(place: &Path) -> Server {
    let (port, inner) = (Port::reserve(), Port::reserve());
    let text = format!(
        "global\n  log stdout len 65535 format raw local0\n  tune.bufsize 131072\ndefaults\n  mode http\n  log global\n  \
         timeout client 60s\n  timeout server 60s\n  timeout connect 10s\n  timeout http-request 60s\n  \
         option http-buffer-request\nfrontend seen\n  bind {}\n  http-request set-var(txn.body) req.body,hex\n  \
         log-format \"SEEN %ST %HM %HU %[var(txn.body)]\"\n  default_backend inner\nbackend inner\n  server inner {}\n",
        port.address(),
        inner.address()
    );
    let (file, log) = (place.join("haproxy.cfg"), place.join("haproxy.log"));
    std::fs::write(&file, text).expect("the place can be written to");
    let process = Process::start("HAProxy", system("haproxy").arg("-db").arg("-f").arg(&file), &log);
    let behind = seen(&inner, &place.join("haproxy-inner.log"));
    Server { name: "HAProxy", kind: Kind::Haproxy, port, process, log, _more: vec![inner], _behind: Some(behind) }
}

/// Envoy with a filter that waits for the whole body before it answers.
fn envoy(place: &Path) -> Server {
    let port = Port::reserve();
    let log = place.join("envoy.log");
    let extension = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let bootstrap = serde_json::json!({
        "static_resources": {"listeners": [{
            "name": "seen",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port.number()}},
            "filter_chains": [{"filters": [{
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": extension("filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "seen", "codec_type": "HTTP1",
                    "access_log": [{"name": "envoy.access_loggers.stdout", "typed_config": {
                        "@type": extension("access_loggers.stream.v3.StdoutAccessLog"),
                        "log_format": {"text_format_source": {
                            "inline_string": "SEEN %RESPONSE_CODE% %REQ(:METHOD)% %REQ(:PATH)% %BYTES_RECEIVED%\n",
                        }},
                    }}],
                    "route_config": {"name": "all", "virtual_hosts": [{
                        "name": "all", "domains": ["*"],
                        "response_headers_to_add": [{"header": {"key": "x-seen", "value": "%REQ(:METHOD)% %REQ(:PATH)%"}}],
                        "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "seen\n"}}}],
                    }]},
                    "http_filters": [
                        {"name": "envoy.filters.http.buffer", "typed_config": {
                            "@type": extension("filters.http.buffer.v3.Buffer"), "max_request_bytes": 1_048_576,
                        }},
                        {"name": "envoy.filters.http.router", "typed_config": {
                            "@type": extension("filters.http.router.v3.Router"),
                        }},
                    ],
                },
            }]}],
        }]},
    });
    let file = place.join("envoy.json");
    std::fs::write(&file, bootstrap.to_string()).expect("the place can be written to");
    let python = python::interpreter(ENVOY);
    let where_it_is = "import envoy, os; print(os.path.join(os.path.dirname(envoy.__file__), '_bin', 'envoy'))";
    let program = run(command(python).args(["-c", where_it_is])).succeeded();
    let mut envoy = command(program.trim());
    envoy.arg("--config-path").arg(&file);
    envoy.args([
        "--disable-hot-restart",
        "--concurrency",
        "1",
        "--log-level",
        "warning",
        "--file-flush-interval-msec",
        "10",
    ]);
    let process = Process::start("Envoy", &mut envoy, &log);
    Server { name: "Envoy", kind: Kind::Envoy, port, process, log, _more: Vec::new(), _behind: None }
}

fn python(place: &Path) -> Server {
    let port = Port::reserve();
    let log = place.join("python.log");
    let process = seen(&port, &log);
    Server { name: "http.server", kind: Kind::Python, port, process, log, _more: Vec::new(), _behind: None }
}

fn seen(port: &Port, log: &Path) -> Process {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("conformance/peers/seen.py");
    Process::start("http.server", command("python3").arg(script).arg(port.number().to_string()), log)
}
