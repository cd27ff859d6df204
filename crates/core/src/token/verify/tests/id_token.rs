//! ID tokens as the answer to a login.

use super::*;
use crate::claim::ClaimPath;
use crate::denial::ProviderFlaw;
use crate::token::verify::{ClaimMapping, Preset, ProvedLogin, SentIdToken};

/// A provider with one key, and the login that the gate asked of it.
struct Provider {
    key: SigningKey,
    verifier: Verifier,
}

fn provider_with(algorithm: Algorithm, rules: impl FnOnce(IssuerRules) -> IssuerRules) -> Provider {
    let key = SigningKey::generate(algorithm).unwrap();
    let keys = IssuerKeys::from_jwks(jwks(std::slice::from_ref(&key)).to_string().as_bytes(), None).unwrap();
    let external = IssuerRules::external(IDP, vec!["api".into()], keys).named("kc").scopes(None);
    Provider { key, verifier: Verifier::new(vec![rules(external)]).unwrap() }
}

fn provider() -> Provider {
    provider_with(Algorithm::Es256, |rules| rules)
}

fn claims() -> Value {
    json!({
        "iss": IDP, "sub": "ada", "aud": "web", "exp": 1_800_000_300, "iat": 1_800_000_000, "nonce": "n-1", "sid": "s-1",
    })
}

impl Provider {
    fn answer(&self, header: Value, changes: Value) -> Result<ProvedLogin, Denial> {
        let header = with(json!({ "alg": self.key.algorithm().name(), "typ": "JWT", "kid": self.key.kid() }), header);
        self.judge(&forge(&self.key, header.to_string(), with(claims(), changes).to_string()))
    }

    fn judge(&self, token: &str) -> Result<ProvedLogin, Denial> {
        let sent = SentIdToken { issuer: "kc", client: "web", nonce: "n-1", access_token: "A", scope: "openid", token };
        self.verifier.proved_login(sent, &["email".into()], NOW, NOW)
    }

    fn flaw(&self, header: Value, changes: Value) -> &'static str {
        match self.answer(header, changes) {
            Err(Denial::ProviderLogin(ProviderFlaw::IdToken(what))) => what,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn b33_a_good_id_token_names_the_user_in_our_names() {
    let roles = ClaimMapping {
        roles: ClaimPath::list(["realm_access.roles"]).unwrap(),
        account: ClaimPath::list(["tenant"]).unwrap(),
        ..ClaimMapping::default()
    };
    let provider = provider_with(Algorithm::EdDsa, |rules| {
        let mut rules = rules.claims(roles).scopes(Some(Scope::parse("read write").unwrap()));
        rules.subject_prefix = "kc|".into();
        rules
    });
    let further = json!({ "realm_access": { "roles": ["boss"] }, "tenant": "acme", "scope": "write admin",
        "email": "ada@example.com", "other": 1 });
    let token = forge(
        &provider.key,
        json!({ "alg": "EdDSA", "kid": provider.key.kid() }).to_string(),
        with(claims(), further).to_string(),
    );
    let sent = SentIdToken {
        issuer: "kc",
        client: "web",
        nonce: "n-1",
        access_token: "A",
        scope: "openid read",
        token: &token,
    };
    let proved = provider.verifier.proved_login(sent, &["email".into(), "sub".into()], NOW, NOW).unwrap();
    assert_eq!((&*proved.subject, proved.account.as_deref()), ("kc|ada", Some("kc:acme")));
    assert_eq!(proved.scope.as_str(), "read write");
    assert_eq!(proved.claims.get("roles"), Some(&json!(["boss"])));
    // Only the claims of identity headers, without claims that the gate sets itself.
    assert_eq!(proved.claims.get("email"), Some(&json!("ada@example.com")));
    assert!(proved.claims.get("other").is_none() && proved.claims.get("sub").is_none());
    let by = proved.vouched_by;
    assert_eq!((&*by.issuer, &*by.subject, by.session.as_deref()), (IDP, "ada", Some("s-1")));
    assert_eq!(format!("{sent:?}"), "SentIdToken(…)");
}

#[test]
fn b33_an_id_token_of_another_login_client_or_time_is_refused() {
    let provider = provider();
    assert!(provider.answer(json!({}), json!({})).is_ok());
    for good in [
        json!({ "aud": ["web"] }),
        json!({ "aud": ["web", "api"], "azp": "web" }),
        json!({ "azp": "web", "sid": null }),
        // Within the leeway.
        json!({ "exp": 1_799_999_980, "iat": 1_799_999_400 }),
        json!({ "at_hash": "VZrq0IJk1XldOQlxjN0Fqw" }),
    ] {
        assert!(provider.answer(json!({}), good.clone()).is_ok(), "{good}");
    }
    // Attack 12.
    for (bad, flaw) in [
        (json!({ "nonce": null }), "`nonce` is not the nonce of this login"),
        (json!({ "nonce": "n-2" }), "`nonce` is not the nonce of this login"),
        (json!({ "nonce": "" }), "`nonce` is not the nonce of this login"),
        (json!({ "nonce": 1 }), "`nonce` is not the nonce of this login"),
        (json!({ "aud": "api" }), "`aud` is not the gate's client"),
        (json!({ "aud": null }), "`aud` is not the gate's client"),
        (json!({ "aud": ["api"] }), "`aud` is not the gate's client"),
        (json!({ "aud": ["web", "api"] }), "`aud` names several clients, but `azp` is missing"),
        (json!({ "aud": ["web", "api"], "azp": "api" }), "`azp` is another client"),
        (json!({ "azp": "api" }), "`azp` is another client"),
        (json!({ "iss": "https://other.example/" }), "`iss` is another issuer"),
        (json!({ "iss": null }), "`iss` is another issuer"),
        (json!({ "exp": 1_799_999_900 }), "it has expired, or is not valid yet"),
        (json!({ "exp": null }), "`exp` or `iat` is missing or is not a time"),
        (json!({ "iat": 1_800_000_100 }), "it has expired, or is not valid yet"),
        (json!({ "iat": 1_799_999_300 }), "`iat` is missing, or is too long ago"),
        (json!({ "iat": null }), "`iat` is missing, or is too long ago"),
        (json!({ "at_hash": "AAAA" }), "`at_hash` does not match the access token"),
        (json!({ "at_hash": 1 }), "`at_hash` does not match the access token"),
        (json!({ "sub": null }), "no sub"),
        // Attack 13.
        (json!({ "events": {} }), "it is a logout token"),
    ] {
        assert_eq!(provider.flaw(json!({}), bad.clone()), flaw, "{bad}");
    }
    for (header, flaw) in [
        (json!({ "typ": "at+jwt" }), "`typ` is not the type of an ID token"),
        (json!({ "typ": "logout+jwt" }), "`typ` is not the type of an ID token"),
        (json!({ "alg": "none" }), "it was not signed with a key of the issuer"),
        (json!({ "alg": "HS256" }), "it was not signed with a key of the issuer"),
        (json!({ "alg": "ES384" }), "it was not signed with a key of the issuer"),
        (json!({ "crit": ["x"] }), "the header is malformed"),
    ] {
        assert_eq!(provider.flaw(header.clone(), json!({})), flaw, "{header}");
    }
    assert!(provider.answer(json!({ "typ": null }), json!({})).is_ok());
    assert!(provider.answer(json!({ "typ": "application/jwt" }), json!({})).is_ok());
    let foreign = self::provider();
    let forged =
        forge(&foreign.key, json!({ "alg": "ES256", "kid": provider.key.kid() }).to_string(), claims().to_string());
    assert!(provider.judge(&forged).is_err());
    for garbage in ["", "a.b", "a.b.c", "....", &"x".repeat(9000)] {
        assert!(provider.judge(garbage).is_err());
    }
}

#[test]
fn b33_what_tells_access_tokens_from_others_is_not_asked_of_an_id_token_and_what_the_operator_asks_is() {
    let keycloak = provider_with(Algorithm::Rs256, |rules| rules.preset(Preset::Keycloak));
    assert!(keycloak.answer(json!({}), json!({ "typ": "ID", "exp": 1_800_200_000 })).is_ok());
    // No access token of the same keys is one.
    assert!(keycloak.answer(json!({}), json!({ "typ": "Bearer", "nonce": null })).is_err());
    let entra = provider_with(Algorithm::Rs256, |rules| rules.preset(Preset::EntraV2));
    assert!(entra.answer(json!({}), json!({ "ver": "2.0" })).is_ok());
    assert!(entra.answer(json!({}), json!({ "ver": "1.0" })).is_err());
    let cognito = provider_with(Algorithm::Rs256, |rules| rules.preset(Preset::Cognito));
    assert!(cognito.answer(json!({}), json!({ "token_use": "id" })).is_ok());
    let google =
        provider_with(Algorithm::Rs256, |rules| rules.preset(Preset::Google).require("hd", ["acme.example"]).unwrap());
    assert!(google.answer(json!({}), json!({ "hd": "acme.example" })).is_ok());
    for stranger in [json!({}), json!({ "hd": "gmail.com" })] {
        assert_eq!(
            google.flaw(json!({}), stranger),
            "a claim that `require` or the preset asks for is missing, or has another value"
        );
    }
}
