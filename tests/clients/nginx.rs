//! nginx, with files.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::scene::missing;
use support::pki::Pki;

/// Below which its files are, in the order of their ports: in clear, over TLS, and over TLS with HTTP/2.
pub(crate) const WAYS: [&str; 3] = ["clear", "tls", "http2"];

pub(crate) struct Nginx {
    child: Child,
    folder: TempDir,
    ports: [u16; 3],
}

impl Nginx {
    pub(crate) fn start(pki: &Pki) -> Self {
        // Another program may take a port between its choice and its use.
        (0..10).find_map(|_| Self::try_start(pki)).expect("nginx does not start; see its error.log above")
    }

    fn try_start(pki: &Pki) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ports = WAYS.map(|_| support::server::free_port());
        let mut config = include_str!("nginx.conf").to_owned();
        for (way, port) in WAYS.iter().zip(ports) {
            config = config.replace(&format!("@{way}@"), &port.to_string());
        }
        fs::write(folder.path().join("nginx.conf"), config).unwrap();
        fs::create_dir(folder.path().join("files")).unwrap();
        fs::create_dir(folder.path().join("up")).unwrap();
        let pair = pki.issue(&["127.0.0.1"]);
        fs::write(folder.path().join("nginx.pem"), &pair.cert).unwrap();
        support::pki::write_private(&folder.path().join("nginx.key"), &pair.key);
        let mut command = Command::new("nginx");
        // Debian has it where only root looks.
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).args(["-c", "nginx.conf", "-e", "error.log", "-p"]).arg(folder.path());
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| missing("nginx", "nginx-light", &error));
        let mut nginx = Self { child, folder, ports };
        nginx.is_up().then_some(nginx)
    }

    /// nginx listens a moment after its start.
    fn is_up(&mut self) -> bool {
        for _ in 0..600 {
            if self.child.try_wait().unwrap().is_some() {
                eprintln!("{}", fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default());
                return false;
            }
            if self.ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_ok()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    /// A file that it serves.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.folder.path().join("files").join(name), bytes).unwrap();
    }

    /// The file that nginx keeps for an upload to `up/`.
    pub(crate) fn kept(&self, name: &str) -> PathBuf {
        self.folder.path().join("up").join(name)
    }

    /// The upstreams, with public routes to them; `up/` requires a token.
    pub(crate) fn routes(&self) -> String {
        let route = |(way, port): (&str, u16)| {
            let (scheme, lines) = if way == "clear" { ("http", "") } else { ("https", "ca = \"ca.pem\"\n") };
            format!(
                "[[upstreams]]\nname = \"{way}\"\nurls = [\"{scheme}://127.0.0.1:{port}\"]\n{lines}\
                 [[routes]]\npath = \"/{way}/{{*rest}}\"\nauth = \"none\"\nupstream = \"{way}\"\n\
                 [[routes]]\npath = \"/{way}/up/{{*rest}}\"\nupstream = \"{way}\"\n"
            )
        };
        WAYS.into_iter().zip(self.ports).map(route).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
