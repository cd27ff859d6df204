//! C2: a repeated request changes nothing more.

use super::site::Site;
use super::*;
use rotogate_core::store::conformance::{gone, insert, later, minimum, not_before, rotated, session, start, subject};

#[tokio::test]
async fn c2_a_swap_that_is_sent_again_changes_nothing_more() {
    for site in Site::both() {
        let store = site.connect("rg").await;
        let begun = session("alice", 1, start());
        insert(&*store, &begun).await;
        let next = rotated(&begun, later(start(), 5));
        let entry = minimum(begun.id, 2, later(start(), 600_000));
        let op = new_op().unwrap();
        assert_eq!(store.0.swap(op, 1, &next, Some(&entry)).await.unwrap(), Swap::Swapped);
        let before = site.content();
        assert_eq!(store.0.swap(op, 1, &next, Some(&entry)).await.unwrap(), Swap::Swapped);
        assert_eq!(site.content(), before);
        // A confirmation and a revocation by others follow. The repeated swap must still report that it was
        // done.
        store.confirm(vec![(begun.id, next.current)]).await.unwrap();
        store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
        let before = site.content();
        assert_eq!(store.0.swap(op, 1, &next, Some(&entry)).await.unwrap(), Swap::Swapped);
        assert_eq!(site.content(), before);
        // After another node's swap, the first swap is superseded.
        let other = session("bob", 2, start());
        insert(&*store, &other).await;
        let first = rotated(&other, later(start(), 5));
        let second = rotated(&first, later(start(), 6));
        assert_eq!(store.0.swap(op, 1, &first, None).await.unwrap(), Swap::Swapped);
        assert_eq!(store.compare_and_swap(2, second.clone(), None).await.unwrap(), Swap::Swapped);
        let before = site.content();
        assert_eq!(store.0.swap(op, 1, &first, None).await.unwrap(), Swap::Changed(Some(Box::new(second))));
        assert_eq!(site.content(), before);
    }
}

#[tokio::test]
async fn c2_an_insert_that_is_sent_again_changes_nothing_more_and_says_who_gave_way() {
    let site = Site::One(Server::start(&[]));
    let store = site.connect("rg").await;
    let bound = SubjectBound { most: 1, idle_ttl: Duration::from_secs(60), ends_oldest: true };
    let first = session("alice", 1, start());
    insert(&*store, &first).await;
    let second = session("alice", 2, later(start(), 1));
    let room = store.0.room_for(&second, bound).await.unwrap().unwrap();
    let op = new_op().unwrap();
    let done = store.0.insert_as(op, &second, &room).await.unwrap().unwrap();
    assert!(matches!(&done, Inserted::Inserted(ended) if ended.len() == 1), "{done:?}");
    let before = site.content();
    assert_eq!(store.0.insert_as(op, &second, &room).await.unwrap(), Some(done.clone()));
    assert_eq!(site.content(), before);
    store.revoke(gone(second.id), RevokedBecause::Logout).await.unwrap();
    let before = site.content();
    assert_eq!(store.0.insert_as(op, &second, &room).await.unwrap(), Some(done));
    assert_eq!(site.content(), before);
    // An insert under another name is another insert.
    let error = store.0.insert_as(new_op().unwrap(), &second, &room).await.unwrap_err();
    assert_eq!(error.outcome(), WriteOutcome::Refused);
    // A room that was found before another insert is outdated, and must be found again.
    let third = session("alice", 3, later(start(), 2));
    assert_eq!(store.0.insert_as(new_op().unwrap(), &third, &room).await.unwrap(), None);
    assert_eq!(site.content(), before);
}

#[tokio::test]
async fn c2_a_revocation_and_a_confirmation_that_are_sent_again_change_nothing_more() {
    for site in Site::both() {
        let store = site.connect("rg").await;
        let begun = session("alice", 1, start());
        insert(&*store, &begun).await;
        store.confirm(vec![(begun.id, Generation::FIRST)]).await.unwrap();
        let before = site.content();
        store.confirm(vec![(begun.id, Generation::FIRST)]).await.unwrap();
        assert_eq!(site.content(), before);
        let op = new_op().unwrap();
        let moment = store.stamp_not_before().await.unwrap();
        for entry in [gone(begun.id), not_before(subject("alice"), moment), not_before(Target::Global, start())] {
            let merged = store.0.revoke(op, entry.clone(), RevokedBecause::Logout).await.unwrap();
            let before = site.content();
            assert_eq!(store.0.revoke(op, entry.clone(), RevokedBecause::Logout).await.unwrap(), merged);
            assert_eq!(site.content(), before);
        }
        // Repeats the not-before after a later one of the same target.
        let later_one = not_before(subject("alice"), later(moment, 5));
        let merged = store.revoke(later_one, RevokedBecause::Logout).await.unwrap();
        let before = site.content();
        let repeated = store.0.revoke(op, not_before(subject("alice"), moment), RevokedBecause::Logout).await.unwrap();
        assert_eq!(repeated, merged);
        assert_eq!(site.content(), before);
    }
}

#[cfg(feature = "relay")]
#[tokio::test]
async fn c2_records_of_the_relay_that_are_sent_again_change_nothing_more() {
    use rotogate_core::store::conformance::relay::{done, id, pending};
    use rotogate_core::store::relay::{RelayInserted, RelaySwapped};
    for site in Site::both() {
        let store = site.connect("rg").await;
        let first = pending(start());
        let (insert, swap) = (new_op().unwrap(), new_op().unwrap());
        assert_eq!(store.0.insert_relay(insert, id(1), &first, start()).await.unwrap(), RelayInserted::Inserted);
        let before = site.content();
        assert_eq!(store.0.insert_relay(insert, id(1), &first, start()).await.unwrap(), RelayInserted::Inserted);
        assert_eq!(site.content(), before);
        let next = done(&first, later(start(), 5));
        assert_eq!(store.0.swap_relay(swap, id(1), first.version(), &next).await.unwrap(), RelaySwapped::Swapped);
        let before = site.content();
        assert_eq!(store.0.swap_relay(swap, id(1), first.version(), &next).await.unwrap(), RelaySwapped::Swapped);
        let present = RelayInserted::Present(Box::new(next));
        assert_eq!(store.0.insert_relay(insert, id(1), &first, start()).await.unwrap(), present);
        assert_eq!(site.content(), before);
    }
}

#[tokio::test]
async fn c2_an_attempt_that_is_sent_again_counts_once() {
    for site in Site::both() {
        let store = site.connect("rg").await;
        let ten = SharedCounter { name: [1; 16], every: Duration::from_secs(3600), burst: 10 };
        for how in [CounterUse::Take, CounterUse::Charge, CounterUse::GiveBack] {
            let op = new_op().unwrap();
            assert_eq!(store.0.count(op, ten, how).await.unwrap(), None);
            let before = site.content();
            assert_eq!(store.0.count(op, ten, how).await.unwrap(), None);
            assert_eq!(site.content(), before);
        }
        let mut left = 0;
        while store.count(ten, CounterUse::Take).await.unwrap().is_none() {
            left += 1;
        }
        assert_eq!(left, 9, "one was taken, one charged, one given back");
    }
}
