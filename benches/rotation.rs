//! Rotations of refresh tokens on the embedded store, each durable before it is answered: one at a time, and many in
//! flight that share a commit.
//!
//! 20 000 sessions take turns, so that every case touches as many pages. The store is in the build
//! directory, on its real disk.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::gate::{Endpoint, GateService, NewSession, Peer};
use rotogate::session::profile::Profile;
use rotogate::session::{Generation, Scope, Session, SessionId, Status};
use rotogate::store::RedbStore;
use rotogate::store::redb::Options;
use rotogate_core::clock::{EngineClock, SystemTime, Timestamp};
use rotogate_core::engine::{APPLICATION, ApplicationLogin, Engine, EngineConfig, Origin, Refresh};
use rotogate_core::limit::Limits;
use rotogate_core::revocation::RevocationList;
use rotogate_core::session::LastPair;
use rotogate_core::session::Seal;
use rotogate_core::session::SessionSecret;
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::seal::{check, sealed};
use secrecy::SecretString;
use support::{Inner, cpu_time, measures, quantile};
use tower::{Layer, ServiceExt};

/// As in the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ISSUER: &str = "https://auth.example.com";
const CLIENT: &str = "web";
const LEEWAY: Duration = Duration::from_secs(30);
const IN_FLIGHT: [usize; 3] = [1, 64, 256];

type Answer<'a> = Pin<Box<dyn Future<Output = String> + Send + 'a>>;

/// Exchanges a refresh token for the next one.
trait Rotate: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn begin(&self, number: usize) -> Answer<'_>;
    fn rotate(&self, token: String) -> Answer<'_>;
}

struct ByEngine {
    engine: Engine,
    client: Client,
    profile: Profile,
    accepts: [Box<str>; 1],
    origin: Origin,
}

impl ByEngine {
    fn new(store: RedbStore, keyring: Keyring) -> Self {
        let time = Arc::new(SystemTime::new());
        let engine = Engine::new(EngineConfig {
            styles: Vec::new(),
            issuer: ISSUER.into(),
            audience: vec!["api".into()],
            leeway: LEEWAY,
            keyring: Arc::new(keyring),
            store: Arc::new(store),
            directory: None,
            clock: Arc::new(EngineClock::start(time.clone(), rotogate::clock::Timestamp::ZERO, LEEWAY)),
            revocations: Arc::new(RevocationList::new()),
            limits: Arc::new(Limits::new(support::open_rates(), time)),
            counters: None,
            keep_login_origin: true,
            staleness: None,
        });
        Self {
            engine,
            client: Client::public(CLIENT),
            profile: Profile::default(),
            accepts: [APPLICATION.into()],
            origin: Origin {
                address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                user_agent: Some("bench/1".into()),
                ..Origin::default()
            },
        }
    }
}

impl Rotate for ByEngine {
    fn name(&self) -> &'static str {
        "engine on redb, EdDSA"
    }

    fn begin(&self, number: usize) -> Answer<'_> {
        Box::pin(async move {
            let subject = format!("user-{number}");
            let start = ApplicationLogin {
                vouched_by: None,
                subject: &subject,
                account: None,
                client: CLIENT,
                scope: Scope::parse("read write").unwrap(),
                claims: rotogate::claim::OwnClaims::default(),
                profile: &self.profile,
                origin: &self.origin,
            };
            self.engine.start(start).await.unwrap().refresh_token.unwrap().expose().to_owned()
        })
    }

    fn rotate(&self, token: String) -> Answer<'_> {
        Box::pin(async move {
            let token = SecretString::from(token);
            let refresh = Refresh {
                resource: None,
                proof: None,
                certificate: None,
                credential: rotogate_core::engine::Exchange::Refresh(&token),
                client: &self.client,
                account: rotogate_core::engine::AccountRule::Any,
                scope: None,
                access_ttl: None,
                profile: &self.profile,
                by_access: &[],
                arrived: rotogate_core::engine::Arrival::default(),
                accepts: &self.accepts,
                origin: &self.origin,
            };
            self.engine.refresh(refresh).await.unwrap().refresh_token.unwrap().expose().to_owned()
        })
    }
}

struct ByLayer {
    gate: Gate,
    service: GateService<Inner>,
}

impl ByLayer {
    async fn new(store: RedbStore, keyring: Keyring) -> Self {
        let gate = Gate::builder()
            .issuer(ISSUER)
            .audience(["api"])
            .keys(keyring)
            .store(store)
            .client(Client::public(CLIENT))
            .endpoint(Endpoint::new(OAuth2).accepts(APPLICATION))
            .rates(support::open_rates())
            .build()
            .await
            .unwrap();
        Self { service: gate.layer().layer(Inner), gate }
    }
}

impl Rotate for ByLayer {
    fn name(&self) -> &'static str {
        "refresh request through the layer, oauth2, EdDSA"
    }

    fn begin(&self, number: usize) -> Answer<'_> {
        Box::pin(async move {
            let new = NewSession::new(format!("user-{number}"), CLIENT).scope("read write").unwrap();
            self.gate.sessions().start(new).await.unwrap().refresh_token.unwrap().expose().to_owned()
        })
    }

    fn rotate(&self, token: String) -> Answer<'_> {
        Box::pin(async move {
            let form = format!("grant_type=refresh_token&client_id={CLIENT}&refresh_token={token}");
            let mut request = Request::new(Full::new(Bytes::from(form)));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = http::Uri::from_static("/connect/token");
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            request.extensions_mut().insert(Peer::new(address, false));
            let form_type = http::HeaderValue::from_static("application/x-www-form-urlencoded");
            request.headers_mut().insert(header::CONTENT_TYPE, form_type);
            request.headers_mut().insert(header::HOST, http::HeaderValue::from_static("api.example.com"));
            let answer: Result<_, Infallible> = self.service.clone().oneshot(request).await;
            let answer = answer.unwrap();
            assert_eq!(answer.status(), http::StatusCode::OK);
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let tokens: serde_json::Value = serde_json::from_slice(&body).unwrap();
            tokens["refresh_token"].as_str().unwrap().to_owned()
        })
    }
}

/// The result of one case in one round.
struct Round {
    per_second: f64,
    commits_per_second: f64,
    group: f64,
    cpu_micros: f64,
    latencies: Vec<f64>,
}

/// A store with sessions, and the refresh token of each.
struct Bench {
    rotate: Arc<dyn Rotate>,
    store: RedbStore,
    tokens: Arc<Vec<Mutex<String>>>,
}

impl Bench {
    async fn new(rotate: Arc<dyn Rotate>, store: RedbStore, sessions: usize) -> Self {
        let begun = (0..sessions).map(|number| {
            let rotate = Arc::clone(&rotate);
            tokio::spawn(async move { rotate.begin(number).await })
        });
        let mut tokens = Vec::new();
        for begun in begun.collect::<Vec<_>>() {
            tokens.push(Mutex::new(begun.await.unwrap()));
        }
        Self { rotate, store, tokens: Arc::new(tokens) }
    }

    /// Rotates for this time, with this many rotations in flight, each with its own sessions.
    async fn round(&self, in_flight: usize, time: Duration) -> Round {
        let (commits, cpu, start) = (self.store.commits(), cpu_time(), Instant::now());
        let workers = (0..in_flight).map(|worker| {
            let (rotate, tokens) = (Arc::clone(&self.rotate), Arc::clone(&self.tokens));
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                for place in tokens.iter().skip(worker).step_by(in_flight).cycle() {
                    let asked = Instant::now();
                    if asked - start > time {
                        break;
                    }
                    let token = std::mem::take(&mut *place.lock().unwrap());
                    let next = rotate.rotate(token).await;
                    latencies.push(asked.elapsed().as_secs_f64() * 1e6);
                    *place.lock().unwrap() = next;
                }
                latencies
            })
        });
        let mut latencies = Vec::new();
        for worker in workers.collect::<Vec<_>>() {
            latencies.extend(worker.await.unwrap());
        }
        let (took, rotations) = (start.elapsed().as_secs_f64(), latencies.len() as f64);
        let commits = (self.store.commits() - commits) as f64;
        let cpu = cpu_time().zip(cpu).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64());
        Round {
            per_second: rotations / took,
            commits_per_second: commits / took,
            group: rotations / commits,
            cpu_micros: cpu * 1e6 / rotations,
            latencies,
        }
    }

    async fn measure(&self, rounds: usize, time: Duration) {
        let mut all: [Vec<Round>; IN_FLIGHT.len()] = Default::default();
        for _ in 0..rounds {
            for (case, in_flight) in all.iter_mut().zip(IN_FLIGHT) {
                case.push(self.round(in_flight, time).await);
            }
        }
        let median =
            |rounds: &[Round], of: fn(&Round) -> f64| quantile(&rounds.iter().map(of).collect::<Vec<_>>(), 0.5);
        println!("\n{}, {} sessions", self.rotate.name(), self.tokens.len());
        println!(
            "{:>9} {:>12} {:>20} {:>10} {:>9} {:>12} {:>11} {:>11} {:>8} {:>12}",
            "in flight",
            "rotations/s",
            "worst to best",
            "commits/s",
            "a commit",
            "CPU us each",
            "p50 us",
            "p99 us",
            "ratio",
            "best to best"
        );
        // Other load slows the case of one at a time most, which makes the ratio too good. The best rounds had the
        // least of it.
        let best_alone = all[0].iter().map(|round| round.per_second).fold(0.0, f64::max);
        for (rounds, in_flight) in all.iter().zip(IN_FLIGHT) {
            let rates: Vec<f64> = rounds.iter().map(|round| round.per_second).collect();
            let latencies: Vec<f64> = rounds.iter().flat_map(|round| round.latencies.iter().copied()).collect();
            let ratios: Vec<f64> = rates.iter().zip(&all[0]).map(|(rate, one)| rate / one.per_second).collect();
            println!(
                "{in_flight:>9} {:>12.0} {:>20} {:>10.0} {:>9.1} {:>12.1} {:>11.0} {:>11.0} {:>7.1}x {:>11.1}x",
                quantile(&rates, 0.5),
                format!("{:.0} to {:.0}", quantile(&rates, 0.0), quantile(&rates, 1.0)),
                median(rounds, |round| round.commits_per_second),
                median(rounds, |round| round.group),
                median(rounds, |round| round.cpu_micros),
                quantile(&latencies, 0.5),
                quantile(&latencies, 0.99),
                quantile(&ratios, 0.5),
                quantile(&rates, 1.0) / best_alone,
            );
        }
    }
}

/// The cost of the seal for a refresh, which checks the old record and seals the new one.
fn seal(number: u32) {
    let keyring = Keyring::generate(Algorithm::EdDsa).unwrap();
    let keys = keyring.refresh_keys();
    let expires = Timestamp::from_secs(1_800_000_000);
    let scope = || Scope::parse("read write").unwrap();
    let mut record = Session {
        id: SessionId::from_bytes([1; 16]),
        secret: SessionSecret::new([2; 16]),
        subject: "user-0123456789".into(),
        account: None,
        client: CLIENT.into(),
        scope: scope(),
        dialect: "oauth2".into(),
        expires,
        latest_access_expires: expires,
        current: Generation::FIRST,
        previous: Generation::NONE,
        rotated_at: expires,
        issued_at: expires,
        confirmed: false,
        last: LastPair { scope: scope(), access_expires: expires, kid: keyring.signer().kid().into(), refresh_key: 1 },
        status: Status::Live,
        revision: 1,
        user_agent: Some("Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0".into()),
        address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        claims: rotogate::claim::OwnClaims::default(),
        bound_to: None,
        certificate: None,
        browser: None,
        resource: None,
        vouched_by: None,
        seal: Seal::default(),
    };
    let begun = cpu_time();
    for _ in 0..number {
        record = sealed(keys, record).unwrap();
        check(keys, &record).unwrap();
    }
    let taken = cpu_time().zip(begun).map_or(f64::NAN, |(after, before)| (after - before).as_secs_f64());
    let micros = taken * 1e6 / f64::from(number);
    let met = if micros <= 2.0 { "met" } else { "NOT MET" };
    println!("seal: {micros:.3} µs of a processor a refresh, to check and to seal; goal 2: {met}");
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let (sessions, rounds, time) =
        if measures() { (20_000, 7, Duration::from_millis(1500)) } else { (256, 1, Duration::from_millis(20)) };
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    if only.as_ref().is_none_or(|only| only == "seal") {
        seal(if measures() { 200_000 } else { 100 });
    }
    for which in ["engine", "layer"].into_iter().filter(|which| only.as_ref().is_none_or(|only| which == only)) {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let keyring = Keyring::generate(Algorithm::EdDsa).unwrap();
        let options = Options::new(ISSUER, keyring.id(), LEEWAY);
        let store = RedbStore::open(folder.path().join("rotogate.redb"), options).unwrap();
        runtime.block_on(async {
            let rotate: Arc<dyn Rotate> = match which {
                "engine" => Arc::new(ByEngine::new(store.clone(), keyring)),
                _ => Arc::new(ByLayer::new(store.clone(), keyring).await),
            };
            Bench::new(rotate, store, sessions).await.measure(rounds, time).await;
        });
    }
}
