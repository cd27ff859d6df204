//! The cost that the gate adds to a request: whole requests through `Gate::layer`, without a socket.
//!
//! The last table compares a new token with a cached one, RS256 first: the ratio is the gain of the cache of verified
//! tokens.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "a bench measures, and may stop"
)]

mod support;

use std::convert::Infallible;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use criterion::{BatchSize, Criterion};
use futures_util::FutureExt;
use http::{HeaderName, Request};
use http_body_util::{BodyExt, Full};
use rotogate::Gate;
use rotogate::dpop::DpopSettings;
use rotogate::gate::{GateService, NewSession};
use rotogate::route::{Condition, LimitPer, RateLimit, Route, RoutePolicy};
use rotogate::session::{RevokedBecause, Scope, SessionId};
use rotogate::store::{MemoryStore, Store};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::token::algorithm::Algorithm;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::{KeyThumbprint, MintedClaims, TokenStyle, mint};
use support::{Case, Heads, Inner, busy, exchange, interleave, measures};
use tower::{Layer, Service};

const ISSUER: &str = "https://auth.example.com";
const LEEWAY: Duration = Duration::from_secs(30);
const REVOKED: u32 = 100_000;
/// The memory for verified tokens, in bytes: enough for all tokens of a case.
const CACHE: u64 = 64 << 20;

struct Bench {
    service: GateService<Inner>,
    tokens: Vec<String>,
}

impl Bench {
    /// A gate with this many sessions, and the access token of each.
    async fn new(algorithm: Algorithm, tokens: usize, capacity: u64, revoked: u32) -> Self {
        let store = MemoryStore::new(ISSUER, LEEWAY);
        let now = SystemTime::new().wall();
        for number in 0..revoked {
            store.revoke(revocation(now, number), RevokedBecause::Operator).await.unwrap();
        }
        let gate = Gate::builder()
            .issuer(ISSUER)
            .audience(["api"])
            .keys(Keyring::generate(algorithm).unwrap())
            .client(rotogate::client::Client::public("web"))
            .store(store)
            .rates(support::open_rates())
            .verified_cache(capacity)
            .build()
            .await
            .unwrap();
        assert_eq!(gate.counts().1, revoked as usize);
        Self::of(gate, tokens).await
    }

    /// As above, with this gate.
    async fn of(gate: Gate, tokens: usize) -> Self {
        let mut bench = Self { service: gate.layer().layer(Inner), tokens: Vec::new() };
        for number in 0..tokens {
            let new = NewSession::new(format!("user-{number}"), "web").scope("read write").unwrap();
            let issued = gate.sessions().start(new).await.unwrap();
            bench.tokens.push(issued.access_token.expose().to_owned());
        }
        let (mut heads, mut service) = (bench.heads(), bench.service.clone());
        for _ in 0..tokens {
            assert_eq!(service.call(heads.request()).await.unwrap().status(), 200);
        }
        bench
    }

    /// Whole requests with alternating tokens.
    fn run(&self) -> impl FnMut() + Send + use<> {
        let mut heads = self.heads();
        let mut service = self.service.clone();
        move || exchange(&mut service, heads.request())
    }

    fn heads(&self) -> Heads {
        Heads::new(self.tokens.iter().map(String::as_str))
    }
}

/// The revocation of a session that does not exist, in force for an hour.
fn revocation(now: Timestamp, number: u32) -> Revocation {
    let mut random = [0; 10];
    random[5..9].copy_from_slice(&number.to_le_bytes());
    random[9] = number.to_le_bytes()[0];
    Revocation {
        target: Target::Session(SessionId::new(now, random)),
        effect: Effect::SESSION_REVOKED,
        until: now.plus(Duration::from_secs(3600)),
    }
}

fn bare(tokens: &[String]) -> impl FnMut() + Send + use<> {
    let mut heads = Heads::new(tokens.iter().map(String::as_str));
    move || exchange(&mut Inner, heads.request())
}

/// As above on two concurrent threads: the mean CPU time of one thread.
fn on_two_threads(make: impl Fn() -> Box<dyn FnMut() + Send>) -> impl FnMut(u64) -> Duration {
    move |operations| {
        let barrier = Arc::new(Barrier::new(2));
        let threads = [make(), make()].map(|mut operation| {
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || {
                operation();
                barrier.wait();
                busy(|| (0..operations).for_each(|_| operation()))
            })
        });
        threads.into_iter().map(|thread| thread.join().unwrap()).sum::<Duration>() / 2
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (many, revoked, rounds) = if measures() { (1000, REVOKED, 41) } else { (4, 10, 1) };
    let bench =
        |algorithm, tokens, capacity, revoked| runtime.block_on(Bench::new(algorithm, tokens, capacity, revoked));

    let rs256 = bench(Algorithm::Rs256, 1, CACHE, 0);
    let rs256_many = bench(Algorithm::Rs256, many, CACHE, 0);
    let rs256_revoked = bench(Algorithm::Rs256, many, CACHE, revoked);
    let others =
        [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Hs256].map(|algorithm| bench(algorithm, many, CACHE, 0));
    // The cache is empty, so each request verifies its token.
    let anew = bench(Algorithm::Rs256, many, 0, 0);
    let anew_revoked = bench(Algorithm::Rs256, many, 0, revoked);

    let mut criterion = Criterion::default().configure_from_args();
    for (name, bench) in [("RS256 cached", &rs256_many), ("RS256 verified anew", &anew)] {
        let (mut heads, service) = (bench.heads(), bench.service.clone());
        criterion.bench_function(name, |bencher| {
            let call = |request| exchange(&mut service.clone(), request);
            bencher.iter_batched(|| heads.request(), call, BatchSize::SmallInput);
        });
    }
    criterion.final_summary();

    let cases = vec![
        Case::new("bare service", bare(&rs256_many.tokens)),
        Case::new("RS256 cached, 1 token", rs256.run()),
        Case::new("RS256 cached, 1000 tokens", rs256_many.run()),
        Case::new("RS256 cached, 1000 tokens, 100k revocations", rs256_revoked.run()),
        Case::new("ES256 cached, 1000 tokens", others[0].run()),
        Case::new("EdDSA cached, 1000 tokens", others[1].run()),
        Case::new("HS256 cached, 1000 tokens", others[2].run()),
        Case::new("RS256 verified anew", anew.run()),
        Case::new("RS256 verified anew, 100k revocations", anew_revoked.run()),
    ];
    let measured = interleave(cases, rounds);
    measured.print("One thread, whole requests", "bare service");
    println!();
    measured.print_ratio("RS256 verified anew", "RS256 cached, 1 token", "bare service");
    measured.print_ratio("RS256 verified anew", "RS256 cached, 1000 tokens", "bare service");
    measured.print_ratio(
        "RS256 verified anew, 100k revocations",
        "RS256 cached, 1000 tokens, 100k revocations",
        "bare service",
    );

    let cases = vec![
        Case::timed("bare service, 2 threads", on_two_threads(|| Box::new(bare(&rs256_many.tokens)))),
        Case::timed("RS256 cached, 1 token, 2 threads", on_two_threads(|| Box::new(rs256.run()))),
        Case::timed("RS256 cached, 1000 tokens, 2 threads", on_two_threads(|| Box::new(rs256_many.run()))),
        Case::timed("RS256 verified anew, 2 threads", on_two_threads(|| Box::new(anew.run()))),
        Case::new("RS256 cached, 1000 tokens, alone", rs256_many.run()),
    ];
    let measured = interleave(cases, rounds);
    measured.print("Two threads at once, ns of each", "bare service, 2 threads");
    println!();
    measured.print_ratio(
        "RS256 verified anew, 2 threads",
        "RS256 cached, 1000 tokens, 2 threads",
        "bare service, 2 threads",
    );
    drop(measured);
    runtime.block_on(dpop(rounds));
    runtime.block_on(assertion(many, rounds));
    runtime.block_on(limit(many, rounds));
    runtime.block_on(judged(many, rounds));
}

/// The most that kept conditions may add to a request, in nanoseconds.
const MOST_OF_CONDITIONS: f64 = 5.0;

/// Requests with cached tokens on a route with four conditions.
async fn judged(tokens: usize, rounds: usize) {
    let four = [
        Condition::equals("client_id", "web"),
        Condition::min("gen", 0),
        Condition::starts("iss", "https://"),
        Condition::exists("sub"),
    ];
    let policies = [RoutePolicy::default(), RoutePolicy::default().when(four.map(Result::unwrap)).unwrap()];
    let mut benches = Vec::new();
    for policy in policies {
        let gate = Gate::builder()
            .issuer(ISSUER)
            .audience(["api"])
            .keys(Keyring::generate(Algorithm::Rs256).unwrap())
            .client(rotogate::client::Client::public("web"))
            .store(MemoryStore::new(ISSUER, LEEWAY))
            .rates(support::open_rates())
            .verified_cache(CACHE)
            .route(Route::catch_all(policy))
            .build()
            .await
            .unwrap();
        benches.push(Bench::of(gate, tokens).await);
    }
    let names = ["no conditions", "four conditions, kept"];
    let cases = names.iter().zip(&benches).map(|(name, bench)| Case::new(*name, bench.run())).collect();
    let measured = interleave(cases, rounds);
    measured.print("A request on a route with conditions", names[0]);
    let added = measured.difference(names[1], names[0]);
    let verdict = if added <= MOST_OF_CONDITIONS { "met" } else { "NOT met" };
    println!("\n{}: adds {added:.0} ns (at most {MOST_OF_CONDITIONS}): {verdict}", names[1]);
}

/// The most that a cached assertion may add to a request, in nanoseconds.
const MOST_OF_AN_ASSERTION: f64 = 30.0;

/// Requests with cached tokens, with and without an assertion for the service behind.
async fn assertion(tokens: usize, rounds: usize) {
    let name = HeaderName::from_static("x-auth-assertion");
    let route = Route { assertion_audience: Some("app".into()), ..Route::new("/{*rest}", RoutePolicy::default()) };
    let builder = || {
        let store = MemoryStore::new(ISSUER, LEEWAY);
        Gate::builder()
            .issuer(ISSUER)
            .audience(["api"])
            .keys(Keyring::generate(Algorithm::Rs256).unwrap())
            .client(rotogate::client::Client::public("web"))
            .store(store)
            .rates(support::open_rates())
            .verified_cache(CACHE)
            .route(route.clone())
    };
    let without = Bench::of(builder().build().await.unwrap(), tokens).await;
    // The longest lifetime, so that no new token is made during the run.
    let gate = builder().assertion(name.clone(), Duration::from_secs(600)).build().await.unwrap();
    let seen = gate.layer().layer(tower::service_fn(move |request: Request<Full<Bytes>>| {
        let assertion = request.headers().contains_key(&name);
        async move { Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from(assertion.to_string())))) }
    }));
    let with = Bench::of(gate, tokens).await;
    let reply = seen.clone().call(with.heads().request()).now_or_never().unwrap().unwrap();
    let body = reply.into_body().collect().now_or_never().unwrap().unwrap().to_bytes();
    assert_eq!(body, "true", "an assertion is there");

    let names = ["RS256 cached, no assertion", "RS256 cached, with an assertion"];
    let measured = interleave(vec![Case::new(names[0], without.run()), Case::new(names[1], with.run())], rounds);
    measured.print("A request whose token has its assertion", names[0]);
    let added = measured.difference(names[1], names[0]);
    let verdict = if added <= MOST_OF_AN_ASSERTION { "met" } else { "NOT met" };
    println!("\nan assertion adds {added:.0} ns (at most {MOST_OF_AN_ASSERTION}): {verdict}");
}

/// The most that a limit of this gate may add to a request, in nanoseconds.
const MOST_OF_A_LIMIT: f64 = 40.0;

/// Requests with cached tokens, with and without a limit for each subject.
async fn limit(tokens: usize, rounds: usize) {
    let with = async |policy: RoutePolicy| {
        let gate = Gate::builder()
            .issuer(ISSUER)
            .audience(["api"])
            .keys(Keyring::generate(Algorithm::Rs256).unwrap())
            .client(rotogate::client::Client::public("web"))
            .store(MemoryStore::new(ISSUER, LEEWAY))
            .rates(support::open_rates())
            .verified_cache(CACHE)
            .route(Route::new("/{*rest}", policy));
        Bench::of(gate.build().await.unwrap(), tokens).await
    };
    // A limit that refuses no request here.
    let open = RateLimit::new(LimitPer::Subject, 1_000_000_000, Duration::from_secs(1));
    let without = with(RoutePolicy::default()).await;
    let limited = with(RoutePolicy::default().limit(open)).await;
    let names = ["RS256 cached, no limit", "RS256 cached, a limit for each subject"];
    let measured = interleave(vec![Case::new(names[0], without.run()), Case::new(names[1], limited.run())], rounds);
    measured.print("A request on a route with a limit", names[0]);
    let added = measured.difference(names[1], names[0]);
    let verdict = if added <= MOST_OF_A_LIMIT { "met" } else { "NOT met" };
    println!("\na limit adds {added:.0} ns (at most {MOST_OF_A_LIMIT}): {verdict}");
}

/// The most that a request with a proof may cost, besides one check of an ES256 signature.
const MOST_OF_A_SIGNATURE: f64 = 1.15;

/// The number of proofs that are made at a time, so that they fit into the processor's cache.
const AT_ONCE: u64 = 50;

/// A request with a cached bound token, and a new proof.
async fn dpop(rounds: usize) {
    let now = SystemTime::new().wall();
    let client = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = client.public_key().as_ref().to_vec();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (x, y) = (text(&point[1..33]), text(&point[33..]));
    let canonical = format!("{{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"{x}\",\"y\":\"{y}\"}}");
    let jkt = text(digest(&SHA256, canonical.as_bytes()).as_ref());
    let keyring = Keyring::generate(Algorithm::EdDsa).unwrap();
    let claims = MintedClaims {
        issuer: ISSUER,
        subject: "user",
        audience: &["api".into()],
        expires: now.plus(Duration::from_secs(600)),
        issued_at: now,
        jti: "bench",
        client: "web",
        scope: &Scope::parse("read write").unwrap(),
        session: None,
        account: None,
        bound_to: KeyThumbprint::parse(&jkt),
        certificate: None,
        vouched_by: None,
        delegation: None,
        own: None,
        style: TokenStyle::default(),
    };
    let token = mint(keyring.signer(), &claims).unwrap();
    let settings =
        DpopSettings { max_age: Duration::from_secs(300), max_proofs: 100_000_000, ..DpopSettings::default() };
    let gate = Gate::builder().issuer(ISSUER).audience(["api"]).keys(keyring).dpop(settings).build().await.unwrap();
    let mut service = gate.layer().layer(Inner);
    let ath = text(digest(&SHA256, token.expose().as_bytes()).as_ref());
    let header = text(format!("{{\"typ\":\"dpop+jwt\",\"alg\":\"ES256\",\"jwk\":{canonical}}}").as_bytes());
    let random = SystemRandom::new();
    let proof = |number: usize| {
        // The gate refuses proofs of the second of its start, because they may have been used before.
        let iat = now.as_secs() + 1;
        let htu = format!("{ISSUER}/data");
        let claims = text(
            format!("{{\"jti\":\"{number}\",\"htm\":\"GET\",\"htu\":\"{htu}\",\"iat\":{iat},\"ath\":\"{ath}\"}}")
                .as_bytes(),
        );
        let message = format!("{header}.{claims}");
        let signature = client.sign(&random, message.as_bytes()).unwrap();
        (message, signature.as_ref().to_vec())
    };
    let proofs: Vec<_> = (0..if measures() { 60_000 } else { 10 }).map(proof).collect();
    let (message, signature) = proofs[0].clone();
    let request = move |(message, signature): &(String, Vec<u8>)| {
        Request::get("/data")
            .header("host", "auth.example.com")
            .header("authorization", format!("DPoP {}", token.expose()))
            .header("dpop", format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
            .body(Full::<Bytes>::default())
            .unwrap()
    };
    let mut proofs = proofs.iter();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    let mut refused = 0_u32;
    let cases = vec![
        Case::new("one check of an ES256 signature", || key.verify(message.as_bytes(), &signature).unwrap()),
        Case::timed("DPoP request, token cached, ES256", |operations| {
            let mut took = Duration::ZERO;
            let mut left = operations;
            while left > 0 {
                // Made shortly before, as for a request that was just read, but outside of the measured time.
                let some = left.min(AT_ONCE);
                let requests: Vec<_> =
                    (0..some).map(|_| request(proofs.next().expect("more proofs are needed"))).collect();
                took += busy(|| {
                    for request in requests {
                        let reply = service.call(request).now_or_never().unwrap().unwrap();
                        refused += u32::from(reply.status() != 200);
                    }
                });
                left -= some;
            }
            took
        }),
    ];
    let measured = interleave(cases, rounds.min(20));
    measured.print("A request with a proof of its own", "one check of an ES256 signature");
    let ratio = measured.ratio("DPoP request, token cached, ES256", "one check of an ES256 signature");
    drop(measured);
    assert_eq!(refused, 0, "each proof is good");
    let verdict = if ratio <= MOST_OF_A_SIGNATURE { "met" } else { "NOT met" };
    println!("\nDPoP request / ES256 check: {ratio:.2} (at most {MOST_OF_A_SIGNATURE}): {verdict}");
}
