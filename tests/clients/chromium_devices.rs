//! Chromium binds sessions to a device (Device Bound Session Credentials), with keys in software: a test of the real
//! protocol, and of what ends a binding.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use support::pki::{Pair, Pki};
use support::stub::Edge;
use support::until;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tungstenite::{Message, WebSocket};

use super::chromium::Chromium;
use crate::edge::browser_device::{edge, later};

const BOUND: &str = "device_bound = \"optional\"\n";
/// Keys in software, also without a window and without a chip.
const SOFTWARE: &str =
    "--enable-features=DeviceBoundSessions,EnableBoundSessionCredentialsSoftwareKeysForManualTesting";
pub(super) const WITHOUT: &str = "--disable-features=DeviceBoundSessions";

/// The fate of a refresh on its way to the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weather {
    Fair,
    /// The connection ends without an answer.
    Cut,
    /// A proxy answers 503.
    Unavailable,
}

/// A server that ends TLS in front of a gate.
struct Front {
    address: SocketAddr,
    gate: Arc<Mutex<SocketAddr>>,
    weather: Arc<AtomicU8>,
}

impl Front {
    async fn start(pair: &Pair, gate: SocketAddr) -> Self {
        let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config =
            rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(chain, key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (gate, weather) = (Arc::new(Mutex::new(gate)), Arc::new(AtomicU8::new(0)));
        let (to, now) = (Arc::clone(&gate), Arc::clone(&weather));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, to, now) = (acceptor.clone(), Arc::clone(&to), Arc::clone(&now));
                tokio::spawn(async move {
                    let stream = acceptor.accept(stream).await?;
                    let gate = *to.lock();
                    serve(BufReader::new(stream), gate, &now).await
                });
            }
        });
        Self { address, gate, weather }
    }

    fn set(&self, weather: Weather) {
        self.weather.store(weather as u8, Ordering::SeqCst);
    }
}

/// One request, and its answer.
async fn serve(
    mut client: BufReader<tokio_rustls::server::TlsStream<tokio::net::TcpStream>>,
    gate: SocketAddr,
    weather: &AtomicU8,
) -> std::io::Result<()> {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(number) = lower.strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    client.read_exact(&mut body).await?;
    let is_refresh =
        head.starts_with("POST /auth/device ") && head.to_ascii_lowercase().contains("sec-secure-session-id");
    match weather.load(Ordering::SeqCst) {
        at if !is_refresh || at == Weather::Fair as u8 => {}
        at if at == Weather::Cut as u8 => return Ok(()),
        _ => {
            client
                .write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                .await?;
            return client.shutdown().await;
        }
    }
    let mut upstream = tokio::net::TcpStream::connect(gate).await?;
    upstream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await?;
    upstream.write_all(&body).await?;
    tokio::io::copy(&mut upstream, &mut client).await?;
    client.shutdown().await
}

/// The window of a browser, moved by commands.
pub(super) struct Tab {
    socket: WebSocket<TcpStream>,
    session: Value,
    last: u64,
    events: VecDeque<Value>,
}

impl Tab {
    async fn of(chromium: &Chromium) -> Self {
        until("Chromium takes commands", async || chromium.commands_at().is_some()).await;
        let (port, path) = chromium.commands_at().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (socket, _) = tungstenite::client(format!("ws://127.0.0.1:{port}{path}"), stream).unwrap();
        let mut tab = Self { socket, session: Value::Null, last: 0, events: VecDeque::new() };
        let mut page = Value::Null;
        until("a page is open", async || {
            let targets = tab.command("Target.getTargets", &json!({}));
            let found = targets["targetInfos"].as_array().unwrap().iter().find(|it| {
                it["type"] == "page" && it["url"].as_str().is_some_and(|url| url.starts_with("https://gate.test/"))
            });
            page = found.map(|it| it["targetId"].clone()).unwrap_or_default();
            !page.is_null()
        })
        .await;
        let attached = tab.command("Target.attachToTarget", &json!({ "targetId": page, "flatten": true }));
        tab.session = attached["sessionId"].clone();
        tab.command("Network.enable", &json!({}));
        tab.command("Network.enableDeviceBoundSessions", &json!({ "enable": true }));
        let loaded = "location.host + ' ' + document.title + ' ' + document.readyState";
        until("the page is loaded", async || tab.run(loaded).await == "gate.test page complete").await;
        tab
    }

    pub(super) fn command(&mut self, method: &str, params: &Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        self.socket.send(Message::text(command.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let said: Value = serde_json::from_str(&text).unwrap();
            if said["id"] == self.last {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].clone();
            }
            if said["method"] == "Network.deviceBoundSessionEventOccurred" {
                self.events.push_back(said["params"].clone());
            }
        }
    }

    /// The value of a script.
    pub(super) async fn run(&mut self, script: &str) -> Value {
        let params = json!({ "expression": script, "awaitPromise": true, "returnByValue": true });
        tokio::task::block_in_place(|| self.command("Runtime.evaluate", &params))["result"]["value"].clone()
    }

    /// The status of a request of the page; 0 if there was no answer.
    async fn get(&mut self, path: &str) -> Value {
        self.run(&format!("fetch('{path}').then((answer) => answer.status, () => 0)")).await
    }

    async fn state(&mut self, member: &str) -> Value {
        self.run(&format!("fetch('/auth/session').then((answer) => answer.json()).then((it) => it.{member})")).await
    }

    async fn log_in(&mut self, password: &str) {
        let body = json!({ "username": "demo", "password": password }).to_string();
        let login = format!(
            "fetch('/auth/login', {{ method: 'POST', headers: {{ 'content-type': 'application/json' }}, body: '{body}' }})\
             .then((answer) => answer.status)"
        );
        assert_eq!(self.run(&login).await, 200);
    }

    /// Takes the cookie of the device away, as its end does.
    fn forget_device(&mut self) {
        self.command("Network.deleteCookies", &json!({ "name": "__Host-rg-d", "url": "https://gate.test/" }));
    }

    fn cookies(&mut self) -> String {
        let all = self.command("Network.getCookies", &json!({ "urls": ["https://gate.test/"] }));
        let pairs = all["cookies"].as_array().unwrap().iter();
        let pairs = pairs.map(|it| format!("{}={}", it["name"].as_str().unwrap(), it["value"].as_str().unwrap()));
        pairs.collect::<Vec<_>>().join("; ")
    }
}

/// A gate behind a front, and a browser at it.
pub(super) struct Scene {
    pub(super) edge: Edge,
    front: Front,
    // Dropped last but the edge: it talks to the others.
    pub(super) tab: Tab,
    _chromium: Chromium,
}

impl Scene {
    pub(super) async fn new(keys: &str, features: &str) -> Self {
        let pair = Pki::new().issue(&["gate.test"]);
        let edge = edge(keys);
        edge.stub.put("/public/page", "", b"<title>page</title>");
        let front = Front::start(&pair, edge.gate.address).await;
        let known = format!("--ignore-certificate-errors-spki-list={}", pair.key_hash());
        let more = [features, &known, "--remote-debugging-port=0"];
        let hosts = format!("MAP gate.test:443 {}", front.address);
        let chromium = Chromium::open_with(&hosts, "https://gate.test/public/page", &more);
        let mut tab = Tab::of(&chromium).await;
        tab.log_in(&edge.gate.password.clone()).await;
        Self { edge, front, tab, _chromium: chromium }
    }

    /// With a session that is bound.
    async fn bound() -> Self {
        let mut scene = Self::new(BOUND, SOFTWARE).await;
        let tab = &mut scene.tab;
        until("the session is bound", async || tab.state("device_bound").await == true).await;
        scene
    }

    /// How many proofs ended so.
    fn proofs(&self, result: &str) -> u64 {
        let series = format!("rotogate_browser_device_total{{result=\"{result}\"}}");
        std::thread::scope(|scope| scope.spawn(|| self.edge.series(&series)).join().unwrap())
    }

    /// The gate was stopped for so many seconds.
    fn restarted(self, seconds: u64) -> Self {
        let edge = later(self.edge, seconds);
        *self.front.gate.lock() = edge.gate.address;
        Self { edge, ..self }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b47_b48_chromium_binds_a_session_and_its_copied_cookie_is_worth_nothing() {
    let mut scene = Scene::bound().await;
    // The gate counts a registration after the record of the session has it.
    until("the registration is counted", async || scene.proofs("registered") == 1).await;
    assert_eq!(scene.proofs("refreshed"), 0);
    let copied = scene.tab.cookies();
    assert!(copied.contains("__Host-Http-rg=rc1_") && copied.contains("__Host-rg-d=rd1_"), "{copied}");
    let session = copied.split("; ").find(|pair| pair.starts_with("__Host-Http-rg=")).unwrap().to_owned();
    // A stop of the gate: the challenge of before is answered by another one, which Chromium signs.
    scene = scene.restarted(61);
    scene.tab.forget_device();
    assert_eq!(scene.tab.get("/app").await, 200, "{:?}", scene.tab.events);
    assert_eq!((scene.proofs("refreshed"), scene.proofs("over")), (1, 0), "{:?}", scene.tab.events);
    // Attack 40.
    let stolen = format!("Cookie: {session}");
    assert_eq!(scene.edge.ask("GET /app", &[&stolen]).status, 401);
    // Four requests at once wait for one refresh.
    scene.tab.forget_device();
    let four = "Promise.all([1, 2, 3, 4].map((n) => fetch('/app?' + n).then((answer) => answer.status)))";
    assert_eq!(scene.tab.run(four).await, json!([200, 200, 200, 200]));
    assert_eq!(scene.proofs("refreshed"), 2);
    // A logout ends the binding.
    assert_eq!(scene.tab.run("fetch('/auth/logout', { method: 'POST' }).then((answer) => answer.status)").await, 200);
    assert_eq!(scene.tab.cookies(), "");
    assert_eq!(scene.tab.get("/app").await, 401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b49_what_chromium_makes_of_a_refresh_that_fails() {
    for weather in [Weather::Cut, Weather::Unavailable] {
        let mut scene = Scene::bound().await;
        scene = scene.restarted(61);
        scene.front.set(weather);
        scene.tab.forget_device();
        let during = scene.tab.get("/app").await;
        scene.front.set(Weather::Fair);
        let after = scene.tab.get("/app").await;
        // The binding outlives it.
        assert_eq!((during, after), (json!(401), json!(200)), "{weather:?}: {:?}", scene.tab.events);
        assert_eq!(["refreshed", "skipped", "over"].map(|it| scene.proofs(it)), [1, 1, 0], "{weather:?}");
    }
    // The gate is away.
    let mut scene = Scene::bound().await;
    *scene.front.gate.lock() = ([127, 0, 0, 1], 9).into();
    scene.tab.forget_device();
    let during = scene.tab.get("/app").await;
    let mut scene = scene.restarted(61);
    let after = scene.tab.get("/app").await;
    assert_eq!((during, after), (json!(0), json!(200)), "{:?}", scene.tab.events);
    // The challenge is from before the start, so the browser signs once more.
    assert_eq!(["refreshed", "refused", "over"].map(|it| scene.proofs(it)), [1, 1, 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b51_a_chromium_without_the_feature_loses_nothing() {
    let mut scene = Scene::new(BOUND, WITHOUT).await;
    assert_eq!(scene.tab.state("device_bound").await, false);
    scene = scene.restarted(61);
    assert_eq!((scene.tab.get("/app").await, scene.proofs("registered")), (json!(200), 0));
}
