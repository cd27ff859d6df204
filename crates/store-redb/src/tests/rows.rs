//! The records of the relay in a file.

use redb::{Builder, Durability};

use super::*;
use rotogate_core::store::conformance::relay::{done, id, pending};
use rotogate_core::store::relay::{RelayInserted, RelayState, RelayStore, RelaySwapped, insert as insert_record, swap};
use rotogate_core::store::rules::Rules;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn k10_the_redb_store_keeps_the_records_of_the_relay_and_of_keys() {
    let places = Mutex::new(Vec::new());
    conformance::run_relay(|| {
        let place = Place::new();
        let store = Arc::new(place.open());
        places.lock().push(place);
        store
    })
    .await;
}

#[tokio::test]
async fn records_of_the_relay_are_there_after_a_clean_stop_and_after_a_kill_and_not_in_a_backup() {
    let place = Place::new();
    let store = place.open();
    let first = pending(START);
    store.insert_relay(id(1), first.clone(), START).await.unwrap();
    store.insert_relay(id(2), first.clone(), START).await.unwrap();
    let next = done(&first, later(START, 5));
    assert_eq!(store.swap_relay(id(2), first.version(), next.clone()).await.unwrap(), RelaySwapped::Swapped);
    assert_eq!(store.last_known_time().await.unwrap(), next.since, "a restart does not reopen what has ended");
    let copy = place.dir.path().join("copy.redb");
    store.backup_to(&copy).await.unwrap();
    let killed = killed_copy(&place);
    store.close().await.unwrap();
    for place in [&place, &killed] {
        let again = place.open();
        assert_eq!(again.load_relay(id(1)).await.unwrap(), Some(first.clone()));
        assert_eq!(again.load_relay(id(2)).await.unwrap(), Some(next.clone()));
    }
    let copy = RedbStore::open(&copy, Options { high_water: None, ..place.options() }).unwrap();
    assert_eq!(copy.load_relay(id(2)).await.unwrap(), None);
}

#[tokio::test]
async fn a_store_of_an_earlier_version_has_no_records_and_takes_them() {
    let place = Place::new();
    let store = place.open();
    fill(&store).await;
    let before = content(&store).await;
    store.close().await.unwrap();
    drop(store);
    let file = std::fs::File::options().read(true).write(true).open(place.path()).unwrap();
    let database = Builder::new().create_file(file).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(schema::RELAYS).unwrap());
    assert!(transaction.delete_table(schema::RELAYS_BY_UNTIL).unwrap());
    transaction.commit().unwrap();
    drop(database);
    let store = place.open();
    assert_eq!(content(&store).await, before);
    assert_eq!(store.load_relay(id(1)).await.unwrap(), None);
    let first = pending(START);
    assert_eq!(store.insert_relay(id(1), first.clone(), START).await.unwrap(), RelayInserted::Inserted);
    assert_eq!(store.load_relay(id(1)).await.unwrap(), Some(first));
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
    let first = pending(START);
    let next = done(&first, later(START, 5));
    let rules = Rules::new(conformance::ISSUER, conformance::LEEWAY);
    let opened = backend.steps();
    let mut acknowledged = vec![(0, None)];
    for record in [&first, &next] {
        let mut transaction = database.begin_write().unwrap();
        transaction.set_durability(Durability::Immediate).unwrap();
        let mut state = Writing::open(&transaction, head).unwrap();
        match record.state {
            RelayState::Pending => {
                assert_eq!(insert_record(&mut state, id(1), record, START).unwrap(), RelayInserted::Inserted);
            }
            _ => assert_eq!(swap(&mut state, id(1), first.version(), record).unwrap(), RelaySwapped::Swapped),
        }
        // The same commit contains the operation of another caller.
        rules.insert(&mut state, &session("bob", record.sealed.len() as u64, START), SubjectBound::NONE).unwrap();
        head = state.finish().unwrap().unwrap();
        transaction.commit().unwrap();
        acknowledged.push((backend.steps(), Some(record.clone())));
    }
    let end = backend.steps();
    assert!(end > opened + 4, "{opened} {end}");

    let mut random = 11_u64;
    for steps in 0..=end {
        for survival in 0..3 {
            let image = backend.crash(before.clone(), steps, || survives(survival, &mut random));
            place.replace(&image);
            let store = RedbStore::open(place.path(), Options { high_water: None, ..place.options() }).unwrap();
            let known = store.load_relay(id(1)).await.unwrap();
            let at_least = acknowledged.iter().rposition(|(at, _)| *at <= steps).unwrap();
            let found = acknowledged.iter().position(|(_, record)| *record == known);
            assert!(found.is_some_and(|found| found >= at_least), "step {steps}: {known:?} after {at_least}");
            let bobs = store.list(Filter::Subject("bob".into()), None, 10).await.unwrap().sessions.len();
            assert_eq!(Some(bobs), found, "one transaction, one moment");
        }
    }
}
