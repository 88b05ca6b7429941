//! Module `world`.
