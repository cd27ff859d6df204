//! T10, T11: the host, target and method of a request.

use support::stub::{Edge, HEAD, ROUTES};

/// Sends bytes and says the status, 0 for a connection that was closed without one.
fn status(edge: &Edge, request: &str) -> u16 {
    let mut wire = edge.wire();
    wire.send(request);
    wire.try_reply(false).map_or(0, |reply| reply.status)
}

#[test]
fn t11_a_host_that_is_missing_repeated_or_malformed_is_400() {
    let edge = Edge::new(ROUTES);
    for hosts in [
        "",
        "Host: gate.test\r\nHost: gate.test\r\n",
        "Host: gate.test\r\nHost: evil.test\r\n",
        "Host:\r\n",
        "Host: a b\r\n",
        "Host: gate.test, evil.test\r\n",
        "Host: user@gate.test\r\n",
        "Host: gate.test:\r\nHost: gate.test\r\n",
        "Host: gate.test:99999\r\n",
        "Host: gate.test:+80\r\n",
        "Host: gate.test:80:80\r\n",
        "Host: gate.test/x\r\n",
        "Host: gate.test?x\r\n",
        "Host: http://gate.test\r\n",
        "Host: [::1\r\n",
        "Host: [zz]\r\n",
        "Host: gate..test\r\n",
        "Host: g%61te.test\r\n",
        "Host: gäte.test\r\n",
        "Host: gate.test\u{1}\r\n",
    ] {
        assert_eq!(status(&edge, &format!("GET /public/x HTTP/1.1\r\n{hosts}\r\n")), 400, "{hosts:?}");
    }
    assert_eq!(status(&edge, "GET /public/x HTTP/1.0\r\n\r\n"), 400);
    assert!(edge.stub.take().is_empty());
    for host in ["gate.test", "GATE.test:80", "gate.test.", "[::1]:8080", "127.0.0.1"] {
        assert_eq!(status(&edge, &format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n")), 200, "{host}");
        let received = edge.stub.one();
        assert_eq!((received.all("x-forwarded-host"), received.all("host").len()), (vec![host], 1));
    }
}

#[test]
fn t11_only_origin_form_or_the_absolute_form_of_the_same_host_is_taken() {
    let edge = Edge::new(ROUTES);
    for target in [
        "*",
        "public/x",
        "gate.test:80",
        "http://evil.test/public/x",
        "http://gate.test:81/public/x",
        "http://gate.test@evil.test/public/x",
        "http://user@gate.test/public/x",
        "https://gate.test:80x/public/x",
        "ftp://gate.test/public/x",
        "http:///public/x",
        "http://gate.test",
        "/public/x\u{e9}",
        "/public/x?\u{e9}",
        "/public/x?a\u{7f}",
        "/public/\u{1}",
        "?public",
        "",
    ] {
        let got = status(&edge, &format!("GET {target} HTTP/1.1\r\nHost: gate.test\r\n\r\n"));
        // `http://gate.test` is for `/`, which asks for a token.
        let expected = if target == "http://gate.test" { 401 } else { 400 };
        assert_eq!(got, expected, "{target:?}");
    }
    assert!(edge.stub.take().is_empty());
    for target in ["http://gate.test/public/x?a", "http://GATE.test:80/public/x?a", "/public/x?a"] {
        assert_eq!(status(&edge, &format!("GET {target} HTTP/1.1\r\nHost: gate.test\r\n\r\n")), 200, "{target}");
        let received = edge.stub.one();
        assert_eq!(
            (received.target.as_str(), received.all("host")),
            ("/public/x?a", vec![&*edge.stub.address.to_string()])
        );
    }
    // The library cuts a fragment off before we see it: what is matched and what is sent is the same all the same.
    for target in ["/public/x#/../private", "/private#/public/x"] {
        let got = status(&edge, &format!("GET {target} HTTP/1.1\r\nHost: gate.test\r\n\r\n"));
        let expected = if target.starts_with("/public") { 200 } else { 401 };
        assert!(got == expected || got == 400, "{target}: {got}");
        assert!(edge.stub.take().iter().all(|received| received.target == "/public/x"), "{target}");
    }
}

#[test]
fn t11_the_host_that_was_checked_chooses_the_route_and_is_the_one_that_is_sent() {
    let routes = r#"
preserve_host = true
[[routes]]
path = "/{*rest}"
hosts = ["public.test"]
auth = "none"
upstream = "app"
[[routes]]
path = "/{*rest}"
upstream = "app"
"#;
    let edge = Edge::with(&format!("{HEAD}{routes}"), |_| {}, |_| {});
    let ask = |target: &str, host: &str| status(&edge, &format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    for host in ["public.test", "PUBLIC.test", "public.test:8080", "public.test."] {
        assert_eq!(ask("/x", host), 200, "{host}");
        assert_eq!(edge.stub.one().all("host"), [host]);
    }
    assert_eq!(ask("http://public.test/x", "public.test"), 200);
    assert_eq!(edge.stub.one().all("host"), ["public.test"]);
    for (host, status) in [
        ("gate.test", 401),
        ("public.test.evil.test", 421),
        ("xpublic.test", 421),
        ("public", 421),
        ("public_test", 421),
    ] {
        assert_eq!(ask("/x", host), status, "{host}");
    }
    assert_eq!(ask("http://public.test/x", "gate.test"), 400);
    assert_eq!(ask("http://gate.test/x", "public.test"), 400);
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t10_unusual_methods_are_refused() {
    let edge = Edge::new(ROUTES);
    for method in ["TRACE", "TRACK", "PRI", "get", "BREW"] {
        let reply = edge.ask(&format!("{method} /public/x"), &[]);
        assert_eq!(reply.status, 405, "{method}");
        assert!(reply.header("allow").contains("GET"), "{method}");
    }
    for target in ["gate.test:80", "/public/x", "http://gate.test/public/x", "*"] {
        // Bytes for the tunnel reach no upstream.
        let hidden = "GET /private/hidden HTTP/1.1\r\nHost: gate.test\r\n\r\n";
        let got = status(&edge, &format!("CONNECT {target} HTTP/1.1\r\nHost: gate.test:80\r\n\r\n{hidden}"));
        assert_eq!(got, 501, "{target}");
    }
    assert!(edge.stub.take().is_empty());
    // A route that lists no methods serves the others of IANA's registry.
    for method in ["PROPFIND", "MKCOL", "REPORT"] {
        assert_eq!(edge.ask(&format!("{method} /public/x"), &[]).status, 200, "{method}");
        assert_eq!(edge.stub.one().method, method);
    }
}

#[test]
fn t23_a_host_that_nobody_named_is_421_and_goes_nowhere() {
    let edge = Edge::new(ROUTES);
    for (host, expected) in [
        ("evil.example", 421),
        ("gate.test.evil.example", 421),
        ("xgate.test", 421),
        ("192.0.2.7", 421),
        ("localhost.evil.example", 421),
        ("gate.test:8443", 200),
        ("localhost", 200),
        ("app.localhost:1", 200),
        ("127.0.0.2", 200),
        ("[::ffff:127.0.0.1]", 200),
    ] {
        assert_eq!(status(&edge, &format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n")), expected, "{host}");
        assert_eq!(edge.stub.take().len(), usize::from(expected == 200), "{host}");
    }
    // Our own endpoints are no exception, nor is what would be refused for another reason.
    for target in ["/connect/token", "/.well-known/jwks.json", "/private", "/nowhere"] {
        assert_eq!(status(&edge, &format!("GET {target} HTTP/1.1\r\nHost: evil.example\r\n\r\n")), 421, "{target}");
    }
    assert_eq!(status(&edge, "GET http://evil.example/public/x HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 421);
    assert!(edge.gate.log().contains("unknown_host"));

    let named = support::with(HEAD, "server", "hosts = [\"*.apps.test\", \"192.0.2.7\"]");
    let edge = Edge::with(&format!("{named}{ROUTES}"), |_| {}, |_| {});
    for (host, expected) in
        [("a.apps.test", 200), ("192.0.2.7:80", 200), ("gate.test", 200), ("apps.test", 421), ("evil.example", 421)]
    {
        assert_eq!(status(&edge, &format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n")), expected, "{host}");
    }
    let any = support::with(HEAD, "server", "hosts = [\"*\"]");
    let edge = Edge::with(&format!("{any}{ROUTES}"), |_| {}, |_| {});
    assert_eq!(status(&edge, "GET /public/x HTTP/1.1\r\nHost: any.example\r\n\r\n"), 200);
}
