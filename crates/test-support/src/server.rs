//! Servers that a test starts. Each server has its own folder and port, and does not run as root.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

/// The user and group `nobody` on Debian and most other systems.
const NOBODY: u32 = 65_534;
/// The first port that is used. Lower ports may be taken.
const FIRST_PORT: u32 = 10_000;

/// Makes a folder that the server can write.
pub fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    give(folder.path());
    folder
}

pub fn give(path: &Path) {
    if rustix::process::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

pub fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    give(path);
}

/// Returns a program's path. Debian installs some programs outside of `PATH`.
pub fn program(name: &str, folders: &[PathBuf]) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = folders.iter().cloned().chain(std::env::split_paths(&path));
    let found = all.map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: bash tests/setup.sh"))
}

pub fn unprivileged(program: &Path) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
    command.arg(program).env("HOME", "/nonexistent").env_remove("USER");
    command
}

pub fn done(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns a free port outside the kernel's range for outgoing connections. Otherwise a client could take the port of a
/// restarting server. No other test gets this port.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let end: u32 = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768);
    let number = end - FIRST_PORT;
    // Concurrent programs begin at different ports.
    let begin = std::process::id().wrapping_mul(97) % number;
    let candidates = (0..number).map(|_| FIRST_PORT + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % number);
    candidates
        .filter_map(|port| u16::try_from(port).ok())
        .find(|port| reserve(*port) && TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("no port is free")
}

/// Reserves a port for one test, even across processes. The reservation is an abstract socket name, which the kernel
/// releases when this process ends.
fn reserve(port: u16) -> bool {
    static RESERVED: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    let name = SocketAddr::from_abstract_name(format!("rotogate-test-port-{port}")).unwrap();
    let reserved = UnixListener::bind_addr(&name);
    let is_ours = reserved.is_ok();
    RESERVED.lock().unwrap().extend(reserved);
    is_ours
}

/// A process that is killed at the end of the test.
pub struct Process(Child);

impl Process {
    /// Starts a server, and waits until `is_ready`. Returns `None` if the server has exited, because another program
    /// may have taken the port.
    pub fn start(command: &mut Command, mut is_ready: impl FnMut() -> bool) -> Option<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut process = Self(child);
        for _ in 0..600 {
            if is_ready() {
                return Some(process);
            }
            if process.0.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("a server did not become ready: {command:?}");
    }

    pub fn signal(&self, name: &str) {
        done(Command::new("kill").args(["-s", name, &self.0.id().to_string()]));
    }

    pub fn wait(mut self) {
        self.0.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
