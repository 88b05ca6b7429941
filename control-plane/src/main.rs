//! The program `weft`.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft_control_plane::cli::main()
}
