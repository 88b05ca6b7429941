//! The life of a mesh: one on a directory, and nothing left of it, however it ends.

use std::collections::BTreeSet;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use nix::sys::signal::Signal;
use weft_tests::mesh::command::{PATIENCE, Running, run, until};
use weft_tests::mesh::machine::{has_namespaces, namespaces, processes};
use weft_tests::mesh::{Ground, How, Mesh};

const SHOP: &str = r#"
services:
  caller: {command: [sleep, infinity]}
  orders: {command: ["<weft>", shop, inventory], port: 80, targetPort: 8080, protocol: http, replicas: 2}
"#;

/// What a mesh could leave on the machine itself.
#[derive(Debug, PartialEq, Eq)]
struct Machine {
    links: String,
    named_namespaces: String,
    tables: String,
}

impl Machine {
    fn now() -> Self {
        let said = |words: &[&str]| {
            let mut command = Command::new(words[0]);
            command.args(&words[1..]);
            run(command).ok()
        };
        // Names alone: counters and states of what others use change all the time.
        let links = said(&["ip", "-o", "link"]);
        let links = links.lines().filter_map(|line| line.split(": ").nth(1)).collect::<Vec<_>>().join(" ");
        Self { links, named_namespaces: said(&["ip", "netns"]), tables: said(&["nft", "list", "tables"]) }
    }
}

/// Namespaces a mesh has made for itself.
fn own_namespaces(ground: &Ground) -> BTreeSet<String> {
    let ours = namespaces(std::process::id());
    let all = ground.processes().into_iter().flat_map(|process| namespaces(process.pid));
    all.filter(|namespace| !ours.contains(namespace)).collect()
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| {
            let inner =
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) { below(&entry.path()) } else { Vec::new() };
            std::iter::once(entry.path()).chain(inner)
        })
        .collect()
}

fn sockets(ground: &Ground) -> Vec<PathBuf> {
    let is_socket = |path: &PathBuf| path.symlink_metadata().is_ok_and(|data| data.file_type().is_socket());
    below(ground.path()).into_iter().filter(is_socket).collect()
}

/// Fails unless no process is left, nobody is in the namespaces, and no file holds one of them.
fn nothing_runs(ground: &Ground, made: &BTreeSet<String>) {
    until("every process is gone", || ground.processes().is_empty().then_some(()));
    let used = processes().into_iter().find_map(|process| {
        let of = namespaces(process.pid).into_iter().find(|namespace| made.contains(namespace))?;
        Some((process, of))
    });
    assert_eq!(used, None, "somebody is in a namespace of the mesh");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc can be read");
    assert!(!made.iter().any(|namespace| mounts.contains(namespace.as_str())), "a namespace is mounted: {mounts}");
}

#[test]
fn a_second_mesh_on_the_same_directory_is_refused_in_one_line() {
    if !has_namespaces() {
        return;
    }
    let mesh = Mesh::start(SHOP);
    let second = run(mesh.ground().up());
    assert_eq!(second.status.code(), Some(1), "{second}");
    let expected = format!("a mesh is running there already (process {})", mesh.supervisor());
    assert!(second.stderr.contains(&expected) && second.stderr.trim().lines().count() == 1, "{second}");
    assert_eq!(second.stdout, "");
    // The first one has not noticed.
    assert_eq!(mesh.current(), mesh.ready());
    mesh.exec("caller-1", &["curl", "-fsS", "--max-time", "30", "http://orders/stock"]).ok();
}

#[test]
fn nothing_is_left_of_a_mesh_however_it_ends_and_it_can_start_again() {
    if !has_namespaces() {
        return;
    }
    let machine = Machine::now();
    let ground = Arc::new(Ground::new(How::Root, SHOP));
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGINT] {
        let mesh = Mesh::on(&ground);
        mesh.exec("caller-1", &["curl", "-fsS", "--max-time", "30", "http://orders/stock"]).ok();
        let made = own_namespaces(&ground);
        // The fabric's network, and network, mounts, processes and name of each of three pods.
        assert!(made.len() > 3 * 4, "{made:?}");
        assert!(!sockets(&ground).is_empty());
        let (_, ended) = mesh.stop(signal);
        nothing_runs(&ground, &made);
        assert_eq!(below(&ground.temporary()), Vec::<PathBuf>::new(), "{signal}: temporary files");
        assert_eq!(Machine::now(), machine, "{signal}");
        if signal != Signal::SIGKILL {
            assert!(ended.status.success(), "{signal}: {ended}");
            assert_eq!(sockets(&ground), Vec::<PathBuf>::new(), "{signal}: sockets");
        }
    }
}

#[test]
fn a_temporary_directory_goes_with_its_mesh_and_a_killed_ones_with_the_next() {
    if !has_namespaces() {
        return;
    }
    let ground = Ground::new(How::Root, "services: {caller: {command: [sleep, infinity]}}");
    let file = ground.path().join("mesh.yaml").display().to_string();
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let up = Running::start(ground.weft(&["up", &file]));
        up.says("1 of 1 workloads are ready");
        let directories: Vec<_> = std::fs::read_dir(ground.temporary()).unwrap().flatten().collect();
        assert_eq!(directories.len(), 1, "only that of the running mesh: {directories:?}");
        up.signal(signal);
        up.finish(PATIENCE);
        until("every process is gone", || ground.processes().is_empty().then_some(()));
    }
    assert_eq!(below(&ground.temporary()), Vec::<PathBuf>::new());
}
