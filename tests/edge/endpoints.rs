//! R7, R12, A2: our own endpoints, near misses of their paths, and the information in their answers.

use support::stub::{Edge, HEAD, tokens};
use support::wire::Reply;

/// The widest public route: all requests pass, except for our endpoints and near misses.
const WIDE: &str = r#"
[[routes]]
path = "/{*rest}"
auth = "none"
upstream = "app"
"#;

#[test]
fn r12_near_misses_of_an_endpoint_are_404_and_never_forwarded() {
    let edge = Edge::new(WIDE);
    let near = [
        "/connect/token/",
        "/connect/token//",
        "/Connect/Token",
        "/CONNECT/TOKEN",
        "/connect/tokeN",
        "//connect/token",
        "/connect//token",
        "/connect/token;x",
        "/connect/token;jsessionid=1",
        "/connect;x/token",
        "/connect/%74oken",
        "/connect/toke%6E",
        "/%63onnect/token",
        "/connect/token%3bx",
        "/connect/token%2f",
        "/connect%2ftoken",
        "/connect/token%20",
        "/connect/token.",
        "/connect/%54oken",
        "/acme/connect/token/",
        "/acme/Connect/token",
        "/acme//connect/token",
        "/acme/connect/token;a",
        "/acme/connect%2Ftoken",
        "/%2fconnect/token",
        "/connect/Revocation",
        "/connect/revocation/",
        "/connect/revocation;x",
        "/CONNECT/introspect",
        "/acme/connect/introspect/",
        "/.well-known/jwks.json/",
        "/.well-known/JWKS.json",
        "//.well-known/jwks.json",
        "/.well-known/jwks%2ejson",
        "/.well-known;x/jwks.json",
        "/.Well-Known/jwks.json",
    ];
    for path in near {
        for method in ["POST", "GET", "PUT"] {
            let reply = edge.ask(&format!("{method} {path}"), &["Content-Length: 0"]);
            assert_eq!(reply.status, 404, "{method} {path}");
        }
        assert_eq!(edge.ask(&format!("POST {path}?x=1"), &["Content-Length: 0"]).status, 404, "{path}");
    }
    for path in
        ["/connect/../connect/token", "/connect/%2e/token", "/connect/token%00", "/connect\\token", "/connect/token%0a"]
    {
        assert_eq!(edge.ask(&format!("POST {path}"), &["Content-Length: 0"]).status, 400, "{path}");
    }
    assert!(edge.stub.take().is_empty());
    // A wide route serves all other paths.
    for path in ["/connect/tokens", "/connect", "/a/b/connect/token", "/.well-known/other"] {
        assert_eq!(edge.ask(&format!("GET {path}"), &[]).status, 200, "{path}");
        assert_eq!(edge.stub.one().target, path);
    }
}

#[test]
fn r12_an_endpoint_takes_its_method_its_media_type_and_no_query() {
    let edge = Edge::new(WIDE);
    for path in ["/connect/token", "/acme/connect/token", "/connect/revocation", "/connect/introspect"] {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post"] {
            let reply = edge.ask(&format!("{method} {path}"), &["Content-Length: 0"]);
            assert_eq!((reply.status, reply.header("allow")), (405, "POST"), "{method} {path}");
        }
    }
    assert_eq!(edge.ask("POST /.well-known/jwks.json", &["Content-Length: 0"]).header("allow"), "GET, HEAD");
    assert_eq!(edge.ask("GET /.well-known/jwks.json", &[]).status, 200);

    let body = format!("client_id=web&grant_type=password&username=demo&password={}", edge.gate.password);
    let ask = |target: &str, media: &[&str]| -> Reply {
        let length = format!("Content-Length: {}", body.len());
        let mut wire = edge.wire();
        wire.head(&format!("POST {target}"), &[&["Host: gate.test", &length], media].concat());
        wire.send(&body);
        wire.reply()
    };
    let form = "Content-Type: application/x-www-form-urlencoded";
    for media in [
        &["Content-Type: application/json"][..],
        &["Content-Type: text/plain"],
        &["Content-Type: multipart/form-data; boundary=x"],
        &["Content-Type: application/x-www-form-urlencodedx"],
        &["Content-Type:"],
        &[],
        &[form, form],
        &["Content-Type: application/json, application/x-www-form-urlencoded"],
    ] {
        let reply = ask("/connect/token", media);
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_request"), "{media:?}");
    }
    for query in ["?client_id=web", "?grant_type=password", "?refresh_token=x", "?x"] {
        let reply = ask(&format!("/connect/token{query}"), &[form]);
        assert_eq!((reply.status, reply.error().as_str()), (400, "invalid_request"), "{query}");
    }
    for media in [form, "content-type: Application/X-WWW-Form-Urlencoded; charset=UTF-8"] {
        assert_eq!(ask("/connect/token", &[media]).status, 200, "{media}");
    }
    assert!(edge.stub.take().is_empty());
}

#[test]
fn r7_every_refresh_token_that_is_not_good_gets_one_answer() {
    let config = format!("{HEAD}{WIDE}").replace("[[endpoints]]", "[[clients]]\nid = \"other\"\n[[endpoints]]");
    let edge = Edge::with(&config, |_| {}, |_| {});
    let first = edge.login();
    let used = edge.login();
    let second = tokens(&edge.refresh(&[], &used.refresh));
    assert_eq!(edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &second.refresh)]).status, 200);
    let refresh = &first.refresh;
    let flip = |at: usize| {
        let mut bytes = refresh.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    let bad = [
        ("unknown", "rg1_AAAA".to_owned()),
        ("nonsense", "nonsense".to_owned()),
        ("not ASCII", "r\u{e9}fresh\u{0}".to_owned()),
        ("an access token", first.access.clone()),
        ("truncated", refresh[..refresh.len() - 4].to_owned()),
        ("longer", format!("{refresh}AAAA")),
        ("padded", format!("{refresh}=")),
        ("in another case", refresh.to_ascii_uppercase()),
        ("another session", flip(12)),
        ("another tag", flip(refresh.len() - 8)),
        ("another key", flip(4)),
        ("revoked", second.refresh.clone()),
        ("superseded and revoked", used.refresh.clone()),
        ("very long", "x".repeat(10_000)),
    ];
    let expected = edge.refresh(&[], "rg1_").without_date();
    assert_eq!((expected.status, expected.error().as_str()), (400, "invalid_grant"));
    for (what, token) in &bad {
        assert_eq!(edge.refresh(&[], token).without_date(), expected, "{what}");
    }
    let by_other = [("client_id", "other"), ("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    assert_eq!(edge.form("/connect/token", &[], &by_other).without_date(), expected, "another client's");
    let in_account = [("client_id", "web"), ("grant_type", "refresh_token"), ("refresh_token", refresh.as_str())];
    assert_eq!(edge.form("/acme/connect/token", &[], &in_account).without_date(), expected, "another account's");
    // These refusals did not change the session.
    assert_eq!(edge.refresh(&[], refresh).status, 200);
    // The reverse: a refresh token opens no route.
    assert_eq!(edge.ask_as(refresh, "GET /.well-known/jwks.json", &[]).status, 200);
    assert!(edge.stub.take().is_empty());
}

#[test]
fn a2_an_unknown_user_and_a_wrong_password_are_answered_alike() {
    let edge = Edge::new(WIDE);
    let wrong = edge.try_login(&[], "demo", "wrong").without_date();
    assert_eq!((wrong.status, wrong.error().as_str()), (400, "invalid_grant"));
    for (username, password) in [
        ("nobody", "wrong"),
        ("nobody", edge.gate.password.as_str()),
        ("Demo", edge.gate.password.as_str()),
        ("demo ", edge.gate.password.as_str()),
        ("demo\u{0}", edge.gate.password.as_str()),
        ("\r\n", "x"),
        ("demo", &"x".repeat(2000)),
    ] {
        assert_eq!(edge.try_login(&[], username, password).without_date(), wrong, "{username:?}");
    }
    let in_account = [("client_id", "web"), ("grant_type", "password"), ("username", "demo"), ("password", "x")];
    assert_eq!(edge.form("/acme/connect/token", &[], &in_account).without_date(), wrong);
}
