//! `weft scale`: more or fewer replicas in a running mesh.

use std::process::ExitCode;

use super::Context;
use crate::up::{self, ScaleArguments};

pub(super) type Args = ScaleArguments;

impl ScaleArguments {
    pub(super) fn run(self, context: &Context) -> ExitCode {
        up::scale_main(&self, context.given_data.as_deref())
    }
}
