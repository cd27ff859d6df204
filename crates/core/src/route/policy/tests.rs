use super::*;

#[test]
fn t12_an_escaped_slash_passes_only_where_the_route_keeps_it() {
    let path = CanonicalPath::parse("/a%2fb").unwrap();
    let strict = RoutePolicy::default();
    assert_eq!(admits_path(&strict, &path), Err(Denial::BadPath(PathError::EncodedSlash)));
    assert_eq!(admits_path(&strict, &CanonicalPath::parse("/a/b").unwrap()), Ok(()));
    let lax = RoutePolicy { keeps_encoded_slash: true, ..RoutePolicy::default() };
    assert_eq!(admits_path(&lax, &path), Ok(()));
}

#[test]
fn scopes_of_several_calls_add_up_and_a_malformed_one_is_an_error() {
    let policy = RoutePolicy::default().scope("read write").and_then(|policy| policy.scope("admin write")).unwrap();
    assert_eq!(policy.scopes, Scope::parse("read write admin").unwrap());
    assert!(policy.scope("a\"b").is_err());
}

#[test]
fn t20_a_policy_is_stricter_in_any_respect_or_in_none() {
    let asks = |scopes: &str| RoutePolicy::default().scope(scopes).unwrap();
    let any = |of: &[&str]| RoutePolicy { any_scope: Scope::parse(&of.join(" ")).unwrap(), ..RoutePolicy::default() };
    let roles = |of: &[&str]| RoutePolicy {
        roles: of.iter().map(|role| Role::parse(role, |issuer| issuer == "kc")).collect(),
        ..RoutePolicy::default()
    };
    let audiences = |of: &[&str]| RoutePolicy {
        audiences: of.iter().map(|one| (*one).to_owned()).collect(),
        ..RoutePolicy::default()
    };
    let lax = RoutePolicy { ignores_bad_credential: true, ..RoutePolicy::optional() };
    let upgrade = RoutePolicy { upgrade: true, ..RoutePolicy::default() };
    let all_of_kc = RoutePolicy { all_roles: roles(&["kc:a"]).roles, ..RoutePolicy::default() };
    // Whether each policy is stricter than the other.
    let table = [
        (RoutePolicy::default(), RoutePolicy::default(), false, false),
        (RoutePolicy::default(), RoutePolicy::optional(), true, false),
        (RoutePolicy::optional(), lax.clone(), true, false),
        (lax, RoutePolicy::public(), true, false),
        (asks("admin"), RoutePolicy::default(), true, false),
        (asks("a b"), asks("a"), true, false),
        (asks("a"), asks("b"), true, true),
        (asks("a"), RoutePolicy::public(), true, false),
        (any(&["a", "b"]), RoutePolicy::default(), true, false),
        (any(&["a", "b"]), any(&["a"]), false, true),
        (any(&["a", "b"]), asks("a"), false, true),
        (any(&["a"]), any(&["b"]), true, true),
        (any(&["a"]), RoutePolicy::public(), true, false),
        (roles(&["a", "kc:b"]), RoutePolicy::default(), true, false),
        (roles(&["a", "kc:b"]), roles(&["a"]), false, true),
        (roles(&["kc:a"]), roles(&["a"]), true, true),
        (roles(&["a"]), RoutePolicy::public(), true, false),
        (RoutePolicy::default().all_roles(["a", "b"]), RoutePolicy::default(), true, false),
        (RoutePolicy::default().all_roles(["a", "b"]), RoutePolicy::default().all_roles(["a"]), true, false),
        (RoutePolicy::default().all_roles(["a", "b"]), roles(&["a", "b"]), true, false),
        (RoutePolicy::default().all_roles(["a"]), roles(&["a"]), false, false),
        (RoutePolicy::default().all_roles(["a"]), all_of_kc, true, true),
        (roles(&["a", "c"]).all_roles(["b"]), roles(&["a", "c"]), true, false),
        (RoutePolicy::default().all_roles(["a"]), RoutePolicy::public(), true, false),
        (audiences(&["x"]), RoutePolicy::default(), true, true),
        (audiences(&["x"]), audiences(&["x", "y"]), true, false),
        (audiences(&["x"]), RoutePolicy::public(), true, false),
        (RoutePolicy::default(), RoutePolicy::default().session(), true, false),
        (RoutePolicy::default().session(), RoutePolicy::public(), true, false),
        (RoutePolicy::default(), RoutePolicy::default().api_key(), true, false),
        (RoutePolicy::default(), upgrade.clone(), true, false),
        (RoutePolicy::public(), upgrade, true, true),
    ];
    for (one, other, more, less) in table {
        assert_eq!(one.is_stricter_than(&other), more, "{one:?} {other:?}");
        assert_eq!(other.is_stricter_than(&one), less, "{other:?} {one:?}");
    }
    // A requirement of a public route makes no policy stricter.
    let unasked = RoutePolicy { scopes: Scope::parse("admin").unwrap(), ..RoutePolicy::public() };
    assert!(!unasked.is_stricter_than(&RoutePolicy::public()));
}

#[test]
fn the_default_policy_is_the_strictest() {
    let policy = RoutePolicy::default();
    assert_eq!(policy.auth, Auth::Required);
    assert!(!policy.ignores_bad_credential);
    assert!(!policy.forward_token && !policy.keep_override_headers && !policy.keep_underscore_headers);
}

#[test]
fn i17_a_role_has_an_issuer_if_the_text_before_its_colon_is_the_name_of_one() {
    let parse = |text: &str| Role::parse(text, |issuer| ["self", "kc"].contains(&issuer));
    assert_eq!(parse("kc:admin"), Role { issuer: Some("kc".into()), name: "admin".into() });
    assert_eq!(parse("kc:a:b"), Role { issuer: Some("kc".into()), name: "a:b".into() });
    assert_eq!(parse("urn:admin"), Role { issuer: None, name: "urn:admin".into() });
    let problem = |text: &str, issuers: &[&str]| role_problem(&parse(text), issuers).is_some();
    assert!(!problem("admin", &["kc"]) && !problem("kc:admin", &["self", "kc"]) && !problem("kc:admin", &["kc"]));
    assert!(problem("admin", &["self", "kc"]) && problem("kc:admin", &["self"]));
    for text in ["kc:admin", "admin", "urn:x"] {
        assert_eq!(parse(text).to_string(), text);
    }
}
