//! Assertions of clients, and assertions as grants: signed by a key that the gate knows, whatever they say.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use rotogate::clock::Timestamp;
use rotogate_core::token::verify::{Keys, ProvedGrant, SentClientAssertion, SentGrant, UsableOnce};
use rotogate_core::token::{
    AssertionGrants, IdJagRules, IssuerKeys, IssuerRules, JagSubject, JwtBearerRules, Verifier,
};
use serde_json::{Map, Value, json};

use crate::input::target;
use crate::json::names_members_once;

const GATE: &str = "https://gate.test";
const ENDPOINT: &str = "https://gate.test/token";
const IDP: &str = "https://idp.test";
const LEEWAY: Duration = Duration::from_secs(30);
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

pub(crate) static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::from_bytes(&[7; 32]));

pub(crate) fn keys() -> IssuerKeys {
    let x = URL_SAFE_NO_PAD.encode(KEY.verifying_key().as_bytes());
    let set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "k", "alg": "EdDSA" }] });
    IssuerKeys::from_jwks(set.to_string().as_bytes(), None).unwrap()
}

static OF_CLIENT: LazyLock<Keys> = LazyLock::new(|| Keys::Live(keys().into()));
static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let mut rules = IssuerRules::external(IDP, vec!["api".into()], keys());
    let minutes = Duration::from_secs(600);
    rules.grants = AssertionGrants {
        id_jag: Some(IdJagRules { clients: vec!["wiki".into()], max_age: minutes, subject: JagSubject::Issuer }),
        jwt_bearer: Some(JwtBearerRules {
            subjects: vec!["job".into()],
            max_lifetime: minutes,
            as_client: "ci".into(),
        }),
    };
    Verifier::new(vec![rules]).unwrap()
});

type Object = Map<String, Value>;

/// A header and claims in two lines, signed; and what `verify` makes of them, with both as objects.
fn judged<T>(input: &[u8], verify: impl Fn(&str) -> Option<T>) -> Option<(Object, Object, T)> {
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (header, claims) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    assert!(verify(&format!("{message}.")).is_none(), "unsigned");
    if let Ok(text) = std::str::from_utf8(input) {
        assert!(verify(text).is_none(), "the corpus holds no signed text");
    }
    let read = verify(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(KEY.sign(message.as_bytes()).to_bytes())))?;
    assert!(names_members_once(header) && names_members_once(claims));
    let (header, claims): (Object, Object) =
        (serde_json::from_slice(header).unwrap(), serde_json::from_slice(claims).unwrap());
    assert!(matches!(header["alg"].as_str(), Some("EdDSA" | "Ed25519")), "{header:?}");
    let seconds = |name: &str| claims.get(name).map(|time| time.as_f64().unwrap());
    let (now, leeway) = (NOW.as_secs() as f64, LEEWAY.as_secs() as f64);
    assert!(seconds("exp").unwrap() + leeway > now);
    assert!(["iat", "nbf"].iter().all(|name| seconds(name).is_none_or(|time| time <= now + leeway)));
    Some((header, claims, read))
}

/// The one audience.
fn sole(claims: &Object) -> &str {
    match &claims["aud"] {
        Value::Array(all) if all.len() == 1 => all[0].as_str().unwrap(),
        one => one.as_str().unwrap(),
    }
}

fn typ(header: &Object) -> Option<String> {
    let typ = header.get("typ")?.as_str().unwrap().to_ascii_lowercase();
    Some(typ.strip_prefix("application/").map(str::to_owned).unwrap_or(typ))
}

target!(
    /// D24, D30: what authenticates a client is an assertion of that client, for this gate alone, for an hour at most.
    client_assertion,
    &[
        "\n", "{", "}", "[", "]", ",", ":", "\"", "null", "1e9", "-1", "1700000030", "1700003600", "\"iss\":\"orders\",",
        "\"sub\":\"orders\",", "\"aud\":[\"https://gate.test\"],", "\"aud\":\"https://gate.test/token\",", "\"jti\":\"j\",",
        "\"exp\":1700003700,", "\"nbf\":1700000100,", "client-authentication+jwt", "at+jwt", "\"typ\":\"JWT\",", "Ed25519", "none",
        "\"crit\":[],", "\\u0000", "[[[[[[[[[[[[[",
    ],
    |input| {
        let audience = [GATE];
        let verify = |token: &str| -> Option<UsableOnce> {
            let sent =
                SentClientAssertion { client: "orders", keys: &OF_CLIENT, audience: &audience, token, leeway: LEEWAY };
            sent.verify(NOW, NOW).ok()
        };
        let Some((header, claims, once)) = judged(input, verify) else { return };
        assert!(matches!(typ(&header).as_deref(), None | Some("jwt" | "client-authentication+jwt")));
        assert_eq!((&claims["iss"], &claims["sub"], sole(&claims)), (&"orders".into(), &"orders".into(), GATE));
        assert_eq!((&*once.issuer, &*once.id), ("orders", claims["jti"].as_str().unwrap()));
        assert!(once.until > NOW && once.until.since(NOW) <= Duration::from_secs(3600) + LEEWAY * 3);
    }
);

target!(
    /// D18, D23, D30: what brings a token is one of the two kinds of assertion in every respect.
    grant_assertion,
    &[
        "\n", "{", "}", "[", "]", ",", ":", "\"", "null", "1e9", "-1", "1700000030", "\"client_id\":\"wiki\",", "\"sub\":\"job\",",
        "\"aud\":[\"https://gate.test\"],", "\"aud\":\"https://gate.test/token\",", "\"jti\":\"j\",", "\"exp\":1700000300,",
        "\"resource\":[\"https://gate.test/mcp\"],", "\"authorization_details\":[],", "\"cnf\":{\"jkt\":\"x\"},", "\"cnf\":{},",
        "\"events\":{},", "\"sid\":\"s\",", "\"scope\":\"read\",", "oauth-id-jag+jwt", "JWT", "at+jwt", "Ed25519", "\\ud800",
    ],
    |input| {
        let issuers = [GATE];
        let verify = |token: &str| -> Option<ProvedGrant> {
            let sent = SentGrant { audience: (&issuers, Some(ENDPOINT)), client: Some("wiki"), token };
            let of_workload = SentGrant { client: None, ..sent };
            let read = VERIFIER.proved_grant(sent, NOW, NOW);
            read.or_else(|_| VERIFIER.proved_grant(of_workload, NOW, NOW)).ok()
        };
        let Some((header, claims, grant)) = judged(input, verify) else { return };
        assert_eq!(claims["iss"], IDP);
        assert!(!claims.contains_key("authorization_details") && !claims.contains_key("events"));
        assert_eq!(&*grant.vouched_by.subject, claims["sub"].as_str().unwrap());
        assert!(grant.once.until > NOW && !grant.once.id.is_empty());
        let confirmed = claims.get("cnf").map(|cnf| cnf["jkt"].is_string());
        assert_eq!(grant.bound_to.is_some(), confirmed.unwrap_or(false), "no binding is dropped");
        match (grant.user, typ(&header).as_deref()) {
            (Some(user), Some("oauth-id-jag+jwt")) => {
                assert_eq!((&claims["client_id"], sole(&claims)), (&"wiki".into(), GATE));
                assert!(claims["iat"].as_f64().unwrap() + 630.0 >= NOW.as_secs() as f64, "too old");
                assert_eq!(user.resources.is_empty(), !claims.contains_key("resource"));
                assert!(user.scope.is_empty(), "the issuer has none here");
            }
            (None, None | Some("jwt" | "authorization-grant+jwt")) => {
                assert_eq!((&claims["sub"], &*grant.client), (&"job".into(), "ci"));
                assert!([GATE, ENDPOINT].contains(&sole(&claims)));
                let [iat, exp] = ["iat", "exp"].map(|name| claims[name].as_f64().unwrap());
                assert!(exp - iat < 600.01);
            }
            other => panic!("{other:?}"),
        }
    }
);
