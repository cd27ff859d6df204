//! Each program behind its gate, over HTTP: refused, permitted, revoked, and the gate's own endpoints.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::net::TcpListener;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use reqwest::{Client, RequestBuilder, StatusCode};
use rotogate::Gate;
use rotogate::client::Client as GateClient;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::gate::{Endpoint, Judgement, NewSession, Whose};
use rotogate::token::Keyring;
use rotogate_example_frameworks::Guarded;

#[allow(dead_code, reason = "the tests do not call its main")]
#[path = "../src/loco.rs"]
mod loco;

#[allow(dead_code, reason = "the tests do not call its main")]
#[path = "../src/poem.rs"]
mod poem;

#[allow(dead_code, reason = "the tests do not call its main")]
#[path = "../src/rocket.rs"]
mod rocket;

#[allow(dead_code, reason = "the tests do not call its main")]
#[path = "../src/salvo.rs"]
mod salvo;

struct Running {
    gate: Gate,
    client: Client,
    url: String,
    access: String,
    refresh: String,
}

async fn start<F>(serve: impl FnOnce(Gate, u16) -> F + Send + 'static) -> Running
where
    F: Future<Output = Result<(), Box<dyn Error>>>,
{
    let gate = Gate::builder()
        .issuer("https://api.test")
        .keys(Keyring::ephemeral().unwrap())
        .client(GateClient::public("web"))
        .endpoint(Endpoint::new(OAuth2).path("/token").accepts("application"))
        .build()
        .await
        .unwrap();
    let issued = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let served = gate.clone();
    // A runtime of its own: a program may take its thread.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async { serve(served, port).await.unwrap() });
    });
    let it = Running {
        gate,
        client: Client::new(),
        url: format!("http://127.0.0.1:{port}"),
        access: issued.access_token.expose().to_owned(),
        refresh: issued.refresh_token.unwrap().expose().to_owned(),
    };
    for _ in 0..600 {
        if it.get("/me").send().await.is_ok() {
            return it;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("it does not serve");
}

impl Running {
    fn get(&self, path: &str) -> RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }

    async fn status(&self, path: &str, token: &str) -> StatusCode {
        self.get(path).bearer_auth(token).send().await.unwrap().status()
    }

    /// The behaviour that each program must show.
    async fn check(&self) {
        let without = self.get("/me").send().await.unwrap();
        assert_eq!(without.status(), StatusCode::UNAUTHORIZED);
        assert!(without.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
        assert!(without.text().await.unwrap().contains("\"status\":401"), "the body of the refusal");
        assert_eq!(self.get("/unknown").send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
        assert_eq!(self.status("/unknown", &self.access).await, StatusCode::NOT_FOUND);
        assert_eq!(self.status("/me", &format!("{}x", self.access)).await, StatusCode::UNAUTHORIZED);

        let reply = self.get("/me").bearer_auth(&self.access).header("x-auth-subject", "root").send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        assert_eq!(reply.text().await.unwrap(), "ada");

        let forged = self.get("/seen").header("x-auth-subject", "root").bearer_auth(&self.access);
        assert_eq!(forged.send().await.unwrap().text().await.unwrap(), "Some(\"ada\") None");

        let form = format!("grant_type=refresh_token&client_id=web&refresh_token={}", self.refresh);
        let post = self.client.post(format!("{}/token", self.url)).body(form);
        let reply = post.header("content-type", "application/x-www-form-urlencoded").send().await.unwrap();
        assert_eq!(reply.status(), StatusCode::OK);
        let tokens: serde_json::Value = reply.json().await.unwrap();
        let access = tokens["access_token"].as_str().unwrap();
        assert_eq!(self.status("/me", access).await, StatusCode::OK);
        let keys: serde_json::Value = self.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();
        assert_eq!(keys["keys"].as_array().unwrap().len(), 1);

        self.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
        assert_eq!(self.status("/me", access).await, StatusCode::UNAUTHORIZED);
    }
}

/// The body of a reply, of unknown length.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn a_stream_of_poem_or_salvo_breaks_off_when_its_session_ends() {
    let it = start(poem::serve).await;
    let request = http::Request::get("/me").header("host", "api.test");
    let (head, ()) = request.header("authorization", format!("Bearer {}", it.access)).body(()).unwrap().into_parts();
    let Judgement::Permitted(permitted) = it.gate.judge(&head).await else { panic!("it is not permitted") };
    let mut body = Guarded::new(Endless, permitted);
    it.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.expect("the stream goes on");
    assert!(end.unwrap().is_err(), "a client must not take it for whole");
}

#[tokio::test]
async fn poem_serves_what_its_gate_permits() {
    start(poem::serve).await.check().await;
}

#[tokio::test]
async fn loco_serves_what_its_gate_permits() {
    start(loco::serve).await.check().await;
}

#[tokio::test]
async fn salvo_serves_what_its_gate_permits() {
    start(salvo::serve).await.check().await;
}

#[tokio::test]
async fn rocket_serves_what_its_gate_permits() {
    let it = start(rocket::serve).await;
    // The route of its fairing answers no other request.
    let direct = it.client.post(format!("{}/rotogate-reply", it.url));
    assert_eq!(direct.bearer_auth(&it.access).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    it.check().await;
}
