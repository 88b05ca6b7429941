//! Stage `capture`.
