use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::*;
use crate::session::{Generation, Scope, SessionId};
use crate::token::algorithm::Algorithm;
use crate::token::claims::MintedClaims;
use crate::token::keyring::{Keyring, RefreshKeys, SigningKey};
use crate::token::mint::mint;

mod events;
mod form;
mod global_revocation;
mod hostile;
mod id_token;
mod issuers;
mod mapping;
mod presets;
mod signature;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const OWN: &str = "https://gate.example";
const IDP: &str = "https://idp.example/";

/// Our own issuer with one key, and another with three, as in production.
struct World {
    own: Keyring,
    idp: Vec<SigningKey>,
    verifier: Verifier,
}

fn world() -> World {
    world_with(Algorithm::EdDsa)
}

fn world_with(algorithm: Algorithm) -> World {
    let own = Keyring::generate(algorithm).unwrap();
    let idp: Vec<_> =
        [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa].map(|a| SigningKey::generate(a).unwrap()).into();
    let keys = IssuerKeys::from_jwks(jwks(&idp).to_string().as_bytes(), None).unwrap();
    let mut external = IssuerRules::external(IDP, vec!["api".into()], keys);
    external.typ = vec!["at+jwt".into(), "JWT".into()];
    let verifier =
        Verifier::new(vec![IssuerRules::own(OWN, vec!["api".into()], &own, Duration::from_secs(30)), external])
            .unwrap();
    World { own, idp, verifier }
}

fn jwks(keys: &[SigningKey]) -> Value {
    json!({ "keys": keys.iter().map(|k| k.verifying_key().published().unwrap()).collect::<Vec<_>>() })
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with any header and claims, and a good signature.
fn forge(key: &SigningKey, header: impl AsRef<[u8]>, claims: impl AsRef<[u8]>) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let signature = key.sign(message.as_bytes()).unwrap();
    format!("{message}.{}", b64(signature))
}

fn own_header(key: &SigningKey) -> Value {
    json!({ "alg": key.algorithm().name(), "typ": "at+jwt", "kid": key.kid() })
}

fn sid() -> String {
    SessionId::new(NOW.minus(Duration::from_secs(60)), [3; 10]).to_string()
}

fn own_claims() -> Value {
    json!({
        "iss": OWN, "sub": "ada", "aud": "api", "exp": 1_800_000_600, "iat": 1_800_000_000, "jti": "j1",
        "client_id": "web", "scope": "read", "sid": sid(), "gen": 2,
    })
}

fn idp_claims() -> Value {
    json!({ "iss": IDP, "sub": "ada", "aud": ["api", "other"], "exp": 1_800_000_600 })
}

/// `base` with members added; `null` removes one.
fn with(mut base: Value, changes: Value) -> Value {
    let (Value::Object(object), Value::Object(changes)) = (&mut base, changes) else { panic!("two objects") };
    for (name, value) in changes {
        if value.is_null() {
            object.remove(&name);
        } else {
            object.insert(name, value);
        }
    }
    base
}

impl World {
    fn verify(&self, token: &str) -> Result<AccessToken, Denial> {
        self.verifier.verify(token, NOW, NOW)
    }

    /// One of our tokens with this header and these claims.
    fn own(&self, header: &Value, claims: &Value) -> Result<AccessToken, Denial> {
        self.verify(&forge(self.own.signer(), header.to_string(), claims.to_string()))
    }

    fn own_claims(&self, changes: Value) -> Result<AccessToken, Denial> {
        self.own(&own_header(self.own.signer()), &with(own_claims(), changes))
    }

    fn own_header(&self, changes: Value) -> Result<AccessToken, Denial> {
        self.own(&with(own_header(self.own.signer()), changes), &own_claims())
    }

    /// A token of the other issuer, signed by its key `i`.
    fn idp(&self, i: usize, claims: &Value) -> Result<AccessToken, Denial> {
        let key = &self.idp[i];
        self.verify(&forge(key, own_header(key).to_string(), claims.to_string()))
    }

    fn raw_claims(&self, claims: impl AsRef<[u8]>) -> Result<AccessToken, Denial> {
        self.verify(&forge(self.own.signer(), own_header(self.own.signer()).to_string(), claims))
    }

    fn raw_header(&self, header: impl AsRef<[u8]>) -> Result<AccessToken, Denial> {
        self.verify(&forge(self.own.signer(), header, own_claims().to_string()))
    }

    fn good(&self) -> String {
        forge(self.own.signer(), own_header(self.own.signer()).to_string(), own_claims().to_string())
    }
}

fn malformed(result: &Result<AccessToken, Denial>) -> bool {
    matches!(result, Err(Denial::MalformedToken(_)))
}

fn bad_claim(result: &Result<AccessToken, Denial>) -> bool {
    matches!(result, Err(Denial::BadClaim(_)))
}

#[test]
fn what_we_mint_is_accepted_and_says_what_was_minted() {
    for algorithm in Algorithm::ALL {
        let world = world_with(algorithm);
        let scope = Scope::parse("read write").unwrap();
        let session = SessionId::new(NOW, [1; 10]);
        let claims = MintedClaims {
            bound_to: None,
            certificate: None,
            delegation: None,
            vouched_by: None,
            issuer: OWN,
            subject: "ada",
            audience: &["api".into(), "other".into()],
            expires: NOW.plus(Duration::from_secs(600)),
            issued_at: NOW,
            jti: "one",
            client: "web",
            scope: &scope,
            session: Some((session, Generation::new(3))),
            account: Some("acme"),
            own: None,
            style: crate::token::claims::TokenStyle::default(),
        };
        let token = world.verify(mint(world.own.signer(), &claims).unwrap().expose()).unwrap();
        assert!(token.is_ours());
        assert_eq!((&**token.issuer(), &*token.subject), (OWN, "ada"));
        assert_eq!((token.account(), token.client.as_deref()), (Some("acme"), Some("web")));
        assert_eq!(token.scope, scope);
        assert_eq!(token.session, Some((session, Generation::new(3))));
        assert_eq!(token.jti.as_deref(), Some("one"));
        assert_eq!((token.issued_at, token.expires), (Some(NOW), NOW.plus(Duration::from_secs(600))));
        assert_eq!(token.kid(), Some(world.own.signer().kid()));
        assert!(token.is_for(&["x", "other"]) && !token.is_for(&["ap", "API", "api "]));
        let none = MintedClaims { session: None, account: None, ..claims };
        assert_eq!(world.verify(mint(world.own.signer(), &none).unwrap().expose()).unwrap().session, None);
    }
}

#[test]
fn another_issuers_token_never_names_a_session_or_account_of_ours() {
    let world = world();
    let claims = with(idp_claims(), json!({ "sid": sid(), "gen": 2, "account": "acme", "email": "a@b.example" }));
    for i in 0..3 {
        let token = world.idp(i, &claims).unwrap();
        assert!(!token.is_ours());
        assert_eq!((token.session, &token.account()), (None, &None));
        assert_eq!(token.claims()["email"], "a@b.example");
    }
}

#[test]
fn j1_the_header_never_chooses_the_algorithm() {
    let world = world();
    for alg in
        ["none", "None", "NONE", "nOnE", "", "HS256", "RS256", "ES256", "eddsa", "EdDSA ", "ed25519", "Ed448", "XX"]
    {
        assert_eq!(world.own_header(json!({ "alg": alg })), Err(Denial::WrongAlgorithm), "{alg}");
    }
    // RFC 9864 gave EdDSA with Ed25519 a second name.
    assert!(world.own_header(json!({ "alg": "Ed25519" })).is_ok());
    assert!(malformed(&world.own_header(json!({ "alg": null }))), "missing");
    for alg in [json!(1), json!(["EdDSA"]), json!({}), json!(true)] {
        assert!(malformed(&world.own_header(json!({ "alg": alg }))), "{alg}");
    }
    assert!(malformed(&world.raw_header(r#"{"alg":null,"typ":"at+jwt"}"#)));
    // `none`, and an empty signature under a good algorithm.
    let claims = b64(own_claims().to_string());
    let kid = world.own.signer().kid();
    let unsigned = b64(json!({ "alg": "none", "typ": "at+jwt", "kid": kid }).to_string());
    assert_eq!(world.verify(&format!("{unsigned}.{claims}.")), Err(Denial::WrongAlgorithm));
    let empty = b64(own_header(world.own.signer()).to_string());
    assert_eq!(world.verify(&format!("{empty}.{claims}.")), Err(Denial::BadSignature));
    // RSA PSS under an RSA PKCS #1 key.
    let header = with(own_header(&world.idp[0]), json!({ "alg": "PS256" })).to_string();
    assert_eq!(world.verify(&forge(&world.idp[0], header, idp_claims().to_string())), Err(Denial::WrongAlgorithm));
}

#[test]
fn j2_a_public_key_as_hmac_secret_signs_nothing() {
    let world = world();
    let public = serde_json::to_string(&world.idp[0].verifying_key().published().unwrap()).unwrap();
    let header = json!({ "alg": "HS256", "typ": "at+jwt", "kid": world.idp[0].kid() }).to_string();
    let message = format!("{}.{}", b64(header), b64(idp_claims().to_string()));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
    let signature = b64(aws_lc_rs::hmac::sign(&key, message.as_bytes()));
    assert_eq!(world.verify(&format!("{message}.{signature}")), Err(Denial::WrongAlgorithm));
    let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", vec![1; 40]));
    assert!(IssuerKeys::from_public_pem(pem.as_bytes(), Algorithm::Hs256).is_err());
}

#[test]
fn j3_a_kid_is_looked_up_exactly() {
    let world = world();
    let kid = world.own.signer().kid().to_owned();
    for other in [
        kid.to_uppercase(),
        format!("{kid} "),
        format!("{kid}\0"),
        "../keys/x".into(),
        "' OR 1=1 --".into(),
        String::new(),
    ] {
        assert_eq!(world.own_header(json!({ "kid": other })), Err(Denial::UnknownKey), "{other}");
    }
    assert_eq!(world.own_header(json!({ "kid": "x".repeat(128) })), Err(Denial::UnknownKey));
    assert!(malformed(&world.own_header(json!({ "kid": "x".repeat(129) }))));
    assert!(malformed(&world.own_header(json!({ "kid": 1 }))));
    // The header has the kid of another key.
    let swapped = own_header(&world.idp[2]).to_string();
    let attacker = SigningKey::generate(Algorithm::EdDsa).unwrap();
    assert_eq!(world.verify(&forge(&attacker, swapped, idp_claims().to_string())), Err(Denial::BadSignature));
}

/// A set of this many ES256 keys, with or without names, beside one of EdDSA.
fn es256_keys(number: usize, are_named: bool) -> (Vec<SigningKey>, Verifier) {
    let keys: Vec<_> = (0..number).map(|_| SigningKey::generate(Algorithm::Es256).unwrap()).collect();
    let mut set = jwks(&keys);
    let entries = set["keys"].as_array_mut().unwrap();
    if !are_named {
        entries.iter_mut().for_each(|key| *key = with(key.take(), json!({ "kid": null })));
    }
    entries.extend(jwks(&[SigningKey::generate(Algorithm::EdDsa).unwrap()])["keys"].as_array().unwrap().clone());
    let set = IssuerKeys::from_published_jwks(set.to_string().as_bytes(), &[]).unwrap();
    assert!(set.ignored().is_empty());
    (keys, Verifier::new(vec![IssuerRules::external(IDP, vec!["api".into()], set)]).unwrap())
}

#[test]
fn j30_a_token_without_kid_is_tried_against_at_most_4_keys_of_its_algorithm() {
    let header = json!({ "alg": "ES256", "typ": "at+jwt" });
    let other = SigningKey::generate(Algorithm::Es256).unwrap();
    let by = |key: &SigningKey, header: &Value| forge(key, header.to_string(), idp_claims().to_string());
    for (number, are_named) in (1..=6).flat_map(|number| [(number, true), (number, false)]) {
        let (keys, verifier) = es256_keys(number, are_named);
        let verify = |token: &str| verifier.verify_expired(token, NOW, NOW, Duration::ZERO);
        let context = format!("{number} keys, named: {are_named}");
        for key in &keys {
            let found = verify(&by(key, &header)).map(|token| token.key());
            let few =
                if number <= MAX_TRIED { Ok(key.verifying_key().print()) } else { Err(Denial::TooManyKeys.into()) };
            assert_eq!(found, few, "{context}");
            // A token that names a key gets no other, and no key without a name.
            let misnamed = with(header.clone(), json!({ "kid": "other" }));
            assert_eq!(verify(&by(key, &misnamed)), Err(Denial::UnknownKey.into()), "{context}");
        }
        // The refusal says how many signatures were checked. A key of another algorithm is not tried.
        let forged = if number <= MAX_TRIED {
            TokenRefusal::Forged(Denial::BadSignature, number)
        } else {
            Denial::TooManyKeys.into()
        };
        assert_eq!(verify(&by(&other, &header)), Err(forged), "{context}");
        assert_eq!(verify(&by(&other, &json!({ "alg": "ES384", "typ": "at+jwt" }))), Err(Denial::UnknownKey.into()));
    }
    let world = world();
    assert!(world.own_header(json!({ "kid": null })).is_ok());
}

#[test]
fn j4_j5_headers_that_bring_their_own_key_or_rules_are_refused() {
    let world = world();
    let jwk = serde_json::to_value(world.own.signer().verifying_key().published().unwrap()).unwrap();
    for (name, value) in [
        ("jwk", jwk),
        ("crit", json!([])),
        ("crit", json!(["exp"])),
        ("crit", json!(["b64"])),
        ("crit", json!("x")),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("enc", json!("A256GCM")),
    ] {
        assert!(malformed(&world.own_header(json!({ name: value }))), "{name}");
        let raw = format!(r#"{{"alg":"EdDSA","typ":"at+jwt","{name}":null}}"#);
        assert!(malformed(&world.raw_header(raw)), "{name}: null");
    }
    // What only says where a key is, is neither followed nor trusted: it changes nothing.
    let attacker = SigningKey::generate(Algorithm::EdDsa).unwrap();
    for (name, value) in [
        ("x5c", json!(["AAAA"])),
        ("x5t", json!("AAAA")),
        ("jku", json!("https://evil.example/jwks")),
        ("jku", json!(1)),
        ("x5u", json!("https://evil.example/cert")),
        ("cty", json!("JWT")),
        ("nonce", json!("x")),
    ] {
        assert!(world.own_header(json!({ name: value })).is_ok(), "{name}");
        let header = with(own_header(world.own.signer()), json!({ name: value })).to_string();
        assert_eq!(world.verify(&forge(&attacker, header, own_claims().to_string())), Err(Denial::BadSignature));
    }
}

#[test]
fn j5_only_the_compact_serialisation_with_three_parts_is_read() {
    let world = world();
    let good = world.good();
    let parts: Vec<&str> = good.split('.').collect();
    let json = json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] }).to_string();
    for bad in [
        json.as_str(),
        "",
        ".",
        "..",
        "...",
        "a.b",
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good}.{}", parts[0]),
        &format!("{}.{}.{}.{}.{}", parts[0], parts[1], parts[2], parts[0], parts[1]),
        &format!("{}..{}", parts[0], parts[2]),
        &format!("{}.{}", parts[0], parts[1]),
    ] {
        assert!(malformed(&world.verify(bad)), "{bad}");
    }
}

#[test]
fn j6_the_type_says_access_token() {
    let world = world();
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        assert!(world.own_header(json!({ "typ": typ })).is_ok(), "{typ}");
    }
    for typ in [
        "JWT",
        "refresh+jwt",
        "id_token",
        "rt+jwt",
        "at+jwt ",
        "",
        "application/",
        "application/application/at+jwt",
        "text/at+jwt",
        "at",
    ] {
        assert_eq!(world.own_header(json!({ "typ": typ })), Err(Denial::WrongType), "{typ}");
    }
    assert_eq!(world.own_header(json!({ "typ": null })), Err(Denial::WrongType));
    assert!(malformed(&world.own_header(json!({ "typ": 1 }))));

    // For another issuer, only the types in its list are accepted.
    let typed = |typ: Value| {
        let header = with(own_header(&world.idp[1]), json!({ "typ": typ })).to_string();
        world.verify(&forge(&world.idp[1], header, idp_claims().to_string()))
    };
    assert!(typed(json!("jwt")).is_ok() && typed(json!("application/JWT")).is_ok());
    assert_eq!(typed(Value::Null), Err(Denial::WrongType));
    let keys = IssuerKeys::from_jwks(jwks(&world.idp).to_string().as_bytes(), None).unwrap();
    let mut rules = IssuerRules::external(IDP, vec![], keys);
    let untyped = with(own_header(&world.idp[1]), json!({ "typ": null })).to_string();
    let untyped = forge(&world.idp[1], untyped, idp_claims().to_string());
    let jwt = with(own_header(&world.idp[1]), json!({ "typ": "JWT" })).to_string();
    let jwt = forge(&world.idp[1], jwt, idp_claims().to_string());
    let by_default = Verifier::new(vec![rules.clone()]).unwrap();
    assert_eq!(by_default.verify(&jwt, NOW, NOW), Err(Denial::WrongType));
    rules.typ = vec!["".into()];
    let without = Verifier::new(vec![rules]).unwrap();
    assert!(without.verify(&untyped, NOW, NOW).is_ok());
    assert_eq!(without.verify(&jwt, NOW, NOW), Err(Denial::WrongType));
}

#[test]
fn j7_exp_is_required_and_a_finite_number_in_the_future() {
    let world = world();
    let exp =
        |value: &str| world.raw_claims(with(own_claims(), json!({ "exp": "@" })).to_string().replace("\"@\"", value));
    // Our own tokens have no leeway.
    assert!(exp("1800000001").is_ok());
    assert!(exp("1800000000.5").is_ok());
    assert_eq!(exp("1800000000"), Err(Denial::TokenExpired));
    assert_eq!(exp("1800000000.0"), Err(Denial::TokenExpired));
    assert_eq!(exp("0"), Err(Denial::TokenExpired));
    assert!(exp("1.8000001e9").is_ok());
    assert_eq!(exp("253402300799").unwrap().expires, Timestamp::from_secs(253_402_300_799));
    for bad in [
        "-1",
        "-1.5",
        "-0.001",
        "\"1800000600\"",
        "null",
        "true",
        "[1800000600]",
        "{}",
        "253402300800",
        "1e18",
        "1e300",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
    ] {
        assert!(bad_claim(&exp(bad)), "{bad}: {:?}", exp(bad));
    }
    for bad in ["1e400", "-1e400", "NaN", "Infinity", "+1800000600", "01800000600", "0x6b49d200", ""] {
        assert!(malformed(&exp(bad)), "{bad}");
    }
    assert!(bad_claim(&world.own_claims(json!({ "exp": null }))), "missing");
}

#[test]
fn j7_nbf_and_iat_may_not_lie_ahead() {
    let world = world();
    for claim in ["nbf", "iat"] {
        let at = |value: &str| {
            world.raw_claims(with(own_claims(), json!({ claim: "@" })).to_string().replace("\"@\"", value))
        };
        assert!(at("1800000030").is_ok());
        assert!(at("1799999999.75").is_ok());
        assert!(at("0").is_ok());
        assert_eq!(at("1800000031"), Err(Denial::TokenNotYetValid), "{claim}");
        assert_eq!(at("1800000030.5"), Err(Denial::TokenNotYetValid), "{claim}");
        for bad in ["-1", "null", "\"1800000000\"", "true", "[]", "1e300"] {
            assert!(bad_claim(&at(bad)), "{claim} {bad}");
        }
    }
    assert!(bad_claim(&world.own_claims(json!({ "iat": null }))), "ours always have it");
    assert!(world.idp(0, &idp_claims()).is_ok(), "others need not");
}

#[test]
fn j7_a_longest_lifetime_can_be_set_and_needs_iat() {
    let world = world();
    let keys = IssuerKeys::from_jwks(jwks(&world.idp).to_string().as_bytes(), None).unwrap();
    let mut rules = IssuerRules::external(IDP, vec![], keys);
    rules.max_lifetime = Some(Duration::from_secs(600));
    rules.typ = vec!["at+jwt".into(), "JWT".into()];
    let verifier = Verifier::new(vec![rules]).unwrap();
    let key = &world.idp[2];
    let verify = |typ: &str, times: Value| {
        let header = with(own_header(key), json!({ "typ": typ })).to_string();
        let claims = with(idp_claims(), times).to_string();
        verifier.verify(&forge(key, header, claims), NOW, NOW)
    };
    for typ in ["at+jwt", "JWT"] {
        assert!(verify(typ, json!({ "iat": 1_800_000_000 })).is_ok());
        assert!(bad_claim(&verify(typ, json!({ "iat": 1_799_999_999 }))));
    }
    // RFC 9068 demands `iat`. For another type, the present stands for the beginning, with the leeway of the clocks.
    let leeway = world.verifier.rules(IDP).unwrap().leeway.as_secs();
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt"] {
        assert_eq!(verify(typ, json!({})), Err(Denial::BadClaim("no iat")), "{typ}");
    }
    assert_eq!(verify("JWT", json!({})).unwrap().issued_at, None);
    assert!(verify("JWT", json!({ "exp": 1_800_000_600 + leeway })).is_ok());
    assert!(bad_claim(&verify("JWT", json!({ "exp": 1_800_000_601 + leeway }))));
}

#[test]
fn j29_null_is_an_absent_claim_where_a_token_may_lack_it_and_nowhere_else() {
    let world = world();
    let keys = IssuerKeys::from_jwks(jwks(&world.idp).to_string().as_bytes(), None).unwrap();
    let mut rules = IssuerRules::external(IDP, vec!["api".into()], keys);
    let path = |name: &str| vec![crate::claim::ClaimPath::parse(name).unwrap()];
    rules.claims = Arc::new(ClaimMapping {
        roles: path("realm.groups"),
        account: path("tid"),
        client: path("azp"),
        scope: path("scp"),
        ..ClaimMapping::default()
    });
    let verifier = Verifier::new(vec![rules]).unwrap();
    let key = &world.idp[2];
    let null = |name: &str| {
        let mut claims = idp_claims();
        claims[name] = Value::Null;
        verifier.verify(&forge(key, own_header(key).to_string(), claims.to_string()), NOW, NOW)
    };
    let without =
        verifier.verify(&forge(key, own_header(key).to_string(), idp_claims().to_string()), NOW, NOW).unwrap();
    for name in ["realm", "tid", "azp", "scp", "sid", "jti", "acr", "auth_time", "anything"] {
        let with_null = null(name).unwrap();
        assert_eq!((&with_null.scope, &with_null.client, &with_null.jti), (&without.scope, &None, &None), "{name}");
        assert_eq!((with_null.roles(), with_null.account()), (without.roles(), None), "{name}");
    }
    for name in ["iss", "sub", "aud", "exp", "iat", "nbf", "cnf"] {
        assert!(null(name).is_err(), "{name}");
    }
    // Our own tokens have each claim that the gate writes.
    for name in ["jti", "client_id", "sid", "gen", "act"] {
        let mut claims = own_claims();
        claims[name] = Value::Null;
        let refused =
            world.verify(&forge(world.own.signer(), own_header(world.own.signer()).to_string(), claims.to_string()));
        assert!(refused.is_err(), "{name}");
    }
}

#[test]
fn j17_leeway_is_for_the_clocks_of_others_and_for_nbf_and_iat() {
    let world = world();
    let [other, own] = [(&world.idp[2], idp_claims()), (world.own.signer(), own_claims())].map(|(key, claims)| {
        move |changes: &Value| {
            forge(key, own_header(key).to_string(), with(claims.clone(), changes.clone()).to_string())
        }
    });
    let verify = |token: String| world.verifier.verify(&token, NOW, NOW).map(drop);
    for (seconds, ours, theirs) in [
        (1_800_000_001_u64, Ok(()), Ok(())),
        (1_800_000_000, Err(Denial::TokenExpired), Ok(())),
        (1_799_999_971, Err(Denial::TokenExpired), Ok(())),
        (1_799_999_970, Err(Denial::TokenExpired), Err(Denial::TokenExpired)),
    ] {
        let exp = json!({ "exp": seconds });
        assert_eq!((verify(own(&exp)), verify(other(&exp))), (ours, theirs), "{seconds}");
    }
    for claim in ["nbf", "iat"] {
        for token in [own(&json!({ claim: 1_800_000_030 })), other(&json!({ claim: 1_800_000_030 }))] {
            assert_eq!(verify(token), Ok(()), "{claim}");
        }
        for token in [own(&json!({ claim: 1_800_000_031 })), other(&json!({ claim: 1_800_000_031 }))] {
            assert_eq!(verify(token), Err(Denial::TokenNotYetValid), "{claim}");
        }
    }
    let of_late = own(&json!({ "exp": 1_799_999_900 }));
    let allowed = |seconds| world.verifier.verify_expired(&of_late, NOW, NOW, Duration::from_secs(seconds)).map(drop);
    assert_eq!(allowed(100), Err(TokenRefusal::Unchecked(Denial::TokenExpired)));
    assert_eq!(allowed(101), Ok(()));
}

#[test]
fn own_tokens_live_by_the_later_of_engine_time_and_wall_clock_and_others_by_the_wall_clock() {
    let world = world();
    let own = world.good();
    let other = forge(&world.idp[2], own_header(&world.idp[2]).to_string(), idp_claims().to_string());
    let later = NOW.plus(Duration::from_secs(3600));
    assert!(world.verifier.verify(&own, NOW, NOW.minus(Duration::from_secs(3600))).is_ok());
    assert_eq!(world.verifier.verify(&own, NOW, later), Err(Denial::TokenExpired));
    assert_eq!(world.verifier.verify(&own, later, NOW), Err(Denial::TokenExpired));
    assert!(world.verifier.verify(&other, later, NOW).is_ok());
    assert_eq!(world.verifier.verify(&other, NOW, later), Err(Denial::TokenExpired));
}

#[test]
fn j8_the_issuer_is_exact_and_owns_the_key() {
    let world = world();
    for iss in ["https://gate.example/", "https://GATE.example", "https://gate.exampl", "", "gate.example"] {
        assert_eq!(world.own_claims(json!({ "iss": iss })), Err(Denial::UnknownIssuer), "{iss}");
    }
    for iss in [json!([OWN]), json!(1), json!({}), json!(true)] {
        assert!(bad_claim(&world.own_claims(json!({ "iss": iss }))), "{iss}");
    }
    assert!(bad_claim(&world.own_claims(json!({ "iss": null }))));
    assert!(bad_claim(&world.raw_claims(own_claims().to_string().replace(&format!("\"{OWN}\""), "null"))));
    // Another issuer's key never verifies our tokens, nor ours theirs.
    let stolen = forge(&world.idp[2], own_header(&world.idp[2]).to_string(), own_claims().to_string());
    assert_eq!(world.verify(&stolen), Err(Denial::UnknownKey));
    let header = with(own_header(world.own.signer()), json!({})).to_string();
    assert_eq!(world.verify(&forge(world.own.signer(), header, idp_claims().to_string())), Err(Denial::UnknownKey));
}

#[test]
fn j8_aud_is_a_string_or_an_array_of_strings() {
    let world = world();
    assert_eq!(world.own_claims(json!({ "aud": ["a", "b"] })).unwrap().audience[..], ["a", "b"].map(Box::<str>::from));
    for aud in [
        json!([]),
        json!(""),
        json!([""]),
        json!(["api", ""]),
        json!(1),
        json!(["api", 1]),
        json!([["api"]]),
        json!({}),
        json!({ "api": true }),
        json!(false),
    ] {
        assert!(bad_claim(&world.own_claims(json!({ "aud": aud }))), "{aud}");
    }
    assert!(bad_claim(&world.own_claims(json!({ "aud": null }))), "missing");
    assert!(bad_claim(&world.raw_claims(own_claims().to_string().replace("\"api\"", "null"))), "null");
}

#[test]
fn j9_names_are_strings_of_a_sane_length() {
    let world = world();
    let long = "x".repeat(257);
    for claim in ["sub", "jti", "client_id", "sid", "account"] {
        for bad in [
            json!(""),
            json!(long),
            json!("a\nb"),
            json!("a\u{0}b"),
            json!("a\u{85}b"),
            json!(1),
            json!(["a"]),
            json!({}),
            json!(true),
        ] {
            assert!(bad_claim(&world.own_claims(json!({ claim: bad }))), "{claim} {bad}");
        }
    }
    let exact = "x".repeat(256);
    for claim in ["sub", "jti", "client_id", "account"] {
        assert!(world.own_claims(json!({ claim: exact })).is_ok(), "{claim}");
    }
    for sub in ["a b", "ad\u{e4}", " ada", "\u{202e}ada"] {
        assert!(bad_claim(&world.own_claims(json!({ "sub": sub }))), "{sub}");
        assert!(bad_claim(&world.idp(2, &with(idp_claims(), json!({ "sub": sub })))), "{sub}");
    }
    for required in ["sub", "jti", "client_id"] {
        assert!(bad_claim(&world.own_claims(json!({ required: null }))), "{required}");
    }
    assert!(bad_claim(&world.idp(2, &with(idp_claims(), json!({ "jti": 5 })))), "others' too, where they are");
    for scope in [json!(1), json!(["read"]), json!("a\"b"), json!("a\nb"), json!({})] {
        assert!(bad_claim(&world.own_claims(json!({ "scope": scope }))), "{scope}");
    }
}

#[test]
fn j9_a_session_and_its_generation_go_together() {
    let world = world();
    assert!(world.own_claims(json!({ "sid": null, "gen": null })).unwrap().session.is_none());
    assert!(bad_claim(&world.own_claims(json!({ "sid": null }))));
    assert!(bad_claim(&world.own_claims(json!({ "gen": null }))));
    for sid in ["x", "00000000-0000-0000-0000-000000000000", &sid().to_uppercase(), &sid().replace('-', "")] {
        assert!(bad_claim(&world.own_claims(json!({ "sid": sid }))), "{sid}");
    }
    for generation in [json!(0), json!(-1), json!(1.5), json!("2"), json!([2]), json!(true)] {
        assert!(bad_claim(&world.own_claims(json!({ "gen": generation }))), "{generation}");
    }
    assert_eq!(world.own_claims(json!({ "gen": u64::MAX })).unwrap().session.unwrap().1, Generation::new(u64::MAX));
}

#[test]
fn r7_a_refresh_token_is_no_access_token() {
    let world = world();
    let secret = crate::session::SessionSecret::new([1; 16]);
    let keys: &RefreshKeys = world.own.refresh_keys();
    let token =
        crate::token::refresh::make(keys, 1, SessionId::new(NOW, [1; 10]), Generation::FIRST, &secret, "web").unwrap();
    assert!(malformed(&world.verify(token.expose())));
}

#[test]
fn r14_a_token_that_is_bound_to_something_else_is_refused() {
    let world = world();
    let thumbprint = "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2";
    for cnf in [
        json!({ "jkt": "x" }),
        json!({ "x5t#S256": "x" }),
        json!({ "x5t#S256": thumbprint, "jku": "x" }),
        json!({ "x5t#S256": thumbprint, "jkt": "x" }),
        json!({}),
        json!("x"),
    ] {
        assert_eq!(world.own_claims(json!({ "cnf": cnf })), Err(Denial::UnprovedBinding));
        assert_eq!(world.idp(1, &with(idp_claims(), json!({ "cnf": cnf }))), Err(Denial::UnprovedBinding));
    }
    assert_eq!(
        world.raw_claims(own_claims().to_string().replacen('{', "{\"cnf\":null,", 1)),
        Err(Denial::UnprovedBinding)
    );
}

#[test]
fn the_claims_are_not_judged_before_the_signature() {
    let world = world();
    let attacker = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let header = own_header(world.own.signer()).to_string();
    for changes in [json!({ "sub": 1 }), json!({ "cnf": {} }), json!({ "aud": [] })] {
        let token = forge(&attacker, &header, with(own_claims(), changes.clone()).to_string());
        assert_eq!(
            world.verifier.verify_expired(&token, NOW, NOW, Duration::ZERO),
            Err(TokenRefusal::Forged(Denial::BadSignature, 1))
        );
        let authentic = forge(world.own.signer(), &header, with(own_claims(), changes).to_string());
        let refused = world.verifier.verify_expired(&authentic, NOW, NOW, Duration::ZERO);
        assert!(matches!(refused, Err(TokenRefusal::Authentic(_))), "{refused:?}");
    }
}

#[test]
fn a13_a_token_out_of_its_time_costs_no_signature_check() {
    let world = world();
    let attacker = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let header = own_header(world.own.signer()).to_string();
    for key in [&attacker, world.own.signer()] {
        for (changes, why) in [
            (json!({ "exp": 1 }), Denial::TokenExpired),
            (json!({ "nbf": 1_900_000_000 }), Denial::TokenNotYetValid),
            (json!({ "iat": 1_900_000_000 }), Denial::TokenNotYetValid),
        ] {
            let token = forge(key, &header, with(own_claims(), changes).to_string());
            let refused = world.verifier.verify_expired(&token, NOW, NOW, Duration::ZERO);
            assert_eq!(refused, Err(TokenRefusal::Unchecked(why)));
        }
    }
}

#[test]
fn a5_only_headers_of_genuine_tokens_are_kept_and_a_few_of_them() {
    let world = world();
    let attacker = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let verify = |key: &SigningKey, spaces: usize| {
        let header = own_header(world.own.signer()).to_string() + &" ".repeat(spaces);
        let token = forge(key, &header, own_claims().to_string());
        let _ = world.verifier.verify_expired(&token, NOW, NOW, Duration::ZERO);
        shape::JoseHeader::is_kept(token.split('.').next().unwrap())
    };
    let genuine = |spaces| verify(world.own.signer(), spaces);
    assert!(genuine(0) && genuine(0));
    assert!((1..20).all(|spaces| !verify(&attacker, spaces)));
    // As many headers as there is room for, and more: the latest is kept.
    assert!((1..20).all(genuine));
}
