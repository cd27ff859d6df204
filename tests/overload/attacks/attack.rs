//! The attacks: each uses as much as possible of one resource, and retries at a bounded rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::others::connect;
use support::Gate;
use support::frames::{END_HEADERS, END_STREAM, HEADERS, SETTINGS, frame};

/// The rate at which each client of an attack retries.
const AGAIN: Duration = Duration::from_millis(100);
/// The session cookies that a client sends each time.
const COOKIES: usize = 50;
/// Longer than an attack lasts.
const LONG: Duration = Duration::from_secs(600);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The gate, and the tokens of the attackers.
pub(super) struct Target {
    gate: SocketAddr,
    /// Tokens of mallory, a user with a normal login.
    good: String,
    /// Authentic, revoked tokens.
    revoked: String,
    /// Tokens of several users.
    many: Vec<String>,
    /// The session cookie of a browser.
    cookie: String,
    /// How many forged session cookies were answered.
    cookies: AtomicUsize,
}

impl Target {
    pub(super) async fn new(gate: &Gate, trolls: &[String], password: &str) -> Self {
        let mut many = Vec::new();
        for troll in trolls {
            let pair = [("grant_type", "password"), ("username", troll), ("password", password)];
            many.push(gate.token(&pair).await.tokens().access);
        }
        let pair = [("grant_type", "password"), ("username", "mallory"), ("password", password)];
        let (good, revoked) = (gate.token(&pair).await.tokens(), gate.token(&pair).await.tokens());
        let revoke = [("client_id", "web"), ("token", revoked.refresh.as_str())];
        assert_eq!(gate.form("/connect/revocation", &revoke).await.status, 200);
        let login = json!({ "username": "mallory", "password": password }).to_string();
        let own = [("host", "gate.test"), ("origin", "https://gate.test"), ("content-type", "application/json")];
        let reply = gate.call(Method::POST, "/auth/login", &own, &login).await;
        let cookie = reply.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
        let cookies = AtomicUsize::new(0);
        Self { gate: gate.address, good: good.access, revoked: revoked.access, many, cookie, cookies }
    }

    /// How many forged session cookies were answered since the last call.
    pub(super) fn cookies(&self) -> usize {
        self.cookies.swap(0, Ordering::Relaxed)
    }
}

/// The kinds of attacks. The numbers are those of the review.
#[derive(Clone, Copy)]
pub(super) enum Attack {
    /// 1: streams of gRPC health that end only with their connection.
    Watch,
    /// 2: requests to the token endpoint whose bodies never arrive.
    Bodies,
    /// 2b: WebSockets without a valid token, with a message that never ends.
    Sockets,
    /// 6: logins of unknown users with the public client, from many addresses.
    Logins,
    /// 13: envelopes of 1 MiB without a token.
    Envelopes,
    /// A5: tokens with a bad signature.
    Forged,
    /// 22 of the sessions of browsers: session cookies with a bad tag.
    Cookies,
    /// 15: refused tokens with a good signature.
    Revoked,
    /// 16c: one token, with as many requests as possible to an upstream that does not answer.
    Caller,
    /// A slow upstream behind a public route, from one address.
    Upstream,
    /// One token, with as many slow requests as possible to the upstream of the others.
    SlowCaller,
    /// As above, with tokens of many users from one address.
    SlowAddress,
}

impl Attack {
    pub(super) const ALL: [Self; 12] = [
        Self::Watch,
        Self::Bodies,
        Self::Sockets,
        Self::Logins,
        Self::Envelopes,
        Self::Forged,
        Self::Cookies,
        Self::Revoked,
        Self::Caller,
        Self::Upstream,
        Self::SlowCaller,
        Self::SlowAddress,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Watch => "health streams",
            Self::Bodies => "bodies that never come",
            Self::Sockets => "unknown websockets",
            Self::Logins => "logins of strangers",
            Self::Envelopes => "envelopes of 1 MiB",
            Self::Forged => "forged tokens",
            Self::Cookies => "forged session cookies",
            Self::Revoked => "revoked tokens",
            Self::Caller => "one token, many requests",
            Self::Upstream => "an upstream that hangs",
            Self::SlowCaller => "one token, slow requests",
            Self::SlowAddress => "an address, slow requests",
        }
    }

    /// The source of the load, and its amount.
    pub(super) const fn offered(self) -> &'static str {
        match self {
            Self::Watch | Self::Bodies => {
                "offered: 20 connections of one address, 100 streams each, ten times a second"
            }
            Self::Sockets => "offered: 100 sockets of one address, each opened again when it is closed",
            Self::Logins => "offered: 64 addresses, ten logins a second each",
            Self::Envelopes => "offered: 20 connections of one address, ten requests of 1 MiB a second each",
            Self::Forged | Self::Revoked => "offered: 20 connections of one address, 100 requests a second each",
            Self::Cookies => "offered: 20 connections of one address, 500 requests a second each",
            Self::Caller => "offered: 20 connections of two addresses, 100 streams each, ten times a second",
            Self::Upstream => "offered: 200 connections of one address",
            Self::SlowCaller => "offered: 20 connections of two addresses, 100 streams each, to the others' upstream",
            Self::SlowAddress => "offered: 20 connections of one address, 100 streams each, to the others' upstream",
        }
    }

    /// The third byte of the addresses of its clients, which differs between attacks.
    const fn network(self) -> u8 {
        match self {
            Self::Watch => 60,
            Self::Bodies => 61,
            Self::Sockets => 62,
            Self::Logins => 63,
            Self::Envelopes => 64,
            Self::Forged => 65,
            Self::Revoked => 66,
            Self::Caller => 67,
            Self::Upstream => 68,
            Self::SlowCaller => 69,
            Self::SlowAddress => 70,
            Self::Cookies => 71,
        }
    }

    /// The number of clients, and of their addresses.
    const fn clients(self) -> (usize, u8) {
        match self {
            Self::Watch | Self::Bodies | Self::Envelopes | Self::SlowAddress => (20, 1),
            Self::Forged | Self::Cookies | Self::Revoked => (20, 1),
            Self::Sockets => (100, 1),
            Self::Logins => (64, 64),
            Self::Caller | Self::SlowCaller => (20, 2),
            Self::Upstream => (200, 1),
        }
    }

    pub(super) fn start(self, target: &Arc<Target>, running: &mut JoinSet<()>) {
        let (clients, addresses) = self.clients();
        for (client, last) in (0..clients).zip((1..=addresses).cycle()) {
            let (target, from) = (Arc::clone(target), [127, 0, self.network(), last]);
            running.spawn(async move {
                loop {
                    // The rate of cookies is that of the design, so the time that the answers take is not added.
                    let again = Instant::now() + AGAIN;
                    // The next attempt follows whatever the result.
                    let _ = self.once(from, client, &target).await;
                    if matches!(self, Self::Cookies) {
                        tokio::time::sleep_until(again).await;
                    } else {
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            });
        }
    }

    async fn once(self, from: [u8; 4], client: usize, target: &Target) -> std::io::Result<()> {
        let mut stream = connect(from, target.gate).await?;
        match self {
            Self::Watch => {
                let path = "/grpc.health.v1.Health/Watch";
                let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
                let block = post(path, &grpc);
                stream.write_all(&streams(&block, Some(&[0; 5]))).await?;
                drain(&mut stream).await
            }
            Self::Bodies => {
                let block = post("/connect/token", &[("content-type", "application/x-www-form-urlencoded")]);
                stream.write_all(&streams(&block, None)).await?;
                drain(&mut stream).await
            }
            Self::Caller | Self::SlowCaller | Self::SlowAddress => {
                let troll = target.many.iter().cycle().nth(client).filter(|_| matches!(self, Self::SlowAddress));
                let bearer = format!("Bearer {}", troll.unwrap_or(&target.good));
                let path = if matches!(self, Self::Caller) { "/hanging/x" } else { "/private/slow" };
                let block = post(path, &[("authorization", &bearer)]);
                stream.write_all(&streams(&block, Some(&[]))).await?;
                drain(&mut stream).await
            }
            Self::Sockets => {
                let ask = "GET /kuzzle HTTP/1.1\r\nHost: gate.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                           Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
                stream.write_all(ask.as_bytes()).await?;
                // A fragment of 4 KiB that is not the last (RFC 6455 §5.2), a ping, the next fragment, and so on.
                let mut fragment = vec![0x01, 0xfe, 0x10, 0x00, 0, 0, 0, 0];
                fragment.extend([b' '; 4096]);
                for _ in 0..256 {
                    stream.write_all(&fragment).await?;
                    stream.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await?;
                    fragment[0] = 0x00;
                    tokio::time::sleep(AGAIN).await;
                }
                drain(&mut stream).await
            }
            Self::Logins => {
                let form = format!("grant_type=password&client_id=web&username=nobody{client}&password=guess-{client}");
                let ask = request("POST", "/connect/token", "application/x-www-form-urlencoded", None, form.as_bytes());
                stream.write_all(&ask).await?;
                answer(&mut stream).await
            }
            Self::Envelopes => {
                let mut body = br#"{"controller":"document","action":"create","body":{"a":""#.to_vec();
                body.resize(1 << 20, b'x');
                body.extend(br#""}}"#);
                stream.write_all(&request("POST", "/kuzzle/_query", "application/json", None, &body)).await?;
                answer(&mut stream).await
            }
            Self::Forged => {
                for n in 0..10 {
                    let (signed, signature) = target.good.rsplit_once('.').unwrap_or_default();
                    // A different signature at each call, of the right length.
                    let forged = format!("{signed}.{:0>width$}", client * 1000 + n, width = signature.len());
                    stream.write_all(&request("GET", "/private", "", Some(&forged), b"")).await?;
                    answer(&mut stream).await?;
                }
                Ok(())
            }
            Self::Cookies => {
                // A different tag in each request. The last character stays, because it has bits that are unused.
                let (kept, tag) = target.cookie.split_at(target.cookie.len() - 17);
                let ask = |n: usize| {
                    let cookie = format!("{kept}{:0>16}{}", client * 1000 + n, &tag[16..]);
                    format!("GET /pages/x HTTP/1.1\r\nHost: gate.test\r\nCookie: {cookie}\r\n\r\n")
                };
                // One write: a round trip for each request would take the processor from the gate.
                let all: String = (0..COOKIES).map(ask).collect();
                stream.write_all(all.as_bytes()).await?;
                answers(&mut stream, COOKIES).await?;
                target.cookies.fetch_add(COOKIES, Ordering::Relaxed);
                Ok(())
            }
            Self::Revoked => {
                for _ in 0..10 {
                    stream.write_all(&request("GET", "/private", "", Some(&target.revoked), b"")).await?;
                    answer(&mut stream).await?;
                }
                Ok(())
            }
            Self::Upstream => {
                stream.write_all(&request("GET", "/public-hanging/x", "", None, b"")).await?;
                drain(&mut stream).await
            }
        }
    }
}

fn request(method: &str, path: &str, media: &str, token: Option<&str>, body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: gate.test\r\nContent-Length: {}\r\n", body.len());
    if !media.is_empty() {
        head.push_str(&format!("Content-Type: {media}\r\n"));
    }
    if let Some(token) = token {
        head.push_str(&format!("Authorization: Bearer {token}\r\n"));
    }
    [head.as_bytes(), b"\r\n", body].concat()
}

/// `POST` as a header block without compression (RFC 7541 §6.2).
fn post(path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| {
        // A length of 127 and more takes further bytes (RFC 7541 §5.1).
        let mut coded = Vec::new();
        let Some(mut rest) = text.len().checked_sub(127) else {
            coded.push(u8::try_from(text.len()).unwrap());
            return [&coded[..], text.as_bytes()].concat();
        };
        coded.push(127);
        while rest >= 128 {
            coded.push(u8::try_from(rest % 128).unwrap() | 0x80);
            rest /= 128;
        }
        coded.push(u8::try_from(rest).unwrap());
        [&coded[..], text.as_bytes()].concat()
    };
    // From the static table: `:method: POST`, `:scheme: http`; then `:path` and `:authority`.
    let mut block = [&[0x83, 0x86, 0x04][..], &text(path), &[0x01], &text("gate.test")].concat();
    for (name, value) in fields {
        block.extend([&[0][..], &text(name), &text(value)].concat());
    }
    block
}

/// A hundred of these requests on an HTTP/2 connection, each with this body, or with a body that never arrives.
fn streams(block: &[u8], body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    for n in 0..100 {
        let stream = 2 * n + 1;
        match body {
            Some([]) => bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, block)),
            Some(body) => {
                bytes.extend(frame(HEADERS, END_HEADERS, stream, block));
                bytes.extend(frame(0, END_STREAM, stream, body));
            }
            None => bytes.extend(frame(HEADERS, END_HEADERS, stream, block)),
        }
    }
    bytes
}

/// Reads until the gate closes the connection.
async fn drain(stream: &mut tokio::net::TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 4096];
    let taken = async {
        while stream.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    tokio::time::timeout(LONG, taken).await.unwrap_or(Ok(()))
}

/// Reads the head of an answer, and the bytes that arrived with it.
async fn answer(stream: &mut tokio::net::TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    match stream.read(&mut buffer).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Reads until this many answers have begun.
async fn answers(stream: &mut tokio::net::TcpStream, number: usize) -> std::io::Result<()> {
    const BEGIN: &[u8] = b"HTTP/1.1 ";
    let (mut begun, mut rest, mut buffer) = (0, Vec::new(), vec![0; 64 * 1024]);
    while begun < number {
        match stream.read(&mut buffer).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => rest.extend_from_slice(&buffer[..length]),
        }
        begun += rest.windows(BEGIN.len()).filter(|window| *window == BEGIN).count();
        // The begin of an answer may come in two reads.
        rest.drain(..rest.len().saturating_sub(BEGIN.len() - 1));
    }
    Ok(())
}
