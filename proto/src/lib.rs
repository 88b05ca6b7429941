//! Messages and names: the xDS discovery envelope, the control plane's own API, and Envoy's types.
//!
//! This is the only place that names `envoy-types`; everybody else says `weft_proto::envoy`.

pub mod names;
mod read;

pub use read::Read;

/// Resource types of xDS v3, and the well-known types they use.
pub use envoy_types::pb as envoy;

/// The control plane's own API.
#[allow(clippy::pedantic, clippy::unwrap_used, missing_debug_implementations, unreachable_pub)]
#[rustfmt::skip]
#[path = "gen/weft.v1.rs"]
pub mod weft;

/// The discovery envelope: payloads are shared bytes, so one encoding of a resource serves every stream.
#[allow(clippy::pedantic, clippy::unwrap_used, missing_debug_implementations, unreachable_pub)]
#[rustfmt::skip]
#[path = "gen/envoy.service.discovery.v3.rs"]
pub mod discovery;
