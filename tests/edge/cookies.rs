//! T18: a token in a cookie, which a browser sends along with whatever any site asks of it.

use support::stub::Edge;

const ROUTES: &str = r#"
[cors]
origins = ["https://app.example"]
[[routes]]
path = "/open/{*rest}"
auth = "lenient"
cookie = "token"
upstream = "app"
[[routes]]
path = "/strict/{*rest}"
auth = "optional"
cookie = "token"
upstream = "app"
[[routes]]
path = "/plain/{*rest}"
upstream = "app"
[[routes]]
path = "/{*rest}"
cookie = "token"
upstream = "app"
"#;

#[test]
fn t18_a_token_in_the_routes_cookie_counts_and_stays_here() {
    let edge = Edge::new(ROUTES);
    let token = edge.login().access;
    let cookie = format!("Cookie: theme=dark; token={token}; lang=en");
    assert_eq!(edge.ask("GET /x", &[&cookie]).status, 200);
    let seen = edge.stub.one();
    assert_eq!(seen.all("x-auth-client"), ["web"]);
    assert_eq!(seen.all("cookie"), ["theme=dark; lang=en"]);
    assert!(seen.all("authorization").is_empty());
    // On a route without a cookie setting the cookie is not a credential.
    assert_eq!(edge.ask("GET /plain/x", &[&cookie]).status, 401);
    for bad in ["Cookie: token=x", "Cookie: Token=x", "Cookie: theme=dark", "Cookie: token="] {
        assert_eq!(edge.ask("GET /x", &[bad]).status, 401, "{bad}");
    }
    assert!(edge.stub.take().is_empty());
    assert_eq!(edge.ask("GET /strict/x", &["Cookie: token=x"]).status, 401);
    assert_eq!(edge.ask("GET /open/x", &["Cookie: token=x; a=b"]).status, 200);
    let seen = edge.stub.one();
    assert_eq!((seen.all("cookie"), seen.all("x-auth-subject").len()), (vec!["a=b"], 0));
}

#[test]
fn t1_t18_a_cookie_beside_a_bearer_token_is_400_and_so_are_two_cookies() {
    let edge = Edge::new(ROUTES);
    let token = edge.login().access;
    let cookie = format!("Cookie: token={token}");
    let twice = format!("Cookie: token={token}; token={token}");
    for path in ["/x", "/open/x", "/strict/x"] {
        let line = format!("GET {path}");
        assert_eq!(edge.ask_as(&token, &line, &[&cookie]).status, 400, "{path}");
        assert_eq!(edge.ask(&line, &[&twice]).status, 400, "{path}");
        assert_eq!(edge.ask(&line, &[&cookie, &cookie]).status, 400, "{path}");
    }
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t18_a_change_by_cookie_must_come_from_us_or_from_a_listed_origin() {
    let edge = Edge::new(ROUTES);
    let token = edge.login().access;
    let cookie = format!("Cookie: token={token}");
    let post = |path: &str, more: &[&str]| {
        edge.ask(&format!("POST {path}"), &[&["Content-Length: 0", cookie.as_str()], more].concat()).status
    };
    let good: [&[&str]; 4] = [
        &["Origin: http://gate.test"],
        &["Origin: https://app.example"],
        &["Sec-Fetch-Site: same-origin"],
        // A form of a page of this gate with `Referrer-Policy: no-referrer`.
        &["Origin: null", "Sec-Fetch-Site: same-origin"],
    ];
    for more in good {
        assert_eq!(post("/x", more), 200, "{more:?}");
        assert_eq!(edge.stub.one().all("x-auth-client"), ["web"], "{more:?}");
    }
    let twice = ["Origin: http://gate.test", "Origin: https://evil.example"];
    assert_eq!(edge.ask("GET /x", &[&[cookie.as_str()][..], &twice].concat()).status, 403);
    let bad: [&[&str]; 9] = [
        &[],
        &["Origin: https://evil.example"],
        &["Origin: null"],
        &["Origin: null", "Sec-Fetch-Site: cross-site"],
        &["Origin: http://gate.test", "Sec-Fetch-Site: same-origin, cross-site"],
        &twice,
        &["Sec-Fetch-Site: cross-site"],
        &["Sec-Fetch-Site: same-site"],
        &["Origin: https://evil.example", "Sec-Fetch-Site: same-origin"],
    ];
    for more in bad {
        for path in ["/x", "/strict/x"] {
            assert_eq!(post(path, more), 403, "{path} {more:?}");
        }
        assert!(edge.stub.take().is_empty());
        // A route that treats a bad credential as a missing one forwards the request without a caller.
        assert_eq!(post("/open/x", more), 200);
        assert!(edge.stub.one().all("x-auth-subject").is_empty(), "{more:?}");
    }
    // A bearer token is put there on purpose.
    assert_eq!(edge.ask_as(&token, "POST /x", &["Content-Length: 0", "Origin: https://evil.example"]).status, 200);
}
