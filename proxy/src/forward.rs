//! Stage `forward`.
