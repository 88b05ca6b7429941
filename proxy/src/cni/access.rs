//! By what the plugin asks the API server: a kubeconfig of its own beside its program, in JSON, which is YAML too.
//!
//! The plugin runs on the node and not in a pod: it has neither variables nor a mounted token. The installer writes down
//! what it has itself, again whenever that changes. The certificate authority stands in a file beside, as a kubeconfig
//! may have it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weft_proto::names;

/// Beside the program, wherever a node has that.
pub(super) const KUBECONFIG: &str = "weft-cni.kubeconfig";
pub(super) const AUTHORITY: &str = "weft-cni.ca.pem";

/// Where the API server is, whom to trust and who we are.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Access {
    /// `https://HOST:PORT`
    pub(super) server: String,
    /// In PEM form.
    pub(super) authority: String,
    pub(super) token: String,
}

/// Never the token.
impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{}: {problem}; the installer on this node (DaemonSet weft-cni) writes it anew", path.display())]
    Form { path: PathBuf, problem: &'static str },
}

fn read(path: PathBuf) -> Result<String, AccessError> {
    fs::read_to_string(&path).map_err(|source| AccessError::Read { path, source })
}

impl Access {
    /// What a pod's service account has.
    pub(super) fn of_service_account(directory: &Path, server: String) -> Result<Self, AccessError> {
        Ok(Self {
            server,
            authority: read(directory.join("ca.crt"))?,
            token: read(directory.join("token"))?.trim().to_owned(),
        })
    }

    /// Reads a kubeconfig that the installer wrote.
    pub(super) fn of_kubeconfig(path: &Path) -> Result<Self, AccessError> {
        let text = read(path.to_owned())?;
        let form = |problem| AccessError::Form { path: path.to_owned(), problem };
        let file: Value = serde_json::from_str(&text).map_err(|_| form("it is no JSON"))?;
        let word = |pointer| file.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let server = word("/clusters/0/cluster/server").ok_or_else(|| form("it names no server"))?;
        let token = word("/users/0/user/token").ok_or_else(|| form("it has no token"))?;
        let authority =
            word("/clusters/0/cluster/certificate-authority").ok_or_else(|| form("it names no authority"))?;
        let authority = read(path.parent().unwrap_or(Path::new("/")).join(authority))?;
        Ok(Self { server, authority, token })
    }

    /// The kubeconfig of this.
    pub(super) fn kubeconfig(&self) -> String {
        let name = names::CNI;
        let file = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.server, "certificate-authority": AUTHORITY}}],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        });
        format!("{file:#}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_installer_writes_the_plugin_reads() {
        let directory = tempfile::tempdir().unwrap();
        let account = directory.path().join("account");
        fs::create_dir(&account).unwrap();
        fs::write(account.join("token"), "secret\n").unwrap();
        fs::write(account.join("ca.crt"), "PEM").unwrap();
        let access = Access::of_service_account(&account, "https://10.96.0.1:443".to_owned()).unwrap();
        assert_eq!((access.token.as_str(), access.authority.as_str()), ("secret", "PEM"));
        let path = directory.path().join(KUBECONFIG);
        fs::write(&path, access.kubeconfig()).unwrap();
        fs::write(directory.path().join(AUTHORITY), &access.authority).unwrap();
        assert_eq!(Access::of_kubeconfig(&path).unwrap(), access);
        assert!(!format!("{access:?}").contains("secret"));
        for (text, words) in [("users: []", "no JSON"), ("{}", "no server")] {
            fs::write(&path, text).unwrap();
            let error = Access::of_kubeconfig(&path).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains("weft-cni"), "{error}");
        }
    }
}
