//! Sessions of browsers that are bound to a device.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::device::Device;

use super::browser::{ACCESS, begin, rules};
use super::browser_cache::{check, is_miss, load};
use super::support::{Kind, Mode, World, denied, failed, secs};
use crate::denial::{Denial, ProofFlaw};
use crate::engine::{BrowserLogin, DeviceAnswer, Engine, Origin, PresentedDevice, RenewWhen};
use crate::fault::{Error, Fault};
use crate::session::{Binding, DeviceKey, Session};
use crate::store::{Store, Swap};
use crate::token::device_cookie;
use crate::verify_cache::Verified;

const OTHER: Denial = Denial::DeviceRefused("the session is bound to another device key");
const LATE: Denial = Denial::DeviceRefused("the login was too long ago");

fn challenge(engine: &Engine, login: &BrowserLogin) -> String {
    engine.device_challenge(&login.cookie).unwrap()
}

async fn bind_by(engine: &Engine, login: &BrowserLogin, proof: &str) -> Result<(), Error> {
    engine.bind_device(&login.cookie, proof, (&rules, None), &Origin::default()).await.map(drop)
}

async fn bind(engine: &Engine, login: &BrowserLogin, device: &Device) -> Result<(), Error> {
    bind_by(engine, login, &device.registration(&challenge(engine, login))).await
}

async fn refresh(engine: &Engine, login: &BrowserLogin, proof: &str) -> Result<Option<String>, Error> {
    let answer = engine.refresh_device(&login.cookie, Some(proof), &rules).await?;
    Ok(answer.map(|DeviceAnswer { cookie, .. }| cookie.to_string()))
}

fn thumbprint(session: &Session) -> Option<String> {
    Some(session.browser.as_ref()?.device.as_ref()?.thumbprint.to_string())
}

async fn bound(world: &World) -> (BrowserLogin, Device) {
    let (login, device) = (begin(world).await, Device::default());
    bind(&world.engine, &login, &device).await.unwrap();
    // The next challenge is another one.
    world.advance(Duration::from_millis(1));
    (login, device)
}

#[tokio::test]
async fn b47_the_first_key_of_a_session_stays() {
    let world = World::on(Kind::Shared).await;
    let other_gate = world.second_node().await;
    let (login, first, second) = (begin(&world).await, Device::default(), Device::default());
    // Attack 41, at both gates at once.
    let both = futures_util::future::join(bind(&world.engine, &login, &first), bind(&other_gate, &login, &second));
    let (one, other) = both.await;
    let (winner, loser, refused) = if one.is_ok() { (first, second, other) } else { (second, first, one) };
    assert_eq!(denied(refused), OTHER);
    let kept = thumbprint(&world.record(login.session.id).await).unwrap();
    for engine in [&world.engine, &other_gate] {
        assert_eq!(denied(bind(engine, &login, &loser).await), OTHER);
        // The answer was lost: the same key again changes nothing.
        world.advance(secs(1));
        bind(engine, &login, &winner).await.unwrap();
    }
    let record = world.record(login.session.id).await;
    assert_eq!((thumbprint(&record), record.revision), (Some(kept), 2));
}

#[tokio::test]
async fn b47_a_session_is_bound_within_five_minutes_of_its_login_and_with_its_cookie() {
    let world = World::new().await;
    let (login, foreign, device) = (begin(&world).await, begin(&world).await, Device::default());
    let early = challenge(&world.engine, &login);
    // The challenge of another session.
    let theirs = device.registration(&challenge(&world.engine, &foreign));
    assert_eq!(denied(bind_by(&world.engine, &login, &theirs).await), ProofFlaw::Nonce.into());
    world.advance(secs(299));
    let late = begin(&world).await;
    bind_by(&world.engine, &login, &device.registration(&early)).await.unwrap();
    world.advance(secs(1));
    assert_eq!(denied(bind_by(&world.engine, &foreign, &theirs).await), ProofFlaw::Nonce.into(), "it is 5 minutes old");
    assert_eq!(denied(bind(&world.engine, &foreign, &device).await), LATE);
    bind(&world.engine, &late, &device).await.unwrap();
    // A fault decides nothing.
    let login = begin(&world).await;
    world.store.set(Mode::WritesFail);
    failed(bind(&world.engine, &login, &device).await);
    world.store.set(Mode::Good);
    assert_eq!(thumbprint(&world.record(login.session.id).await), None);
    bind(&world.engine, &login, &device).await.unwrap();
}

/// A JWT that an RSA key signs.
fn by_rsa(key: &RsaKeyPair, header: &Value, challenge: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(&json!({ "jti": challenge })));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn b47_b49_a_device_may_have_an_rsa_key_of_2048_bits() {
    let world = World::new().await;
    let (login, [key, other]) =
        (begin(&world).await, [(); 2].map(|()| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));
    // DER: SEQUENCE { INTEGER n, of 257 bytes with its sign, INTEGER e }.
    let der = key.public_key().as_ref();
    let (n, e) = (&der[9..265], &der[267..]);
    let registration = |n: &[u8]| {
        let jwk = json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e) });
        json!({ "alg": "RS256", "jwk": jwk, "typ": "dbsc+jwt" })
    };
    let short = by_rsa(&key, &registration(&n[1..]), &challenge(&world.engine, &login));
    assert_eq!(denied(bind_by(&world.engine, &login, &short).await), ProofFlaw::Key.into());
    let forged = by_rsa(&other, &registration(n), &challenge(&world.engine, &login));
    assert_eq!(denied(bind_by(&world.engine, &login, &forged).await), ProofFlaw::Signature.into());
    let good = by_rsa(&key, &registration(n), &challenge(&world.engine, &login));
    bind_by(&world.engine, &login, &good).await.unwrap();
    // The record keeps the key, and it alone proves the device.
    world.advance(Duration::from_millis(1));
    let header = json!({ "alg": "RS256", "typ": "dbsc+jwt" });
    let next = challenge(&world.engine, &login);
    let foreign = refresh(&world.engine, &login, &by_rsa(&other, &header, &next)).await;
    assert_eq!(denied(foreign), ProofFlaw::Signature.into());
    assert!(refresh(&world.engine, &login, &by_rsa(&key, &header, &next)).await.unwrap().is_some());
}

#[tokio::test]
async fn b47_a_registration_is_strict() {
    let world = World::new().await;
    let (login, device) = (begin(&world).await, Device::default());
    let good = || (json!({ "alg": "ES256", "jwk": device.jwk(), "typ": "dbsc+jwt" }), challenge(&world.engine, &login));
    let changes: [(&str, Value, ProofFlaw); 8] = [
        ("typ", json!("dpop+jwt"), ProofFlaw::Type),
        ("typ", Value::Null, ProofFlaw::Type),
        ("alg", json!("none"), ProofFlaw::Algorithm),
        ("alg", json!("HS256"), ProofFlaw::Algorithm),
        ("alg", json!("ES384"), ProofFlaw::Algorithm),
        ("alg", json!("RS256"), ProofFlaw::Key),
        ("jwk", Value::Null, ProofFlaw::Key),
        ("jwk", Device::default().jwk(), ProofFlaw::Signature),
    ];
    for (name, value, flaw) in changes {
        let (mut header, jti) = good();
        header[name] = value;
        let proof = device.sign(&header, &json!({ "jti": jti }));
        assert_eq!(denied(bind_by(&world.engine, &login, &proof).await), flaw.into(), "{header}");
    }
    let (mut header, jti) = good();
    header["jwk"]["d"] = json!("AAAA");
    assert_eq!(
        denied(bind_by(&world.engine, &login, &device.sign(&header, &json!({ "jti": jti }))).await),
        ProofFlaw::Key.into()
    );
    let (header, _) = good();
    assert_eq!(denied(bind_by(&world.engine, &login, &device.sign(&header, &json!({}))).await), ProofFlaw::Id.into());
    assert_eq!(world.record(login.session.id).await.revision, 1);
}

#[tokio::test]
async fn b49_a_proof_counts_once_and_for_its_session_and_its_recorded_key() {
    let mut world = World::on(Kind::Shared).await;
    let (login, device) = bound(&world).await;
    let jti = challenge(&world.engine, &login);
    let proof = device.proof(&jti);
    let cookie = refresh(&world.engine, &login, &proof).await.unwrap().unwrap();
    let keyring = world.engine.keyring();
    let expiry = device_cookie::expiry(keyring.refresh_keys(), 1, login.session.id, cookie.as_bytes()).unwrap();
    assert_eq!(expiry, world.engine.clock().now().plus(secs(660)));
    // Attack 42: again, here and at another gate; by another key; for another session; with a key of its own.
    assert_eq!(denied(refresh(&world.engine, &login, &proof).await), ProofFlaw::Replayed.into());
    let other_gate = world.second_node().await;
    assert_eq!(denied(refresh(&other_gate, &login, &proof).await), ProofFlaw::Replayed.into());
    // A gate alone has no other memory than its own.
    let alone = World::new().await;
    let (login_there, device_there) = bound(&alone).await;
    let once = device_there.proof(&challenge(&alone.engine, &login_there));
    assert!(refresh(&alone.engine, &login_there, &once).await.is_ok());
    assert_eq!(denied(refresh(&alone.engine, &login_there, &once).await), ProofFlaw::Replayed.into());
    world.advance(secs(1));
    let jti = challenge(&world.engine, &login);
    let (theirs, _) = bound(&world).await;
    let jti_of_theirs = challenge(&world.engine, &theirs);
    let header = |changes: Value| {
        let mut header = json!({ "alg": "ES256", "typ": "dbsc+jwt" });
        header.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        header
    };
    let payload = json!({ "jti": jti });
    for (what, proof, flaw) in [
        ("another key", Device::default().proof(&jti), ProofFlaw::Signature),
        ("another session", device.proof(&jti_of_theirs), ProofFlaw::Nonce),
        ("no challenge", device.proof("AAAA"), ProofFlaw::Nonce),
        ("jwk", device.registration(&jti), ProofFlaw::Key),
        ("HS256", device.sign(&header(json!({ "alg": "HS256" })), &payload), ProofFlaw::Algorithm),
        ("none", device.sign(&header(json!({ "alg": "none" })), &payload), ProofFlaw::Algorithm),
        ("crit", device.sign(&header(json!({ "crit": ["x"] })), &payload), ProofFlaw::Key),
        ("typ", device.sign(&header(json!({ "typ": "JWT" })), &payload), ProofFlaw::Type),
    ] {
        assert_eq!(denied(refresh(&world.engine, &login, &proof).await), flaw.into(), "{what}");
    }
    let without = world.engine.refresh_device(&login.cookie, None, &rules).await.map(drop);
    assert_eq!(denied(without), ProofFlaw::Missing.into());
    let late = device.proof(&jti);
    world.advance(secs(300));
    assert_eq!(denied(refresh(&world.engine, &login, &late).await), ProofFlaw::Nonce.into());
    // The gate does not know proofs that were used before its start.
    let early = device.proof(&challenge(&world.engine, &login));
    world.advance(secs(1));
    world.restart().await;
    assert_eq!(denied(refresh(&world.engine, &login, &early).await), ProofFlaw::BeforeStart.into());
    assert!(refresh(&world.engine, &login, &device.proof(&challenge(&world.engine, &login))).await.is_ok());
}

#[tokio::test]
async fn b49_a_registration_counts_once_as_every_proof_does() {
    for kind in [Kind::Shared, Kind::Alone] {
        let mut world = World::on(kind).await;
        let (login, device) = (begin(&world).await, Device::default());
        // The gate stops and starts between the login and the registration.
        let proof = device.registration(&challenge(&world.engine, &login));
        world.advance(secs(1));
        world.restart().await;
        bind_by(&world.engine, &login, &proof).await.unwrap();
        assert_eq!(denied(bind_by(&world.engine, &login, &proof).await), ProofFlaw::Replayed.into());
        if matches!(kind, Kind::Shared) {
            world.advance(secs(1));
            let other_gate = world.second_node().await;
            assert_eq!(denied(bind_by(&other_gate, &login, &proof).await), ProofFlaw::BeforeStart.into());
            let proof = device.registration(&challenge(&world.engine, &login));
            bind_by(&world.engine, &login, &proof).await.unwrap();
            assert_eq!(denied(bind_by(&other_gate, &login, &proof).await), ProofFlaw::Replayed.into());
        }
        world.advance(secs(1));
        world.restart().await;
        assert_eq!(denied(bind_by(&world.engine, &login, &proof).await), ProofFlaw::BeforeStart.into());
    }
}

#[tokio::test]
async fn b21_b48_a_request_without_its_device_renews_nothing() {
    let world = World::new().await;
    let ((login, device), plain) = (bound(&world).await, begin(&world).await);
    world.advance(ACCESS + secs(1));
    let cookie = refresh(&world.engine, &login, &device.proof(&challenge(&world.engine, &login))).await.unwrap();
    let request = async |login: &BrowserLogin, mode, shown: Option<&str>| {
        let by = RenewWhen::OverBy(PresentedDevice::new(mode, shown.map(str::as_bytes)));
        let loaded = load(&world, &login.cookie.value().as_str().into(), by).await.map(drop);
        (loaded, world.record(login.session.id).await.revision)
    };
    let (foreign, cookie) = ("rd1_x".repeat(12), cookie.unwrap());
    for shown in [None, Some("rd1_x"), Some(&*foreign)] {
        let (refused, revision) = request(&login, Binding::Optional, shown).await;
        assert_eq!((denied(refused), revision), (Denial::DeviceProofMissing, 2), "{shown:?}");
    }
    let (loaded, revision) = request(&login, Binding::Optional, Some(&cookie)).await;
    assert!(loaded.is_ok() && revision == 3);
    // The session of a browser that was never bound.
    let (refused, revision) = request(&plain, Binding::Required, None).await;
    assert_eq!((denied(refused), revision), (Denial::DeviceProofMissing, 1));
    let (loaded, revision) = request(&plain, Binding::Optional, None).await;
    assert!(loaded.is_ok() && revision == 2);
}

#[tokio::test]
async fn b49_a_session_without_a_device_has_nothing_to_refresh_and_a_fault_is_one() {
    let world = World::new().await;
    let (login, device) = (begin(&world).await, Device::default());
    let proof = |login: &BrowserLogin| device.proof(&challenge(&world.engine, login));
    assert_eq!(refresh(&world.engine, &login, &proof(&login)).await.unwrap(), None);
    bind(&world.engine, &login, &device).await.unwrap();
    world.advance(secs(1));
    world.store.set(Mode::AllFails);
    failed(refresh(&world.engine, &login, &proof(&login)).await);
    world.store.set(Mode::Good);
    assert!(refresh(&world.engine, &login, &proof(&login)).await.unwrap().is_some());
    world.engine.end_browser(&login.cookie, &Origin::default()).await.unwrap();
    assert!(matches!(denied(refresh(&world.engine, &login, &proof(&login)).await), Denial::SessionOver(_)));
}

#[tokio::test]
async fn b47_a_key_that_another_hand_put_into_the_store_is_a_fault_and_never_a_decision() {
    let world = World::new().await;
    let (login, device) = bound(&world).await;
    let store: Arc<dyn Store> = Arc::clone(&world.store) as _;
    let known = world.record(login.session.id).await;
    let thief = Device::default();
    let forged = {
        let mut forged = Session { revision: known.revision + 1, ..known.clone() };
        let bound = forged.browser.as_mut().unwrap().device.as_mut().unwrap();
        bound.key = DeviceKey::Es256 { x: [1; 32], y: [2; 32] };
        forged
    };
    assert_eq!(store.compare_and_swap(known.revision, forged, None).await.unwrap(), Swap::Swapped);
    for device in [&device, &thief] {
        let proof = device.proof(&challenge(&world.engine, &login));
        assert!(matches!(failed(refresh(&world.engine, &login, &proof).await), Fault::Store(_)));
        assert!(matches!(failed(bind(&world.engine, &login, device).await), Fault::Store(_)));
    }
}

fn admits(world: &World, verified: &Verified, shown: Option<&str>) -> bool {
    let (keyring, now) = (|| world.engine.keyring(), world.engine.clock().now());
    verified.admits_device(Binding::Optional, || shown.map(str::as_bytes), keyring, now)
}

#[tokio::test]
async fn b48_a_cached_session_is_read_again_once_it_is_bound_and_then_needs_its_device() {
    let world = World::new().await;
    let login = begin(&world).await;
    let value: Arc<str> = login.cookie.value().as_str().into();
    load(&world, &value, RenewWhen::Over).await.unwrap();
    let unbound = check(&world, &value).unwrap();
    assert!(admits(&world, &unbound, None));
    let device = Device::default();
    bind(&world.engine, &login, &device).await.unwrap();
    assert!(is_miss(&check(&world, &value)), "what a gate knows of the unbound session is void, at all gates");
    load(&world, &value, RenewWhen::Over).await.unwrap();
    let verified = check(&world, &value).unwrap();
    assert!(admits(&world, &verified, None), "requests under way");
    world.advance(secs(60));
    assert!(!admits(&world, &verified, None));
    let cookie =
        refresh(&world.engine, &login, &device.proof(&challenge(&world.engine, &login))).await.unwrap().unwrap();
    let (theirs, other) = bound(&world).await;
    let foreign = refresh(&world.engine, &theirs, &other.proof(&challenge(&world.engine, &theirs))).await;
    let edited = format!("{}A", &cookie[..cookie.len() - 1]);
    let loads = world.store.loads.load(Ordering::SeqCst);
    for _ in 0..2 {
        assert!(admits(&world, &verified, Some(&cookie)));
        for bad in [&*foreign.as_ref().unwrap().clone().unwrap(), &cookie[..20], "", &edited] {
            assert!(bad == cookie || !admits(&world, &verified, Some(bad)), "{bad}");
        }
    }
    assert_eq!(world.store.loads.load(Ordering::SeqCst), loads, "no request reads the store");
    world.advance(secs(659));
    assert!(admits(&world, &verified, Some(&cookie)));
    world.advance(secs(1));
    assert!(!admits(&world, &verified, Some(&cookie)), "it is over, also if it was good before");
}
