//! A control plane that cannot start says why in one line, and does no harm.

use std::fs::{Permissions, set_permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weft_tests::process::plane::{Plane, weft};
use weft_tests::process::{Finished, Port, files_below, run};

const DOCUMENT: &str = "\
apiVersion: weft.dev/v1alpha1
kind: Workload
metadata: {name: orders-1}
spec: {addresses: [10.97.0.5]}
";

/// Starts a control plane that is expected to fail.
fn refused(data: &Path, arguments: &[&str]) -> Finished {
    let port = Port::reserve();
    let listen = port.address().to_string();
    let own: &[&str] = if arguments.contains(&"--listen") { &[] } else { &["--listen", &listen] };
    run(weft(data).arg("control-plane").args(own).args(arguments))
}

/// One line with all of these parts, exit code 1.
#[track_caller]
fn told(finished: Finished, parts: &[&str]) {
    assert_eq!(finished.stdout, "");
    let refusal = finished.failed(1);
    assert_eq!(refusal.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{refusal}");
    assert!(refusal.lines().last().is_some_and(|line| line.starts_with("error: ")), "{refusal}");
    assert!(!refusal.contains("panicked"), "{refusal}");
    for part in parts {
        assert!(refusal.contains(part), "`{part}` is not said: {refusal}");
    }
}

#[test]
fn a_second_control_plane_on_a_directory_is_refused_and_the_first_goes_on() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    plane.apply(DOCUMENT);
    let pid = std::fs::read_to_string(plane.data().join("lock")).unwrap();
    let before: Vec<_> =
        files_below(&plane.data()).into_iter().filter(|(path, _)| !path.ends_with("store.redb")).collect();
    told(refused(&plane.data(), &[]), &["is in use by the control plane with pid", pid.trim(), "--data"]);
    let after: Vec<_> =
        files_below(&plane.data()).into_iter().filter(|(path, _)| !path.ends_with("store.redb")).collect();
    assert!(before == after, "the second one has changed files");
    plane.apply(&DOCUMENT.replace("orders", "carts"));
    assert_eq!(plane.stop().code(), Some(0));
    // With the first gone, the directory is free.
    plane.start_again();
    assert_eq!(plane.revision(), 2);
}

#[test]
fn a_port_in_use_is_named_with_the_way_out() {
    let place = tempfile::tempdir().unwrap();
    let port = Port::reserve();
    let _listening = TcpListener::bind(port.address()).unwrap();
    let address = port.address().to_string();
    let data = place.path().join("data");
    told(refused(&data, &["--listen", &address]), &["cannot listen for proxies on", &address, "with --listen"]);
    // The lock file alone may stay: to remove it would be a race with whoever comes next.
    let left: Vec<_> =
        files_below(&data).into_iter().map(|(path, _)| path).filter(|path| !path.ends_with("lock")).collect();
    assert!(left.is_empty(), "{left:?} was left behind");
}

#[test]
fn an_address_of_another_machine_is_named_with_the_way_out() {
    let place = tempfile::tempdir().unwrap();
    told(refused(&place.path().join("data"), &["--listen", "192.0.2.1:15010"]), &["192.0.2.1:15010", "--listen"]);
}

#[test]
fn a_directory_that_cannot_be_written_to_is_named_with_the_way_out() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    std::fs::write(&file, "").unwrap();
    let closed = place.path().join("closed");
    std::fs::create_dir(&closed).unwrap();
    set_permissions(&closed, Permissions::from_mode(0o500)).unwrap();
    // Nobody may make directories in /proc, not even root, whom permissions do not stop.
    let mut places = vec![file.join("data"), "/proc/weft/data".into()];
    if !nix::unistd::geteuid().is_root() {
        places.push(closed.join("data"));
        places.push(closed.clone());
    }
    for data in places {
        told(refused(&data, &[]), &[data.to_str().unwrap(), "choose a directory you may write to with --data"]);
        assert!(files_below(&data).is_empty());
    }
    assert!(files_below(&closed).is_empty());
}

#[test]
fn a_path_too_long_for_a_socket_is_told_before_anything_is_made() {
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("d".repeat(100));
    told(refused(&data, &[]), &["api.sock", "choose a shorter directory with --data"]);
    assert!(!data.exists(), "{:?}", files_below(&data).iter().map(|(path, _)| path).collect::<Vec<_>>());
}

#[test]
fn secrets_others_can_read_are_not_used_and_the_command_that_repairs_it_is_told() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    plane.token("orders");
    assert_eq!(plane.stop().code(), Some(0));
    for (name, mode) in [("root.key", 0o644), ("root.key", 0o640), ("tokens.json", 0o604)] {
        let path = plane.data().join("ca").join(name);
        set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let repair = format!("chmod go= {}", path.display());
        told(refused(&plane.data(), &[]), &["can be read or written by others", &format!("{mode:04o}"), &repair]);
        assert!(!plane.data().join("api.sock").exists());
        let repaired = run(weft_tests::process::command("sh").args(["-c", &repair]));
        repaired.succeeded();
    }
    plane.start_again();
}

#[test]
fn damaged_or_missing_files_are_named_and_nothing_is_made_up_for_them() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    plane.apply(DOCUMENT);
    assert_eq!(plane.stop().code(), Some(0));
    let data = plane.data();
    for (name, content, says) in [
        ("ca/root.key", None, "root.key is missing although"),
        ("ca/root.pem", None, "root.pem is missing although"),
        ("ca/root.key", Some(&b"no key"[..]), "root.key cannot be used"),
        ("ca/root.pem", Some(b"no certificate"), "root.pem cannot be used"),
        ("ca/tokens.json", Some(b"{"), "tokens.json cannot be used"),
        ("store.redb", Some(b"no database at all"), "store.redb"),
        ("store.redb", Some(&[7; 20_000]), "store.redb"),
    ] {
        let path = data.join(name);
        let good = std::fs::read(&path).ok();
        match content {
            None => std::fs::remove_file(&path).unwrap(),
            Some(content) => std::fs::write(&path, content).unwrap(),
        }
        if path.starts_with(data.join("ca")) && path.exists() {
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        told(refused(&data, &[]), &[says]);
        assert_eq!(std::fs::read(&path).ok().as_deref(), content, "{name} was touched");
        match good {
            Some(good) => std::fs::write(&path, good).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        if name == "ca/root.key" {
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
    }
    plane.start_again();
    assert_eq!(plane.revision(), 1, "put back, everything is there");
}

#[test]
fn another_trust_domain_than_that_of_the_directory_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    assert_eq!(plane.stop().code(), Some(0));
    told(refused(&plane.data(), &["--trust-domain", "shop.example"]), &["`weft.local`", "`shop.example`"]);
    told(refused(&place.path().join("new"), &["--trust-domain", "Shop!"]), &["`Shop!` is no trust domain"]);
}

#[test]
fn a_directory_of_documents_that_is_missing_is_named() {
    let place = tempfile::tempdir().unwrap();
    let missing = place.path().join("documents");
    let arguments = ["--config-dir", missing.to_str().unwrap()];
    told(refused(&place.path().join("data"), &arguments), &[missing.to_str().unwrap(), "--config-dir"]);
}

#[test]
fn what_is_stored_and_who_signs_survive_a_kill() {
    let place = tempfile::tempdir().unwrap();
    let mut plane = Plane::start(place.path());
    plane.apply(DOCUMENT);
    let (documents, bundle) = (plane.json(&["get"]), std::fs::read(plane.bundle()).unwrap());
    plane.kill();
    plane.start_again();
    assert_eq!(plane.json(&["get"]), documents);
    assert_eq!(std::fs::read(plane.bundle()).unwrap(), bundle);
    assert_eq!(plane.stop().code(), Some(0));
}

#[test]
fn what_is_private_in_the_data_directory_is_the_owners_alone() {
    let place = tempfile::tempdir().unwrap();
    let plane = Plane::start(place.path());
    plane.token("orders");
    for (name, mode) in
        [("ca", 0o700), ("ca/root.key", 0o600), ("ca/tokens.json", 0o600), ("api.sock", 0o600), ("bundle.pem", 0o644)]
    {
        let found = std::fs::metadata(plane.data().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}: {found:o}, not {mode:o}");
    }
}
