//! The `rotogate` binary. Everything it does is in [`rotogate_server::cli`].

use std::process::ExitCode;

/// A proxied request makes some forty allocations, so a fast allocator pays off.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    rotogate_server::cli::main()
}
