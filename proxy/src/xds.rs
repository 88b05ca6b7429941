//! Stage `xds`.
