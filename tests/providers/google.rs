//! Google: ID tokens, since its access tokens are opaque.
//!
//! - Metadata and claims: <https://developers.google.com/identity/openid-connect/reference>
//! - What to check: <https://developers.google.com/identity/gsi/web/guides/verify-google-id-token>
//! - Service accounts: <https://cloud.google.com/docs/authentication/get-id-token>

use serde_json::json;

use crate::keys::Key;
use crate::stand_in::{Provider, StandIn, now, other};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/google/main.rs"]
mod program;

fn provider() -> Provider {
    Provider {
        name: "google",
        issuer: "https://accounts.google.com",
        other_issuer: "https://accounts.example.com",
        keys: "/oauth2/v3/certs",
        key: Key::rsa(),
        published: |key| key,
        beside: vec![],
        header: json!({ "typ": "JWT" }),
        claims: json!({
            "azp": "1234987819200.apps.googleusercontent.com", "aud": "1234987819200.apps.googleusercontent.com",
            "sub": "10769150350006150715113082367", "at_hash": "HK6E_P6Dh8Y93mRNtsDB1Q", "hd": "acme.example",
            "email": "ada@acme.example", "email_verified": true, "nonce": "0394852-3190485-2490358",
        }),
        lifetime: 3600,
        identity: &[
            ("x-auth-subject", "10769150350006150715113082367"),
            ("x-auth-client", "1234987819200.apps.googleusercontent.com"),
        ],
        restricted: vec![],
        others: vec![
            other(
                "the token of another client",
                "wrong_audience",
                json!({ "aud": "32555940559.apps.googleusercontent.com" }),
            ),
            other(
                "a user of another domain",
                "bad_claim",
                json!({ "hd": "other.example", "email": "eve@other.example" }),
            ),
            other("a user without a domain", "bad_claim", json!({ "hd": null, "email": "eve@gmail.com" })),
            other(
                "another customer's service account",
                "bad_claim",
                json!({
                    "azp": "102847592", "hd": null, "at_hash": null, "nonce": null, "email": "x@other.iam.gserviceaccount.com",
                }),
            ),
            other("a token of another lifetime", "bad_claim", json!({ "exp": now() + 3 * 3600 })),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_google_id_tokens_of_the_client_and_the_domain_pass_and_other_customers_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
