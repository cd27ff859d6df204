//! What happens between the steps of a renewal: other gates, crashes and revocations. I34, I71, I74, I75.

use super::*;

#[tokio::test]
async fn i34_a_reply_that_is_kept_is_given_although_its_record_was_not_completed() {
    for passed in [1, HOUR] {
        let setting = Setting::new();
        let relay = setting.relay();
        setting.fails(Some("swap"));
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        setting.fails(None);
        // The next process knows that the attempt has ended.
        let next = Relay::new(RelayParts { is_alone: true, ..setting.parts(RelayRules::default()) }).unwrap();
        setting.world.pass(passed);
        assert_eq!(pair(&next, refresh(0)).await, Some(if passed == 1 { 1 } else { 2 }));
        let sent = setting.provider.presented();
        assert_eq!(sent, &["refresh-0", "refresh-1"][..if passed == 1 { 1 } else { 2 }]);
    }
}

#[tokio::test]
async fn i71_a_reply_is_not_renewed_while_it_is_repeated() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    // A request that read the record before the reply was stored, and the kept reply after that.
    let presentation = relay.core.presentation(refresh(0)).unwrap().unwrap();
    let kept = relay.core.kept(&presentation).await.unwrap().unwrap();
    let end = relay.core.attempt(&presentation, flight::Sending::Renewal(kept)).await.unwrap();
    assert!(matches!(end, flight::End::Again));
    assert_eq!(setting.provider.presented(), ["refresh-0"]);
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
}

#[tokio::test]
async fn i74_a_revocation_during_a_renewal_leaves_no_reply_behind() {
    for revoked in [0, 1] {
        let setting = Setting::new();
        let relay = setting.relay();
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        setting.world.pass(HOUR);
        let held = setting.provider.hold();
        let renewing = start(&relay, refresh(0));
        while setting.provider.presented().len() < 2 {
            tokio::task::yield_now().await;
        }
        relay.revoke(refresh(revoked)).await;
        held.add_permits(9);
        body(renewing.await.unwrap());
        assert_eq!(pair(&relay, refresh(0)).await, None, "{revoked}");
        assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-1", "refresh-0"]);
    }
}

#[tokio::test]
async fn i74_a_revocation_by_another_presenter_removes_the_reply() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    setting.world.pass(HOUR);
    relay.revoke(Presented { presenter: Presenter::default(), ..refresh(0) }).await;
    assert_eq!(pair(&relay, refresh(0)).await, None);
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-0"]);
}

#[tokio::test]
async fn i75_a_chain_of_refreshes_leaves_one_kept_reply() {
    let setting = Setting::new();
    let relay = setting.relay();
    for n in 0..20 {
        assert_eq!(pair(&relay, refresh(n)).await, Some(n + 1));
        setting.world.pass(31);
        relay.sweep().await.unwrap();
        assert_eq!(setting.rows().await, 3, "the reply and its two tokens");
    }
    setting.world.pass(HOUR);
    assert_eq!(pair(&relay, refresh(19)).await, Some(21), "renewed");
    setting.world.pass(31);
    relay.sweep().await.unwrap();
    assert_eq!(setting.rows().await, 3);
    use_access(&relay, 21).await;
    assert_eq!(setting.rows().await, 0);
}

#[tokio::test]
async fn i75_a_renewed_reply_that_cannot_be_kept_leaves_none() {
    let setting = Setting::new();
    let relay = setting.relay();
    assert_eq!(pair(&relay, refresh(0)).await, Some(1));
    setting.world.pass(HOUR);
    setting.world.ended.2.accepts.store(false, Ordering::SeqCst);
    assert_eq!(pair(&relay, refresh(0)).await, Some(2));
    setting.world.pass(31);
    assert_eq!(pair(&relay, refresh(0)).await, None);
    assert_eq!(setting.provider.presented(), ["refresh-0", "refresh-1", "refresh-0"]);
}

#[tokio::test]
async fn i75_the_issuer_of_a_token_that_only_it_can_read_is_asked_when_the_reply_is_durable() {
    for learns in [true, false] {
        let setting = Setting::new();
        let gate = &setting.world.ended.2;
        gate.accepts.store(false, Ordering::SeqCst);
        gate.learns.store(learns, Ordering::SeqCst);
        let relay = setting.relay();
        assert_eq!(pair(&relay, refresh(0)).await, Some(1));
        let events = setting.world.events.all();
        let at = |event: &str| events.iter().position(|one| one == event);
        assert!(at("stored Done").unwrap() < at("issuer asked").unwrap(), "{events:?}");
        assert_eq!(relay.kept_replies().0, usize::from(learns));
        setting.world.pass(HOUR);
        gate.accepts.store(false, Ordering::SeqCst);
        // The new reply is kept in the same way.
        assert_eq!(pair(&relay, refresh(0)).await, learns.then_some(2));
        assert_eq!(relay.kept_replies().0, usize::from(learns));
    }
}

#[tokio::test]
async fn i74_a_revocation_while_the_issuer_is_asked_leaves_no_reply_behind() {
    let setting = Setting::new();
    let gate = &setting.world.ended.2;
    gate.accepts.store(false, Ordering::SeqCst);
    gate.learns.store(true, Ordering::SeqCst);
    let asked = Arc::new(Semaphore::new(0));
    *gate.held.lock().unwrap() = Some(Arc::clone(&asked));
    let relay = setting.relay();
    let exchange = start(&relay, refresh(0));
    while !setting.world.events.all().contains(&"issuer asked".to_owned()) {
        tokio::task::yield_now().await;
    }
    relay.revoke(refresh(0)).await;
    asked.add_permits(1);
    body(exchange.await.unwrap());
    assert_eq!((relay.kept_replies().0, setting.rows().await), (0, 0));
}
