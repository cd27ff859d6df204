#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use serde_json::json;

use super::*;
use crate::token::keyring::SigningKey;

/// The public half of a new key, as it is published.
fn published(kid: &str, algorithm: Algorithm) -> Value {
    let mut key = serde_json::to_value(SigningKey::generate(algorithm).unwrap().verifying_key().published()).unwrap();
    key["kid"] = kid.into();
    key
}

fn without(mut key: Value, member: &str) -> Value {
    key.as_object_mut().unwrap().remove(member);
    key
}

fn with(mut key: Value, member: &str, value: impl Into<Value>) -> Value {
    key[member] = value.into();
    key
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({ "keys": keys }).to_string().into_bytes()
}

fn read(keys: &[Value], algorithms: &[Algorithm]) -> Result<IssuerKeys, RulesError> {
    IssuerKeys::from_published_jwks(&set(keys), algorithms)
}

/// Why each key was left out.
fn causes(keys: &IssuerKeys) -> Vec<IgnoredCause> {
    keys.ignored().iter().map(|ignored| ignored.cause).collect()
}

#[test]
fn i7_each_odd_key_is_left_out_alone() {
    let good = published("good", Algorithm::EdDsa);
    let rsa = published("r", Algorithm::Rs256);
    let short = with(rsa.clone(), "n", "t".repeat(171));
    let long = with(rsa.clone(), "n", format!("v{}", "A".repeat(1400)));
    let secret = json!({"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "o", "alg": "HS256"});
    let elsewhere = json!({"kty": "EC", "crv": "P-521", "kid": "p", "x": "AA", "y": "AA"});
    for (odd, cause) in [
        (with(rsa.clone(), "use", "enc"), IgnoredCause::Use),
        (with(with(rsa.clone(), "use", "enc"), "alg", "RSA-OAEP"), IgnoredCause::Use),
        (with(rsa.clone(), "key_ops", json!(["encrypt"])), IgnoredCause::Use),
        (secret.clone(), IgnoredCause::Secret),
        (without(secret, "k"), IgnoredCause::Secret),
        (with(rsa.clone(), "d", "AQAB"), IgnoredCause::Private),
        (with(rsa.clone(), "dp", 1), IgnoredCause::Private),
        (with(published("e", Algorithm::EdDsa), "d", "AQAB"), IgnoredCause::Private),
        (with(rsa.clone(), "kty", "AKP"), IgnoredCause::Kind),
        (without(rsa.clone(), "kty"), IgnoredCause::Kind),
        (with(rsa.clone(), "kty", 1), IgnoredCause::Kind),
        (elsewhere, IgnoredCause::Kind),
        (with(published("x", Algorithm::EdDsa), "crv", "X25519"), IgnoredCause::Kind),
        (json!("text"), IgnoredCause::Kind),
        (json!(null), IgnoredCause::Kind),
        (json!([{}]), IgnoredCause::Kind),
        (json!({}), IgnoredCause::Kind),
        (with(rsa.clone(), "alg", "none"), IgnoredCause::Algorithm),
        (with(rsa.clone(), "alg", "RSA-OAEP"), IgnoredCause::Algorithm),
        (with(rsa.clone(), "alg", "HS256"), IgnoredCause::Unusable),
        (with(rsa.clone(), "alg", "ES256"), IgnoredCause::Unusable),
        (with(rsa.clone(), "alg", 256), IgnoredCause::Unusable),
        (with(rsa.clone(), "key_ops", "verify"), IgnoredCause::Unusable),
        (with(rsa.clone(), "kid", ""), IgnoredCause::Unusable),
        (with(rsa.clone(), "kid", "k".repeat(129)), IgnoredCause::Unusable),
        (with(rsa.clone(), "kid", 7), IgnoredCause::Unusable),
        (with(rsa.clone(), "n", "%%%"), IgnoredCause::Unusable),
        (with(rsa.clone(), "e", ""), IgnoredCause::Unusable),
        (without(rsa, "n"), IgnoredCause::Unusable),
        (short, IgnoredCause::Unusable),
        (long, IgnoredCause::Unusable),
        (with(published("p", Algorithm::Es256), "y", "A".repeat(43)), IgnoredCause::Unusable),
        (with(published("e", Algorithm::EdDsa), "x", "A".repeat(43)), IgnoredCause::Unusable),
    ] {
        for order in [[odd.clone(), good.clone()], [good.clone(), odd.clone()]] {
            let keys = read(&order, &[]).unwrap();
            assert_eq!((keys.len(), causes(&keys)), (1, vec![cause]), "{odd}");
            assert!(keys.find(Some("good"), "EdDSA").is_ok(), "{odd}");
        }
    }
}

#[test]
fn i7_two_keys_of_one_kid_and_algorithm_count_neither() {
    let [a, b, other] = ["a", "a", "other"].map(|kid| published(kid, Algorithm::EdDsa));
    let keys = read(&[a.clone(), b.clone(), other.clone()], &[]).unwrap();
    assert!(keys.find(Some("a"), "EdDSA").is_err() && keys.find(Some("other"), "EdDSA").is_ok());
    assert_eq!(causes(&keys), [IgnoredCause::Ambiguous; 2]);
    // A third key of that name changes nothing, and without another key the set has no usable key.
    assert!(matches!(
        read(&[a.clone(), b, published("a", Algorithm::EdDsa)], &[]),
        Err(RulesError::NoUsableKey(why)) if why.split("; ").count() == 3
    ));
    // The same key twice is one key.
    let keys = read(&[a.clone(), with(a.clone(), "x5t", "AA")], &[]).unwrap();
    assert_eq!((keys.len(), keys.ignored().len()), (1, 0));
    // Two algorithms with one name are two keys, each for its algorithm.
    let elliptic = published("a", Algorithm::Es256);
    let keys = read(&[a, elliptic], &[]).unwrap();
    assert_eq!(keys.len(), 2);
    for name in ["EdDSA", "ES256"] {
        assert_eq!(keys.find(Some("a"), name).unwrap().first.algorithm().name(), name);
    }
    for name in ["EdDSA", "Ed25519", "ES256"] {
        assert!(keys.find(None, name).is_ok_and(|keys| keys.first.algorithm().is_named(name)), "{name}");
    }
    assert!(keys.find(None, "ES384").is_err());
}

#[test]
fn i7_a_key_may_have_the_second_name_of_its_algorithm() {
    let named = with(published("a", Algorithm::EdDsa), "alg", "Ed25519");
    let keys = read(&[named], &[]).unwrap();
    for name in ["EdDSA", "Ed25519"] {
        assert_eq!(keys.find(Some("a"), name).unwrap().first.algorithm(), Algorithm::EdDsa, "{name}");
    }
    assert_eq!("Ed25519".parse::<Algorithm>().ok(), Some(Algorithm::EdDsa));
}

#[test]
fn i7_a_key_without_alg_has_the_algorithm_of_its_kind() {
    let bare = |algorithm| without(published("a", algorithm), "alg");
    let found = |key, algorithms: &[Algorithm]| {
        read(&[key], algorithms).map(|keys| keys.all().next().unwrap().algorithm()).ok()
    };
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Es384, Algorithm::Rs256] {
        assert_eq!(found(bare(algorithm), &[]), Some(algorithm));
    }
    assert_eq!(found(bare(Algorithm::Rs256), &[Algorithm::Es256, Algorithm::Ps256]), Some(Algorithm::Ps256));
    // Keys for algorithms outside the configuration are not found.
    assert_eq!(found(published("a", Algorithm::Rs256), &[Algorithm::Ps256]), None);
    assert_eq!(found(bare(Algorithm::EdDsa), &[Algorithm::Rs256]), None);
}

#[test]
fn i7_a_name_is_optional_for_the_only_key() {
    let bare = without(published("a", Algorithm::EdDsa), "kid");
    let keys = read(std::slice::from_ref(&bare), &[]).unwrap();
    assert!(keys.find(None, "EdDSA").is_ok() && keys.find(Some("any"), "EdDSA").is_ok());
    // Of two keys without a name, each is for tokens without kid alone.
    let keys = read(&[bare, without(published("a", Algorithm::Es256), "kid")], &[]).unwrap();
    for name in ["EdDSA", "ES256"] {
        assert!(keys.find(None, name).is_ok() && keys.find(Some("any"), name).is_err(), "{name}");
    }
}

#[test]
fn i5_what_is_no_set_is_no_answer() {
    let good = published("a", Algorithm::EdDsa);
    let text = good.to_string();
    for bad in [
        String::new(),
        "<!DOCTYPE html><title>Sign in</title>".into(),
        "null".into(),
        format!("[{text}]"),
        "{}".into(),
        r#"{"keys": {}}"#.into(),
        r#"{"keys": null}"#.into(),
        format!(r#"{{"keys": [{text}], "keys": [{text}]}}"#),
        format!(r#"{{"keys": [{text}], "\u006beys": []}}"#),
        format!(r#"{{"keys": [{{"kty": "OKP", "kty": "RSA"}}, {text}]}}"#),
        format!(r#"{{"keys": [{text}]}} {{}}"#),
        format!(r#"{{"keys": [{text}]}}x"#),
        format!(r#"{{"keys": [{text}], "a": {}1{}}}"#, "[".repeat(16), "]".repeat(16)),
        format!(r#"{{"keys": [{text}]"#),
    ] {
        assert!(matches!(IssuerKeys::from_published_jwks(bad.as_bytes(), &[]), Err(RulesError::NotJwks(_))), "{bad}");
    }
    assert!(matches!(read(&[], &[]), Err(RulesError::NoUsableKey(_))));
    assert!(matches!(read(&[json!({})], &[]), Err(RulesError::NoUsableKey(_))));
    let many: Vec<_> = (0..=MAX_KEYS).map(|n| with(good.clone(), "kid", n.to_string())).collect();
    assert!(matches!(read(&many, &[]), Err(RulesError::TooManyKeys(101))));
    assert_eq!(read(&many[1..], &[]).unwrap().len(), MAX_KEYS);
}

#[test]
fn i7_certificates_in_a_key_are_ignored() {
    let key = published("a", Algorithm::EdDsa);
    let dressed = with(with(key.clone(), "x5c", json!(["AAAA"])), "x5u", "http://169.254.169.254/");
    let (plain, dressed) = (read(&[key], &[]).unwrap(), read(&[dressed], &[]).unwrap());
    assert!(plain.equals(&dressed) && dressed.ignored().is_empty());
}
