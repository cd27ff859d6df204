//! The clients that get an answer again, and for how long: I36 to I38, I41.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;

use super::provider::Provider;
use super::{ISSUER, pair, place, place_with_issuer, refresh, refresh_with};
use crate::edge::issuer::Issuer;
use support::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i36_after_grace_a_token_that_comes_again_reaches_the_provider_which_ends_the_login() {
    let provider = Provider::start().await;
    let place = place(&provider, "grace = \"1s\"");
    let gate = place.start();
    let token = provider.login();
    let first = pair(&refresh(&gate, &token).await);
    // Within grace the relay repeats the pair; after that it asks the provider.
    until("grace is over", async || {
        let again = refresh(&gate, &token).await;
        if again.status == 200 {
            assert_eq!(pair(&again), first);
        } else {
            assert_eq!(again.error(), "invalid_grant");
        }
        provider.count() == 2
    })
    .await;
    assert_eq!(provider.ended(), 1, "its detection is not suppressed");
    assert_eq!(refresh(&gate, &first.1).await.error(), "invalid_grant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i36_without_grace_nothing_is_given_again() {
    let provider = Provider::start().await;
    let place = place(&provider, "grace = \"0s\"");
    let gate = place.start();
    let token = provider.login();
    pair(&refresh(&gate, &token).await);
    assert_eq!(refresh(&gate, &token).await.error(), "invalid_grant");
    assert_eq!((provider.count(), provider.ended()), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i37_neither_the_store_nor_the_log_nor_the_metrics_hold_a_token() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = place.start();
    let mut tokens = vec![provider.login()];
    for _ in 0..3 {
        let (access, refresh) = pair(&refresh(&gate, tokens.last().unwrap()).await);
        tokens.extend([access, refresh]);
    }
    refresh_with(&gate, &tokens[0], &[("client_id", "other")]).await;
    let log = gate.log();
    let metrics = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    assert_eq!(gate.stop(), Some(0));
    let mut files = vec![place.path("data")];
    let mut bytes = Vec::new();
    while let Some(file) = files.pop() {
        if file.is_dir() {
            files.extend(std::fs::read_dir(&file).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            bytes.extend(std::fs::read(&file).unwrap());
        }
    }
    assert!(bytes.len() > 10_000, "the store was read");
    for token in &tokens {
        let is_in = |text: &[u8]| text.windows(token.len()).any(|window| window == token.as_bytes());
        assert!(!is_in(&bytes) && !is_in(log.as_bytes()) && !is_in(metrics.as_bytes()), "a token lies there");
    }
    for event in ["relay.exchange", "relay.refuse"] {
        assert!(log.contains(&format!("event.action={event} ")), "{event}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i38_another_client_secret_or_scope_gets_nothing_within_grace_and_nothing_is_sent() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = place.start();
    let token = provider.login();
    let mine = [("client_id", "spa"), ("client_secret", "s3cret-of-spa"), ("scope", "read write")];
    let first = pair(&refresh_with(&gate, &token, &mine).await);
    for (other, error) in [
        (&[("client_id", "other"), ("client_secret", "s3cret-of-spa"), ("scope", "read write")][..], "invalid_grant"),
        (&[("client_id", "spa"), ("client_secret", "guess"), ("scope", "read write")], "invalid_grant"),
        (&[("client_id", "spa"), ("scope", "read write")], "invalid_grant"),
        (&[], "invalid_grant"),
        (&[("client_id", "spa"), ("client_secret", "s3cret-of-spa")], "invalid_scope"),
        (&[("client_id", "spa"), ("client_secret", "s3cret-of-spa"), ("scope", "admin")], "invalid_scope"),
        (
            &[("client_id", "spa"), ("client_secret", "s3cret-of-spa"), ("scope", "read write"), ("resource", "urn:x")],
            "invalid_scope",
        ),
    ] {
        let answer = refresh_with(&gate, &token, other).await;
        assert_eq!((answer.status.as_u16(), answer.error().as_str()), (400, error), "{other:?}");
    }
    let reordered = [("scope", "write read"), ("client_secret", "s3cret-of-spa"), ("client_id", "spa")];
    assert_eq!(pair(&refresh_with(&gate, &token, &reordered).await), first, "the owner is not harmed");
    assert_eq!((provider.count(), provider.ended()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i38_a_bad_proof_is_refused_and_nothing_is_sent() {
    let provider = Provider::start().await;
    let place = place(&provider, "");
    let gate = place.start();
    let token = provider.login();
    let form = [("content-type", "application/x-www-form-urlencoded"), ("dpop", "a.b.c")];
    let body = format!("grant_type=refresh_token&client_id=spa&refresh_token={token}");
    let answer = gate.call(Method::POST, "/auth/token", &form, &body).await;
    assert_eq!((answer.status.as_u16(), answer.error().as_str()), (400, "invalid_dpop_proof"));
    assert_eq!(provider.count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i39_a_provider_that_is_not_discovered_yet_is_503_and_its_endpoints_are_those_of_its_document() {
    let provider = Provider::start().await;
    provider.sign_as(Issuer::new(1));
    let url = provider.url();
    let place = place(&provider, "issuer = \"idp\"");
    let discovery = format!("discovery = \"{url}/discovery\"");
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    let config = config.replacen("[[upstreams]]", &ISSUER.replace("jwks_file = \"idp.json\"", &discovery), 1);
    let config = config.replace(&format!("token_url = \"{url}/token\"\nrevocation_url = \"{url}/revoke\"\n"), "");
    assert!(config.contains("[[issuers]]") && !config.contains("token_url"));
    place.write_config(&config);
    assert_eq!(place.run(&["check"], "").code, Some(0));
    let gate = place.start();
    place.point_commands_at(&gate);
    let token = provider.login();
    let early = refresh(&gate, &token).await;
    assert_eq!((early.status.as_u16(), provider.count()), (503, 0), "nothing was sent");
    assert!(early.headers.contains_key("retry-after"));
    provider.publish();
    place.done(&["issuer", "refresh", "idp"], "");
    let (access, _) = pair(&refresh(&gate, &token).await);
    assert_eq!(gate.get("/hello", &access).await.status, 200);
    gate.form("/auth/revoke", &[("client_id", "spa"), ("token", &token)]).await;
    assert_eq!(provider.last().path, "/revoke");
    assert_eq!(gate.get("/hello", &access).await.status, 401);
}

/// The claims of a token.
pub(super) fn said_in(token: &str) -> serde_json::Value {
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i41_i68_a_revocation_reaches_the_provider_then_ends_the_answer_and_its_access_token() {
    let provider = Provider::start().await;
    let place = place_with_issuer(&provider, "", "");
    let gate = place.start();
    let token = provider.login();
    let (access, _) = pair(&refresh(&gate, &token).await);
    assert_eq!(gate.get("/hello", &access).await.status, 200);
    assert!(gate.log().contains("verified=true"), "the audit trail names the subject");

    // Requirement I68: another session of the user.
    let said = said_in(&access);
    let beside = |jti: &str, sid: &serde_json::Value| {
        let at = said["iat"].as_u64().unwrap() - 5;
        Issuer::new(1).token(&serde_json::json!({ "sub": said["sub"], "sid": sid, "jti": jti, "iat": at }))
    };
    let other_session = beside("a", &"another".into());
    assert_eq!(gate.get("/hello", &other_session).await.status, 200);

    let revoked = gate.form("/auth/revoke", &[("client_id", "spa"), ("token", &token)]).await;
    assert_eq!((revoked.status.as_u16(), revoked.body.len()), (200, 0));
    assert_eq!(revoked.headers["cache-control"], "no-store");
    assert_eq!((provider.last().path.as_str(), provider.last().field("token")), ("/revoke", Some(token.as_str())));
    assert_eq!(gate.get("/hello", &access).await.status, 401, "its access token ended");
    assert_eq!(gate.get("/hello", &other_session).await.status, 200);
    let again = refresh(&gate, &token).await;
    assert_eq!(again.error(), "invalid_grant");
    assert_eq!(provider.count(), 3, "the provider says so, not a record");

    let other = provider.login();
    let (access, _) = pair(&refresh(&gate, &other).await);
    assert_eq!(gate.get("/hello", &access).await.status, 200);
    // Requirement I68: a stranger has a token of the same user for another service.
    let said = said_in(&access);
    let elsewhere = serde_json::json!({ "aud": "some-other-service", "sub": said["sub"], "sid": said["sid"] });
    let elsewhere = Issuer::new(1).token(&elsewhere);
    let taken = gate.form("/auth/revoke", &[("client_id", "spa"), ("token", &elsewhere)]).await;
    assert_eq!((taken.status.as_u16(), gate.get("/hello", &access).await.status.as_u16()), (200, 200));
    gate.form("/auth/revoke", &[("client_id", "spa"), ("token", &access)]).await;
    assert_eq!(gate.get("/hello", &access).await.status, 401, "an access token is revoked by itself, too");
    let [one, two] = ["b", "c"].map(|jti| beside(jti, &serde_json::Value::Null));
    gate.form("/auth/revoke", &[("client_id", "spa"), ("token", &one)]).await;
    let status = [gate.get("/hello", &one).await.status.as_u16(), gate.get("/hello", &two).await.status.as_u16()];
    assert_eq!(status, [401, 200], "without a session it ends alone");
}
