//! Clerk: session tokens, version 2.
//!
//! - Claims: <https://clerk.com/docs/guides/sessions/session-tokens>
//! - What to check: <https://clerk.com/docs/guides/sessions/manual-jwt-verification>
//! - Tokens of templates, with the same key: <https://clerk.com/docs/guides/sessions/jwt-templates>
//! - The OAuth server, with the same issuer: <https://clerk.com/docs/guides/configure/auth-strategies/oauth/how-clerk-implements-oauth>

use serde_json::json;

use crate::keys::Key;
use crate::stand_in::{Other, Provider, StandIn, now, other};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/clerk/main.rs"]
mod program;

fn provider() -> Provider {
    Provider {
        name: "clerk",
        issuer: "https://clerk.acme.example",
        other_issuer: "https://other.clerk.accounts.dev",
        keys: "/.well-known/jwks.json",
        key: Key::rsa(),
        published: |key| key,
        beside: vec![],
        header: json!({ "typ": "JWT", "cat": "cl_B7d4PD111AAA" }),
        claims: json!({
            "azp": "https://app.acme.example", "fva": [7, -1], "jti": "1234567890", "nbf": now() - 10, "sid": "sess_123",
            "sub": "user_123", "v": 2, "pla": "u:free,o:pro", "fea": "o:dashboard,o:impersonation", "sts": "active",
            "o": { "id": "org_123", "slg": "org-slug", "rol": "admin", "per": "read,manage", "fpm": "3,2" },
        }),
        lifetime: 60,
        identity: &[
            ("x-auth-subject", "user_123"),
            ("x-auth-client", "https://app.acme.example"),
            ("x-auth-roles", "admin"),
        ],
        restricted: vec![
            ("/admin", json!({ "o": { "id": "org_123", "slg": "org-slug", "rol": "member" } })),
            // No organization is active.
            ("/admin", json!({ "o": null, "fea": "u:dashboard", "pla": "u:free" })),
        ],
        others: vec![
            other("the token of another application", "wrong_audience", json!({ "azp": "https://evil.example" })),
            other(
                "another application, whatever the audience",
                "wrong_audience",
                json!({
                    "azp": "https://evil.example", "aud": "https://app.acme.example",
                }),
            ),
            other("a token without origin", "bad_claim", json!({ "azp": null })),
            other("a session that waits for a task of its user", "bad_claim", json!({ "sts": "pending" })),
            other(
                "a token of version 1",
                "bad_claim",
                json!({
                    "v": null, "sts": null, "o": null, "org_id": "org_123", "org_role": "org:admin",
                }),
            ),
            other(
                "a token of a template",
                "bad_claim",
                json!({
                    "sid": null, "sts": null, "v": null, "fva": null, "aud": "https://app.acme.example",
                }),
            ),
            Other {
                what: "an access token of the OAuth server",
                outcome: "wrong_type",
                header: json!({ "typ": "at+jwt", "cat": null }),
                claims: json!({ "azp": null, "sid": null, "client_id": "d9g4CT4WYiCBm7EU", "scope": "profile email" }),
            },
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_clerk_session_tokens_of_the_application_pass_and_the_instances_others_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
