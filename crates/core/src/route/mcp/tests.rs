use std::sync::Arc;

use super::*;
use crate::mcp::Call;
use crate::route::{Route, RoutePolicy};
use crate::session::Scope;

fn rules(patterns: &[&str]) -> Result<CallRules, String> {
    let route =
        |text: &&str| Route { calls: vec![McpCalls::parse(text).unwrap()], ..Route::new("", RoutePolicy::default()) };
    CallRules::new(patterns.iter().map(route).collect::<Vec<_>>().iter())
}

fn governing(rules: &CallRules, method: &'static str, name: Option<&'static str>) -> Vec<String> {
    let call = Call { method: Some(method.into()), name: name.map(Into::into) };
    rules.of_call(&call).map(|rule| rule.calls.to_string()).collect()
}

#[test]
fn m8_the_most_specific_rule_governs_a_call() {
    let all =
        rules(&["*", "tools/call", "tools/call:delete_*", "tools/call:delete_all*", "tools/call:delete_all"]).unwrap();
    let of = |method, name| governing(&all, method, name);
    assert_eq!(of("tools/call", Some("delete_all")), ["tools/call:delete_all"]);
    assert_eq!(of("tools/call", Some("delete_all_now")), ["tools/call:delete_all*"]);
    assert_eq!(of("tools/call", Some("delete_one")), ["tools/call:delete_*"]);
    assert_eq!(of("tools/call", Some("Delete_one")), ["tools/call"], "case counts");
    assert_eq!(of("prompts/get", Some("delete_all")), ["*"]);
    assert_eq!(of("tools/list", None), ["*"]);
    let answer = Call { method: None, name: None };
    assert_eq!(all.of_call(&answer).count(), 1, "an answer of a client is governed, too");
    assert!(rules(&["tools/call"]).unwrap_err().contains("calls = [\"*\"]"));
    assert!(rules(&["*", "a:b", "a:b"]).unwrap_err().contains("a:b"));
    assert!(rules(&[]).is_ok());
    for bad in ["", ":", ":a", "a:", "a:*b", "a:**", "*:a", "a b:c", "a:b\n"] {
        assert!(McpCalls::parse(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn m8_a_uri_that_can_be_read_in_another_way_is_governed_by_each_prefix() {
    let all = rules(&["*", "resources/read:file:///etc/*", "resources/read:file:///docs/*"]).unwrap();
    let of = |uri| governing(&all, "resources/read", Some(uri));
    assert_eq!(of("file:///docs/a..b/c"), ["resources/read:file:///docs/*"]);
    let others =
        ["file:///other/x", "file:///x%20y/%C3%A9~A.b/", "https://docs.test/x?a=1&b", "note://1", "db://a_b/?c"];
    for uri in others {
        assert_eq!(of(uri), ["*"], "{uri}");
    }
    for uri in [
        "file:///docs/../etc/passwd",
        "file:///docs/%2e%2E/etc/passwd",
        "file:///docs%2F..",
        "file:///docs\\..\\etc",
        "FILE:///etc/passwd",
        "file://HOST/etc/passwd",
        "file:///docs//etc",
        "file:///x/./y",
        "file:///%65tc/passwd",
        "file:///%2565tc/passwd",
        "file:///x%3a",
        "file:///x%3A",
        "file:///x%c3%a9",
        "file:///x%",
        "file:///etc%00/x",
        "file:///..;/etc/passwd",
        "file:///..%20/etc/passwd",
        "file:///etc/passwd?x",
        "file:///etc/passwd#x",
        "file:/etc/passwd",
        "file:etc/passwd",
        "/etc/passwd",
        "file://localhost/etc/passwd",
        "file://",
        "://etc",
        " file:///etc/passwd",
        "file:///e\ttc/passwd",
        "file:///étc/passwd",
        "https://docs.test:443/x",
        "https://a@docs.test/x",
        "https://docs.test./x",
        "https://docs.test",
        "https:///docs.test/x",
        "memo:x",
    ] {
        let governing = of(uri);
        assert!(governing.contains(&"resources/read:file:///etc/*".to_owned()), "{uri}: {governing:?}");
        assert!(governing.contains(&"resources/read:file:///docs/*".to_owned()), "{uri}: {governing:?}");
    }
}

#[test]
fn m8_other_spellings_of_a_named_resource_are_governed_by_its_rule_too() {
    let named = ["resources/read:file:///etc/passwd", "resources/read:memo:a", "*"];
    let all = rules(&named).unwrap();
    let of = |uri| governing(&all, "resources/read", Some(uri));
    for own in &named[..2] {
        assert_eq!(of(own.strip_prefix("resources/read:").unwrap()), [*own], "its own name is never another resource");
    }
    assert_eq!(of("file:///etc/%70asswd"), named);
    for bad in ["file:///my docs/*", "file:///%65tc/*", "file:///é", "file:///x%c3%a9", "a#b"] {
        assert!(McpCalls::parse(&format!("resources/read:{bad}")).unwrap_err().contains("URI"), "{bad}");
    }
    assert!(McpCalls::parse("tools/call:my tool").is_ok(), "no URI");
}

#[test]
fn m10_a_wide_scope_has_the_narrow_ones_and_a_circle_is_an_error() {
    let scope = |text: &str| Scope::parse(text).unwrap();
    let given = |pairs: &[(&str, &str)]| {
        Implied::new(pairs.iter().map(|(wide, narrow)| ((*wide).to_owned(), scope(narrow))).collect::<Vec<_>>())
    };
    let implied = given(&[("admin", "files.write"), ("files.write", "files.read files.list")]).unwrap();
    let policy = |scopes, any_scope| RoutePolicy {
        scopes: scope(scopes),
        any_scope: scope(any_scope),
        implied: Some(Arc::new(implied.clone())),
        ..RoutePolicy::default()
    };
    assert!(policy("files.read files.list", "").grants(&scope("admin")), "by way of files.write");
    assert!(policy("", "files.read x").grants(&scope("files.write")));
    assert!(!policy("files.read x", "").grants(&scope("admin")));
    assert!(!policy("files.write", "").grants(&scope("files.read")));
    for circle in [vec![("a", "a")], vec![("a", "b"), ("b", "a")], vec![("a", "b"), ("b", "c"), ("c", "b x")]] {
        assert!(given(&circle).is_err(), "{circle:?}");
    }
}

#[test]
fn m6_headers_alone_name_calls_only_where_servers_compare_them() {
    let of = |versions: &[&str]| versions.iter().map(|version| (*version).to_owned()).collect::<Vec<_>>();
    let headers = Mcp { headers_alone: true, ..Mcp::default() };
    assert_eq!(headers.problem(), None);
    assert!(Mcp { versions: of(&["2026-07-28", "2025-11-25"]), ..headers }.problem().is_some());
    assert_eq!(Mcp { versions: of(&["2025-11-25"]), ..Mcp::default() }.problem(), None);
    for bad in [&[][..], &["2024-11-05"], &["draft"]] {
        assert!(Mcp { versions: of(bad), ..Mcp::default() }.problem().is_some(), "{bad:?}");
    }
}

#[test]
fn m21_a_list_of_versions_has_each_that_a_client_and_a_server_may_choose() {
    let with =
        |versions: &[&str]| Mcp { versions: versions.iter().map(|it| (*it).to_owned()).collect(), ..Mcp::default() };
    for good in [
        &["2026-07-28"][..],
        &["2026-07-28", "2025-11-25"],
        &["2025-11-25"],
        &["2025-11-25", "2025-06-18"],
        &["2025-06-18", "2026-07-28", "2025-11-25"],
    ] {
        assert_eq!(with(good).problem(), None, "{good:?}");
    }
    for lacking in [&["2025-06-18"][..], &["2026-07-28", "2025-06-18"]] {
        let problem = with(lacking).problem().unwrap();
        assert!(problem.starts_with("\"2025-11-25\" is missing"), "{problem}");
    }
}
