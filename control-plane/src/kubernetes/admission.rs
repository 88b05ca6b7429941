//! What the webhooks answer: injection and validation.

pub mod injection;
pub mod injector;
pub mod validation;

pub use injection::{InjectState, inject_router};
pub use validation::{ValidateState, validate_router};
