//! Which of the kernel's interfaces holds the rules.

use std::fmt;

use clap::ValueEnum;

use super::installed::{Found, Installed};
use super::rules::Rules;
use super::ruleset::Ruleset;
use super::{CaptureError, kernel, legacy};

/// An interface of the kernel for rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backend {
    /// `nf_tables`, over netlink; Linux 5.2 or later.
    Nftables,
    /// The nat tables before it, by the programs iptables-legacy-restore and ip6tables-legacy-restore.
    IptablesLegacy,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nftables => "nftables",
            Self::IptablesLegacy => "iptables-legacy",
        })
    }
}

/// Installs the rules in the calling thread's network namespace, in place of whatever rules of ours are there: in
/// `nf_tables` where the kernel has it, else in the legacy tables.
///
/// Idempotent; with `nf_tables` atomic. Needs `CAP_NET_ADMIN` over the network namespace.
pub fn install(rules: &Rules) -> Result<(), CaptureError> {
    install_by(rules, None).map(drop)
}

/// [`install`] by one backend, or by the one that works; tells which it was.
///
/// What the other one has of ours is removed afterwards: there is no moment without rules.
pub fn install_by(rules: &Rules, backend: Option<Backend>) -> Result<Backend, CaptureError> {
    rules.validate()?;
    let nftables = || kernel::replace(&Ruleset::of(rules)).and_then(|()| legacy::remove());
    let iptables = || legacy::replace(rules).and_then(|()| supported(kernel::remove()).map(drop));
    match backend {
        Some(Backend::Nftables) => nftables().map(|()| Backend::Nftables),
        Some(Backend::IptablesLegacy) => iptables().map(|()| Backend::IptablesLegacy),
        None => match nftables() {
            Ok(()) => Ok(Backend::Nftables),
            Err(unsupported @ CaptureError::Unsupported { .. }) => match iptables() {
                Ok(()) => Ok(Backend::IptablesLegacy),
                // The first answer says what is wrong with this kernel, and names the programs too.
                Err(CaptureError::NoProgram { .. }) => Err(unsupported),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        },
    }
}

/// Removes everything of ours. Nothing there is success.
///
/// Connections that are redirected at this moment lose their translation and break.
pub fn remove() -> Result<(), CaptureError> {
    supported(kernel::remove())?;
    legacy::remove()
}

/// Asks the kernel which rules of ours are in force in the calling thread's network namespace.
pub fn installed() -> Result<Option<Installed>, CaptureError> {
    if let Some(table) = supported(kernel::installed())?.flatten() {
        return Ok(Some(Found::Nftables(table).into()));
    }
    Ok(legacy::installed()?.map(|tables| Found::IptablesLegacy(tables).into()))
}

/// A kernel without `nf_tables` has no rules there.
fn supported<T>(outcome: Result<T, CaptureError>) -> Result<Option<T>, CaptureError> {
    match outcome {
        Ok(outcome) => Ok(Some(outcome)),
        Err(CaptureError::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
