//! The load besides sessions of OAuth clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use support::chain::Pace;
use support::random::Random;

type Http = Client<HttpConnector, Full<Bytes>>;

/// Sends texts that are not tokens, each of which must be refused.
pub(crate) async fn bad_tokens(address: SocketAddr, mut random: Random, refused: Arc<AtomicU64>, pace: Pace) {
    let client: Http = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let garbage: String =
            (0..random.below(200) + 1).map(|_| char::from(b'A' + u8::try_from(random.below(26)).unwrap())).collect();
        let token = match random.below(4) {
            0 => garbage,
            1 => format!("eyJhbGciOiJub25lIn0.{garbage}."),
            2 => format!("eyJhbGciOiJFZERTQSIsImtpZCI6IngifQ.eyJpc3MiOiJodHRwOi8vZ2F0ZS50ZXN0In0.{garbage}"),
            _ => format!("rg1_{garbage}"),
        };
        let (request, expected) = if random.one_in(2) {
            let form = format!("grant_type=refresh_token&client_id=web&refresh_token={token}");
            let request = Request::post(format!("http://{address}/connect/token"))
                .header("content-type", "application/x-www-form-urlencoded")
                .body(Full::from(form));
            (request, StatusCode::BAD_REQUEST)
        } else {
            let request =
                Request::get(format!("http://{address}/x")).header("authorization", format!("Bearer {token}"));
            (request.body(Full::default()), StatusCode::UNAUTHORIZED)
        };
        pace.lock().await.tick().await;
        // No reply: the process is ending.
        let Ok(reply) = client.request(request.unwrap()).await else { return };
        assert_eq!(reply.status(), expected);
        let _ = reply.into_body().collect().await;
        refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// A Kuzzle client: logs in, and rotates its token over successive WebSockets.
pub(crate) async fn socket(address: SocketAddr, password: String, messages: Arc<AtomicU64>, pace: Pace) {
    let client: Http = Client::builder(TokioExecutor::new()).build_http();
    loop {
        let body = json!({ "username": "demo", "password": password }).to_string();
        let request =
            Request::post(format!("http://{address}/_login/local")).header("content-type", "application/json");
        let Ok(reply) = client.request(request.body(Full::from(body)).unwrap()).await else { return };
        let Ok(body) = reply.into_body().collect().await else { return };
        let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        let mut jwt = body["result"]["jwt"].as_str().expect("a login").to_owned();
        for _ in 0..4 {
            let Ok(stream) = TcpStream::connect(address).await else { return };
            let Ok((mut socket, _)) = client_async(format!("ws://{address}/"), stream).await else { return };
            for turn in 0..100 {
                let asked = match turn % 4 {
                    0 => json!({ "controller": "auth", "action": "refreshToken", "requestId": "r", "jwt": jwt }),
                    1 => json!({ "controller": "auth", "action": "getCurrentUser", "requestId": "r", "jwt": jwt }),
                    2 => {
                        json!({ "controller": "auth", "action": "checkToken", "requestId": "r", "body": { "token": jwt } })
                    }
                    _ => {
                        json!({ "controller": "auth", "action": "getCurrentUser", "requestId": "r", "jwt": "no.token.x" })
                    }
                };
                pace.lock().await.tick().await;
                if socket.send(Message::text(asked.to_string())).await.is_err() {
                    return;
                }
                let Some(Ok(Message::Text(answer))) = socket.next().await else { return };
                let answer: Value = serde_json::from_str(&answer).unwrap();
                let expected = if turn % 4 == 3 { 401 } else { 200 };
                assert_eq!(answer["status"], expected, "{}", answer["error"]);
                if turn % 4 == 0 {
                    jwt = answer["result"]["jwt"].as_str().unwrap().to_owned();
                }
                messages.fetch_add(1, Ordering::Relaxed);
            }
            let _ = socket.close(None).await;
        }
    }
}
