//! A provider that fails, and a program that is killed.

use super::*;

#[tokio::test]
async fn i39_a_provider_that_did_not_take_it_leaves_nothing_behind() {
    let busy = |status, retry_after: Option<u64>| {
        let retry_after = retry_after.map(Duration::from_secs);
        Step::Reply(ProviderReply { retry_after, ..reply(status, "internal words") })
    };
    let cases = [
        (Step::NotSent, ("provider_unreachable", 1)),
        (busy(429, Some(7)), ("provider_busy", 7)),
        (busy(501, None), ("provider_busy", 1)),
        (busy(503, Some(86_400)), ("provider_busy", 300)),
    ];
    for (step, expected) in cases {
        let world = World::new();
        let relay = world.relay();
        world.provider.next(step);
        assert_eq!(unavailable(relay.exchange(presented("T")).await), expected);
        assert_eq!(world.record("T").await, None);
        assert_eq!(body(relay.exchange(presented("T")).await), (text(&granted(2)), Source::Asked));
    }
}

#[tokio::test]
async fn i39_other_errors_are_passed_on_and_leave_nothing_behind() {
    let world = World::new();
    let relay = world.relay();
    let nonce = ProviderReply {
        dpop_nonce: Some("n".to_owned()),
        challenge: Some("DPoP".to_owned()),
        ..reply(401, r#"{"error":"use_dpop_nonce"}"#)
    };
    world.provider.next(Step::Reply(nonce.clone()));
    match relay.exchange(presented("T")).await {
        RelayAnswer::Reply(passed, Source::Asked) => assert_eq!(passed, nonce),
        other => panic!("{other:?}"),
    }
    assert_eq!(world.record("T").await, None);
    body(relay.exchange(presented("T")).await);
}

/// All ways to have sent a token without a whole reply.
fn unclear() -> Vec<Step> {
    let replies = [(500, "x"), (502, "x"), (504, "x"), (302, "x"), (200, r#"{"access_token":"cut"#)];
    let replies = replies.map(|(status, body)| Step::Reply(reply(status, body)));
    [Step::Lost, Step::Silent].into_iter().chain(replies).collect()
}

#[tokio::test(start_paused = true)]
async fn i39_without_a_whole_reply_the_clients_retry_is_sent_once_more_and_the_gate_repeats_nothing() {
    for step in unclear() {
        let world = World::new();
        let relay = world.relay();
        world.provider.next(step.clone());
        assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_unknown", 1));
        assert_eq!(world.record("T").await.unwrap().state, RelayState::Unknown);
        assert_eq!(world.provider.sent(), 1);
        assert_eq!(body(relay.exchange(presented("T")).await), (text(&granted(2)), Source::Asked));
        assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Replayed);

        let world = World::new();
        let relay = world.relay();
        world.provider.next(step.clone());
        world.provider.next(step.clone());
        unavailable(relay.exchange(presented("T")).await);
        unavailable(relay.exchange(presented("T")).await);
        assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_unknown", 30), "once more, and no more");
        assert_eq!(world.provider.sent(), 2);
        world.pass(30);
        body(relay.exchange(presented("T")).await);
    }
}

/// The token of a browser's session, which only the gate presents: two lost answers cost no minute.
#[tokio::test(start_paused = true)]
async fn i70_a_token_that_only_the_gate_has_is_sent_again_after_each_pause() {
    for step in unclear() {
        let world = World::new();
        let after_unknown = AfterUnknown::Every(Duration::from_secs(5));
        let relay = world.relay_with(RelayRules { after_unknown, ..RelayRules::default() });
        for _ in 0..4 {
            world.provider.next(step.clone());
        }
        unavailable(relay.exchange(presented("T")).await);
        unavailable(relay.exchange(presented("T")).await);
        for sent in [2, 3] {
            assert_eq!(world.provider.sent(), sent);
            assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_unknown", 5));
            assert_eq!(world.provider.sent(), sent);
            world.pass(5);
            unavailable(relay.exchange(presented("T")).await);
        }
        world.pass(5);
        assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Asked);
    }
}

#[tokio::test(start_paused = true)]
async fn i39_with_refuse_a_retry_after_no_reply_is_refused() {
    for step in unclear() {
        let world = World::new();
        let relay = world.relay_with(RelayRules { after_unknown: AfterUnknown::Refuse, ..RelayRules::default() });
        world.provider.next(step);
        assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_unknown", 1));
        assert!(matches!(relay.exchange(presented("T")).await, RelayAnswer::InvalidGrant(_)));
        assert_eq!(world.provider.sent(), 1);
        world.pass(30);
        body(relay.exchange(presented("T")).await);
    }
}

#[tokio::test]
async fn i39_a_second_try_that_the_provider_did_not_take_does_not_count() {
    for step in [Step::NotSent, Step::Reply(reply(503, "")), Step::Reply(reply(401, r#"{"error":"invalid_client"}"#))] {
        let world = World::new();
        let relay = world.relay();
        world.provider.next(Step::Lost);
        unavailable(relay.exchange(presented("T")).await);
        let until = world.record("T").await.unwrap().until;
        world.pass(1);
        world.provider.next(step);
        relay.exchange(presented("T")).await;
        let record = world.record("T").await.unwrap();
        assert_eq!((record.state, record.attempt, record.until), (RelayState::Unknown, 1, until));
        world.provider.next(Step::Lost);
        unavailable(relay.exchange(presented("T")).await);
        assert_eq!(unavailable(relay.exchange(presented("T")).await).0, "relay_unknown");
        assert_eq!(world.provider.sent(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn i39_those_that_wait_for_a_silent_provider_get_a_fault() {
    let world = World::new();
    let relay = Arc::new(world.relay());
    world.provider.next(Step::Silent);
    let mut callers = JoinSet::new();
    for _ in 0..20 {
        let relay = Arc::clone(&relay);
        callers.spawn(async move { unavailable(relay.exchange(presented("T")).await) });
    }
    let answers = callers.join_all().await;
    assert!(answers.iter().all(|(_, retry_after)| *retry_after == 1), "{answers:?}");
    assert_eq!(world.provider.sent(), 1);
}

/// The program is killed while the provider has the token: the runtime ends with its tasks.
fn killed_while_asking(world: &World) {
    world.provider.hold();
    let (relay, provider) = (world.relay(), Arc::clone(&world.provider));
    let run = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                _ = relay.exchange(presented("T")) => panic!("the reply is held"),
                () = provider.was_sent(1) => {}
            }
        });
    });
    run.join().unwrap();
    *world.provider.held.lock().unwrap() = None;
}

#[tokio::test]
async fn i39_the_token_of_a_killed_program_waits_for_the_lease_and_is_then_sent_once_more() {
    let world = World::new();
    killed_while_asking(&world);
    let relay = world.relay();
    assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_pending", 35));
    world.pass(34);
    assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_pending", 1));
    assert_eq!(world.provider.sent(), 1);
    world.pass(1);
    let other = Presented { presenter: Presenter::default(), ..presented("T") };
    assert_eq!(unavailable(relay.exchange(other).await), ("relay_unknown", 30));
    assert_eq!(body(relay.exchange(presented("T")).await), (text(&granted(2)), Source::Asked));
    assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Replayed);
    assert_eq!(world.provider.sent(), 2);
}

#[tokio::test]
async fn i56_a_gate_that_is_alone_does_not_wait_for_the_run_that_was_killed() {
    for (after_unknown, is_sent_again) in [(AfterUnknown::TryOnce, true), (AfterUnknown::Refuse, false)] {
        let world = World::new();
        killed_while_asking(&world);
        let rules = RelayRules { after_unknown, ..RelayRules::default() };
        // One gate of several: another may have begun the exchange, and may still get the answer.
        assert_eq!(unavailable(world.relay_with(rules).exchange(presented("T")).await), ("relay_pending", 35));
        let relay = world.alone_with(rules);
        if is_sent_again {
            assert_eq!(body(relay.exchange(presented("T")).await), (text(&granted(2)), Source::Asked));
            assert_eq!(body(relay.exchange(presented("T")).await).1, Source::Replayed);
        } else {
            assert!(matches!(relay.exchange(presented("T")).await, RelayAnswer::InvalidGrant(_)));
        }
        assert_eq!(world.provider.sent(), 1 + usize::from(is_sent_again));
    }
}

#[tokio::test]
async fn i56_a_gate_that_is_alone_waits_for_its_own_exchange() {
    let world = World::new();
    let relay = Arc::new(world.alone_with(RelayRules::default()));
    let held = world.provider.hold();
    let tabs: Vec<_> = (0..20).map(|_| start(&relay, presented("T"))).collect();
    world.provider.was_sent(1).await;
    let late = start(&relay, presented("T"));
    held.add_permits(100);
    for tab in tabs.into_iter().chain([late]) {
        assert_eq!(body(tab.await.unwrap()).0, text(&granted(1)));
    }
    // A token whose answer could not be stored is not dead either: the provider exchanged it.
    *world.store.fails.lock().unwrap() = Some("swap");
    body(relay.exchange(presented("U")).await);
    *world.store.fails.lock().unwrap() = None;
    relay.finished().await;
    assert_eq!(unavailable(relay.exchange(presented("U")).await), ("relay_pending", 35));
    assert_eq!(world.provider.sent(), 2);
}

#[tokio::test]
async fn i39_with_refuse_the_token_of_a_killed_program_is_refused_after_the_lease() {
    let world = World::new();
    killed_while_asking(&world);
    let relay = world.relay_with(RelayRules { after_unknown: AfterUnknown::Refuse, ..RelayRules::default() });
    assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_pending", 35));
    world.pass(35);
    assert!(matches!(relay.exchange(presented("T")).await, RelayAnswer::InvalidGrant(_)));
    assert_eq!(world.provider.sent(), 1);
}

fn at(address: [u8; 4], presented: Presented) -> Presented {
    Presented { address: Some(address.into()), ..presented }
}

#[tokio::test]
async fn a30_while_two_addresses_fill_a_slow_provider_a_third_is_served() {
    // These addresses share no counter.
    let mut apart: Vec<[u8; 4]> = Vec::new();
    for address in (0..=u8::MAX).map(|last| [192, 0, 2, last]) {
        let index = |address: [u8; 4]| Holder::address(address.into()).index(64);
        if !apart.iter().any(|other| index(*other) == index(address)) {
            apart.push(address);
        }
    }
    let (world, others, third) = (World::new(), [apart[0], apart[1]], apart[2]);
    let relay = Arc::new(world.relay());
    let held = world.provider.hold();
    let mut running = Vec::new();
    for address in others {
        let before = relay.core.places.now();
        for n in 0..PLACES.all {
            running.push(start(&relay, at(address, presented(&format!("T{address:?}{n}")))));
        }
        while running.iter().filter(|one| !one.is_finished()).count() > relay.core.places.now() {
            tokio::task::yield_now().await;
        }
        // The first address gets all places but the reserve; another one gets its share.
        let (own, most) = (relay.core.places.now() - before, PLACES.all - PLACES.each);
        assert!(if before == 0 { own == most } else { (1..=PLACES.each).contains(&own) }, "{address:?}: {own}");
    }
    let third = start(&relay, at(third, presented("third")));
    world.provider.was_sent(relay.core.places.now() + 1).await;
    assert!(!third.is_finished(), "it is at the provider");
    let beyond = at(others[0], presented("beyond"));
    assert_eq!(unavailable(relay.exchange(beyond).await), ("relay_saturated", 1));
    let revocation = relay.revoke(at(others[0], presented("beyond"))).await;
    assert_eq!(unavailable(revocation), ("relay_saturated", 1), "a revocation asks the provider, too");
    held.add_permits(2 * PLACES.all);
    body(third.await.unwrap());
    relay.idle().await;
    assert_eq!(relay.core.places.now(), 0);
    body(relay.exchange(at(others[0], presented("again"))).await);
}

#[tokio::test]
async fn a31_refused_exchanges_count_against_their_address_and_steps_of_the_protocol_do_not() {
    let said = |error: &str| Step::Reply(reply(400, &format!(r#"{{"error":"{error}"}}"#)));
    let from = |n: usize| at([192, 0, 2, 1], presented(&format!("T{n}")));
    let asked = async |error: &str| {
        let world = World::new();
        let relay = world.relay();
        let mut refused = 0;
        for n in 0..2 * Rates::default().refused_per_address.burst.get() as usize {
            world.provider.next(said(error));
            refused += usize::from(matches!(relay.exchange(from(n)).await, RelayAnswer::TooMany { .. }));
        }
        body(relay.exchange(at([198, 51, 100, 7], presented("other"))).await);
        let request = ProviderRequest::default();
        let passed = relay.pass(&request, Some([192, 0, 2, 1].into())).await;
        (refused > 0, matches!(passed, RelayAnswer::TooMany { .. }))
    };
    assert_eq!(asked("invalid_client").await, (true, true));
    for step in ["use_dpop_nonce", "authorization_pending"] {
        assert_eq!(asked(step).await, (false, false), "{step}");
    }
}

#[tokio::test]
async fn i39_beyond_its_bound_of_exchanges_a_relay_sends_nothing_and_gives_what_it_has() {
    let world = World::new();
    let relay = Arc::new(world.relay());
    body(relay.exchange(presented("known")).await);
    let held = world.provider.hold();
    let running: Vec<_> = (0..PLACES.all).map(|n| start(&relay, presented(&format!("T{n}")))).collect();
    world.provider.was_sent(1 + PLACES.all).await;
    assert_eq!(unavailable(relay.exchange(presented("one more")).await), ("relay_saturated", 1));
    assert!(matches!(relay.pass(&ProviderRequest::default(), None).await, RelayAnswer::Unavailable { .. }));
    assert_eq!(body(relay.exchange(presented("known")).await).1, Source::Replayed);
    assert_eq!(world.provider.sent(), 1 + PLACES.all);
    held.add_permits(2 * PLACES.all);
    for one in running {
        body(one.await.unwrap());
    }
    relay.idle().await;
    body(relay.exchange(presented("one more")).await);
}
