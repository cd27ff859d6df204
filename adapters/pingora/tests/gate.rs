//! The gate in a pingora proxy, over HTTP, in front of a server that says what it got.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use rotogate::Gate;
use rotogate::client::Client as GateClient;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::gate::{Endpoint, NewSession, Whose};
use rotogate::route::{Route, RoutePolicy};
use rotogate::token::Keyring;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

#[allow(dead_code, reason = "the tests do not call its main")]
#[path = "../examples/proxy.rs"]
mod example;

/// Answers with the head that it got; on `/stream` with a piece every 50 ms.
async fn upstream(mut connection: TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await?);
    }
    if head.starts_with(b"GET /stream") {
        connection.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
        loop {
            connection.write_all(b"5\r\npiece\r\n").await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let reply = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", head.len());
    connection.write_all(reply.as_bytes()).await?;
    connection.write_all(&head).await
}

struct Running {
    gate: Gate,
    port: u16,
    runtime: Runtime,
}

/// Pingora's server runs until the process ends, so the tests share one.
fn running() -> &'static Running {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    RUNNING.get_or_init(|| {
        let runtime = Runtime::new().unwrap();
        let (gate, upstream) = runtime.block_on(async {
            let gate = Gate::builder()
                .issuer("https://api.test")
                .keys(Keyring::ephemeral().unwrap())
                .client(GateClient::public("web"))
                .endpoint(Endpoint::new(OAuth2).path("/token").accepts("application"))
                .route(Route::new("/public/{*rest}", RoutePolicy::public()))
                .route(Route::catch_all(RoutePolicy::default()));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                while let Ok((connection, _)) = listener.accept().await {
                    tokio::spawn(upstream(connection));
                }
            });
            (gate.build().await.unwrap(), port)
        });
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (gated, upstream) = (gate.clone(), ([127, 0, 0, 1], upstream).into());
        std::thread::spawn(move || {
            example::proxy(gated, &format!("127.0.0.1:{port}"), upstream).unwrap().run_forever()
        });
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::yield_now();
        }
        Running { gate, port, runtime }
    })
}

impl Running {
    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        Client::new().get(format!("http://127.0.0.1:{}{path}", self.port))
    }

    /// The tokens of a session of this subject.
    async fn tokens(&self, subject: &str) -> (String, String) {
        let issued = self.gate.sessions().start(NewSession::new(subject, "web")).await.unwrap();
        (issued.access_token.expose().to_owned(), issued.refresh_token.unwrap().expose().to_owned())
    }
}

#[test]
fn the_upstream_sees_the_caller_and_no_token() {
    let it = running();
    it.runtime.block_on(async {
        let (access, _) = it.tokens("ada").await;
        let request = it.get("/orders?x=1").bearer_auth(&access).header("x-auth-subject", "root");
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let head = reply.text().await.unwrap().to_lowercase();
        assert!(head.starts_with("get /orders?x=1 "), "{head}");
        assert!(head.contains("x-auth-subject: ada\r\n") && !head.contains("root"), "{head}");
        assert!(!head.contains("authorization"), "{head}");
        let head = it.get("/public/x").header("x-auth-subject", "root").send().await.unwrap().text().await.unwrap();
        assert!(!head.to_lowercase().contains("x-auth-subject"), "{head}");
    });
}

#[test]
fn a_request_without_a_good_token_is_refused() {
    let it = running();
    it.runtime.block_on(async {
        let (access, _) = it.tokens("bob").await;
        let without = it.get("/orders").send().await.unwrap();
        assert_eq!(without.status(), StatusCode::UNAUTHORIZED);
        assert!(without.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        let forged = it.get("/orders").bearer_auth(format!("{access}x")).send().await.unwrap();
        assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
        it.gate.sessions().revoke_all(Whose::Subject("bob")).await.unwrap();
        assert_eq!(it.get("/orders").bearer_auth(&access).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    });
}

/// pingora would pass these bytes on, and the gate would have judged others.
#[test]
fn a_path_that_is_no_text_is_refused() {
    let it = running();
    it.runtime.block_on(async {
        let mut connection = TcpStream::connect(("127.0.0.1", it.port)).await.unwrap();
        connection
            .write_all(b"GET /public/\xff HTTP/1.1\r\nhost: api.test\r\nconnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut reply = Vec::new();
        connection.read_to_end(&mut reply).await.unwrap();
        assert!(reply.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&reply));
    });
}

#[test]
fn the_gate_answers_its_endpoints() {
    let it = running();
    it.runtime.block_on(async {
        let (_, refresh) = it.tokens("cleo").await;
        let post = Client::new().post(format!("http://127.0.0.1:{}/token", it.port));
        let form = format!("grant_type=refresh_token&client_id=web&refresh_token={refresh}");
        let reply = post.header("content-type", "application/x-www-form-urlencoded").body(form).send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let tokens: serde_json::Value = reply.json().await.unwrap();
        let access = tokens["access_token"].as_str().unwrap();
        assert_eq!(it.get("/orders").bearer_auth(access).send().await.unwrap().status(), StatusCode::OK);
    });
}

#[test]
fn a_stream_breaks_off_when_its_session_ends() {
    let it = running();
    it.runtime.block_on(async {
        let (access, _) = it.tokens("dan").await;
        let mut reply = it.get("/stream").bearer_auth(&access).send().await.unwrap();
        assert_eq!(reply.chunk().await.unwrap().unwrap(), "piece");
        it.gate.sessions().revoke_all(Whose::Subject("dan")).await.unwrap();
        let end = async {
            loop {
                match reply.chunk().await {
                    Ok(Some(_)) => {}
                    end => break end,
                }
            }
        };
        let end = tokio::time::timeout(Duration::from_secs(10), end).await.expect("the stream goes on");
        assert!(end.is_err(), "a client must not take it for whole: {end:?}");
    });
}
