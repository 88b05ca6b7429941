//! Module `serve`.
