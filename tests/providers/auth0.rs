//! Auth0: access tokens for an API, with RBAC ("Add Permissions in the Access Token").
//!
//! - Token profiles: <https://auth0.com/docs/secure/tokens/access-tokens/access-token-profiles>
//! - ID tokens: <https://auth0.com/docs/secure/tokens/id-tokens/id-token-structure>
//! - Keys: <https://auth0.com/docs/secure/tokens/json-web-tokens/json-web-key-sets>
//! - Namespaced claims: <https://auth0.com/docs/secure/tokens/json-web-tokens/create-custom-claims>

use serde_json::json;

use crate::keys::Key;
use crate::stand_in::{Provider, StandIn, other, with};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/auth0/main.rs"]
mod program;

fn provider() -> Provider {
    Provider {
        name: "auth0",
        issuer: "https://acme.eu.auth0.com/",
        other_issuer: "https://other.eu.auth0.com/",
        keys: "/.well-known/jwks.json",
        key: Key::rsa(),
        published: |key| {
            with(key, &json!({ "x5c": ["MIIC+DCCAeCgAwIBAgIJBIGjYW6hFpn2"], "x5t": "NjVBRjY5MDlCMUIwNzU4RTA2" }))
        },
        beside: vec![],
        header: json!({ "typ": "JWT" }),
        claims: json!({
            "sub": "auth0|123456", "aud": ["https://api.acme.example", "https://acme.eu.auth0.com/userinfo"],
            "azp": "my_client_id", "scope": "openid profile write:orders", "permissions": ["read:orders"],
            "https://acme.example/roles": ["clerk"],
        }),
        lifetime: 86400,
        identity: &[
            ("x-auth-subject", "auth0|123456"),
            ("x-auth-client", "my_client_id"),
            ("x-auth-scope", "read:orders"),
            ("x-auth-roles", "clerk"),
        ],
        restricted: vec![
            ("/orders", json!({ "permissions": [] })),
            // A scope that the client requested is not a permission of the user.
            ("/orders", json!({ "permissions": null, "scope": "openid read:orders" })),
        ],
        others: vec![
            other("a token for another API", "wrong_audience", json!({ "aud": "https://other.acme.example" })),
            other(
                "an ID token",
                "wrong_audience",
                json!({
                    "aud": "my_client_id", "azp": null, "scope": null, "permissions": null, "name": "Jane Doe",
                }),
            ),
            other(
                "an ID token of a client with the name of the API",
                "bad_claim",
                json!({
                    "aud": "https://api.acme.example", "nonce": "n-0S6_WzA2Mj", "scope": null, "permissions": null,
                }),
            ),
            other("a token without audience", "bad_claim", json!({ "aud": null })),
            other("permissions of another type", "bad_claim", json!({ "permissions": { "read:orders": true } })),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_auth0_access_tokens_for_the_api_pass_and_id_tokens_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
