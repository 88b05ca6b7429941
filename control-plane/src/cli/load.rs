//! `weft load`: constant-rate HTTP load.

use std::process::ExitCode;

use super::{Context, Failure, IntoExit};
use crate::demo::load;

pub(super) type Args = load::Arguments;

impl load::Arguments {
    pub(super) fn run(self, context: &Context) -> Result<ExitCode, Failure> {
        context.block_on(async { load::run(self).await.map_err(|error| Failure::new(error.to_string())) })
    }
}

impl IntoExit for Result<ExitCode, Failure> {
    fn into_exit(self) -> Result<ExitCode, Failure> {
        self
    }
}
