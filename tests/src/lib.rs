//! What the end-to-end tests share. They run the real programs, over real sockets, and kill them for real.

pub mod kubernetes;
pub mod mesh;
pub mod process;
