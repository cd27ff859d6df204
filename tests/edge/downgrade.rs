//! T7, T15: requests over HTTP/2 that could become other requests, or two, when the gate writes them as HTTP/1.1 for
//! the upstream. Each is refused, or arrives as exactly one unchanged request.

use super::frames::{self, Field, Outcome, Part, fields};
use support::stub::{Edge, ROUTES};

const HIDDEN: &str = "GET /private/hidden HTTP/1.1\r\nHost: gate.test\r\n\r\n";

const HEAD: [(&str, &str); 4] =
    [(":method", "POST"), (":scheme", "http"), (":authority", "gate.test"), (":path", "/public/x")];

/// The usual head, with these fields behind it.
fn with(more: &[(&str, &str)]) -> Vec<Field> {
    fields(&[&HEAD[..], more].concat())
}

/// The usual head, with another value for one of its fields.
fn but(name: &str, value: &str) -> Vec<Field> {
    fields(&HEAD.map(|(known, usual)| (known, if known == name { value } else { usual })))
}

/// The usual head without one of its fields.
fn without(name: &str) -> Vec<Field> {
    fields(&HEAD.into_iter().filter(|(known, _)| *known != name).collect::<Vec<_>>())
}

/// Sends the request. Returns its outcome, and the body that arrived upstream, if exactly one plain request arrived.
fn ask(edge: &Edge, head: &[Field], parts: &[Part]) -> (Outcome, Option<Vec<u8>>) {
    let outcome = frames::ask(edge.gate.address, head, parts);
    // Bytes that remained at the upstream would precede this request.
    assert_eq!(edge.ask("GET /public/next", &[]).status, 200, "{head:?}");
    let mut received = edge.stub.take();
    assert_eq!(received.pop().unwrap().target, "/public/next");
    assert!(received.len() <= 1, "{head:?}: {received:?}");
    let body = received.pop().map(|received| {
        assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/public/x"), "{head:?}");
        assert_eq!(received.all("host").len(), 1, "{head:?}");
        assert!(received.headers.iter().all(|(name, _)| !name.to_ascii_lowercase().starts_with("x-auth")), "{head:?}");
        assert!(received.trailers.is_empty(), "{head:?}: {:?}", received.trailers);
        received.body
    });
    (outcome, body)
}

#[track_caller]
fn refused(edge: &Edge, head: &[Field], parts: &[Part]) {
    let (outcome, body) = ask(edge, head, parts);
    let is_refusal = match outcome {
        Outcome::Status(status) => matches!(status, 400..=499 | 501),
        Outcome::Reset(_) | Outcome::Gone(_) => true,
    };
    assert!(is_refusal && body.is_none(), "{outcome:?} {body:?}: {}", shown(head));
}

fn shown(head: &[Field]) -> String {
    head.iter().map(|(n, v)| format!("{:?}: {:?}; ", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect()
}

#[test]
fn t15_nothing_in_a_field_becomes_a_line_of_its_own() {
    let edge = Edge::new(ROUTES);
    assert_eq!(ask(&edge, &with(&[("x-a", "b")]), &[]), (Outcome::Status(200), Some(vec![])));
    for value in ["a\r\nx-auth-subject: root", "a\nx-auth-subject: root", "a\rb", "a\0b", "a\u{1}", "\r\n\r\nGET / H"] {
        refused(&edge, &with(&[("x-a", value)]), &[]);
    }
    for name in ["x-a\r\nx-auth-subject", "x-a: b\r\nx-c", "x a", "X-A", "x:a", "", "x\0", "x\u{e9}", ":x", "x-a\n"] {
        refused(&edge, &with(&[(name, "a")]), &[]);
    }
    for path in [
        "/public/x HTTP/1.1\r\nX-Auth-Subject: root\r\nX: y",
        "/public/x HTTP/1.1",
        "/public/x\r\n",
        "/public/x\t",
        "/public/\0",
        "/public/\u{e9}",
        "/public/../private/x",
        "/public/%2e%2e/x",
        "public/x",
        "*",
        "",
        "gate.test:80",
    ] {
        refused(&edge, &but(":path", path), &[]);
    }
    for method in
        ["POST /public/x HTTP/1.1\r\nHost: a\r\n\r\nPOST", "POST ", "", "P\0ST", "P ST", "post", "TRACE", "BREW"]
    {
        refused(&edge, &but(":method", method), &[]);
    }
    for authority in
        ["gate.test\r\nX: y", "gate test", "user@gate.test", "gate.test/x", "", "gate.test:x", "gate..test"]
    {
        refused(&edge, &but(":authority", authority), &[]);
    }
    for scheme in ["http://gate.test/\r\n", "ftp", "", "http ", "http\r\nx: y"] {
        refused(&edge, &but(":scheme", scheme), &[]);
    }
}

#[test]
fn t15_pseudo_headers_stand_once_first_and_are_the_known_ones() {
    let edge = Edge::new(ROUTES);
    for missing in [":method", ":scheme", ":path", ":authority"] {
        refused(&edge, &without(missing), &[]);
    }
    for twice in HEAD {
        refused(&edge, &fields(&[&[twice][..], &HEAD].concat()), &[]);
    }
    let late = [&HEAD[..3], &[("x-a", "b"), (":path", "/public/x")]].concat();
    refused(&edge, &fields(&late), &[]);
    for unknown in [(":status", "200"), (":protocol", "websocket"), (":x", "y")] {
        refused(&edge, &fields(&[&[unknown][..], &HEAD].concat()), &[]);
    }
    refused(&edge, &with(&[("host", "other.test")]), &[]);
    refused(&edge, &with(&[("host", "gate.test"), ("host", "gate.test")]), &[]);
    assert_eq!(ask(&edge, &with(&[("host", "gate.test")]), &[]), (Outcome::Status(200), Some(vec![])));
}

#[test]
fn t10_a_tunnel_over_http_2_is_not_given_either() {
    let edge = Edge::new(ROUTES);
    let connect = fields(&[(":method", "CONNECT"), (":authority", "gate.test:80")]);
    assert_eq!(ask(&edge, &connect, &[Part::Data(HIDDEN.into())]), (Outcome::Status(501), None));
    let extended = [&[(":method", "CONNECT"), (":protocol", "websocket")][..], &HEAD[1..]].concat();
    refused(&edge, &fields(&extended), &[]);
    refused(&edge, &but(":method", "CONNECT"), &[]);
}

#[test]
fn t15_what_belongs_to_a_connection_of_http_1_is_refused() {
    let edge = Edge::new(ROUTES);
    for field in [
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("connection", "close"),
        ("connection", "x-auth-subject"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
    ] {
        refused(&edge, &with(&[field]), &[Part::Data(b"5\r\nhello\r\n0\r\n\r\n".to_vec())]);
        refused(&edge, &with(&[field]), &[]);
    }
    assert_eq!(ask(&edge, &with(&[("te", "trailers")]), &[]), (Outcome::Status(200), Some(vec![])));
}

#[test]
fn t7_a_length_over_http_2_is_the_one_of_the_body() {
    let edge = Edge::new(ROUTES);
    let hidden = [Part::Data(HIDDEN.into())];
    let length = HIDDEN.len().to_string();
    // Without a length it becomes one chunked body, with the right one it keeps it.
    for more in [&[][..], &[("content-length", length.as_str())]] {
        let (outcome, body) = ask(&edge, &with(more), &hidden);
        assert_eq!((outcome, body.as_deref()), (Outcome::Status(200), Some(HIDDEN.as_bytes())));
    }
    let pieces = [Part::Data(b"he".to_vec()), Part::Data(vec![]), Part::Data(b"llo".to_vec())];
    assert_eq!(ask(&edge, &with(&[("content-length", "5")]), &pieces), (Outcome::Status(200), Some(b"hello".to_vec())));
    for lengths in [
        &[("content-length", "0")][..],
        &[("content-length", "1")],
        &[("content-length", "1000")],
        &[("content-length", "")],
        &[("content-length", "-1")],
        &[("content-length", "x")],
        &[("content-length", "99999999999999999999")],
        &[("content-length", &length), ("content-length", "1")],
        &[("content-length", "1"), ("content-length", &length)],
        &[("content-length", &length), ("content-length", &length)],
    ] {
        refused(&edge, &with(lengths), &hidden);
    }
    for written in [format!("+{length}"), format!("{length}, {length}"), format!("{length} "), format!("0x{length}")] {
        refused(&edge, &with(&[("content-length", &written)]), &hidden);
    }
    refused(&edge, &with(&[("content-length", "5")]), &[]);
}

#[test]
fn t3_t7_trailers_over_http_2_bring_no_header_and_no_request() {
    let edge = Edge::new(ROUTES);
    let data = Part::Data(b"hello".to_vec());
    for trailers in [
        &[("x-auth-subject", "root")][..],
        &[("content-length", "50")],
        &[("authorization", "Bearer x"), ("host", "other.test")],
        &[("cookie", "a=b"), ("x-forwarded-for", "6.6.6.6"), ("x_auth_subject", "root")],
        // The library drops pseudo-headers here.
        &[(":path", "/private/x")],
        &[(":method", "GET"), (":path", "/private/x"), (":authority", "other.test")],
    ] {
        let names: Vec<&str> = trailers.iter().map(|(name, _)| name.trim_start_matches(':')).collect();
        let head = with(&[("trailer", &names.join(", "))]);
        let (outcome, body) = ask(&edge, &head, &[data.clone(), Part::Trailers(fields(trailers))]);
        assert_eq!((outcome, body.as_deref()), (Outcome::Status(200), Some(&b"hello"[..])), "{trailers:?}");
    }
    for trailers in [
        &[("transfer-encoding", "chunked")][..],
        &[("connection", "close")],
        &[("x-a", "b\r\n\r\nGET /private/hidden HTTP/1.1\r\nHost: a")],
        &[("X-A", "b")],
        &[("x a", "b")],
    ] {
        let (outcome, body) = ask(&edge, &with(&[]), &[data.clone(), Part::Trailers(fields(trailers))]);
        let is_refusal = !matches!(outcome, Outcome::Status(200));
        assert!(is_refusal && body.is_none(), "{outcome:?} {body:?}: {trailers:?}");
    }
}
