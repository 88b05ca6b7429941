//! Stage `detect`.
