//! Metadata for clients that know only the issuer (RFC 8414).

use http::{Method, StatusCode};
use serde_json::json;

use support::{CONFIG, Place};

const OAUTH: &str = "/.well-known/oauth-authorization-server";
const OPENID: &str = "/.well-known/openid-configuration";

/// The shared configuration, and a route that permits everything.
fn wide(config: &str) -> String {
    config.replace("path = \"/{*rest}\"\n", "path = \"/{*rest}\"\nauth = \"none\"\n")
}

#[tokio::test]
async fn metadata_names_the_issuer_and_every_endpoint_by_the_public_url() {
    let place = Place::new(&wide(CONFIG));
    let gate = place.start();
    for path in [OAUTH, OPENID] {
        let answer = gate.call(Method::GET, path, &[], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.headers["content-type"], "application/json");
        let expected = json!({
            "issuer": "http://gate.test",
            "token_endpoint": "http://gate.test/connect/token",
            "revocation_endpoint": "http://gate.test/connect/revocation",
            "introspection_endpoint": "http://gate.test/connect/introspect",
            "jwks_uri": "http://gate.test/.well-known/jwks.json",
            "grant_types_supported": ["password", "refresh_token"],
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "revocation_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post"],
            "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        });
        assert_eq!(answer.json(), expected, "{path}");
        let refused = gate.call(Method::POST, path, &[], "").await;
        assert_eq!(
            (refused.status, &refused.headers["allow"]),
            (StatusCode::METHOD_NOT_ALLOWED, &"GET, HEAD".parse().unwrap())
        );
    }
}

#[tokio::test]
async fn r12_near_misses_of_the_metadata_are_404() {
    let place = Place::new(&wide(CONFIG));
    let gate = place.start();
    for path in [OAUTH, OPENID] {
        let upper = path.to_ascii_uppercase();
        for near in [format!("{path}/"), upper, format!("/{path}"), format!("{path};x"), path.replace("well", "%77ell")]
        {
            assert_eq!(gate.call(Method::GET, &near, &[], "").await.status, StatusCode::NOT_FOUND, "{near}");
        }
    }
    // The gate publishes no metadata for another issuer.
    for other in [format!("{OAUTH}/acme"), format!("/acme{OPENID}")] {
        assert!(gate.call(Method::GET, &other, &[], "").await.json().get("issuer").is_none(), "{other}");
    }
}

#[tokio::test]
async fn an_issuer_with_a_path_has_its_metadata_where_each_standard_wants_it() {
    let config = wide(CONFIG).replace("[issuer]", "[issuer]\nurl = \"https://id.example/acme\"");
    let place = Place::new(&config);
    let gate = place.start();
    for path in [format!("{OAUTH}/acme"), format!("/acme{OPENID}")] {
        let said = gate.call(Method::GET, &path, &[], "").await.json();
        assert_eq!(said["issuer"], "https://id.example/acme", "{path}");
        assert_eq!(said["token_endpoint"], "http://gate.test/acme/connect/token", "{path}");
    }
    for other in [OAUTH, OPENID] {
        assert!(gate.call(Method::GET, other, &[], "").await.json().get("issuer").is_none(), "{other}");
    }
}

#[tokio::test]
async fn without_an_oauth_endpoint_there_is_no_metadata() {
    let config = wide(CONFIG)
        .replace("dialect = \"oauth2\"\npath = \"/{account}/connect/token\"", "dialect = \"envelope\"\npath = \"/t\"");
    let place = Place::new(&config);
    let gate = place.start();
    assert!(gate.call(Method::GET, OAUTH, &[], "").await.json().get("issuer").is_none());
}
