//! An axum application with a login of its own behind the gate: it begins sessions, the gate does the rest.
//!
//! ```sh
//! cargo run --example axum
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::map_request;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Form, Json, Router};
use rotogate::client::Client;
use rotogate::denial::Denial;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::directory::password::{self, Passwords};
use rotogate::gate::{Endpoint, NewSession, Peer};
use rotogate::route::{Route, RoutePolicy};
use rotogate::token::Keyring;
use rotogate::{Gate, Identity, SecretString};
use serde_json::json;

/// The client id that requests for tokens carry, as in `gateway.toml`.
const CLIENT: &str = "web";

/// Everything that the login needs.
#[derive(Clone)]
struct Logins {
    gate: Gate,
    passwords: Arc<Passwords>,
    /// The one user of this example, `ada`.
    password_hash: Arc<str>,
}

/// The application. `password` is that of its user, `ada`.
pub async fn app(password: &str) -> Result<(Router, Gate), Box<dyn Error>> {
    let gate = Gate::builder()
        .issuer("https://api.example.com")
        // Keys of this process alone, and sessions in memory. In earnest: keys from files, `.store(RedbStore::open(…)?)`.
        .keys(Keyring::ephemeral()?)
        .client(Client::public(CLIENT))
        // Refreshes, and revokes at `/revocation`. It takes the sessions that the application begins.
        .endpoint(Endpoint::new(OAuth2).path("/token").accepts("application"))
        .route(Route::new("/login", RoutePolicy::public()))
        .route(Route::new("/hello", RoutePolicy::optional()))
        // Everything else needs a token.
        .route(Route::catch_all(RoutePolicy::default()))
        .build()
        .await?;
    let logins = Logins {
        gate: gate.clone(),
        passwords: Arc::new(Passwords::default()),
        password_hash: password::hash(&SecretString::from(password))?.into(),
    };
    let app = Router::new()
        .route("/login", post(login))
        .route("/hello", get(hello))
        .route("/me", get(me))
        .route("/logout", post(logout))
        .merge(
            Router::new().route("/reports", get(async || "all is well")).route_layer(gate.require().scope("reports")),
        )
        // Every route above, and what no route matches: the gate's own endpoints are there.
        .layer(gate.layer())
        .with_state(logins)
        // Around the gate: it limits refreshes by the address of the client.
        .layer(map_request(peer));
    Ok((app, gate))
}

/// The application's own login: passwords, a code by mail, another identity provider … and then `sessions().start`.
async fn login(
    State(logins): State<Logins>,
    Form(form): Form<LoginForm>,
) -> Result<impl IntoResponse, rotogate::fault::Error> {
    let right = logins.passwords.verify(&form.password.into(), &logins.password_hash).await?;
    if !right || form.user != "ada" {
        return Err(Denial::WrongPassword.into());
    }
    let session = NewSession::new(form.user, CLIENT).scope("profile").map_err(|_| Denial::InvalidScope)?;
    let issued = logins.gate.sessions().start(session).await?;
    let tokens = Json(json!({
        "access_token": issued.access_token.expose(),
        "expires_in": issued.expires_in,
        "refresh_token": issued.refresh_token.as_ref().map(|token| token.expose()),
    }));
    Ok(([(CACHE_CONTROL, "no-store")], tokens))
}

#[derive(serde::Deserialize)]
struct LoginForm {
    user: String,
    password: String,
}

/// With a token or without.
async fn hello(identity: Option<Identity>) -> String {
    format!("Hello, {}!", identity.as_ref().map_or("stranger", Identity::subject))
}

/// Only with a token: the gate saw to that.
async fn me(identity: Identity) -> String {
    format!("{} with scope {:?}", identity.subject(), identity.scope().as_str())
}

/// Ends the caller's session: none of its tokens passes the next request.
async fn logout(State(logins): State<Logins>, identity: Identity) -> StatusCode {
    let Some(session) = identity.session() else { return StatusCode::NO_CONTENT };
    match logins.gate.sessions().revoke(session).await {
        Ok(_) => StatusCode::NO_CONTENT,
        Err(error) => error.status(),
    }
}

/// Tells the gate where a request comes from.
async fn peer(ConnectInfo(address): ConnectInfo<SocketAddr>, mut request: Request) -> Request {
    request.extensions_mut().insert(Peer::new(address.ip(), false));
    request
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (app, gate) = app("correct horse").await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    let url = format!("http://{}", listener.local_addr()?);
    println!("curl {url}/hello");
    println!("curl {url}/me                                   # 401");
    println!("curl {url}/login -d user=ada -d 'password=correct horse'");
    println!("curl {url}/me -H 'Authorization: Bearer …'      # the access_token");
    println!("curl {url}/reports -H 'Authorization: Bearer …' # 403: ada has no such scope");
    println!("curl {url}/token -d grant_type=refresh_token -d client_id={CLIENT} -d refresh_token=…");
    println!("curl -X POST {url}/logout -H 'Authorization: Bearer …'");
    let stop = async { tokio::signal::ctrl_c().await.unwrap_or_default() };
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    // What waits to be written: without it a user may have to log in again.
    gate.flush().await?;
    Ok(())
}
