//! Supabase Auth, with asymmetric keys.
//!
//! - Claims: <https://supabase.com/docs/guides/auth/jwt-fields>
//! - Keys: <https://supabase.com/docs/guides/auth/signing-keys>
//! - Discovery: <https://supabase.com/docs/guides/auth/oauth-server/getting-started>
//! - ID tokens of its OAuth server: <https://supabase.com/docs/guides/auth/oauth-server/oauth-flows>

use serde_json::{Value, json};

use crate::keys::Key;
use crate::stand_in::{Provider, StandIn, other, with};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/supabase/main.rs"]
mod program;

fn id_token(more: &Value) -> Value {
    let id = json!({
        "nonce": "random-nonce-from-request", "auth_time": 1_799_999_000, "email_verified": true, "name": "John Doe",
        "aal": null, "amr": null, "app_metadata": null, "user_metadata": null, "session_id": null, "role": null,
    });
    with(id, more)
}

fn provider() -> Provider {
    Provider {
        name: "supabase",
        issuer: "https://abcdefghijklmnopqrst.supabase.co/auth/v1",
        other_issuer: "https://tsrqponmlkjihgfedcba.supabase.co/auth/v1",
        keys: "/auth/v1/.well-known/jwks.json",
        key: Key::p256(),
        published: |key| with(key, &json!({ "key_ops": ["verify"], "ext": true })),
        beside: vec![],
        header: json!({ "typ": "JWT" }),
        claims: json!({
            "aal": "aal1", "amr": [{ "method": "password", "timestamp": 1_799_999_000 }], "aud": "authenticated",
            "app_metadata": { "provider": "email", "providers": ["email"], "roles": ["admin"] }, "email": "user@example.com",
            "phone": "", "role": "authenticated", "session_id": "123e4567-e89b-12d3-a456-426614174000",
            "sub": "123e4567-e89b-12d3-a456-426614174000", "user_metadata": { "name": "John Doe", "roles": ["root"] },
            "is_anonymous": false,
        }),
        lifetime: 3600,
        identity: &[
            ("x-auth-subject", "123e4567-e89b-12d3-a456-426614174000"),
            // Roles in `user_metadata`, which users write themselves, do not count.
            ("x-auth-roles", "admin,authenticated"),
        ],
        restricted: vec![(
            "/admin",
            json!({ "app_metadata": { "provider": "email" }, "user_metadata": { "roles": ["admin"] } }),
        )],
        others: vec![
            other("an anonymous user", "bad_claim", json!({ "is_anonymous": true })),
            other("a token that does not say whether", "bad_claim", json!({ "is_anonymous": null })),
            other("a token for another audience", "wrong_audience", json!({ "aud": "anon" })),
            other(
                "the key of the project for everybody",
                "unknown_issuer",
                json!({
                    "iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": "anon", "session_id": null,
                }),
            ),
            other(
                "the service key of the project",
                "unknown_issuer",
                json!({
                    "iss": "supabase", "ref": "abcdefghijklmnopqrst", "role": "service_role", "session_id": null,
                }),
            ),
            other("a token without a session", "bad_claim", json!({ "session_id": null })),
            other("an ID token", "bad_claim", id_token(&json!({ "aud": "9a8b7c6d-5e4f-3a2b-1c0d-9e8f7a6b5c4d" }))),
            other("an ID token, whatever the audience", "bad_claim", id_token(&json!({ "aud": "authenticated" }))),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_supabase_access_tokens_of_users_pass_and_anonymous_ones_and_keys_of_the_project_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
