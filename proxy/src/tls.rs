//! Stage `tls`.
