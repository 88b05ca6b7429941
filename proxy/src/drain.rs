//! Stage `drain`.
