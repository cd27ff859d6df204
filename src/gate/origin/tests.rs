//! The rules for requests of other pages: for tokens in cookies, and for browser sessions.

use http::Request;

use super::*;

const OWN: (&str, &str) = ("origin", "https://gate.example");
const LISTED: (&str, &str) = ("origin", "https://app.example");
const FOREIGN: (&str, &str) = ("origin", "https://evil.example");
const NULL: (&str, &str) = ("origin", "null");
const SAME_ORIGIN: (&str, &str) = ("sec-fetch-site", "same-origin");
const SAME_SITE: (&str, &str) = ("sec-fetch-site", "same-site");
const CROSS_SITE: (&str, &str) = ("sec-fetch-site", "cross-site");
const TYPED: (&str, &str) = ("sec-fetch-site", "none");
const NAVIGATION: [(&str, &str); 2] = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
const FETCH: [(&str, &str); 2] = [("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")];
const UPGRADE_TO_WEBSOCKET: (&str, &str) = ("upgrade", "websocket");
const SAFE: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
const UNSAFE: [&str; 8] = ["POST", "PUT", "PATCH", "DELETE", "CONNECT", "TRACE", "PURGE", "get"];

type Pairs<'a> = [(&'a str, &'a str)];

fn parts(method: &str, pairs: &Pairs<'_>) -> Parts {
    let mut request = Request::builder().method(method).uri("/x");
    for (name, value) in pairs {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

fn origins(sessions: SessionRules) -> Origins {
    Origins::new("https://Gate.example:443/", vec!["https://app.example".into()], sessions)
}

fn admitted(method: &str, pairs: &Pairs<'_>) -> bool {
    origins(SessionRules::default()).admit(&parts(method, pairs), &RoutePolicy::default())
}

fn by_session(method: &str, pairs: &Pairs<'_>) -> bool {
    origins(SessionRules::default()).admit_session(&parts(method, pairs), &RoutePolicy::default())
}

fn by_session_and_header(method: &str, pairs: &Pairs<'_>) -> bool {
    let sessions = SessionRules { csrf_header: Some(HeaderName::from_static("x-csrf")), ..SessionRules::default() };
    origins(sessions).admit_session(&parts(method, pairs), &RoutePolicy::default())
}

#[test]
fn t18_what_changes_something_needs_an_origin_of_ours_or_a_listed_one() {
    for method in UNSAFE {
        for good in [
            &[OWN][..],
            &[LISTED],
            &[SAME_ORIGIN],
            &[OWN, SAME_ORIGIN],
            &[LISTED, CROSS_SITE],
            // A form of our own page with `Referrer-Policy: no-referrer`.
            &[NULL, SAME_ORIGIN],
        ] {
            assert!(admitted(method, good), "{method} {good:?}");
        }
        for bad in [
            &[][..],
            &[FOREIGN],
            &[NULL],
            &[NULL, CROSS_SITE],
            &[NULL, SAME_SITE],
            &[NULL, TYPED],
            &[("origin", "")],
            &[("origin", "http://gate.example")],
            &[("origin", "https://gate.example:8443")],
            &[("origin", "https://gate.example.evil")],
            &[("origin", "https://gate.example/")],
            &[("origin", "https://gate.example, https://evil.example")],
            &[OWN, FOREIGN],
            &[NULL, NULL, SAME_ORIGIN],
            &[FOREIGN, SAME_ORIGIN],
            &[SAME_SITE],
            &[CROSS_SITE],
            &[TYPED],
            &[SAME_ORIGIN, CROSS_SITE],
            &[OWN, SAME_ORIGIN, CROSS_SITE],
            &[OWN, ("sec-fetch-site", "same-origin, cross-site")],
            &[("referer", "https://gate.example/")],
        ] {
            assert!(!admitted(method, bad), "{method} {bad:?}");
        }
    }
}

#[test]
fn t18_what_changes_nothing_needs_none() {
    for method in SAFE {
        assert!(admitted(method, &[]), "{method}");
        assert!(admitted(method, &[FOREIGN, CROSS_SITE]));
        assert!(admitted(method, &[NULL, CROSS_SITE]));
        assert!(!admitted(method, &[OWN, FOREIGN]), "no browser states two origins");
        assert!(!admitted(method, &[SAME_ORIGIN, SAME_ORIGIN]));
    }
}

#[test]
fn t9_t18_a_get_that_may_become_something_else_needs_one() {
    assert!(!admitted("GET", &[UPGRADE_TO_WEBSOCKET]));
    assert!(!admitted("GET", &[UPGRADE_TO_WEBSOCKET, FOREIGN]));
    assert!(admitted("GET", &[UPGRADE_TO_WEBSOCKET, LISTED]));
    let keep = RoutePolicy { keep_override_headers: true, ..RoutePolicy::default() };
    let overriding = ("x-http-method-override", "DELETE");
    let by_policy = |pairs: &Pairs<'_>| origins(SessionRules::default()).admit(&parts("GET", pairs), &keep);
    assert!(!by_policy(&[overriding]));
    assert!(by_policy(&[]));
    assert!(admitted("GET", &[overriding]), "it is taken away");
}

#[test]
fn b54_the_refusal_names_a_missing_header_of_scripts_and_not_the_origin() {
    let rules = SessionRules { csrf_header: Some(http::HeaderName::from_static("x-csrf")), ..SessionRules::default() };
    let judged =
        |pairs: &Pairs<'_>| origins(rules.clone()).judge_session(&parts("POST", pairs), &RoutePolicy::default());
    assert_eq!(judged(&[OWN]), Err(Denial::NoCsrfHeader));
    assert_eq!(judged(&[OWN, ("x-csrf", "1")]), Ok(()));
    assert_eq!(judged(&[FOREIGN]), Err(Denial::CrossOrigin), "what a page of another site misses is not said");
    assert_eq!(judged(&[FOREIGN, ("x-csrf", "1")]), Err(Denial::CrossOrigin));
}

#[test]
fn t25_a_login_proves_its_origin_as_a_change_does() {
    let asked = |pairs: &Pairs<'_>| origins(SessionRules::default()).asked(&parts("POST", pairs).headers);
    assert!(asked(&[OWN]) && asked(&[NULL, SAME_ORIGIN]) && asked(&[SAME_ORIGIN]));
    assert!(!asked(&[]) && !asked(&[NULL]) && !asked(&[FOREIGN, SAME_ORIGIN]) && !asked(&[OWN, OWN]));
    // A listed page begins a session only if its requests may have credentials.
    for admits_listed in [true, false] {
        let origins = origins(SessionRules { admits_listed, ..SessionRules::default() });
        let headers = |pairs: &Pairs<'_>| parts("POST", pairs).headers;
        assert_eq!(origins.asked_for_session(&headers(&[LISTED])), admits_listed);
        assert!(origins.asked(&headers(&[LISTED])) && origins.asked_for_session(&headers(&[OWN])));
        assert!(!origins.asked_for_session(&headers(&[FOREIGN])));
    }
}

#[test]
fn b20_rules_6_8_and_9_a_safe_request_of_another_page_is_a_navigation_of_a_whole_tab() {
    for method in SAFE {
        for site in [CROSS_SITE, SAME_SITE, ("sec-fetch-site", "of-the-future"), ("sec-fetch-site", "")] {
            let [mode, dest] = NAVIGATION;
            assert!(by_session(method, &[site, mode, dest]), "8: {method} {site:?}");
            for refused in [
                &[site][..],
                &[site, mode],
                &[site, dest],
                &[site, mode, ("sec-fetch-dest", "iframe")],
                &[site, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")],
                &[site, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")],
                &[site, ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "document")],
                &[site, mode, mode, dest],
                &[site, FOREIGN, FETCH[0], FETCH[1]],
            ] {
                assert!(!by_session(method, refused), "9: {method} {refused:?}");
            }
        }
        for admitted in [&[SAME_ORIGIN][..], &[TYPED], &[SAME_ORIGIN, FETCH[0], FETCH[1]], &[NULL, SAME_ORIGIN]] {
            assert!(by_session(method, admitted), "6: {method} {admitted:?}");
        }
    }
}

#[test]
fn b20_rule_4_a_page_of_our_own_or_of_a_listed_origin_passes_with_every_method() {
    for method in SAFE.iter().chain(&UNSAFE) {
        for site in [SAME_ORIGIN, SAME_SITE, CROSS_SITE] {
            for origin in [OWN, LISTED] {
                assert!(by_session(method, &[origin, site, FETCH[0], FETCH[1]]), "{method} {origin:?} {site:?}");
            }
        }
        assert!(by_session(method, &[OWN]) && by_session(method, &[LISTED]));
    }
    // A listed origin whose pages may not send credentials is a foreign one.
    let without = origins(SessionRules { admits_listed: false, ..SessionRules::default() });
    for method in ["GET", "POST"] {
        let request = parts(method, &[LISTED, SAME_SITE, FETCH[0], FETCH[1]]);
        assert!(!without.admit_session(&request, &RoutePolicy::default()), "{method}");
        assert!(without.admit_session(&parts(method, &[OWN]), &RoutePolicy::default()));
    }
    assert!(!without.admit_session(&parts("GET", &[LISTED]), &RoutePolicy::default()));
}

#[test]
fn b20_b22_rule_5_a_change_or_a_websocket_without_an_origin_needs_same_origin() {
    let upgrade = UPGRADE_TO_WEBSOCKET;
    for (method, more) in UNSAFE.iter().map(|method| (*method, &[][..])).chain([("GET", &[upgrade][..])]) {
        let judged = |pairs: &Pairs<'_>| by_session(method, &[pairs, more].concat());
        assert!(judged(&[SAME_ORIGIN]), "{method}");
        let [mode, dest] = NAVIGATION;
        for refused in [
            &[][..],
            &[CROSS_SITE],
            &[SAME_SITE],
            &[TYPED],
            &[CROSS_SITE, mode, dest],
            &[FOREIGN],
            &[FOREIGN, SAME_ORIGIN],
            &[FOREIGN, SAME_SITE],
            &[FOREIGN, mode, dest],
        ] {
            assert!(!judged(refused), "{method} {refused:?}");
        }
    }
}

#[test]
fn b20_rule_7_an_old_browser_sends_neither_and_passes_with_a_safe_method() {
    for method in SAFE {
        assert!(by_session(method, &[]), "{method}");
        assert!(by_session(method, &[("accept", "text/html"), ("referer", "https://evil.example/")]));
        // Requests that only rule 9 decides.
        for refused in [&[FOREIGN][..], &[("sec-fetch-mode", "cors")], &[("sec-fetch-dest", "image")], &[NULL]] {
            assert!(!by_session(method, refused), "{method} {refused:?}");
        }
    }
}

#[test]
fn b20_b24_rule_3_scripts_send_the_header() {
    let header = ("x-csrf", "1");
    let longest = "x".repeat(64);
    for (method, pairs) in [
        ("GET", &[SAME_ORIGIN, FETCH[0], FETCH[1]][..]),
        ("GET", &[SAME_ORIGIN, ("sec-fetch-mode", "same-origin"), ("sec-fetch-dest", "empty")]),
        ("GET", &[LISTED, CROSS_SITE, FETCH[0], FETCH[1]]),
        ("POST", &[OWN, SAME_ORIGIN, FETCH[0], FETCH[1]]),
        ("DELETE", &[OWN, SAME_ORIGIN, FETCH[0], FETCH[1]]),
        ("POST", &[OWN, ("accept", "text/event-stream"), FETCH[0], FETCH[1]]),
        // An old browser: a form and a fetch look alike.
        ("POST", &[OWN]),
    ] {
        assert!(by_session(method, pairs), "{method} {pairs:?}: not without the key");
        assert!(!by_session_and_header(method, pairs), "{method} {pairs:?}");
        for good in [header, ("x-csrf", &longest)] {
            assert!(by_session_and_header(method, &[pairs, &[good]].concat()), "{method} {pairs:?}");
        }
        let long = "x".repeat(65);
        for bad in [&[("x-csrf", &*long)][..], &[("x-csrf", "")], &[header, header], &[("x-other", "1")]] {
            assert!(!by_session_and_header(method, &[pairs, bad].concat()), "{method} {pairs:?} {bad:?}");
        }
    }
    assert!(!by_session_and_header("POST", &[FOREIGN, FETCH[0], FETCH[1], header]), "it replaces no other rule");
}

#[test]
fn b24_what_no_script_can_give_a_header_needs_none() {
    let [mode, dest] = NAVIGATION;
    for (method, pairs) in [
        ("GET", &[CROSS_SITE, mode, dest][..]),
        ("POST", &[OWN, SAME_ORIGIN, mode, dest]),
        (
            "GET",
            &[OWN, SAME_ORIGIN, UPGRADE_TO_WEBSOCKET, ("sec-fetch-mode", "websocket"), ("sec-fetch-dest", "empty")],
        ),
        ("GET", &[OWN, UPGRADE_TO_WEBSOCKET]),
        ("GET", &[SAME_ORIGIN, FETCH[0], FETCH[1], ("accept", "text/event-stream")]),
        ("GET", &[SAME_ORIGIN, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")]),
        ("GET", &[SAME_ORIGIN, ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "script")]),
        ("GET", &[]),
    ] {
        assert!(by_session_and_header(method, pairs), "{method} {pairs:?}");
    }
}

#[test]
fn b20_rules_1_and_2_null_is_no_origin_and_two_values_are_none() {
    let [mode, dest] = NAVIGATION;
    for method in SAFE.iter().chain(&UNSAFE) {
        assert!(by_session(method, &[NULL, SAME_ORIGIN, mode, dest]), "{method}");
        for refused in [
            &[NULL][..],
            &[NULL, CROSS_SITE],
            &[NULL, CROSS_SITE, mode, dest],
            &[NULL, SAME_SITE],
            &[NULL, TYPED],
            &[OWN, OWN],
            &[OWN, FOREIGN, SAME_ORIGIN],
            &[("origin", "https://gate.example https://evil.example"), SAME_ORIGIN],
            &[OWN, SAME_ORIGIN, SAME_ORIGIN],
            &[SAME_ORIGIN, CROSS_SITE, mode, dest],
            &[OWN, ("sec-fetch-site", "same-origin,cross-site")],
        ] {
            assert!(!by_session(method, refused), "{method} {refused:?}");
        }
    }
}

#[test]
fn b20_a_safe_method_with_an_override_that_the_upstream_obeys_is_a_change() {
    let keep = RoutePolicy { keep_override_headers: true, ..RoutePolicy::default() };
    let [mode, dest] = NAVIGATION;
    let judged = |pairs: &Pairs<'_>| origins(SessionRules::default()).admit_session(&parts("GET", pairs), &keep);
    let overriding = ("x-http-method-override", "DELETE");
    assert!(judged(&[CROSS_SITE, mode, dest]));
    assert!(!judged(&[CROSS_SITE, mode, dest, overriding]));
    assert!(judged(&[SAME_ORIGIN, mode, dest, overriding]));
}

#[test]
fn our_origin_is_written_as_a_browser_writes_it() {
    assert_eq!(origin_of("HTTP://A.example:80/").as_deref(), Some("http://a.example"));
    assert_eq!(origin_of("http://127.0.0.1:8080").as_deref(), Some("http://127.0.0.1:8080"));
    assert_eq!(origin_of("https://[::1]:443/x").as_deref(), Some("https://[::1]"));
    assert_eq!(origin_of("gate"), None);
}

#[test]
fn m13_a_page_of_our_own_or_of_a_listed_origin_calls_a_resource() {
    let origins = origins(SessionRules { admits_listed: false, ..SessionRules::default() });
    let admitted = |pairs: &Pairs<'_>, further: &[Box<str>]| origins.admit_page(&parts("POST", pairs).headers, further);
    // The origins of [cors] call every resource; `mcp.origins` are for one.
    for pairs in [&[][..], &[OWN], &[LISTED]] {
        assert!(admitted(pairs, &[]), "{pairs:?}");
    }
    for pairs in [&[FOREIGN][..], &[NULL], &[LISTED, FOREIGN], &[OWN, OWN]] {
        assert!(!admitted(pairs, &[]), "{pairs:?}");
    }
    assert!(admitted(&[FOREIGN], &["https://evil.example".into()]));
}
