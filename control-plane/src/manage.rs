//! Module `manage`.
