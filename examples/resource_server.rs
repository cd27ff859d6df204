//! A resource server: it takes the tokens of another issuer, and issues none.
//!
//! ```sh
//! cargo run --example resource_server -- https://idp.example.com/realms/x keys.json
//! ```

use std::error::Error;

use axum::Router;
use axum::routing::get;
use rotogate::gate::Claims;
use rotogate::session::Scope;
use rotogate::token::Keyring;
use rotogate::token::{AllowedScopes, IssuerKeys, IssuerRules};
use rotogate::{Gate, Identity};

/// What the provider's tokens say besides (Keycloak's names).
#[derive(serde::Deserialize)]
struct Provider {
    #[serde(default)]
    preferred_username: Option<String>,
}

/// `jwks` is the provider's key set, as text: the one behind `jwks_uri` of its metadata.
pub async fn app(issuer: &str, jwks: &[u8]) -> Result<Router, Box<dyn Error>> {
    let rules = IssuerRules::external(issuer, vec!["api".into()], IssuerKeys::from_jwks(jwks, None)?)
        .named("idp")
        // Keycloak, Entra and Auth0 write JWT, not at+jwt.
        .typ(["JWT", "at+jwt"])
        .scopes(AllowedScopes::Only(Scope::parse("read")?))
        .roles(["realm_access.roles"])?;
    let gate = Gate::builder()
        // It issues nothing; no token of this name passes `require().issuer("idp")`.
        .issuer("https://api.example.com")
        .keys(Keyring::ephemeral()?)
        .trusted_issuer(rules)
        .build()
        .await?;
    let idp = || gate.require().issuer("idp");
    Ok(Router::new()
        .route("/me", get(me).route_layer(idp()))
        .route("/read", get(async || "the text").route_layer(idp().scope("read")))
        .route("/admin", get(async || "the office").route_layer(idp().role("boss"))))
}

async fn me(identity: Identity, Claims(provider): Claims<Provider>) -> String {
    format!("{} ({})", identity.subject(), provider.preferred_username.unwrap_or_default())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(issuer), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: resource_server ISSUER JWKS-FILE".into());
    };
    let app = app(&issuer, &std::fs::read(file)?).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!(
        "curl http://{}/me -H 'Authorization: Bearer …'   # a token of {issuer} for the audience `api`",
        listener.local_addr()?
    );
    axum::serve(listener, app).await?;
    Ok(())
}
