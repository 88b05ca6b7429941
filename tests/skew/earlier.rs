//! The versions before this one: which they are, and their programs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use weft_tests::process::{Programs, command, run_within};

const LIST: &str = include_str!("versions");
/// Two versions on a slow machine, with all that they depend on.
const BUILD: Duration = Duration::from_mins(30);
/// How the build ends where the history does not have a version.
const NO_HISTORY: i32 = 3;

/// A version before this one.
#[derive(Debug, Clone)]
pub(crate) struct Earlier {
    pub(crate) version: &'static str,
    pub(crate) programs: Programs,
}

/// All of them, the oldest first, built if they are not; none, and a word why, where the history is missing.
pub(crate) fn all() -> &'static [Earlier] {
    static BUILT: OnceLock<Vec<Earlier>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let finished = run_within(command("bash").arg(root.join("tests/skew/build")), BUILD);
        if finished.code == Some(NO_HISTORY) {
            // Past the capture of test output: a test that did not run must not look like one that did.
            writeln!(std::io::stderr(), "skipped: versions before this one: {}", finished.stderr.trim()).ok();
            return Vec::new();
        }
        finished.succeeded();
        let place = |version| -> PathBuf { root.join("target/skew").join(version) };
        let of = |version| Earlier { version, programs: Programs::within(&place(version)) };
        listed().map(|(version, _)| of(version)).collect()
    })
}

/// Versions and commits.
fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| line.split_once(' ').expect("a line is VERSION COMMIT"))
}

/// Major and minor.
fn minor(version: &str) -> (u64, u64) {
    let mut numbers = version.split('.').map(|number| number.parse().expect("versions are numbers"));
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn the_two_minor_versions_before_this_one_are_listed() {
    let (major, this) = minor(env!("CARGO_PKG_VERSION"));
    let found: Vec<_> = listed().map(|(version, _)| minor(version)).collect();
    assert_eq!(found, [(major, this - 2), (major, this - 1)], "tests/skew/versions");
}
