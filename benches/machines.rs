//! Callers that are not people, and what a route may ask of a caller: API keys and conditions. Whole requests
//! through `Gate::layer`, without a socket, compared with the same request without that part.
//!
//!     cargo bench --bench machines

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::sync::Arc;

use futures_util::FutureExt;
use http::{HeaderName, StatusCode};
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::gate::{ApiKeySettings, NewApiKey, NewSession};
use rotogate::route::{Condition, Route, RoutePolicy};
use rotogate::store::MemoryStore;
use rotogate::token::Keyring;
use secrecy::ExposeSecret;
use support::program::goal;
use support::{Case, Heads, Inner, exchange, interleave, measures};
use tower::{Layer, Service, ServiceExt};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ISSUER: &str = "https://api.example.com";

/// Four comparisons, the first of which is this one.
fn four(first: Condition) -> RoutePolicy {
    let others = [
        Condition::not("plan", ["free"]).unwrap(),
        Condition::one_of("dept", ["ops", "eng"]).unwrap(),
        Condition::min("level", 3).unwrap(),
    ];
    RoutePolicy::default().when([first].into_iter().chain(others)).unwrap()
}

async fn gate() -> Gate {
    let store = Arc::new(MemoryStore::new(ISSUER, Gate::DEFAULT_LEEWAY));
    Gate::builder()
        .issuer(ISSUER)
        .keys(Keyring::ephemeral().unwrap())
        .client(Client::public("web"))
        .rates(support::open_rates())
        .shared_store(Arc::<MemoryStore>::clone(&store))
        .row_store(store)
        .api_keys(ApiKeySettings::new("acme").unwrap())
        .route(Route::new("/plain", RoutePolicy::default().api_key()))
        .route(Route::new("/when", four(Condition::equals("org_id", "42").unwrap())))
        .route(Route::new("/without/{org}", RoutePolicy::default()))
        .route(Route::new("/param/{org}", four(Condition::param("org_id", "org").unwrap())))
        .build()
        .await
        .unwrap()
}

/// A key whose checksum is wrong.
fn junk(key: &str) -> String {
    let last = if key.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &key[..key.len() - 1])
}

fn requests(runtime: &tokio::runtime::Runtime, rounds: usize) {
    let gate = runtime.block_on(gate());
    let session = NewSession::new("ada", "web").claim("org_id", "42").unwrap().claim("plan", "pro").unwrap();
    let session = session.claim("dept", "eng").unwrap().claim("level", 7).unwrap();
    let token = runtime.block_on(gate.sessions().start(session)).unwrap().access_token.expose().to_owned();
    let new = NewApiKey { name: "nightly".into(), subject: "ada".into(), ..NewApiKey::default() };
    let (key, _) = runtime.block_on(gate.api_keys().unwrap().create(new)).unwrap().unwrap();
    let service = gate.layer().layer(Inner);
    let case = |name: &'static str, path: &'static str, credential: &str| {
        let (mut service, mut heads) = (service.clone(), Heads::new([credential]).at(path));
        // The first request loads the record of a key.
        assert_eq!(runtime.block_on(service.clone().oneshot(heads.request())).unwrap().status(), StatusCode::OK);
        Case::new(name, move || exchange(&mut service, heads.request()))
    };
    let refused = |name: &'static str, header: HeaderName, value: &str| {
        let (mut service, mut heads) = (service.clone(), Heads::of_page(header, [value]).at("/plain"));
        Case::new(name, move || {
            let reply = service.call(heads.request()).now_or_never().expect("an answer at once").unwrap();
            assert_eq!(reply.status(), StatusCode::UNAUTHORIZED);
        })
    };
    let (key, junk) = (key.expose_secret(), junk(key.expose_secret()));
    let measured = interleave(
        vec![
            case("token", "/plain", &token),
            case("key", "/plain", key),
            refused("no credential", HeaderName::from_static("x-other"), &junk),
            refused("junk key", HeaderName::from_static("x-api-key"), &junk),
            case("four conditions", "/when", &token),
            case("token, path with a parameter", "/without/42", &token),
            case("four conditions, one of the parameter", "/param/42", &token),
        ],
        rounds,
    );
    measured.print("A request, its token and key cached", "token");
    println!();
    let with_parameter = "token, path with a parameter";
    for (what, dear, cheap, most) in [
        ("an API key, over a token", "key", "token", 20.0),
        ("a junk key, over no credential", "junk key", "no credential", 300.0),
        ("four conditions on claims, decided before", "four conditions", "token", 5.0),
        ("four conditions, decided anew", "four conditions, one of the parameter", with_parameter, 80.0),
    ] {
        goal(what, measured.difference(dear, cheap), most, "ns");
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let rounds = if measures() { 41 } else { 1 };
    requests(&runtime, rounds);
}
