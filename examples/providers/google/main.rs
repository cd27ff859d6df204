//! Accepts the ID tokens of one Google client for the users of one Workspace domain.
//!
//! ISSUER=https://accounts.google.com cargo run -p rotogate-example-providers --bin google

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::token::Preset;
use rotogate::{Identity, ResourceServer};

/// `issuer` is the `iss` of the tokens.
pub async fn app(issuer: &str) -> Result<Router, Box<dyn Error>> {
    // Any customer's service account has tokens for any audience, but no `hd`.
    let gate = ResourceServer::discover(issuer)
        .audience("1234987819200.apps.googleusercontent.com")
        .preset(Preset::Google)
        .rules(|rules| rules.require("hd", ["acme.example"]))?
        .build()
        .await?;
    Ok(Router::new().route("/me", get(async |caller: Identity| caller.subject().to_owned())).layer(gate.layer()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::var("ISSUER").map_err(|_| "ISSUER is not set")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app(&issuer).await?).await?)
}
