//! Responses of introspection endpoints.

use std::sync::LazyLock;

use rotogate::claim::ClaimPath;
use rotogate::clock::Timestamp;
use rotogate::session::Scope;
use rotogate::token::IssuerRules;
use rotogate_core::introspection::{Introspection, IntrospectionFault, Introspector};
use rotogate_core::token::verify::{ClaimMapping, Responses, Told};
use serde_json::{Map, Value};

use crate::input::target;
use crate::json::names_members_once;

const URL: &str = "https://idp.test";
const NOW: u64 = 1_700_000_000;

/// Never asked: the responses are the inputs.
#[derive(Debug)]
struct Silent;

#[async_trait::async_trait]
impl Introspector for Silent {
    async fn introspect(&self, _: &str) -> Result<bytes::Bytes, IntrospectionFault> {
        Err(IntrospectionFault::new("other", "never asked"))
    }

    fn identity(&self) -> Box<[u8]> {
        Box::default()
    }
}

static RESPONSES: LazyLock<Responses> = LazyLock::new(|| {
    let claims = ClaimMapping {
        roles: ClaimPath::list(["groups"]).unwrap(),
        scope_map: vec![("write".into(), Scope::parse("read list").unwrap())],
        ..ClaimMapping::default()
    };
    let rules = IssuerRules::introspected(URL, vec!["api".into()], Introspection::by(Silent));
    let rules = rules.named("idp").claims(claims).scopes(Some(Scope::parse("read a:b").unwrap()));
    Responses::new(&rules)
});

/// A NumericDate that is no later than it may be.
fn seconds(value: Option<&Value>) -> Option<f64> {
    value.map(|value| value.as_f64().expect("a time is a number"))
}

target!(
    /// A response makes a token of an active one alone, and of nothing that it does not say: `active` is `true` and is named
    /// once, the token is of this issuer, is not over, is bound to no key or to one that it names, is no refresh token, and has its own subject and
    /// no more scopes than are listed (I14, I18, I20, I46).
    introspection_response,
    &[
        "\"active\":true", "\"active\":false", "\"active\":\"true\"", "\"activ\\u0065\":true", "\"iss\":\"https://idp.test\"",
        "\"aud\":", "[\"api\"]", "\"exp\":", "1700000600", "\"sub\":", "\"client_id\":\"app\"", "\"cnf\":{}", "\"scope\":",
        "\"groups\":", "\"token_use\":\"refresh_token\"", "\"token_type\":", "\"nbf\":", "\"iat\":", "null", "true", "1", "[", "]",
        "{", "}", ",", ":", "\"", "\\u0000", "1e400", "<html>", "\u{feff}", "\n",
    ],
    |input| {
        let Ok(told) = RESPONSES.read("opaque", input, Timestamp::from_secs(NOW)) else { return };
        assert!(names_members_once(input), "J11");
        let mut said: Map<String, Value> = serde_json::from_slice(input).unwrap();
        let number = said.len();
        // `null` is an absent member (J29).
        said.retain(|_, value| !value.is_null());
        let token = match told {
            Told::Active(token) => token,
            Told::Inactive => return assert_eq!(said["active"], Value::Bool(false)),
            Told::Refused(_) => return assert_eq!(said["active"], Value::Bool(true)),
        };
        assert_eq!(said["active"], Value::Bool(true));
        assert!(said.get("iss").is_none_or(|issuer| issuer == URL) && **token.issuer() == *URL);
        let leeway = token.leeway().as_secs_f64();
        assert!(seconds(said.get("exp")).expect("exp is there") + leeway > NOW as f64);
        for name in ["nbf", "iat"] {
            assert!(seconds(said.get(name)).is_none_or(|from| from <= NOW as f64 + leeway), "{name}");
        }
        let jkt = said.get("cnf").map(|cnf| cnf["jkt"].as_str().expect("R14"));
        assert_eq!(token.bound_to().map(|key| key.to_string()).as_deref(), jkt, "R14");
        for name in ["token_use", "token_type"] {
            let kind = said.get(name).map(|kind| kind.as_str().expect("a text").to_ascii_lowercase());
            let kind = kind.as_deref().unwrap_or_default();
            assert!(!["refresh_token", "id_token"].contains(&kind) && (kind != "dpop" || jkt.is_some()), "{name}");
        }
        let subject = said.get("sub").or_else(|| said.get("client_id")).and_then(Value::as_str).expect("I18");
        assert_eq!((token.token_subject(), &*token.subject), (subject, subject));
        let audience = match &said["aud"] {
            Value::String(one) => vec![one.as_str()],
            several => several.as_array().expect("J8").iter().map(|one| one.as_str().expect("J8")).collect(),
        };
        assert!(!audience.is_empty() && token.audience.iter().map(|one| &**one).eq(audience), "J8");
        let scopes: Vec<&str> = said.get("scope").map_or_else(Vec::new, |scope| match scope {
            Value::String(text) => text.split(' ').collect(),
            list => list.as_array().expect("I18").iter().map(|one| one.as_str().expect("I18")).collect(),
        });
        for scope in token.scope.iter() {
            assert!(scope == "read" && scopes.contains(&"write") || scopes.contains(&scope), "I14: {scope}");
            assert!(["read", "a:b"].contains(&scope), "I14: {scope}");
        }
        assert!(token.session.is_none() && token.account().is_none() && !token.is_ours());
        assert_eq!(token.claims().len(), number);
    }
);
