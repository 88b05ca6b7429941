//! `weft upgrade`: what is installed, as this program's version has it.

pub(super) use super::install::UpgradeArgs as Args;
