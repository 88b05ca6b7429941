//! Module `document`.
