//! Accepts the access tokens of an Okta authorization server.
//!
//! ISSUER=https://acme.okta.com/oauth2/default cargo run -p rotogate-example-providers --bin okta

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::token::Preset;
use rotogate::{Identity, ResourceServer};

/// `issuer` is the `iss` of the tokens.
pub async fn app(issuer: &str) -> Result<Router, Box<dyn Error>> {
    let gate = ResourceServer::discover(issuer).audience("api://default").preset(Preset::Okta).build().await?;
    Ok(Router::new()
        .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
        .route("/orders", get(async || "the orders").route_layer(gate.require().scope("orders.read")))
        .layer(gate.layer()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::var("ISSUER").map_err(|_| "ISSUER is not set")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app(&issuer).await?).await?)
}
