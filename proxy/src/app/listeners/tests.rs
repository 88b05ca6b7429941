use std::collections::HashSet;
use std::os::linux::fs::MetadataExt;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    settings: Option<Settings>,
}

/// Settings that listen in these places; the rest is what every proxy must be told.
fn settings(more: &[&str]) -> Settings {
    let usual = ["weft-proxy", "--workload=w", "--control-plane=c:1", "--bundle=b"];
    let arguments = usual.iter().chain(more).copied();
    Program::try_parse_from(arguments).unwrap().settings.unwrap()
}

/// Which sockets these are, whatever their numbers here.
fn sockets(inherited: &[Inherited]) -> HashSet<u64> {
    inherited.iter().map(|inherited| socket(&inherited.socket)).collect()
}

fn socket(socket: &impl AsFd) -> u64 {
    let file = std::fs::File::from(socket.as_fd().try_clone_to_owned().unwrap());
    file.metadata().unwrap().st_ino()
}

fn own(listeners: &Listeners) -> HashSet<u64> {
    sockets(&listeners.copies().unwrap())
}

#[tokio::test]
async fn every_listener_is_found_again_whatever_the_number_of_workers() {
    let place = tempfile::tempdir().unwrap();
    let admin = format!("--admin=127.0.0.1:0,unix:{}", place.path().join("admin.sock").display());
    let with = |workers: &str| {
        settings(&[
            "--outbound=127.0.0.1:0=10.9.0.1:80,127.0.0.1:0=10.9.0.2:80",
            "--inbound=127.0.0.1:0",
            "--health=127.0.0.1:0",
            &admin,
            workers,
        ])
    };
    let three = Listeners::open(&with("--workers=3"), Vec::new()).unwrap();
    assert_eq!(own(&three).len(), 3 * 3 + 1 + 2);
    for workers in [1, 3, 5_usize] {
        let next = Listeners::open(&with(&format!("--workers={workers}")), three.copies().unwrap()).unwrap();
        let sockets = own(&next);
        assert!(sockets.is_superset(&own(&three)), "a socket is lost, with what the kernel queues on it");
        assert_eq!(sockets.len(), 3 * workers.max(3) + 1 + 2);
        // What further workers have is of the same group.
        let ports: HashSet<_> =
            next.bound.iter().flat_map(|bound| &bound.sockets).map(|s| s.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 3);
        assert_eq!(next.inbound_port(), three.inbound_port());
    }
}

#[tokio::test]
async fn what_the_settings_do_not_name_is_closed_and_what_nobody_had_is_bound() {
    let usual = ["--workers=1", "--admin=127.0.0.1:0"];
    let before = settings(&[&usual[..], &["--outbound=127.0.0.1:0=10.9.0.1:80", "--inbound=127.0.0.1:0"]].concat());
    let before = Listeners::open(&before, Vec::new()).unwrap();
    let given = before.copies().unwrap();
    let old_port = before.bound[0].port().unwrap();
    drop(before);
    // Another destination behind the same address is another listener.
    let after = settings(&[&usual[..], &["--outbound=127.0.0.1:0=10.9.0.9:80", "--inbound=127.0.0.1:0"]].concat());
    let given_sockets = sockets(&given);
    let after = Listeners::open(&after, given).unwrap();
    assert_eq!(own(&after).intersection(&given_sockets).count(), 2, "inbound and admin");
    assert!(std::net::TcpStream::connect(("127.0.0.1", old_port)).is_err(), "nobody accepts there any more");
    assert_ne!(after.bound[0].port(), Some(old_port));
}

#[tokio::test]
async fn what_is_no_listening_socket_is_not_taken_for_one() {
    let settings = settings(&["--workers=1", "--admin=127.0.0.1:0", "--outbound=127.0.0.1:0", "--inbound=127.0.0.1:0"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connection = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let name = name_of(Direction::Outbound, "127.0.0.1:0".parse().unwrap(), None);
    let file = OwnedFd::from(tempfile::tempfile().unwrap());
    let wrong = [Inherited { name: name.clone(), socket: connection.into() }, Inherited { name, socket: file }];
    let listeners = Listeners::open(&settings, wrong.into()).unwrap();
    assert_eq!(own(&listeners).len(), 3);
    assert!(SockRef::from(&listeners.bound[0].sockets[0]).is_listener().unwrap());
}
