//! `rotogate client`: a confidential client from nothing to its first token.

use http::StatusCode;

use support::{CONFIG, Place, keep_secret};

#[tokio::test]
async fn a_secret_that_was_made_is_the_one_that_its_hash_takes() {
    let place = Place::new(CONFIG);
    let made = place.json(&["client", "secret"], "");
    let secret = made["client_secret"].as_str().unwrap();
    keep_secret(secret);
    let own = format!("own-{}", uuid::Uuid::new_v4());
    keep_secret(&own);
    let of_own = place.json(&["client", "secret", "--stdin"], &own);
    assert_eq!(of_own.get("client_secret"), None, "who brings one knows it");
    assert!(place.done(&["client", "secret"], "").stdout.contains("secret_hash = \"$argon2id$"));

    let entry = |id: &str, made: &serde_json::Value| {
        let hash = made["secret_hash"].as_str().unwrap();
        format!("[[clients]]\nid = \"{id}\"\ngrants = [\"client_credentials\"]\nsecret_hash = \"{hash}\"\n")
    };
    place.write_config(&format!("{CONFIG}{}{}", entry("a", &made), entry("b", &of_own)));
    let gate = place.start();
    for (client, secret, status) in [
        ("a", secret, StatusCode::OK),
        ("b", &own, StatusCode::OK),
        ("a", &own, StatusCode::BAD_REQUEST),
        ("b", secret, StatusCode::BAD_REQUEST),
    ] {
        let fields = [("grant_type", "client_credentials"), ("client_id", client), ("client_secret", secret)];
        assert_eq!(gate.form("/connect/token", &fields).await.status, status, "{client}");
    }
    assert!(place.fails(&["client", "secret", "--stdin"], "").contains("the secret is empty"));
}
