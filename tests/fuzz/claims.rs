//! Paths to claims, and the claims of other issuers that are mapped.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use rotogate::claim::ClaimPath;
use rotogate::clock::Timestamp;
use rotogate::session::Scope;
use rotogate_core::token::verify::ClaimMapping;
use rotogate_core::token::{IssuerKeys, IssuerRules, Verifier};
use serde_json::{Map, Value, json};

use crate::input::target;
use crate::json::names_members_once;

/// The segments of a path that is known to be one, and whether `{}` stands at its end: read character by character.
fn read(path: &str) -> (Vec<String>, bool) {
    let (path, of_names) = path.strip_suffix("{}").map_or((path, false), |path| (path, true));
    let (mut segments, mut quoted) = (vec![String::new()], false);
    for c in path.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => segments.push(String::new()),
            c => segments.last_mut().unwrap().push(c),
        }
    }
    assert!(!quoted, "{path}");
    (segments, of_names)
}

/// Claims with `value` at these segments, and something beside each of them.
fn claims(segments: &[String], value: Value) -> Map<String, Value> {
    let around = |inner: Value, name: &String| json!({ name: inner, format!("{name} "): "beside" });
    match segments.iter().rev().fold(value, around) {
        Value::Object(claims) => claims,
        other => panic!("no segment: {other}"),
    }
}

target!(
    /// A path that is taken leads to the one claim that another reader finds by it, and to nothing else; it is printed as
    /// it was written, and it means the same with all segments quoted (I18, I46).
    claim_path,
    &[
        ".", "\"", "{}", "\".\"", "a", "roles", "realm_access.roles", "\"https://example.com/roles\"", ":", "/", "*", "[0]", "$",
        "\\", " ", "\0", "\u{feff}", "..", "{", "}", "\"\"",
    ],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(path) = ClaimPath::parse(text) else { return };
        assert_eq!(path.to_string(), text);
        let (segments, of_names) = read(text);
        assert_eq!((path.segments().collect::<Vec<_>>(), path.is_of_names()), (segments.iter().map(String::as_str).collect(), of_names));

        let quoted = segments.iter().map(|segment| format!("\"{segment}\"")).collect::<Vec<_>>().join(".");
        let quoted = ClaimPath::parse(&format!("{quoted}{}", if of_names { "{}" } else { "" })).unwrap();
        assert_eq!(path, quoted, "{text}");

        let value = if of_names { json!({ "x": [] }) } else { json!(["x"]) };
        let found = claims(&segments, value.clone());
        assert_eq!(path.find(&found), Some(&value), "{text}");
        assert!(path.holds(&found, &json!("x")) && !path.holds(&found, &json!("y")), "{text}");
        let mut without = found;
        without.remove(&segments[0]);
        assert_eq!(path.find(&without), None, "{text}");
    }
);

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let x = URL_SAFE_NO_PAD.encode(KEY.verifying_key().as_bytes());
    let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "alg": "EdDSA" });
    let keys = IssuerKeys::from_jwks(json!({ "keys": [key] }).to_string().as_bytes(), None).unwrap();
    let paths = |paths: &[&str]| ClaimPath::list(paths.iter().copied()).unwrap();
    let mapping = ClaimMapping {
        scope: paths(&["scope", "scp"]),
        scope_map: vec![("write".into(), Scope::parse("read list").unwrap())],
        client: paths(&["azp"]),
        roles: paths(&["realm.roles", "groups", "\"by.name\"{}"]),
        account: paths(&["org.id"]),
        subject: paths(&["oid", "sub"]),
        encodes_subject: true,
        ..ClaimMapping::default()
    };
    let rules = IssuerRules::external("https://idp.test", vec!["api".into()], keys).named("idp").claims(mapping);
    let rules = rules.scopes(Some(Scope::parse("read a:b").unwrap()));
    Verifier::new(vec![rules.require("use", ["access"]).unwrap()]).unwrap()
});

fn signed(claims: &[u8]) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"at+jwt"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(KEY.sign(message.as_bytes()).to_bytes());
    format!("{message}.{signature}")
}

/// The texts of a claim of roles, read again: a text, or a list of texts.
fn texts(value: Option<&Value>) -> BTreeSet<String> {
    let of = |value: &Value| value.as_str().expect("I18").to_owned();
    match value {
        None => BTreeSet::new(),
        Some(Value::Array(list)) => list.iter().map(of).collect(),
        Some(one) => [of(one)].into(),
    }
}

target!(
    /// Of a token that is taken, each mapped claim has the type that is asked for, and says what another parser finds there:
    /// no role, no scope and no subject that is not in the token (I14, I17, I18).
    mapped_claims,
    &[
        "\"scp\":", "\"scope\":", "\"groups\":", "\"realm\":{", "\"roles\":[", "\"org\":{\"id\":", "\"oid\":", "\"azp\":",
        "\"by.name\":{", "\"_claim_names\":{\"groups\":1},", "\"hasgroups\":true,", "\"use\":\"access\"", "null", "true", "7", "[", "]",
        "{", "}", ",", ":", "\"", "\"read\"", "\"a b\"", "\"write\"", "\\u0000", "\u{f6}", "%", " ", "[[", "\"\"",
    ],
    |input| {
        let Ok(token) = VERIFIER.verify(&signed(input), NOW, NOW) else { return };
        assert!(names_members_once(input), "J11");
        let mut said: Map<String, Value> = serde_json::from_slice(input).unwrap();
        assert_eq!(said["use"], "access", "I18");
        // `null` is an absent claim (J29).
        said.retain(|_, value| !value.is_null());

        let mut roles = texts(said.get("realm").map(|realm| &realm["roles"]).filter(|roles| !roles.is_null()));
        roles.extend(texts(said.get("groups")));
        roles.extend(said.get("by.name").map(|names| names.as_object().expect("I18")).into_iter().flatten().map(|(name, _)| name.clone()));
        let found: BTreeSet<String> = token.roles().names().iter().map(|name| name.to_string()).collect();
        assert_eq!(found, roles, "I17");
        assert!(roles.len() <= 256 && roles.iter().all(|role| (1..=256).contains(&role.len())), "I18");

        let scopes = match said.get("scope").or(said.get("scp")) {
            Some(Value::String(text)) => text.split(' ').map(str::to_owned).collect(),
            list => texts(list),
        };
        for scope in token.scope.iter() {
            assert!(scope == "read" && scopes.contains("write") || scopes.contains(scope), "I14: {scope}");
            assert!(["read", "a:b"].contains(&scope), "I14: {scope}");
        }
        let subject = said.get("oid").or_else(|| said.get("sub")).and_then(Value::as_str).expect("I18");
        assert_eq!(token.token_subject(), subject, "I15");
        assert!(token.subject.bytes().all(|byte| byte.is_ascii_graphic()), "J9");
        assert_eq!(percent_encoding::percent_decode_str(&token.subject).decode_utf8().unwrap(), subject, "J9");
        let account = said.get("org").and_then(|org| org.get("id")).filter(|id| !id.is_null()).map(|id| format!("idp:{}", id.as_str().expect("I18")));
        assert_eq!(token.account(), account.as_deref(), "I18");
        assert_eq!(token.client.as_deref(), said.get("azp").map(|azp| azp.as_str().expect("I18")));
    }
);
