//! Stage: forward. Moves requests and answers, or plain bytes, both ways.
//!
//! One task drives both sides of a connection. Nothing is spawned, sent over a channel, or allocated for a request.

pub mod http1;
pub mod tcp;

mod exchange;
mod pump;
mod request_id;
mod routing;
mod service;
mod timer;
mod tries;

pub use service::Service;

#[cfg(test)]
mod tests;
