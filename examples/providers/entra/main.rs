//! Accepts the access tokens of one tenant of Entra ID, version 2.0, for one API.
//!
//! ISSUER=https://login.microsoftonline.com/TENANT/v2.0 cargo run -p rotogate-example-providers --bin entra

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::claim::ClaimPath;
use rotogate::token::{ClaimMapping, Preset};
use rotogate::{Identity, ResourceServer};

/// `issuer` is the `iss` of the tokens.
pub async fn app(issuer: &str) -> Result<Router, Box<dyn Error>> {
    // `sub` is another one for each application; `oid` is the person in the tenant `tid`.
    let claims = ClaimMapping {
        subject: ClaimPath::list(["oid"])?,
        account: ClaimPath::list(["tid"])?,
        ..Preset::EntraV2.claims()
    };
    let gate = ResourceServer::discover(issuer)
        .audience("6e74172b-be56-4843-9ff4-e66a39bb12e3")
        .preset(Preset::EntraV2)
        .rules(|rules| Ok(rules.claims(claims)))?
        .build()
        .await?;
    Ok(Router::new()
        .route("/me", get(async |caller: Identity| caller.subject().to_owned()))
        .route("/orders", get(async || "the orders").route_layer(gate.require().scope("Orders.Read")))
        .route("/admin", get(async || "the office").route_layer(gate.require().role("Orders.Admin")))
        .layer(gate.layer()))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let issuer = std::env::var("ISSUER").map_err(|_| "ISSUER is not set")?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    Ok(axum::serve(listener, app(&issuer).await?).await?)
}
