//! Module `app`.
