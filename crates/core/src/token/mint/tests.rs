use std::collections::HashSet;

use jsonwebtoken::{DecodingKey, Validation};

use super::*;
use crate::clock::Timestamp;
use crate::session::{Scope, SessionId};
use crate::token::algorithm::{Algorithm, Family};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn claims<'a>(scope: &'a Scope, audience: &'a [Box<str>]) -> MintedClaims<'a> {
    MintedClaims {
        bound_to: None,
        certificate: None,
        delegation: None,
        vouched_by: None,
        issuer: "https://gate.example",
        subject: "ada",
        audience,
        expires: NOW.plus(std::time::Duration::from_millis(600_900)),
        issued_at: NOW,
        jti: "one",
        client: "web",
        scope,
        session: Some((SessionId::new(NOW, [1; 10]), Generation::new(3))),
        account: Some("acme"),
        own: None,
        style: crate::token::claims::TokenStyle::default(),
    }
}

#[test]
fn every_algorithm_is_read_by_the_library_and_is_deterministic_where_promised() {
    let scope = Scope::parse("read write").unwrap();
    let audience = ["api".into()];
    for algorithm in Algorithm::ALL {
        let key = SigningKey::generate(algorithm).unwrap();
        let token = mint(&key, &claims(&scope, &audience)).unwrap();
        let again = mint(&key, &claims(&scope, &audience)).unwrap();
        let until_signature = |t: &str| t.rsplit_once('.').unwrap().0.to_owned();
        assert_eq!(until_signature(token.expose()), until_signature(again.expose()));
        assert_eq!(token.expose() == again.expose(), algorithm.is_deterministic(), "{algorithm}");

        let header = jsonwebtoken::decode_header(token.expose()).unwrap();
        assert_eq!(header.typ.as_deref(), Some("at+jwt"));
        assert_eq!(header.kid.as_deref(), Some(key.kid()));
        assert_eq!(header.alg, algorithm.jwt());
        if algorithm.family() == Family::Hmac {
            continue;
        }
        // An outside verifier has only the published JWK.
        let jwk = serde_json::to_value(key.verifying_key().published().unwrap()).unwrap();
        let public = DecodingKey::from_jwk(&serde_json::from_value(jwk).unwrap()).unwrap();
        let mut validation = Validation::new(algorithm.jwt());
        validation.set_audience(&["api"]);
        validation.validate_exp = false;
        let decoded = jsonwebtoken::decode::<serde_json::Value>(token.expose(), &public, &validation).unwrap();
        assert_eq!(decoded.claims["sub"], "ada");
    }
}

#[test]
fn an_hmac_token_is_read_by_the_library() {
    for algorithm in [Algorithm::Hs256, Algorithm::Hs384, Algorithm::Hs512] {
        let material = crate::token::keyring::KeyMaterial::generate(algorithm).unwrap();
        let key = SigningKey::from_material(algorithm, &material).unwrap();
        let secret = URL_SAFE_NO_PAD.decode(material.expose()).unwrap();
        let token = mint(&key, &claims(&Scope::default(), &["api".into()])).unwrap();
        let mut validation = Validation::new(algorithm.jwt());
        validation.set_audience(&["api"]);
        validation.validate_exp = false;
        let public = DecodingKey::from_secret(&secret);
        jsonwebtoken::decode::<serde_json::Value>(token.expose(), &public, &validation).unwrap();
    }
}

#[test]
fn claims_are_written_in_one_order() {
    let scope = Scope::parse("read write").unwrap();
    let audience = ["api".into()];
    let full = claims(&scope, &audience);
    assert_eq!(
        serde_json::to_string(&full).unwrap(),
        format!(
            r#"{{"iss":"https://gate.example","sub":"ada","aud":"api","exp":1800000600,"iat":1800000000,"jti":"one","client_id":"web","scope":"read write","sid":"{}","gen":3,"account":"acme"}}"#,
            SessionId::new(NOW, [1; 10])
        )
    );
    let (none, two) = (Scope::default(), ["a".into(), "b".into()]);
    let bare = MintedClaims { session: None, account: None, ..claims(&none, &two) };
    assert_eq!(
        serde_json::to_string(&bare).unwrap(),
        r#"{"iss":"https://gate.example","sub":"ada","aud":["a","b"],"exp":1800000600,"iat":1800000000,"jti":"one","client_id":"web"}"#
    );
}

#[test]
fn j9_what_we_would_refuse_is_not_minted() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let scope = Scope::default();
    let audience = ["api".into()];
    let good = claims(&scope, &audience);
    let long = "x".repeat(257);
    let cases = [
        ("iss", MintedClaims { issuer: "", ..good }),
        ("sub", MintedClaims { subject: "", ..good }),
        ("sub", MintedClaims { subject: "a b", ..good }),
        ("sub", MintedClaims { subject: "ad\u{e4}", ..good }),
        ("sub", MintedClaims { subject: &long, ..good }),
        ("aud", MintedClaims { audience: &[], ..good }),
        ("jti", MintedClaims { jti: "", ..good }),
        ("client_id", MintedClaims { client: "a\nb", ..good }),
        ("account", MintedClaims { account: Some(""), ..good }),
        ("gen", MintedClaims { session: Some((SessionId::new(NOW, [1; 10]), Generation::NONE)), ..good }),
    ];
    for (claim, claims) in cases {
        assert_eq!(mint(&key, &claims).unwrap_err(), MintError::Claim(claim));
    }
    let huge = ["x".repeat(9000).into_boxed_str()];
    assert_eq!(mint(&key, &MintedClaims { audience: &huge, ..good }).unwrap_err(), MintError::TooLong);
}

#[test]
fn a6_a_fingerprint_is_short_stable_and_tells_tokens_apart() {
    let some: HashSet<String> = (0..100).map(|i| fingerprint(&format!("token {i}"))).collect();
    assert_eq!(some.len(), 100);
    assert!(some.iter().all(|f| f.len() == 16));
    assert_eq!(fingerprint("a"), fingerprint("a"));
    let unkeyed = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, b"a");
    assert_ne!(fingerprint("a"), URL_SAFE_NO_PAD.encode(&unkeyed.as_ref()[..12]));
}

#[test]
fn o3_a_token_does_not_print() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let token = mint(&key, &claims(&Scope::default(), &["api".into()])).unwrap();
    assert_eq!(format!("{token:?}"), "TokenText(…)");
}
