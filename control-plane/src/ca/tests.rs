//! The authority on disk, and the whole way of a certificate over loopback.

mod authority;
mod cluster;
mod join;
mod tokens;
