//! The proxies themselves, with the very files of `examples/`: only ports are replaced.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use support::stub::Stub;
use support::wire::{Reply, Wire};
use support::{Gate, Place, Tokens, with};
use tempfile::TempDir;

use super::scene::{bearer, run};

/// A proxy between clients and an upstream, and a gate that it asks.
struct Before {
    child: Child,
    gate: Gate,
    stub: Stub,
    address: SocketAddr,
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

/// The programs that Debian does not have.
fn installed(program: &str) -> PathBuf {
    let source = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/neighbours");
    let cache = support::target_folder("interop-cache").join("neighbours");
    let install = Command::new("bash").arg(source.join("install.sh")).arg(&cache).output().expect("bash is missing");
    assert!(install.status.success(), "{}", String::from_utf8_lossy(&install.stderr).trim());
    cache.join("bin").join(program)
}

impl Before {
    fn start(name: &str, command: impl Fn() -> Command) -> Self {
        // Another program may take the port between its choice and its use.
        (0..5).find_map(|_| Self::try_start(name, command())).unwrap_or_else(|| panic!("{name} does not start"))
    }

    fn try_start(name: &str, mut command: Command) -> Option<Self> {
        let stub = Stub::start();
        let question = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = question.local_addr().unwrap().to_string();
        let config = fs::read_to_string(examples(name).join("gateway.toml")).unwrap();
        let config = config.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:8082", &asked);
        let config = with(&with(&config, "admin", "listen = \"127.0.0.1:0\""), "store", "kind = \"memory\"");
        let place = Place::new(&config);
        let gate = place.start_with_sockets(vec![question.into()]);
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = port.local_addr().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(examples(name)).unwrap() {
            let entry = entry.unwrap();
            let mut text = fs::read_to_string(entry.path()).unwrap();
            let ports = [(8000, address.port()), (8080, gate.address.port()), (3000, stub.address.port())];
            text = text
                .replace("127.0.0.1:8082", &asked)
                .replace("port_value: 8082", &format!("port_value: {}", &asked[10..]));
            for (written, port) in ports {
                text = text.replace(&format!("127.0.0.1:{written}"), &format!("127.0.0.1:{port}"));
                text = text.replace(&format!("port_value: {written} "), &format!("port_value: {port} "));
                text = text.replace(&format!("http://:{written}"), &format!("http://:{port}"));
            }
            fs::write(folder.path().join(entry.file_name()), text).unwrap();
        }
        drop(port);
        let log = fs::File::create(folder.path().join("output.log")).unwrap();
        command.current_dir(folder.path()).env("HOME", folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} is missing ({error}): bash tests/setup.sh"));
        let mut before = Self { child, gate, stub, address, folder, place };
        before.is_up().then_some(before)
    }

    fn is_up(&mut self) -> bool {
        for _ in 0..600 {
            if self.child.try_wait().unwrap().is_some() {
                eprintln!("{}", fs::read_to_string(self.folder.path().join("output.log")).unwrap_or_default());
                return false;
            }
            // Traefik listens before it has its routes.
            if TcpStream::connect(self.address).is_ok() && self.ask("GET /private/up", &[]).status == 401 {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        eprintln!("{}", fs::read_to_string(self.folder.path().join("output.log")).unwrap_or_default());
        false
    }

    fn ask(&self, line: &str, headers: &[&str]) -> Reply {
        let mut wire = Wire::open(self.address);
        wire.head(line, &[&["Host: localhost"], headers].concat());
        wire.reply()
    }

    /// Logs in through the proxy, at the gate's own endpoint.
    fn login(&self) -> Tokens {
        run(self.gate.login())
    }
}

/// Headers by which a client pretends to be somebody, in the spelling that a neighbour removes.
const SPOOFED: [&str; 6] = [
    "X-Auth-Subject: root",
    "X-Auth-Scope: admin",
    "X-Auth-Account: root",
    "X-Forwarded-User: root",
    "X-User: root",
    "X-Http-Method-Override: DELETE",
];

/// What each neighbour must do, with its example.
fn holds(before: &mut Before) {
    let tokens = before.login();
    let good = bearer(&tokens);
    let claims: Value = {
        let payload = tokens.access.split('.').nth(1).unwrap();
        use base64::Engine;
        serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
    };
    let subject = claims["sub"].as_str().unwrap();
    before.stub.take();

    // A good token: the upstream sees ours alone, and no credential.
    let spoofed: Vec<&str> = std::iter::once(good.as_str()).chain(SPOOFED).collect();
    let reply = before.ask("GET /private/a?b=c", &spoofed);
    assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "{reply:?}");
    let received = before.stub.one();
    assert_eq!(received.target, "/private/a?b=c");
    assert_eq!(received.confusable("x-auth-subject"), [subject], "{received:?}");
    assert_eq!(received.confusable("x-auth-client"), ["web"], "{received:?}");
    for name in ["authorization", "x-forwarded-user", "x-user", "x-http-method-override"] {
        assert!(received.confusable(name).iter().all(|value| value.is_empty()), "{name}: {received:?}");
    }
    assert!(
        !received.confusable("x-auth-account").contains(&"root")
            && !received.confusable("x-auth-scope").contains(&"admin")
    );

    // Nobody: not even on an open route.
    let reply = before.ask("GET /public/a", &SPOOFED);
    assert_eq!(reply.status, 200, "{reply:?}");
    let received = before.stub.one();
    for name in ["x-auth-subject", "x-auth-scope", "x-auth-account", "x-auth-session", "x-auth-expires"] {
        assert!(received.confusable(name).iter().all(|value| value.is_empty()), "{name}: {received:?}");
    }

    // A disguise is refused, or does not arrive.
    for name in ["X_Auth_Subject", "X.Auth.Subject", "X-Auth_Subject"] {
        let reply = before.ask("GET /private/a", &[&good, &format!("{name}: root")]);
        for received in before.stub.take() {
            assert_eq!((reply.status, received.confusable("x-auth-subject")), (200, vec![subject]), "{name}");
        }
    }

    // Forged facts choose nothing.
    for forged in [
        "X-Original-URL: http://localhost/public/a",
        "X-Forwarded-Uri: /public/a",
        "X-Forwarded-Method: OPTIONS",
        "X-Forwarded-Prefix: /public",
        "X-Envoy-Original-Path: /public/a",
        "Connection: X-Forwarded-Uri",
    ] {
        let reply = before.ask("GET /private/a", &[forged]);
        assert!((400..=503).contains(&reply.status), "{forged}: {reply:?}");
    }
    assert!(before.stub.take().is_empty());

    // No token, and one that lacks a scope.
    let none = before.ask("GET /private/a", &[]);
    assert_eq!((none.status, none.header("www-authenticate")), (401, "Bearer"));
    let lacks = before.ask("GET /admin/a", &[&good]);
    assert_eq!(lacks.status, 403, "{lacks:?}");
    assert!(lacks.header("www-authenticate").contains("insufficient_scope"), "{lacks:?}");
    assert!(before.stub.take().is_empty());

    // No spelling of a protected path gets through as an open one.
    for target in [
        "/public/../admin/a",
        "/public/%2e%2e/admin/a",
        "/public/..%2fadmin/a",
        "/public/..;/admin/a",
        "/public//../admin/a",
        "/public/%252e%252e/admin/a",
        "/public/.%2e/admin/a",
        "/public/..%5cadmin/a",
        "//public/../admin/a",
        "/public/a/../../admin",
        "/%70ublic/../admin/a",
        "/admin/a?/public/",
        "/admin/a#/public/b",
    ] {
        let reply = before.ask(&format!("GET {target}"), &[]);
        // Envoy normalises, asks, and forwards the very path that it asked about.
        for received in before.stub.take() {
            let is_open = received.target.starts_with("/public/");
            let is_plain = !["..", "//", "%", "\\", ";"].iter().any(|trick| received.target.contains(trick));
            assert!(is_open && is_plain, "{target} arrived as {}: {reply:?}", received.target);
        }
    }

    // An upgrade is the neighbour's: it arrives.
    let handshake = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let mut wire = Wire::open(before.address);
    let lines: Vec<&str> = ["Host: localhost", &good].into_iter().chain(handshake).collect();
    wire.head("GET /private/ws", &lines);
    let _ = wire.reply_head();
    assert!(before.stub.one().all("upgrade")[0].eq_ignore_ascii_case("websocket"));

    // Revoked: at the next request.
    run(before.gate.revoke(&tokens.refresh));
    assert_eq!(before.ask("GET /private/a", &[&good]).status, 401);
    assert!(before.stub.take().is_empty());

    // Without the gate nothing passes.
    before.gate.kill();
    let refused = before.ask("GET /public/a", &[]);
    assert!((500..=504).contains(&refused.status), "{refused:?}");
    assert!(before.stub.take().is_empty());
}

#[test]
fn n17_n24_nginx_with_its_example() {
    let nginx = || {
        let mut command = Command::new("nginx");
        // Debian has it where only root looks.
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).args(["-p", ".", "-c", "nginx.conf", "-e", "stderr"]);
        command
    };
    holds(&mut Before::start("nginx", nginx));
}

#[test]
fn n17_n24_haproxy_with_its_example() {
    let haproxy = || {
        let mut command = Command::new("haproxy");
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default());
        command.env("PATH", path).args(["-db", "-f", "haproxy.cfg"]);
        command
    };
    holds(&mut Before::start("haproxy", haproxy));
}

#[test]
fn n17_n24_caddy_with_its_example() {
    let caddy = || {
        let mut command = Command::new("caddy");
        command.args(["run", "--config", "Caddyfile"]);
        command
    };
    holds(&mut Before::start("caddy", caddy));
}

#[test]
fn n17_n24_n25_envoy_with_its_example() {
    let program = installed("envoy-itself");
    let envoy = || {
        let mut command = Command::new(&program);
        command.args(["-c", "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warn"]);
        command
    };
    holds(&mut Before::start("envoy", envoy));
}

#[test]
fn n17_n24_traefik_with_its_example() {
    let program = installed("traefik");
    let traefik = || {
        let mut command = Command::new(&program);
        command.arg("--configFile=traefik.yaml");
        command
    };
    holds(&mut Before::start("traefik", traefik));
}
