//! The program itself, started by a bench.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A gate with one client, its admin listener on port `ADMIN`, and an upstream that echoes.
pub(crate) const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"
public_url = "http://gate.test"
[admin]
listen = "127.0.0.1:ADMIN"
[issuer]
audience = ["api"]
[[clients]]
id = "web"
[[endpoints]]
dialect = "oauth2"
path = "/connect/token"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

/// A gate on the files of a folder: `gateway.toml` in it.
pub(crate) struct Gate(Child);

impl Gate {
    pub(crate) fn start(folder: &Path) -> Self {
        let mut child = rotogate(folder).arg("--json").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the gate did not start");
        Self(child)
    }

    /// A line of its `/proc/…/status`, in MiB.
    pub(crate) fn memory(&self, name: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The port of a listener that nothing else has at this moment.
pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A folder with this configuration, and an empty `data` for the program.
pub(crate) fn folder(config: impl FnOnce(&Path) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    fs::write(folder.path().join("gateway.toml"), config(folder.path())).unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    folder
}

pub(crate) fn rotogate(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rotogate"));
    command.arg("--config").arg(folder.join("gateway.toml")).current_dir(folder);
    command
}

/// Prints a figure, and whether it meets its goal.
pub(crate) fn goal(name: &str, measured: f64, limit: f64, unit: &str) {
    let met = if measured <= limit { "met" } else { "NOT MET" };
    println!("{name:<58} {measured:>8.2} {unit:<3} goal {limit:>6.2} {unit:<3} {met}");
}
