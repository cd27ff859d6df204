//! Claims of other issuers: which are read, what is required of them, and what they mean here.

use super::*;
use rotogate::claim::ClaimPath;
use rotogate::session::Scope;
use rotogate::token::verify::{ClaimMapping, RequiredClaim, SubjectEncoding, WantedClaim};
use serde_json::{Value, json};

const ISSUER: &str =
    "[[issuers]]\nurl = \"https://idp.test/\"\naudience = \"x\"\njwks_file = \"idp.json\"\neverywhere = true\n";

fn mapping(more: &str) -> ClaimMapping {
    read(&format!("{MINIMAL}{ISSUER}{more}")).unwrap().issuers.remove(0).claims
}

fn paths(paths: &[&str]) -> Vec<ClaimPath> {
    ClaimPath::list(paths.iter().copied()).unwrap()
}

fn wants(path: &str, values: &[Value]) -> RequiredClaim {
    RequiredClaim { path: ClaimPath::parse(path).unwrap(), wanted: WantedClaim::OneOf(values.to_vec()) }
}

#[test]
fn i14_i17_the_keys_of_a_mapping_are_read_and_printed() {
    assert_eq!(mapping(""), ClaimMapping::default());
    let text = r#"
claims = { scope = ["scope", "scp"], client = "azp", roles = ['"https://example.com/roles"', "realm.roles", 'a."b c"{}'], account = "tid", subject = ["oid", "sub"] }
scope_map = { access_as_user = "read", "api:write" = ["write", "read"] }
require = { token_use = "access", "org.id" = [1, true], '"kubernetes.io".namespace' = ["a", "b"] }
audience_claim = "client_id"
subject_encoding = "percent"
"#;
    let scope = |text: &str| Scope::parse(text).unwrap();
    let read_mapping = mapping(text);
    let expected = ClaimMapping {
        scope: paths(&["scope", "scp"]),
        client: paths(&["azp"]),
        roles: paths(&["\"https://example.com/roles\"", "realm.roles", "a.\"b c\"{}"]),
        account: paths(&["tid"]),
        subject: paths(&["oid", "sub"]),
        subject_encoding: SubjectEncoding::Percent,
        audience: paths(&["client_id"]).pop(),
        scope_map: vec![("access_as_user".into(), scope("read")), ("api:write".into(), scope("write read"))],
        // A table has an order of its own.
        require: vec![
            wants("\"kubernetes.io\".namespace", &[json!("a"), json!("b")]),
            wants("org.id", &[json!(1), json!(true)]),
            wants("token_use", &[json!("access")]),
        ],
    };
    assert_eq!(read_mapping, expected);
    let printed = read(&format!("{MINIMAL}{ISSUER}{text}")).unwrap().to_toml();
    assert_eq!(read(&printed).unwrap().issuers[0].claims, expected, "{printed}");
}

#[test]
fn i45_a_mapping_that_cannot_be_meant_is_refused_with_its_key() {
    for (text, expected) in [
        ("claims = { roles = \"groups[0]\" }", "claims.roles: the claim path \"groups[0]\": dots separate"),
        ("claims = { roles = [\"a\", \"b.*\"] }", "claims.roles[1]: the claim path \"b.*\""),
        ("claims = { client = \"azp{}\" }", "claims.client: {} stands for several names"),
        ("claims = { subject = [] }", "claims.subject: is empty"),
        ("claims = { subject = 7 }", "claims.subject: expected a list"),
        ("claims = { role = \"groups\" }", "claims.role: unknown key; did you mean roles?"),
        ("claims = { roles = \"user_metadata.roles\" }", "claims.roles: user_metadata is written by the users"),
        ("claims = \"roles\"", "claims: expected"),
        ("scope_map = { \"a b\" = \"read\" }", "scope_map.a b: is not a scope"),
        ("scope_map = { a = 7 }", "scope_map.a: expected a text"),
        ("scope_map = { a = \"caf\u{e9}\" }", "scope_map.a: "),
        ("require = { typ = [] }", "require.typ: is empty"),
        ("require = { typ = 1.5 }", "require.typ: expected a text, a whole number, true or false, found 1.5"),
        ("require = { typ = { a = 1 } }", "require.typ: expected a text"),
        ("require = { \"a.*\" = 1 }", "require.a.*: the claim path"),
        ("audience_claim = \"a{}\"", "audience_claim: {} stands for"),
        ("subject_encoding = \"utf8\"", "subject_encoding: expected \"ascii\" or \"percent\""),
    ] {
        let found = said(&format!("{ISSUER}{text}\n"));
        let fits = found.len() == 1 && found[0].contains(&format!("issuers[0].{expected}"));
        assert!(fits, "{text}: {found:?}");
    }
}
