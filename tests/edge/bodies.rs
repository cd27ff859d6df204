//! T8, A4 and what goes through: bodies, bounds and connections that are used again.

use support::stub::{Edge, HEAD, ROUTES};

const BOUNDED: &str = r#"
[[routes]]
path = "/small/{*rest}"
auth = "none"
max_body = 10
upstream = "app"
"#;

#[test]
fn t8_after_a_refusal_with_an_unread_body_the_connection_is_sound_or_closed() {
    let edge = Edge::new(&format!("{BOUNDED}{ROUTES}"));
    let token = edge.login().access;
    // A body that looks like a request: a parser that resumes at the wrong place would answer it.
    let smuggled = format!("GET /public/smuggled HTTP/1.1\r\nHost: gate.test\r\n\r\n{}", "x".repeat(200));
    let length = format!("Content-Length: {}", smuggled.len());
    let chunked = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    let authorization = format!("Authorization: Bearer {token}");
    for (line, status) in [
        ("POST /private", 401),
        ("POST /public/..%2fx", 400),
        ("POST /small/x", 413),
        ("POST /connect/token/", 404),
        ("GET /connect/token", 405),
        ("BREW /public/x", 405),
    ] {
        for (framing, body) in [(length.as_str(), &smuggled), ("Transfer-Encoding: chunked", &chunked)] {
            let mut wire = edge.wire();
            wire.head(line, &["Host: gate.test", framing]);
            wire.send(body);
            assert_eq!(wire.reply().status, status, "{line} {framing}");
            wire.head("GET /private/next", &["Host: gate.test", &authorization]);
            if let Some(reply) = wire.try_reply(false) {
                assert_eq!(reply.status, 200, "{line} {framing}");
                assert_eq!(edge.stub.one().target, "/private/next", "{line} {framing}");
            }
            assert!(edge.stub.take().iter().all(|received| received.target != "/public/smuggled"), "{line} {framing}");
        }
    }
}

#[test]
fn t8_a_refusal_does_not_wait_for_a_body_that_never_comes() {
    let edge = Edge::new(ROUTES);
    for line in ["POST /private", "POST /x/../y", "POST /connect/token/"] {
        let mut wire = edge.wire();
        wire.head(line, &["Host: gate.test", "Content-Length: 1000000"]);
        let status = wire.reply().status;
        assert!([400, 401, 404].contains(&status), "{line}: {status}");
        assert!(wire.is_closed(), "{line}");
        // Nor is there a 100 Continue.
        let mut wire = edge.wire();
        wire.head(line, &["Host: gate.test", "Content-Length: 5", "Expect: 100-continue"]);
        assert_eq!(wire.reply().status, status, "{line}");
    }
    assert!(edge.stub.take().is_empty());
}

/// A client that is in the middle of sending would see a reset otherwise, and not the answer.
#[test]
fn t8_who_is_refused_before_all_was_sent_may_send_the_rest() {
    let edge = Edge::new(ROUTES);
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut wire = edge.wire();
        wire.head("POST /private", &["Host: gate.test", framing]);
        assert_eq!(wire.reply().status, 401, "{framing}");
        let body = vec![b'x'; 1_000_000];
        if framing.starts_with('T') {
            wire.send("f4240\r\n");
            wire.send(body);
            wire.send("\r\n0\r\n\r\n");
        } else {
            wire.send(body);
        }
        wire.head("GET /public/next", &["Host: gate.test"]);
        assert_eq!(wire.reply().status, 200, "{framing}");
        assert_eq!(edge.stub.one().target, "/public/next", "{framing}");
    }
}

#[test]
fn t8_one_connection_carries_many_requests_each_judged_for_itself() {
    let edge = Edge::new(ROUTES);
    let authorization = format!("Authorization: Bearer {}", edge.login().access);
    let mut wire = edge.wire();
    for round in 0..3 {
        wire.head("GET /private", &["Host: gate.test", &authorization]);
        assert_eq!(wire.reply().status, 200, "{round}");
        assert_eq!(edge.stub.one().all("x-auth-client"), ["web"]);
        wire.head("GET /private", &["Host: gate.test"]);
        assert_eq!(wire.reply().status, 401, "{round}");
        wire.head("GET /open/x", &["Host: gate.test"]);
        assert_eq!(wire.reply().status, 200, "{round}");
        assert_eq!(edge.stub.one().all("x-auth-client"), Vec::<&str>::new(), "nothing is left of the one before");
        wire.head("GET /connect/token", &["Host: gate.test"]);
        assert_eq!(wire.reply().status, 405, "{round}");
    }
    // Sent at once, answered in order.
    wire.send(format!(
        "GET /private HTTP/1.1\r\nHost: gate.test\r\n\r\nGET /public/1 HTTP/1.1\r\nHost: gate.test\r\n\r\n\
         GET /private HTTP/1.1\r\nHost: gate.test\r\n{authorization}\r\n\r\n"
    ));
    assert_eq!([wire.reply().status, wire.reply().status, wire.reply().status], [401, 200, 200]);
}

#[test]
fn t7_bodies_arrive_whole_in_either_framing_and_heads_have_none() {
    let edge = Edge::new(ROUTES);
    let mut wire = edge.wire();
    wire.head("POST /public/x", &["Host: gate.test", "Transfer-Encoding: chunked"]);
    wire.send("3;ext=1\r\nabc\r\n5\r\ndefgh\r\n0\r\n\r\n");
    assert_eq!(wire.reply().status, 200);
    assert_eq!(edge.stub.one().body, b"abcdefgh");

    let big = vec![b'b'; 300_000];
    wire.head("PUT /public/x", &["Host: gate.test", "Content-Length: 300000"]);
    wire.send(&big);
    assert_eq!(wire.reply().status, 200);
    let received = edge.stub.one();
    assert_eq!((received.all("content-length"), received.body.len()), (vec!["300000"], 300_000));

    wire.head("POST /public/x", &["Host: gate.test", "Content-Length: 0"]);
    assert_eq!(wire.reply().status, 200);
    assert_eq!(edge.stub.one().all("content-length"), ["0"]);
    wire.head("GET /public/x", &["Host: gate.test"]);
    assert_eq!(wire.reply().status, 200);
    let received = edge.stub.one();
    assert_eq!((received.all("content-length").len(), received.all("transfer-encoding").len()), (0, 0));

    wire.head("HEAD /public/x", &["Host: gate.test"]);
    let reply = wire.reply_to_head();
    assert_eq!((reply.status, reply.header("content-length")), (200, "1234"));
    assert_eq!(edge.stub.one().method, "HEAD");
    for path in ["/private", "/public/%00"] {
        wire.head(&format!("HEAD {path}"), &["Host: gate.test"]);
        assert!(matches!(wire.reply_to_head().status, 400 | 401), "{path}");
    }
    wire.head("GET /public/last", &["Host: gate.test"]);
    assert_eq!(wire.reply().status, 200, "no body came after an answer to HEAD");
}

#[test]
fn bodies_stream_both_ways_piece_by_piece() {
    let edge = Edge::new(ROUTES);
    let mut wire = edge.wire();
    wire.head("POST /public/parts", &["Host: gate.test", "Transfer-Encoding: chunked"]);
    // Each piece is at the upstream before the next one is written.
    for piece in ["one", "two", "three"] {
        wire.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
        assert_eq!(edge.stub.piece(), piece.as_bytes());
    }
    wire.send("0\r\n\r\n");
    let head = wire.reply_head();
    assert_eq!((head.status, head.header("transfer-encoding")), (200, "chunked"));
    for piece in [&b"eins"[..], b"zwei", b"drei"] {
        edge.stub.push(piece);
        assert_eq!(wire.chunk(), piece);
    }
    edge.stub.push(b"");
    assert_eq!(wire.chunk(), b"");
    wire.head("GET /public/after", &["Host: gate.test"]);
    assert_eq!(wire.reply().status, 200);
}

#[test]
fn a4_a_body_over_the_bound_of_its_route_is_413() {
    let edge = Edge::new(&format!("{BOUNDED}{ROUTES}"));
    let mut wire = edge.wire();
    wire.head("POST /small/x", &["Host: gate.test", "Content-Length: 11"]);
    let reply = wire.reply();
    assert_eq!((reply.status, reply.header("content-type")), (413, "application/problem+json"));
    assert!(edge.stub.take().is_empty(), "what says that it is too long is not begun");
    let mut wire = edge.wire();
    wire.head("POST /small/x", &["Host: gate.test", "Transfer-Encoding: chunked"]);
    wire.send("6\r\nabcdef\r\n5\r\nghijk\r\n0\r\n\r\n");
    assert_eq!(wire.reply().status, 413);
    assert!(edge.stub.take().is_empty(), "no whole request arrived");
    for (framing, body) in
        [("Content-Length: 10", "0123456789"), ("Transfer-Encoding: chunked", "a\r\n0123456789\r\n0\r\n\r\n")]
    {
        let mut wire = edge.wire();
        wire.head("POST /small/x", &["Host: gate.test", framing]);
        wire.send(body);
        assert_eq!(wire.reply().status, 200, "{framing}");
        assert_eq!(edge.stub.one().body, b"0123456789");
    }
}

#[test]
fn a4_a_body_for_an_endpoint_over_32_kib_is_413() {
    let edge = Edge::new(ROUTES);
    let padding = |length: usize| {
        let start = "client_id=web&grant_type=refresh_token&refresh_token=x&padding=";
        format!("{start}{}", "p".repeat(length - start.len()))
    };
    for (length, status) in [(32 * 1024, 400), (32 * 1024 + 1, 413), (200_000, 413)] {
        let body = padding(length);
        for chunked in [false, true] {
            let framing =
                if chunked { "Transfer-Encoding: chunked".to_owned() } else { format!("Content-Length: {length}") };
            let mut wire = edge.wire();
            wire.head(
                "POST /connect/token",
                &["Host: gate.test", "Content-Type: application/x-www-form-urlencoded", &framing],
            );
            wire.send(if chunked { format!("{length:x}\r\n{body}\r\n0\r\n\r\n") } else { body.clone() });
            // If the gate closes before the whole body was written, the answer may be lost; a received status must be
            // right.
            if let Some(reply) = wire.try_reply(false) {
                assert_eq!(reply.status, status, "{length} {chunked}");
                let error = if status == 413 { "invalid_request" } else { "invalid_grant" };
                assert_eq!(reply.error(), error);
            } else {
                assert_eq!((length, status), (200_000, 413));
            }
        }
    }
}

#[test]
fn a4_a_head_over_the_bound_is_431_and_too_many_headers_too() {
    let config = format!("{HEAD}{ROUTES}").replace("drain_timeout", "max_head = \"8KiB\"\ndrain_timeout");
    let edge = Edge::with(&config, |_| {}, |_| {});
    let long = format!("X-Long: {}", "x".repeat(9000));
    assert_eq!(edge.ask("GET /public/x", &[&long]).status, 431);
    assert_eq!(edge.ask(&format!("GET /public/{}", "x".repeat(9000)), &[]).status, 431);
    let many: Vec<String> = (0..101).map(|i| format!("X-{i}: 1")).collect();
    assert_eq!(edge.ask("GET /public/x", &many.iter().map(String::as_str).collect::<Vec<_>>()).status, 431);
    assert!(edge.stub.take().is_empty());
    let fits = format!("X-Long: {}", "x".repeat(7000));
    assert_eq!(edge.ask("GET /public/x", &[&fits]).status, 200);
    assert_eq!(edge.stub.one().all("x-long")[0].len(), 7000);
}

#[test]
fn a4_a_target_over_8_kib_is_414() {
    let edge = Edge::new(ROUTES);
    for target in ["/public/", "/public/x?y=", "/private/", "/connect/token?", "/nowhere/../"] {
        let target = format!("{target}{}", "x".repeat(8193 - target.len()));
        assert_eq!(edge.ask(&format!("GET {target}"), &[]).status, 414, "{}", &target[..12]);
    }
    assert!(edge.stub.take().is_empty());
    let longest = format!("/public/{}", "x".repeat(8192 - 8));
    assert_eq!(edge.ask(&format!("GET {longest}"), &[]).status, 200);
    assert_eq!(edge.stub.one().target, longest);
}

#[test]
fn a4_a_head_that_does_not_end_is_cut_off_and_others_are_served_meanwhile() {
    let config = format!("{HEAD}{ROUTES}").replace("drain_timeout", "head_timeout = \"300ms\"\ndrain_timeout");
    let edge = Edge::with(&config, |_| {}, |_| {});
    let mut silent = edge.wire();
    let mut slow: Vec<_> = (0..20).map(|_| edge.wire()).collect();
    for wire in &mut slow {
        wire.send("GET /public/slow HTTP/1.1\r\nHost: gate.test\r\nX-Slow");
    }
    assert_eq!(edge.ask("GET /public/x", &[]).status, 200);
    assert_eq!(edge.stub.one().target, "/public/x");
    for wire in &mut slow {
        let reply = wire.try_reply(false);
        assert!(reply.is_none_or(|reply| reply.status == 408));
    }
    assert!(silent.is_closed());
    assert!(edge.stub.take().is_empty());
}
