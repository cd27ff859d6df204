//! Tests of the relay's records.

use std::sync::Arc;

use super::races::at_once;
use super::{later, start};
use crate::clock::Timestamp;
use crate::store::relay::{
    MAX_SEALED, RelayId, RelayInserted, RelayRecord, RelayState, RelayStore, RelaySwapped, RelayVersion,
};

/// A relay id whose bytes are all `n`.
pub fn id(n: u8) -> RelayId {
    RelayId([n; 32])
}

/// A pending record that expires after a minute.
pub fn pending(since: Timestamp) -> RelayRecord {
    RelayRecord {
        state: RelayState::Pending,
        attempt: 1,
        owner: [7; 16],
        since,
        lease: later(since, 35_000),
        until: later(since, 60_000),
        params: [9; 32],
        sealed: vec![1, 2, 3],
    }
}

/// The record with the provider's response.
pub fn done(before: &RelayRecord, since: Timestamp) -> RelayRecord {
    RelayRecord { state: RelayState::Done, since, until: later(since, 30_000), sealed: vec![4; 2000], ..before.clone() }
}

/// Each id has at most one record, and a read does not change the record.
pub async fn what_was_inserted_is_loaded_and_inserted_once(store: Arc<dyn RelayStore>) {
    assert_eq!(store.load_relay(id(1)).await.unwrap(), None);
    let first = pending(start());
    assert_eq!(store.insert_relay(id(1), first.clone(), start()).await.unwrap(), RelayInserted::Inserted);
    assert_eq!(store.load_relay(id(1)).await.unwrap(), Some(first.clone()));
    let second = RelayRecord { owner: [8; 16], ..pending(later(start(), 1)) };
    let present = RelayInserted::Present(Box::new(first.clone()));
    assert_eq!(store.insert_relay(id(1), second.clone(), later(start(), 59_999)).await.unwrap(), present);
    assert_eq!(store.load_relay(id(1)).await.unwrap(), Some(first));
    assert_eq!(store.insert_relay(id(2), second.clone(), start()).await.unwrap(), RelayInserted::Inserted);
    assert_eq!(store.load_relay(id(2)).await.unwrap(), Some(second));
}

/// A new record replaces an old one only after the old one has expired.
pub async fn an_ended_record_gives_way(store: Arc<dyn RelayStore>) {
    let old = pending(start());
    store.insert_relay(id(1), old.clone(), start()).await.unwrap();
    let new = pending(old.until);
    assert_eq!(store.insert_relay(id(1), new.clone(), old.until).await.unwrap(), RelayInserted::Inserted);
    assert_eq!(store.load_relay(id(1)).await.unwrap(), Some(new));
    // The sweep must use the expiry of the new record.
    assert_eq!(store.sweep_relay(old.until).await.unwrap(), 0);
}

/// A swap compares every part of the version.
pub async fn a_swap_needs_the_expected_version(store: Arc<dyn RelayStore>) {
    let first = pending(start());
    let next = done(&first, later(start(), 5));
    let version = first.version();
    assert_eq!(store.swap_relay(id(1), version, next.clone()).await.unwrap(), RelaySwapped::Changed(None));
    assert_eq!(store.load_relay(id(1)).await.unwrap(), None);
    store.insert_relay(id(1), first.clone(), start()).await.unwrap();
    let others = [
        RelayVersion { state: RelayState::Unknown, ..version },
        RelayVersion { attempt: 2, ..version },
        RelayVersion { owner: [8; 16], ..version },
        RelayVersion { since: later(start(), 1), ..version },
    ];
    for other in others {
        let changed = RelaySwapped::Changed(Some(Box::new(first.clone())));
        assert_eq!(store.swap_relay(id(1), other, next.clone()).await.unwrap(), changed, "{other:?}");
    }
    assert!(store.swap_relay(id(1), version, first.clone()).await.is_err(), "it would be swapped twice");
    assert_eq!(store.swap_relay(id(1), version, next.clone()).await.unwrap(), RelaySwapped::Swapped);
    let changed = RelaySwapped::Changed(Some(Box::new(next.clone())));
    assert_eq!(store.swap_relay(id(1), version, next.clone()).await.unwrap(), changed);
    assert_eq!(store.load_relay(id(1)).await.unwrap(), Some(next));
}

/// A removal with a version removes only that version. A removal without a version removes any record.
pub async fn a_record_is_removed_once_and_only_in_its_version(store: Arc<dyn RelayStore>) {
    let first = pending(start());
    assert!(!store.remove_relay(id(1), None).await.unwrap());
    store.insert_relay(id(1), first.clone(), start()).await.unwrap();
    let next = done(&first, later(start(), 5));
    assert!(!store.remove_relay(id(1), Some(next.version())).await.unwrap());
    assert!(store.remove_relay(id(1), Some(first.version())).await.unwrap());
    assert!(!store.remove_relay(id(1), Some(first.version())).await.unwrap());
    assert_eq!(store.load_relay(id(1)).await.unwrap(), None);
    store.insert_relay(id(1), next, start()).await.unwrap();
    assert!(store.remove_relay(id(1), None).await.unwrap());
    assert_eq!(store.load_relay(id(1)).await.unwrap(), None);
}

/// A sweep removes more records than fit into one step.
pub async fn a_sweep_removes_what_ended_to_the_millisecond(store: Arc<dyn RelayStore>) {
    let of = |n: u16| {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        RelayId(bytes)
    };
    for n in 0..300 {
        store.insert_relay(of(n), pending(later(start(), n.into())), start()).await.unwrap();
    }
    let mut ids = store.relay_ids().await.unwrap();
    ids.sort_unstable();
    assert_eq!(ids, (0..300).map(of).collect::<Vec<_>>());
    // K13: the store reads only the ids of the requested page.
    assert_eq!(store.relay_ids_after(None, 3).await.unwrap(), (0..3).map(of).collect::<Vec<_>>());
    assert_eq!(store.relay_ids_after(Some(of(296)), 9).await.unwrap(), (297..300).map(of).collect::<Vec<_>>());
    assert!(store.relay_ids_after(Some(of(299)), 9).await.unwrap().is_empty());
    assert_eq!(store.sweep_relay(later(start(), 59_999)).await.unwrap(), 0);
    assert_eq!(store.sweep_relay(later(start(), 60_199)).await.unwrap(), 200);
    assert_eq!(store.relay_ids().await.unwrap().len(), 100);
    assert_eq!(store.load_relay(of(199)).await.unwrap(), None);
    assert!(store.load_relay(of(200)).await.unwrap().is_some());
    let last = pending(later(start(), 299));
    let longer = RelayRecord { until: later(start(), 90_000), ..done(&last, later(start(), 300)) };
    store.swap_relay(of(299), last.version(), longer).await.unwrap();
    assert_eq!(store.sweep_relay(later(start(), 89_999)).await.unwrap(), 99);
    assert_eq!(store.sweep_relay(Timestamp::MAX).await.unwrap(), 1);
    assert_eq!(store.sweep_relay(Timestamp::MAX).await.unwrap(), 0);
}

/// A response that is too large is refused.
pub async fn too_much_is_refused_and_changes_nothing(store: Arc<dyn RelayStore>) {
    let first = pending(start());
    let large = RelayRecord { sealed: vec![0; MAX_SEALED + 1], ..done(&first, later(start(), 1)) };
    assert!(store.insert_relay(id(1), large.clone(), start()).await.is_err());
    assert_eq!(store.load_relay(id(1)).await.unwrap(), None);
    store.insert_relay(id(1), first.clone(), start()).await.unwrap();
    assert!(store.swap_relay(id(1), first.version(), large.clone()).await.is_err());
    assert_eq!(store.load_relay(id(1)).await.unwrap(), Some(first.clone()));
    let fits = RelayRecord { sealed: vec![0; MAX_SEALED], ..large };
    assert_eq!(store.swap_relay(id(1), first.version(), fits.clone()).await.unwrap(), RelaySwapped::Swapped);
    assert_eq!(store.load_relay(id(1)).await.unwrap(), Some(fits));
}

/// If a hundred callers claim a token, only one may send it.
pub async fn one_of_many_inserts_wins(store: Arc<dyn RelayStore>) {
    const CALLERS: u8 = 100;
    let inserts = (0..CALLERS).map(|n| {
        let (store, mine) = (Arc::clone(&store), RelayRecord { owner: [n; 16], ..pending(start()) });
        async move { (store.insert_relay(id(1), mine.clone(), start()).await.unwrap(), mine) }
    });
    let results = at_once(inserts).await;
    let winners: Vec<_> = results.iter().filter(|(result, _)| *result == RelayInserted::Inserted).collect();
    assert_eq!(winners.len(), 1);
    let known = store.load_relay(id(1)).await.unwrap().unwrap();
    assert_eq!(known, winners[0].1);
    let shown = RelayInserted::Present(Box::new(known));
    assert_eq!(results.iter().filter(|(result, _)| *result == shown).count(), usize::from(CALLERS) - 1);
}
