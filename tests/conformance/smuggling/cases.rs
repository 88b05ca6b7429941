//! The corpus, one file a family.

mod chunks;
mod connection;
mod forms;
mod framing;
mod injection;
mod leftovers;
mod lengths;
mod lines;

use super::case::Case;

/// Every case with the name of its family.
pub(crate) fn all() -> Vec<(&'static str, Case)> {
    let families: [(&str, Vec<Case>); 8] = [
        ("framing", framing::cases()),
        ("lengths", lengths::cases()),
        ("chunks", chunks::cases()),
        ("lines", lines::cases()),
        ("forms", forms::cases()),
        ("injection", injection::cases()),
        ("connection", connection::cases()),
        ("leftovers", leftovers::cases()),
    ];
    families.into_iter().flat_map(|(family, cases)| cases.into_iter().map(move |case| (family, case))).collect()
}
