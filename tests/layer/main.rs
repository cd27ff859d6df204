//! The gate as a layer, over real sockets: inside an axum `Router`, around one, around a plain hyper service; and the
//! examples, as a reader would start them.

#![allow(clippy::unwrap_used, clippy::expect_used, unreachable_pub, missing_docs, reason = "tests")]

mod browser;
#[cfg(feature = "browser-oidc")]
mod browser_provider;
mod claims;
mod client;
mod cookies;
mod events;
mod examples;
mod explain;
#[cfg(feature = "test")]
mod handlers;
#[path = "../edge/issuer.rs"]
#[allow(dead_code, reason = "tests of the program use the rest")]
mod issuer;
mod judge;
mod kuzzle;
mod limits;
mod live_keys;
mod log;
mod lost_replies;
mod mcp;
mod mcp_load;
mod my_sessions;
mod node_limits;
mod nodes;
mod proofs;
#[cfg(feature = "remote-keys")]
mod provider;
#[cfg(feature = "remote-keys")]
mod resource_server;
mod router;
mod rules;
mod sealed;
mod service;
mod stacked;
mod undecided;
mod upgrades;

use rotogate::Gate;
use rotogate::client::Client;
use rotogate::dialect::oauth2::OAuth2;
use rotogate::gate::{Endpoint, GateBuilder, NewSession};
use rotogate_core::token::keyring::Keyring;

/// A gate with one client, `web`, and an endpoint for sessions that the application begins.
fn builder() -> GateBuilder {
    builder_with(Keyring::ephemeral().unwrap())
}

fn builder_with(keys: Keyring) -> GateBuilder {
    Gate::builder()
        .issuer("https://api.test")
        .keys(keys)
        .client(Client::public("web"))
        .client(Client::public("ios"))
        .endpoint(Endpoint::new(OAuth2).path("/token").accepts("application"))
}

async fn gate() -> Gate {
    builder().build().await.unwrap()
}

/// An access token and a refresh token for `ada`.
async fn tokens(gate: &Gate, scope: &str) -> (String, String) {
    let session = NewSession::new("ada", "web").scope(scope).unwrap();
    let issued = gate.sessions().start(session).await.unwrap();
    (issued.access_token.expose().to_owned(), issued.refresh_token.unwrap().expose().to_owned())
}
