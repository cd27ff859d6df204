//! The program of docs/layer.md: `cargo run --example readme`.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Form, Request, State};
use axum::http::header::CACHE_CONTROL;
use axum::middleware::map_request;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use rotogate::client::Client;
use rotogate::denial::Denial;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::password::{self, Passwords};
use rotogate::gate::{Endpoint, NewSession, Peer};
use rotogate::route::{Route, RoutePolicy};
use rotogate::token::Keyring;
use rotogate::{Gate, Identity};
use serde_json::json;

/// Keys of this process alone, and sessions in memory: see below for files.
pub async fn gate() -> Result<Gate, Box<dyn Error>> {
    Ok(Gate::builder()
        .issuer("http://localhost:3000")
        .keys(Keyring::ephemeral()?)
        .client(Client::public("web"))
        .endpoint(Endpoint::new(OAuth2).path("/token").accepts("application"))
        .route(Route::new("/login", RoutePolicy::public()))
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await?)
}

/// The one user is ada; yours are in a database.
pub fn app(gate: &Gate) -> Result<Router, Box<dyn Error>> {
    let hash: Arc<str> = password::hash(&"correct horse".into())?.into();
    let logins = (gate.clone(), Arc::new(Passwords::default()), hash);
    Ok(Router::new()
        .route("/login", post(login))
        .route("/me", get(me))
        .route("/admin", get(me).route_layer(gate.require().scope("admin")))
        .layer(gate.layer()) // on the outermost router; `gate.require()` in nests
        .with_state(logins)
        .layer(map_request(peer)))
}

type Logins = (Gate, Arc<Passwords>, Arc<str>);

/// Your own login: a password, a code by mail, a passkey … and then a session.
async fn login(
    State((gate, passwords, hash)): State<Logins>,
    Form(form): Form<HashMap<String, String>>,
) -> Result<impl IntoResponse, rotogate::fault::Error> {
    let field = |name| form.get(name).map(String::as_str).unwrap_or_default();
    let right = passwords.verify(&field("password").into(), &hash).await;
    if field("user") != "ada" || !right? {
        return Err(Denial::WrongPassword.into());
    }
    let issued = gate.sessions().start(NewSession::new("ada", "web")).await?;
    let tokens = Json(json!({
        "access_token": issued.access_token.expose(),
        "expires_in": issued.expires_in,
        "refresh_token": issued.refresh_token.as_ref().map(|token| token.expose()),
    }));
    Ok(([(CACHE_CONTROL, "no-store")], tokens)) // no cache may keep tokens
}

async fn me(identity: Identity) -> String {
    identity.subject().to_owned()
}

/// Tells the gate where a request comes from, for its limits by address.
async fn peer(ConnectInfo(address): ConnectInfo<SocketAddr>, mut request: Request) -> Request {
    request.extensions_mut().insert(Peer::new(address.ip(), false));
    request
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let gate = gate().await?;
    let app = app(&gate)?.into_make_service_with_connect_info::<SocketAddr>();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let stopped = async || tokio::signal::ctrl_c().await.unwrap_or_default();
    let closing = gate.clone();
    let stop = async move {
        stopped().await;
        closing.close_connections(); // WebSockets and event streams, which would never end
    };
    let late = async {
        stopped().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
    };
    let server = axum::serve(listener, app).with_graceful_shutdown(stop).into_future();
    tokio::select! { done = server => done?, () = late => {} }
    gate.flush().await?; // what waits to be written; without it a user may have to log in again
    Ok(())
}
