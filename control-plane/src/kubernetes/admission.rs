//! What the webhooks answer: injection and validation.

pub mod validation;

pub use validation::{ValidateState, validate_router};
