//! One exchange, its answer and its replays.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn i33_however_many_present_a_token_at_once_it_is_sent_once_and_all_get_one_answer() {
    const CALLERS: usize = 64;
    for round in 0..20 {
        let world = World::new();
        let relay = Arc::new(world.relay());
        let barrier = Arc::new(Barrier::new(CALLERS));
        let held = (round % 2 == 0).then(|| world.provider.hold());
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (relay, barrier) = (Arc::clone(&relay), Arc::clone(&barrier));
            callers.spawn(async move {
                barrier.wait().await;
                body(relay.exchange(presented("T")).await)
            });
        }
        if let Some(held) = held {
            world.provider.was_sent(1).await;
            held.add_permits(CALLERS);
        }
        let answers = callers.join_all().await;
        assert_eq!(world.provider.sent(), 1);
        assert!(answers.iter().all(|(body, _)| *body == text(&granted(1))));
        assert_eq!(answers.iter().filter(|(_, source)| *source == Source::Asked).count(), 1);
        relay.finished().await;
    }
}

#[tokio::test]
async fn i33_two_tokens_do_not_wait_for_each_other() {
    let world = World::new();
    let relay = Arc::new(world.relay());
    let held = world.provider.hold();
    let first = start(&relay, presented("T1"));
    world.provider.was_sent(1).await;
    let second = start(&relay, presented("T2"));
    world.provider.was_sent(2).await;
    held.add_permits(2);
    assert_eq!(body(first.await.unwrap()).0, text(&granted(1)));
    assert_eq!(body(second.await.unwrap()).0, text(&granted(2)));
}

#[tokio::test]
async fn i34_a_client_that_goes_away_cancels_nothing_and_its_retry_gets_the_pair() {
    let world = World::new();
    let relay = Arc::new(world.relay());
    let held = world.provider.hold();
    let client = start(&relay, presented("T"));
    world.provider.was_sent(1).await;
    client.abort();
    assert!(client.await.unwrap_err().is_cancelled());
    held.add_permits(1);
    relay.finished().await;
    world.pass(5);
    let (again, source) = body(relay.exchange(presented("T")).await);
    assert_eq!((again, source), (text(&granted(1)).replace("300", "295"), Source::Replayed));
    assert_eq!(world.provider.sent(), 1);
}

#[tokio::test]
async fn i34_another_run_of_the_program_gives_the_stored_answer() {
    let world = World::new();
    body(world.relay().exchange(presented("T")).await);
    world.pass(29);
    let (again, source) = body(world.relay().exchange(presented("T")).await);
    assert_eq!((again, source), (text(&granted(1)).replace("300", "271"), Source::Replayed));
    assert_eq!(world.provider.sent(), 1);
}

#[tokio::test]
async fn i35_the_intent_is_stored_before_the_token_is_sent_and_the_answer_before_it_is_given() {
    // Its issuer alone can read the new access token.
    let steps = [(granted(1), &["stored Done", "issuer asked"][..]), (dead(), &["stored Dead"])];
    for (step, kept) in steps {
        let world = World::new();
        world.provider.next(Step::Reply(step.clone()));
        let answer = world.relay().exchange(presented("T")).await;
        world.events.add("answered");
        assert_eq!(body(answer), (text(&step), Source::Asked));
        assert_eq!(world.events.all(), [&["stored Pending", "sent"], kept, &["answered"]].concat());
    }
}

#[tokio::test]
async fn i35_what_cannot_be_stored_is_not_sent_and_what_was_granted_is_given_all_the_same() {
    let world = World::new();
    let relay = world.relay();
    for failing in ["load", "insert"] {
        *world.store.fails.lock().unwrap() = Some(failing);
        assert_eq!(unavailable(relay.exchange(presented("T")).await), ("store_failed", 5));
        assert_eq!(world.provider.sent(), 0, "{failing}");
    }
    *world.store.fails.lock().unwrap() = Some("swap");
    assert_eq!(body(relay.exchange(presented("T")).await), (text(&granted(1)), Source::Asked));
    *world.store.fails.lock().unwrap() = None;
    relay.finished().await;
    // The store has only the intent: for a retry, the token has no answer.
    assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_pending", 35));
    assert_eq!(world.provider.sent(), 1);
}

#[tokio::test]
async fn i36_after_grace_the_provider_decides_again() {
    let world = World::new();
    let relay = world.relay();
    body(relay.exchange(presented("T")).await);
    world.pass(29);
    assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Replayed);
    world.pass(1);
    world.provider.next(Step::Reply(dead()));
    assert_eq!(body(relay.exchange(presented("T")).await), (text(&dead()), Source::Asked));
    // Ten tabs cause one question. After another grace period, the provider may see reuse again.
    assert_eq!(body(relay.exchange(presented("T")).await), (text(&dead()), Source::Replayed));
    assert_eq!(world.provider.sent(), 2);
    world.pass(30);
    world.provider.next(Step::Reply(dead()));
    assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Asked);
    assert_eq!(world.provider.sent(), 3);
    assert_eq!(relay.sweep().await.unwrap(), 0);
    world.pass(30);
    assert_eq!(relay.sweep().await.unwrap(), 1);
    assert_eq!(world.record("T").await, None);
}

#[tokio::test]
async fn i36_grace_is_at_most_a_minute_half_of_the_tokens_life_and_ten_seconds_without_a_rotation() {
    let world = World::new();
    let until = async |token: &str| world.record(token).await.unwrap().until.since(conformance::START).as_secs();
    let relay = world.relay_with(RelayRules { grace: Duration::from_secs(600), ..RelayRules::default() });
    body(relay.exchange(presented("long")).await);
    assert_eq!(until("long").await, 60);
    let short = r#"{"access_token":"A","expires_in":40,"refresh_token":"R"}"#;
    world.provider.next(Step::Reply(reply(200, short)));
    body(relay.exchange(presented("short")).await);
    assert_eq!(until("short").await, 20);
    world.provider.next(Step::Reply(reply(200, r#"{"access_token":"A","expires_in":300}"#)));
    body(relay.exchange(presented("kept")).await);
    assert_eq!(until("kept").await, 10);
    // Without grace, nothing is kept: single flight alone is left.
    let none = world.relay_with(RelayRules { grace: Duration::ZERO, ..RelayRules::default() });
    body(none.exchange(presented("none")).await);
    assert_eq!(world.record("none").await, None);
}

#[tokio::test]
async fn i41_a_revocation_reaches_the_provider_then_ends_the_tokens_then_removes_the_record() {
    let world = World::new();
    let relay = world.relay();
    body(relay.exchange(presented("T")).await);
    world.events.0.lock().unwrap().clear();
    assert_eq!(body(relay.revoke(presented("T")).await).0, "");
    assert_eq!(world.events.all(), ["revoked at the provider", "tokens ended", "removed", "removed"]);
    assert_eq!(*world.ended.0.lock().unwrap(), ["access-1"]);
    assert_eq!(world.record("T").await, None);
    world.provider.next(Step::Reply(dead()));
    assert_eq!(body(relay.exchange(presented("T")).await), (text(&dead()), Source::Asked), "no replay");
}

#[tokio::test]
async fn i41_a_revocation_that_the_provider_did_not_accept_removes_nothing() {
    let world = World::new();
    let relay = world.relay();
    body(relay.exchange(presented("T")).await);
    for step in [Step::NotSent, Step::Lost, Step::Reply(reply(503, "internal words"))] {
        *world.provider.revocation.lock().unwrap() = Some(step);
        unavailable(relay.revoke(presented("T")).await);
        assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Replayed);
    }
    *world.provider.revocation.lock().unwrap() = Some(Step::Reply(reply(401, r#"{"error":"invalid_client"}"#)));
    body(relay.revoke(presented("T")).await);
    assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Replayed, "another client ends nothing");
    assert!(world.ended.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn i41_a_revocation_during_the_exchange_leaves_no_answer_behind() {
    let world = World::new();
    let relay = Arc::new(world.relay());
    let held = world.provider.hold();
    let client = start(&relay, presented("T"));
    world.provider.was_sent(1).await;
    body(relay.revoke(presented("T")).await);
    held.add_permits(1);
    body(client.await.unwrap());
    assert_eq!(world.record("T").await, None);
}

#[tokio::test]
async fn a_token_is_sent_at_most_so_often() {
    let world = World::new();
    let relay = world.relay();
    for _ in 0..10 {
        world.provider.next(Step::NotSent);
        unavailable(relay.exchange(presented("T")).await);
    }
    match relay.exchange(presented("T")).await {
        RelayAnswer::TooMany { limit, retry_after } => {
            assert_eq!((limit, retry_after), ("relay_per_token", Duration::from_secs(2)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(world.provider.sent(), 10);
    body(relay.exchange(presented("another")).await);
    world.pass(2);
    body(relay.exchange(presented("T")).await);
}

#[tokio::test]
async fn a_text_that_is_no_token_is_refused_before_anything_is_derived() {
    let world = World::new();
    let relay = world.relay();
    for token in [String::new(), "x".repeat(MAX_TOKEN + 1)] {
        assert!(matches!(relay.exchange(presented(&token)).await, RelayAnswer::InvalidGrant(_)));
    }
    assert_eq!(world.provider.sent(), 0);
    body(relay.exchange(presented(&"x".repeat(MAX_TOKEN))).await);
}

#[tokio::test]
async fn b41_the_answer_for_a_vault_is_kept_until_the_vault_was_written_and_then_for_the_grace() {
    let world = World::new();
    let relay = world.relay();
    let grace = RelayRules::default().grace.as_secs();
    let until = world.clock.now().plus(Duration::from_secs(7 * 86_400));
    let kept = || Presented { keep_until: Some(until), ..presented("T") };
    body(relay.exchange(kept()).await);
    // A day later, after a kill: the provider is not asked again.
    world.pass(86_400);
    let (again, source) = body(relay.exchange(kept()).await);
    assert_eq!((again, source), (text(&granted(1)).replace("300", "0"), Source::Replayed));
    // Another gate may have read the vault before it was written.
    relay.settle(kept()).await.unwrap();
    relay.settle(kept()).await.unwrap();
    world.pass(grace - 1);
    assert_eq!(body(relay.exchange(kept()).await).1, Source::Replayed);
    world.pass(1);
    assert_eq!(relay.sweep().await.unwrap(), 1);
    // A token that is not rotated, and a refusal, are kept as usual.
    world.provider.next(Step::Reply(reply(200, r#"{"access_token":"a","expires_in":300}"#)));
    body(relay.exchange(kept()).await);
    world.pass(10);
    assert_eq!(relay.sweep().await.unwrap(), 1);
    assert_eq!(world.provider.sent(), 2);
}
