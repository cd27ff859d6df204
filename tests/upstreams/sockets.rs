//! WebSockets through an `https://` upstream.

use futures_util::{SinkExt, StreamExt};
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::secure::place;
use super::server::Server;
use support::pki::Pki;
use support::{Gate, until};

async fn connect(gate: &Gate, path: &str, token: Option<&str>) -> WebSocketStream<TcpStream> {
    let mut request = format!("ws://{}{path}", gate.address).into_client_request().unwrap();
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let stream = TcpStream::connect(gate.address).await.unwrap();
    tokio_tungstenite::client_async(request, stream).await.unwrap().0
}

async fn exchange(socket: &mut WebSocketStream<TcpStream>, text: &str) -> String {
    socket.send(text.into()).await.unwrap();
    socket.next().await.unwrap().unwrap().to_text().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t9_an_upgrade_goes_over_http_1_where_all_else_goes_over_http_2_and_counts_until_it_ends() {
    let pki = Pki::new();
    let server = Server::secure(&pki.issue(&["app.test"]), &["h2", "http/1.1"]).await;
    let more = format!(
        "[[upstreams]]\nname = \"ws\"\nurls = [\"https://{}\"]\nca = \"ca.pem\"\nserver_name = \"app.test\"\n\
         max_requests = 1\nfor_tests.queue_timeout = \"0s\"\n\
         [[routes]]\npath = \"/ws\"\nupgrade = true\nupstream = \"ws\"\n\
         [[routes]]\npath = \"/plain\"\nauth = \"none\"\nupstream = \"ws\"\n",
        server.address
    );
    let place = place(&pki, &more);
    let gate = place.start();
    let token = gate.login().await.access;
    let mut socket = connect(&gate, "/ws", Some(&token)).await;
    assert_eq!(exchange(&mut socket, "hello").await, "hello over http/1.1 to app.test");
    let busy = gate.call(Method::GET, "/plain", &[], "").await;
    assert_eq!((busy.status, &busy.headers["retry-after"]), (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap()));
    assert_eq!(exchange(&mut socket, "again").await, "again over http/1.1 to app.test");
    drop(socket);
    until("the closed socket makes room", async || {
        gate.call(Method::GET, "/plain", &[], "").await.status == StatusCode::OK
    })
    .await;
    let plain = gate.call(Method::GET, "/plain", &[], "").await;
    assert_eq!(plain.headers["x-alpn"], "h2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kuzzle_dialect_dials_an_upstream_over_tls() {
    let pki = Pki::new();
    let server = Server::secure(&pki.issue(&["127.0.0.1"]), &["h2", "http/1.1"]).await;
    let more = format!(
        "[[endpoints]]\ndialect = \"kuzzle\"\n\
         [[upstreams]]\nname = \"kuzzle\"\nurls = [\"https://{}\"]\nca = \"ca.pem\"\n\
         [[routes]]\npath = \"/\"\nupgrade = true\ndialect = \"kuzzle\"\nupstream = \"kuzzle\"\n",
        server.address
    );
    let place = place(&pki, &more);
    let gate = place.start();
    let token = gate.login().await.access;
    let mut socket = connect(&gate, "/", None).await;
    let asked = json!({ "requestId": "1", "controller": "document", "action": "get", "jwt": token });
    let answer: Value = serde_json::from_str(&exchange(&mut socket, &asked.to_string()).await).unwrap();
    assert_eq!((&answer["requestId"], &answer["result"]), (&json!("1"), &json!("http/1.1")), "{answer}");
}
