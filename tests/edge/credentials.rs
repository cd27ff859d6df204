//! T1, T2, T13: the places of a credential, and their number.

use support::stub::{Edge, ROUTES};

#[test]
fn t1_a_bearer_token_is_taken_in_one_form_and_refused_in_every_other() {
    let edge = Edge::new(ROUTES);
    let token = edge.login().access;
    for good in ["Bearer @", "bearer @", "BEARER @", "bEaReR   @"] {
        let header = format!("Authorization: {}", good.replace('@', &token));
        assert_eq!(edge.ask("GET /private", &[&header]).status, 200, "{good}");
        assert_eq!(edge.stub.one().confusable("x-auth-subject").len(), 1, "{good}");
    }
    let bad = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer=@",
        "Bearer\t@",
        "@",
        "Bearer Bearer @",
        "Bearer @ @",
        "Bearer @,@",
        "Bearer @, Bearer @",
        "Bearer \"@\"",
        "Bearer @;",
        "Bearer token=@",
        "Basic @",
        "DPoP @",
        "Token @",
        "Basic eDp5, Bearer @",
        "Negotiate Bearer @",
        "Bearer \u{e9}@",
        "Bearer x@",
        "Bearer @x",
        "Bearer @=",
    ];
    for value in bad {
        let header = format!("Authorization: {}", value.replace('@', &token));
        // An optional route refuses a bad credential, and does not treat it as missing (T13).
        for path in ["/private", "/open/x"] {
            let reply = edge.ask(&format!("GET {path}"), &[&header]);
            assert_eq!(reply.status, 401, "{value} {path}");
            assert!(reply.header("www-authenticate").starts_with("Bearer"), "{value}");
        }
    }
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t1_two_authorization_headers_are_400_on_every_route() {
    let edge = Edge::new(&format!("{ROUTES}\nforward_token = true\n"));
    let token = edge.login().access;
    let good = format!("Authorization: Bearer {token}");
    for second in [good.as_str(), "authorization: Bearer x", "AUTHORIZATION: Basic eDp5", "Authorization:"] {
        for path in ["/private", "/open/x", "/public/x"] {
            for pair in [[good.as_str(), second], [second, good.as_str()]] {
                assert_eq!(edge.ask(&format!("GET {path}"), &pair).status, 400, "{second:?} {path}");
            }
        }
    }
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t2_a_token_anywhere_but_in_authorization_is_none() {
    let edge = Edge::new(ROUTES);
    let token = edge.login().access;
    let cookie = format!("Cookie: access_token={token}; token={token}; Authorization=Bearer {token}");
    let other = format!("X-Access-Token: {token}");
    assert_eq!(edge.ask("GET /private", &[&cookie, &other]).status, 401);

    let body = format!("access_token={token}");
    let length = format!("Content-Length: {}", body.len());
    let mut wire = edge.wire();
    wire.head("POST /private", &["Host: gate.test", &length, "Content-Type: application/x-www-form-urlencoded"]);
    wire.send(body);
    let reply = wire.reply();
    assert_eq!(reply.status, 401);
    // The request has no credential that counts, so the challenge has no error code (RFC 6750 §3.1).
    assert_eq!(reply.header("www-authenticate"), "Bearer");
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t2_a_token_in_the_query_is_refused_never_used_and_never_forwarded() {
    let edge = Edge::new(ROUTES);
    let token = edge.login().access;
    for name in ["access_token", "Access_Token", "access%5Ftoken", "%61ccess_token", "ACCESS_TOKEN"] {
        for path in ["/private", "/open/x"] {
            let line = format!("GET {path}?a=1&{name}={token}&b=2");
            assert_eq!(edge.ask(&line, &[]).status, 401, "{name} {path}");
            assert_eq!(edge.ask_as(&token, &line, &[]).status, 400, "{name} {path}: two sources");
        }
        assert!(edge.stub.take().is_empty());
        assert_eq!(edge.ask(&format!("GET /public/x?a=1&{name}={token}&b=2"), &[]).status, 200);
        assert_eq!(edge.stub.one().target, "/public/x?a=1&b=2", "{name}");
    }
    assert_eq!(edge.ask(&format!("GET /public/x?access_token={token}"), &[]).status, 200);
    assert_eq!(edge.stub.one().target, "/public/x");
}

#[test]
fn t13_optional_routes_know_nobody_or_somebody_and_refuse_the_rest() {
    let routes = format!(
        r#"
[[routes]]
path = "/forgiving/{{*rest}}"
auth = "lenient"
upstream = "app"
{ROUTES}"#
    );
    let edge = Edge::new(&routes);
    let token = edge.login().access;
    for path in ["/open/x", "/forgiving/x"] {
        let line = format!("GET {path}");
        assert_eq!(edge.ask(&line, &[]).status, 200);
        assert!(edge.stub.one().headers.iter().all(|(name, _)| !name.starts_with("x-auth")), "{path}: nobody");
        assert_eq!(edge.ask_as(&token, &line, &[]).status, 200);
        assert_eq!(edge.stub.one().all("x-auth-client"), ["web"], "{path}: somebody");
    }
    let bad = [format!("{token}x"), "x".to_owned(), "a.b.c".to_owned()];
    for bad in &bad {
        let reply = edge.ask_as(bad, "GET /open/x", &[]);
        assert_eq!(reply.status, 401);
        assert!(reply.header("www-authenticate").contains("invalid_token"));
        assert!(edge.stub.take().is_empty());
        assert_eq!(edge.ask_as(bad, "GET /forgiving/x", &[]).status, 200);
        let received = edge.stub.one();
        assert!(received.headers.iter().all(|(name, _)| !name.starts_with("x-auth") && name != "authorization"));
    }
    let two = [format!("Authorization: Bearer {token}"), "Authorization: Bearer x".to_owned()];
    assert_eq!(edge.ask("GET /forgiving/x", &[&two[0], &two[1]]).status, 400);
    assert!(edge.stub.take().is_empty());
}
