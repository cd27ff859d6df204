//! Okta: access tokens of an authorization server.
//!
//! - Tokens: <https://developer.okta.com/docs/reference/api/oidc/#tokens-and-claims>
//! - What to check: <https://developer.okta.com/docs/guides/validate-access-tokens/>

use serde_json::{Value, json};

use crate::keys::Key;
use crate::stand_in::{Other, Provider, StandIn, other, with};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/okta/main.rs"]
mod program;

fn id_token(more: &Value) -> Value {
    let id = json!({
        "jti": "ID.4eAWJOCMB3SX8XewDfVR", "cid": null, "uid": null, "scp": null, "amr": ["pwd"], "idp": "00ok1u7AsAkrwdZL3z0g3",
    });
    with(id, more)
}

fn provider() -> Provider {
    Provider {
        name: "okta",
        issuer: "https://acme.okta.com/oauth2/default",
        other_issuer: "https://acme.okta.com/oauth2/aus9o8wzkhckw9TLa0h7z",
        keys: "/oauth2/default/v1/keys",
        key: Key::rsa(),
        published: |key| key,
        beside: vec![],
        header: json!({}),
        claims: json!({
            "ver": 1, "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", "aud": "api://default",
            "sub": "ada@acme.example", "cid": "nmdP1fcyvdVO11AL7ECm", "uid": "00ugrenMeqvYla4HW0g3",
            "scp": ["openid", "email", "orders.read"], "auth_time": 1_799_999_000, "groups": ["Everyone", "Clerks"],
        }),
        lifetime: 3600,
        identity: &[
            ("x-auth-subject", "ada@acme.example"),
            ("x-auth-client", "nmdP1fcyvdVO11AL7ECm"),
            ("x-auth-scope", "orders.read"),
            ("x-auth-roles", "Clerks,Everyone"),
        ],
        restricted: vec![("/orders", json!({ "scp": ["openid", "email"] }))],
        others: vec![
            other("a token for another API", "wrong_audience", json!({ "aud": "api://other" })),
            other(
                "a token of the org server",
                "unknown_issuer",
                json!({
                    "iss": "https://acme.okta.com", "aud": "https://acme.okta.com",
                }),
            ),
            other("an ID token", "bad_claim", id_token(&json!({ "aud": "nmdP1fcyvdVO11AL7ECm", "at_hash": "x" }))),
            other("an ID token of a client with the name of the API", "bad_claim", id_token(&json!({}))),
            other("a token without a client", "bad_claim", json!({ "cid": null })),
            Other {
                what: "the type of the org server's tokens",
                outcome: "wrong_type",
                header: json!({ "typ": "application/okta-internal-at+jwt" }),
                claims: json!({}),
            },
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_okta_access_tokens_of_the_authorization_server_pass_and_id_tokens_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
