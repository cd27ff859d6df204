//! Accepts Auth0's access tokens for one API, with the permissions of its RBAC.
//!
//! ISSUER=https://acme.eu.auth0.com/ cargo run -p rotogate-example-providers --bin auth0

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::claim::ClaimPath;
use rotogate::token::{ClaimMapping, Preset};
use rotogate::{Identity, ResourceServer};

/// `issuer` is the `iss` of the tokens.
pub async fn app(issuer: &str) -> Result<Router, Box<dyn Error>> {
    let claims = ClaimMapping {
        scope: ClaimPath::list(["permissions"])?,
        roles: ClaimPath::list([r#""https://acme.example/roles""#])?,
        ..Preset::Auth0.claims()
    };
    let gate = ResourceServer::discover(issuer)
        .audience("https://api.acme.example")
        .preset(Preset::Auth0)
        .rules(|rules| Ok(rules.claims(claims)))?
        .build()
        .await?;
    Ok(Router::new()
        .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
        .route("/orders", get(async || "the orders").route_layer(gate.require().scope("read:orders")))
        .layer(gate.layer()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::var("ISSUER").map_err(|_| "ISSUER is not set")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app(&issuer).await?).await?)
}
