//! Module `compile`.
