//! Exchange towards an upstream: the cost of a cached token for a request, and whether requests of other routes wait while
//! a provider is slow. Whole requests through `Gate::layer`, no socket.
//!
//!     cargo bench --bench exchange

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::Full;
use rotogate::Gate;
use rotogate::client::{Client, ExchangeRules, Grant, SecretHash};
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::password::hash;
use rotogate::gate::{Endpoint, GateService, NewSession, Peer};
use rotogate::route::{Route, RoutePolicy};
use rotogate::token::Keyring;
use rotogate_core::exchange::{ExchangeFault, ExchangedToken, TokenExchanger, UpstreamExchange};
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::live_keys::{FetchRules, LiveKeys, Validity};
use rotogate_core::token::verify::{IssuerKeys, IssuerRules, Keys};
use secrecy::{ExposeSecret, SecretString};
use support::{Case, Heads, Inner, cpu_time, exchange, interleave, measures, quantile};
use tokio::runtime::Runtime;
use tower::{Layer, ServiceExt};
use zeroize::Zeroizing;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IDP: &str = "https://idp.example.com";
/// The most that a cached token may add to a request, in nanoseconds.
const HIT: f64 = 60.0;
/// The most processor time of an exchange at the gate, in microseconds.
const AT_THE_GATE: f64 = 150.0;
/// Requirement D16.
const MOST_OF_P99: f64 = 2.0;
/// The number of requests that wait for the slow provider: the most callers that may wait.
const WAITING: usize = 256;

/// A provider that answers at once, or not at all.
#[derive(Debug)]
struct Exchanger {
    is_slow: bool,
}

#[async_trait]
impl TokenExchanger for Exchanger {
    async fn exchange(&self, _: &str) -> Result<ExchangedToken, ExchangeFault> {
        if self.is_slow {
            std::future::pending::<()>().await;
        }
        let token = Zeroizing::new("a-token-for-the-upstream".repeat(20));
        Ok(ExchangedToken { token, expires_in: Some(Duration::from_secs(3600)) })
    }

    fn identity(&self) -> Box<[u8]> {
        [u8::from(self.is_slow)].into()
    }
}

fn route(path: &str, exchanger: Option<Exchanger>) -> Route {
    let policy = RoutePolicy { issuers: vec!["idp".into()], audiences: vec!["api".into()], ..RoutePolicy::default() };
    let mut route = Route::new(path, policy);
    route.exchange = exchanger.map(|exchanger| {
        let names = ["idp".into(), path.into(), "idp".into()];
        Arc::new(UpstreamExchange::new(names, Duration::from_secs(300), Arc::new(exchanger)))
    });
    route
}

/// The gate, and tokens of the other issuer.
async fn gate() -> (Gate, Vec<String>) {
    let theirs = Keyring::ephemeral().unwrap();
    let live = LiveKeys::fetched(FetchRules { cooldown: Duration::from_secs(60), timeout: Duration::from_secs(1) });
    let set = IssuerKeys::from_jwks(theirs.jwks().to_string().as_bytes(), None).unwrap();
    let mut rules = IssuerRules::external(IDP, vec!["api".into()], IssuerKeys::unknown()).named("idp");
    rules.keys = Keys::Live(Arc::clone(&live));
    let gate = Gate::builder()
        .issuer("https://auth.example.com")
        .audience(["api"])
        .keys(Keyring::ephemeral().unwrap())
        .rates(support::open_rates())
        .trusted_issuer(rules)
        .route(route("/plain", None))
        .route(route("/exchanged", Some(Exchanger { is_slow: false })))
        .route(route("/slow", Some(Exchanger { is_slow: true })))
        .build()
        .await
        .unwrap();
    live.set(set, Validity::ENDLESS);
    let idp = Gate::builder().issuer(IDP).audience(["api"]).keys(theirs).client(Client::public("web"));
    let idp = idp.build().await.unwrap();
    let mut tokens = Vec::new();
    for number in 0..WAITING {
        let issued = idp.sessions().start(NewSession::new(format!("user-{number}"), "web")).await.unwrap();
        tokens.push(issued.access_token.expose().to_owned());
    }
    (gate, tokens)
}

fn heads(tokens: &[String], path: &'static str) -> Heads {
    Heads::new(tokens.iter().map(String::as_str)).at(path)
}

/// The 99th percentile of requests on the plain route, in nanoseconds.
fn p99(service: &GateService<Inner>, tokens: &[String], number: usize) -> f64 {
    let (mut service, mut heads) = (service.clone(), heads(tokens, "/plain"));
    let mut took = Vec::with_capacity(number);
    for _ in 0..number {
        let begun = Instant::now();
        exchange(&mut service, heads.request());
        took.push(begun.elapsed().as_nanos() as f64);
    }
    quantile(&took, 0.99)
}

/// The processor time of an exchange at the gate, whose store is in memory, with a key of Ed25519.
fn at_the_gate(runtime: &Runtime, rounds: usize) {
    let secret = SecretString::from("a-secret-of-the-client-orders");
    let orders = Client {
        secret_hash: Some(SecretHash::new(hash(&secret).unwrap())),
        grants: vec![Grant::TokenExchange],
        exchange: Some(ExchangeRules {
            audiences: vec!["api".into()],
            to: vec!["billing".into()],
            ..ExchangeRules::default()
        }),
        ..Client::public("orders")
    };
    let gate = Gate::builder()
        .issuer("https://auth.example.com")
        .audience(["api"])
        .keys(Keyring::generate(Algorithm::EdDsa).unwrap())
        .client(Client::public("web"))
        .client(orders)
        .rates(support::open_rates())
        .endpoint(Endpoint::new(OAuth2).path("/token"));
    let gate = runtime.block_on(gate.build()).unwrap();
    let new = NewSession::new("ada", "web").scope("read").unwrap();
    let issued = runtime.block_on(gate.sessions().start(new)).unwrap();
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
        .append_pair("subject_token", issued.access_token.expose())
        .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:access_token")
        .append_pair("audience", "billing")
        .append_pair("client_id", "orders")
        .append_pair("client_secret", secret.expose_secret())
        .finish();
    let (form, service) = (Bytes::from(form), gate.layer().layer(Inner));
    let exchange = || {
        let request = Request::post("/token")
            .header(HOST, "auth.example.com")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .extension(Peer::new([192, 0, 2, 7].into(), true));
        let request = request.body(Full::new(form.clone())).unwrap();
        let reply = runtime.block_on(service.clone().oneshot(request)).unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
    };
    // The secret of the client is known from here on.
    exchange();
    let name = "an exchange at the gate";
    let whole_process = |exchanges| {
        let before = cpu_time().unwrap_or_default();
        (0..exchanges).for_each(|_| exchange());
        cpu_time().unwrap_or_default() - before
    };
    let measured = interleave(vec![Case::timed(name, whole_process)], rounds);
    let took = measured.median(name) / 1000.0;
    println!(
        "\nan exchange at the gate takes {took:.0} us (at most {AT_THE_GATE:.0}): {}",
        verdict(took <= AT_THE_GATE)
    );
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "met" } else { "NOT met" }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (gate, tokens) = runtime.block_on(gate());
    let service = gate.layer().layer(Inner);
    let known = &tokens[..tokens.len().min(16)];
    let case = |path: &'static str| {
        let (mut service, mut heads) = (service.clone(), heads(known, path));
        for _ in known {
            runtime.block_on(service.clone().oneshot(heads.request())).unwrap();
        }
        Case::new(path, move || exchange(&mut service, heads.request()))
    };
    let rounds = if measures() { 41 } else { 1 };
    let measured = interleave(vec![case("/plain"), case("/exchanged")], rounds);
    measured.print("A request whose token for the upstream is there", "/plain");
    let added = measured.difference("/exchanged", "/plain");
    println!("the exchange adds {added:.0} ns (at most {HIT:.0}): {}", verdict(added <= HIT));
    at_the_gate(&runtime, rounds);

    let number = if measures() { 200_000 } else { 10 };
    let p99s = || (0..rounds.min(9)).map(|_| p99(&service, &tokens, number)).collect::<Vec<_>>();
    let alone = p99s();
    // These requests wait to the end: a request to a provider holds its place after its client has left.
    let mut slow = heads(&tokens, "/slow");
    let waiting: Vec<_> = tokens.iter().map(|_| runtime.spawn(service.clone().oneshot(slow.request()))).collect();
    runtime.block_on(tokio::task::yield_now());
    let beside = p99s();
    assert!(waiting.iter().all(|one| !one.is_finished()), "a request to the slow provider was answered");
    let (alone, beside) = (quantile(&alone, 0.5), quantile(&beside, 0.5));
    let ratio = beside / alone;
    println!(
        "D16: p99 of other routes {alone:.0} ns; while {WAITING} requests wait for a provider {beside:.0} ns, {ratio:.2} times \
         (at most {MOST_OF_P99}): {}",
        verdict(ratio <= MOST_OF_P99)
    );
    runtime.shutdown_timeout(Duration::from_secs(1));
}
