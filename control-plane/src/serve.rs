//! ADS sessions: the server side of xDS v3, from the resources in force to the streams that asked for them.
//!
//! | module | does |
//! |---|---|
//! | [`ads`] | the gRPC service: who may open a stream, one task a stream |
//! | [`node`] | what a proxy says about itself |
//! | [`registry`] | the proxies connected now |
//! | [`session`] | one stream as a state machine: requests and changes in, responses out |
//! | `earlier` | what proxies of earlier versions are told in the place of what they cannot read |
//! | [`detection`] | what proxies report of undeclared ports |
//! | [`operations`] | what operators ask of running proxies |
//! | [`coalesce`] | when a change goes out: at once, and then in bundles |

pub mod ads;
pub mod coalesce;
pub mod detection;
mod earlier;
pub mod node;
pub mod operations;
pub mod registry;
pub mod session;

pub use ads::AdsServer;
pub use detection::DetectionService;
pub use operations::{Operations, OperationsService};
pub use registry::{Asked, ProxyInfo, Refused, RefusedResources};
