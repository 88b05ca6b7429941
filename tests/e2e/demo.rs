//! The demo: lines for a pipe, a picture for a terminal, and nothing left.

use std::time::Duration;

use weft_tests::mesh::command::{PATIENCE, Running, command, until};
use weft_tests::mesh::machine::has_namespaces;
use weft_tests::mesh::{Ground, How};

/// The demo brings its own mesh; this is only where its files go.
fn ground() -> Ground {
    Ground::new(How::Root, "services: {}")
}

fn nothing_is_left(ground: &Ground) {
    until("every process is gone", || ground.processes().is_empty().then_some(()));
    assert_eq!(std::fs::read_dir(ground.temporary()).expect("the directory is ours").count(), 0, "temporary files");
}

#[test]
fn without_a_terminal_the_demo_prints_lines_and_a_summary() {
    if !has_namespaces() {
        return;
    }
    let ground = ground();
    let demo = Running::start(ground.weft(&["demo", "--for", "10s"])).finish(PATIENCE + Duration::from_secs(10));
    assert!(demo.status.success(), "{demo}");
    assert!(!demo.stdout.contains('\x1b'), "no colour and no cursor movements: {demo}");
    let (lines, summary) = demo.stdout.split_once("In 10 seconds:").unwrap_or_else(|| panic!("no summary: {demo}"));
    for edge in ["load -> frontend:80", "frontend -> orders:80", "orders -> inventory:80"] {
        let with_traffic = |line: &&str| line.contains(edge) && line.contains("mTLS yes");
        assert!(lines.lines().any(|line| with_traffic(&line)), "{edge}: {demo}");
    }
    for row in [["load", "frontend:80"], ["frontend", "orders:80"], ["orders", "inventory:80"]] {
        let requests = summary.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words.len() > 3 && words[..2] == row).then(|| words[2].replace(',', ""))
        });
        let requests: u64 = requests.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{row:?}: {demo}"));
        assert!(requests > 100, "{row:?}: {demo}");
    }
    for replica in ["orders-1", "orders-2", "orders-3"] {
        assert!(summary.contains(replica), "{replica}: {demo}");
    }
    nothing_is_left(&ground);
}

#[test]
fn on_a_terminal_the_demo_draws_a_table() {
    if !has_namespaces() {
        return;
    }
    let ground = ground();
    let weft = ground.weft(&[]);
    let mut script = command("script");
    let line = format!("stty cols 120 rows 50; exec {} demo --for 5s", ground.program().display());
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    for (name, value) in weft.get_envs() {
        match value {
            Some(value) => script.env(name, value),
            None => script.env_remove(name),
        };
    }
    script.env("TERM", "xterm-256color").env_remove("NO_COLOR");
    let demo = Running::start(script).finish(PATIENCE + Duration::from_secs(5));
    assert!(demo.status.success(), "{demo}");
    // Drawn, and drawn over: the cursor goes up and the old picture is erased.
    assert!(demo.stdout.matches("\x1b[J").count() >= 2 && demo.stdout.contains("A\r\x1b[J"), "{demo}");
    for word in ["SOURCE", "DESTINATION", "frontend", "orders-2", "█", "In 5 seconds:"] {
        assert!(demo.stdout.contains(word), "{word}: {demo}");
    }
    nothing_is_left(&ground);
}
