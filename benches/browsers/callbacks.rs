//! Logins at a provider: the cost of a callback without the provider, which is a stub on its own thread.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use http::header::{COOKIE, HOST, LOCATION, SET_COOKIE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rotogate::Gate;
use rotogate::gate::{Browser, GateService, LoginProvider, Peer};
use rotogate::remote_keys::{RemoteIssuer, RemoteKeys};
use rotogate::route::{Route, RoutePolicy};
use rotogate::store::MemoryStore;
use rotogate_core::clock::{SystemTime, TimeSource};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tower::{Layer, ServiceExt};

use super::support::{self, Case, Inner, cpu_time, interleave, measures};
use super::{ISSUER, LEEWAY, keyring, verdict};

/// Requirement B60.
const MOST_BESIDES_THE_PROVIDER: f64 = 1e6;
const CALLBACKS_A_SECOND: f64 = 1_000.0;

/// A provider. The code of a login is its nonce.
struct Stub {
    url: String,
    key: SigningKey,
}

impl Stub {
    /// Starts the provider on its own thread. Returns its URL.
    fn start() -> String {
        let (ready, started) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let url = format!("http://{}", listener.local_addr().unwrap());
                let stub = Arc::new(Self { url: url.clone(), key: SigningKey::from_bytes(&[7; 32]) });
                ready.send(url).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let stub = Arc::clone(&stub);
                    let service = service_fn(move |request| Arc::clone(&stub).answer(request));
                    tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
                }
            });
        });
        started.recv().unwrap()
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let at = |path: &str| format!("{}{path}", self.url);
        let answer = match request.uri().path() {
            "/keys" => {
                let x = URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes());
                json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k", "alg": "EdDSA", "use": "sig" }] })
            }
            "/token" => {
                let form = request.into_body().collect().await.unwrap().to_bytes();
                let code = form_urlencoded::parse(&form).find(|(name, _)| name == "code").unwrap().1;
                json!({
                    "access_token": "a".repeat(900), "refresh_token": "r".repeat(900), "token_type": "Bearer",
                    "expires_in": 300, "id_token": self.id_token(&code),
                })
            }
            _ => json!({
                "issuer": self.url, "jwks_uri": at("/keys"), "token_endpoint": at("/token"),
                "authorization_endpoint": at("/authorize"),
            }),
        };
        Ok(Response::new(Full::new(Bytes::from(answer.to_string()))))
    }

    fn id_token(&self, nonce: &str) -> String {
        let now = SystemTime::new().wall().as_secs();
        let claims = json!({
            "iss": self.url, "aud": "web", "sub": nonce, "nonce": nonce, "sid": nonce, "iat": now, "exp": now + 300,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&json!({ "alg": "EdDSA", "kid": "k" })), part(&claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).to_bytes());
        format!("{signed}.{signature}")
    }
}

fn get(runtime: &Runtime, service: &GateService<Inner>, path: &str, cookie: &str) -> (StatusCode, HeaderMap) {
    let request = Request::get(path).header(HOST, "auth.example.com").header(COOKIE, cookie);
    let request = request.extension(Peer::new([192, 0, 2, 7].into(), true)).body(Full::new(Bytes::new())).unwrap();
    let (parts, _) = runtime.block_on(service.clone().oneshot(request)).unwrap().into_parts();
    (parts.status, parts.headers)
}

/// Begins a login. Returns the path to which the provider leads back, and the cookie of the login.
fn begin(runtime: &Runtime, service: &GateService<Inner>) -> Option<(String, String)> {
    let (status, headers) = get(runtime, service, "/auth/login?to=/x", "");
    if status != StatusCode::SEE_OTHER {
        return None;
    }
    let url = headers[LOCATION].to_str().unwrap();
    let query = url.split_once('?').unwrap().1;
    let asked = |wanted: &str| form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == wanted).unwrap().1;
    let path = format!("/auth/callback?state={}&code={}", asked("state"), asked("nonce"));
    Some((path, headers[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()))
}

pub(super) fn measure(rounds: usize) {
    // One worker: the figures are for one core, besides the provider's thread.
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let entered = runtime.enter();
    let remote = RemoteKeys::start(RemoteIssuer::new("kc", Stub::start())).unwrap();
    let provider = LoginProvider::new(&remote, "web").secret("a-secret".to_owned().into());
    let gate = Gate::builder()
        .issuer(ISSUER)
        .keys(keyring())
        .trusted_issuer(remote.rules(["api"]))
        .row_store(Arc::new(MemoryStore::new(ISSUER, LEEWAY)))
        .browser(Browser::provider("/auth", provider.clone()))
        .rates(support::open_rates())
        .route(Route::catch_all(RoutePolicy::default().session()));
    let service = runtime.block_on(gate.build()).unwrap().layer().layer(Inner);
    drop(entered);
    let until = Instant::now() + Duration::from_secs(10);
    while begin(&runtime, &service).is_none() || remote.keys().is_empty() {
        assert!(Instant::now() < until, "document and keys of the stub do not arrive");
        std::thread::sleep(Duration::from_millis(10));
    }
    let log_in = || {
        let (path, cookie) = begin(&runtime, &service).unwrap();
        let (status, headers) = get(&runtime, &service, &path, &cookie);
        assert!(status == StatusCode::SEE_OTHER && headers[LOCATION] == "https://auth.example.com/x", "{status}");
    };
    let begun = || drop(begin(&runtime, &service).unwrap());
    let exchange =
        || drop(runtime.block_on(provider.exchange("https://auth.example.com/auth/callback", "n", "v")).unwrap());
    let names = ["the provider's answer to a code", "the begin of a login", "a login"];
    let cases =
        vec![Case::waiting(names[0], exchange), Case::waiting(names[1], begun), Case::waiting(names[2], log_in)];
    let measured = interleave(cases, rounds);
    measured.print("A login at a provider", names[0]);
    let besides = measured.difference(names[2], names[0]) - measured.median(names[1]);
    // Includes the begin of each login, and the work of the provider.
    let number = if measures() { 4_000 } else { 1 };
    let before = cpu_time();
    (0..number).for_each(|_| log_in());
    let cpu = cpu_time().zip(before).map(|(after, before)| (after - before).as_secs_f64() / f64::from(number));
    let rate = cpu.filter(|cpu| *cpu > 0.0).map_or(f64::INFINITY, f64::recip);
    let is_met = verdict(besides <= MOST_BESIDES_THE_PROVIDER && rate >= CALLBACKS_A_SECOND);
    println!(
        "B60: a callback takes {:.0} us besides the provider (at most {:.0}); {rate:.0} logins a second of processor time, the \
         provider's in it (at least {CALLBACKS_A_SECOND}): {is_met}",
        besides / 1e3,
        MOST_BESIDES_THE_PROVIDER / 1e3
    );
}
