//! Stage `failure`.
