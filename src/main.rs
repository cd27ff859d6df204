//! The `rotogate` binary: everything it does is in [`rotogate::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    rotogate::cli::main()
}
