//! Weft's data plane: the proxy that stands beside each workload.
//!
//! The life of a connection is told by [`inbound`] and [`outbound`], which call the stages in order:
//!
//! | stage | module | does |
//! |---|---|---|
//! | accept | [`accept`] | listeners, original destination, one task a connection |
//! | tls | [`tls`] | mesh mTLS terminated and originated, SPIFFE identities verified |
//! | detect | [`detect`] | HTTP/1, HTTP/2 or bytes, by who speaks first |
//! | route, balance | [`state`] | the snapshot: listener, route, cluster, endpoint |
//! | connect | [`connect`], [`pool`] | a kept or a new upstream connection |
//! | forward | [`forward`] | requests or bytes both ways |
//! | frames | [`multiplex`], [`http2`] | below connect and forward: connections of HTTP/2 that streams share |
//!
//! Around it: [`xds`] feeds [`state`]; [`identity`] feeds [`tls`]; [`telemetry`] measures; [`admin`] shows, [`health`]
//! answers the kubelet; [`codes`] explains what [`failure`] and [`refusal`] say;
//! [`capture`] makes the kernel redirect traffic here, in a container of its own or, where pods may not, from the node by
//! [`cni`]; [`app`] wires the parts, and
//! [`supervise`] puts a new proxy in the place of a running one.

pub mod accept;
pub mod admin;
pub mod app;
pub mod capture;
pub mod clock;
pub mod cni;
pub mod codes;
pub mod config;
pub mod connect;
pub mod detect;
pub mod drain;
pub mod failure;
pub mod forward;
pub mod health;
pub mod http1;
pub mod http2;
pub mod identity;
pub mod inbound;
pub mod limits;
pub mod multiplex;
pub mod outbound;
pub mod pool;
pub mod refusal;
pub mod state;
pub mod stream;
pub mod supervise;
pub mod telemetry;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub mod worker;
pub mod xds;
