//! `weft inject`, as its users call it.

use std::io::Write as _;
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
