//! Stage `inbound`.
