//! What the request path costs: nanoseconds, instructions, allocations.
//!
//! ```text
//! cargo bench -p weft-benches                     steps and allocations
//! cargo bench -p weft-benches -- steps            ns of each step of a request, no I/O
//! cargo bench -p weft-benches -- allocations      allocations of a request in a running worker; fails when a plain GET has any
//! cargo bench -p weft-benches -- instructions     user instructions of each step and of a request (needs valgrind)
//! cargo bench -p weft-benches -- handshakes       time and user instructions of handshakes (instructions need valgrind)
//! cargo bench -p weft-benches -- bulk             time of a MiB through one connection between two proxies
//! cargo bench -p weft-benches -- idle             resident memory of an idle connection between two proxies
//! weft-bench keep-alive --application A         errors of a million requests with gaps; see [`keep_alive`]
//! python3 benches/lab                             CPU, latency and memory of the programs beside others: see README.md
//! ```
//!
//! The allocation count is also a test with few requests: `cargo test -p weft-benches`.
//! `weft-bench drive` and `weft-bench serve` run the same workers for other tools (perf, strace, callgrind).
//!
//! | module | holds |
//! |---|---|
//! | [`allocations`] | an allocator that counts per thread |
//! | [`traffic`] | requests, their client, and a stand-in application |
//! | [`streams`] | the same for HTTP/2 |
//! | [`configuration`] | what the workers are told, and their certificates |
//! | [`worker`] | a worker of the proxy in a thread of its own |
//! | [`drive`] | a client, one or two workers and an application: one run |
//! | [`mesh`] | connections between two proxies: handshakes, idle weight, much data |
//! | [`steps`] | the steps of a request without I/O |
//! | [`keep_alive`] | a million requests with idle gaps before a server that closes early |
//! | [`instructions`] | runs of this program under callgrind |

pub mod allocations;
pub mod configuration;
pub mod drive;
pub mod instructions;
pub mod keep_alive;
pub mod mesh;
pub mod steps;
pub mod streams;
pub mod traffic;
pub mod worker;
