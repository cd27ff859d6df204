//! A Redis server that a test starts.

use std::process::Command;

use tempfile::TempDir;

use crate::pki::Pki;
use crate::server::{Process, done, folder, free_port, program, unprivileged, write};

/// A server with a folder of its own, on a port of the system's choice.
pub struct Redis {
    process: Option<Process>,
    pub port: u16,
    folder: TempDir,
    settings: Vec<String>,
}

impl Redis {
    /// Starts a server with these settings besides the default ones.
    pub fn start(settings: &[&str]) -> Self {
        Self::start_in(folder(), settings.iter().map(|setting| (*setting).to_owned()).collect())
    }

    /// Starts a server that demands TLS with certificates of `pki` from both sides, but for its own client here. The port
    /// for it is the second value.
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
        let mut command = Command::new(program("redis-cli", &[]));
        command.args(["-p", &self.port.to_string()]);
        command
    }

    /// What an operator does by hand.
    pub fn cli(&self, args: &[&str]) -> String {
        done(self.client().args(args)).trim().to_owned()
    }

    /// Was it not killed?
    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// As a power failure would.
    pub fn kill(&mut self) {
        let process = self.process.take().unwrap();
        process.signal("KILL");
        process.wait();
    }

    /// On the same port, with what is in its folder.
    pub fn start_again(&mut self) {
        self.process = self.serve();
        assert!(self.process.is_some(), "Redis does not start again");
    }
}
