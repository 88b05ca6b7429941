//! A node, its runtime and an API server, in small.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::Value;
use tempfile::TempDir;

pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_weft-proxy");
/// Longest wait for what takes a moment on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Set in the copy of a test that runs inside a user namespace.
const INSIDE: &str = "WEFT_TEST_INSIDE_USER_NAMESPACE";

#[allow(clippy::disallowed_methods, reason = "deadlines of tests are about real time")]
fn now() -> Instant {
    Instant::now()
}

/// Looks until it holds.
pub(super) fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = now() + PATIENCE;
    while !holds() {
        assert!(now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Runs the body where it may make network namespaces: here if this is root, else once more inside a user namespace.
/// Where neither is allowed the test is skipped aloud, but not on a build machine.
pub(super) fn with_rights(test: &str, body: impl FnOnce()) {
    if geteuid().is_root() {
        return body();
    }
    let possible = Command::new("unshare").args(["-Urn", "true"]).stderr(Stdio::null()).status();
    if env::var_os(INSIDE).is_some() || !possible.is_ok_and(|status| status.success()) {
        assert_ne!(env::var("CI").as_deref(), Ok("true"), "a build machine must run this test");
        println!("skipped: neither root nor user namespaces");
        return;
    }
    let program = env::current_exe().unwrap();
    let line = ["--exact", test, "--nocapture"];
    let status = Command::new("unshare").arg("-Urn").arg(program).args(line).env(INSIDE, "1").status();
    assert!(status.unwrap().success(), "{test} failed inside a user namespace");
}

/// A network namespace: that of a process which waits in it.
pub(super) struct Namespace(Child);

impl Namespace {
    pub(super) fn new() -> Self {
        let mut child = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo in; exec sleep infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "in\n");
        Self(child)
    }

    pub(super) fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    /// Runs a program inside.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new("nsenter")
            .arg(format!("--net={}", self.path()))
            .arg(program)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Everything the kernel has there.
    pub(super) fn rules(&self) -> String {
        self.run("nft", &["list", "ruleset"])
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the plugin answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) is_good: bool,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    /// Of an error.
    pub(super) fn code(&self) -> u64 {
        assert!(!self.is_good, "{self:?}");
        let error = self.json();
        assert!(!error["msg"].as_str().unwrap().is_empty() && error["cniVersion"].is_string(), "{self:?}");
        error["code"].as_u64().unwrap()
    }
}

/// Calls the plugin as a runtime does: no argument, a few variables, the configuration on standard input.
pub(super) fn call(command: &str, namespace: &str, arguments: &str, configuration: &str) -> Answer {
    let mut child = Command::new(PROGRAM)
        .env_clear()
        .env("PATH", env::var_os("PATH").unwrap_or_default())
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", namespace)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", arguments)
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that needs no configuration may not read it.
    let _ = child.stdin.take().unwrap().write_all(configuration.as_bytes());
    let output = child.wait_with_output().unwrap();
    Answer { text: String::from_utf8(output.stdout).unwrap(), is_good: output.status.success() }
}

#[derive(Debug, Default)]
struct Told {
    answers: BTreeMap<String, (u16, Value)>,
    token: String,
    questions: usize,
    refused: usize,
    patches: Vec<Value>,
}

/// An API server that answers what it was told to, to whoever has the token.
pub(super) struct ApiServer {
    place: TempDir,
    address: String,
    told: Arc<Mutex<Told>>,
}

impl ApiServer {
    pub(super) fn start() -> Self {
        let place = tempfile::tempdir().unwrap();
        let config = serving(&place);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let told = Arc::new(Mutex::new(Told { token: "first".to_owned(), ..Told::default() }));
        let server = Self { place, address, told: Arc::clone(&told) };
        server.write_token("first");
        thread::spawn(move || {
            for socket in listener.incoming() {
                let (config, told) = (Arc::clone(&config), Arc::clone(&told));
                thread::spawn(move || {
                    let connection = rustls::ServerConnection::new(config).unwrap();
                    // A client that goes away has had enough.
                    let _ = serve(rustls::StreamOwned::new(connection, socket.unwrap()), &told);
                });
            }
        });
        server
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap()
    }

    pub(super) fn says(&self, path: &str, status: u16, body: &Value) {
        self.told().answers.insert(path.to_owned(), (status, body.clone()));
    }

    /// Takes no other token from now on.
    pub(super) fn expects(&self, token: &str) {
        token.clone_into(&mut self.told().token);
    }

    pub(super) fn questions(&self) -> usize {
        self.told().questions
    }

    pub(super) fn refused(&self) -> usize {
        self.told().refused
    }

    pub(super) fn patches(&self) -> Vec<Value> {
        self.told().patches.clone()
    }

    /// As the installer writes it.
    pub(super) fn write_token(&self, token: &str) {
        let kubeconfig = serde_json::json!({
            "clusters": [{"cluster": {"server": self.address, "certificate-authority": "ca.crt"}}],
            "users": [{"user": {"token": token}}],
        });
        fs::write(self.place.path().join("new"), kubeconfig.to_string()).unwrap();
        fs::rename(self.place.path().join("new"), self.kubeconfig()).unwrap();
        fs::write(self.place.path().join("token"), token).unwrap();
    }

    pub(super) fn kubeconfig(&self) -> String {
        self.place.path().join("kubeconfig").display().to_string()
    }
}

/// A root in `ca.crt`, and a certificate it signed for loopback.
fn serving(place: &TempDir) -> Arc<rustls::ServerConfig> {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_certificate = root.self_signed(&root_key).unwrap();
    fs::write(place.path().join("ca.crt"), root_certificate.pem()).unwrap();
    let issuer = Issuer::new(root, root_key);
    let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap())
}

fn serve(mut stream: impl Read + Write, told: &Mutex<Told>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let mut body = vec![0; field("content-length").map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body)?;
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, answer) = {
        let mut told = told.lock().unwrap();
        told.questions += 1;
        let absent = (404, serde_json::json!({"kind": "Status", "message": format!("{path} not found")}));
        if field("authorization") == Some(format!("Bearer {}", told.token)) {
            if method == "PATCH" {
                assert_eq!(field("content-type").as_deref(), Some("application/json-patch+json"));
                told.patches.push(serde_json::from_slice(&body).unwrap());
            }
            told.answers.get(path).cloned().unwrap_or(absent)
        } else {
            told.refused += 1;
            (401, serde_json::json!({"kind": "Status", "message": "Unauthorized"}))
        }
    };
    let answer = answer.to_string();
    let length = answer.len();
    write!(stream, "HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{answer}")?;
    stream.flush()
}

/// A node's directories.
pub(super) struct Node(TempDir);

impl Node {
    pub(super) fn new(server: &ApiServer) -> Self {
        let place = tempfile::tempdir().unwrap();
        for directory in ["bin", "net.d"] {
            fs::create_dir(place.path().join(directory)).unwrap();
        }
        // As a pod of ours has it.
        fs::write(server.place.path().join("namespace"), "weft-system").unwrap();
        Self(place)
    }

    pub(super) fn bin(&self, name: &str) -> PathBuf {
        self.0.path().join("bin").join(name)
    }

    pub(super) fn conf(&self, name: &str) -> PathBuf {
        self.0.path().join("net.d").join(name)
    }

    pub(super) fn install(&self, server: &ApiServer) -> Installer {
        Installer(self.command("install", server).spawn().unwrap())
    }

    /// What keeps pods that start now from being captured; nothing where they are.
    pub(super) fn lacking(&self, server: &ApiServer) -> Option<String> {
        let checked = self.command("check", server).output().unwrap();
        (!checked.status.success()).then(|| String::from_utf8(checked.stderr).unwrap())
    }

    fn command(&self, verb: &str, server: &ApiServer) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(["cni", verb, "--node-name", "node-1"])
            .arg("--host-bin")
            .arg(self.bin(""))
            .arg("--host-conf")
            .arg(self.conf(""))
            .arg("--service-account")
            .arg(server.place.path())
            .args(["--api-server", &server.address])
            .stdout(Stdio::null());
        command
    }
}

/// An installer that runs; killed when dropped.
pub(super) struct Installer(Child);

impl Installer {
    /// SIGTERM, and waits for the end.
    pub(super) fn terminate(&mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Installer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
