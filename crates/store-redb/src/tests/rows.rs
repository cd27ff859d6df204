//! The rows of the parts in a file.

use redb::{Builder, Durability};

use super::*;
use rotogate_core::store::conformance::rows::{SPACE, first, key, second};
use rotogate_core::store::rows::{RowInserted, RowStore, RowSwapped, Space, insert as insert_row, swap as swap_row};
use rotogate_core::store::rules::Rules;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn k10_the_redb_store_keeps_rows() {
    let places = Mutex::new(Vec::new());
    conformance::run_rows(|| {
        let place = Place::new();
        let store = Arc::new(place.open());
        places.lock().push(place);
        store
    })
    .await;
}

#[tokio::test]
async fn rows_are_there_after_a_clean_stop_and_after_a_kill_and_in_a_backup_only_if_their_space_says_so() {
    const BACKED_UP: Space = Space::lasting(1, "backed up rows", 10, 2000);
    const COPIED: Space = Space::copied(1, "copied rows", 10, 2000);
    let place = Place::new();
    let store = place.open();
    let (old, moment) = (first(START), later(START, 5));
    let new = second(moment);
    for space in [SPACE, COPIED, BACKED_UP] {
        store.insert_row(space, key(1), old.clone(), START).await.unwrap();
        store.insert_row(space, key(2), old.clone(), START).await.unwrap();
        let swapped = store.swap_row(space, key(2), old.version, new.clone(), moment).await;
        assert_eq!(swapped.unwrap(), RowSwapped::Swapped);
    }
    assert_eq!(store.last_known_time().await.unwrap(), moment, "a restart does not reopen what has ended");
    let copy = place.dir.path().join("copy.redb");
    store.backup_to(&copy).await.unwrap();
    let killed = killed_copy(&place);
    store.close().await.unwrap();
    for place in [&place, &killed] {
        let again = place.open();
        for space in [SPACE, COPIED, BACKED_UP] {
            assert_eq!(again.load_row(space, key(1)).await.unwrap(), Some(old.clone()));
            assert_eq!(again.load_row(space, key(2)).await.unwrap(), Some(new.clone()));
        }
    }
    let copy = RedbStore::open(&copy, Options { high_water: None, ..place.options() }).unwrap();
    assert_eq!(copy.load_row(SPACE, key(2)).await.unwrap(), None);
    assert_eq!(copy.load_row(COPIED, key(2)).await.unwrap(), None);
    assert_eq!(copy.load_row(BACKED_UP, key(2)).await.unwrap(), Some(new));
    assert_eq!(copy.sweep_rows(BACKED_UP, Timestamp::MAX).await.unwrap(), 2, "the copy sweeps its rows");
}

#[tokio::test]
async fn a_store_of_an_earlier_version_has_no_rows_and_takes_them() {
    let place = Place::new();
    let store = place.open();
    fill(&store).await;
    let before = content(&store).await;
    store.close().await.unwrap();
    drop(store);
    let file = std::fs::File::options().read(true).write(true).open(place.path()).unwrap();
    let database = Builder::new().create_file(file).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(schema::ROWS).unwrap());
    assert!(transaction.delete_table(schema::ROWS_BY_UNTIL).unwrap());
    assert!(transaction.delete_table(schema::ROWS_IN).unwrap());
    transaction.commit().unwrap();
    drop(database);
    let store = place.open();
    assert_eq!(content(&store).await, before);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), None);
    let row = first(START);
    assert_eq!(store.insert_row(SPACE, key(1), row.clone(), START).await.unwrap(), RowInserted::Inserted);
    assert_eq!(store.load_row(SPACE, key(1)).await.unwrap(), Some(row));
    assert_eq!(content(&store).await.0, before.0);
}

/// As `r2_a_crash_at_any_point_loses_no_commit_that_had_returned`: a crash loses neither an acknowledged intent nor an
/// acknowledged answer.
#[tokio::test]
async fn i35_a_crash_at_any_point_keeps_the_intent_and_the_answer_that_had_returned() {
    let place = Place::new();
    let store = place.open();
    insert(&store, &session("alice", 1, START)).await;
    let mut head = store.head().unwrap();
    drop(store);
    let before = std::fs::read(place.path()).unwrap();

    let file = std::fs::File::options().read(true).write(true).open(place.path()).unwrap();
    let backend = staged::StagedFile::holding(file).unwrap();
    let database = Builder::new().create_with_backend(backend.clone()).unwrap();
    let intent = first(START);
    let reply = second(later(START, 5));
    let rules = Rules::new(conformance::ISSUER, conformance::LEEWAY);
    let opened = backend.steps();
    let mut acknowledged = vec![(0, None)];
    for row in [&intent, &reply] {
        let mut transaction = database.begin_write().unwrap();
        transaction.set_durability(Durability::Immediate).unwrap();
        let mut state = Writing::open(&transaction, head).unwrap();
        if row == &intent {
            assert_eq!(insert_row(&mut state, (SPACE, key(1)), row, START).unwrap(), RowInserted::Inserted);
        } else {
            let swapped = swap_row(&mut state, (SPACE, key(1)), intent.version, row);
            assert_eq!(swapped.unwrap(), RowSwapped::Swapped);
        }
        // The same commit contains the operation of another caller.
        rules.insert(&mut state, &session("bob", row.bytes.len() as u64, START), SubjectBound::NONE).unwrap();
        head = state.finish().unwrap().unwrap();
        transaction.commit().unwrap();
        acknowledged.push((backend.steps(), Some(row.clone())));
    }
    let end = backend.steps();
    assert!(end > opened + 4, "{opened} {end}");

    let mut random = 11_u64;
    for steps in 0..=end {
        for survival in 0..3 {
            let image = backend.crash(before.clone(), steps, || survives(survival, &mut random));
            place.replace(&image);
            let store = RedbStore::open(place.path(), Options { high_water: None, ..place.options() }).unwrap();
            let known = store.load_row(SPACE, key(1)).await.unwrap();
            let at_least = acknowledged.iter().rposition(|(at, _)| *at <= steps).unwrap();
            let found = acknowledged.iter().position(|(_, row)| *row == known);
            assert!(found.is_some_and(|found| found >= at_least), "step {steps}: {known:?} after {at_least}");
            let bobs = store.list(Filter::Subject("bob".into()), None, 10).await.unwrap().sessions.len();
            assert_eq!(Some(bobs), found, "one transaction, one moment");
        }
    }
}
