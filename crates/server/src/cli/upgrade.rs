//! In-place upgrades. The next program takes over the process and its listening sockets (requirements O13, O14).
//!
//! The path of the next program is fixed when this program starts. The next program also receives the *baton*: this
//! program as an open file, and the configuration. If the next program fails before it serves, it executes this program
//! again.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use serde::{Deserialize, Serialize};

use super::Failure;
use super::check::HELD_VAR;
use crate::server::UpgradeState;

/// The first passed file descriptor (`sd_listen_fds(3)`).
const FIRST_PASSED_FD: usize = 3;
/// The value is `PID,FD,FD`: the [`BatonContent`] and the previous program. The gate reserves the prefix `ROTOGATE_`
/// for its configuration.
const BATON_VAR: &str = "_ROTOGATE_BATON";
const REFUSED_VAR: &str = "_ROTOGATE_REFUSED";
const MAX_REASON_CHARS: usize = 4096;

#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// # Errors
    /// The operating system does not report the program's path.
    pub(super) fn current(baton: Option<&Baton>) -> Result<Self, Failure> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let path = match baton {
            Some(baton) => baton.program.clone(),
            None => invoked_path(&name).map_or_else(std::env::current_exe, Ok).map_err(|error| {
                Failure::Failed(format!("the path of the running program cannot be determined: {error}"))
            })?,
        };
        Ok(Self { path, arguments: arguments.collect() })
    }

    /// Lets the next program check the configuration, and returns its addresses.
    ///
    /// # Errors
    /// The report of the failed check.
    pub(super) fn check(&self, config: &Path, held: &[SocketAddr]) -> Result<Vec<SocketAddr>, String> {
        let shown = self.path.display();
        let held = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let checked = Command::new(&self.path)
            .args([OsStr::new("--json"), OsStr::new("--config"), config.as_os_str(), OsStr::new("check")])
            .env(HELD_VAR, held)
            .env_remove(BATON_VAR)
            .env_remove(REFUSED_VAR)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{shown} cannot be run: {error}"))?;
        let said: CheckOutput = serde_json::from_slice(&checked.stdout).unwrap_or_default();
        if checked.status.success() {
            // A program other than rotogate may also succeed, but does not print this report.
            return if said.ok {
                Ok(said.listen)
            } else {
                Err(format!("{shown} is not rotogate: install rotogate at this path"))
            };
        }
        let text = said.error.map_or_else(
            || String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).trim().to_owned(),
            |error| error.detail,
        );
        Err(format!("{shown} check: {text}"))
    }
}

/// Older programs report fewer fields.
#[derive(Default, Deserialize)]
struct CheckOutput {
    #[serde(default)]
    ok: bool,
    #[serde(default)]
    listen: Vec<SocketAddr>,
    error: Option<CheckError>,
}

#[derive(Deserialize)]
struct CheckError {
    detail: String,
}

/// Returns the path by which this program was invoked. The path keeps symbolic links, because an update may change
/// their targets.
fn invoked_path(name: &OsStr) -> Option<PathBuf> {
    if !name.as_bytes().contains(&b'/') {
        return None;
    }
    let path = std::path::absolute(name).ok()?;
    let there = std::fs::metadata(&path).ok()?;
    // Without /proc, the running program is unknown.
    let is_other = std::fs::metadata("/proc/self/exe")
        .is_ok_and(|running| (there.dev(), there.ino()) != (running.dev(), running.ino()));
    (!is_other).then_some(path)
}

#[derive(Debug)]
pub(super) struct Baton {
    program: PathBuf,
    pub(super) config: String,
    /// After a rollback: why the upgrade failed.
    pub(super) refused: Option<String>,
    former: usize,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct BatonContent {
    program: Vec<u8>,
    config: String,
}

impl Baton {
    pub(super) fn received() -> Option<Self> {
        let text = std::env::var(BATON_VAR).ok()?;
        let numbers: Vec<usize> = text.split(',').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let [process, content, former] = numbers.try_into().ok()?;
        if process != usize::try_from(std::process::id()).ok()? {
            return None;
        }
        let mut json = Vec::new();
        File::open(format!("/proc/self/fd/{content}")).ok()?.read_to_end(&mut json).ok()?;
        let BatonContent { program, config } = serde_json::from_slice(&json).ok()?;
        let program = PathBuf::from(OsString::from_vec(program));
        Some(Self { program, config, refused: std::env::var(REFUSED_VAR).ok(), former, text })
    }

    /// After a rollback, the kernel names the process after a file descriptor.
    pub(super) fn restore_process_name(&self) {
        if let Some(name) = self.program.file_name() {
            // The name appears only in process lists.
            let _ = std::fs::write("/proc/self/comm", name.as_bytes());
        }
    }

    /// Executes the previous program again. If `sockets` is `None`, passes on the sockets that this program received.
    /// Returns only on failure.
    pub(super) fn roll_back(self, why: &Failure, sockets: Option<Vec<TcpListener>>) -> Failure {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.former));
        command
            .arg0(&self.program)
            .args(std::env::args_os().skip(1))
            .env(BATON_VAR, &self.text)
            .env(REFUSED_VAR, reason(why));
        if let Some(sockets) = sockets {
            set_listen_variables(&mut command, sockets.len());
            if let Err(error) = command.fd_mappings(fd_mappings(sockets.into_iter().map(OwnedFd::from))) {
                return Failure::failed(error);
            }
        }
        let error = command.exec();
        Failure::Failed(format!("{why}; in addition, the previous program cannot be run again: {error}"))
    }
}

/// An environment variable cannot contain NUL.
fn reason(why: &Failure) -> String {
    why.to_string().replace('\0', " ").chars().take(MAX_REASON_CHARS).collect()
}

/// Executes the program at the path. Returns only if no program can be executed.
pub(super) fn replace_process(program: &Program, state: UpgradeState) -> Failure {
    let UpgradeState { sockets, config } = state;
    let count = sockets.len();
    let content =
        BatonContent { program: program.path.as_os_str().as_bytes().to_vec(), config: config.source.text().to_owned() };
    let baton = match baton(&content) {
        Ok(baton) => baton,
        Err(error) => return Failure::Failed(format!("in-place upgrade impossible: {error}")),
    };
    let numbers = format!("{},{},{}", std::process::id(), FIRST_PASSED_FD + count, FIRST_PASSED_FD + count + 1);
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).env(BATON_VAR, &numbers).env_remove(REFUSED_VAR);
    set_listen_variables(&mut command, count);
    if let Err(error) = command.fd_mappings(fd_mappings(sockets.into_iter().map(OwnedFd::from).chain(baton))) {
        return Failure::failed(error);
    }
    let why = Failure::Failed(format!("{} cannot be run: {}", program.path.display(), command.exec()));
    tracing::error!(error = %why, "in-place upgrade failed; this program keeps running");
    crate::log::flush();
    // The passed file descriptors already have their final numbers.
    let mut again = Command::new("/proc/self/exe");
    again.arg0(&program.path).args(&program.arguments).env(BATON_VAR, &numbers).env(REFUSED_VAR, reason(&why));
    set_listen_variables(&mut again, count);
    let error = again.exec();
    Failure::Failed(format!("{why}; this program could not be started again either: {error}"))
}

fn set_listen_variables(command: &mut Command, count: usize) {
    command.env_remove("LISTEN_FDNAMES");
    command.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDS", count.to_string());
}

fn fd_mappings(files: impl Iterator<Item = OwnedFd>) -> Vec<FdMapping> {
    let number = |place: usize| i32::try_from(place).unwrap_or(i32::MAX);
    files.zip(FIRST_PASSED_FD..).map(|(parent_fd, place)| FdMapping { parent_fd, child_fd: number(place) }).collect()
}

fn baton(content: &BatonContent) -> std::io::Result<[OwnedFd; 2]> {
    let json = serde_json::to_vec(content)?;
    let mut text = File::from(rustix::fs::memfd_create("rotogate-baton", rustix::fs::MemfdFlags::CLOEXEC)?);
    text.write_all(&json)?;
    Ok([text.into(), File::open("/proc/self/exe")?.into()])
}
