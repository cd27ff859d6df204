//! The proxies themselves, each started with the files of its folder in `examples/`, in which only ports are replaced.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::server::free_port;
use support::stub::Stub;
use support::wire::{Reply, Wire};
use support::{Gate, Place, Tokens, with};
use tempfile::TempDir;

use super::scene::run;

/// A proxy to start.
pub(super) struct Program {
    /// The folder in `examples/`.
    pub(super) name: &'static str,
    /// Does it forward a path in another form than the client sent? Then it asks about that form.
    pub(super) normalises: bool,
    command: fn() -> Command,
    made: Option<Made>,
}

/// A file that is made from a file of the folder.
struct Made {
    name: &'static str,
    of: &'static str,
    how: fn(&str) -> String,
}

pub(super) const NGINX: Program = Program { name: "nginx", normalises: false, command: nginx, made: None };
/// F5's NGINX Ingress Controller: nginx, with the configuration that the controller would write.
pub(super) const F5: Program = Program {
    name: "f5-nginx-ingress",
    normalises: false,
    command: nginx,
    made: Some(Made { name: "nginx.conf", of: "ingress.yaml", how: super::f5::rendered }),
};
pub(super) const HAPROXY: Program = Program {
    name: "haproxy",
    normalises: false,
    command: || of_debian("haproxy", &["-db", "-f", "haproxy.cfg"]),
    made: None,
};
pub(super) const CADDY: Program = Program {
    name: "caddy",
    normalises: false,
    command: || of_debian("caddy", &["run", "--config", "Caddyfile"]),
    made: None,
};
pub(super) const TRAEFIK: Program = Program {
    name: "traefik",
    normalises: true,
    command: || installed("traefik", &["--configFile=traefik.yaml"]),
    made: None,
};
pub(super) const ENVOY: Program = Program { name: "envoy", normalises: true, command: envoy, made: None };
pub(super) const ENVOY_HTTP: Program = Program { name: "envoy-http", normalises: true, command: envoy, made: None };

/// All of them.
pub(super) const ALL: [&Program; 7] = [&NGINX, &F5, &HAPROXY, &CADDY, &TRAEFIK, &ENVOY, &ENVOY_HTTP];

fn nginx() -> Command {
    // One process: workers would outlive a killed master.
    of_debian("nginx", &["-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", "master_process off;"])
}

fn envoy() -> Command {
    let arguments = ["-c", "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn"];
    installed("envoy-itself", &arguments)
}

/// Debian has some programs where only root looks.
fn of_debian(program: &str, arguments: &[&str]) -> Command {
    let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.env("PATH", path).args(arguments);
    command
}

/// The programs that Debian does not have.
fn installed(program: &str, arguments: &[&str]) -> Command {
    let cache = support::clients::installed("neighbours");
    let mut command = Command::new(cache.join("bin").join(program));
    command.args(arguments);
    command
}

/// A proxy between clients and an upstream, and a gate that it asks.
pub(super) struct Before {
    child: Child,
    pub(super) gate: Gate,
    pub(super) stub: Stub,
    pub(super) address: SocketAddr,
    /// The gate's listener for questions.
    pub(super) asked: SocketAddr,
    folder: TempDir,
    #[expect(dead_code, reason = "its folder stays while the gate runs")]
    place: Place,
}

impl Drop for Before {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn examples(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples")).join(name)
}

impl Before {
    /// Starts both, with the gate's sessions in memory.
    pub(super) fn start(program: &Program) -> Self {
        Self::start_on("kind = \"memory\"", program)
    }

    /// With these keys of the gate's `[store]`.
    pub(super) fn start_on(store: &str, program: &Program) -> Self {
        // Another program may take the port between its choice and its use.
        Self::start_changed(store, program, &|text| text, &|_| {})
    }

    /// With each file changed, and further files in the folders of both.
    pub(super) fn start_changed(
        store: &str,
        program: &Program,
        change: &dyn Fn(String) -> String,
        files: &dyn Fn(&Path),
    ) -> Self {
        let start = |_| Self::try_start(program, store, change, files, (program.command)());
        (0..5).find_map(start).unwrap_or_else(|| panic!("{} does not start", program.name))
    }

    fn try_start(
        program: &Program,
        store: &str,
        change: &dyn Fn(String) -> String,
        files: &dyn Fn(&Path),
        mut command: Command,
    ) -> Option<Self> {
        let name = program.name;
        let stub = Stub::start();
        let question = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = question.local_addr().unwrap().to_string();
        let config = fs::read_to_string(examples(name).join("gateway.toml")).unwrap();
        let config = config.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:8082", &asked);
        // F5's controller runs elsewhere, and has another public name.
        let config = config.replace("0.0.0.0:8082", &asked).replace("10.0.0.0/8", "127.0.0.1/32");
        let config = config.replace("https://api.example.com", "http://localhost:8000");
        let config = with(&with(&config, "admin", "listen = \"127.0.0.1:0\""), "store", store);
        let place = Place::new(&change(config));
        files(&place.path(""));
        let gate = place.start_with_sockets(vec![question.into()]);
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let folder = tempfile::tempdir().unwrap();
        let own = fs::read_dir(examples(name)).unwrap().map(|entry| entry.unwrap().file_name());
        let mut all: Vec<_> = own.map(|own| (fs::read_to_string(examples(name).join(&own)).unwrap(), own)).collect();
        if let Some(Made { name: file, of, how }) = &program.made {
            all.push((how(&fs::read_to_string(examples(name).join(of)).unwrap()), (*file).into()));
        }
        for (mut text, file) in all {
            let asked: SocketAddr = asked.parse().unwrap();
            let ports = [(8000, address), (8080, gate.address), (8082, asked), (3000, stub.address)];
            // A free port may begin with the digits of a written one, so all written ones go first.
            for (written, _) in ports {
                for before in ["127.0.0.1:", "port_value: ", "http://:"] {
                    text = text.replace(&format!("{before}{written}"), &format!("{before}@{written}@"));
                }
            }
            for (written, address) in ports {
                text = text.replace(&format!("@{written}@"), &address.port().to_string());
            }
            fs::write(folder.path().join(file), change(text)).unwrap();
        }
        files(folder.path());
        let log = fs::File::create(folder.path().join("output.log")).unwrap();
        command.current_dir(folder.path()).env("HOME", folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} is missing ({error}): bash tests/setup.sh"));
        let asked = asked.parse().unwrap();
        let mut before = Self { child, gate, stub, address, asked, folder, place };
        before.is_up().then_some(before)
    }

    fn is_up(&mut self) -> bool {
        for _ in 0..600 {
            if self.child.try_wait().unwrap().is_some() {
                eprintln!("{}", self.output());
                return false;
            }
            // Traefik listens before it has its routes.
            if let Ok(stream) = TcpStream::connect(self.address) {
                let mut wire = Wire::on(stream);
                wire.head("GET /private/up", &["Host: localhost"]);
                // A starting proxy may close connections without an answer.
                if wire.try_reply(false).is_some_and(|reply| reply.status == 401) {
                    return true;
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{}", self.output());
        false
    }

    /// The output of the proxy.
    pub(super) fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output.log")).unwrap_or_default()
    }

    pub(super) fn ask(&self, line: &str, headers: &[&str]) -> Reply {
        self.ask_at("localhost", line, headers)
    }

    /// With this `Host`.
    pub(super) fn ask_at(&self, host: &str, line: &str, headers: &[&str]) -> Reply {
        let mut wire = Wire::open(self.address);
        wire.head(line, &[&[&*format!("Host: {host}")], headers].concat());
        wire.reply()
    }

    pub(super) fn ask_with_body(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        let mut wire = Wire::open(self.address);
        let lines = [&["Host: localhost"], headers].concat().join("\r\n");
        wire.send(format!("{line} HTTP/1.1\r\n{lines}\r\n\r\n{body}"));
        wire.reply()
    }

    pub(super) fn login(&self) -> Tokens {
        run(self.gate.login())
    }
}
