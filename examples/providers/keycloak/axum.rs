//! The program of docs/keycloak-axum.md: a service in axum that accepts the access tokens of a Keycloak realm.
//!
//! ISSUER=https://idp.example.com/realms/acme RUST_LOG=rotogate::denial=debug \
//!     cargo run -p rotogate-example-providers --bin keycloak-axum

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::token::Preset;
use rotogate::{Identity, ResourceServer};

/// `issuer` is the `iss` of the tokens.
pub async fn app(issuer: &str) -> Result<Router, Box<dyn Error>> {
    let gate = ResourceServer::discover(issuer).audience("api").preset(Preset::Keycloak).build().await?;
    Ok(Router::new()
        .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
        .route("/admin", get(async || "the office").route_layer(gate.require().role("admin")))
        .layer(gate.layer()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt::init(); // RUST_LOG names what it prints
    let issuer = std::env::var("ISSUER").map_err(|_| "ISSUER is not set")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app(&issuer).await?).await?)
}
