//! The program that takes the place of this one, in the same process, with the sockets that connections wait at.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};

use super::Failure;

/// Where passed sockets begin (`sd_listen_fds(3)`).
const FIRST: i32 = 3;

/// The program as it was called: what stands at that path by now, which may be another version.
fn program() -> Result<(PathBuf, impl Iterator<Item = OsString>), Failure> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().ok_or_else(|| Failure::Failed("this program was called without a name".into()))?;
    Ok((program.into(), arguments))
}

/// Would it start? It reads the configuration and says what is wrong with it.
///
/// # Errors
/// What it said.
pub(super) fn check(config: &Path) -> Result<(), Failure> {
    let (program, _) = program()?;
    let shown = program.display();
    let checked = Command::new(&program).arg("--config").arg(config).arg("check").stdin(Stdio::null()).output();
    let checked = checked.map_err(|error| Failure::Failed(format!("{shown} cannot be run: {error}")))?;
    if checked.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&checked.stderr);
    Err(Failure::Failed(format!("{shown} check: {}", said.trim_end())))
}

/// Becomes that program. Comes back only where that cannot be done.
pub(super) fn become_it(sockets: Vec<OwnedFd>) -> Failure {
    let (program, arguments) = match program() {
        Ok(found) => found,
        Err(failure) => return failure,
    };
    let mut command = Command::new(&program);
    command.args(arguments).env_remove("LISTEN_FDNAMES");
    command.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDS", sockets.len().to_string());
    let mapped = sockets.into_iter().zip(FIRST..).map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
    if let Err(error) = command.fd_mappings(mapped.collect()) {
        return Failure::of(error);
    }
    Failure::Failed(format!("{} cannot be run: {}", program.display(), command.exec()))
}
