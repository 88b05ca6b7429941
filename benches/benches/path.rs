//! `cargo bench -p weft-benches [-- COMMAND]`: hands over to `weft-bench`, which cargo has just built beside this, so
//! that the proxy is linked and optimised once.

use std::os::unix::process::CommandExt;
use std::process::Command;

fn main() {
    // Cargo tells every benchmark that it is one.
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--bench");
    let error = Command::new(env!("CARGO_BIN_EXE_weft-bench")).args(arguments).exec();
    eprintln!("cannot run weft-bench: {error}");
    std::process::exit(1);
}
