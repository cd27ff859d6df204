//! The gate in an actix-web server, over HTTP.

use std::time::Duration;

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use bytes::Bytes;
use reqwest::{Client, StatusCode};
use rotogate::Gate;
use rotogate::client::Client as GateClient;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::gate::{Endpoint, NewSession, Whose};
use rotogate::route::{Route, RoutePolicy};
use rotogate::token::Keyring;
use rotogate_actix::Caller;

#[allow(dead_code, reason = "the tests do not call its main")]
#[path = "../examples/hello.rs"]
mod hello;

struct Running {
    gate: Gate,
    url: String,
    client: Client,
    access: String,
    refresh: String,
}

/// Returns the caller and headers that a handler sees.
async fn seen(caller: Option<Caller>, request: HttpRequest) -> String {
    let names: Vec<_> = request.headers().keys().map(|name| name.as_str().to_owned()).collect();
    let subject = caller.map_or_else(|| "nobody".to_owned(), |caller| caller.subject().to_owned());
    let claimed = request.headers().get("x-auth-subject").map(|value| value.to_str().unwrap_or_default().to_owned());
    format!("{subject} {} {claimed:?} {}", request.uri(), names.join(","))
}

async fn stream() -> HttpResponse {
    let first = futures_util::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"first")) });
    HttpResponse::Ok().streaming(futures_util::StreamExt::chain(first, futures_util::stream::pending()))
}

async fn start() -> Running {
    let gate = Gate::builder()
        .issuer("https://api.test")
        .keys(Keyring::ephemeral().unwrap())
        .client(GateClient::public("web"))
        .endpoint(Endpoint::new(OAuth2).path("/token").accepts("application"))
        .route(Route::new("/public/{*rest}", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await
        .unwrap();
    let issued = gate.sessions().start(NewSession::new("ada", "web").scope("read").unwrap()).await.unwrap();
    let served = gate.clone();
    let server = HttpServer::new(move || {
        App::new()
            .service(web::resource("/write").wrap(rotogate_actix::require(served.require().scope("write"))).to(seen))
            .service(web::resource("/read").wrap(rotogate_actix::require(served.require().scope("read"))).to(seen))
            .route("/stream", web::get().to(stream))
            .route("/{rest:.*}", web::to(seen))
            .wrap(rotogate_actix::layer(&served))
    })
    .workers(1)
    .bind("127.0.0.1:0")
    .unwrap();
    let url = format!("http://{}", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    Running {
        gate,
        url,
        client: Client::new(),
        access: issued.access_token.expose().to_owned(),
        refresh: issued.refresh_token.unwrap().expose().to_owned(),
    }
}

impl Running {
    fn get(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.get(format!("{}{path}", self.url))
    }
}

#[actix_web::test]
async fn a_handler_sees_the_caller_and_no_token() {
    let it = start().await;
    let reply = it.get("/orders?x=1").bearer_auth(&it.access).header("x-auth-subject", "root").send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    let text = reply.text().await.unwrap();
    assert!(text.starts_with("ada /orders?x=1 Some(\"ada\")"), "{text}");
    assert!(!text.contains("authorization"), "{text}");
    let reply = it.get("/public/x").header("x-auth-subject", "root").send().await.unwrap();
    assert!(reply.text().await.unwrap().starts_with("nobody /public/x None"));
}

#[actix_web::test]
async fn a_request_without_a_good_token_is_refused() {
    let it = start().await;
    let without = it.get("/orders").send().await.unwrap();
    assert_eq!(without.status(), StatusCode::UNAUTHORIZED);
    assert!(without.headers()["www-authenticate"].to_str().unwrap().starts_with("Bearer"));
    let forged = it.get("/orders").bearer_auth(format!("{}x", it.access)).send().await.unwrap();
    assert_eq!(forged.status(), StatusCode::UNAUTHORIZED);
    assert!(forged.headers()["www-authenticate"].to_str().unwrap().contains("invalid_token"));
    assert!(it.get("/public/%2e%2e/orders").send().await.unwrap().status().is_client_error());
    it.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!(it.get("/orders").bearer_auth(&it.access).send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn a_resource_has_conditions_of_its_own() {
    let it = start().await;
    assert_eq!(it.get("/read").bearer_auth(&it.access).send().await.unwrap().status(), StatusCode::OK);
    let refused = it.get("/write").bearer_auth(&it.access).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().contains("scope=\"write\""));
}

#[actix_web::test]
async fn the_gate_answers_its_endpoints() {
    let it = start().await;
    let form = format!("grant_type=refresh_token&client_id=web&refresh_token={}", it.refresh);
    let post = it.client.post(format!("{}/token", it.url));
    let reply = post.header("content-type", "application/x-www-form-urlencoded").body(form).send().await.unwrap();
    assert_eq!(reply.status(), StatusCode::OK);
    let tokens: serde_json::Value = reply.json().await.unwrap();
    let access = tokens["access_token"].as_str().unwrap();
    assert_eq!(it.get("/orders").bearer_auth(access).send().await.unwrap().status(), StatusCode::OK);
    let keys: serde_json::Value = it.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
    let large = it.client.post(format!("{}/token", it.url)).body(vec![b'a'; 4 << 20]).send().await;
    // The gate answers before it has read the whole body, so the connection may end first.
    assert!(large.is_err() || large.is_ok_and(|reply| reply.status().is_client_error()));
}

#[actix_web::test]
async fn a_stream_breaks_off_when_its_session_ends() {
    let it = start().await;
    let mut reply = it.get("/stream").bearer_auth(&it.access).send().await.unwrap();
    assert_eq!(reply.chunk().await.unwrap().unwrap(), "first");
    it.gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    let end = tokio::time::timeout(Duration::from_secs(10), reply.chunk()).await.expect("the stream goes on");
    assert!(end.is_err(), "a client must not take it for whole: {end:?}");
}

#[actix_web::test]
async fn the_example_serves_callers_and_keeps_its_office_for_the_boss() {
    let gate = Gate::builder().issuer("https://api.test").keys(Keyring::ephemeral().unwrap());
    let gate = gate.client(GateClient::public("web")).build().await.unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    actix_web::rt::spawn(hello::serve(gate.clone(), listener).unwrap());
    let ask = async |path: &str, token: &str| {
        Client::new().get(format!("{url}{path}")).bearer_auth(token).send().await.unwrap()
    };
    let issued = gate.sessions().start(NewSession::new("ada", "web")).await.unwrap();
    let access = issued.access_token.expose();
    assert_eq!(ask("/me", access).await.text().await.unwrap(), "ada");
    assert_eq!(ask("/admin", access).await.status(), StatusCode::FORBIDDEN);
    assert_eq!(ask("/me", "x").await.status(), StatusCode::UNAUTHORIZED);
    gate.sessions().revoke_all(Whose::Subject("ada")).await.unwrap();
    assert_eq!(ask("/me", access).await.status(), StatusCode::UNAUTHORIZED);
}
