//! The admin listener (requirement O1), and how a gate stops.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;

use support::{CONFIG, Place, raw, try_send, until};

#[tokio::test]
async fn o1_health_is_open_and_what_reads_the_store_needs_the_token() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    let token = token.trim();
    for path in ["/livez", "/readyz"] {
        assert_eq!(gate.admin(Method::GET, path, None).await.status, StatusCode::OK, "{path}");
        assert_eq!(gate.admin(Method::POST, path, None).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let user = gate.login().await;
    for wrong in [None, Some("wrong"), Some(""), Some(&token[1..]), Some(&user.access), Some(&format!("{token}x"))] {
        let answer = gate.admin(Method::POST, "/v1/store/backup", wrong).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let get = gate.admin(Method::GET, "/v1/store/backup", Some(token)).await;
    assert_eq!(get.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(gate.admin(Method::GET, "/nothing", Some(token)).await.status, StatusCode::NOT_FOUND);
    let backup = gate.admin(Method::POST, "/v1/store/backup", Some(token)).await;
    assert_eq!(backup.status, StatusCode::OK);
    assert!(backup.body.starts_with(b"redb"), "the magic number of the file format");
    assert!(!gate.log().contains(token));
    let left = std::fs::read_dir(place.path("data")).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!left.into_iter().any(|name| name.to_str().unwrap().contains("backup")), "no copy stays behind");
}

#[tokio::test]
async fn o1_the_public_port_never_leads_to_the_admin_listener() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    let (admin, token) = (gate.admin, token.trim());
    let end = format!("Authorization: Bearer {token}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    for (request, expected) in [
        (format!("GET /readyz HTTP/1.1\r\nHost: {admin}\r\n{end}"), "401"),
        (format!("POST /v1/store/backup HTTP/1.1\r\nHost: {admin}\r\n{end}"), "401"),
        // The absolute form must name the host of `Host` (requirement T11), which is checked like any host.
        (format!("GET http://{admin}/readyz HTTP/1.1\r\nHost: {admin}\r\n{end}"), "401"),
        (format!("POST http://{admin}/v1/store/backup HTTP/1.1\r\nHost: {admin}\r\n{end}"), "401"),
        (format!("GET http://{admin}/readyz HTTP/1.1\r\nHost: gate.test\r\n{end}"), "400"),
        (format!("CONNECT {admin} HTTP/1.1\r\nHost: {admin}\r\n{end}"), "501"),
    ] {
        let answer = raw(gate.address, request.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{request}: {answer}");
    }
    // A permitted caller reaches the upstream.
    let user = gate.login().await;
    let answer = gate.get("/readyz", &user.access).await;
    assert_eq!((answer.status, answer.echoed("host").len()), (StatusCode::OK, 1), "{answer:?}");
    // The admin listener serves and forwards no path of a route.
    assert_eq!(gate.admin(Method::GET, "/public/a", None).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn sigterm_lets_what_runs_finish_and_ends_with_0() {
    let slow = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = CONFIG
        .replace("echo:", &format!("http://{}", slow.local_addr().unwrap()))
        .replace("drain_timeout = \"2s\"", "drain_timeout = \"60s\"");
    let place = Place::new(&config);
    let mut gate = place.start();
    let (arrived, has_arrived) = tokio::sync::oneshot::channel();
    let (answer, may_answer) = std::sync::mpsc::channel();
    let upstream = std::thread::spawn(move || {
        let (mut stream, _) = slow.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        arrived.send(()).unwrap();
        may_answer.recv().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone").unwrap();
    });
    let request = Request::get(gate.url("/public/slow")).body(Full::new(Bytes::new())).unwrap();
    let running = tokio::spawn(try_send(request));
    has_arrived.await.unwrap();

    assert_eq!(gate.admin(Method::GET, "/readyz", None).await.status, StatusCode::OK);
    gate.signal("TERM");
    until("it is not ready any more", async || {
        gate.admin(Method::GET, "/readyz", None).await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(gate.admin(Method::GET, "/livez", None).await.status, StatusCode::OK, "but alive");
    until("no new connection is taken", async || {
        // A request that the gate answers itself. A request at the moment of the signal may still be served.
        let request = Request::get(gate.url("/.well-known/jwks.json")).body(Full::new(Bytes::new())).unwrap();
        try_send(request).await.is_err()
    })
    .await;
    answer.send(()).unwrap();
    let finished = running.await.unwrap().unwrap();
    assert_eq!((finished.status, &*finished.body), (StatusCode::OK, &b"done"[..]));
    upstream.join().unwrap();
    assert_eq!(gate.child.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn o25_the_admin_listener_answers_by_address_as_localhost_and_by_its_own_names_alone() {
    let place = Place::new(&CONFIG.replace("[admin]\n", "[admin]\nhosts = [\"gate.internal\"]\n"));
    let gate = place.start();
    let port = gate.admin.port();
    let ask = |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        raw(gate.admin, request.as_bytes()).split(' ').nth(1).unwrap_or_default().to_owned()
    };
    for path in ["/livez", "/readyz", "/metrics"] {
        for good in ["127.0.0.1", "localhost", "LOCALHOST", "10.1.2.3", "[::1]", "gate.internal", "Gate.Internal"] {
            // P50: a proxy on this machine may have the name, so that all its callers come from a loopback address.
            let is_named = good.eq_ignore_ascii_case("gate.internal");
            let expected = if path == "/metrics" && is_named { "401" } else { "200" };
            assert_eq!(ask(path, &format!("Host: {good}:{port}\r\n")), expected, "{path} {good}");
            assert_eq!(ask(path, &format!("Host: {good}\r\n")), expected, "{path} {good}");
        }
        // Names whose owner can point them at this address.
        for other in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "gate.internal.evil.example"]
        {
            assert_eq!(ask(path, &format!("Host: {other}:{port}\r\n")), "421", "{path} {other}");
        }
        for broken in ["", "Host: a b\r\n", "Host: localhost\r\nHost: localhost\r\n"] {
            assert_eq!(ask(path, broken), "400", "{path} {broken:?}");
        }
    }
    // Requests of a load balancer's health check.
    for (path, status) in [("/livez", "200"), ("/readyz", "200"), ("/metrics", "400"), ("/v1/sessions", "400")] {
        let plain = format!("GET {path} HTTP/1.0\r\n\r\n");
        assert_eq!(raw(gate.admin, plain.as_bytes()).split(' ').nth(1), Some(status), "{path}");
        let named = format!("GET {path} HTTP/1.0\r\nHost: evil.example\r\n\r\n");
        assert_eq!(raw(gate.admin, named.as_bytes()).split(' ').nth(1), Some("421"), "{path}");
    }
}

#[tokio::test]
async fn o25_the_admin_listener_has_so_many_connections_and_the_oldest_give_way() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let mut all: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(gate.admin).unwrap();
            stream.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
            stream.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0, "each is served");
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let mut is_open =
        |place: usize| all[place].read(&mut [0; 1]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    let mut open = || (0..100).filter(|place| is_open(*place)).collect::<Vec<_>>();
    // Young connections stay; later connections close them.
    until("the oldest are closed", async || {
        raw(gate.admin, b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        open().len() <= 64
    })
    .await;
    assert_eq!(open().last(), Some(&99));
    assert!(open().len() > 60 && open()[0] >= 36, "{:?}", open());
    // The public listener has separate places.
    assert_eq!(gate.get("/public/x", "").await.status, StatusCode::OK);
}
