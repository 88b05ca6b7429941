//! Random lives of one network namespace: several processes install, remove and are killed in the middle of it.
//!
//! A program of its own: system calls of other tests would be interrupted by the many processes that end here.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

#[path = "../src/capture/tests/namespace.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod namespace;

use std::env;
use std::process::{Command, Stdio};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use nix::unistd::geteuid;
use weft_proxy::capture::{Backend, CaptureError, Exempt, Rules, install_by, installed, remove};

use namespace::{Namespace, skip, with_rights_as};

/// Lives of a namespace for each backend.
const LIVES: u64 = 1000;
/// Set in the copy of this program that does one step and may be killed meanwhile.
const STEP: &str = "WEFT_TEST_CAPTURE_STEP";
const NAME: &str = "a_thousand_interleavings_of_installs_removals_and_crashes_end_in_the_same_rules";
/// Longer than a step takes on an idle machine: some are killed, some are not.
const LONGEST_LIFE: Duration = Duration::from_millis(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Remove,
    Install,
    InstallOthers,
}

#[derive(Debug, Clone, Copy)]
struct Step {
    verb: Verb,
    backend: Backend,
    /// As a process of its own that is killed after this time.
    killed_after: Option<Duration>,
}

/// Rules under which this process is the workload.
fn as_workload() -> Rules {
    Rules { exempt: Exempt::Uid(14001), ..Rules::default() }
}

fn others() -> Rules {
    Rules {
        exclude_outbound_ports: vec![22],
        exclude_inbound_ports: vec![15020],
        exempt: Exempt::Uid(geteuid().as_raw()),
        ..Rules::default()
    }
}

impl Step {
    fn random(chance: &mut fastrand::Rng, usual: Backend) -> Self {
        let verb = [Verb::Remove, Verb::Install, Verb::InstallOthers][chance.usize(..3)];
        // Now and then somebody thinks that this is another kernel.
        let other = if usual == Backend::Nftables { Backend::IptablesLegacy } else { Backend::Nftables };
        let backend = if chance.u8(..8) == 0 { other } else { usual };
        let killed_after = chance.bool().then(|| Duration::from_micros(chance.u64(..LONGEST_LIFE.as_micros() as u64)));
        Self { verb, backend, killed_after }
    }

    fn perform(self) {
        let outcome = match self.verb {
            Verb::Remove => remove(),
            Verb::Install => install_by(&as_workload(), Some(self.backend)).map(drop),
            Verb::InstallOthers => install_by(&others(), Some(self.backend)).map(drop),
        };
        match outcome {
            Ok(()) | Err(CaptureError::NoProgram { .. } | CaptureError::Unsupported { .. }) => {}
            Err(error) => panic!("{self:?}: {error}"),
        }
    }

    fn run(self) {
        let Some(time) = self.killed_after else { return self.perform() };
        let mut process = Command::new(env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(STEP, format!("{:?} {}", self.verb, self.backend))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::park_timeout(time);
        let _ = process.kill();
        process.wait().unwrap();
    }

    /// The step that this process was made for.
    fn ours() -> Option<Self> {
        let text = env::var(STEP).ok()?;
        let (verb, backend) = text.split_once(' ')?;
        let verb = [Verb::Remove, Verb::Install, Verb::InstallOthers].into_iter().find(|v| format!("{v:?}") == verb)?;
        let backend = [Backend::Nftables, Backend::IptablesLegacy].into_iter().find(|b| b.to_string() == backend)?;
        Some(Self { verb, backend, killed_after: None })
    }
}

/// Everything the kernel has in either interface, without numbers of packets and times.
fn everything() -> String {
    let mut text = String::new();
    for line in [
        vec!["nft", "list", "ruleset"],
        vec!["iptables-legacy-save", "-t", "nat"],
        vec!["ip6tables-legacy-save", "-t", "nat"],
    ] {
        let Ok(output) = Command::new(line[0]).args(&line[1..]).output() else { continue };
        for line in String::from_utf8(output.stdout).unwrap().lines().filter(|line| !line.starts_with('#')) {
            text.push_str(line.split(" [").next().unwrap_or_default());
            text.push('\n');
        }
    }
    text
}

/// Several processes at once, then one that installs: the end is the same whatever was before.
fn live(seed: u64, backend: Backend, pristine: &str, empty: &str) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let start = Arc::new(Barrier::new(2));
    let actors: Vec<_> = (0..2)
        .map(|_| {
            let steps: Vec<Step> = (0..chance.u8(1..3)).map(|_| Step::random(&mut chance, backend)).collect();
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                steps.into_iter().for_each(Step::run);
            })
        })
        .collect();
    for actor in actors {
        assert!(actor.join().is_ok(), "seed {seed}");
    }
    install_by(&as_workload(), Some(backend)).unwrap();
    assert!(installed().unwrap().is_some_and(|found| found.is(&as_workload())), "seed {seed}: {}", everything());
    if seed.is_multiple_of(10) {
        assert_eq!(everything(), pristine, "seed {seed}");
        remove().unwrap();
        assert_eq!(everything(), empty, "seed {seed}");
    }
}

#[test]
fn a_thousand_interleavings_of_installs_removals_and_crashes_end_in_the_same_rules() {
    if let Some(step) = Step::ours() {
        return step.perform();
    }
    with_rights_as(NAME, || {
        for backend in [Backend::Nftables, Backend::IptablesLegacy] {
            match Namespace::new().run(move || install_by(&Rules::default(), Some(backend))) {
                Ok(_) => live_often(backend),
                Err(CaptureError::NoProgram { .. } | CaptureError::Unsupported { .. }) => {
                    skip("a backend that is not there");
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
}

/// All lives, in as many namespaces at once as there are processors.
fn live_often(backend: Backend) {
    let workers = thread::available_parallelism().map_or(1, usize::from) as u64;
    let threads: Vec<_> = (0..workers)
        .map(|worker| {
            thread::spawn(move || {
                Namespace::new().run(move || {
                    // Both interfaces have been looked at: a table that was never asked for is not shown.
                    let look = |verb| Step { verb, backend, killed_after: None }.perform();
                    everything();
                    look(Verb::Install);
                    let pristine = everything();
                    look(Verb::Remove);
                    let empty = everything();
                    for seed in (0..LIVES).filter(|seed| seed % workers == worker) {
                        live(seed, backend, &pristine, &empty);
                    }
                });
            })
        })
        .collect();
    for thread in threads {
        assert!(thread.join().is_ok(), "see above, by {backend}");
    }
}
