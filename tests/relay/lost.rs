//! A lost reply after grace: the gate has seen whether the new pair was used. I71 to I76.

use serde_json::json;

use super::provider::Provider;
use super::replay::said_in;
use super::{ISSUER, config, pair, place_with_issuer, refresh};
use crate::edge::issuer::Issuer;
use support::{Gate, Place, until};

const GRACE: &str = "grace = \"1s\"";

/// Presents a token until its answer is no longer the one that is repeated within grace.
async fn after_grace(gate: &Gate, token: &str, repeated: &(String, String)) -> (String, String) {
    let mut next = None;
    until("grace is over", async || {
        let again = pair(&refresh(gate, token).await);
        next = (again != *repeated).then_some(again);
        next.is_some()
    })
    .await;
    next.unwrap()
}

/// Presents a token until the provider refuses it.
async fn until_refused(gate: &Gate, token: &str) {
    until("the provider has refused it", async || {
        let answer = refresh(gate, token).await;
        answer.status != 200 && answer.error() == "invalid_grant"
    })
    .await;
}

/// The number of replies that the gate keeps until they are used.
pub(super) async fn kept(gate: &Gate) -> String {
    let metrics = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    let line = metrics.lines().find_map(|line| line.strip_prefix("rotogate_relay_kept "));
    line.unwrap_or_else(|| panic!("{metrics}")).to_owned()
}

/// The whole story: lost, the gate killed, presented again after grace, used.
async fn a_lost_reply_costs_no_login_and_a_used_one_is_not_given_again(place: &Place, provider: &Provider) {
    let mut gate = place.start();
    let token = provider.login();
    let first = pair(&refresh(&gate, &token).await);
    assert_eq!(kept(&gate).await, "1");
    gate.kill();
    let gate = place.start();
    let second = after_grace(&gate, &token, &first).await;
    assert_eq!((provider.count(), provider.ended()), (2, 0));
    assert_eq!(provider.last().field("refresh_token"), Some(first.1.as_str()), "the kept token was exchanged");
    assert_eq!(provider.last().field("client_id"), Some("spa"));
    assert!(gate.log().contains("renewed=true"));
    // The second pair arrives: its access token is used.
    assert_eq!(kept(&gate).await, "1");
    assert_eq!(gate.get("/hello", &second.0).await.status, 200);
    until("the use is noted", async || kept(&gate).await == "0").await;
    until_refused(&gate, &token).await;
    assert_eq!(provider.last().field("refresh_token"), Some(token.as_str()));
    assert_eq!((provider.count(), provider.ended()), (3, 1), "the provider detects the reuse");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i71_i72_after_grace_a_lost_reply_costs_no_login_and_a_used_one_is_not_given_again() {
    let provider = Provider::start().await;
    let place = place_with_issuer(&provider, GRACE, "");
    a_lost_reply_costs_no_login_and_a_used_one_is_not_given_again(&place, &provider).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i71_i72_i75_the_same_holds_for_opaque_tokens_that_the_provider_introspects() {
    let provider = Provider::start().await;
    let introspection = format!(
        "introspection = {{ url = \"{}/introspect\", client_id = \"gate\", secret_file = \"idp.secret\" }}",
        provider.url()
    );
    let issuer = ISSUER.replace("jwks_file = \"idp.json\"", &introspection);
    let config = config(&provider, &format!("issuer = \"idp\"\n{GRACE}")).replacen("[[upstreams]]", &issuer, 1);
    let place = Place::new(&config);
    std::fs::write(place.path("ca.pem"), support::pki::Pki::new().root_pem()).unwrap();
    support::pki::write_private(&place.path("idp.secret"), "the-secret-of-the-gate");
    a_lost_reply_costs_no_login_and_a_used_one_is_not_given_again(&place, &provider).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i73_who_goes_on_with_an_abandoned_pair_is_detected() {
    let provider = Provider::start().await;
    let place = place_with_issuer(&provider, GRACE, "");
    let gate = place.start();
    let token = provider.login();
    let of_thief = pair(&refresh(&gate, &token).await);
    let of_owner = after_grace(&gate, &token, &of_thief).await;
    assert_eq!(refresh(&gate, &of_thief.1).await.error(), "invalid_grant");
    assert_eq!((provider.count(), provider.ended()), (3, 1));
    assert_eq!(refresh(&gate, &of_owner.1).await.error(), "invalid_grant");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i74_a_pair_whose_session_ended_here_is_not_renewed() {
    let provider = Provider::start().await;
    let place = place_with_issuer(&provider, GRACE, "");
    let gate = place.start();
    let token = provider.login();
    let claims = said_in(&pair(&refresh(&gate, &token).await).0);
    // The session ends by a newer access token, of which the gate keeps no reply.
    let newer = || Issuer::new(1).token(&json!({ "sub": claims["sub"], "sid": claims["sid"], "jti": "newer" }));
    until("a second has begun", async || said_in(&newer())["iat"].as_u64() > claims["iat"].as_u64()).await;
    gate.form("/auth/revoke", &[("client_id", "spa"), ("token", &newer())]).await;
    assert_eq!(kept(&gate).await, "1");
    until_refused(&gate, &token).await;
    assert_eq!(provider.last().field("refresh_token"), Some(token.as_str()), "the provider decides");
    assert_eq!((provider.count(), kept(&gate).await.as_str()), (3, "0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i71_without_a_window_a_token_reaches_the_provider_after_grace() {
    let provider = Provider::start().await;
    let place = place_with_issuer(&provider, "grace = \"1s\"\nlost_response_window = \"0s\"", "");
    let gate = place.start();
    let token = provider.login();
    pair(&refresh(&gate, &token).await);
    until_refused(&gate, &token).await;
    assert_eq!((provider.count(), provider.ended()), (2, 1));
}

/// One gate gives the pair, the other sees its use.
async fn a_use_at_one_gate_counts_at_the_other(place: &Place, provider: &Provider) {
    let [a, b] = [place.start(), place.start()];
    let token = provider.login();
    let first = pair(&refresh(&a, &token).await);
    let second = after_grace(&b, &token, &first).await;
    assert_eq!((provider.count(), provider.ended()), (2, 0));
    assert_eq!(pair(&refresh(&a, &token).await), second, "the other gate repeats it");
    assert_eq!(b.get("/hello", &second.0).await.status, 200);
    // A gate that stops writes what it has noted.
    assert_eq!(b.stop(), Some(0));
    until_refused(&a, &token).await;
    assert_eq!((provider.count(), provider.ended()), (3, 1));
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i72_gates_on_redis_share_what_they_saw_of_a_pair() {
    let (server, provider) = (support::redis::Redis::start(&[]), Provider::start().await);
    let place = place_with_issuer(&provider, GRACE, &crate::redis::store_of(&server));
    a_use_at_one_gate_counts_at_the_other(&place, &provider).await;
}

#[cfg(feature = "postgres")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i72_gates_on_postgresql_share_what_they_saw_of_a_pair() {
    let (server, provider) = (crate::postgres::server(), Provider::start().await);
    let place = place_with_issuer(&provider, GRACE, &crate::postgres::store_of(&server));
    support::pki::write_private(&place.path("store.pw"), crate::postgres::PASSWORD);
    a_use_at_one_gate_counts_at_the_other(&place, &provider).await;
}
