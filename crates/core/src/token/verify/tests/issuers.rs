//! Trusted issuers: key sets and rules.

use super::*;
use crate::token::verify::sessions_seen::Named;

#[test]
fn a_jwk_set_is_filtered_and_what_is_ignored_is_told() {
    let world = world();
    let good = serde_json::to_value(world.idp[1].verifying_key().published().unwrap()).unwrap();
    let change = |changes: Value| with(good.clone(), changes);
    let ignored = [
        json!({ "kty": "oct", "k": b64([1; 64]), "kid": "secret", "alg": "HS256" }),
        json!({ "kty": "oct", "k": b64([1; 64]), "kid": "secret2", "alg": "RS256", "use": "sig" }),
        change(json!({ "kid": "enc", "use": "enc" })),
        change(json!({ "kid": "ops", "key_ops": ["sign"] })),
        change(json!({ "kid": "no-alg", "alg": null })),
        change(json!({ "kid": "other-alg", "alg": "ES384" })),
        change(json!({ "kid": "hs", "alg": "HS256" })),
        change(json!({ "kid": "oaep", "alg": "RSA-OAEP" })),
        change(json!({ "kid": "what", "alg": "XX999" })),
        change(json!({ "kid": "curve", "crv": "P-384" })),
        change(json!({ "kid": "curve2", "crv": "secp256k1" })),
        change(json!({ "kid": "x".repeat(129) })),
        change(json!({ "kid": "a b" })),
        change(json!({ "kid": "off", "x": b64([1; 32]) })),
        json!({ "kty": "AKP", "kid": "future" }),
        json!(5),
        json!(null),
    ];
    let mut keys = ignored.to_vec();
    keys.push(good.clone());
    let set = IssuerKeys::from_jwks(json!({ "keys": keys }).to_string().as_bytes(), None).unwrap();
    assert_eq!((set.len(), set.ignored().len()), (1, ignored.len()), "{:?}", set.ignored());

    for entry in &ignored {
        let alone = IssuerKeys::from_jwks(json!({ "keys": [entry] }).to_string().as_bytes(), None);
        assert!(matches!(alone, Err(RulesError::NoUsableKey(_))), "{entry}");
    }
    let unnamed = IssuerKeys::from_jwks(
        json!({ "keys": [change(json!({ "alg": null }))] }).to_string().as_bytes(),
        Some(Algorithm::Es256),
    );
    assert_eq!(unnamed.unwrap().len(), 1, "the configured algorithm stands in");
    let other = IssuerKeys::from_jwks(json!({ "keys": [good] }).to_string().as_bytes(), Some(Algorithm::Rs256));
    assert!(matches!(other, Err(RulesError::NoUsableKey(_))));
    let twice = IssuerKeys::from_jwks(json!({ "keys": [good, good] }).to_string().as_bytes(), None);
    assert!(matches!(twice, Err(RulesError::Ambiguous(_))));
    for bad in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "\u{feff}{\"keys\":[]}"] {
        assert!(IssuerKeys::from_jwks(bad.as_bytes(), None).is_err(), "{bad}");
    }
    assert!(IssuerKeys::from_jwks(&vec![b' '; MAX_JWKS + 1], None).is_err());
}

#[test]
fn n73_the_sessions_of_tokens_outlive_new_keys_and_a_reload_and_not_another_session_claim() {
    let world = world();
    world.idp(1, &with(idp_claims(), json!({ "sid": "s-1" }))).unwrap();
    let seen = |changed: &dyn Fn(&mut IssuerRules)| {
        let mut rules = world.verifier.issuers.clone();
        for rules in &mut rules {
            rules.sessions_seen = Arc::default();
        }
        changed(&mut rules[1]);
        let next = Verifier::new(rules).unwrap().following(&world.verifier);
        next.rules(IDP).unwrap().sessions_seen.name("s-1")
    };
    let other_keys = |rules: &mut IssuerRules| {
        rules.keys = IssuerRules::external(
            IDP,
            vec!["api".into()],
            IssuerKeys::from_jwks(jwks(&world.idp[..1]).to_string().as_bytes(), None).unwrap(),
        )
        .keys;
    };
    assert_eq!(seen(&|_| {}), Named::Carried, "the same rules");
    assert_eq!(seen(&other_keys), Named::Carried, "other keys");
    assert_eq!(seen(&|rules| rules.everywhere = true), Named::Carried, "another rule");
    assert_eq!(seen(&|rules| rules.session_claim = "session".into()), Named::Unproven);
    // The vouched session of a login says nothing about the issuer's tokens.
    let vouched = json!({ "origin_iss": IDP, "origin_sub": "ada", "origin_sid": "s-9" });
    world.own_claims(vouched).unwrap();
    let rules = world.verifier.rules(IDP).unwrap();
    assert_eq!(rules.sessions_seen.name("s-9"), Named::Elsewhere, "s-1 was named before");
    let fresh = self::world();
    let sessions = || &fresh.verifier.rules(IDP).unwrap().sessions_seen;
    assert_eq!(sessions().name("s-9"), Named::Unproven);
    fresh.own_claims(json!({ "origin_iss": IDP, "origin_sub": "ada" })).unwrap();
    assert_eq!(sessions().name("s-9"), Named::Elsewhere);
}

#[test]
fn a_public_key_in_pem_form_verifies_whatever_kid_the_token_has() {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let x = serde_json::to_value(key.verifying_key().published().unwrap()).unwrap()["x"].as_str().unwrap().to_owned();
    let spki = [
        &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..],
        &URL_SAFE_NO_PAD.decode(x).unwrap(),
    ]
    .concat();
    let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", spki));
    let keys = IssuerKeys::from_public_pem(pem.as_bytes(), Algorithm::EdDsa).unwrap();
    let verifier = Verifier::new(vec![IssuerRules::external(IDP, vec![], keys)]).unwrap();
    for kid in [json!("theirs"), Value::Null] {
        let header = with(own_header(&key), json!({ "kid": kid })).to_string();
        let token = verifier.verify(&forge(&key, header, idp_claims().to_string()), NOW, NOW).unwrap();
        assert_eq!(token.kid(), None);
    }
    for algorithm in Algorithm::ALL.into_iter().filter(|a| *a != Algorithm::EdDsa) {
        assert!(IssuerKeys::from_public_pem(pem.as_bytes(), algorithm).is_err(), "{algorithm}");
    }
    let twice = format!("{pem}{pem}");
    let private = crate::token::keyring::KeyMaterial::generate(Algorithm::EdDsa).unwrap();
    for bad in [twice.as_bytes(), private.expose(), b"", b"garbage"] {
        assert!(IssuerKeys::from_public_pem(bad, Algorithm::EdDsa).is_err());
    }
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let world = world();
    let own = || IssuerRules::own(OWN, vec![], &world.own, Duration::from_secs(30));
    assert!(Verifier::new(vec![own()]).is_ok());
    assert!(Verifier::new(vec![own(), own()]).is_err());
    assert!(Verifier::new(vec![own(), IssuerRules { issuer: IDP.into(), ..own() }]).is_err(), "only one is ours");
    assert!(Verifier::new(vec![own(), IssuerRules { ours: false, ..own() }]).is_err());
    assert!(Verifier::new(vec![IssuerRules { issuer: "".into(), ..own() }]).is_err());
    assert!(Verifier::new(vec![IssuerRules { typ: vec![], ..own() }]).is_err());
    assert!(Verifier::new(vec![IssuerRules { leeway: Duration::from_secs(31), ..own() }]).is_err());
}
