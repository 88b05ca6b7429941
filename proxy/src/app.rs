//! Stage `app`.
