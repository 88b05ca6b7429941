//! Traffic capture: makes the kernel hand a workload's TCP connections to the proxy beside it.
//!
//! One nftables table, `inet weft`, with two nat chains in the network namespace of the calling thread:
//!
//! | chain | hook | does |
//! |---|---|---|
//! | `outbound` | output | connections of local processes go to the proxy's outbound port |
//! | `inbound` | prerouting | connections from elsewhere go to the proxy's inbound port |
//!
//! Invariants:
//! - The table is ours alone and is always replaced whole, in one transaction: installing twice, or from several
//!   processes at once, ends in the same rules; there is no moment without rules, and no rule of anybody else is touched.
//! - Only the first packet of a new TCP connection is looked at (nat chains see no other; packets of connections that were
//!   open before the installation are told apart by their flags), so nothing that is already open is cut.
//! - A connection that a process opens over the loopback interface passes the `inbound` chain unharmed: its destination
//!   was settled in the output hook, and the kernel asks the nat chains once per connection.
//! - The kernel is asked over netlink; no program (`nft`, `iptables`) is needed.
//! - Where the kernel has no `nf_tables`, the same rules go into two chains of our own in the nat tables of the older
//!   interface, by the programs of `iptables-legacy`; `legacy.rs` says what that costs. Never both at once.
//!
//! On failure the kernel keeps what it had; every [`CaptureError`] names the step, the kernel's answer and the remedy.

mod annotations;
mod backend;
mod check;
mod command;
mod error;
mod expression;
mod installed;
mod kernel;
mod legacy;
mod netlink;
mod networks;
mod proof;
mod rules;
mod ruleset;
mod text;

#[cfg(test)]
mod tests;

pub use annotations::{AnnotationError, rules_of_pod};
pub use backend::{Backend, install, install_by, installed, remove};
pub use check::{CheckReport, Outcome, Step, check};
pub use command::{CaptureArgs, run};
pub use error::CaptureError;
pub use installed::Installed;
pub use networks::Networks;
pub use proof::{Unproven, prove};
pub use rules::{Cidr, CidrError, Exempt, Rules};

use ruleset::Ruleset;

/// The name of our table, of family `inet` (IPv4 and IPv6).
pub const TABLE: &str = "weft";

/// The same rules in the syntax of `nft -f`, for people.
pub fn print(rules: &Rules) -> String {
    text::table(&Ruleset::of(rules))
}
