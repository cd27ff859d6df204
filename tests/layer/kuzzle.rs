//! Kuzzle's dialect in front of an application: its calls are wrapped, and only a layer with `forward_buffered()`
//! unwraps them.

use axum::Router;
use axum::routing::post;
use http::{Method, StatusCode};
use rotogate::dialect::kuzzle::Kuzzle;
use rotogate::gate::Endpoint;
use serde_json::json;

use crate::client::{Answer, Server, send};
use crate::{builder, tokens};

const CALL: &str = r#"{"controller":"document","action":"get","n":1.10}"#;

async fn query(server: Server, access: &str) -> Answer {
    let request = server.request("/_query").method(Method::POST).header("authorization", format!("Bearer {access}"));
    send(request.body(CALL.to_owned()).unwrap()).await
}

fn app() -> Router {
    Router::new().route("/_query", post(async |body: String| body)).fallback(async || StatusCode::NOT_FOUND)
}

#[tokio::test]
async fn a_layer_that_cannot_pass_a_call_on_says_how_to_have_one_that_can() {
    let gate = builder().endpoint(Endpoint::new(Kuzzle::default())).build().await.unwrap();
    let (access, _) = tokens(&gate, "read").await;
    let server = Server::axum(app().layer(gate.layer())).await;
    let refused = query(server, &access).await;
    let error = &refused.json()["error"];
    assert_eq!((refused.status, &error["status"]), (StatusCode::NOT_IMPLEMENTED, &json!(501)));
    assert!(error["message"].as_str().unwrap().contains("`gate.layer().forward_buffered()`"), "{error}");
    // Requests without an envelope are served.
    let api = server.get_with("/_publicApi", &access).await;
    assert_eq!((api.status, &api.json()["error"]), (StatusCode::OK, &json!(null)));
    let nobody = query(server, "").await;
    assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);

    let server = Server::axum(app().layer(gate.layer().forward_buffered())).await;
    let passed = query(server, &access).await;
    assert_eq!((passed.status, passed.body.as_str()), (StatusCode::OK, CALL));
    // The application is not Kuzzle, so only the gate's own list exists.
    let list = server.get_with("/_publicApi", &access).await;
    assert_eq!((list.status, &list.json()["result"]["document"]), (StatusCode::OK, &json!(null)));
}

/// A server of axum's hands connections over.
#[cfg(feature = "kuzzle")]
#[tokio::test]
async fn a_websocket_needs_such_a_layer_too() {
    let gate = builder().endpoint(Endpoint::new(Kuzzle::default())).build().await.unwrap();
    for (refilling, status) in [(false, 501), (true, 101)] {
        let app = if refilling { app().layer(gate.layer().forward_buffered()) } else { app().layer(gate.layer()) };
        let request = Server::axum(app).await.request("/");
        let request = request.header("connection", "upgrade").header("upgrade", "websocket");
        let request =
            request.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let answer = send(request.body(String::new()).unwrap()).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.body);
        assert!(refilling || answer.body.contains("`gate.layer().forward_buffered()`"), "{}", answer.body);
    }
}
