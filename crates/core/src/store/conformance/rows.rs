//! Tests of rows: one case for each operation.

use std::sync::Arc;

use super::races::at_once;
use super::{later, start};
use crate::clock::Timestamp;
use crate::store::rows::{Row, RowInserted, RowKey, RowStore, RowSwapped, RowVersion, Space};

/// The space of the tests.
pub const SPACE: Space = Space::of_work(63, "rows of tests", 100_000, 65 << 10);
/// A space with the same keys.
const OTHER: Space = Space::copied(63, "other rows of tests", 100_000, 10);
/// A store has at most 64 parts, so each part has room for at least four rows.
const SMALL: Space = Space::lasting(63, "few rows of tests", 256, 10);

/// A key whose bytes are all `n`.
pub fn key(n: u8) -> RowKey {
    RowKey([n; 32])
}

/// The `n`th key of many. As digests do, they begin and end with all bytes.
fn numbered(n: u16) -> RowKey {
    let mut bytes = [n.to_le_bytes()[0]; 32];
    bytes[1] = n.to_le_bytes()[1];
    RowKey(bytes)
}

fn version(n: u8) -> RowVersion {
    RowVersion([n; 16])
}

/// A row that expires a minute after `since`.
pub fn first(since: Timestamp) -> Row {
    Row { version: version(7), until: later(since, 60_000), bytes: vec![1, 2, 3] }
}

/// A row that replaces the first, and expires half a minute after `since`.
pub fn second(since: Timestamp) -> Row {
    Row { version: version(8), until: later(since, 30_000), bytes: vec![4; 2000] }
}

/// Each key of a space has at most one row, and a read does not change the row.
pub async fn what_was_inserted_is_loaded_and_inserted_once(store: Arc<dyn RowStore>) {
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), None);
    let row = first(start());
    assert_eq!(store.insert_row(SPACE, key(1), row.clone(), start()).await.unwrap(), RowInserted::Inserted);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(row.clone()));
    let another = Row { version: version(9), ..first(later(start(), 1)) };
    let present = RowInserted::Present(Box::new(row.clone()));
    let inserted = store.insert_row(SPACE, key(1), another.clone(), later(start(), 59_999)).await;
    assert_eq!(inserted.unwrap(), present);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(row.clone()));
    let again = store.insert_row(SPACE, key(1), row.clone(), start()).await;
    assert_eq!(again.unwrap(), RowInserted::Inserted, "a write that is repeated");
    assert_eq!(store.insert_row(SPACE, key(2), another.clone(), start()).await.unwrap(), RowInserted::Inserted);
    assert_eq!(store.load_row(SPACE, key(2)).await.unwrap(), Some(another));
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(row));
}

/// The same key in two spaces names two rows.
pub async fn a_space_has_its_own_rows(store: Arc<dyn RowStore>) {
    let (one, other) = (first(start()), Row { bytes: vec![9], ..first(later(start(), 1)) });
    store.insert_row(SPACE, key(1), one.clone(), start()).await.unwrap();
    assert_eq!(store.load_row(OTHER, key(1)).await.unwrap(), None);
    assert!(!store.remove_row(OTHER, key(1), None).await.unwrap());
    assert_eq!(store.insert_row(OTHER, key(1), other.clone(), start()).await.unwrap(), RowInserted::Inserted);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(one.clone()));
    assert_eq!(store.row_keys(OTHER, None, 9).await.unwrap(), [key(1)]);
    assert_eq!(store.sweep_rows(OTHER, Timestamp::MAX).await.unwrap(), 1);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(one));
}

/// A new row replaces an old one only after the old one has expired.
pub async fn an_ended_row_gives_way(store: Arc<dyn RowStore>) {
    let old = first(start());
    store.insert_row(SPACE, key(1), old.clone(), start()).await.unwrap();
    let new = Row { version: version(9), ..first(old.until) };
    assert_eq!(store.insert_row(SPACE, key(1), new.clone(), old.until).await.unwrap(), RowInserted::Inserted);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(new));
    // The sweep must use the expiry of the new row.
    assert_eq!(store.sweep_rows(SPACE, old.until).await.unwrap(), 0);
}

/// A swap compares the version.
pub async fn a_swap_needs_the_expected_version(store: Arc<dyn RowStore>) {
    let (old, new) = (first(start()), second(later(start(), 5)));
    let swap = |expected, row: &Row| store.swap_row(SPACE, key(1), expected, row.clone(), start());
    assert_eq!(swap(old.version, &new).await.unwrap(), RowSwapped::Changed(None));
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), None);
    store.insert_row(SPACE, key(1), old.clone(), start()).await.unwrap();
    let changed = RowSwapped::Changed(Some(Box::new(old.clone())));
    assert_eq!(swap(version(9), &new).await.unwrap(), changed);
    assert!(swap(old.version, &old).await.is_err(), "it would be swapped twice");
    assert_eq!(swap(old.version, &new).await.unwrap(), RowSwapped::Swapped);
    assert_eq!(swap(old.version, &new).await.unwrap(), RowSwapped::Swapped, "a write that is repeated");
    let third = Row { version: version(9), ..first(start()) };
    let changed = RowSwapped::Changed(Some(Box::new(new.clone())));
    assert_eq!(swap(old.version, &third).await.unwrap(), changed);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(new));
}

/// A removal with a version removes only that version. A removal without a version removes any row.
pub async fn a_row_is_removed_once_and_only_in_its_version(store: Arc<dyn RowStore>) {
    let (old, new) = (first(start()), second(later(start(), 5)));
    assert!(!store.remove_row(SPACE, key(1), None).await.unwrap());
    store.insert_row(SPACE, key(1), old.clone(), start()).await.unwrap();
    assert!(!store.remove_row(SPACE, key(1), Some(new.version)).await.unwrap());
    assert!(store.remove_row(SPACE, key(1), Some(old.version)).await.unwrap());
    assert!(!store.remove_row(SPACE, key(1), Some(old.version)).await.unwrap());
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), None);
    store.insert_row(SPACE, key(1), new, start()).await.unwrap();
    assert!(store.remove_row(SPACE, key(1), None).await.unwrap());
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), None);
}

/// The keys come in order, and a page has only its own keys.
// Requirement K13.
pub async fn keys_are_listed_in_pages(store: Arc<dyn RowStore>) {
    for n in 0..300 {
        store.insert_row(SPACE, numbered(n), first(start()), start()).await.unwrap();
    }
    let mut all: Vec<_> = (0..300).map(numbered).collect();
    all.sort_unstable();
    assert_eq!(store.row_keys(SPACE, None, usize::MAX).await.unwrap(), all);
    assert_eq!(store.row_keys(SPACE, None, 3).await.unwrap(), all[..3]);
    assert_eq!(store.row_keys(SPACE, Some(all[296]), 9).await.unwrap(), all[297..]);
    assert!(store.row_keys(SPACE, Some(all[299]), 9).await.unwrap().is_empty());
}

/// A sweep removes more rows than fit into one step.
pub async fn a_sweep_removes_what_ended_to_the_millisecond(store: Arc<dyn RowStore>) {
    for n in 0..300 {
        store.insert_row(SPACE, numbered(n), first(later(start(), n.into())), start()).await.unwrap();
    }
    assert_eq!(store.sweep_rows(SPACE, later(start(), 59_999)).await.unwrap(), 0);
    assert_eq!(store.sweep_rows(SPACE, later(start(), 60_199)).await.unwrap(), 200);
    assert_eq!(store.row_keys(SPACE, None, usize::MAX).await.unwrap().len(), 100);
    assert_eq!(store.load_row(SPACE, numbered(199)).await.unwrap(), None);
    assert!(store.load_row(SPACE, numbered(200)).await.unwrap().is_some());
    let last = first(later(start(), 299));
    let longer = Row { until: later(start(), 90_000), ..second(start()) };
    store.swap_row(SPACE, numbered(299), last.version, longer, start()).await.unwrap();
    assert_eq!(store.sweep_rows(SPACE, later(start(), 89_999)).await.unwrap(), 99);
    assert_eq!(store.sweep_rows(SPACE, Timestamp::MAX).await.unwrap(), 1);
    assert_eq!(store.sweep_rows(SPACE, Timestamp::MAX).await.unwrap(), 0);
}

/// A row that is too large, or has no version, is refused.
pub async fn what_does_not_fit_is_refused_and_changes_nothing(store: Arc<dyn RowStore>) {
    let row = first(start());
    let large = Row { bytes: vec![0; SPACE.max_bytes() + 1], ..second(start()) };
    assert!(store.insert_row(SPACE, key(1), large.clone(), start()).await.is_err());
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), None);
    store.insert_row(SPACE, key(1), row.clone(), start()).await.unwrap();
    assert!(store.swap_row(SPACE, key(1), row.version, large.clone(), start()).await.is_err());
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(row.clone()));
    let unversioned = Row { version: RowVersion::default(), ..second(start()) };
    assert!(store.insert_row(SPACE, key(2), unversioned.clone(), start()).await.is_err());
    assert!(store.swap_row(SPACE, key(1), row.version, unversioned, start()).await.is_err());
    let fits = Row { bytes: vec![0; SPACE.max_bytes()], ..large };
    let swapped = store.swap_row(SPACE, key(1), row.version, fits.clone(), start()).await;
    assert_eq!(swapped.unwrap(), RowSwapped::Swapped);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(fits));
}

/// A full space refuses new rows, and only new rows. The other spaces are not affected.
pub async fn too_many_rows_are_refused_and_change_nothing(store: Arc<dyn RowStore>) {
    let row = Row { bytes: vec![1], ..first(start()) };
    let stored = filled(&*store, &row).await;
    // Parts of a store that cannot count together have room for four times their share.
    assert!((256..=4 * 256).contains(&stored.len()), "{}", stored.len());
    assert_eq!(store.row_keys(SMALL, None, usize::MAX).await.unwrap(), stored);
    assert_eq!(store.insert_row(OTHER, key(1), row.clone(), start()).await.unwrap(), RowInserted::Inserted);
    // Writes to rows that exist need no room.
    let new = Row { bytes: vec![2], ..second(start()) };
    let swapped = store.swap_row(SMALL, stored[0], row.version, new.clone(), start()).await;
    assert_eq!(swapped.unwrap(), RowSwapped::Swapped);
    let after = later(start(), 60_000);
    let another = Row { version: version(9), ..row.clone() };
    assert_eq!(store.insert_row(SMALL, stored[1], another, after).await.unwrap(), RowInserted::Inserted);
    // A removal makes room for one row, and a sweep for all that it removes.
    assert!(store.remove_row(SMALL, stored[0], None).await.unwrap());
    assert_eq!(store.insert_row(SMALL, stored[0], row.clone(), start()).await.unwrap(), RowInserted::Inserted);
    assert_eq!(store.sweep_rows(SMALL, after).await.unwrap(), stored.len() as u64);
    assert_eq!(filled(&*store, &row).await, stored);
    // Rows that have ended make room, whether or not they were swept.
    let next = Row { version: version(10), ..first(after) };
    assert_eq!(store.insert_row(SMALL, numbered(3000), next, after).await.unwrap(), RowInserted::Inserted);
}

/// Inserts rows into the small space until it is full. Returns their keys in order.
async fn filled(store: &dyn RowStore, row: &Row) -> Vec<RowKey> {
    let mut stored = Vec::new();
    for n in 0..2048 {
        match store.insert_row(SMALL, numbered(n), row.clone(), start()).await {
            Ok(inserted) => {
                assert_eq!(inserted, RowInserted::Inserted);
                stored.push(numbered(n));
            }
            Err(error) => assert!(error.to_string().contains("few rows of tests"), "{error}"),
        }
    }
    stored.sort_unstable();
    stored
}

/// Writers at the same time leave the right number of rows, so the space has as much room as before.
pub async fn the_room_stays_the_same_whatever_happens_at_once(store: Arc<dyn RowStore>) {
    let row = Row { bytes: vec![1], ..first(start()) };
    let room = filled(&*store, &row).await;
    assert_eq!(store.sweep_rows(SMALL, Timestamp::MAX).await.unwrap(), room.len() as u64);
    let writers = (0..120_u16).map(|n| {
        let (store, key) = (Arc::clone(&store), numbered(n / 2));
        let row =
            Row { version: version(u8::try_from(n).unwrap() + 1), until: later(start(), n.into()), ..row.clone() };
        async move {
            let _ = store.insert_row(SMALL, key, row.clone(), start()).await.unwrap();
            match n % 4 {
                0 => drop(store.remove_row(SMALL, key, None).await.unwrap()),
                1 => drop(store.sweep_rows(SMALL, row.until).await.unwrap()),
                2 => drop(store.remove_row(SMALL, key, Some(row.version)).await.unwrap()),
                _ => {}
            }
        }
    });
    at_once(writers).await;
    store.sweep_rows(SMALL, Timestamp::MAX).await.unwrap();
    assert!(store.row_keys(SMALL, None, 9).await.unwrap().is_empty());
    assert_eq!(filled(&*store, &row).await, room);
}

/// If a hundred callers insert a row, only one of them does.
pub async fn one_of_many_inserts_wins(store: Arc<dyn RowStore>) {
    const CALLERS: u8 = 100;
    let inserts = (0..CALLERS).map(|n| {
        let (store, mine) = (Arc::clone(&store), Row { version: version(n + 1), ..first(start()) });
        async move { (store.insert_row(SPACE, key(1), mine.clone(), start()).await.unwrap(), mine) }
    });
    let results = at_once(inserts).await;
    let winners: Vec<_> = results.iter().filter(|(result, _)| *result == RowInserted::Inserted).collect();
    assert_eq!(winners.len(), 1);
    let known = store.load_row(SPACE, key(1)).await.unwrap().unwrap();
    assert_eq!(known, winners[0].1);
    let shown = RowInserted::Present(Box::new(known));
    assert_eq!(results.iter().filter(|(result, _)| *result == shown).count(), usize::from(CALLERS) - 1);
}
