//! Stage `outbound`.
