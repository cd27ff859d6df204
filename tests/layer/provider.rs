//! A provider with discovery and keys, whose tokens have the form of Keycloak's.

use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;

use crate::issuer::Issuer;

pub(crate) struct Provider {
    key: Issuer,
    pub(crate) issuer: String,
}

impl Provider {
    pub(crate) async fn start(seed: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let issuer = format!("http://{}", listener.local_addr().unwrap());
        let key = Issuer::new(seed);
        let document = Json(json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") }));
        let keys = Json(json!({ "keys": [key.jwk("k1")] }));
        let app = Router::new()
            .route("/.well-known/openid-configuration", get(async move || document))
            .route("/keys", get(async move || keys));
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { key, issuer }
    }

    /// A token for the audience `api`.
    pub(crate) fn token(&self, subject: &str, scope: &str, role: &str) -> String {
        self.key.token(&json!({
            "iss": self.issuer, "sub": subject, "scope": scope, "typ": "Bearer", "azp": "web", "client_id": null,
            "jti": subject, "realm_access": { "roles": [role] }, "preferred_username": "Ada",
        }))
    }
}
