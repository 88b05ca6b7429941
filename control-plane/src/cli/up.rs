//! `weft up`: a whole mesh on this machine.

use std::process::ExitCode;

use super::Context;
use crate::up::{self, UpArguments};

pub(super) type Args = UpArguments;

impl UpArguments {
    pub(super) fn run(self, context: &Context) -> ExitCode {
        up::main(self, context.given_data.clone())
    }
}
