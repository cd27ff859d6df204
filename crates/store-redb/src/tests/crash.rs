//! The states that a crash may leave.

use super::*;
use redb::{Builder, Durability};
use rotogate_core::store::rules::Rules;

/// A crash at every point of several commits, with all, none or some of the unsynced writes: the store opens, has at
/// least every commit that had returned, and is one of the states that existed.
#[tokio::test]
async fn r2_a_crash_at_any_point_loses_no_commit_that_had_returned() {
    let place = Place::new();
    let store = place.open();
    let mut s = session("alice", 1, START);
    insert(&store, &s).await;
    let mut head = store.head().unwrap();
    drop(store);
    let before = std::fs::read(place.path()).unwrap();

    let file = std::fs::File::options().read(true).write(true).open(place.path()).unwrap();
    let backend = staged::StagedFile::holding(file).unwrap();
    let database = Builder::new().create_with_backend(backend.clone()).unwrap();
    let rules = Rules::new(conformance::ISSUER, conformance::LEEWAY);
    let opened = backend.steps();
    // The acknowledged revision and sequence, for each number of steps.
    let mut acknowledged = vec![(0, s.revision, head.sequence)];
    for n in 0..3 {
        let next = rotated(&s, later(START, n));
        let entry = conformance::minimum(s.id, next.current.get(), later(START, 600_000));
        let mut transaction = database.begin_write().unwrap();
        transaction.set_durability(Durability::Immediate).unwrap();
        let mut state = Writing::open(&transaction, head).unwrap();
        rules.compare_and_swap(&mut state, s.revision, &next, Some(&entry)).unwrap();
        rules.insert(&mut state, &session("bob", n, later(START, n)), SubjectBound::NONE).unwrap();
        head = state.finish().unwrap().unwrap();
        transaction.commit().unwrap();
        s = next;
        acknowledged.push((backend.steps(), s.revision, head.sequence));
    }
    let end = backend.steps();
    assert!(end > opened + 6, "{opened} {end}");

    let mut random = 7_u64;
    for steps in 0..=end {
        for survival in 0..3 {
            let image = backend.crash(before.clone(), steps, || survives(survival, &mut random));
            place.replace(&image);
            // Without a mark, because it would change with each of these stores.
            let options = Options { high_water: None, ..place.options() };
            let store = RedbStore::open(place.path(), options).unwrap();
            let known = store.load(s.id).await.unwrap().unwrap();
            let &(_, revision, _) = acknowledged.iter().rfind(|(at, ..)| *at <= steps).unwrap();
            assert!(known.revision >= revision, "step {steps}: {} lost {revision}", known.revision);
            // Record, revocation and sequence belong to the same moment.
            let sequence = store.head().unwrap().sequence;
            assert!(acknowledged.iter().any(|&(_, r, q)| (r, q) == (known.revision, sequence)), "step {steps}");
            let (entries, _) = store.revocations_since(Cursor::default()).await.unwrap();
            let minimum = entries.first().map_or(1, |entry| match entry.effect {
                Effect::Minimum { minimum, .. } => minimum.get(),
                Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. } | Effect::Gone => panic!("{entry:?}"),
            });
            assert_eq!(minimum, known.current.get());
            let bobs = store.list(Filter::Subject("bob".into()), None, 100).await.unwrap().sessions.len();
            assert_eq!(bobs as u64, known.current.get() - 1);
            // The store must work after the crash.
            insert(&store, &session("carol", 99, START)).await;
        }
    }
}

/// Runs the test `child` of this module in its own process, and returns its output.
#[cfg(feature = "failpoints")]
fn run_child(place: &Place, failpoint: &str) -> (bool, usize) {
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::crash::child", "--nocapture", "--test-threads=1"])
        .env("ROTOGATE_FAILPOINT", failpoint)
        .env("ROTOGATE_TEST_CHILD", place.dir.path())
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&run.stdout).lines().filter(|line| line.ends_with("acknowledged")).count();
    (run.status.success(), printed)
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os("ROTOGATE_TEST_CHILD") else { return };
    let path = PathBuf::from(dir).join("data").join("rotogate.redb");
    let store = RedbStore::open(path, Options::new(conformance::ISSUER, KEYRING, conformance::LEEWAY)).unwrap();
    for n in 0..5 {
        insert(&store, &session("alice", n, START)).await;
        println!("\n{n} acknowledged");
        if store.commits() == n {
            // The operation is acknowledged but not committed: abort at the worst moment.
            std::process::abort();
        }
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn r2_the_failpoints_stop_the_process_where_they_say() {
    let listed = async |place: &Place| place.open().list(Filter::All, None, 10).await.unwrap().sessions.len();
    let place = Place::new();
    assert_eq!(run_child(&place, "none-of-the-stores"), (true, 5));
    assert_eq!(listed(&place).await, 5);
    let place = Place::new();
    assert_eq!(run_child(&place, "after-commit:3"), (false, 2), "the third commit is never acknowledged");
    assert_eq!(listed(&place).await, 3, "and it is durable");
    let place = Place::new();
    assert_eq!(run_child(&place, "ack-before-commit"), (false, 1));
    assert_eq!(listed(&place).await, 0, "the planted fault loses what was acknowledged");
}
