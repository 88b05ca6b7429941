//! Stage: forward. Moves requests and answers, or plain bytes, both ways.
//!
//! One task drives all that a client's connection asks for. Nothing is spawned or sent over a channel for a request, and
//! between two sides of HTTP/1 nothing is allocated for it.

pub mod http1;
pub mod http2;
pub mod tcp;

mod exchange;
mod grpc;
mod patience;
mod pump;
mod relay;
mod request_id;
mod routing;
mod service;
mod timer;
mod tries;

pub use service::Service;

#[cfg(test)]
mod tests;
