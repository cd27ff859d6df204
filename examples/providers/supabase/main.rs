//! Accepts the access tokens of a Supabase project's users, but not of anonymous ones.
//!
//! ISSUER=https://REF.supabase.co/auth/v1 cargo run -p rotogate-example-providers --bin supabase

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::token::Preset;
use rotogate::{Identity, ResourceServer};

/// `issuer` is the `iss` of the tokens.
pub async fn app(issuer: &str) -> Result<Router, Box<dyn Error>> {
    let gate = ResourceServer::discover(issuer)
        .audience("authenticated")
        .preset(Preset::Supabase)
        .rules(|rules| rules.require("is_anonymous", [false])?.roles(["role", "app_metadata.roles"]))?
        .build()
        .await?;
    Ok(Router::new()
        .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
        .route("/admin", get(async || "the office").route_layer(gate.require().role("admin")))
        .layer(gate.layer()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::var("ISSUER").map_err(|_| "ISSUER is not set")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app(&issuer).await?).await?)
}
