//! `when` and `when_any` of routes.

use super::*;
use rotogate_core::claim::condition::{ClaimValue, Comparison, Condition, Conditions};

/// A route with parameters beside the one of the smallest configuration.
fn route(more: &str) -> String {
    let upstream = "[[upstreams]]\nname = \"app\"\nurls = [\"echo:\"]\n";
    format!("{MINIMAL}{upstream}[[routes]]\npath = \"/orgs/{{org}}/{{*rest}}\"\nupstream = \"app\"\n{more}")
}

fn conditions(more: &str) -> Conditions {
    let read = read(&route(more)).unwrap().routes.pop().unwrap();
    (*read.policy.conditions.unwrap()).clone()
}

fn one(claim: &str, comparison: Comparison) -> Condition {
    Condition::new(claim, comparison).unwrap()
}

const ALL: &str = r#"
when = { org_id = { param = "org" }, plan = { not = "free" }, amr = { has = "mfa" }, verified = true, "a.b" = { starts = "x", ends = "y" } }
when_any = [ { dept = ["eng", "ops"] }, { level = { min = 3, max = 9 }, seat = 7 }, { '"https://x.test/id"' = { exists = true } } ]
"#;

#[test]
fn k25_the_tables_of_a_route_are_the_conditions_of_the_library() {
    let text = |text: &str| ClaimValue::Text(text.into());
    // A table has its own order.
    let when = vec![
        one("a.b", Comparison::Ends("y".into())),
        one("a.b", Comparison::Starts("x".into())),
        one("amr", Comparison::Has(text("mfa"))),
        one("org_id", Comparison::Param("org".into())),
        one("plan", Comparison::Not(vec![text("free")])),
        one("verified", Comparison::Equals(ClaimValue::Boolean(true))),
    ];
    let any = vec![
        vec![one("dept", Comparison::OneOf(vec![text("eng"), text("ops")]))],
        vec![
            one("level", Comparison::Max(9)),
            one("level", Comparison::Min(3)),
            one("seat", Comparison::Equals(ClaimValue::Integer(7))),
        ],
        vec![one("\"https://x.test/id\"", Comparison::Exists)],
    ];
    let expected = Conditions::new(when, any).unwrap();
    assert_eq!(conditions(ALL), expected);
    let printed = read(&route(ALL)).unwrap().to_toml();
    let again = read(&printed).unwrap().routes.pop().unwrap().policy.conditions.unwrap();
    assert_eq!(*again, expected, "{printed}");
}

#[test]
fn k23_a_condition_that_cannot_be_meant_is_refused_with_its_key() {
    let many = (0..17).map(|n| format!("c{n} = 1")).collect::<Vec<_>>().join(", ");
    let long = "x".repeat(257);
    for (text, expected) in [
        ("when = {}", "when: there is no comparison"),
        ("when_any = []", "when_any: there is no comparison"),
        ("when_any = [{}]", "when_any: there is no comparison"),
        ("when = 7", "when: expected a table"),
        ("when_any = { a = 1 }", "when_any: expected [[routes[0].when_any]]"),
        ("when = { plan = { nto = \"free\" } }", "when.plan: unknown operator nto; did you mean not?"),
        ("when = { plan = {} }", "when.plan: does not contain an operator; expected one or more of has"),
        ("when = { realm.roles = { has = \"a\" } }", "when.realm: unknown operator roles; expected one of has"),
        ("when = { plan = { exists = false } }", "when.plan: exists: expected true, because no condition accepts"),
        ("when = { plan = { min = \"3\" } }", "when.plan: min: expected a whole number, found \"3\""),
        ("when = { plan = { min = 1.5 } }", "when.plan: min: expected a whole number, found 1.5"),
        ("when = { plan = { starts = 3 } }", "when.plan: starts: expected a string"),
        ("when = { plan = { ends = \"\" } }", "when.plan: ends: the string is empty"),
        ("when = { plan = 1.5 }", "when.plan: expected a string, a whole number, true or false, found 1.5"),
        ("when = { plan = [] }", "when.plan: one of: the list is empty"),
        ("when = { plan = { not = [1, \"a\"] } }", "when.plan: not: the values have several types"),
        ("when = { \"a[0]\" = 1 }", "when.a[0]: the claim path"),
        ("when = { \"a{}\" = 1 }", "when.a{}: equals: a claim that ends with {} means the names"),
        ("when_any = [{ a = 1 }, { b = { foo = 1 } }]", "when_any[1].b: unknown operator foo"),
        ("when = { org_id = { param = \"id\" } }", "when: \"id\" is not a parameter of the route's path"),
        ("auth = \"none\"\nwhen = { a = 1 }", "when: has no effect, because `auth"),
        (&format!("when = {{ {many} }}"), "when: there are 17 comparisons"),
        (&format!("when = {{ a = \"{long}\" }}"), "when.a: equals: a string is longer than 256 bytes"),
    ] {
        let found: Vec<_> =
            read(&route(text)).unwrap_err().iter().map(|error| format!("{}: {}", error.key, error.message)).collect();
        let fits = found.len() == 1 && found[0].starts_with("routes[") && found[0].contains(&format!("].{expected}"));
        assert!(fits, "{text}: {found:?}");
    }
    let call = "[[routes]]\nkuzzle = [\"a:b\"]\nwhen = { a = { param = \"org\" } }\n";
    let found = read(&format!("{MINIMAL}{call}")).unwrap_err().to_string();
    assert!(found.contains("A rule for calls has no parameters"), "{found}");
}

#[test]
fn k6_k23_a_route_that_takes_keys_demands_nothing_that_no_key_can_satisfy() {
    for (more, what) in [
        ("dpop = \"required\"", "dpop = \"required\""),
        ("certificate_bound = \"required\"", "certificate_bound = \"required\""),
        ("step_up = { acr = \"gold\" }", "step_up"),
    ] {
        let keys = "[api_keys]\nprefix = \"acme\"\n";
        let text = format!("{}{keys}", route(&format!("credentials = [\"token\", \"key\"]\n{more}\n")));
        let found = read(&text).unwrap_err().to_string();
        let expected =
            format!("credentials: accepts API keys, but an API key cannot satisfy `{what}`; remove one of the two");
        assert!(found.contains(&expected), "{more}: {found}");
        let found = read(&text.replace(", \"key\"", "")).err().map(|errors| errors.to_string()).unwrap_or_default();
        assert!(!found.contains("accepts API keys"), "{more}: {found}");
    }
}

#[test]
fn k23_a_claim_that_users_write_is_warned_of_by_the_preset_of_their_issuer() {
    let warned = |preset: &str, when: &str| {
        let issuer = format!(
            "[[issuers]]\nname = \"idp\"\nurl = \"https://idp.test/\"\naudience = \"x\"\njwks_file = \"idp.json\"\n\
             preset = \"{preset}\"\n"
        );
        let config = read(&route(&format!("issuers = [\"idp\"]\nwhen = {when}\n{issuer}"))).unwrap();
        config.warnings.iter().any(|warning| warning.message.contains("can set the claim"))
    };
    assert!(warned("supabase", "{ \"user_metadata.role\" = \"admin\" }"));
    assert!(warned("entra-v2", "{ upn = { ends = \"@acme.test\" } }"));
    assert!(warned("keycloak", "{ preferred_username = \"ada\" }"));
    assert!(!warned("supabase", "{ \"app_metadata.role\" = \"admin\" }"));
    assert!(!warned("kubernetes", "{ name = \"x\" }"));
}
