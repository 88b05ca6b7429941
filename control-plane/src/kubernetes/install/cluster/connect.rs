//! The way to a cluster: a kubeconfig, as `kubectl` finds it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::{Cluster, ClusterError};

/// For the connection alone; a cluster that is not there should not take half a minute to say so.
const CONNECT: Duration = Duration::from_secs(10);

/// Which cluster, as the user said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Access {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
}

impl Cluster {
    /// The cluster of a kubeconfig; inside of a pod that has none, the pod's own.
    pub async fn connect(access: &Access) -> Result<Self, ClusterError> {
        let (mut config, context) = configuration(access).await?;
        config.connect_timeout = Some(CONNECT);
        let place = match context {
            Some(context) => format!("{context} ({})", config.cluster_url),
            None => config.cluster_url.to_string(),
        };
        let client = Client::try_from(config).map_err(|error| ClusterError::Configuration(super::chain(&error)))?;
        Ok(Self::new(client, place))
    }
}

/// The configuration, and what the context is called.
async fn configuration(access: &Access) -> Result<(Config, Option<String>), ClusterError> {
    let refused = |error: &dyn std::error::Error| ClusterError::Configuration(super::chain(error));
    let options = KubeConfigOptions { context: access.context.clone(), ..KubeConfigOptions::default() };
    let file = match &access.kubeconfig {
        Some(path) => Some(Kubeconfig::read_from(path).map_err(|error| refused(&error))?),
        None => Kubeconfig::read().ok(),
    };
    match file {
        Some(file) => {
            let context = access.context.clone().or_else(|| file.current_context.clone());
            let config = Config::from_custom_kubeconfig(file, &options).await.map_err(|error| refused(&error))?;
            Ok((config, context))
        }
        // It says why there is no kubeconfig, and why there is no pod either.
        None if access.context.is_none() => Ok((Config::infer().await.map_err(|error| refused(&error))?, None)),
        None => Err(Kubeconfig::read().map_or_else(
            |error| refused(&error),
            |_| ClusterError::Configuration("it appeared while it was looked for".into()),
        )),
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

    #[tokio::test]
    async fn a_kubeconfig_and_its_contexts_are_found() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("config");
        std::fs::write(&path, FILE).unwrap();
        let access =
            |context: Option<&str>| Access { kubeconfig: Some(path.clone()), context: context.map(str::to_owned) };
        assert_eq!(Cluster::connect(&access(None)).await.unwrap().place(), "a (http://127.0.0.1:1/)");
        assert_eq!(Cluster::connect(&access(Some("b"))).await.unwrap().place(), "b (http://127.0.0.1:1/)");
        let refusal = Cluster::connect(&access(Some("x"))).await.unwrap_err().to_string();
        assert!(refusal.contains("--context"), "{refusal}");
        let missing = Access { kubeconfig: Some(place.path().join("none")), context: None };
        let refusal = Cluster::connect(&missing).await.unwrap_err().to_string();
        assert!(refusal.contains("none") && refusal.contains("--kubeconfig"), "{refusal}");
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
