//! Issuers whose keys are fetched: the start of a gate with a thousand of them, and a flood of tokens that name unknown
//! keys beside good ones.
//!
//!     cargo bench --bench issuers          # 1000 issuers
//!     cargo bench --bench issuers -- 100   # another number
//!
//! The bench runs the program itself, with its log in a file. One server on loopback stands for all issuers, each with
//! its own path.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rotogate::session::Scope;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::token::claims::TokenStyle;
use rotogate_core::token::{Keyring, MintedClaims, mint};
use support::program::{self, Gate, free_port, goal};
use support::{measures, quantile};

const ISSUERS: usize = 1000;
/// The goals for this many issuers.
const LISTENING_SECONDS: f64 = 3.0;
const KEYS_SECONDS: f64 = 5.0;
const MEMORY_MIB: f64 = 50.0;
/// The rate of tokens with unknown keys, and the factor by which the 99th percentile of good tokens may grow.
const UNKNOWN_RATE: usize = 10_000;
const SLOWER: f64 = 3.0;

const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:LISTEN"
public_url = "http://gate.test"
[admin]
listen = "127.0.0.1:ADMIN"
[issuer]
audience = ["api"]
[log]
output = "FOLDER/gate.log"
[access_log]
output = "FOLDER/access.log"
[[upstreams]]
name = "app"
urls = ["echo:"]
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;

type Http = Client<HttpConnector, Full<Bytes>>;

/// The server of all issuers, and the number of requests for each path.
struct Provider {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    async fn start(jwks: String) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Self { address: listener.local_addr().unwrap(), asked: Arc::default() };
        let asked = Arc::clone(&provider.asked);
        let jwks = Bytes::from(jwks);
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (asked, jwks) = (Arc::clone(&asked), jwks.clone());
                let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    let reply = Response::new(Full::new(jwks.clone()));
                    async { Ok::<_, Infallible>(reply) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        provider
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    fn url(&self, issuer: usize) -> String {
        format!("http://{}/{issuer}", self.address)
    }
}

/// A folder with a configuration of this many issuers.
fn folder(provider: &Provider, issuers: usize) -> (tempfile::TempDir, u16, u16) {
    let (listen, admin) = (free_port(), free_port());
    let folder = program::folder(|folder| {
        let config = CONFIG.replace("LISTEN", &listen.to_string()).replace("ADMIN", &admin.to_string());
        let mut config = config.replace("FOLDER", folder.to_str().unwrap());
        for issuer in 0..issuers {
            let url = provider.url(issuer);
            write!(
                config,
                "[[issuers]]\nname = \"i{issuer}\"\nurl = \"{url}\"\njwks_url = \"{url}/keys\"\naudience = [\"api\"]\n\
                 everywhere = true\n"
            )
            .unwrap();
        }
        config
    });
    (folder, listen, admin)
}

fn token(keys: &Keyring, issuer: &str, jti: &str) -> String {
    let now = SystemTime::new().wall();
    let claims = MintedClaims {
        bound_to: None,
        certificate: None,
        delegation: None,
        vouched_by: None,
        issuer,
        subject: "ada",
        audience: &["api".into()],
        expires: now.plus(Duration::from_secs(3600)),
        // The tokens are older than the last answer, so that the gate decides on an unknown key without a fetch.
        issued_at: now.minus(Duration::from_secs(600)),
        jti,
        client: "web",
        scope: &Scope::default(),
        session: None,
        account: None,
        own: None,
        style: TokenStyle::default(),
    };
    mint(keys.signer(), &claims).unwrap().expose().to_owned()
}

async fn ask(http: &Http, listen: u16, path: &str, token: Option<&str>) -> (StatusCode, Bytes) {
    let mut request = Request::get(format!("http://127.0.0.1:{listen}{path}"));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}")).header("host", "gate.test");
    }
    let reply = http.request(request.body(Full::default()).unwrap()).await.unwrap();
    let status = reply.status();
    (status, reply.into_body().collect().await.unwrap().to_bytes())
}

/// The number of issuers with fresh keys, by the metrics.
async fn fresh(http: &Http, admin: u16) -> usize {
    let (_, metrics) = ask(http, admin, "/metrics", None).await;
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    metrics.lines().filter(|line| line.starts_with("rotogate_issuer_state{") && line.ends_with(" 1")).count()
}

/// Sends good tokens for a time, a few hundred in a second. Returns the duration of each request, in milliseconds.
async fn good(http: &Http, listen: u16, token: &str, time: Duration) -> Vec<f64> {
    let mut ticks = tokio::time::interval(Duration::from_millis(2));
    let (start, mut took) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        ticks.tick().await;
        let begun = Instant::now();
        assert_eq!(ask(http, listen, "/x", Some(token)).await.0, StatusCode::OK);
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    took
}

/// Sends tokens that name an unknown key at [`UNKNOWN_RATE`]. Returns the number of answers.
async fn unknown(http: Http, listen: u16, tokens: Arc<Vec<String>>, time: Duration) -> usize {
    const SENDERS: usize = 20;
    let each = UNKNOWN_RATE / SENDERS;
    let mut senders = tokio::task::JoinSet::new();
    for sender in 0..SENDERS {
        let (http, tokens) = (http.clone(), Arc::clone(&tokens));
        senders.spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(each).unwrap());
            let (start, mut sent) = (Instant::now(), 0);
            while start.elapsed() < time {
                ticks.tick().await;
                let (status, _) =
                    ask(&http, listen, "/x", Some(&tokens[(sender + sent * SENDERS) % tokens.len()])).await;
                let is_refused = [StatusCode::UNAUTHORIZED, StatusCode::SERVICE_UNAVAILABLE].contains(&status);
                assert!(is_refused, "{status}");
                sent += 1;
            }
            sent
        });
    }
    senders.join_all().await.into_iter().sum()
}

#[tokio::main]
async fn main() {
    let asked = std::env::args().skip(1).find_map(|argument| argument.parse().ok());
    let issuers = asked.unwrap_or(if measures() { ISSUERS } else { 20 });
    let time = Duration::from_secs(if measures() { 10 } else { 1 });
    println!("{issuers} issuers");
    let keys = Keyring::ephemeral().unwrap();
    let provider = Provider::start(keys.jwks().to_string()).await;
    let http: Http = Client::builder(TokioExecutor::new()).build_http();

    let (bare, ..) = folder(&provider, 1);
    let one = Gate::start(bare.path()).memory("VmRSS:");
    let before = provider.asked();
    let (many, listen, admin) = folder(&provider, issuers);
    let begun = Instant::now();
    let gate = Gate::start(many.path());
    goal("from the start to listening", begun.elapsed().as_secs_f64(), LISTENING_SECONDS, "s");
    while fresh(&http, admin).await < issuers {
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    goal("from the start to the last key set", begun.elapsed().as_secs_f64(), KEYS_SECONDS, "s");
    goal("memory beyond that with one issuer", gate.memory("VmRSS:") - one, MEMORY_MIB, "MiB");
    println!("requests to the issuers: {}", provider.asked() - before);

    let url = provider.url(0);
    let known = token(&keys, &url, "good");
    let others = Keyring::ephemeral().unwrap();
    let junk: Arc<Vec<String>> = Arc::new((0..2000).map(|n| token(&others, &url, &n.to_string())).collect());
    good(&http, listen, &known, time / 5).await;
    let alone = good(&http, listen, &known, time).await;
    let before = provider.asked();
    let (beside, sent) = tokio::join!(good(&http, listen, &known, time), unknown(http.clone(), listen, junk, time));
    let fetches = provider.asked() - before;
    println!("unknown keys: {:.0} requests a second", sent as f64 / time.as_secs_f64());
    goal("fetches that they caused, within one cooldown", fetches as f64, 1.0, "");
    println!(
        "good tokens alone, and beside them: p99 {:.2} and {:.2} ms",
        quantile(&alone, 0.99),
        quantile(&beside, 0.99)
    );
    goal("p99 beside them, over p99 alone", quantile(&beside, 0.99) / quantile(&alone, 0.99), SLOWER, "x");
}
