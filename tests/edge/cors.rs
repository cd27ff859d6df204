//! T19: CORS.

use support::stub::{Edge, HEAD, ROUTES};
use support::wire::Reply;

const GOOD: &str = "Origin: https://app.test";
const METHOD: &str = "Access-Control-Request-Method: PUT";

fn cors(more: &str) -> Edge {
    let routes = r#"
[[routes]]
path = "/own/{*rest}"
preflight = "upstream"
upstream = "app"
[[routes]]
path = "/readable"
methods = ["GET"]
preflight = "upstream"
upstream = "app"
"#;
    let config = format!(
        "{HEAD}{routes}{ROUTES}\n[cors]\norigins = [\"https://app.test\", \"http://localhost:5173\"]\nfor_tests = {{ max_age = \"5m\" }}\n{more}"
    );
    Edge::with(&config, |_| {}, |_| {})
}

fn varies_by_origin(reply: &Reply) -> bool {
    reply.all("vary").iter().flat_map(|line| line.split(',')).any(|name| name.trim().eq_ignore_ascii_case("origin"))
}

#[test]
fn t19_a_preflight_is_answered_here_before_anybody_asks_for_a_token() {
    let edge = cors("");
    for path in ["/private", "/public/x", "/connect/token", "/connect/token/", "/.well-known/jwks.json"] {
        for origin in ["https://app.test", "http://localhost:5173"] {
            let own = format!("Origin: {origin}");
            let reply =
                edge.ask(&format!("OPTIONS {path}"), &[&own, METHOD, "Access-Control-Request-Headers: authorization"]);
            assert_eq!(reply.status, 200, "{path}");
            assert_eq!(reply.header("access-control-allow-origin"), origin);
            assert_eq!(reply.header("access-control-allow-methods"), "PUT");
            assert_eq!(reply.header("access-control-allow-headers"), "authorization");
            assert_eq!(reply.header("access-control-max-age"), "300");
            assert_eq!(reply.all("access-control-allow-credentials"), Vec::<&str>::new());
            assert!(varies_by_origin(&reply), "{reply:?}");
        }
    }
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t19_an_origin_that_is_not_listed_is_allowed_nothing() {
    let edge = cors("allow_credentials = true");
    let token = edge.login().access;
    for origin in [
        "https://evil.test",
        "https://app.test.evil.test",
        "https://xapp.test",
        "http://app.test",
        "https://app.test:8443",
        "https://app.test/",
        "https://APP.test",
        "https://app.test, https://evil.test",
        "null",
        "*",
        "",
    ] {
        let origin = format!("Origin: {origin}");
        let preflight = edge.ask("OPTIONS /private", &[&origin, METHOD]);
        assert_eq!(preflight.all("access-control-allow-origin"), Vec::<&str>::new(), "{origin}");
        assert!(varies_by_origin(&preflight), "{origin}");
        for reply in [edge.ask("GET /private", &[&origin]), edge.ask_as(&token, "GET /private", &[&origin])] {
            assert_eq!(reply.all("access-control-allow-origin"), Vec::<&str>::new(), "{origin}");
            assert!(varies_by_origin(&reply), "{origin}");
        }
        assert_eq!(edge.stub.one().method, "GET");
    }
    // A listed origin may read answers and refusals, with credentials. No answer allows every origin.
    for reply in [
        edge.ask_as(&token, "GET /public/store", &[GOOD]),
        edge.ask("GET /private", &[GOOD]),
        edge.try_login(&[GOOD], "demo", "wrong"),
        edge.ask("OPTIONS /private", &[GOOD, METHOD]),
    ] {
        assert_eq!(reply.header("access-control-allow-origin"), "https://app.test", "{reply:?}");
        assert_eq!(reply.header("access-control-allow-credentials"), "true");
        assert!(varies_by_origin(&reply), "{reply:?}");
    }
    // The upstream's `Vary` stays.
    let reply = edge.ask("GET /public/store", &[GOOD]);
    assert!(reply.all("vary").iter().any(|line| line.eq_ignore_ascii_case("accept")), "{reply:?}");
}

#[test]
fn t19_a_preflight_reaches_the_upstream_only_where_the_route_says_so() {
    let edge = cors("");
    let forged = "X-Auth-Subject: forged";
    let reply = edge.ask("OPTIONS /own/x", &["Origin: https://other.test", METHOD, forged]);
    assert_eq!(reply.status, 200);
    let received = edge.stub.one();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("OPTIONS", "/own/x"));
    assert_eq!(received.all("origin"), ["https://other.test"]);
    assert_eq!(received.confusable("x-auth-subject"), Vec::<&str>::new());
    // The requested method decides the route, not `OPTIONS`.
    assert_eq!(edge.ask("OPTIONS /readable", &[GOOD, "Access-Control-Request-Method: GET"]).status, 200);
    assert_eq!(edge.stub.one().target, "/readable");
    edge.ask("OPTIONS /readable", &[GOOD, METHOD]);
    // A plain `OPTIONS`, and a request that only resembles a preflight, are ordinary requests.
    assert_eq!(edge.ask("OPTIONS /own/x", &[]).status, 401);
    assert_eq!(edge.ask("OPTIONS /own/x", &[GOOD]).status, 401);
    assert_eq!(edge.ask("OPTIONS /own/x", &[METHOD]).status, 401);
    assert_eq!(edge.ask("GET /own/x", &[GOOD, METHOD]).status, 401);
    assert_eq!(edge.ask("OPTIONS /own/..%2fx", &[GOOD, METHOD]).all("access-control-allow-origin").len(), 1);
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t19_without_a_list_no_origin_is_allowed() {
    let edge = Edge::new(ROUTES);
    let reply = edge.ask("OPTIONS /private", &[GOOD, METHOD]);
    assert_eq!(reply.all("access-control-allow-origin"), Vec::<&str>::new());
    assert_eq!(edge.ask("GET /public/x", &[GOOD]).all("access-control-allow-origin"), Vec::<&str>::new());
    assert_eq!(edge.stub.one().target, "/public/x");
}

#[test]
fn t29_a_page_of_a_listed_origin_may_read_the_headers_that_are_exposed() {
    let edge = cors("expose = [\"x-request-id\", \"etag\"]");
    let reply = edge.ask("GET /public/x", &[GOOD]);
    let exposed = reply.header("access-control-expose-headers").to_ascii_lowercase();
    let mut names: Vec<&str> = exposed.split(',').map(str::trim).collect();
    names.sort_unstable();
    assert_eq!(names, ["etag", "x-request-id"]);
    // The answer to a preflight exposes nothing (Fetch §3.3.3), and by default no answer does.
    let preflight = edge.ask("OPTIONS /public/x", &[GOOD, METHOD]);
    assert_eq!(preflight.all("access-control-expose-headers"), Vec::<&str>::new());
    // A page that calls MCP reads the challenge, and the id of its session.
    let mcp = cors("\n[[resources]]\npath = \"/public/x\"\nauthorization_servers = [\"https://id.test\"]\nmcp = {}");
    let reply = mcp.ask("GET /public/x", &[GOOD]);
    assert_eq!(reply.header("access-control-expose-headers"), "www-authenticate,mcp-session-id");
    let reply = cors("").ask("GET /public/x", &[GOOD]);
    assert_eq!(reply.header("access-control-allow-origin"), "https://app.test");
    assert_eq!(reply.all("access-control-expose-headers"), Vec::<&str>::new());
}
