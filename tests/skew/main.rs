//! Versions that work together: each part of this one with each part of the two minor versions before it, all of them the
//! real programs, built from the history.
//!
//! A checkout without the history runs none of this, and says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot have what it needs has failed")]

mod captured;
mod data;
mod earlier;
mod rolling;
mod together;
