//! Behind a real proxy, configured as docs/forward-auth.md says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::Receiver;

use serde_json::Value;
use support::server::{Process, free_port};
use support::{CONFIG, Gate, Place, until, with};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::upgrades::upstream;

/// The client, which is not the address that the proxy has.
const CLIENT: &str = "127.0.0.2:0";

/// The configuration of a proxy on the page, with the ports of this test. The first block of a language is for a gate
/// in the path.
fn block(language: &str, gate: &Gate, port: u16) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/forward-auth.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, rest) = page.split_once(&format!("```{language}\n")).expect("a block of this proxy");
    let block = rest.split("```").next().unwrap();
    let ports = [
        ("127.0.0.1:8080", gate.address.to_string()),
        ("port 8081", format!("port {}", gate.admin.port())),
        ("listen 80;", format!("listen 127.0.0.1:{port};")),
        ("bind :80\n", format!("bind 127.0.0.1:{port}\n")),
    ];
    ports.iter().fold(block.to_owned(), |block, (from, to)| block.replace(from, to))
}

/// Starts a proxy: the command of a port, whose program another one may have taken meanwhile.
fn start(mut command: impl FnMut(u16) -> Command) -> (Process, u16) {
    let started = (0..10).find_map(|_| {
        let port = free_port();
        let is_up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        Process::start(&mut command(port), is_up).map(|process| (process, port))
    });
    started.expect("the proxy starts")
}

async fn connect(port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(CLIENT.parse().unwrap()).unwrap();
    socket.connect(([127, 0, 0, 1], port).into()).await.unwrap()
}

/// The lines of a path in the access log.
fn lines(place: &Place, path: &str) -> Vec<Value> {
    let text = fs::read_to_string(place.path("access.log")).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let all = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|line| line["url.path"] == path).collect()
}

fn gate() -> (Place, Gate, Receiver<String>) {
    let (port, heads) = upstream();
    let config = with(CONFIG, "server", "trusted_proxies = [\"127.0.0.1/32\"]");
    let config = with(
        &config,
        "access_log",
        "output = \"./access.log\"\nfor_tests.format = \"json\"\nfor_tests.flush_interval = \"10ms\"",
    );
    let tunnel = format!(
        "[[upstreams]]\nname = \"live\"\nurls = [\"http://127.0.0.1:{port}\"]\n\
         [[routes]]\npath = \"/tunnel\"\nupgrade = true\nupstream = \"live\"\n"
    );
    let place = Place::new(&format!("{config}{tunnel}"));
    let gate = place.start();
    (place, gate, heads)
}

/// The checks that hold behind every proxy.
async fn is_right(place: &Place, gate: &Gate, port: u16) {
    // The path arrives unchanged by the proxy.
    let path = "/public/a%20b;c/~d";
    let head = "host: gate.test\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil.test\r\n\
                connection: close\r\n\r\n";
    let mut stream = connect(port).await;
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{head}").as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    assert!(!reply.contains("6.6.6.6") && !reply.contains("evil.test"), "{reply}");
    until("the line is written", async || !lines(place, path).is_empty()).await;
    let line = &lines(place, path)[0];
    assert_eq!(
        (&line["client.address"], &line["network.peer.address"], &line["server.address"]),
        (&"127.0.0.2".into(), &"127.0.0.1".into(), &"gate.test".into()),
        "{line:#}"
    );

    // The longest token of another issuer passes.
    let mut stream = connect(port).await;
    let token = format!("GET /public/long HTTP/1.1\r\nauthorization: Bearer {}\r\n{head}", "x".repeat(24 << 10));
    stream.write_all(token.as_bytes()).await.unwrap();
    reply.clear();
    stream.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");

    // A WebSocket passes.
    let mut stream = connect(port).await;
    let token = gate.login().await.access;
    let upgrade = format!(
        "GET /tunnel HTTP/1.1\r\nhost: gate.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await.unwrap();
    let (mut got, mut bytes) = (Vec::new(), [0; 1024]);
    while !got.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut bytes).await.unwrap();
        assert!(read > 0, "{}", String::from_utf8_lossy(&got));
        got.extend_from_slice(&bytes[..read]);
    }
    assert!(got.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&got));
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HELLO");
}

/// Debian installs them where only root looks.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_nginx_as_documented_the_client_is_known_and_tunnels_pass() {
    let (place, gate, _heads) = gate();
    let folder = place.path("nginx");
    fs::create_dir(&folder).unwrap();
    let (_nginx, port) = start(|port| {
        let http = format!("access_log off; {}", block("nginx", &gate, port));
        fs::write(folder.join("nginx.conf"), format!("daemon off; pid nginx.pid; events {{}}\nhttp {{ {http} }}\n"))
            .unwrap();
        let mut nginx = program("nginx");
        // One process: workers would outlive a killed master.
        nginx.args(["-c", "nginx.conf", "-e", "error.log", "-g", "master_process off;", "-p"]).arg(&folder);
        nginx
    });
    is_right(&place, &gate, port).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_haproxy_as_documented_the_client_is_known_and_tunnels_pass() {
    let (place, gate, _heads) = gate();
    let file = place.path("haproxy.cfg");
    let (_haproxy, port) = start(|port| {
        fs::write(&file, block("haproxy", &gate, port)).unwrap();
        let mut haproxy = program("haproxy");
        haproxy.args(["-db", "-f"]).arg(&file);
        haproxy
    });
    is_right(&place, &gate, port).await;
}
