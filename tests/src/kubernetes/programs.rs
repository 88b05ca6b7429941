//! Where the programs of Kubernetes and the definitions of the Gateway API are: what `tests/kubernetes/servers/build` made, or
//! `KUBEBUILDER_ASSETS`.

use std::path::{Path, PathBuf};

/// A release of Kubernetes that the tests run against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The newest that the module proxy has. All servers are of it.
    Newest,
    /// The oldest that we support. The API server is of it, everything else of the newest.
    Oldest,
}

impl Version {
    /// As its module pins it, `1.36.3`.
    pub fn number(self) -> &'static str {
        let module = match self {
            Self::Newest => include_str!("../../kubernetes/servers/newest/go.mod"),
            Self::Oldest => include_str!("../../kubernetes/servers/oldest/go.mod"),
        };
        let version = module.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"));
        version.expect("the module names Kubernetes in a line of its own")
    }

    pub fn api_server(self) -> PathBuf {
        match self {
            Self::Newest => newest("kube-apiserver"),
            Self::Oldest => built(self, "kube-apiserver"),
        }
    }
}

pub fn etcd() -> PathBuf {
    newest("etcd")
}

pub fn controller_manager() -> PathBuf {
    newest("kube-controller-manager")
}

pub fn kubectl() -> PathBuf {
    newest("kubectl")
}

/// A program of the newest release. What a user of envtest has comes first, and need not be everything.
fn newest(name: &str) -> PathBuf {
    let given = std::env::var_os("KUBEBUILDER_ASSETS").map(|assets| Path::new(&assets).join(name));
    given.filter(|path| path.exists()).unwrap_or_else(|| built(Version::Newest, name))
}

/// The definitions of the Gateway API's routes that services may have: HTTPRoute and TLSRoute.
pub fn gateway_api() -> [PathBuf; 2] {
    let module = include_str!("../../kubernetes/servers/gateway-api/go.mod");
    let version = module.lines().find_map(|line| line.strip_prefix("require sigs.k8s.io/gateway-api v"));
    let directory = format!("gateway-api-{}", version.expect("the module names the Gateway API in a line of its own"));
    ["httproutes.yaml", "tlsroutes.yaml"].map(|name| in_target(&directory, name))
}

fn built(version: Version, name: &str) -> PathBuf {
    in_target(version.number(), name)
}

fn in_target(directory: &str, name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/kubernetes").join(directory);
    let path = directory.join(name);
    assert!(path.exists(), "{} is missing: `bash tests/kubernetes/servers/build` builds it", path.display());
    path
}
