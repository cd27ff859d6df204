//! The small print of HTTP: interim answers, `Expect`, `HEAD`, answers without a body, trailers, and bodies that break off.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::frames::{self, Outcome, Part, fields};
use support::stub::{Edge, HEAD, ROUTES};

/// The head of a `POST` over HTTP/2.
fn post(path: &str, more: &[(&str, &str)]) -> Vec<frames::Field> {
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "gate.test"), (":path", path)];
    fields(&[&head[..], more].concat())
}

#[test]
fn interim_answers_of_the_upstream_stay_here() {
    let edge = Edge::new(ROUTES);
    let mut wire = edge.wire();
    for _ in 0..2 {
        wire.head("GET /public/hints", &["Host: gate.test"]);
        let reply = wire.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"), "the first head is the last one");
        assert_eq!((reply.all("link").len(), reply.all("x-auth-subject").len()), (0, 0));
    }
    assert_eq!(frames::ask(edge.gate.address, &post("/public/hints", &[]), &[]), Outcome::Status(200));
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on_by_the_gate_and_the_upstream_is_not_asked() {
    let edge = Edge::new(ROUTES);
    for expect in ["100-continue", "100-Continue"] {
        for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
            let mut wire = edge.wire();
            wire.head("POST /public/x", &["Host: gate.test", framing, &format!("Expect: {expect}")]);
            assert_eq!(wire.reply().status, 100, "{expect} {framing}");
            assert!(edge.stub.take().is_empty(), "nothing is whole yet");
            wire.send(if framing.starts_with('C') { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" });
            assert_eq!(wire.reply().status, 200, "{expect} {framing}");
            let received = edge.stub.one();
            assert_eq!((received.body.as_slice(), received.all("expect").len()), (&b"hello"[..], 0));
        }
    }
    // An answer that needs no body replaces the 100.
    let mut wire = edge.wire();
    wire.head("POST /private", &["Host: gate.test", "Content-Length: 5", "Expect: 100-continue"]);
    assert_eq!(wire.reply().status, 401);
}

#[test]
fn what_has_no_body_by_its_nature_is_answered_without_one() {
    let edge = Edge::new(ROUTES);
    let mut wire = edge.wire();
    for _ in 0..2 {
        wire.head("HEAD /public/x", &["Host: gate.test"]);
        let reply = wire.reply_to_head();
        assert_eq!((reply.status, reply.header("content-length")), (200, "1234"));
        wire.head("GET /public/empty", &["Host: gate.test"]);
        let reply = wire.reply();
        assert_eq!((reply.status, reply.header("x-kept")), (204, "yes"));
        assert_eq!((reply.all("content-length").len(), reply.all("transfer-encoding").len()), (0, 0), "{reply:?}");
        wire.head("GET /public/same", &["Host: gate.test", "If-None-Match: \"a\""]);
        let reply = wire.reply();
        assert_eq!((reply.status, reply.header("etag"), reply.all("transfer-encoding").len()), (304, "\"a\"", 0));
        assert_eq!(edge.stub.take().last().unwrap().all("if-none-match"), ["\"a\""]);
        // The next bytes belong to the next answer.
        wire.head("GET /public/x", &["Host: gate.test"]);
        assert_eq!((wire.reply().status, edge.stub.take().len()), (200, 1));
    }
    // An upstream that sends a body nevertheless does not corrupt another answer.
    for path in ["/public/both", "/public/trailers", "/public/cut", "/public/cut-chunk"] {
        wire.head(&format!("HEAD {path}"), &["Host: gate.test"]);
        assert_eq!(wire.reply_to_head().status, 200, "{path}");
        wire.head("GET /public/x", &["Host: gate.test"]);
        assert_eq!(wire.reply().text(), "ok", "{path}");
    }
}

#[test]
fn t8_a_body_that_breaks_off_upstream_does_not_end_well_for_the_client() {
    let edge = Edge::new(ROUTES);
    for (path, rest) in [("/public/cut", "half"), ("/public/cut-chunk", "4\r\nhalf\r\n")] {
        let mut wire = edge.wire();
        wire.head(&format!("GET {path}"), &["Host: gate.test"]);
        // Bytes that were not sent before the failure are lost with the connection, perhaps even the head.
        let came = wire.rest();
        let body = came.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        assert!(came.is_empty() || came.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {came:?}");
        assert!(rest.starts_with(body), "{path}: neither more, nor an end that was not there: {came:?}");
        let outcome = frames::ask(edge.gate.address, &post(path, &[]), &[]);
        assert!(matches!(outcome, Outcome::Reset(code) if code != 0), "{path}: {outcome:?}");
        assert_eq!(edge.ask("GET /public/x", &[]).text(), "ok");
    }
}

#[test]
fn t8_a_body_that_breaks_off_at_the_client_is_no_request_upstream() {
    let edge = Edge::new(ROUTES);
    for framing in ["Content-Length: 10", "Transfer-Encoding: chunked"] {
        let mut wire = edge.wire();
        wire.head("POST /public/x", &["Host: gate.test", framing]);
        wire.send(if framing.starts_with('C') { "half" } else { "4\r\nhalf\r\n" });
        drop(wire);
        assert_eq!(edge.ask("GET /public/next", &[]).status, 200);
        assert_eq!(edge.stub.one().target, "/public/next", "{framing}");
    }
}

#[test]
fn trailers_of_a_request_arrive_if_they_are_announced_and_harmless() {
    let edge = Edge::new(ROUTES);
    let announced = "Trailer: x-checksum, x-auth-subject, content-length, authorization, x-real-ip, cookie, x_y";
    let trailers = [
        ("X-Checksum", "abc"),
        ("X-Auth-Subject", "forged"),
        ("Content-Length", "7"),
        ("Authorization", "Bearer x"),
        ("X-Real-IP", "6.6.6.6"),
        ("Cookie", "a=b"),
        ("X_Y", "1"),
        ("X-Unsaid", "1"),
    ];
    let expected = [("x-checksum".to_owned(), "abc".to_owned())];
    let lines: String = trailers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut wire = edge.wire();
    for _ in 0..2 {
        wire.head("POST /public/x", &["Host: gate.test", "Transfer-Encoding: chunked", announced]);
        wire.send(format!("5\r\nhello\r\n0\r\n{lines}\r\n"));
        assert_eq!(wire.reply().status, 200);
        let received = edge.stub.one();
        assert_eq!((received.body.as_slice(), received.trailers.as_slice()), (&b"hello"[..], &expected[..]));
    }
    let lower: Vec<(String, &str)> = trailers.iter().map(|(name, value)| (name.to_lowercase(), *value)).collect();
    let lower: Vec<(&str, &str)> = lower.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let head = post("/public/x", &[("trailer", announced.trim_start_matches("Trailer: "))]);
    let parts = [Part::Data(b"hello".to_vec()), Part::Trailers(fields(&lower))];
    assert_eq!(frames::ask(edge.gate.address, &head, &parts), Outcome::Status(200));
    let received = edge.stub.one();
    assert_eq!((received.body.as_slice(), received.trailers.as_slice()), (&b"hello"[..], &expected[..]));
}

#[test]
fn trailers_of_an_answer_go_to_who_asks_for_them() {
    let edge = Edge::new(ROUTES);
    let ask = |version: &str, headers: &[&str]| {
        let mut wire = edge.wire();
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        wire.send(format!("GET /public/trailers {version}\r\nHost: gate.test\r\nConnection: close\r\n{headers}\r\n"));
        wire.rest().to_ascii_lowercase().split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let told = ask("HTTP/1.1", &["TE: trailers"]);
    assert!(told.starts_with("2\r\nok\r\n0\r\n") && told.ends_with("\r\n\r\n"), "{told:?}");
    assert!(told.contains("x-checksum: abc\r\n") && told.contains("x-more: 1\r\n"), "{told:?}");
    assert!(!told.contains("content-length") && !told.contains("x-unsaid"), "{told:?}");
    assert_eq!(ask("HTTP/1.1", &[]), "2\r\nok\r\n0\r\n\r\n");
    assert_eq!(ask("HTTP/1.0", &["TE: trailers"]), "ok");
}

/// An upstream behind `h2c://` that answers with the received trailers in its body, and with its own trailers.
async fn upstream(seen: Arc<Mutex<Vec<HeaderMap>>>) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let seen = Arc::clone(&seen);
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let seen = Arc::clone(&seen);
                async move {
                    let body = request.into_body().collect().await?;
                    seen.lock().unwrap().push(body.trailers().cloned().unwrap_or_default());
                    let mut trailers = HeaderMap::new();
                    trailers.insert("x-checksum", HeaderValue::from_static("abc"));
                    let body = Full::<Bytes>::from("ok").with_trailers(std::future::ready(Some(Ok(trailers))));
                    Ok::<_, hyper::Error>(Response::new(body))
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn t3_trailers_go_both_ways_over_http_2_and_say_nothing_of_the_caller() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let address = upstream(Arc::clone(&seen)).await;
    let config = format!("{HEAD}{ROUTES}").replace("http://@upstream@", &format!("h2c://{address}"));
    let edge = Edge::with(&config, |_| {}, |_| {});
    let stream = tokio::net::TcpStream::connect(edge.gate.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut trailers = HeaderMap::new();
    for name in ["x-checksum", "x-auth-subject", "x_auth_subject", "authorization", "content-length", "x-user-id"] {
        trailers.insert(http::HeaderName::from_static(name), HeaderValue::from_static("forged"));
    }
    let body = Full::<Bytes>::from("hello").with_trailers(std::future::ready(Some(Ok(trailers))));
    let answer = client.send_request(Request::post("http://gate.test/public/x").body(body).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    let answer = answer.into_body().collect().await.unwrap();
    assert_eq!(answer.trailers().unwrap()["x-checksum"], "abc");
    assert_eq!(answer.to_bytes(), "ok");
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let names: Vec<&str> = seen[0].keys().map(http::HeaderName::as_str).collect();
    assert_eq!((seen.len(), names), (1, vec!["x-checksum"]));
}
