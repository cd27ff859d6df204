//! A Redis server that a test starts.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::pki::Pki;
use crate::server::{Process, done, folder, free_port, program, unprivileged, write};

pub struct Redis {
    process: Option<Process>,
    pub port: u16,
    folder: TempDir,
    settings: Vec<String>,
}

impl Redis {
    pub fn start(settings: &[&str]) -> Self {
        Self::start_in(folder(), settings.iter().map(|setting| (*setting).to_owned()).collect())
    }

    /// Starts a server that requires TLS with certificates of `pki` on both sides. The second value is a port without
    /// TLS, for this module's own client.
    pub fn start_with_tls(pki: &Pki) -> (Self, u16) {
        let (folder, port) = (folder(), free_port());
        let pair = pki.issue(&["localhost"]);
        for (name, text) in [("cert.pem", &pair.cert), ("key.pem", &pair.key), ("ca.pem", &pki.root_pem())] {
            write(&folder.path().join(name), text);
        }
        let file = |option: &str, name: &str| format!("--{option} {}", folder.path().join(name).display());
        let settings = vec![
            format!("--tls-port {port}"),
            file("tls-cert-file", "cert.pem"),
            file("tls-key-file", "key.pem"),
            file("tls-ca-cert-file", "ca.pem"),
            "--tls-auth-clients yes".to_owned(),
        ];
        (Self::start_in(folder, settings), port)
    }

    fn start_in(folder: TempDir, settings: Vec<String>) -> Self {
        let mut server = Self { process: None, port: 0, folder, settings };
        for _ in 0..5 {
            server.port = free_port();
            server.process = server.serve();
            if server.process.is_some() {
                return server;
            }
        }
        panic!("Redis does not start");
    }

    fn serve(&self) -> Option<Process> {
        let mut command = unprivileged(&program("redis-server", &[]));
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        command.arg(self.folder.path());
        command.args(self.settings.iter().flat_map(|setting| setting.split(' ')));
        Process::start(&mut command, || {
            let output = self.client().arg("PING").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            said.contains("PONG") || said.contains("NOAUTH")
        })
    }

    fn client(&self) -> Command {
        client(self.port)
    }

    pub fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }

    /// Sends a signal. After STOP, the server's connections stay open.
    pub fn signal(&self, name: &str) {
        self.process.as_ref().unwrap().signal(name);
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Simulates a power failure.
    pub fn kill(&mut self) {
        let process = self.process.take().unwrap();
        process.signal("KILL");
        process.wait();
    }

    pub fn copy_of_disk(&self) -> TempDir {
        let copy = folder();
        copy_files(self.folder.path(), copy.path());
        copy
    }

    /// Restarts the server with an earlier copy of its disk, so that later writes are lost.
    pub fn go_back_to(&mut self, copy: &TempDir) {
        self.kill();
        done(Command::new("rm").arg("-r").arg(self.folder.path().join("appendonlydir")));
        copy_files(copy.path(), self.folder.path());
        self.start_again();
    }

    /// Starts the server again, with the same port and folder.
    pub fn start_again(&mut self) {
        self.process = self.serve();
        assert!(self.process.is_some(), "Redis does not start again");
    }
}

fn copy_files(from: &Path, to: &Path) {
    done(Command::new("cp").arg("-a").arg(from.join(".")).arg(to));
}

fn client(port: u16) -> Command {
    let mut command = Command::new(program("redis-cli", &[]));
    command.args(["-p", &port.to_string()]);
    command
}

fn cli(port: u16, args: &[&str]) -> String {
    done(client(port).args(args)).trim().to_owned()
}

/// A primary, two replicas and three Sentinels.
pub struct Replicated {
    /// The first server is the initial primary.
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Sentinel>,
}

pub const PRIMARY: &str = "main";

pub struct Sentinel {
    _process: Process,
    _folder: TempDir,
    pub port: u16,
}

impl Replicated {
    pub fn start(settings: &[&str]) -> Self {
        let mut servers = vec![Redis::start(settings)];
        let port = servers[0].port;
        for _ in 0..2 {
            let follow = format!("--replicaof 127.0.0.1 {port}");
            servers.push(Redis::start(&[settings, &[follow.as_str()]].concat()));
        }
        let sentinels = (0..3).map(|_| Sentinel::start(port)).collect();
        let all = Self { servers, sentinels };
        all.until("both replicas follow", || {
            let said = all.servers[0].cli(&["INFO", "replication"]);
            said.matches("state=online").count() == 2
        });
        all.until("the Sentinels know each other and the replicas", || {
            all.sentinels.iter().all(|sentinel| {
                let said = cli(sentinel.port, &["SENTINEL", "MASTER", PRIMARY]);
                let fields: Vec<_> = said.lines().collect();
                let is = |name: &str, value: &str| fields.windows(2).any(|pair| pair == [name, value]);
                is("num-slaves", "2") && is("num-other-sentinels", "2")
            })
        });
        all
    }

    pub fn urls(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| format!("redis://127.0.0.1:{}", sentinel.port)).collect()
    }

    pub fn primary(&self) -> u16 {
        let said = cli(self.sentinels[0].port, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY]);
        said.lines().last().unwrap().parse().unwrap()
    }

    pub fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..1200 {
            if is_so() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("not within a minute: {what}");
    }
}

impl Sentinel {
    pub fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }

    fn start(primary: u16) -> Self {
        for _ in 0..5 {
            let (folder, port) = (folder(), free_port());
            let file = folder.path().join("sentinel.conf");
            let lines = [
                format!("port {port}"),
                "bind 127.0.0.1".to_owned(),
                format!("dir {}", folder.path().display()),
                format!("sentinel monitor {PRIMARY} 127.0.0.1 {primary} 2"),
                format!("sentinel down-after-milliseconds {PRIMARY} 2000"),
                format!("sentinel failover-timeout {PRIMARY} 4000"),
            ];
            write(&file, &lines.join("\n"));
            let mut command = unprivileged(&program("redis-server", &[]));
            command.arg(&file).arg("--sentinel");
            let process = Process::start(&mut command, || {
                let output = client(port).arg("PING").output().unwrap();
                String::from_utf8_lossy(&output.stdout).contains("PONG")
            });
            if let Some(process) = process {
                return Self { _process: process, _folder: folder, port };
            }
        }
        panic!("a Sentinel does not start");
    }
}
