//! What HTTP itself asks of the gate at the ends of an exchange: heads that nobody can read, answers without a body, and
//! clients that close their half of the connection.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use support::stub::{Edge, HEAD, ROUTES};
use support::wire::Wire;
use support::{CONFIG, Place, until};

/// What the parser refuses, with the status and the beginning of what the log says.
fn unreadable() -> Vec<(String, u16, &'static str)> {
    let get = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nhost: gate.test\r\n{more}\r\n");
    let fields: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    vec![
        (get("/public/x", &fields), 431, "more than 100 header fields"),
        (get("/public/x", &format!("cookie: {}\r\n", "a".repeat(300_000))), 431, "more than 100 header fields"),
        (get(&format!("/public/{}", "a".repeat(65_600)), ""), 414, "the request target is longer"),
        (get("/public/x?q=\"a\"", ""), 400, "the request target has a byte"),
        (get("/public/x", "content-length: abc\r\n"), 400, "`Content-Length`"),
        (get("/public/x", "content-length: 1\r\ncontent-length: 2\r\n"), 400, "`Content-Length`"),
        (get("/public/x", "transfer-encoding: gzip\r\n"), 400, "`Transfer-Encoding`"),
        (get("/public/x", "x: a\r\n b\r\n"), 400, "a header field is malformed"),
        (get("/public/x", "no colon\r\n"), 400, "a header field is malformed"),
        ("GET /public/x HTTP/3.0\r\nhost: gate.test\r\n\r\n".to_owned(), 400, "not an HTTP version"),
        ("\x16\x03\x01\x02\0\x01\0\x01\u{fc}\x03\x03".to_owned(), 400, "not an HTTP method"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t49_what_the_parser_refuses_has_a_line_a_metric_and_an_id() {
    let place = Place::new(&format!("{CONFIG}[log]\nformat = \"json\"\n[access_log]\noutput = \"./access.log\"\n"));
    let gate = place.start();
    let lines = || -> Vec<Value> {
        let text = fs::read_to_string(place.path("access.log")).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let all = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|line| line["rotogate.outcome"] == "bad_head").collect()
    };
    for (number, (request, status, detail)) in unreadable().into_iter().enumerate() {
        let mut wire = Wire::open(gate.address);
        wire.send(&request);
        let begin: String = request.chars().take(80).collect();
        assert_eq!(wire.reply().status, status, "{begin}");
        until("the line is written", async || {
            // A worker writes its lines with a later one.
            gate.call(Method::GET, "/public/next", &[], "").await;
            lines().len() > number
        })
        .await;
        let line = lines().pop().unwrap();
        assert_eq!(line["http.response.status_code"], status, "{begin}");
        assert!(line["rotogate.detail"].as_str().unwrap().starts_with(detail), "{begin}: {line:#}");
        assert_eq!((&line["http.request.method"], &line["url.path"]), (&"-".into(), &"*".into()));
        assert_eq!(line["client.address"], "127.0.0.1");
        assert!(line["http.request.id"].as_str().is_some_and(|id| id.len() > 8), "{line:#}");
    }
    let metrics = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    let counted = metrics.lines().filter(|line| line.contains("outcome=\"bad_head\"")).count();
    assert!(counted > 0, "{metrics}");
}

#[test]
fn t11_a_query_with_raw_utf_8_is_told_what_is_wrong() {
    let edge = Edge::new(ROUTES);
    let reply = edge.ask("GET /public/x?q=\u{e4}", &[]);
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("percent-encoded"), "{}", reply.text());
    assert!(edge.stub.take().is_empty());
}

#[test]
fn t47_no_answer_to_head_has_a_body_over_http2() {
    let endpoints = "[[endpoints]]\ndialect = \"browser\"\npath = \"/auth\"\n";
    let head = HEAD.replace("http://gate.test", "https://gate.test");
    let edge = Edge::with(&format!("{head}{endpoints}{ROUTES}"), |_| {}, |_| {});
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>();
    let ask = |method: &Method, path: &str| {
        let request = Request::builder().method(method).uri(format!("http://gate.test{path}"));
        let mut request = request.body(Full::default()).unwrap();
        *request.uri_mut() = format!("http://{}{path}", edge.gate.address).parse().unwrap();
        request.headers_mut().insert("host", "gate.test".parse().unwrap());
        runtime.block_on(async {
            let (parts, body) = client.request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap_or_else(|fault| panic!("{method} {path}: {fault:?}"));
            (parts.status, parts.headers.get("content-length").cloned(), body.to_bytes())
        })
    };
    for path in [
        "/private/x",
        "/private/%2f",
        "/nowhere",
        "/public/x",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/nothing",
        "/connect/token",
        "/auth/login",
        "/auth/session",
        "/auth/logout",
        "/auth/callback",
        "/auth/device",
    ] {
        let (status, length, body) = ask(&Method::HEAD, path);
        assert!(body.is_empty(), "{path}: {body:?}");
        if path.starts_with("/.well-known/j") || path == "/private/x" {
            let (same, _, whole) = ask(&Method::GET, path);
            assert_eq!(status, same, "{path}");
            let length = length.map(|length| length.to_str().unwrap().parse::<usize>().unwrap());
            assert!(length.is_none_or(|length| length == whole.len()), "{path}: {length:?}");
        }
    }
}

/// An upstream that answers each request once it is told to, and says what it received, and that its client is gone.
fn patient() -> (SocketAddr, Receiver<String>, std::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let ((said, hear), (go, may)) = (channel(), channel::<()>());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream: TcpStream = stream;
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().and_then(Result::ok).unwrap_or_default();
            lines.by_ref().map_while(Result::ok).take_while(|line| !line.is_empty()).for_each(drop);
            let is_held = first.contains("/held");
            let _ = said.send(first);
            if is_held {
                let _ = stream.read(&mut [0]);
                let _ = said.send("gone".to_owned());
                continue;
            }
            let _ = may.recv();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
        }
    });
    (address, hear, go)
}

#[test]
fn t48_a_client_that_half_closes_gets_its_answer_and_one_that_resets_is_noticed() {
    let (address, hear, go) = patient();
    let config = format!("{HEAD}{ROUTES}").replace("http://@upstream@", &format!("http://{address}"));
    let edge = Edge::with(&config, |_| {}, |_| {});
    let form = format!("grant_type=password&client_id=web&username=demo&password={}", edge.gate.password);
    let post = format!(
        "POST /public/x HTTP/1.1\r\nhost: gate.test\r\ncontent-length: {}\r\n\r\n{}",
        form.len(),
        "x".repeat(form.len())
    );
    for request in ["GET /public/x HTTP/1.1\r\nhost: gate.test\r\n\r\n", &post] {
        for _ in 0..10 {
            let stream = TcpStream::connect(edge.gate.address).unwrap();
            (&stream).write_all(request.as_bytes()).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            hear.recv_timeout(Duration::from_secs(30)).unwrap();
            // The gate sees the end of the client's half before it has the answer.
            assert_eq!(edge.ask("GET /nowhere", &[]).status, 401);
            go.send(()).unwrap();
            let reply = Wire::on(stream).reply();
            assert_eq!((reply.status, reply.text()), (200, "ok".to_owned()));
        }
    }
    let login = format!(
        "POST /connect/token HTTP/1.1\r\nhost: gate.test\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {}\r\n\r\n{form}",
        form.len()
    );
    let stream = TcpStream::connect(edge.gate.address).unwrap();
    (&stream).write_all(login.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(Wire::on(stream).reply().status, 200);
    // A probe of the admin address.
    for probe in ["/livez", "/readyz"].repeat(20) {
        let stream = TcpStream::connect(edge.gate.admin).unwrap();
        (&stream).write_all(format!("GET {probe} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(Wire::on(stream).reply().status, 200, "{probe}");
    }
    // A client that is gone: its connection is reset.
    let socket = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_zero_linger().unwrap();
        socket.connect(edge.gate.address).await.unwrap().into_std().unwrap()
    });
    socket.set_nonblocking(false).unwrap();
    (&socket).write_all(b"GET /public/held HTTP/1.1\r\nhost: gate.test\r\n\r\n").unwrap();
    hear.recv_timeout(Duration::from_secs(30)).unwrap();
    drop(socket);
    assert_eq!(hear.recv_timeout(Duration::from_secs(30)).unwrap(), "gone");
}
