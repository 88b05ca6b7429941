//! Which replica writes.
