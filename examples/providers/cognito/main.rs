//! Accepts the access tokens of one app client of a Cognito user pool.
//!
//! ISSUER=https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE cargo run -p rotogate-example-providers --bin cognito

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::token::Preset;
use rotogate::{Identity, ResourceServer};

/// `issuer` is the `iss` of the tokens.
pub async fn app(issuer: &str) -> Result<Router, Box<dyn Error>> {
    // The access tokens have no `aud`: the audience is `client_id`.
    let gate = ResourceServer::discover(issuer).audience("1example23456789").preset(Preset::Cognito).build().await?;
    Ok(Router::new()
        .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
        .route("/admin", get(async || "the office").route_layer(gate.require().role("admins")))
        .layer(gate.layer()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::var("ISSUER").map_err(|_| "ISSUER is not set")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app(&issuer).await?).await?)
}
