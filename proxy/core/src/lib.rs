//! The model of a service mesh and the pure decisions on it: no I/O, no clock, no globals.
//!
//! | module | holds |
//! |---|---|
//! | [`names`] | interned names and SPIFFE identities |
//! | [`model`] | what a proxy is told: listeners, routes, clusters, endpoints |
//! | [`detection`] | what a port of undeclared protocol is believed to speak |
//! | [`route`] | request to cluster |
//! | [`endpoint`] | live state of one endpoint, in atomics |
//! | [`balance`] | two random choices by peak EWMA |
//! | [`outlier`] | ejection after consecutive failures, guarded return |

pub mod balance;
pub mod detection;
pub mod endpoint;
pub mod model;
pub mod names;
pub mod outlier;
pub mod route;
