//! Secrets stay where they belong, and who has the wrong one is told so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use weft_tests::process::pair::Pair;
use weft_tests::process::plane::Plane;
use weft_tests::process::sidecar::{Settings, Sidecar};
use weft_tests::process::{files_below, holds, until, wall};

/// Waits until both sides have said why there is no certificate.
fn refused(plane: &Plane, proxy: &Sidecar, by_plane: &[&str], by_proxy: &str) {
    until("the control plane names the refusal", || {
        let log = plane.log();
        let said = |line: &str| line.contains("not signed") && by_plane.iter().all(|part| line.contains(part));
        holds(log.lines().any(said), || log.clone())
    });
    until("the proxy names the refusal", || {
        let log = proxy.log();
        let said = |line: &str| line.contains("no certificate yet") && line.contains(by_proxy);
        holds(log.lines().any(said), || log.clone())
    });
    let answer = proxy.ask("/ready").unwrap();
    assert!(answer.status == 503 && answer.body.contains("certificate"), "{answer:?}");
    assert!(plane.proxy(&proxy.workload()).is_none(), "it got configuration");
}

fn token_file(place: &Path, text: &str) -> PathBuf {
    let path = place.join("given.token");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_token_nobody_made_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let unknown = format!("weft-join-{}", "0f".repeat(32));
    let proxy = Settings::with_token("client-1", "client", token_file(place.path(), &unknown)).start(&plane);
    let identity = "identity=spiffe://weft.local/ns/default/sa/client";
    refused(&plane, &proxy, &[identity, "the join token is not known here"], "the join token is not known here");
    assert!(!plane.log().contains(&unknown) && !proxy.log().contains(&unknown));
}

#[test]
fn a_token_of_another_account_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let proxy = Settings::with_token("client-1", "client", plane.token("orders")).start(&plane);
    let reason = "the join token is for ns/default/sa/orders, not for the identity asked for";
    refused(&plane, &proxy, &["sa/client", "PermissionDenied", reason], reason);
}

#[test]
fn an_expired_token_is_refused_by_name() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let token = plane.token_of("client", "2s");
    // It is good as long as it lives, and what was got with it longer.
    let early = Settings::with_token("client-0", "client", token.clone()).start(&plane);
    early.ready();
    let end = wall() + Duration::from_secs(3);
    until("the token has expired", || holds(wall() > end, || "it is good".to_owned()));
    let proxy = Settings::with_token("client-1", "client", token).start(&plane);
    refused(&plane, &proxy, &["sa/client", "Unauthenticated", "has expired"], "the join token has expired");
    assert_eq!(early.ask("/ready").unwrap().status, 200);
}

#[test]
fn a_token_file_that_is_missing_or_empty_is_named_by_the_proxy() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    let missing = place.path().join("nowhere");
    for (path, says) in [(missing, "No such file"), (token_file(place.path(), "\n"), "the file is empty")] {
        let proxy = Settings::with_token("client-1", "client", path.clone()).start(&plane);
        until("the file is named", || {
            let log = proxy.log();
            let said = |line: &str| line.contains(path.to_str().unwrap()) && line.contains(says);
            holds(log.lines().any(said), || log.clone())
        });
    }
}

#[test]
fn a_proxy_trusts_no_control_plane_outside_its_bundle() {
    let place = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    let (plane, stranger) = (Plane::start(place.path()), Plane::start(other.path()));
    let settings = Settings::new(&plane, "client-1", "client").set("WEFT_CONTROL_PLANE", stranger.address());
    let proxy = settings.start(&plane);
    until("the proxy says that it does not trust it", || {
        let log = proxy.log();
        let said = |line: &str| line.contains("no certificate yet") && line.contains("tls with the control plane at");
        holds(log.lines().any(said), || log.clone())
    });
    assert!(!stranger.log().contains("not signed"), "the token was sent to a stranger: {}", stranger.log());
}

/// Base64 without its lines.
fn body_of(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with("-----")).collect()
}

#[test]
fn tokens_and_keys_are_found_nowhere_but_in_their_files() {
    let place = tempfile::tempdir().unwrap();
    let state = place.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let mut pair = Pair::start_with(place.path(), &[], |settings| {
        // The most a proxy can be made to say.
        settings.set("WEFT_LOG", "trace").set("WEFT_STATE_DIR", state.display())
    });
    assert_eq!(pair.curl("/").0, 200);
    let mut outputs = Vec::new();
    for arguments in [
        &["status", "-o", "json"][..],
        &["get", "-A", "-o", "yaml"],
        &["proxy", "config", "client-1"],
        &["proxy", "config", "echo-1"],
    ] {
        let finished = pair.plane.weft(arguments);
        outputs.push((format!("{arguments:?}"), format!("{}{}", finished.stdout, finished.stderr)));
    }
    for proxy in [&pair.client, &pair.server] {
        for path in ["/config_dump", "/metrics", "/ready", "/nothing"] {
            outputs.push((path.to_owned(), proxy.ask(path).unwrap().body));
        }
        for what in ["cmdline", "environ"] {
            let path = format!("/proc/{}/{what}", proxy.process.id());
            outputs.push((path.clone(), String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()));
        }
    }
    // A life with everything in it: the control plane dies and is back, a proxy is ended, another is refused.
    pair.plane.kill();
    pair.plane.start_again();
    let thief = Settings::with_token("thief-1", "thief", place.path().join("echo.token")).set("WEFT_LOG", "trace");
    let thief = thief.start(&pair.plane);
    refused(&pair.plane, &thief, &["sa/thief"], "the join token is for");
    pair.client.process.signal(nix::sys::signal::Signal::SIGTERM);
    pair.client.process.ended();

    let read = |name: &str| std::fs::read_to_string(place.path().join(name)).unwrap().trim().to_owned();
    let root = body_of(&read("data/ca/root.key"));
    let mut secrets = vec![("echo's token", read("echo.token")), ("client's token", read("client.token"))];
    secrets.push(("the root's key", root[..60].to_owned()));
    secrets.push(("a key in PEM", "PRIVATE KEY".to_owned()));
    // How every P-256 key begins in PKCS#8: version, algorithm, curve.
    secrets.push(("a key in PKCS#8 as base64", "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg".to_owned()));
    let pkcs8 =
        b"\x30\x81\x87\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    assert!(secrets[0].1.starts_with("weft-join-") && secrets[0].1.len() > 60);

    let own = ["echo.token", "client.token", "data/ca/root.key"].map(|name| place.path().join(name));
    let mut searched = 0;
    let files = files_below(place.path()).into_iter().filter(|(path, _)| !own.contains(path));
    let outputs = outputs.into_iter().map(|(name, text)| (PathBuf::from(name), text.into_bytes()));
    for (path, content) in files.chain(outputs) {
        searched += 1;
        let holds = |needle: &[u8]| content.windows(needle.len()).any(|window| window == needle);
        for (what, secret) in &secrets {
            assert!(!holds(secret.as_bytes()), "{what} is in {}", path.display());
        }
        assert!(!holds(pkcs8), "a key in PKCS#8 is in {}", path.display());
    }
    assert!(searched > 20 && pair.server.log().len() > 10_000, "{searched} files and outputs");
    // The search finds what is there.
    let root = std::fs::read_to_string(place.path().join("data/ca/root.key")).unwrap();
    assert!(root.contains("PRIVATE KEY") && body_of(&root).starts_with(&secrets[4].1[..20]), "the markers are wrong");
}
