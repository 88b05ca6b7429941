//! `weft capture`: the kernel's redirection alone.

use std::process::ExitCode;

use weft_proxy::capture::{self, CaptureArgs};

use super::{Context, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    capture: CaptureArgs,
}

impl Args {
    pub(super) fn run(self, _: &Context) -> Result<ExitCode, Failure> {
        capture::run(self.capture).map_err(|error| Failure::new(format!("{error:#}")))
    }
}
