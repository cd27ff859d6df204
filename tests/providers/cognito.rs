//! Amazon Cognito: access tokens of a user pool.
//!
//! - Access tokens: <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-access-token.html>
//! - ID tokens: <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-the-id-token.html>
//! - Keys: <https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html>

use serde_json::json;

use crate::keys::Key;
use crate::stand_in::{Provider, StandIn, other};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/cognito/main.rs"]
mod program;

fn provider() -> Provider {
    Provider {
        name: "cognito",
        issuer: "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_EXAMPLE",
        other_issuer: "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_OTHER",
        keys: "/eu-central-1_EXAMPLE/.well-known/jwks.json",
        key: Key::rsa(),
        published: |key| key,
        beside: vec![],
        header: json!({}),
        claims: json!({
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "device_key": "aaaaaaaa-bbbb-cccc-dddd-example",
            "cognito:groups": ["admins"], "version": 2, "client_id": "1example23456789", "origin_jti": "aaaaaaaa-bbbb-cccc",
            "event_id": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "token_use": "access", "auth_time": 1_799_999_000,
            "scope": "phone openid profile orders/read email", "jti": "aaaaaaaa-bbbb-cccc-dddd", "username": "ada",
        }),
        lifetime: 3600,
        identity: &[
            ("x-auth-subject", "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"),
            ("x-auth-client", "1example23456789"),
            ("x-auth-scope", "orders/read"),
            ("x-auth-roles", "admins"),
        ],
        restricted: vec![("/admin", json!({ "cognito:groups": null }))],
        others: vec![
            other("the token of another client", "wrong_audience", json!({ "client_id": "another0client" })),
            other(
                "another client, whatever the audience",
                "wrong_audience",
                json!({
                    "client_id": "another0client", "aud": "1example23456789",
                }),
            ),
            other("a token without a client", "bad_claim", json!({ "client_id": null })),
            other(
                "an ID token",
                "bad_claim",
                json!({
                    "token_use": "id", "aud": "1example23456789", "client_id": null, "scope": null, "username": null,
                    "cognito:username": "ada", "at_hash": "x",
                }),
            ),
            other("an ID token with the client", "bad_claim", json!({ "token_use": "id" })),
            other("a token that does not say what it is", "bad_claim", json!({ "token_use": null })),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_cognito_access_tokens_of_the_client_pass_and_id_tokens_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
