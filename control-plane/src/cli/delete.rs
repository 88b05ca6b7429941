//! `weft delete`: documents out of the store.

use std::path::PathBuf;

use weft_proto::weft::{DeleteRequest, DocumentName};

use super::apply::{change, show};
use super::target::{ClusterFlags, Target};
use super::{Context, Failure, objects, sources};
use crate::document::{DEFAULT_NAMESPACE, Key, Kind, read};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Kind of the document: mesh, service, workload or tlsroute.
    #[arg(value_parser = Kind::parse, required_unless_present = "files", requires = "name")]
    kind: Option<Kind>,
    /// Its name.
    #[arg(conflicts_with = "files")]
    name: Option<String>,
    /// Its namespace.
    #[arg(short, long, value_name = "NAMESPACE", default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    /// Delete what a file, a directory or standard input (`-`) holds instead; may be repeated.
    #[arg(short, long = "file", value_name = "FILE|DIR|-", conflicts_with = "kind")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    cluster: ClusterFlags,
}

impl Args {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        let keys: Vec<Key> = if let (Some(kind), Some(name)) = (self.kind, &self.name) {
            vec![Key::new(kind, &self.namespace, name)]
        } else {
            let documents =
                read(&sources::read_all(&self.files)?).map_err(|problems| Failure::new(problems.to_string()))?;
            documents.iter().map(|located| located.document.key()).collect()
        };
        context.block_on(async {
            let (revision, changes) = match self.cluster.target(context).await? {
                Target::Local(mut client) => {
                    let documents = keys.iter().map(name).collect();
                    let response = client.delete(DeleteRequest { documents, author: sources::author() }).await?;
                    let response = response.into_inner();
                    (Some(response.revision), response.changes)
                }
                Target::Cluster(remote) => (None, objects::delete(&remote, &keys).await?.iter().map(change).collect()),
            };
            Ok(show(&context.output, revision, &changes, false)?)
        })
    }
}

fn name(key: &Key) -> DocumentName {
    DocumentName { kind: key.kind.to_string(), namespace: key.namespace.to_string(), name: key.name.to_string() }
}
