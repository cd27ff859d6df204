//! A resource server: it accepts the tokens of another issuer, and issues none.
//!
//! ```sh
//! cargo run --example resource_server --features remote-keys -- https://idp.example.com/realms/x
//! ```

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::gate::Claims;
use rotogate::token::Preset;
use rotogate::{Identity, ResourceServer};

/// What the provider's tokens say besides (Keycloak's names).
#[derive(serde::Deserialize)]
struct Provider {
    #[serde(default)]
    preferred_username: Option<String>,
}

/// The issuer is the URL that its tokens have in `iss`.
pub async fn app(issuer: &str) -> Result<Router, Box<dyn Error>> {
    let gate =
        ResourceServer::discover(issuer).audience("api").preset(Preset::Keycloak).public("/health").build().await?;
    Ok(Router::new()
        .route("/health", get(async || "ok"))
        .route("/me", get(me))
        .route("/read", get(async || "the text").route_layer(gate.require().scope("read")))
        .route("/admin", get(async || "the office").route_layer(gate.require().role("boss")))
        .layer(gate.layer()))
}

async fn me(identity: Identity, Claims(provider): Claims<Provider>) -> String {
    format!("{} ({})", identity.subject(), provider.preferred_username.unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::args().nth(1).ok_or("usage: resource_server ISSUER")?;
    let app = app(&issuer).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!(
        "curl http://{}/me -H 'Authorization: Bearer …'   # a token of {issuer} for the audience `api`",
        listener.local_addr()?
    );
    axum::serve(listener, app).await?;
    Ok(())
}
