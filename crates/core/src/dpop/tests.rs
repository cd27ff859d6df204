use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use serde_json::{Value, json};

use super::memory::SHARE;
use super::*;
use crate::clock::{ManualTime, TimeSource};
use crate::store::conformance::nodes::MemoryNode;
use crate::store::memory::MemoryStore;
use crate::token::keyring::RefreshSecret;

const URL: &str = "https://api.example/orders";
const TOKEN: &str = "a.token.b";
const START: Timestamp = Timestamp::from_secs(1_800_000_000);
const NOW: Timestamp = Timestamp::from_secs(1_800_001_000);

enum Key {
    Edwards(Ed25519KeyPair),
    Curve(EcdsaKeyPair),
}

/// A client with a key.
struct Client(Key);

impl Client {
    fn new() -> Self {
        Self(Key::Edwards(Ed25519KeyPair::generate().unwrap()))
    }

    fn of_curve() -> Self {
        Self(Key::Curve(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()))
    }

    fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.0 {
            Key::Edwards(key) => json!({"kty": "OKP", "crv": "Ed25519", "x": text(key.public_key().as_ref())}),
            Key::Curve(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": text(&point[1..33]), "y": text(&point[33..])})
            }
        }
    }

    fn header(&self) -> Value {
        let alg = match &self.0 {
            Key::Edwards(_) => "EdDSA",
            Key::Curve(_) => "ES256",
        };
        json!({"typ": "dpop+jwt", "alg": alg, "jwk": self.jwk()})
    }

    fn sign(&self, message: &str) -> String {
        let signature = match &self.0 {
            Key::Edwards(key) => key.sign(message.as_bytes()).as_ref().to_vec(),
            Key::Curve(key) => key.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
        };
        URL_SAFE_NO_PAD.encode(signature)
    }

    fn signed(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{message}.{}", self.sign(&message))
    }

    fn proof(&self, claims: &Value) -> String {
        self.signed(&self.header().to_string(), &claims.to_string())
    }

    fn thumbprint(&self) -> KeyThumbprint {
        SignedProof::read(&self.proof(&claims("any")), OURS).unwrap().key
    }
}

/// The hash of the token.
fn ath() -> String {
    URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, TOKEN.as_bytes()))
}

fn claims(jti: &str) -> Value {
    json!({"jti": jti, "htm": "GET", "htu": URL, "iat": NOW.as_secs(), "ath": ath()})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims("x");
    claims[name] = value;
    claims
}

fn keys() -> RefreshKeys {
    RefreshKeys::new(1, &[(1, RefreshSecret::generate().unwrap())]).unwrap()
}

struct World {
    dpop: Dpop,
    store: MemoryStore,
    keys: RefreshKeys,
    client: Client,
}

impl World {
    fn new(needs_nonce: bool) -> Self {
        let settings = DpopSettings { needs_nonce, ..DpopSettings::default() };
        let dpop = Dpop::new(settings, Duration::from_secs(2), START);
        let store = MemoryStore::for_a_trial("https://api.example", Duration::ZERO);
        Self { dpop, store, keys: keys(), client: Client::new() }
    }

    fn check_headers(&self, headers: &HeaderMap) -> Result<CheckedProof, Denial> {
        let expected = Expected {
            method: &Method::GET,
            target: TargetUri::parse(URL),
            token: Some((&ath(), self.client.thumbprint())),
        };
        self.dpop.check(headers, &expected, &self.keys, NOW)
    }

    fn check(&self, proof: &str) -> Result<CheckedProof, Denial> {
        let mut headers = HeaderMap::new();
        headers.insert(PROOF.clone(), HeaderValue::from_str(proof).unwrap());
        self.check_headers(&headers)
    }

    fn use_it(&self, proof: &str) -> Result<(), Denial> {
        self.dpop.use_once(&self.check(proof)?, NOW, &self.store).map(drop)
    }

    /// The flaw of a proof.
    fn flaw(&self, proof: &str) -> ProofFlaw {
        match self.check(proof) {
            Err(Denial::BadProof(flaw)) => flaw,
            other => panic!("{other:?}: {proof}"),
        }
    }
}

#[test]
fn n30_each_of_the_twelve_checks_refuses_by_itself() {
    let w = World::new(false);
    let c = &w.client;
    let header = |name: &str, value: Value| {
        let mut header = c.header();
        header[name] = value;
        c.signed(&header.to_string(), &claims("x").to_string())
    };
    let good = c.proof(&claims("x"));
    assert!(w.check(&good).is_ok());
    // 1. One header, one JWT, short and strict.
    assert_eq!(w.check_headers(&HeaderMap::new()), Err(ProofFlaw::Missing.into()));
    let mut two = HeaderMap::new();
    two.append(PROOF.clone(), HeaderValue::from_str(&good).unwrap());
    two.append(PROOF.clone(), HeaderValue::from_str(&good).unwrap());
    assert!(matches!(w.check_headers(&two), Err(Denial::BadProof(ProofFlaw::Malformed(_)))));
    let twice = claims("x").to_string().replacen('{', "{\"jti\":\"y\",", 1);
    for malformed in [
        String::new(),
        "x".to_owned(),
        format!("{good}, {good}"),
        format!("{good}="),
        format!("{good}.x"),
        good.replace('.', ""),
        c.signed(&c.header().to_string(), &twice),
        c.signed(&c.header().to_string(), "[]"),
        c.signed(&format!("{} ", c.header()), "{}x"),
        c.proof(&with("long", json!("x".repeat(proof::MAX_PROOF)))),
        header("crit", json!(["exp"])),
        header("b64", json!(false)),
    ] {
        assert!(matches!(w.flaw(&malformed), ProofFlaw::Malformed(_)), "{malformed}");
    }
    // 2.
    for typ in [json!("JWT"), json!("DPoP+jwt"), json!("application/dpop+jwt"), json!(1), Value::Null] {
        assert_eq!(w.flaw(&header("typ", typ)), ProofFlaw::Type);
    }
    // 3.
    for alg in ["none", "HS256", "eddsa", "ES512", "RS384", ""] {
        assert_eq!(w.flaw(&header("alg", json!(alg))), ProofFlaw::Algorithm, "{alg}");
    }
    // 4.
    let mut jwks = vec![
        Value::Null,
        json!("x"),
        json!({}),
        Client::of_curve().jwk(),
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode([0; 32])}),
    ];
    for private in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
        let mut jwk = c.jwk();
        jwk[private] = json!("AA");
        jwks.push(jwk);
    }
    for jwk in jwks {
        assert_eq!(w.flaw(&header("jwk", jwk.clone())), ProofFlaw::Key, "{jwk}");
    }
    // Names of the key elsewhere mean nothing.
    let mut named = c.header();
    named["kid"] = json!("other");
    named["jku"] = json!("https://evil.example/jwks");
    named["jwk"]["kid"] = json!("other");
    named["jwk"]["x5c"] = json!(["AA"]);
    assert!(w.check(&c.signed(&named.to_string(), &claims("x").to_string())).is_ok());
    // 5.
    assert_eq!(w.flaw(&header("jwk", Client::new().jwk())), ProofFlaw::Signature);
    let unsigned = good.rsplit_once('.').unwrap().0;
    assert_eq!(w.flaw(&format!("{unsigned}.{}", URL_SAFE_NO_PAD.encode([0; 64]))), ProofFlaw::Signature);
    assert_eq!(w.flaw(&format!("{unsigned}.AA")), ProofFlaw::Signature);
    // 6.
    for htm in [json!("POST"), json!("get"), json!("GET "), Value::Null, json!(["GET"])] {
        assert_eq!(w.flaw(&c.proof(&with("htm", htm))), ProofFlaw::Method);
    }
    // 7.
    for htu in [json!("https://api.example/other"), json!("http://api.example/orders"), json!("orders"), Value::Null] {
        assert_eq!(w.flaw(&c.proof(&with("htu", htu))), ProofFlaw::Url);
    }
    let nowhere = Expected { method: &Method::GET, target: None, token: None };
    let mut headers = HeaderMap::new();
    headers.insert(PROOF.clone(), HeaderValue::from_str(&c.proof(&with("htu", json!("x")))).unwrap());
    assert_eq!(w.dpop.check(&headers, &nowhere, &w.keys, NOW), Err(ProofFlaw::Url.into()), "no URL equals no URL");
    // 8. `iat` may be 60 seconds old or 5 ahead, with 2 of leeway.
    let now = NOW.as_secs();
    for bad in [json!(now - 63), json!(now + 8), json!("now"), Value::Null, json!(-1), json!(1e300), json!(true)] {
        assert_eq!(w.flaw(&c.proof(&with("iat", bad.clone()))), ProofFlaw::Time, "{bad}");
    }
    for good in [json!(now - 62), json!(now + 7), json!(now as f64 - 0.5)] {
        assert!(w.check(&c.proof(&with("iat", good.clone()))).is_ok(), "{good}");
    }
    // 10.
    for ath in [json!("x"), json!(URL_SAFE_NO_PAD.encode([0; 32])), Value::Null, json!(TOKEN)] {
        assert_eq!(w.flaw(&c.proof(&with("ath", ath))), ProofFlaw::Token);
    }
    // 11.
    assert_eq!(w.check(&Client::new().proof(&claims("x"))), Err(Denial::OtherKey));
    // 12.
    for jti in [json!(""), json!("j".repeat(257)), json!(7), Value::Null] {
        assert_eq!(w.flaw(&c.proof(&with("jti", jti))), ProofFlaw::Id);
    }
    assert_eq!(w.use_it(&good), Ok(()));
    assert_eq!(w.use_it(&good), Err(ProofFlaw::Replayed.into()));
    let again = c.proof(&with("iat", json!(now - 40)));
    assert_eq!(w.use_it(&again), Err(ProofFlaw::Replayed.into()), "a jti under another iat");
    assert_eq!(w.use_it(&c.proof(&claims("y"))), Ok(()));
}

#[test]
fn n30_the_first_check_in_order_speaks_and_no_signature_is_verified_before_it() {
    let w = World::new(true);
    let other = Client::of_curve();
    // The proof has every flaw; they are mended in the order of the checks.
    let mut header = json!({"typ": "JWT", "alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}});
    let mut claims = json!({"jti": "", "htm": "POST", "htu": "x", "iat": 0, "nonce": "x", "ath": "x"});
    let mut signed = false;
    let make = |header: &Value, claims: &Value, signed: bool| {
        let proof = other.signed(&header.to_string(), &claims.to_string());
        let forged = format!("{}.{}", proof.rsplit_once('.').unwrap().0, URL_SAFE_NO_PAD.encode([1; 64]));
        if signed { proof } else { forged }
    };
    let nonce = nonce::issue(&w.keys, NOW).unwrap();
    let good = self::claims("x");
    type Step<'a> = (ProofFlaw, Box<dyn Fn(&mut Value, &mut Value, &mut bool) + 'a>);
    let steps: Vec<Step<'_>> = vec![
        (ProofFlaw::Type, Box::new(|header, _, _| header["typ"] = json!("dpop+jwt"))),
        (ProofFlaw::Algorithm, Box::new(|header, _, _| header["alg"] = json!("ES256"))),
        (ProofFlaw::Key, Box::new(|header, _, _| header["jwk"] = other.jwk())),
        // Until here, the signature is bad, and nothing says so: it was not verified.
        (ProofFlaw::Signature, Box::new(|_, _, signed| *signed = true)),
        (ProofFlaw::Method, Box::new(|_, claims, _| claims["htm"] = good["htm"].clone())),
        (ProofFlaw::Url, Box::new(|_, claims, _| claims["htu"] = good["htu"].clone())),
        (ProofFlaw::Time, Box::new(|_, claims, _| claims["iat"] = good["iat"].clone())),
        (ProofFlaw::Nonce, Box::new(|_, claims, _| claims["nonce"] = json!(nonce))),
        (ProofFlaw::Token, Box::new(|_, claims, _| claims["ath"] = good["ath"].clone())),
    ];
    for (flaw, mend) in steps {
        assert_eq!(w.flaw(&make(&header, &claims, signed)), flaw);
        mend(&mut header, &mut claims, &mut signed);
    }
    assert_eq!(w.check(&make(&header, &claims, signed)), Err(Denial::OtherKey), "before the jti");
}

#[test]
fn n30_only_the_key_of_a_presented_token_is_remembered() {
    let w = World::new(false);
    let header = |proof: &str| proof.split('.').next().unwrap().to_owned();
    let is_known = |proof: &str| w.dpop.known.get(&header(proof)).is_some();
    let good = w.client.proof(&claims("x"));
    // A proof by a key that no token is bound to, one for another token, and one at the token endpoint.
    let stranger = Client::new().proof(&claims("x"));
    assert_eq!(w.check(&stranger), Err(Denial::OtherKey));
    assert_eq!(w.flaw(&w.client.proof(&with("ath", json!("x")))), ProofFlaw::Token);
    let mut headers = HeaderMap::new();
    headers.insert(PROOF.clone(), HeaderValue::from_str(&good).unwrap());
    let without_token = Expected { method: &Method::GET, target: TargetUri::parse(URL), token: None };
    assert!(w.dpop.check(&headers, &without_token, &w.keys, NOW).is_ok());
    assert!(!is_known(&stranger) && !is_known(&good));
    // A remembered key verifies as before.
    assert!(w.check(&good).is_ok() && is_known(&good));
    assert!(w.check(&w.client.proof(&claims("y"))).is_ok());
    let (_, rest) = stranger.split_once('.').unwrap();
    assert_eq!(w.flaw(&format!("{}.{rest}", header(&good))), ProofFlaw::Signature, "of another key");
}

#[test]
fn n30_each_algorithm_that_is_listed_is_verified() {
    let w = World::new(false);
    for client in [Client::new(), Client::of_curve()] {
        assert_eq!(SignedProof::read(&client.proof(&claims("x")), OURS).unwrap().key, client.thumbprint());
    }
    for algorithm in proof::ALGORITHMS {
        let keyring = crate::token::Keyring::generate(algorithm).unwrap();
        let jwk = &keyring.jwks()["keys"][0];
        let header = json!({"typ": "dpop+jwt", "alg": algorithm.name(), "jwk": jwk});
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims("x").to_string())
        );
        let signature = keyring.signer().sign(message.as_bytes()).unwrap();
        let proof = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
        assert_eq!(w.check(&proof), Err(Denial::OtherKey), "{algorithm}: good, of another key");
    }
    let mut renamed = w.client.header();
    renamed["alg"] = json!("Ed25519");
    assert!(w.check(&w.client.signed(&renamed.to_string(), &claims("x").to_string())).is_ok(), "RFC 9864");
    assert_eq!(algorithms(), "ES256 EdDSA Ed25519 ES384 RS256 PS256");
}

#[test]
fn n32_of_concurrent_uses_of_a_proof_one_passes() {
    let w = World::new(false);
    for round in 0..50 {
        let proof = w.check(&w.client.proof(&claims(&format!("{round}")))).unwrap();
        let (passed, barrier) = (AtomicUsize::new(0), std::sync::Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    if w.dpop.use_once(&proof, NOW, &w.store).is_ok() {
                        passed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 1);
    }
}

fn thumbprint(number: u64) -> KeyThumbprint {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    KeyThumbprint::from_bytes(bytes)
}

#[test]
fn n33_the_memory_is_bounded_fails_closed_and_one_key_has_a_share() {
    const MOST: u64 = 10_000;
    let memory = ProofMemory::new("proof", MOST, Duration::from_secs(60));
    let of = |key: u64, jti: u64, at: Timestamp| memory.name(&thumbprint(key), &jti.to_string(), at);
    // One key can fill only its share.
    for jti in 0..MOST / SHARE {
        assert_eq!(memory.record(&of(0, jti, NOW), NOW), Ok(()));
    }
    assert_eq!(memory.record(&of(0, MOST, NOW), NOW), Err(NotRecorded::KeyIsFull));
    assert_eq!(memory.record(&of(0, 1, NOW), NOW), Err(NotRecorded::Seen), "it forgets none");
    // Other keys fill the rest. Then no further proof is recorded, and no recorded proof is forgotten.
    for key in 1..=MOST - MOST / SHARE {
        assert_eq!(memory.record(&of(key, 0, NOW), NOW), Ok(()));
    }
    assert_eq!(memory.held(), MOST);
    assert_eq!(memory.record(&of(MOST, 0, NOW), NOW), Err(NotRecorded::Full));
    assert_eq!(memory.record(&of(1, 0, NOW), NOW), Err(NotRecorded::Seen));
    // A proof is remembered while it could pass; then it is dropped, and there is room.
    let last = NOW.plus(Duration::from_secs(60));
    assert_eq!(memory.record(&of(1, 0, NOW), last), Err(NotRecorded::Seen));
    let later = last.plus(Duration::from_secs(31));
    memory.forget(last.plus(Duration::from_millis(500)));
    assert_eq!(memory.held(), MOST);
    assert_eq!(memory.record(&of(MOST, 0, later), later), Ok(()));
    memory.forget(later);
    assert_eq!(memory.held(), 1);
}

#[test]
fn n33_a_proof_takes_at_most_64_bytes() {
    // Each of a key of its own, which takes the most. The tables grow by doubling, so the number makes a difference.
    let at = |number: u64| Timestamp::from_secs(NOW.as_secs() - number % 125);
    let mut worst = 0.0_f64;
    for number in [50_000, 75_000, 100_000, 125_000, 150_000, 175_000] {
        let memory = ProofMemory::new("proof", 1_000_000, Duration::from_secs(90));
        let allocated = allocation_counter::measure(|| {
            for proof in 0..number {
                memory.record(&memory.name(&thumbprint(proof), "x", at(proof)), NOW).unwrap();
            }
        });
        let each = allocated.bytes_current as f64 / number as f64;
        println!("{number} proofs: {each:.1} bytes each");
        worst = worst.max(each);
    }
    assert!(worst <= 64.0, "{worst}");
}

#[test]
fn n33_a_proof_of_before_the_start_is_refused() {
    let w = World::new(false);
    let at = |start: Timestamp, iat: u64, needs_nonce: bool, claims: &mut Value| {
        let dpop = Dpop::new(DpopSettings { needs_nonce, ..DpopSettings::default() }, Duration::ZERO, start);
        claims["iat"] = json!(iat);
        let mut headers = HeaderMap::new();
        headers.insert(PROOF.clone(), HeaderValue::from_str(&w.client.proof(claims)).unwrap());
        let expected = Expected { method: &Method::GET, target: TargetUri::parse(URL), token: None };
        dpop.check(&headers, &expected, &w.keys, NOW).map(|_| ())
    };
    let (now, mut claims) = (NOW.as_secs(), claims("x"));
    // `iat` has whole seconds: one that began before the start may have been used before it.
    let start = NOW.minus(Duration::from_millis(1500));
    assert_eq!(at(start, now - 2, false, &mut claims), Err(ProofFlaw::BeforeStart.into()));
    assert_eq!(at(start, now - 1, false, &mut claims), Ok(()));
    // With nonces, only the time of the nonce counts: a client's clock that is ahead makes no difference.
    claims["nonce"] = json!(nonce::issue(&w.keys, start.minus(Duration::from_millis(1))));
    assert_eq!(at(start, now + 4, true, &mut claims), Err(ProofFlaw::Nonce.into()));
    claims["nonce"] = json!(nonce::issue(&w.keys, start));
    assert_eq!(at(start, now - 50, true, &mut claims), Ok(()));
}

#[test]
fn n34_a_nonce_is_ours_for_five_minutes_and_renewed_when_half_is_over() {
    let w = World::new(true);
    let age = |age: u64| nonce::issue(&w.keys, NOW.minus(Duration::from_secs(age))).unwrap();
    let check = |nonce: Value| w.check(&w.client.proof(&with("nonce", nonce))).map(|proof| proof.renews_nonce());
    assert_eq!(check(json!(age(0))), Ok(false));
    assert_eq!(check(json!(age(149))), Ok(false));
    assert_eq!(check(json!(age(150))), Ok(true));
    assert_eq!(check(json!(age(299))), Ok(true));
    let other = nonce::issue(&keys(), NOW).unwrap();
    let ahead = nonce::issue(&w.keys, NOW.plus(Duration::from_secs(3))).unwrap();
    let mut forged = URL_SAFE_NO_PAD.decode(age(0)).unwrap();
    forged[7] ^= 1;
    let forged = URL_SAFE_NO_PAD.encode(forged);
    let bad =
        [json!(age(300)), json!(other), json!(ahead), json!(forged), json!(""), json!("x"), json!(1), Value::Null];
    for bad in bad {
        assert_eq!(check(bad.clone()), Err(ProofFlaw::Nonce.into()), "{bad}");
    }
    // Another node of the keyring, which uses a newer secret, still accepts the nonce.
    let (first, second) = (RefreshSecret::generate().unwrap(), RefreshSecret::generate().unwrap());
    let text = [first.to_text(), second.to_text()];
    let secret = |n: usize| RefreshSecret::from_text(text[n].as_bytes()).unwrap();
    let old = RefreshKeys::new(1, &[(1, secret(0)), (2, secret(1))]).unwrap();
    let new = RefreshKeys::new(2, &[(1, secret(0)), (2, secret(1))]).unwrap();
    let nonce = nonce::issue(&old, NOW).unwrap();
    assert_eq!(nonce::issued_at(&new, &nonce, NOW, Duration::ZERO), Some(NOW));
    assert!(w.dpop.nonce(&w.keys, NOW).is_some() && World::new(false).dpop.nonce(&w.keys, NOW).is_none());
}

/// Of the clocks of gates and store, one may differ from another by the leeway and a round trip.
#[tokio::test]
async fn j26_the_store_keeps_a_proof_for_as_long_as_it_may_pass_at_any_gate() {
    let w = World::new(false);
    let (leeway, time) = (w.dpop.leeway, ManualTime::at(NOW));
    let store = MemoryNode::first("https://api.test", leeway, Arc::clone(&time) as Arc<dyn TimeSource>);
    let used = async |dpop: &Dpop, proof: &CheckedProof, now: Timestamp| {
        OnceProof { dpop, proof: *proof }.use_once(now, &store).await
    };
    let checked = |dpop: &Dpop, jti: &str, now: Timestamp| {
        // The largest accepted `iat`.
        let mut claims = claims(jti);
        claims["iat"] = json!(NOW.plus(AHEAD + leeway).as_secs());
        let mut headers = HeaderMap::new();
        headers.insert(PROOF.clone(), HeaderValue::from_str(&w.client.proof(&claims)).unwrap());
        let token = Some((&*ath(), w.client.thumbprint()));
        let expected = Expected { method: &Method::GET, target: TargetUri::parse(URL), token };
        dpop.check(&headers, &expected, &w.keys, now)
    };
    used(&w.dpop, &checked(&w.dpop, "captured", NOW).unwrap(), NOW).await.unwrap();
    // The last moment at which a gate whose clock is behind accepts the proof.
    let last = NOW.plus(AHEAD + leeway + w.dpop.settings.max_age + leeway);
    time.advance(last.since(NOW) + AHEAD + leeway - Duration::from_millis(1));
    let other = Dpop::new(w.dpop.settings.clone(), leeway, START);
    let captured = checked(&other, "captured", last).unwrap();
    let refused = used(&other, &captured, last).await;
    assert!(matches!(refused, Err(Error::Denied(Denial::BadProof(ProofFlaw::Replayed)))), "{refused:?}");
    used(&other, &checked(&other, "of its own", last).unwrap(), last).await.unwrap();
    assert!(checked(&other, "captured", last.plus(Duration::from_millis(1001))).is_err(), "then it passes nowhere");
}
