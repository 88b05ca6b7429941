//! `weft delete`: documents out of the store.

use std::path::PathBuf;

use weft_proto::weft::{DeleteRequest, DocumentName};

use super::apply::show;
use super::{Context, Failure, connect, sources};
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
        let documents = keys
            .iter()
            .map(|key| DocumentName {
                kind: key.kind.to_string(),
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
            })
            .collect();
        let request = DeleteRequest { documents, author: sources::author() };
        context.block_on(async {
            let response = connect(&context.data).await?.delete(request).await?.into_inner();
            Ok(show(&context.output, response.revision, &response.changes, false)?)
        })
    }
}
