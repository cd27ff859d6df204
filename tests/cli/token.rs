//! `rotogate token`.

use http::StatusCode;

use support::{CONFIG, Place};

#[tokio::test]
async fn a_token_on_standard_input_is_looked_into() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    let access = place.json(&["token", "inspect"], &tokens.access);
    assert_eq!((&access["kind"], &access["authentic"]), (&"access_token".into(), &true.into()));
    assert_eq!(access["claims"]["client_id"], "web");
    let refresh = place.json(&["token", "inspect"], &format!("{}\n", tokens.refresh));
    assert_eq!((&refresh["kind"], &refresh["authentic"]), (&"refresh_token".into(), &true.into()));
    assert!(refresh["session"].is_string());

    let mut forged = tokens.refresh.clone().into_bytes();
    let middle = forged.len() / 2;
    forged[middle] = if forged[middle] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    for garbage in ["garbage", "a.b.c", "rg1", &forged, &tokens.access[..tokens.access.len() - 4]] {
        let said = place.json(&["token", "inspect"], garbage);
        assert_eq!(said["authentic"], false);
        assert!(said.get("claims").is_none() && said.get("session").is_none(), "nothing in it can be believed");
    }
    assert!(place.fails(&["token", "inspect"], "").contains("empty"));
    assert!(place.done(&["token", "inspect"], &tokens.access).stdout.contains("\"authentic\": true"));
}

#[tokio::test]
async fn a_minted_token_is_good_until_its_client_revokes_it() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let mint = ["token", "mint", "--subject", "job-1", "--client", "web", "--scope", "read", "--ttl", "5m"];
    let minted = place.json(&mint, "");
    let token = minted["access_token"].as_str().unwrap();
    assert!(minted["jti"].is_string() && minted["expires"].is_u64());
    let other = place.done(&mint, "").stdout;
    let call = gate.get("/", token).await;
    assert_eq!(call.status, StatusCode::OK);
    assert_eq!(call.echoed("x-auth-subject"), ["job-1"]);
    assert_eq!(call.echoed("x-auth-scope"), ["read"]);

    assert_eq!(gate.revoke(token).await.status, StatusCode::OK);
    assert_eq!(gate.get("/", token).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.get("/", other.trim()).await.status, StatusCode::OK, "the revocation is of one jti");
    assert_eq!(gate.stop(), Some(0));
    let gate = place.start();
    assert_eq!(gate.get("/", token).await.status, StatusCode::UNAUTHORIZED, "and outlives a restart");
    assert_eq!(gate.get("/", other.trim()).await.status, StatusCode::OK);
}

#[test]
fn a_token_that_lives_too_long_or_that_nobody_could_revoke_is_not_minted() {
    let place = Place::new(CONFIG);
    let mint = |ttl| ["token", "mint", "--subject", "job-1", "--client", "web", "--ttl", ttl];
    assert!(place.fails(&mint("1h"), "").contains("data/keys"), "there are no keys yet");
    drop(place.start());
    assert!(place.fails(&mint("25h"), "").contains("1d"));
    let unknown = ["token", "mint", "--subject", "job-1", "--client", "wbe"];
    assert!(place.fails(&unknown, "").contains("\"wbe\""), "a client that could not revoke it");
    assert_eq!(place.run(&mint("soon"), "").code, Some(2));
}
