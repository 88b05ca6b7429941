//! `weft pod`: the processes of a pod, started by `weft up` alone.

use std::process::ExitCode;

use super::Context;
use crate::up::pod;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

impl Args {
    pub(super) fn run(self, _: &Context) -> ExitCode {
        pod::main(&self.arguments)
    }
}
