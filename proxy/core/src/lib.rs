//! The model of a service mesh and the pure decisions on it: no I/O, no clock, no globals.
//!
//! | module | holds |
//! |---|---|
//! | [`names`] | interned names and SPIFFE identities |
//! | [`model`] | what a proxy is told: listeners, routes, clusters, endpoints |
//! | [`detection`] | what a port of undeclared protocol is believed to speak |
//! | [`pattern`] | regular expressions that cannot take long |
//! | [`split`] | which of the clusters that share something gets the next |
//! | [`route`] | request to cluster |
//! | [`server_name`] | TLS connection to cluster, by the name it asks for |
//! | [`endpoint`] | live state of one endpoint, in atomics |
//! | [`balance`] | two random choices by peak EWMA |
//! | [`outlier`] | ejection after consecutive failures, guarded return |
//! | [`retry`] | which ends of a try call for another one |

pub mod balance;
pub mod detection;
pub mod endpoint;
pub mod model;
pub mod names;
pub mod outlier;
pub mod pattern;
pub mod retry;
pub mod route;
pub mod server_name;
pub mod split;
