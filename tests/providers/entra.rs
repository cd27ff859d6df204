//! Entra ID, version 2.0: access tokens of one tenant.
//!
//! - Claims: <https://learn.microsoft.com/en-us/entra/identity-platform/access-token-claims-reference>
//! - ID tokens: <https://learn.microsoft.com/en-us/entra/identity-platform/id-token-claims-reference>
//! - Metadata and keys, which have no `alg`: <https://learn.microsoft.com/en-us/entra/identity-platform/access-tokens>

use serde_json::{Value, json};

use crate::keys::Key;
use crate::stand_in::{Provider, StandIn, other, with};

#[allow(dead_code, unreachable_pub, reason = "it is a program, whose main the tests do not call")]
#[path = "../../examples/providers/entra/main.rs"]
mod program;

/// The documented set has certificates and issuers, and no `alg`.
fn without_alg(key: Value) -> Value {
    let issuer = "https://login.microsoftonline.com/aaaabbbb-0000-cccc-1111-dddd2222eeee/v2.0";
    with(key, &json!({ "alg": null, "x5t": "x", "x5c": ["MIIDBTCCAe2gAwIBAgIQ"], "issuer": issuer }))
}

/// An ID token for an application that is also the API: both tokens have the same audience.
fn id_token(more: &Value) -> Value {
    with(json!({ "azp": null, "azpacr": null, "scp": null }), more)
}

fn provider() -> Provider {
    Provider {
        name: "entra",
        issuer: "https://login.microsoftonline.com/aaaabbbb-0000-cccc-1111-dddd2222eeee/v2.0",
        other_issuer: "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
        keys: "/aaaabbbb-0000-cccc-1111-dddd2222eeee/discovery/v2.0/keys",
        key: Key::rsa(),
        published: without_alg,
        beside: vec![],
        header: json!({ "typ": "JWT" }),
        claims: json!({
            "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "aio": "AXQAi/8IAAAA", "azp": "ce4a6f07-0d5c-4b4c-8b0b-7a0a7f1e2b3c",
            "azpacr": "0", "name": "Abe Lincoln", "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "preferred_username": "abeli@acme.example", "rh": "I", "scp": "Orders.Read", "roles": ["Orders.Admin"],
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": "aaaabbbb-0000-cccc-1111-dddd2222eeee",
            "uti": "fqiBqXLPj0eQa82S-IYFAA", "ver": "2.0",
        }),
        lifetime: 4500,
        identity: &[
            ("x-auth-subject", "690222be-ff1a-4d56-abd1-7e4f7d38e474"),
            ("x-auth-account", "entra:aaaabbbb-0000-cccc-1111-dddd2222eeee"),
            ("x-auth-client", "ce4a6f07-0d5c-4b4c-8b0b-7a0a7f1e2b3c"),
            ("x-auth-scope", "Orders.Read"),
            ("x-auth-roles", "Orders.Admin"),
        ],
        restricted: vec![
            // A token for an application itself has roles and no scope.
            ("/orders", json!({ "scp": null, "idtyp": "app" })),
            ("/admin", json!({ "roles": null })),
        ],
        others: vec![
            other(
                "a token for Microsoft Graph",
                "wrong_audience",
                json!({ "aud": "00000003-0000-0000-c000-000000000000" }),
            ),
            other("an ID token", "bad_claim", id_token(&json!({ "nonce": "12345" }))),
            other("an ID token without nonce", "bad_claim", id_token(&json!({}))),
            other("a token of the implicit flow", "bad_claim", json!({ "at_hash": "x" })),
            other("a token of version 1.0", "bad_claim", json!({ "ver": "1.0", "azp": null, "appid": "ce4a6f07" })),
            other("a token without version", "bad_claim", json!({ "ver": null })),
            other("a token without a person", "bad_claim", json!({ "oid": null })),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i66_entra_access_tokens_of_the_tenant_pass_and_id_tokens_for_the_same_application_do_not() {
    let stand_in = StandIn::start(provider());
    let app = program::app(&stand_in.issuer()).await;
    crate::trial(stand_in, app).await;
}
