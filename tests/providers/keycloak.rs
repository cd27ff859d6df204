//! Keycloak: access tokens of a realm.
//!
//! - Metadata and keys: <https://www.keycloak.org/securing-apps/oidc-layers>
//! - Claims and audience: <https://www.keycloak.org/docs/latest/server_admin/index.html>, "Audience support"

use serde_json::json;

use crate::keys::Key;
use crate::stand_in::{Provider, StandIn, other, with};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/keycloak/main.rs"]
mod program;

pub(crate) fn provider() -> Provider {
    Provider {
        name: "keycloak",
        issuer: "https://idp.example.com/realms/acme",
        other_issuer: "https://idp.example.com/realms/other",
        keys: "/realms/acme/protocol/openid-connect/certs",
        key: Key::rsa(),
        published: |key| with(key, &json!({ "x5c": ["MIICmzCCAYMCBgGM"], "x5t": "SGVsbG8" })),
        beside: vec![json!({ "kid": "enc", "kty": "RSA", "alg": "RSA-OAEP", "use": "enc", "n": "AQAB", "e": "AQAB" })],
        header: json!({ "typ": "JWT" }),
        claims: json!({
            "jti": "onrtac:9c5f7b3a-4c0e-4f0a-9d7e-2f1f0b1c2d3e", "aud": ["orders", "account"],
            "sub": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "typ": "Bearer", "azp": "web", "sid": "65f0a3c2", "acr": "1",
            "allowed-origins": ["https://app.example.com"], "realm_access": { "roles": ["offline_access", "admin"] },
            "resource_access": { "account": { "roles": ["view-profile"] } }, "scope": "openid profile email",
            "email_verified": true, "preferred_username": "ada", "email": "ada@example.com",
        }),
        lifetime: 300,
        identity: &[
            ("x-auth-subject", "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
            ("x-auth-client", "web"),
            ("x-auth-scope", "openid profile email"),
            ("x-auth-roles", "admin,offline_access"),
        ],
        restricted: vec![("/admin", json!({ "realm_access": { "roles": ["offline_access"] } }))],
        others: vec![
            other("the token of another client", "bad_claim", json!({ "azp": "another-client" })),
            other("a token without a client", "bad_claim", json!({ "azp": null })),
            other("a token without the audience mapper", "wrong_audience", json!({ "aud": "account" })),
            other(
                "an ID token",
                "bad_claim",
                json!({ "typ": "ID", "aud": "web", "at_hash": "x", "realm_access": null }),
            ),
            other("an ID token for a client of the API's name", "bad_claim", json!({ "typ": "ID", "aud": "orders" })),
            other("a refresh token", "bad_claim", json!({ "typ": "Refresh" })),
            other("an offline token", "bad_claim", json!({ "typ": "Offline" })),
            other("a token that does not say what it is", "bad_claim", json!({ "typ": null })),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_keycloak_access_tokens_of_the_client_pass_and_the_realms_others_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
