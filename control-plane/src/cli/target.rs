//! Which control plane a verb asks: one on this machine, or one in a cluster. What was not said is told.
//!
//! A cluster is asked when a flag says so, and never when `--data` alone is given; without a word the control plane of this
//! machine is asked, and a cluster only when none runs here, there is a kubeconfig, and the user is told of it.

use std::path::PathBuf;

use super::client::{Client, connect};
use super::{Context, Failure};
use crate::kubernetes::access::{Access, has_kubeconfig};
use crate::kubernetes::install::cluster::Cluster;
use crate::kubernetes::names::SYSTEM_NAMESPACE;

/// Flags of verbs that can be asked of a cluster too.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "In a cluster")]
pub(super) struct ClusterFlags {
    /// Ask the cluster of the current context, not a control plane on this machine.
    #[arg(long)]
    kubernetes: bool,
    #[command(flatten)]
    place: PlaceFlags,
}

/// Which cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct PlaceFlags {
    /// Kubeconfig of the cluster [default: as kubectl finds it].
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig [default: its current one].
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace the control plane is installed in [default: weft-system].
    #[arg(long, value_name = "NAMESPACE", env = "WEFT_SYSTEM_NAMESPACE", hide_env_values = true)]
    system_namespace: Option<String>,
}

/// A control plane that can be asked.
pub(super) enum Target {
    Local(Client),
    Cluster(Remote),
}

/// A cluster, and where in it the control plane is.
#[derive(Debug)]
pub(super) struct Remote {
    pub cluster: Cluster,
    pub system_namespace: String,
}

impl PlaceFlags {
    pub(super) async fn connect(&self) -> Result<Cluster, Failure> {
        Ok(Cluster::connect(&self.access()).await?)
    }

    /// The namespace the user named.
    pub(super) fn system_namespace(&self) -> Option<&str> {
        self.system_namespace.as_deref()
    }

    fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() }
    }
}

impl ClusterFlags {
    /// The control plane these flags and the context mean.
    pub(super) async fn target(&self, context: &Context) -> Result<Target, Failure> {
        let is_said = self.kubernetes || self.place.kubeconfig.is_some() || self.place.context.is_some();
        match (is_said, &context.given_data) {
            // A directory that the environment names is no word against a flag.
            (true, _) => Ok(Target::Cluster(self.remote().await?)),
            (false, Some(_)) => Ok(Target::Local(connect(&context.data).await?)),
            (false, None) => self.whichever(context).await,
        }
    }

    /// Nothing is said: the machine's own goes first.
    async fn whichever(&self, context: &Context) -> Result<Target, Failure> {
        let absent = match connect(&context.data).await {
            Ok(client) => return Ok(Target::Local(client)),
            Err(failure) => failure,
        };
        let variable = std::env::var("KUBECONFIG").ok();
        let home = std::env::var_os("HOME").map(PathBuf::from);
        if !has_kubeconfig(variable.as_deref(), home.as_deref()) {
            return Err(Failure::new(format!("{absent}; for one in a cluster there is no kubeconfig either")));
        }
        let remote = self.remote().await?;
        context.output.note(&format!(
            "no control plane runs on this machine; asking the cluster {} (--kubernetes says so without this note)",
            remote.cluster.place()
        ));
        Ok(Target::Cluster(remote))
    }

    async fn remote(&self) -> Result<Remote, Failure> {
        let system_namespace = self.place.system_namespace().unwrap_or(SYSTEM_NAMESPACE).to_owned();
        Ok(Remote { cluster: self.place.connect().await?, system_namespace })
    }
}
