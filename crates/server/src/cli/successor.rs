//! The program that takes the place of this one, in the same process, with the sockets that connections wait at
//! (requirements O13, O14).
//!
//! Which program that is was settled by how this one was started: an absolute path, never a name that is looked up. What
//! stands there by now may be another version. With the sockets it is given a baton: what this program is, as an open
//! file, and the configuration in force. A successor that fails before it serves gives the process back: it becomes this
//! program again, on that configuration, with those sockets.

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
use super::check::HELD;
use crate::server::Handover;

/// Where passed sockets begin (`sd_listen_fds(3)`).
const FIRST: usize = 3;
/// Names the baton: `PID,NUMBER,NUMBER`, of this process, of the file that says what is in [`Told`], and of the program
/// before this one. It does not begin like our other variables, of which an unknown one stops a start.
const BATON: &str = "_ROTOGATE_BATON";
/// Why a successor gave the process back.
const REFUSED: &str = "_ROTOGATE_REFUSED";
/// The longest reason that is passed on.
const MAX_REASON: usize = 4096;

/// How this program was started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// # Errors
    /// The system does not say which program this is.
    pub(super) fn of_start(baton: Option<&Baton>) -> Result<Self, Failure> {
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_default();
        let path = match baton {
            Some(baton) => baton.program.clone(),
            None => started_as(&name)
                .map_or_else(std::env::current_exe, Ok)
                .map_err(|error| Failure::Failed(format!("the system does not say which program this is: {error}")))?,
        };
        Ok(Self { path, arguments: arguments.collect() })
    }

    /// Would it start? It reads the configuration and says what is wrong with it, or where it wants to listen.
    ///
    /// # Errors
    /// What it said.
    pub(super) fn check(&self, config: &Path, held: &[SocketAddr]) -> Result<Vec<SocketAddr>, String> {
        let shown = self.path.display();
        let held = held.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let checked = Command::new(&self.path)
            .args([OsStr::new("--json"), OsStr::new("--config"), config.as_os_str(), OsStr::new("check")])
            .env(HELD, held)
            .env_remove(BATON)
            .env_remove(REFUSED)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{shown} cannot be run: {error}"))?;
        let said: Checked = serde_json::from_slice(&checked.stdout).unwrap_or_default();
        if checked.status.success() {
            return Ok(said.listen);
        }
        let text = said.error.map_or_else(
            || String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).trim().to_owned(),
            |error| error.detail,
        );
        Err(format!("{shown} check: {text}"))
    }
}

/// What `check` says, as far as it concerns us. An older program says less.
#[derive(Default, Deserialize)]
struct Checked {
    #[serde(default)]
    listen: Vec<SocketAddr>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    detail: String,
}

/// The path by which this program was called, made absolute, if that is what runs. Unlike the path that the system gives
/// it keeps links: an upgrade may be another target of the same link.
fn started_as(name: &OsStr) -> Option<PathBuf> {
    if !name.as_bytes().contains(&b'/') {
        return None;
    }
    let path = std::path::absolute(name).ok()?;
    let (there, running) = (std::fs::metadata(&path).ok()?, std::fs::metadata("/proc/self/exe").ok()?);
    ((there.dev(), there.ino()) == (running.dev(), running.ino())).then_some(path)
}

/// What the program before this one left, in case this one fails.
#[derive(Debug)]
pub(super) struct Baton {
    program: PathBuf,
    /// The text of the configuration that was in force.
    pub(super) config: String,
    /// Why the one in between failed; then this is the program from before it.
    pub(super) refused: Option<String>,
    /// As which number the former program is open.
    former: usize,
    text: String,
}

#[derive(Serialize, Deserialize)]
struct Told {
    program: Vec<u8>,
    config: String,
}

impl Baton {
    /// The one that was handed to this process, if one was.
    pub(super) fn received() -> Option<Self> {
        let text = std::env::var(BATON).ok()?;
        let numbers: Vec<usize> = text.split(',').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        let [process, told, former] = numbers.try_into().ok()?;
        if process != usize::try_from(std::process::id()).ok()? {
            return None;
        }
        let mut json = Vec::new();
        File::open(format!("/proc/self/fd/{told}")).ok()?.read_to_end(&mut json).ok()?;
        let Told { program, config } = serde_json::from_slice(&json).ok()?;
        let program = PathBuf::from(OsString::from_vec(program));
        Some(Self { program, config, refused: std::env::var(REFUSED).ok(), former, text })
    }

    /// Has the process called what it was called before: the system names it after the number of an open file now.
    pub(super) fn take_name(&self) {
        if let Some(name) = self.program.file_name() {
            // A name in a list is nothing to fail for.
            let _ = std::fs::write("/proc/self/comm", name.as_bytes());
        }
    }

    /// Becomes the former program again, on the configuration that was in force, with these sockets; with those that were
    /// passed to this process, if they were not taken yet. Comes back only where that cannot be done.
    pub(super) fn give_back(self, why: &Failure, sockets: Option<Vec<TcpListener>>) -> Failure {
        let mut command = Command::new(format!("/proc/self/fd/{}", self.former));
        command.arg0(&self.program).args(std::env::args_os().skip(1)).env(BATON, &self.text).env(REFUSED, reason(why));
        if let Some(sockets) = sockets {
            listening(&mut command, sockets.len());
            if let Err(error) = command.fd_mappings(mapped(sockets.into_iter().map(OwnedFd::from))) {
                return Failure::of(error);
            }
        }
        let error = command.exec();
        Failure::Failed(format!("{why}; and the program before this one cannot be run again: {error}"))
    }
}

/// Fit for a variable of the environment.
fn reason(why: &Failure) -> String {
    why.to_string().replace('\0', " ").chars().take(MAX_REASON).collect()
}

/// Becomes the program that stands at the path of this one by now. Comes back only where neither that nor going on with
/// this one can be done.
pub(super) fn become_it(program: &Program, handover: Handover) -> Failure {
    let Handover { sockets, config } = handover;
    let count = sockets.len();
    let told = Told { program: program.path.as_os_str().as_bytes().to_vec(), config: config.source.text().to_owned() };
    let baton = match baton(&told) {
        Ok(baton) => baton,
        Err(error) => return Failure::Failed(format!("nothing can be handed over: {error}")),
    };
    let numbers = format!("{},{},{}", std::process::id(), FIRST + count, FIRST + count + 1);
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).env(BATON, &numbers).env_remove(REFUSED);
    listening(&mut command, count);
    if let Err(error) = command.fd_mappings(mapped(sockets.into_iter().map(OwnedFd::from).chain(baton))) {
        return Failure::of(error);
    }
    let why = Failure::Failed(format!("{} cannot be run: {}", program.path.display(), command.exec()));
    tracing::error!(error = %why, "nothing was started anew; this gate goes on");
    crate::log::flush();
    // All files are where they were to be by now, and stay there.
    let mut again = Command::new("/proc/self/exe");
    again.arg0(&program.path).args(&program.arguments).env(BATON, &numbers).env(REFUSED, reason(&why));
    listening(&mut again, count);
    let error = again.exec();
    Failure::Failed(format!("{why}; and this program cannot be run again: {error}"))
}

fn listening(command: &mut Command, count: usize) {
    command.env_remove("LISTEN_FDNAMES");
    command.env("LISTEN_PID", std::process::id().to_string()).env("LISTEN_FDS", count.to_string());
}

fn mapped(files: impl Iterator<Item = OwnedFd>) -> Vec<FdMapping> {
    let number = |place: usize| i32::try_from(place).unwrap_or(i32::MAX);
    files.zip(FIRST..).map(|(parent_fd, place)| FdMapping { parent_fd, child_fd: number(place) }).collect()
}

/// What goes along besides the sockets, in the order of [`BATON`].
fn baton(told: &Told) -> std::io::Result<[OwnedFd; 2]> {
    let json = serde_json::to_vec(told)?;
    let mut text = File::from(rustix::fs::memfd_create("rotogate-baton", rustix::fs::MemfdFlags::CLOEXEC)?);
    text.write_all(&json)?;
    Ok([text.into(), File::open("/proc/self/exe")?.into()])
}
