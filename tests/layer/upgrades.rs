//! Upgrades to inner services: only where the policy permits them, and until their session ends.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{Message, WebSocketUpgrade};
use axum::response::Response as AxumResponse;
use axum::routing::get;
use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rotogate::gate::{Lease, NewSession};
use rotogate::route::{Route, RoutePolicy};
use rotogate::{Gate, Identity};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::{Layer, service_fn};

use crate::builder;
use crate::client::Server;

/// Sends for ever, and never checks a lease.
pub async fn chatter(upgrade: WebSocketUpgrade) -> AxumResponse {
    upgrade.on_upgrade(async |mut socket| {
        while socket.send(Message::text("on and on")).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
}

pub fn upgrading() -> RoutePolicy {
    RoutePolicy { upgrade: true, ..RoutePolicy::default() }
}

async fn session(gate: &Gate) -> (rotogate::session::SessionId, String) {
    let issued = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    (issued.session.unwrap(), issued.access_token.expose().to_owned())
}

/// Requests an upgrade. Returns the status, and the connection after the head of the answer.
pub async fn ask(server: Server, path: &str, protocol: &str, token: Option<&str>) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(server.0).await.unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: api.test\r\nconnection: Upgrade\r\nupgrade: {protocol}\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{token}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), stream)
}

/// Reads until the other side ends; the limit of a minute is for failing tests.
pub async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut rest = Vec::new();
    let reading = stream.read_to_end(&mut rest);
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("the connection goes on").unwrap();
    rest
}

#[tokio::test]
async fn t30_a_websocket_whose_handler_looks_at_no_lease_ends_with_its_session() {
    let gate = builder().route(Route::catch_all(upgrading())).build().await.unwrap();
    let behind = Server::axum(Router::new().route("/ws", get(chatter)).layer(gate.layer())).await;
    let alone = Server::axum(Router::new().route("/ws", get(chatter)).route_layer(gate.require().upgrade())).await;
    for server in [behind, alone] {
        let (id, access) = session(&gate).await;
        let (status, mut stream) = ask(server, "/ws", "websocket", Some(&access)).await;
        assert_eq!(status, 101);
        assert_eq!(stream.read_u8().await.unwrap(), 0x81, "a text frame");
        assert!(gate.sessions().revoke(id).await.unwrap());
        let said = rest(&mut stream).await;
        // A Close frame of code 1008, and nothing after it.
        let close = said.windows(4).rposition(|four| four[0] == 0x88 && four[2..] == 1008_u16.to_be_bytes()).unwrap();
        assert_eq!(said.len() - close, 2 + usize::from(said[close + 1]));
        assert_eq!(ask(server, "/ws", "websocket", Some(&access)).await.0, 401);
    }
}

/// A handler that waits for the end of its lease, and leaves before the gate has looked again.
async fn leaver(axum::Extension(lease): axum::Extension<Lease>, upgrade: WebSocketUpgrade) -> AxumResponse {
    upgrade.on_upgrade(async move |mut socket| {
        socket.send("hello".into()).await.unwrap();
        lease.ended(Duration::from_millis(1)).await;
    })
}

#[tokio::test]
async fn t40_a_handler_that_leaves_at_the_end_of_its_lease_leaves_the_close_code_to_the_gate() {
    let gate = builder().route(Route::catch_all(upgrading())).build().await.unwrap();
    let behind = Server::axum(Router::new().route("/ws", get(leaver)).layer(gate.layer())).await;
    let alone = Server::axum(Router::new().route("/ws", get(leaver)).route_layer(gate.require().upgrade())).await;
    for server in [behind, alone] {
        let (id, access) = session(&gate).await;
        let (status, mut stream) = ask(server, "/ws", "websocket", Some(&access)).await;
        assert_eq!(status, 101);
        assert_eq!(stream.read_u8().await.unwrap(), 0x81, "a text frame");
        assert!(gate.sessions().revoke(id).await.unwrap());
        let said = rest(&mut stream).await;
        assert!(said.windows(4).any(|four| four[0] == 0x88 && four[2..] == 1008_u16.to_be_bytes()), "{said:?}");
    }
}

#[tokio::test]
async fn t30_no_upgrade_passes_where_the_policy_passes_none() {
    let gate = builder()
        .route(Route::new("/ws", RoutePolicy::default()))
        .route(Route::new("/up", upgrading()))
        .build()
        .await
        .unwrap();
    let app = || Router::new().route("/ws", get(chatter)).route("/up", get(chatter));
    let behind = Server::axum(app().layer(gate.layer())).await;
    let alone = Server::axum(app().route_layer(gate.require())).await;
    let (_, access) = session(&gate).await;
    for (server, path) in [(behind, "/ws"), (alone, "/ws"), (alone, "/up")] {
        // axum does not get the upgrade, and reports that.
        assert_eq!(ask(server, path, "websocket", Some(&access)).await.0, 400, "{path}");
    }
    assert_eq!(ask(behind, "/up", "websocket", Some(&access)).await.0, 101);
    assert_eq!(ask(behind, "/up", "websocket", None).await.0, 401);
    // Another form of HTTP would carry requests that the gate never judges.
    assert_eq!(ask(behind, "/up", "h2c", Some(&access)).await.0, 400);
}

/// Echoes in its own protocol.
async fn echo(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    assert!(Identity::from_extensions(request.extensions()).is_none_or(|identity| identity.subject() == "ada"));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut reads, mut writes) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        tokio::io::copy(&mut reads, &mut writes).await
    });
    let mut response = Response::new(Empty::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("echo"));
    Ok(response)
}

#[tokio::test]
async fn t30_any_upgrade_in_front_of_plain_hyper_ends_with_its_session_and_a_public_one_with_the_gate() {
    let public = RoutePolicy { upgrade: true, ..RoutePolicy::public() };
    let gate =
        builder().route(Route::new("/public", public)).route(Route::catch_all(upgrading())).build().await.unwrap();
    let service = gate.layer().layer(service_fn(echo));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades());
        }
    });
    let (id, access) = session(&gate).await;
    let (status, mut stream) = ask(server, "/x", "echo", Some(&access)).await;
    assert_eq!(status, 101);
    let (status, mut open) = ask(server, "/public", "echo", None).await;
    assert_eq!(status, 101);
    // More than a pipe holds.
    let text = vec![7; 100_000];
    for stream in [&mut stream, &mut open] {
        let mut back = vec![0; text.len()];
        let (mut reads, mut writes) = stream.split();
        let (read, written) = tokio::join!(reads.read_exact(&mut back), writes.write_all(&text));
        read.unwrap();
        written.unwrap();
        assert!(back == text);
    }
    gate.sessions().revoke(id).await.unwrap();
    assert_eq!(rest(&mut stream).await, b"");
    open.write_all(b"!").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'!', "nobody's connection hangs on nobody's session");
    gate.close_connections();
    assert_eq!(rest(&mut open).await, b"");
}
