//! Callers that are not people, and what a route may ask of a caller: API keys, conditions, a kept decision. Whole requests
//! through `Gate::layer`, without a socket, compared with the same request without that part. Then status lists: the
//! building of one, its size, the length that a token's place adds, and the place's check by a gate that reads the list of
//! another issuer.
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
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use http::{HeaderName, StatusCode};
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::decision::{DecisionFault, DecisionPoint, DecisionPointRules, PolicyDecision, RouteDecision};
use rotogate::gate::{ApiKeySettings, NewApiKey, NewSession, StatusListSettings};
use rotogate::route::{Condition, Route, RoutePolicy};
use rotogate::session::Scope;
use rotogate::store::MemoryStore;
use rotogate::token::{Algorithm, Keyring};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::session::StatusPlace;
use rotogate_core::token::claims::{MintedClaims, TokenStyle};
use rotogate_core::token::remote_status::{MissingStatus, RemoteLists, StatusRules};
use rotogate_core::token::status_token::{CompressedList, StatusClaim, StatusListClaims, sign};
use rotogate_core::token::verify::{ReadStatusList, SentStatusList};
use rotogate_core::token::{IssuerKeys, IssuerRules, mint};
use secrecy::ExposeSecret;
use support::program::goal;
use support::{Case, Heads, Inner, exchange, interleave, measures};
use tower::{Layer, Service, ServiceExt};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ISSUER: &str = "https://api.example.com";
/// The bits of a list of the default size, in bytes.
const LIST: usize = (1 << 20) / 8;

/// Permits everything.
#[derive(Debug)]
struct Permits;

#[async_trait]
impl DecisionPoint for Permits {
    async fn decide(&self, _: &[u8], _: &str) -> Result<PolicyDecision, DecisionFault> {
        Ok(PolicyDecision::Permit)
    }

    fn identity(&self) -> Box<[u8]> {
        Box::default()
    }
}

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
    let decision = RouteDecision::new("pdp", "order", "{org}");
    let decided = RoutePolicy { decision: Some(Arc::new(decision)), ..RoutePolicy::default() };
    let allow = Duration::from_secs(60);
    Gate::builder()
        .issuer(ISSUER)
        .keys(Keyring::ephemeral().unwrap())
        .client(Client::public("web"))
        .rates(support::open_rates())
        .shared_store(Arc::<MemoryStore>::clone(&store))
        .relay_store(store)
        .api_keys(ApiKeySettings::new("acme").unwrap())
        .decision_point(DecisionPointRules { allow, ..DecisionPointRules::new("pdp", Permits) })
        .route(Route::new("/plain", RoutePolicy::default().api_key()))
        .route(Route::new("/when", four(Condition::equals("org_id", "42").unwrap())))
        .route(Route::new("/without/{org}", RoutePolicy::default()))
        .route(Route::new("/param/{org}", four(Condition::param("org_id", "org").unwrap())))
        .route(Route::new("/decided/{org}", decided))
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
        // The first request loads the record of a key, or asks for a decision.
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
            case("decision", "/decided/42", &token),
        ],
        rounds,
    );
    measured.print("A request, its token, key and decision cached", "token");
    println!();
    let with_parameter = "token, path with a parameter";
    for (what, dear, cheap, most) in [
        ("an API key, over a token", "key", "token", 20.0),
        ("a junk key, over no credential", "junk key", "no credential", 300.0),
        ("four conditions on claims, decided before", "four conditions", "token", 5.0),
        ("four conditions, decided anew", "four conditions, one of the parameter", with_parameter, 80.0),
        ("a kept decision of a decision point", "decision", with_parameter, 300.0),
    ] {
        goal(what, measured.difference(dear, cheap), most, "ns");
    }
}

/// A list in which this share of the sessions has ended.
fn bits(share: f64) -> Vec<u8> {
    let (mut bits, mut state) = (vec![0_u8; LIST], 7_u64);
    for index in 0..LIST * 8 {
        // Xorshift, so that each run has the same list.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if (state >> 11) as f64 / ((1_u64 << 53) as f64) < share {
            bits[index / 8] |= 1 << (index % 8);
        }
    }
    bits
}

fn lists(rounds: usize) {
    let keyring = Keyring::generate(Algorithm::EdDsa).unwrap();
    let shares = [("0.1 %", 0.001), ("1 %", 0.01), ("50 %", 0.5)].map(|(name, share)| (name, bits(share)));
    let text = |bits: &[u8]| {
        let status_list = CompressedList::new(bits).unwrap();
        let claims = StatusListClaims { exp: 300, iat: 0, iss: ISSUER, status_list, sub: "/status/1", ttl: 30 };
        sign(keyring.signer(), &claims).unwrap().len()
    };
    let cases = shares.iter().map(|(name, bits)| Case::new(*name, || assert!(text(bits) > 0))).collect();
    let measured = interleave(cases, rounds);
    println!();
    for (name, bits) in &shares {
        goal(&format!("a list of 2^20 bits, {name} ended: built and signed"), measured.median(name) / 1e6, 15.0, "ms");
        let size = serde_json::to_value(CompressedList::new(bits).unwrap()).unwrap()["lst"].as_str().unwrap().len();
        goal(&format!("the same, compressed, without base64url: {name}"), (size * 3 / 4) as f64 / 1024.0, 128.0, "KiB");
    }
}

/// By how many bytes a place in a status list makes a token longer, whatever the place.
async fn longer_token() -> usize {
    let length = async |lists: Option<StatusListSettings>| {
        let store = Arc::new(MemoryStore::new(ISSUER, Gate::DEFAULT_LEEWAY));
        let gate = Gate::builder().issuer(ISSUER).keys(Keyring::ephemeral().unwrap()).client(Client::public("web"));
        let gate = gate.shared_store(Arc::<MemoryStore>::clone(&store)).relay_store(store);
        let gate = lists.into_iter().fold(gate, |gate, lists| gate.status_list(lists)).build().await.unwrap();
        let mut longest = 0;
        for _ in 0..200 {
            let begun = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
            longest = longest.max(begun.access_token.expose().len());
        }
        longest
    };
    length(Some(StatusListSettings::default())).await - length(None).await
}

/// Another issuer, which publishes a list.
struct Publisher {
    keyring: Keyring,
    lists: Arc<RemoteLists>,
}

impl Publisher {
    const URL: &'static str = "https://idp.example.com";
    const LISTS: &'static str = "https://idp.example.com/status";
    const LIST: u32 = 7;

    fn new() -> Self {
        let rules = StatusRules {
            prefixes: vec![format!("{}/", Self::LISTS)],
            ttl: (Duration::from_secs(3600), Duration::from_secs(3600)),
            stale_for: Duration::ZERO,
            missing: MissingStatus::Accept,
        };
        Self { keyring: Keyring::generate(Algorithm::EdDsa).unwrap(), lists: RemoteLists::new(rules) }
    }

    fn rules(&self) -> IssuerRules {
        let keys = IssuerKeys::from_jwks(self.keyring.jwks().to_string().as_bytes(), None).unwrap();
        let mut rules = IssuerRules::external(Self::URL, vec!["api".into()], keys);
        rules.everywhere = true;
        rules.status_lists = Some(Arc::clone(&self.lists));
        rules
    }

    fn token(&self, jti: &str, index: Option<u32>) -> String {
        let now = SystemTime::new().wall();
        let place = |index| StatusClaim { base: Self::LISTS, place: StatusPlace { list: Self::LIST, index } };
        let claims = MintedClaims {
            issuer: Self::URL,
            subject: "ada",
            audience: &["api".into()],
            expires: now.plus(Duration::from_secs(3600)),
            issued_at: now,
            jti,
            client: "web",
            scope: &Scope::default(),
            session: None,
            account: None,
            bound_to: None,
            certificate: None,
            vouched_by: None,
            delegation: None,
            own: None,
            status: index.map(place),
            style: TokenStyle::default(),
        };
        mint(self.keyring.signer(), &claims).unwrap().expose().to_owned()
    }

    /// The list, as a gate that has fetched it reads it.
    fn list(&self, bits: &[u8]) -> ReadStatusList {
        let (time, url) = (SystemTime::new(), StatusPlace { list: Self::LIST, index: 0 }.url(Self::LISTS));
        let claims = StatusListClaims {
            exp: time.wall().as_secs() + 24 * 3600,
            iat: time.wall().as_secs(),
            iss: Self::URL,
            status_list: CompressedList::new(bits).unwrap(),
            sub: &url,
            ttl: 3600,
        };
        let text = sign(self.keyring.signer(), &claims).unwrap();
        let sent = SentStatusList {
            text: &text,
            url: &url,
            issuer: Self::URL,
            keys: &self.rules().keys,
            known: None,
            leeway: Duration::ZERO,
        };
        sent.read(time.wall(), time.wall()).unwrap()
    }

    /// Answers the question for the list that a request waits for.
    async fn answer(&self, bits: &[u8]) {
        let time = SystemTime::new();
        loop {
            let clock = self.lists.in_force().expect("a gate uses the lists").clock.now();
            if let Some(list) = self.lists.due(clock).0.first() {
                return list.take(self.list(bits), self.lists.rules(), clock, time.wall());
            }
            tokio::task::yield_now().await;
        }
    }
}

fn places(runtime: &tokio::runtime::Runtime, rounds: usize) {
    let added = runtime.block_on(longer_token());
    goal("a place in a status list, in a token", added as f64, 90.0, "B");

    let (publisher, bits) = (Publisher::new(), bits(0.01));
    let is_set = |index: &u32| bits[(index / 8) as usize] >> (index % 8) & 1 == 1;
    let valid = (1_000_000..).find(|index| !is_set(index)).unwrap();
    let with_place = publisher.token("t", Some(valid));
    // As long, because the look-up of a longer token takes longer.
    let padded = (1..200).map(|more| publisher.token(&"t".repeat(more), None));
    let without = padded.min_by_key(|token| token.len().abs_diff(with_place.len())).unwrap();
    let gate = Gate::builder().issuer(ISSUER).keys(Keyring::ephemeral().unwrap()).trusted_issuer(publisher.rules());
    let service = runtime.block_on(gate.build()).unwrap().layer().layer(Inner);
    let first = Heads::new([with_place.as_str()]).request();
    let (reply, ()) = runtime.block_on(async { tokio::join!(service.clone().oneshot(first), publisher.answer(&bits)) });
    assert_eq!(reply.unwrap().status(), StatusCode::OK);
    let request = |name: &'static str, token: &str| {
        let (mut service, mut heads) = (service.clone(), Heads::new([token]));
        Case::new(name, move || exchange(&mut service, heads.request()))
    };
    let list = publisher.list(&bits);
    let (mut index, mut other) = (0_u64, 0_u64);
    let next = |index: &mut u64| {
        *index = (*index + 611_953) % (LIST as u64 * 8);
        std::hint::black_box(*index)
    };
    let measured = interleave(
        vec![
            request("token of another issuer", &without),
            request("token with a place in its list", &with_place),
            Case::new("the next index", move || assert!(next(&mut other) < u64::MAX)),
            Case::new("the next index, and its bit", move || {
                let value = list.value(next(&mut index));
                assert!(std::hint::black_box(value).is_some());
            }),
        ],
        rounds,
    );
    measured.print("A known token of another issuer, and the bits of a list of 2^20", "token of another issuer");
    println!();
    let bit = measured.difference("the next index, and its bit", "the next index");
    goal("a bit of a list, at an index far from the last one", bit, 5.0, "ns");
    let hit = measured.difference("token with a place in its list", "token of another issuer");
    goal("the bit of a known token, in a request", hit, 5.0, "ns");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _entered = runtime.enter();
    let rounds = if measures() { 41 } else { 1 };
    requests(&runtime, rounds);
    lists(rounds);
    places(&runtime, rounds);
}
