//! Stage `http1`.
