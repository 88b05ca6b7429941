//! What the webhooks answer: injection and validation.
