//! Module `demo`.
