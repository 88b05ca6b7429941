//! The way to a cluster: a kubeconfig, as `kubectl` finds it, or the pod's own account. The control plane in a cluster
//! and the command line take the same way; how long each waits for an answer is its own affair.

use std::error::Error;
use std::path::{Path, PathBuf};

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::causes::chain;

/// Which cluster, as the user said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
}

/// Why there is no way to a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot use {}: {what}; name another with --kubeconfig, or a context of it with --context", .kubeconfig.as_ref().map_or("the kubeconfig".into(), |path| format!("the kubeconfig {}", path.display())))]
pub struct AccessError {
    kubeconfig: Option<PathBuf>,
    what: String,
}

impl Access {
    /// The cluster of the kubeconfig, and what its context is called; inside of a pod that has none, the pod's own.
    pub async fn configuration(&self) -> Result<(Config, Option<String>), AccessError> {
        let file = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let is_said = self.kubeconfig.is_some() || self.context.is_some();
        let file = match file {
            Ok(file) => file,
            Err(error) if is_said => return Err(self.refused(&error)),
            // Its error says why there is no kubeconfig, and why there is no pod either.
            Err(_) => return Ok((Config::infer().await.map_err(|error| self.refused(&error))?, None)),
        };
        let context = self.context.clone().or_else(|| file.current_context.clone());
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(file, &options).await.map_err(|error| self.refused(&error))?;
        Ok((config, context))
    }

    /// This way cannot be taken.
    pub fn refused(&self, error: &dyn Error) -> AccessError {
        AccessError { kubeconfig: self.kubeconfig.clone(), what: chain(error) }
    }
}

/// Whether there is a kubeconfig where `kubectl` looks for one.
pub fn has_kubeconfig(variable: Option<&str>, home: Option<&Path>) -> bool {
    match variable.filter(|paths| !paths.is_empty()) {
        Some(paths) => std::env::split_paths(paths).any(|path| path.is_file()),
        None => home.is_some_and(|home| home.join(".kube/config").is_file()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
apiVersion: v1
kind: Config
current-context: a
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: u, user: {}}]
contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: c, user: u, namespace: n}}]
";

    async fn way(access: &Access) -> Result<(String, Option<String>), String> {
        let (config, context) = access.configuration().await.map_err(|error| error.to_string())?;
        Ok((config.cluster_url.to_string(), context))
    }

    #[tokio::test]
    async fn a_kubeconfig_and_its_contexts_are_found() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("config");
        std::fs::write(&path, FILE).unwrap();
        let access =
            |context: Option<&str>| Access { kubeconfig: Some(path.clone()), context: context.map(str::to_owned) };
        let server = "http://127.0.0.1:1/".to_owned();
        assert_eq!(way(&access(None)).await, Ok((server.clone(), Some("a".into()))));
        assert_eq!(way(&access(Some("b"))).await, Ok((server, Some("b".into()))));
        let refusal = way(&access(Some("x"))).await.unwrap_err();
        assert!(refusal.contains("config: ") && refusal.contains("--context"), "{refusal}");
        let missing = Access { kubeconfig: Some(place.path().join("none")), context: None };
        let refusal = way(&missing).await.unwrap_err();
        assert!(refusal.contains("none: ") && refusal.contains("--kubeconfig"), "{refusal}");
    }

    #[test]
    fn a_kubeconfig_is_looked_for_where_kubectl_does() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("config");
        std::fs::write(&path, FILE).unwrap();
        let both = format!("/nowhere:{}", path.display());
        assert!(has_kubeconfig(Some(&both), None));
        assert!(!has_kubeconfig(Some("/nowhere"), Some(place.path())));
        assert!(!has_kubeconfig(None, Some(place.path())));
        std::fs::create_dir(place.path().join(".kube")).unwrap();
        std::fs::rename(&path, place.path().join(".kube/config")).unwrap();
        assert!(has_kubeconfig(None, Some(place.path())) && has_kubeconfig(Some(""), Some(place.path())));
    }
}
