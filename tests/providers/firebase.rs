//! Firebase Authentication: ID tokens.
//!
//! - Claims and keys: <https://firebase.google.com/docs/auth/admin/verify-id-tokens>, "using a third-party JWT library"
//! - Custom claims: <https://firebase.google.com/docs/auth/admin/custom-claims>
//! - Session cookies: <https://firebase.google.com/docs/auth/admin/manage-cookies>
//! - Custom tokens: <https://firebase.google.com/docs/auth/admin/create-custom-tokens>

use serde_json::json;

use crate::keys::Key;
use crate::stand_in::{Provider, StandIn, now, other};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/firebase/main.rs"]
mod program;

fn provider() -> Provider {
    Provider {
        name: "firebase",
        issuer: "https://securetoken.google.com/acme-shop",
        other_issuer: "https://securetoken.google.com/other-shop",
        keys: "/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com",
        key: Key::rsa(),
        published: |key| key,
        beside: vec![],
        header: json!({ "typ": "JWT" }),
        claims: json!({
            "aud": "acme-shop", "auth_time": now() - 60, "user_id": "u7Xk2mQ9sVb3", "sub": "u7Xk2mQ9sVb3",
            "email": "ada@example.com", "email_verified": true, "roles": ["admin"],
            "firebase": { "identities": { "email": ["ada@example.com"] }, "sign_in_provider": "password" },
        }),
        lifetime: 3600,
        identity: &[("x-auth-subject", "u7Xk2mQ9sVb3"), ("x-auth-roles", "admin")],
        restricted: vec![("/admin", json!({ "roles": null }))],
        others: vec![
            other("a token of another project", "wrong_audience", json!({ "aud": "other-shop" })),
            other(
                "a session cookie",
                "unknown_issuer",
                json!({ "iss": "https://session.firebase.google.com/acme-shop" }),
            ),
            other(
                "a custom token",
                "unknown_issuer",
                json!({
                    "iss": "firebase-adminsdk@acme-shop.iam.gserviceaccount.com", "firebase": null, "uid": "u7Xk2mQ9sVb3",
                    "aud": "https://identitytoolkit.googleapis.com/google.identity.identitytoolkit.v1.IdentityToolkit",
                }),
            ),
            other("a token that says nothing of the sign-in", "bad_claim", json!({ "firebase": null })),
            other("a token without audience", "bad_claim", json!({ "aud": null })),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_firebase_id_tokens_of_the_project_pass_and_its_cookies_and_custom_tokens_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
