//! Stage `accept`.
