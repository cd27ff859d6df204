//! The `rotogate` binary. All of its code is in [`rotogate_server::cli`].

use std::process::ExitCode;

/// A proxied request makes about forty allocations, so a fast allocator is worthwhile.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rotogate_server::cli::main()
}
