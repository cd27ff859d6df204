//! Sessions of browsers: the cost of a request with a cookie compared with a token, logins at a directory that computes no
//! hash and at a provider, and the rate of renewals on a store.
//!
//!     cargo bench --bench browsers

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod callbacks;
mod proxied;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONTENT_TYPE, COOKIE, HOST, ORIGIN, SET_COOKIE};
use http::{Request, StatusCode};
use http_body_util::Full;
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::{Directory, DirectoryError, User};
use rotogate::gate::{Browser, Endpoint, GateBuilder, GateService, NewSession, Peer};
use rotogate::route::{Route, RoutePolicy};
use rotogate::session::Scope;
use rotogate::store::RedbStore;
use rotogate::store::redb::Options;
use rotogate_core::clock::{ManualTime, SystemTime, TimeSource};
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::keyring::Keyring;
use secrecy::SecretString;
use support::{Case, Heads, Inner, Typed, exchange, interleave, measures};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ISSUER: &str = "https://auth.example.com";
const CACHE: u64 = 64 << 20;
const LEEWAY: Duration = Duration::from_secs(30);
/// The time between two renewals of a session in use.
const ACCESS: Duration = Duration::from_secs(600);
/// Requirement B58: the most that a request through the program costs, compared with one by token.
const MOST_OF_A_TOKEN: f64 = 1.05;
/// Requirement B58: the same, for a session that is bound to a device.
const MOST_OF_A_TOKEN_IF_BOUND: f64 = 1.08;
/// Requirement B58: the most that a cookie adds in the layer, in nanoseconds.
const MOST_IN_THE_LAYER: f64 = 80.0;
/// Requirement B60.
const LEAST_OF_OAUTH2: f64 = 0.95;
const LOGINS_A_SECOND: f64 = 5_000.0;
/// Requirement B59: a million sessions in use are written once in ten minutes each.
const RENEWALS_A_SECOND: f64 = 1_000_000.0 / 600.0;

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "NOT met" }
}

fn builder(keyring: Keyring) -> GateBuilder {
    Gate::builder()
        .issuer(ISSUER)
        .audience(["api"])
        .keys(keyring)
        .client(Client::public("web"))
        .browser(Browser::own("/auth"))
        .rates(support::open_rates())
        .verified_cache(CACHE)
        .route(Route::catch_all(RoutePolicy::default().session()))
}

fn keyring() -> Keyring {
    Keyring::generate(Algorithm::EdDsa).unwrap()
}

/// The cookies of this many sessions.
async fn cookies(gate: &Gate, number: usize) -> Vec<String> {
    let mut cookies = Vec::new();
    for number in 0..number {
        let (page, ()) = Request::post("/login").header(ORIGIN, ISSUER).body(()).unwrap().into_parts();
        let new = NewSession::new(format!("user-{number}"), "web").scope("read write").unwrap();
        let reply = gate.browser().begin(&page, new).await.unwrap();
        cookies.push(reply[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned());
    }
    cookies
}

/// Requests with known credentials: a token, or a session.
fn requests(runtime: &Runtime, number: usize, rounds: usize) {
    let gate = runtime.block_on(builder(keyring()).build()).unwrap();
    let cookies = runtime.block_on(cookies(&gate, number));
    let mut tokens = Vec::new();
    for number in 0..number {
        let new = NewSession::new(format!("user-{number}"), "web").scope("read write").unwrap();
        let issued = runtime.block_on(gate.sessions().start(new)).unwrap();
        tokens.push(format!("Bearer {}", issued.access_token.expose()));
    }
    // Each usual reply has headers, so the headers that a session adds make no table.
    let service = gate.layer().layer(Typed(Inner));
    let heads = [
        Heads::of_page(http::header::AUTHORIZATION, tokens.iter().map(String::as_str)),
        Heads::of_page(COOKIE, cookies.iter().map(String::as_str)),
    ];
    let [token, cookie] = heads.map(|mut heads| {
        // The credential is cached from here on.
        for _ in 0..number {
            let reply = runtime.block_on(service.clone().oneshot(heads.request())).unwrap();
            assert_eq!(reply.status(), StatusCode::OK);
        }
        let mut service = service.clone();
        move || exchange(&mut service, heads.request())
    });
    let names = ["a known token", "a known session cookie"];
    let measured = interleave(vec![Case::new(names[0], token), Case::new(names[1], cookie)], rounds);
    measured.print("A request of a page", names[0]);
    let more = measured.difference(names[1], names[0]);
    let is_met = verdict(more <= MOST_IN_THE_LAYER);
    println!("B58: in the layer, a cookie adds {more:.0} ns (at most {MOST_IN_THE_LAYER:.0}): {is_met}");
}

/// A directory that accepts every user, and computes no hash.
#[derive(Debug)]
struct Everybody;

#[async_trait]
impl Directory for Everybody {
    async fn authenticate(
        &self,
        _: Option<&str>,
        username: &str,
        _: &SecretString,
    ) -> Result<Option<User>, DirectoryError> {
        self.lookup(username).await
    }

    async fn lookup(&self, subject: &str) -> Result<Option<User>, DirectoryError> {
        Ok(Some(User::new(subject).scopes(Scope::parse("read write").unwrap())))
    }
}

fn send(runtime: &Runtime, service: &GateService<Inner>, path: &str, body: &'static str) {
    let request = Request::post(path)
        .header(HOST, "auth.example.com")
        .header(ORIGIN, ISSUER)
        .header(
            CONTENT_TYPE,
            if path == "/auth/login" { "application/json" } else { "application/x-www-form-urlencoded" },
        )
        .extension(Peer::new([192, 0, 2, 7].into(), true));
    let request = request.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap();
    let reply = runtime.block_on(service.clone().oneshot(request)).unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
}

/// Sequential logins of a browser and of an OAuth 2 client.
fn logins(runtime: &Runtime, rounds: usize) {
    let gate = builder(keyring()).directory(Arc::new(Everybody)).endpoint(Endpoint::new(OAuth2).path("/token"));
    let gate = runtime.block_on(gate.build()).unwrap();
    let service = gate.layer().layer(Inner);
    let names = ["a login of a client of OAuth 2", "a login of a browser"];
    let by_client = || {
        send(runtime, &service, "/token", "grant_type=password&client_id=web&username=ada&password=x&scope=read");
    };
    let by_browser = || send(runtime, &service, "/auth/login", r#"{"username":"ada","password":"x"}"#);
    let cases = vec![Case::waiting(names[0], by_client), Case::waiting(names[1], by_browser)];
    let measured = interleave(cases, rounds);
    measured.print("A login without its hash", names[0]);
    let (ratio, rate) = (1.0 / measured.ratio(names[1], names[0]), 1e9 / measured.median(names[1]));
    let is_met = verdict(ratio >= LEAST_OF_OAUTH2 && rate >= LOGINS_A_SECOND);
    println!(
        "B60: {rate:.0} logins a second (at least {LOGINS_A_SECOND}), {ratio:.2} times those of OAuth 2 (at least {LEAST_OF_OAUTH2}): {is_met}"
    );
}

/// Renewals on the embedded store, each durable before its request passes, 256 in flight.
fn renewals(runtime: &Runtime, number: usize, rounds: usize) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let keyring = keyring();
    let store =
        RedbStore::open(folder.path().join("rotogate.redb"), Options::new(ISSUER, keyring.id(), LEEWAY)).unwrap();
    let time = ManualTime::at(SystemTime::new().wall());
    let of_gate: Arc<dyn TimeSource> = Arc::<ManualTime>::clone(&time);
    let gate = runtime.block_on(builder(keyring).store(store).time(of_gate).build()).unwrap();
    let cookies = runtime.block_on(cookies(&gate, number));
    let service = gate.layer().layer(Inner);
    let mut rates = Vec::new();
    for _ in 0..rounds {
        time.advance(ACCESS + Duration::from_secs(1));
        let mut heads = Heads::of_page(COOKIE, cookies.iter().map(String::as_str));
        let requests: Vec<_> = (0..number).map(|_| heads.request()).collect();
        let begun = Instant::now();
        runtime.block_on(futures_util::stream::iter(requests).for_each_concurrent(256, async |request| {
            let mut service = service.clone();
            assert_eq!(service.call(request).await.unwrap().status(), StatusCode::OK);
        }));
        rates.push(number as f64 / begun.elapsed().as_secs_f64());
    }
    let rate = support::quantile(&rates, 0.5);
    let is_met = verdict(rate >= RENEWALS_A_SECOND);
    println!("B59: {rate:.0} renewals a second; a million sessions in use need {RENEWALS_A_SECOND:.0}: {is_met}");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (number, rounds) = if measures() { (1000, 41) } else { (4, 1) };
    requests(&runtime, number, rounds);
    logins(&runtime, rounds);
    callbacks::measure(rounds);
    proxied::measure(rounds);
    let (number, rounds) = if measures() { (20_000, 5) } else { (8, 2) };
    renewals(&runtime, number, rounds);
}
