//! The `rotogate` binary. The code is in [`rotogate_server::cli`].

use std::process::ExitCode;

/// A proxied request makes about forty allocations, so a fast allocator matters.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rotogate_server::cli::main()
}
