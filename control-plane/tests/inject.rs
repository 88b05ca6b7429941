//! `weft inject`, as its users call it.

use std::io::{BufRead as _, Write as _};
use std::process::{Command, Output, Stdio};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: a}]}\n";
const BUNDLE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";

fn weft(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weft starts");
    // It may have ended without reading.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    child.wait_with_output().expect("weft ends")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn manifests_from_standard_input_come_out_with_proxies() {
    let place = tempfile::tempdir().expect("a directory");
    let bundle = place.path().join("bundle.pem");
    std::fs::write(&bundle, BUNDLE).expect("a file");
    let bundle = bundle.to_str().expect("a path");
    let done = weft(&["inject", "-f", "-", "--bundle", bundle, "--capture", "cni"], POD);
    assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), ""));
    let once = text(&done.stdout);
    assert!(once.contains("- name: weft-proxy\n") && !once.contains("weft-init"), "{once}");
    let again = weft(&["inject", "-f", "-", "--bundle", bundle, "--capture", "cni"], once);
    assert_eq!((again.status.code(), text(&again.stdout)), (Some(0), once));
    assert!(text(&again.stderr).contains("<stdin>:1: Pod a: not injected: it has its proxy already"), "{again:?}");

    let json = weft(&["inject", "-f", "-", "--bundle", bundle, "-o", "json"], POD);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(value["spec"]["initContainers"][0]["name"], "weft-init");

    let bad = weft(
        &["inject", "-f", "-", "--bundle", bundle],
        &format!("{POD}---\n{}", POD.replace("image: a", "image: [a]")),
    );
    assert_eq!((bad.status.code(), text(&bad.stdout)), (Some(1), ""), "all or nothing");
    assert!(text(&bad.stderr).contains("<stdin>:6: Pod a: `spec.containers[0].image`"), "{bad:?}");
}

/// An API server that answers every request with this, and tells what was asked for first.
fn api_server(status: &'static str, body: String) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (asked, first_lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let mut lines = std::io::BufReader::new(&stream).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            // The test fails by what comes of it.
            let _ = (&stream).write_all(answer.as_bytes());
            let _ = asked.send(first);
        }
    });
    (port, first_lines)
}

#[test]
fn the_roots_of_a_cluster_are_read_by_its_kubeconfig() {
    let place = tempfile::tempdir().expect("a directory");
    let kubeconfig = place.path().join("config");
    let against = |port: u16| {
        let file = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: a, context: {{cluster: c, user: u}}}}]\n"
        );
        std::fs::write(&kubeconfig, file).expect("a file");
        weft(&["inject", "-f", "-", "--kubeconfig", kubeconfig.to_str().expect("a path")], POD)
    };
    let map = |data: serde_json::Value| {
        serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "weft-bundle"}, "data": data})
            .to_string()
    };
    let (port, asked) = api_server("200 OK", map(serde_json::json!({"bundle.pem": BUNDLE})));
    let done = against(port);
    assert_eq!((done.status.code(), text(&done.stderr)), (Some(0), ""));
    assert!(text(&done.stdout).contains("MIIB"), "{done:?}");
    let path = "GET /api/v1/namespaces/weft-system/configmaps/weft-bundle HTTP/1.1";
    assert_eq!(asked.recv().expect("a request"), path);

    let (port, _asked) = api_server("200 OK", map(serde_json::json!({})));
    let empty = against(port);
    assert!(empty.status.code() == Some(1) && text(&empty.stderr).contains("it holds no certificate"), "{empty:?}");
    let missing = serde_json::json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
        "message": "configmaps \"weft-bundle\" not found"});
    let (port, _asked) = api_server("404 Not Found", missing.to_string());
    let missing = against(port);
    assert!(
        missing.status.code() == Some(1) && text(&missing.stderr).contains("has no ConfigMap weft-system/weft-bundle"),
        "{missing:?}"
    );
}

#[test]
fn without_roots_or_files_nothing_is_injected() {
    let none = weft(&["inject", "-f", "-"], POD);
    assert_eq!((none.status.code(), text(&none.stdout)), (Some(1), ""));
    assert!(text(&none.stderr).contains("--kubeconfig") && text(&none.stderr).contains("--bundle"), "{none:?}");
    let empty = weft(&["inject", "-f", "-", "--bundle", "/dev/null"], POD);
    assert!(empty.status.code() == Some(1) && text(&empty.stderr).contains("no certificate"), "{empty:?}");
    for arguments in [
        &["inject"][..],
        &["inject", "-f", "-", "--bundle", "x", "--context", "y"],
        &["inject", "-f", "-", "--capture", "no"],
    ] {
        assert_eq!(weft(arguments, POD).status.code(), Some(2), "{arguments:?}");
    }
}
