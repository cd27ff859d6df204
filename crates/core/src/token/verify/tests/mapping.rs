//! Mapped claims: what is read of another issuer's token, and what is refused.

use super::*;
use crate::claim::ClaimPath;

/// A verifier of another issuer's tokens with these rules, and the key of that issuer.
struct Idp {
    key: SigningKey,
    verifier: Verifier,
}

fn paths(paths: &[&str]) -> Vec<ClaimPath> {
    ClaimPath::list(paths.iter().copied()).unwrap()
}

fn idp(rules: impl FnOnce(IssuerRules) -> IssuerRules) -> Idp {
    let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
    let keys = IssuerKeys::from_jwks(jwks(std::slice::from_ref(&key)).to_string().as_bytes(), None).unwrap();
    let external = IssuerRules::external(IDP, vec!["api".into()], keys).named("kc").scopes(None);
    Idp { key, verifier: Verifier::new(vec![rules(external)]).unwrap() }
}

fn mapped(claims: ClaimMapping) -> Idp {
    idp(|rules| rules.claims(claims))
}

impl Idp {
    fn verify(&self, changes: Value) -> Result<AccessToken, Denial> {
        let claims = with(idp_claims(), changes).to_string();
        self.verifier.verify(&forge(&self.key, own_header(&self.key).to_string(), claims), NOW, NOW)
    }

    fn scope(&self, changes: Value) -> String {
        self.verify(changes).unwrap().scope.to_string()
    }
}

fn names(token: &AccessToken) -> Vec<&str> {
    token.roles().names().iter().map(|name| &**name).collect()
}

#[test]
fn i14_a_scope_is_read_from_the_first_claim_that_is_there_then_mapped_then_cut() {
    let scopes = ClaimMapping { scope: paths(&["scope", "scp"]), ..ClaimMapping::default() };
    let any = mapped(scopes.clone());
    assert_eq!(any.scope(json!({ "scope": "read write" })), "read write");
    assert_eq!(any.scope(json!({ "scp": ["read", "orders:write"] })), "read orders:write");
    assert_eq!(any.scope(json!({ "scp": "read" })), "read");
    assert_eq!(any.scope(json!({ "scope": "", "scp": "read" })), "", "the first that is there");
    assert_eq!(any.scope(json!({})), "");
    let map = vec![
        ("access_as_user".into(), Scope::parse("read write").unwrap()),
        ("read".into(), Scope::parse("list").unwrap()),
    ];
    let capped = |only: &str| {
        let scopes = ClaimMapping { scope_map: map.clone(), ..scopes.clone() };
        idp(|rules| rules.claims(scopes).scopes(Some(Scope::parse(only).unwrap())))
    };
    assert_eq!(capped("read admin").scope(json!({ "scp": "access_as_user" })), "read");
    assert_eq!(capped("read admin").scope(json!({ "scp": "read" })), "", "their word is ours no more");
    assert_eq!(capped("list").scope(json!({ "scp": ["read", "access_as_user", "list"] })), "list");
    assert_eq!(capped("").scope(json!({ "scp": "access_as_user read" })), "", "unset lists nothing");
}

#[test]
fn i18_a_mapped_claim_of_another_type_is_refused_and_is_not_an_absent_one() {
    let mapping = ClaimMapping {
        scope: paths(&["scp"]),
        client: paths(&["azp", "cid"]),
        roles: paths(&["realm_access.roles", "role", "\"urn:roles\"{}"]),
        account: paths(&["org.id"]),
        subject: paths(&["oid", "sub"]),
        ..ClaimMapping::default()
    };
    let idp = mapped(mapping);
    assert!(idp.verify(json!({})).is_ok(), "all of them may be absent, but the subject");
    let many = |n: usize| (0..n).map(|n| format!("r{n}")).collect::<Vec<_>>();
    let long = "x".repeat(257);
    for bad in [
        json!({ "scp": 1 }),
        json!({ "scp": true }),
        json!({ "scp": {} }),
        json!({ "scp": ["read write"] }),
        json!({ "scp": [""] }),
        json!({ "scp": ["read", 1] }),
        json!({ "scp": "caf\u{e9}" }),
        json!({ "scp": many(257) }),
        json!({ "azp": ["web"] }),
        json!({ "azp": "" }),
        json!({ "azp": 7, "cid": "web" }),
        json!({ "azp": long }),
        json!({ "realm_access": "boss" }),
        json!({ "realm_access": ["boss"] }),
        json!({ "realm_access": { "roles": { "boss": 1 } } }),
        json!({ "realm_access": { "roles": ["boss", 1] } }),
        json!({ "realm_access": { "roles": [["boss"]] } }),
        json!({ "realm_access": { "roles": [""] } }),
        json!({ "realm_access": { "roles": [long] } }),
        json!({ "realm_access": { "roles": ["a\nb"] } }),
        json!({ "realm_access": { "roles": many(257) } }),
        json!({ "realm_access": { "roles": many(256) }, "role": "one-more" }),
        json!({ "role": 1 }),
        json!({ "urn:roles": ["boss"] }),
        json!({ "urn:roles": "boss" }),
        json!({ "org": { "id": 1 } }),
        json!({ "org": { "id": ["a"] } }),
        json!({ "org": "a" }),
        json!({ "oid": 1 }),
        json!({ "oid": "a b" }),
        json!({ "oid": ["ada"] }),
        json!({ "sub": null }),
    ] {
        assert!(bad_claim(&idp.verify(bad.clone())), "{bad}");
    }
    let token = idp
        .verify(json!({
            "realm_access": { "roles": ["clerk", "boss", "clerk"] }, "role": "auditor", "urn:roles": { "boss": { "1": "o" }, "x": 1 },
            "cid": "web", "org": { "id": "acme" }, "oid": "ada-1", "scp": [],
        }))
        .unwrap();
    assert_eq!(names(&token), ["auditor", "boss", "clerk", "x"]);
    assert_eq!((token.client.as_deref(), token.account()), (Some("web"), Some("kc:acme")));
    assert_eq!((&*token.subject, token.token_subject()), ("ada-1", "ada-1"));
    assert_eq!(names(&idp.verify(json!({ "realm_access": { "roles": many(256) } })).unwrap()).len(), 256);
}

#[test]
fn i17_a_role_is_read_from_the_claims_that_the_issuer_s_rules_name_and_from_no_other() {
    let world = world();
    let everywhere = json!({ "roles": ["boss"], "groups": ["boss"], "scope": "boss" });
    assert_eq!(names(&world.idp(2, &with(idp_claims(), everywhere.clone())).unwrap()), Vec::<&str>::new());
    let of_groups = idp(|rules| rules.roles(["groups"]).unwrap());
    assert_eq!(names(&of_groups.verify(json!({ "roles": ["boss"], "scope": "boss" })).unwrap()), Vec::<&str>::new());
    assert_eq!(names(&of_groups.verify(everywhere.clone()).unwrap()), ["boss"]);
    // The roles of our own tokens are the claim `roles`, which the application sets: another type names no role.
    assert_eq!(names(&world.own_claims(everywhere).unwrap()), ["boss"]);
    for (roles, found) in
        [(json!("boss"), vec!["boss"]), (json!(["boss", 7]), vec!["boss"]), (json!({ "boss": 1 }), vec![])]
    {
        assert_eq!(names(&world.own_claims(json!({ "roles": roles })).unwrap()), found, "{roles}");
    }
}

#[test]
fn i18_groups_that_were_left_out_are_not_no_groups() {
    let entra = mapped(ClaimMapping { roles: paths(&["roles", "groups"]), ..ClaimMapping::default() });
    let left_out = |changes: Value| entra.verify(changes).unwrap().roles().are_left_out();
    let names = json!({ "groups": "src1" });
    assert!(left_out(json!({ "_claim_names": names, "roles": ["boss"] })));
    assert!(left_out(json!({ "hasgroups": true })));
    assert!(!left_out(json!({})));
    assert!(!left_out(json!({ "_claim_names": { "address": "src1" } })));
    assert!(!left_out(json!({ "_claim_names": "groups", "hasgroups": false })));
    assert!(!left_out(json!({ "_claim_names": names, "groups": ["a"] })), "they are there");
    let other = mapped(ClaimMapping { roles: paths(&["roles"]), ..ClaimMapping::default() });
    assert!(!other.verify(json!({ "_claim_names": names })).unwrap().roles().are_left_out(), "they were not asked for");
}

#[test]
fn i18_a_required_claim_has_exactly_one_of_the_values() {
    let required = |path: &str, wanted| RequiredClaim { path: ClaimPath::parse(path).unwrap(), wanted };
    let one_of = |values: &[Value]| WantedClaim::OneOf(values.to_vec());
    let idp = mapped(ClaimMapping {
        require: vec![
            required("token_use", one_of(&[json!("access"), json!("api")])),
            required("org.id", one_of(&[json!(42), json!(true)])),
            required("azp", WantedClaim::Present),
            required("at_hash", WantedClaim::Absent),
        ],
        ..ClaimMapping::default()
    });
    let good = json!({ "token_use": "access", "org": { "id": 42 }, "azp": "web" });
    let changed = |changes: Value| idp.verify(with(good.clone(), changes));
    assert!(changed(json!({})).is_ok());
    assert!(changed(json!({ "token_use": "api", "org": { "id": true } })).is_ok());
    for bad in [
        json!({ "token_use": null }),
        json!({ "token_use": "id" }),
        json!({ "token_use": "Access" }),
        json!({ "token_use": ["access"] }),
        json!({ "org": { "id": "42" } }),
        json!({ "org": { "id": false } }),
        json!({ "org": 42 }),
        json!({ "azp": null }),
        json!({ "at_hash": "x" }),
        json!({ "at_hash": "" }),
    ] {
        assert!(bad_claim(&changed(bad.clone())), "{bad}");
    }
}

#[test]
fn i15_equal_subjects_of_two_issuers_differ_and_a_revocation_names_the_one_in_the_token() {
    let encoded = idp(|rules| {
        let claims = ClaimMapping { encodes_subject: true, ..ClaimMapping::default() };
        IssuerRules { subject_prefix: "kc|".into(), ..rules.claims(claims) }
    });
    for (sub, shown) in [
        ("ada", "kc|ada"),
        ("J\u{f6}rg M", "kc|J%C3%B6rg%20M"),
        ("J%C3%B6rg%20M", "kc|J%25C3%25B6rg%2520M"),
        ("repo:o/r:environment:My Env", "kc|repo:o/r:environment:My%20Env"),
    ] {
        let token = encoded.verify(json!({ "sub": sub })).unwrap();
        assert_eq!((&*token.subject, token.token_subject()), (shown, sub));
        assert_eq!(token.header_subject(), format!("kc|{sub}"));
    }
    for bad in ["", "a\nb", "a\u{85}b", &"\u{f6}".repeat(129)] {
        assert!(bad_claim(&encoded.verify(json!({ "sub": bad }))), "{bad}");
    }
    let plain = idp(|rules| IssuerRules { subject_prefix: "kc|".into(), ..rules });
    let token = plain.verify(json!({ "sub": "a%20b" })).unwrap();
    assert_eq!((&*token.subject, token.token_subject()), ("kc|a%20b", "a%20b"));
    assert!(bad_claim(&plain.verify(json!({ "sub": "J\u{f6}rg" }))));
}

#[test]
fn j8_an_audience_may_be_in_another_claim_which_is_then_the_only_one() {
    let cognito =
        mapped(ClaimMapping { audience: Some(ClaimPath::parse("client_id").unwrap()), ..ClaimMapping::default() });
    let token = cognito.verify(json!({ "aud": null, "client_id": "api" })).unwrap();
    assert!(token.is_for(&["api"]) && token.audience.len() == 1);
    assert!(!cognito.verify(json!({ "aud": "api", "client_id": "other" })).unwrap().is_for(&["api"]));
    for bad in [json!({}), json!({ "client_id": "" })] {
        assert!(bad_claim(&cognito.verify(bad.clone())), "{bad}");
    }
    let list = mapped(ClaimMapping { audience: Some(ClaimPath::parse("for").unwrap()), ..ClaimMapping::default() });
    assert!(bad_claim(&list.verify(json!({ "for": ["api"] }))));
}

#[test]
fn a_mapping_that_cannot_be_is_refused() {
    let problem = |claims: ClaimMapping| claims.problem().is_some();
    let require = |wanted| vec![RequiredClaim { path: ClaimPath::parse("a").unwrap(), wanted }];
    assert!(!problem(ClaimMapping { roles: paths(&["a{}"]), scope: paths(&["b{}"]), ..ClaimMapping::default() }));
    for bad in [
        ClaimMapping { subject: vec![], ..ClaimMapping::default() },
        ClaimMapping { subject: paths(&["a{}"]), ..ClaimMapping::default() },
        ClaimMapping { client: paths(&["a{}"]), ..ClaimMapping::default() },
        ClaimMapping { account: paths(&["a{}"]), ..ClaimMapping::default() },
        ClaimMapping { audience: paths(&["a{}"]).pop(), ..ClaimMapping::default() },
        ClaimMapping { require: require(WantedClaim::OneOf(vec![])), ..ClaimMapping::default() },
        ClaimMapping { require: require(WantedClaim::OneOf(vec![json!([])])), ..ClaimMapping::default() },
    ] {
        assert!(problem(bad.clone()), "{bad:?}");
    }
}
