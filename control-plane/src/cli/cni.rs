//! `weft cni`: capture from the node.

use std::process::ExitCode;

use weft_proxy::cni::{self, CniArgs};

use super::{Context, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    cni: CniArgs,
}

impl Args {
    pub(super) fn run(self, _: &Context) -> Result<ExitCode, Failure> {
        cni::run(self.cni).map_err(|error| Failure::new(format!("{error:#}")))
    }
}
