//! Chromium: a page that nginx serves logs in, and opens WebSockets with the token in a cookie.

use std::collections::VecDeque;
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::nginx::Nginx;
use super::scene::{Scene, missing, program};
use crate::upstreams::server::Server;
use support::pki::Pki;
use support::stub::{Received, Stub};
use support::until;

/// A browser without a window, and all that belongs to it.
pub(crate) struct Chromium {
    child: Child,
    profile: TempDir,
}

impl Chromium {
    fn start(scene: &Scene, url: &str) -> Self {
        Self::open(&format!("MAP gate.test:443 {}", scene.address()), url)
    }

    /// A window at this URL, with these rules for names of hosts. No other name leads anywhere.
    pub(crate) fn open(hosts: &str, url: &str) -> Self {
        Self::open_with(hosts, url, &["--ignore-certificate-errors"])
    }

    /// As above, with further arguments.
    pub(crate) fn open_with(hosts: &str, url: &str, more: &[&str]) -> Self {
        let profile = tempfile::tempdir().unwrap();
        let mut command = program("chromium");
        // No system trusts the authority of the tests, and Chromium has no sandbox for root.
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]);
        command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
        command.args(["--disable-dev-shm-usage", "--no-proxy-server"]).args(more);
        // Pages open tabs without a click.
        command.arg("--disable-popup-blocking");
        command.arg(format!("--host-resolver-rules={hosts}, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"));
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg(url);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| missing("chromium", "chromium", &error));
        Self { child, profile }
    }

    /// The address for commands (Chrome DevTools Protocol), once Chromium listens; needs `--remote-debugging-port=0`.
    pub(crate) fn commands_at(&self) -> Option<(u16, String)> {
        let said = std::fs::read_to_string(self.profile.path().join("DevToolsActivePort")).ok()?;
        let (port, path) = said.trim().split_once('\n')?;
        Some((port.parse().ok()?, path.to_owned()))
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // Chromium has child processes, which write into its folder.
        let group = format!("-{}", self.child.id());
        let _ = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
        let _ = self.child.wait();
    }
}

/// The reports of the page, in order.
pub(crate) struct Told {
    stub: Stub,
    waiting: VecDeque<Received>,
}

impl Told {
    pub(crate) fn start() -> Self {
        Self { stub: Stub::start(), waiting: VecDeque::new() }
    }

    /// The URL of a page, with the parameters of its script: the address for reports, and the password of the user.
    pub(crate) fn url(&self, page: &str, password: &str) -> String {
        let handed = json!({ "tell": format!("http://{}/", self.stub.address), "password": password });
        let handed: String = form_urlencoded::byte_serialize(handed.to_string().as_bytes()).collect();
        format!("{page}#{handed}")
    }

    pub(crate) async fn next(&mut self) -> Value {
        let Self { stub, waiting } = self;
        until("the page tells something", async || {
            waiting.extend(stub.take());
            !waiting.is_empty()
        })
        .await;
        serde_json::from_slice(&waiting.pop_front().unwrap().body).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_chromium_opens_websockets_by_cookie_and_is_told_why_they_end() {
    let pki = Pki::new();
    let nginx = Nginx::start(&pki);
    nginx.put("page.html", include_bytes!("page.html"));
    nginx.put("text.txt", "words and words\n".repeat(20_000).as_bytes());
    let (clear, secure) =
        (Server::plain().await, Server::secure(&pki.issue(&["127.0.0.1"]), &["h2", "http/1.1"]).await);
    let mut told = Told::start();
    let mut more = nginx.routes();
    for (name, url, lines) in [
        ("ws", format!("http://{}", clear.address), ""),
        ("wss", format!("https://{}", secure.address), "ca = \"ca.pem\"\n"),
    ] {
        more += &format!(
            "[[upstreams]]\nname = \"{name}\"\nurls = [\"{url}\"]\n{lines}\
             [[routes]]\npath = \"/{name}\"\nupgrade = true\ncookie = \"token\"\nupstream = \"{name}\"\n"
        );
    }
    let mut scene = Scene::new(&pki, &more);
    let chromium = Chromium::start(&scene, &told.url("https://gate.test/http2/page.html", &scene.gate.password));

    assert_eq!(told.next().await, json!({ "text": 320_000, "protocol": "h2" }));
    assert_eq!(told.next().await, json!({ "without a token": 1006, "opened": false }));
    for (path, end) in [("/ws", ""), ("/wss", "http/1.1")] {
        let said = format!("hello over {end} to ");
        assert_eq!(told.next().await, json!({ "path": path, "echo": said, "long": 300_000 + said.len() - 5 }));
        let reason = "the access token is no longer valid";
        assert_eq!(told.next().await, json!({ "path": path, "code": 1008, "reason": reason, "clean": true }));
    }
    assert_eq!(told.next().await, json!({ "path": "/ws", "again": "refused" }));
    assert_eq!(told.next().await, json!({ "path": "/ws", "open": true }));
    let pid = scene.gate.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(
        told.next().await,
        json!({ "path": "/ws", "code": 1001, "reason": "the gate is stopping", "clean": true })
    );
    drop(chromium);
    assert!(scene.gate.child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b20_b26_b36_chromium_logs_in_by_the_form_and_no_script_sees_the_cookie() {
    let pki = Pki::new();
    let nginx = Nginx::start(&pki);
    nginx.put("page.html", include_bytes!("session.html"));
    nginx.put("private.html", b"<title>private</title>the private page");
    nginx.put("bye.html", b"<title>bye</title>");
    nginx.put(
        "quiet.html",
        b"<meta name=referrer content=no-referrer><form method=post action=/clear/private.html><button></form>",
    );
    let mut told = Told::start();
    let more = "[[endpoints]]\ndialect = \"browser\"\npath = \"/auth\"\nafter_logout = \"/clear/bye.html\"\n\
                [[routes]]\npath = \"/clear/private.html\"\ncredentials = [\"session\"]\nupstream = \"clear\"\n";
    let scene = Scene::new(&pki, &format!("{}{more}", nginx.routes()));
    let chromium = Chromium::start(&scene, &told.url("https://gate.test/clear/page.html", &scene.gate.password));

    assert_eq!(told.next().await, json!({ "script": 401, "login": "/auth/login" }));
    assert_eq!(told.next().await, json!({ "wrong": 401, "styled": "block" }));
    assert_eq!(told.next().await, json!({ "search": "?x=1", "text": "the private page" }));
    assert_eq!(told.next().await, json!({ "cookie": "", "session": true }));
    assert_eq!(told.next().await, json!({ "script": 200 }));
    assert_eq!(told.next().await, json!({ "quiet": 405 }));
    assert_eq!(told.next().await, json!({ "framed": false }));
    assert_eq!(told.next().await, json!({ "session": true }), "a link and an image end nothing");
    assert_eq!(told.next().await, json!({ "session": false }));
    assert_eq!(told.next().await, json!({ "again": "?to=%2Fclear%2Fprivate.html" }));
    drop(chromium);
}
