//! `weft shop`: the demo's sample application.

use super::{Context, Failure};
use crate::demo::shop;

pub(super) type Args = shop::Arguments;

impl shop::Arguments {
    pub(super) fn run(self, context: &Context) -> Result<(), Failure> {
        context.block_on(async { shop::run(self).await.map_err(|error| Failure::new(error.to_string())) })
    }
}
