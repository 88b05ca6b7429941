//! Module `up`.
