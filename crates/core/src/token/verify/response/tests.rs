use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::claim::ClaimPath;
use crate::introspection::{Introspection, IntrospectionFault, Introspector};
use crate::session::Scope;
use crate::token::verify::{ClaimMapping, Preset};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const URL: &str = "https://idp.test/";

/// An issuer that is never asked here.
#[derive(Debug)]
struct Silent(&'static str);

#[async_trait]
impl Introspector for Silent {
    async fn introspect(&self, _: &str) -> Result<Bytes, IntrospectionFault> {
        Err(IntrospectionFault::new("silent", self.0))
    }

    fn identity(&self) -> Box<[u8]> {
        self.0.as_bytes().into()
    }
}

fn introspection() -> Introspection {
    Introspection::by(Silent("one"))
}

fn rules(introspection: Introspection) -> IssuerRules {
    let rules = IssuerRules::introspected(URL, vec!["api".into()], introspection).named("idp");
    rules.scopes(Some(Scope::parse("read write").unwrap()))
}

/// A good response, with changes; `null` takes a member away.
fn response(changes: &Value) -> Vec<u8> {
    let mut response = json!({
        "active": true, "iss": URL, "aud": "api", "sub": "user-1", "client_id": "theirs", "scope": "read admin",
        "exp": 1_800_000_600, "iat": 1_799_999_990, "jti": "j1", "token_type": "Bearer",
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(response.as_object_mut().unwrap().remove(name)),
            value => response[name] = value.clone(),
        }
    }
    response.to_string().into_bytes()
}

fn read(rules: &IssuerRules, changes: &Value) -> Result<Told, &'static str> {
    Responses::new(rules).read("opaque", &response(changes), NOW)
}

fn active(rules: &IssuerRules, changes: &Value) -> AccessToken {
    match read(rules, changes) {
        Ok(Told::Active(token)) => *token,
        other => panic!("{changes}: {other:?}"),
    }
}

fn refused(rules: &IssuerRules, changes: &Value) -> Denial {
    match read(rules, changes) {
        Ok(Told::Refused(denial)) => denial,
        other => panic!("{changes}: {other:?}"),
    }
}

#[test]
fn i14_i20_an_active_token_is_what_a_verified_one_would_be() {
    let token = active(&rules(introspection()), &json!({ "sid": "theirs", "gen": 1, "account": "acme" }));
    assert_eq!((&**token.issuer(), &**token.issuer_name(), token.is_ours()), (URL, "idp", false));
    assert_eq!(
        (&*token.subject, token.client.as_deref(), token.jti.as_deref()),
        ("user-1", Some("theirs"), Some("j1"))
    );
    assert_eq!(token.scope.as_str(), "read", "mapped, and no more than is listed");
    assert_eq!((token.session, token.account(), token.kid()), (None, None, None));
    assert_eq!(token.expires, Timestamp::from_secs(1_800_000_600));
    assert_eq!(token.claims().get("sub"), Some(&json!("user-1")), "the members of the response are its claims");
    assert!(token.own().is_err(), "it acts on no session of ours");
}

#[test]
fn i20_only_true_is_active() {
    let rules = rules(introspection());
    assert!(matches!(read(&rules, &json!({ "active": false })), Ok(Told::Inactive)));
    for active in [json!("true"), json!(1), json!("false"), json!(0), json!([true]), json!({ "active": true })] {
        assert_eq!(
            read(&rules, &json!({ "active": active })).unwrap_err(),
            "`active` must be true or false",
            "{active}"
        );
    }
    assert!(read(&rules, &json!({ "active": null })).is_err(), "absent");
    let good = String::from_utf8(response(&json!({}))).unwrap();
    let deep = format!("{{\"active\":true,\"a\":{}{}}}", "[".repeat(20), "]".repeat(20));
    let long = format!("{{\"active\":true,\"a\":\"{}\"}}", "x".repeat(MAX_INTROSPECTION));
    for bad in [
        "",
        "null",
        "true",
        "[]",
        "<html><body>200 OK</body></html>",
        "eyJhbGciOiJub25lIn0.eyJhY3RpdmUiOnRydWV9.",
        "{\"active\":null}",
        "{\"active\":true,\"active\":false}",
        "{\"active\":false,\"active\":true}",
        "{\"active\":true,\"\\u0061ctive\":true}",
        &good.replace("\"sub\"", "\"sub\":\"admin\",\"sub\""),
        &format!("{good}{good}"),
        &good[..good.len() - 1],
        &deep,
        &long,
    ] {
        assert!(Responses::new(&rules).read("opaque", bad.as_bytes(), NOW).is_err(), "{bad:.80}");
    }
    assert!(Responses::new(&rules).read("opaque", b"{\"active\":true,\"sub\":\"\xff\"}", NOW).is_err());
}

#[test]
fn i20_r14_an_active_token_with_claims_that_are_not_right_is_refused() {
    let rules = rules(introspection());
    for changes in [
        json!({ "iss": "https://idp.test" }),
        json!({ "iss": 1 }),
        json!({ "iss": [URL] }),
        json!({ "aud": null }),
        json!({ "aud": [] }),
        json!({ "aud": 1 }),
        json!({ "exp": null }),
        json!({ "exp": "1800000600" }),
        json!({ "sub": null, "client_id": null }),
        json!({ "sub": 1 }),
        json!({ "sub": "a b" }),
        json!({ "sub": "" }),
        json!({ "client_id": ["theirs"] }),
        json!({ "scope": ["read write"] }),
        json!({ "scope": 1 }),
        json!({ "jti": 1 }),
        json!({ "token_use": 1 }),
    ] {
        assert!(matches!(refused(&rules, &changes), Denial::BadClaim(_)), "{changes}");
    }
    assert_eq!(refused(&rules, &json!({ "exp": 1_799_999_900 })), Denial::TokenExpired);
    assert_eq!(refused(&rules, &json!({ "nbf": 1_800_000_100 })), Denial::TokenNotYetValid);
    assert_eq!(refused(&rules, &json!({ "iat": 1_800_000_100 })), Denial::TokenNotYetValid);
    for bound in [json!({ "cnf": { "jkt": "x" } }), json!({ "cnf": {} }), json!({ "token_type": "DPoP" })] {
        assert_eq!(refused(&rules, &bound), Denial::UnprovedBinding, "{bound}");
    }
    for other in ["refresh_token", "Refresh_Token", "id", "ID_TOKEN", "refresh"] {
        assert_eq!(refused(&rules, &json!({ "token_use": other })), Denial::WrongType, "{other}");
        assert_eq!(refused(&rules, &json!({ "token_type": other })), Denial::WrongType, "{other}");
    }
    // RFC 7662 §2.2 asks for nothing of these.
    for good in [json!({ "iss": null }), json!({ "iat": null }), json!({ "jti": null }), json!({ "token_type": null })]
    {
        active(&rules, &good);
    }
}

#[test]
fn i20_a_clients_own_token_is_the_clients() {
    assert_eq!(&*active(&rules(introspection()), &json!({ "sub": null })).subject, "theirs");
    let prefixed = IssuerRules { subject_prefix: "idp|".into(), ..rules(introspection()) };
    let token = active(&prefixed, &json!({ "sub": null }));
    assert_eq!((&*token.subject, token.token_subject()), ("idp|theirs", "theirs"));
}

#[test]
fn i20_a_response_without_an_audience_counts_where_the_issuer_says_so() {
    let optional = rules(introspection().audience_optional());
    assert!(active(&optional, &json!({ "aud": null })).is_for(&["api"]));
    assert!(!active(&optional, &json!({ "aud": "other" })).is_for(&["api"]), "one that is there is judged");
    assert!(matches!(refused(&optional, &json!({ "aud": [] })), Denial::BadClaim(_)));
    assert!(matches!(refused(&optional, &json!({ "aud": 1 })), Denial::BadClaim(_)));
}

#[test]
fn i14_i18_scopes_roles_and_required_claims_are_those_of_a_jwt() {
    let claims = ClaimMapping {
        scope: ClaimPath::list(["scp"]).unwrap(),
        scope_map: vec![("orders".into(), Scope::parse("read").unwrap())],
        roles: ClaimPath::list(["realm_access.roles"]).unwrap(),
        encodes_subject: true,
        ..ClaimMapping::default()
    };
    let mut mapped = rules(introspection()).claims(claims);
    Arc::make_mut(&mut mapped.claims).require(ClaimPath::parse("tenant").unwrap(), vec!["a".into()]);
    let good =
        json!({ "scp": ["orders", "admin"], "realm_access": { "roles": ["boss"] }, "tenant": "a", "sub": "Zoë" });
    let token = active(&mapped, &good);
    assert_eq!((token.scope.as_str(), &*token.subject, token.token_subject()), ("read", "Zo%C3%AB", "Zoë"));
    assert!(token.roles().contains("boss"));
    for (name, value) in [
        ("realm_access", json!({ "roles": [1] })),
        ("realm_access", json!("boss")),
        ("realm_access", json!({ "roles": vec!["r"; 1000] })),
        ("scp", json!({ "orders": true })),
        ("tenant", json!("b")),
        ("tenant", json!(["a"])),
    ] {
        let mut changes = good.clone();
        changes[name] = value;
        assert!(matches!(refused(&mapped, &changes), Denial::BadClaim(_)), "{changes}");
    }
    let keycloak = IssuerRules::introspected(URL, vec!["api".into()], introspection()).preset(Preset::Keycloak);
    active(&keycloak, &json!({ "typ": "Bearer" }));
    assert!(matches!(refused(&keycloak, &json!({ "typ": "Refresh" })), Denial::BadClaim(_)));
}

#[test]
fn i20_a_lifetime_is_bounded_where_it_is_known() {
    let short = IssuerRules { max_lifetime: Some(Duration::from_secs(300)), ..rules(introspection()) };
    assert!(matches!(refused(&short, &json!({})), Denial::BadClaim(_)));
    active(&short, &json!({ "exp": 1_800_000_200 }));
    active(&short, &json!({ "iat": null }));
}

#[test]
fn i20_a_jwt_has_three_parts_of_base64url_and_an_opaque_token_may_be_sent() {
    for jwt in ["a.b.c", "a.b.", "eyJh-_.e30.AA"] {
        assert!(is_jwt_shaped(jwt), "{jwt}");
    }
    for opaque in ["ory_at_x.y", "abc", "a.b", "a.b.c.d", "a.b.c=", "a.b+.c", "a~b.c.d", &"x".repeat(24_576)] {
        assert!(!is_jwt_shaped(opaque) && is_opaque(opaque), "{opaque:.20}");
    }
    for never in ["", "a b", "a\nb", "ä", "a\"", "rg1_AAAA", &"x".repeat(25_000)] {
        assert!(!is_opaque(never), "{never:.20}");
    }
}

#[test]
fn i20_a_prefix_parts_the_tokens_of_two_issuers_and_nothing_else_does() {
    let issuer = |url: &str, prefix: &str| {
        let introspection = Introspection::by(Silent("one")).prefix(prefix);
        IssuerRules::introspected(format!("https://{url}/"), vec!["api".into()], introspection)
    };
    let issuers = [issuer("a", "ory_at_"), issuer("b", "ory_"), issuer("c", ""), issuer("d", "x")];
    let of = |token: &str, taken: &[&str]| {
        let found = introspecting(&issuers, token, |rules| taken.contains(&&*rules.name));
        found.map(|rules| rules.name.to_string())
    };
    let all = ["a", "b", "c", "d"];
    assert_eq!(of("ory_at_1", &all).as_deref(), Some("a"));
    assert_eq!(of("ory_ac_1", &all).as_deref(), Some("b"));
    assert_eq!(of("1", &all).as_deref(), Some("c"));
    assert_eq!(of("ory_at_1", &["b", "d"]).as_deref(), Some("b"), "of those that the route takes");
    assert_eq!(of("1", &["a", "b", "d"]), None);
    let twins = [issuer("a", ""), issuer("b", "")];
    assert!(introspecting(&twins, "1", |_| true).is_none(), "no token is shown to one of two at random");
}

#[test]
fn i21_rules_are_the_same_only_if_the_same_server_is_asked_alike() {
    let one = rules(introspection());
    assert!(one.equals(&rules(introspection())));
    for other in [
        introspection().cache(Duration::from_secs(1)),
        introspection().negative(Duration::ZERO),
        introspection().stale_if_error(Duration::from_secs(1)),
        introspection().prefix("a"),
        introspection().always(),
        introspection().audience_optional(),
        Introspection::by(Silent("another")),
    ] {
        assert!(!one.equals(&rules(other)));
    }
    assert!(!one.equals(&IssuerRules { introspection: None, ..one.clone() }));
    for wrong in [
        introspection().cache(Duration::from_secs(301)),
        introspection().stale_if_error(Duration::from_secs(301)),
        introspection().negative(Duration::from_secs(61)),
        introspection().prefix("ü"),
    ] {
        assert!(super::super::Verifier::new(vec![rules(wrong)]).is_err());
    }
    super::super::Verifier::new(vec![one]).unwrap();
}
