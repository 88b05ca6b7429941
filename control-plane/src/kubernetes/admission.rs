//! What the webhooks answer: injection and validation.

pub mod injection;
pub mod injector;

pub use injection::{InjectState, inject_router};
