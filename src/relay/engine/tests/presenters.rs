//! A token in other hands, or with other parameters.

use secrecy::ExposeSecret;
use serde_json::json;

use super::*;
use crate::relay::dpop::tests::Client;
use rotogate_core::denial::ProofFlaw;
use rotogate_core::store::conformance::nodes::{MemoryNode, Way};

/// Each differs from [`presented`] in one thing.
fn others() -> Vec<(&'static str, Presented)> {
    let who = || presented("T").presenter;
    let with = |presenter| Presented { presenter, ..presented("T") };
    vec![
        ("client", with(Presenter { client: "other".into(), ..who() })),
        ("no client", with(Presenter { client: String::new(), ..who() })),
        ("secret", with(Presenter { credential: Some("guess".into()), ..who() })),
        ("DPoP key", with(Presenter { jkt: Some("thumb".into()), ..who() })),
    ]
}

fn other_params() -> [Presented; 3] {
    let one = || vec!["x".to_owned()];
    [
        Params { scope: one(), ..Params::default() },
        Params { resource: one(), ..Params::default() },
        Params { audience: one(), ..Params::default() },
    ]
    .map(|params| Presented { params, ..presented("T") })
}

#[tokio::test]
async fn i38_another_client_secret_key_or_scope_gets_nothing_within_grace_and_nothing_is_sent() {
    let world = World::new();
    let relay = world.relay();
    body(relay.exchange(presented("T")).await);
    for (what, other) in others() {
        assert!(matches!(relay.exchange(other).await, RelayAnswer::InvalidGrant(_)), "{what}");
    }
    for other in other_params() {
        assert!(matches!(relay.exchange(other).await, RelayAnswer::InvalidScope));
    }
    assert_eq!(world.provider.sent(), 1);
    assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Replayed, "the owner is not harmed");
}

#[tokio::test]
async fn i38_the_answer_of_a_confidential_client_needs_its_secret() {
    let world = World::new();
    let relay = world.relay();
    let mine = || {
        let credential = Some("s3cret".into());
        Presented { presenter: Presenter { credential, ..presented("T").presenter }, ..presented("T") }
    };
    body(relay.exchange(mine()).await);
    assert!(matches!(relay.exchange(presented("T")).await, RelayAnswer::InvalidGrant(_)), "the same client without it");
    assert_eq!(body(relay.exchange(mine()).await).1, Source::Replayed);
    assert_eq!(world.provider.sent(), 1);
}

#[tokio::test]
async fn i38_the_order_of_scopes_is_no_difference() {
    let world = World::new();
    let relay = world.relay();
    let with = |list: &[&str]| {
        let scope = list.iter().map(|&one| one.to_owned()).collect();
        Presented { params: Params { scope, ..Params::default() }, ..presented("T") }
    };
    body(relay.exchange(with(&["openid", "mail"])).await);
    assert_eq!(body(relay.exchange(with(&["mail", "openid"])).await).1, Source::Replayed);
    assert!(matches!(relay.exchange(with(&["mail"])).await, RelayAnswer::InvalidScope));
}

#[tokio::test]
async fn i38_while_the_exchange_is_under_way_others_wait_and_get_nothing_of_it() {
    let world = World::new();
    let relay = Arc::new(world.relay());
    let held = world.provider.hold();
    let first = start(&relay, presented("T"));
    world.provider.was_sent(1).await;
    let clients: Vec<_> = others().into_iter().map(|(_, other)| start(&relay, other)).collect();
    let params: Vec<_> = other_params().into_iter().map(|other| start(&relay, other)).collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    held.add_permits(1);
    assert_eq!(body(first.await.unwrap()).0, text(&granted(1)));
    for other in clients {
        assert!(matches!(other.await.unwrap(), RelayAnswer::InvalidGrant(_)));
    }
    for other in params {
        assert!(matches!(other.await.unwrap(), RelayAnswer::InvalidScope));
    }
    assert_eq!(world.provider.sent(), 1);
}

#[tokio::test]
async fn i38_a_refusal_of_another_client_is_not_given_to_the_right_one() {
    let world = World::new();
    let relay = world.relay();
    world.provider.next(Step::Reply(dead()));
    let thief = || others().swap_remove(0).1;
    assert_eq!(body(relay.exchange(thief()).await).0, text(&dead()), "the token was issued to another client");
    assert_eq!(body(relay.exchange(presented("T")).await), (text(&granted(2)), Source::Asked));
    assert!(matches!(relay.exchange(thief()).await, RelayAnswer::InvalidGrant(_)));
    assert_eq!(world.provider.sent(), 2);
}

#[tokio::test]
async fn i38_a_token_without_an_answer_is_not_sent_for_another_presenter() {
    let world = World::new();
    let relay = world.relay();
    world.provider.next(Step::Lost);
    unavailable(relay.exchange(presented("T")).await);
    world.pass(3);
    for (_, other) in others() {
        assert_eq!(unavailable(relay.exchange(other).await), ("relay_unknown", 27), "a fault, not a decision");
    }
    for other in other_params() {
        assert_eq!(unavailable(relay.exchange(other).await), ("relay_unknown", 27));
    }
    assert_eq!(world.provider.sent(), 1);
    assert_eq!(body(relay.exchange(presented("T")).await).0, text(&granted(2)), "the try is still its owner's");
}

#[tokio::test]
async fn j24_while_the_memory_of_proofs_is_full_nothing_with_a_proof_is_decided() {
    let world = World::new();
    let relay = world.relay();
    let (client, begun) = (Client::new(), world.clock.now());
    let with = |jti: &str| {
        let claims = json!({"jti": jti, "htm": "POST", "htu": PROOF_URL, "iat": world.clock.now().as_secs()});
        Presented { proof: Some(client.proof(&claims).into()), ..presented("T") }
    };
    relay.core.proofs.fill(begun);
    assert_eq!(unavailable(relay.exchange(with("a")).await), ("proofs_full", 30));
    body(relay.exchange(presented("without a proof")).await);
    // A replay counts as an answer. Once the proofs that fill it cannot pass any more, there is room.
    world.pass(29);
    assert_eq!(unavailable(relay.exchange(with("b")).await), ("proofs_full", 30));
    world.pass(121);
    assert_eq!(body(relay.exchange(with("c")).await).1, Source::Asked);
}

#[tokio::test]
async fn j24_a_proof_counts_once_and_who_has_no_good_token_fills_no_memory() {
    let world = World::new();
    let relay = world.relay();
    let owner = Client::new();
    let now = world.clock.now().as_secs();
    let proof =
        |client: &Client, jti: &str| client.proof(&json!({"jti": jti, "htm": "POST", "htu": PROOF_URL, "iat": now}));
    let with = |token: &str, proof: &str| Presented { proof: Some(proof.into()), ..presented(token) };
    // Anonymous clients, each with a key and a proof of its own.
    for n in 0..3 {
        world.provider.next(Step::Reply(dead()));
        let token = format!("made up {n}");
        assert_eq!(body(relay.exchange(with(&token, &proof(&Client::new(), "a"))).await).0, text(&dead()));
    }
    assert_eq!(relay.core.proofs.held(), 0);
    // The owner's request passes, and a copy of it does not.
    let captured = with("T", &proof(&owner, "a"));
    let again = || with("T", captured.proof.as_ref().unwrap().expose_secret());
    assert_eq!(body(relay.exchange(again()).await).1, Source::Asked);
    assert_eq!(relay.core.proofs.held(), 1);
    let sent = world.provider.sent();
    assert!(matches!(relay.exchange(again()).await, RelayAnswer::InvalidProof(ProofFlaw::Replayed)));
    // With a proof of its own, the owner gets the answer again.
    assert_eq!(body(relay.exchange(with("T", &proof(&owner, "b"))).await).1, Source::Replayed);
    assert_eq!(world.provider.sent(), sent);
}

#[tokio::test]
async fn j25_j26_a_proof_counts_once_at_the_relays_of_gates_that_share_a_store() {
    let world = World::new();
    let first = MemoryNode::first(conformance::ISSUER, conformance::LEEWAY, world.time.clone());
    let stores = [Arc::new(first.another()), Arc::new(first)];
    let [a, b] = stores.clone().map(|store| world.begun(RelayRules::default(), false, Some(store)));
    let owner = Client::new();
    let now = world.clock.now().as_secs();
    let with = |jti: &str| {
        let proof = owner.proof(&json!({"jti": jti, "htm": "POST", "htu": PROOF_URL, "iat": now}));
        Presented { proof: Some(proof.as_str().into()), ..presented("T") }
    };
    assert_eq!(body(a.exchange(with("a")).await).1, Source::Asked);
    assert!(matches!(b.exchange(with("a")).await, RelayAnswer::InvalidProof(ProofFlaw::Replayed)));
    assert_eq!(body(b.exchange(with("b")).await).1, Source::Replayed, "a proof of its own");
    stores[1].set_way(Way::Cut);
    assert_eq!(unavailable(b.exchange(with("c")).await).0, "proofs_unavailable");
    stores[1].set_way(Way::Open);
    assert_eq!(body(b.exchange(with("d")).await).1, Source::Replayed);
    // A proof is remembered while any gate may accept it, even a gate whose clock is a minute behind.
    let late = owner.proof(&json!({"jti": "a", "htm": "POST", "htu": PROOF_URL, "iat": now + 60}));
    let (other, at) = (Proofs::new(), Timestamp::from_secs(now + 119));
    world.pass(179);
    let good = other.check(&late, PROOF_URL, at).unwrap();
    let refused = other.use_in_store(&good, &*stores[0]).await;
    assert!(matches!(refused, Err(Error::Denied(Denial::BadProof(ProofFlaw::Replayed)))), "{refused:?}");
}
