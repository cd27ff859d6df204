//! ZITADEL: JWT access tokens of an application of the project.
//!
//! - Claims, and which token has them: <https://zitadel.com/docs/apis/openidoauth/claims>
//! - Metadata and keys: <https://zitadel.com/docs/apis/openidoauth/endpoints>
//! - Roles: <https://zitadel.com/docs/guides/integrate/retrieve-user-roles>

use serde_json::{Value, json};

use crate::keys::Key;
use crate::stand_in::{Provider, StandIn, now, other, with};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/zitadel/main.rs"]
mod program;

/// An ID token with the audience of the access token, and the roles.
fn id_token(more: &Value) -> Value {
    let id = json!({ "acr": "0", "amr": ["pwd"], "auth_time": now() - 60, "sid": "V1_123", "at_hash": "x" });
    with(id, more)
}

fn provider() -> Provider {
    Provider {
        name: "zitadel",
        issuer: "https://acme.zitadel.cloud",
        other_issuer: "https://other.zitadel.cloud",
        keys: "/oauth/v2/keys",
        key: Key::rsa(),
        published: |key| key,
        beside: vec![],
        header: json!({ "typ": "JWT" }),
        claims: json!({
            "aud": ["69234237810729234@acme", "69234237810729019"], "azp": "69234237810729234@acme",
            "client_id": "69234237810729234@acme", "jti": "69234237813329048", "nbf": now() - 10, "sub": "77776025198584418",
            "urn:zitadel:iam:org:project:roles": {
                "admin": { "63494265": "acme.zitadel.cloud" }, "clerk": { "63494265": "acme.zitadel.cloud" },
            },
        }),
        lifetime: 43200,
        identity: &[
            ("x-auth-subject", "77776025198584418"),
            ("x-auth-client", "69234237810729234@acme"),
            ("x-auth-roles", "admin,clerk"),
        ],
        restricted: vec![(
            "/admin",
            json!({ "urn:zitadel:iam:org:project:roles": { "clerk": { "63494265": "acme.zitadel.cloud" } } }),
        )],
        others: vec![
            other("a token of another project", "wrong_audience", json!({ "aud": ["69234237810729234@acme"] })),
            other("an ID token", "bad_claim", id_token(&json!({ "jti": null }))),
            other("an ID token with an id", "bad_claim", id_token(&json!({ "at_hash": null }))),
            other("a token without an id", "bad_claim", json!({ "jti": null })),
            other("roles of another type", "bad_claim", json!({ "urn:zitadel:iam:org:project:roles": ["admin"] })),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_zitadel_access_tokens_of_the_project_pass_and_id_tokens_with_the_same_audience_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
