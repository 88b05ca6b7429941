//! Module `ca`.
