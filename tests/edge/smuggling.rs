//! T7, T8: requests that two parsers could read differently. Each is sent over a raw socket to the real binary, with an
//! upstream on kept connections. The upstream must receive exactly the answered requests, and afterwards no left-over
//! bytes on the same connection.

use support::stub::{Edge, ROUTES};

/// The request that is hidden in a body, or behind it. Its path needs a token. A gate that treats it as a request
/// answers 401; a gate that forwards it was deceived.
const HIDDEN: &str = "GET /private/hidden HTTP/1.1\r\nHost: gate.test\r\n\r\n";

/// Bytes, and the gate's treatment of them.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// The statuses of the answers, in order.
    answers: Vec<u16>,
    /// Is the connection closed after them?
    closes: bool,
    /// The bodies that arrive upstream.
    arrive: Vec<Vec<u8>>,
}

/// `POST /public/x` with these header lines, and what follows the head.
fn post(headers: &str, rest: impl AsRef<[u8]>) -> Vec<u8> {
    let head = format!("POST /public/x HTTP/1.1\r\nHost: gate.test\r\n{headers}\r\n\r\n");
    [head.as_bytes(), rest.as_ref()].concat()
}

/// A case with 400, a closed connection, and no request upstream.
fn refused(name: &str, bytes: impl Into<Vec<u8>>) -> Case {
    answered(name, bytes, &[400], true, &[])
}

/// A case with one request, which is forwarded with this body.
fn passed(name: &str, bytes: impl Into<Vec<u8>>, body: impl AsRef<[u8]>) -> Case {
    answered(name, bytes, &[200], false, &[body.as_ref()])
}

fn answered(name: &str, bytes: impl Into<Vec<u8>>, answers: &[u16], closes: bool, arrive: &[&[u8]]) -> Case {
    Case {
        name: name.to_owned(),
        bytes: bytes.into(),
        answers: answers.to_vec(),
        closes,
        arrive: arrive.iter().map(|body| body.to_vec()).collect(),
    }
}

/// Runs the cases in sequence against one gate, and reports all differences.
fn run(cases: Vec<Case>) {
    let edge = Edge::new(ROUTES);
    let (mut wrong, mut connections, mut requests) = (Vec::new(), std::collections::HashSet::new(), 0);
    for case in cases {
        let mut wire = edge.wire();
        wire.send(&case.bytes);
        let mut answers: Vec<u16> = Vec::new();
        while answers.len() < case.answers.len() {
            let Some(reply) = wire.try_reply(false) else { break };
            answers.push(reply.status);
        }
        let mut expected = case.arrive.clone();
        let closes = if case.closes {
            wire.is_closed()
        } else {
            wire.head("GET /public/x", &["Host: gate.test"]);
            let after = wire.try_reply(false).map(|reply| reply.status);
            expected.push(Vec::new());
            after != Some(200)
        };
        // Bytes that remained at the upstream would precede this request.
        assert_eq!(edge.ask("GET /public/x", &[]).status, 200, "{}: the next request", case.name);
        expected.push(Vec::new());
        let received = edge.stub.take();
        requests += received.len();
        connections.extend(received.iter().map(|received| received.connection));
        let targets: Vec<&str> = received.iter().map(|received| received.target.as_str()).collect();
        let bodies: Vec<Vec<u8>> = received.iter().map(|received| received.body.clone()).collect();
        if (&answers, closes, &bodies) != (&case.answers, case.closes, &expected)
            || targets.iter().any(|target| *target != "/public/x")
        {
            let bodies: Vec<_> = bodies.iter().map(|body| String::from_utf8_lossy(body).into_owned()).collect();
            wrong.push(format!(
                "{}: {answers:?} closed: {closes}, arrived: {targets:?} {bodies:?}; expected {:?} closed: {}, {} bodies",
                case.name,
                case.answers,
                case.closes,
                expected.len()
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(connections.len() < requests, "{} connections for {requests} requests", connections.len());
}

#[test]
fn t7_a_length_beside_chunks_hides_no_request() {
    let chunk = format!("{:x}\r\n{HIDDEN}\r\n0\r\n\r\n", HIDDEN.len());
    let mut cases = Vec::new();
    // The library drops the length, takes the chunks and closes afterwards (RFC 9112 §6.3).
    for headers in [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
        "Content-Length: 0\r\nTransfer-Encoding: Chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 7",
        "Transfer-Encoding: chunked\r\nContent-Length: nonsense",
    ] {
        cases.push(answered(
            &format!("CL.TE {headers:?}"),
            post(headers, format!("0\r\n\r\n{HIDDEN}")),
            &[200],
            true,
            &[b""],
        ));
        cases.push(answered(&format!("TE.CL {headers:?}"), post(headers, &chunk), &[200], true, &[HIDDEN.as_bytes()]));
    }
    run(cases);
}

#[test]
fn t7_a_transfer_coding_is_chunked_alone_in_plain_spelling() {
    let body = format!("0\r\n\r\n{HIDDEN}");
    let mut cases = Vec::new();
    for coding in [
        "xchunked",
        "chunkedx",
        "chunked, identity",
        "identity",
        "identity, chunked",
        "gzip, chunked",
        "gzip",
        "chunked, chunked",
        "chunked,",
        ", chunked",
        "chunked;q=1",
        "\"chunked\"",
        "'chunked'",
        "chunked chunked",
        "",
        "chunked\r\nTransfer-Encoding: identity",
        "identity\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: x",
        "x\r\nTransfer-Encoding: chunked",
        "\u{b}chunked",
        "chunked\u{c}",
        "chun\0ked",
        "\r\n chunked",
        "x,\r\n chunked",
        "chunked\r\n x",
        "chunked\rX: y",
    ] {
        for length in ["", "\r\nContent-Length: 5"] {
            let headers = format!("Transfer-Encoding: {coding}{length}");
            cases.push(refused(&format!("{headers:?}"), post(&headers, &body)));
        }
    }
    for line in [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "\tTransfer-Encoding: chunked",
        "X: y\r\n Transfer-Encoding: chunked",
        "Transfer-Encoding\r\n : chunked",
        "Transfer-Encoding\n: chunked",
        "Transfer-Encoding\0: chunked",
        "Transfer\u{a0}Encoding: chunked",
        "Transfer Encoding: chunked",
        "Transfer-Encoding",
        "Transfer-Encoding chunked",
        ":Transfer-Encoding: chunked",
        "X: y\rTransfer-Encoding: chunked",
    ] {
        cases.push(refused(&format!("{line:?}"), post(&format!("{line}\r\nContent-Length: 5"), &body)));
    }
    for coding in ["chunked", "Chunked", "CHUNKED", "\tchunked", "   chunked\t "] {
        let bytes = post(&format!("Transfer-Encoding:{coding}"), "5\r\nhello\r\n0\r\n\r\n");
        cases.push(passed(&format!("{coding:?}"), bytes, "hello"));
    }
    // Names that a CGI takes for the real one do not frame anything, and do not pass.
    for name in ["Transfer_Encoding", "Transfer.Encoding", "transfer~encoding"] {
        let bytes = post(&format!("{name}: chunked\r\nContent-Length: {}", HIDDEN.len()), HIDDEN);
        cases.push(passed(name, bytes, HIDDEN));
    }
    cases.push(refused(
        "HTTP/1.0 with chunks",
        format!("POST /public/x HTTP/1.0\r\nHost: gate.test\r\nTransfer-Encoding: chunked\r\n\r\n{body}"),
    ));
    run(cases);
}

#[test]
fn t7_a_length_is_one_number() {
    let mut cases = Vec::new();
    for length in [
        "5, 5",
        "5, 6",
        "5,",
        ",5",
        "5\r\nContent-Length: 6",
        "0\r\nContent-Length: 5",
        "+5",
        "-5",
        "-0",
        "0x5",
        "5a",
        "a",
        "5 5",
        "5;",
        "5.0",
        "5e0",
        "\"5\"",
        "\u{665}",
        "",
        "99999999999999999999",
        "18446744073709551616",
        "18446744073709551621",
        "\u{b}5",
        "5\0",
        "5\r\n 5",
        "\r\n 5",
    ] {
        let headers = format!("Content-Length: {length}");
        cases.push(refused(&format!("{headers:?}"), post(&headers, format!("hello{HIDDEN}"))));
    }
    for line in [
        "Content-Length : 5",
        "Content-Length\t: 5",
        " Content-Length: 5",
        "Content-Length\r\n : 5",
        "Content Length: 5",
    ] {
        cases.push(refused(&format!("{line:?}"), post(line, format!("hello{HIDDEN}"))));
    }
    for (name, headers) in [
        ("plain", "Content-Length: 5"),
        ("leading zeros", "Content-Length: 0005"),
        ("spaces around", "Content-Length: \t 5 \t"),
        // The library keeps one of several that are equal.
        ("twice the same", "Content-Length: 5\r\nContent-Length: 5"),
        ("letter case", "content-LENGTH: 5"),
    ] {
        cases.push(passed(name, post(headers, "hello"), "hello"));
    }
    // A header that only resembles a length is ignored: the rest is a separate request, which is judged.
    for name in ["Content_Length", "Content.Length", "X-Content-Length"] {
        let bytes = post(&format!("{name}: {}", HIDDEN.len()), HIDDEN);
        cases.push(answered(name, bytes, &[200, 401], false, &[b""]));
    }
    run(cases);
}

#[test]
fn t7_a_head_that_two_parsers_read_differently_is_refused() {
    let mut cases = Vec::new();
    for line in [
        "X: a\r\n b",
        "X: a\r\n\tb",
        "X: a\r\n \r\nY: b",
        ": a",
        " : a",
        "X",
        "X\0: a",
        "X Y: a",
        "X\u{e9}: a",
        "(X): a",
        "X@: a",
        "X: a\rb",
        "X: a\r\rb",
        "X: a\0b",
        "X: a\u{1}b",
        "X: a\u{7f}b",
        "X: a\u{8}",
        "\0",
        "\rX: a",
        "X: a\r",
    ] {
        let bytes = format!("GET /public/x HTTP/1.1\r\nHost: gate.test\r\n{line}\r\n\r\n{HIDDEN}");
        cases.push(refused(&format!("{line:?}"), bytes));
    }
    for line in [
        " GET /public/x HTTP/1.1",
        "GET  /public/x HTTP/1.1",
        "GET /public/x  HTTP/1.1",
        "GET /public/x HTTP/1.1 ",
        "GET\t/public/x HTTP/1.1",
        "GET /public/x\tHTTP/1.1",
        "GET /public/x HTTP/1.1\r",
        "GET /public/x HTTP/1.1\0",
        "GET /public/x HTTP/1.1, HTTP/1.0",
        "GET /public/x",
        "GET /public/x ",
        "GET /public/x http/1.1",
        "GET /public/x HTTP/1.2",
        "GET /public/x HTTP/2.0",
        "GET /public/x HTTP/11",
        "GET /public/x HTTP/1.1x",
        "GET /public/x HTTPS/1.1",
        "GET /public/x HTTP/1.1 HTTP/1.1",
        "GET /public/x /private/y HTTP/1.1",
        "GET HTTP/1.1",
        "G\0T /public/x HTTP/1.1",
        "G(T /public/x HTTP/1.1",
        "G\u{e9}T /public/x HTTP/1.1",
        "PRI * HTTP/2.0",
        "\u{feff}GET /public/x HTTP/1.1",
    ] {
        cases.push(refused(&format!("{line:?}"), format!("{line}\r\nHost: gate.test\r\n\r\n{HIDDEN}")));
    }
    // The upstream does not get the bytes that the library accepts as a line end, or skips.
    for (name, bytes) in [
        ("bare line feeds", "GET /public/x HTTP/1.1\nHost: gate.test\n\n"),
        ("a bare line feed at one line", "GET /public/x HTTP/1.1\r\nX: a\nHost: gate.test\r\n\r\n"),
        ("empty lines first", "\r\n\r\nGET /public/x HTTP/1.1\r\nHost: gate.test\r\n\r\n"),
    ] {
        cases.push(passed(name, bytes, ""));
    }
    run(cases);
}

#[test]
fn t7_chunks_are_what_they_say() {
    let chunked = "Transfer-Encoding: chunked";
    let mut cases = Vec::new();
    for (name, body) in [
        ("negative", "-5\r\nhello\r\n0\r\n\r\n"),
        ("with a plus", "+5\r\nhello\r\n0\r\n\r\n"),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("no digits", "\r\nhello\r\n0\r\n\r\n"),
        ("no hex", "g\r\nhello\r\n0\r\n\r\n"),
        ("overflow", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
        ("overflow to zero", "fffffffffffffffff0\r\nhello\r\n0\r\n\r\n"),
        ("many zeros before an overflow", "00000000000000000000fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ("space first", " 5\r\nhello\r\n0\r\n\r\n"),
        ("two numbers", "5 5\r\nhello\r\n0\r\n\r\n"),
        ("comma", "5,5\r\nhello\r\n0\r\n\r\n"),
        ("underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
        ("line feed alone", "5\nhello\r\n0\r\n\r\n"),
        ("carriage return alone", "5\rhello\r\n0\r\n\r\n"),
        ("two carriage returns", "5\r\r\nhello\r\n0\r\n\r\n"),
        ("data too long", "5\r\nhelloo\r\n0\r\n\r\n"),
        ("data too short", "6\r\nhello\r\n0\r\n\r\n"),
        ("no line end after the data", "5\r\nhello0\r\n\r\n"),
        ("line feed after the data", "5\r\nhello\n0\r\n\r\n"),
        ("line feed at the end", "5\r\nhello\r\n0\n\n"),
        ("line feed in an extension", "5;a\nb\r\nhello\r\n0\r\n\r\n"),
        ("line feed in a quoted extension", "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n"),
        ("line end in a quoted extension", "5;a=\"\r\n\"\r\nhello\r\n0\r\n\r\n"),
        ("carriage return in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        ("extension with line feed alone: TERM.EXT", "2;\nxx\r\n10\r\n\r\nGET /private/y H\r\n0\r\n\r\n"),
        ("trailer without a colon", "0\r\nX\r\n\r\n"),
        ("trailer with a space before the colon", "0\r\nX : a\r\n\r\n"),
        ("trailer folded", "0\r\nX: a\r\n b\r\n\r\n"),
        ("trailer with NUL", "0\r\nX: a\0\r\n\r\n"),
        ("trailer without a name", "0\r\n: a\r\n\r\n"),
        ("trailer with a carriage return", "0\r\nX: a\rb\r\n\r\n"),
        ("no end after the last chunk", "0\r\nGET /private/hidden HTTP/1.1\r\nHost: gate.test\r\n\r\n"),
    ] {
        cases.push(refused(name, post(chunked, format!("{body}{HIDDEN}"))));
    }
    let long = "x".repeat(20_000);
    cases.push(refused("an extension of 20 kB", post(chunked, format!("5;{long}\r\nhello\r\n0\r\n\r\n"))));
    let many = format!("1;{}\r\nh\r\n", "x".repeat(100)).repeat(200);
    cases.push(refused("extensions of 20 kB in all", post(chunked, format!("{many}0\r\n\r\n"))));
    cases.push(refused("a trailer of 40 kB", post(chunked, format!("0\r\nX: {long}{long}\r\n\r\n"))));
    let trailers: String = (0..200).map(|i| format!("X-{i}: 1\r\n")).collect();
    cases.push(refused("200 trailers", post(chunked, format!("0\r\n{trailers}\r\n"))));
    for (name, body) in [
        ("plain", "5\r\nhello\r\n0\r\n\r\n"),
        ("in pieces", "2\r\nhe\r\n1\r\nl\r\n2\r\nlo\r\n0\r\n\r\n"),
        ("leading zeros", "0000000005\r\nhello\r\n000\r\n\r\n"),
        ("an extension", "5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n"),
        ("spaces behind the size", "5 \t\r\nhello\r\n0\r\n\r\n"),
        ("a trailer", "5\r\nhello\r\n0\r\nX-Checksum: 1\r\n\r\n"),
    ] {
        cases.push(passed(name, post(chunked, body), "hello"));
    }
    run(cases);
}

#[test]
fn t7_what_follows_a_request_is_the_next_one_or_nothing() {
    let mut cases = Vec::new();
    // An unexpected body is a body.
    for method in ["GET", "DELETE", "OPTIONS"] {
        let length = HIDDEN.len();
        let head = format!("{method} /public/x HTTP/1.1\r\nHost: gate.test\r\nContent-Length: {length}\r\n\r\n");
        cases.push(passed(&format!("{method} with a body"), format!("{head}{HIDDEN}"), HIDDEN));
    }
    let get = "GET /public/x HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    cases.push(answered("pipelined", format!("{get}{HIDDEN}{get}"), &[200, 401, 200], false, &[b"", b""]));
    let bad_path = "GET /public/..%2fx HTTP/1.1\r\nHost: gate.test\r\n\r\n";
    cases.push(answered("after a bad path", format!("{bad_path}{HIDDEN}{get}"), &[400, 401, 200], false, &[b""]));
    let closing = get.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    cases.push(answered("after the last one", format!("{closing}{get}"), &[200], true, &[b""]));
    let old = "GET /public/x HTTP/1.0\r\nHost: gate.test\r\n\r\n";
    cases.push(answered("after one of HTTP/1.0", format!("{old}{get}"), &[200], true, &[b""]));
    cases.push(refused("after what is no request", format!("nonsense\r\n\r\n{get}")));
    // Expect.
    let expecting = "Content-Length: 5\r\nExpect: 100-continue";
    cases.push(answered("Expect", post(expecting, "hello"), &[100, 200], false, &[b"hello"]));
    for expect in ["y", "100-continue, y", "\"100-continue\"", "100-continue;x", "200-ok", ""] {
        let bytes = post(&format!("Content-Length: 5\r\nExpect: {expect}"), "hello");
        cases.push(passed(&format!("Expect: {expect}"), bytes, "hello"));
    }
    let bytes = post("Expect: 100-continue\r\nContent-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG");
    cases.push(answered("Expect with both framings", bytes, &[100, 200], true, &[b""]));
    let bytes = post("Expect: 100-continue\r\nTransfer-Encoding: gzip, chunked", "0\r\n\r\nG");
    cases.push(refused("Expect with a coding", bytes));
    // A change of protocol that is not one.
    let upgrade = "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__";
    let bytes = post(&format!("{upgrade}\r\nContent-Length: {}", HIDDEN.len()), HIDDEN);
    cases.push(passed("Upgrade: h2c", bytes, HIDDEN));
    run(cases);
}

#[test]
fn t8_a_connection_whose_request_was_answered_early_is_used_for_no_other() {
    let edge = Edge::new(ROUTES);
    for round in 0..3 {
        let mut wire = edge.wire();
        wire.head("POST /public/early", &["Host: gate.test", "Content-Length: 1000"]);
        // The upstream has answered, and would take the rest of the body for this request.
        wire.send(HIDDEN);
        assert_eq!(wire.reply().status, 200, "{round}");
        for _ in 0..3 {
            assert_eq!(edge.ask("GET /public/next", &[]).status, 200, "{round}");
        }
        wire.send(HIDDEN);
        let received = edge.stub.take();
        let targets: Vec<&str> = received.iter().map(|received| received.target.as_str()).collect();
        assert_eq!(targets, ["/public/early", "/public/next", "/public/next", "/public/next"], "{round}");
        assert!(received[1..].iter().all(|next| next.connection != received[0].connection), "{round}");
    }
}

#[test]
fn t8_an_upstream_that_frames_twice_leaves_nothing_for_the_next_answer() {
    let edge = Edge::new(ROUTES);
    for _ in 0..3 {
        let reply = edge.ask("GET /public/both", &[]);
        assert_eq!(
            (reply.status, reply.text().as_str(), reply.all("content-length").len()),
            (200, "ok", 0),
            "{reply:?}"
        );
        assert_eq!(edge.ask("GET /public/x", &[]).text(), "ok");
    }
}
