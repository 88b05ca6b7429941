//! Stage `connect`.
