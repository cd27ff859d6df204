use std::collections::BTreeMap;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;

use uuid::Uuid;

use super::*;
use rotogate_core::revocation::{Effect, Target};
use rotogate_core::store::conformance::{self, START, gone, insert, later, not_before, rotated, session, subject};

mod copy;
mod crash;
mod holding;
mod loading;
mod opening;
mod rows;

const KEYRING: Uuid = Uuid::from_u128(0x6b65_7973);

/// A directory with a store, and with its mark in another folder.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("data").join("rotogate.redb")
    }

    fn mark(&self) -> PathBuf {
        self.dir.path().join("keys").join("store.mark")
    }

    fn options(&self) -> Options {
        Options {
            high_water: Some(self.mark()),
            cache_size: 4 << 20,
            ..Options::new(conformance::ISSUER, KEYRING, conformance::LEEWAY)
        }
    }

    fn open(&self) -> RedbStore {
        RedbStore::open(self.path(), self.options()).unwrap()
    }

    /// Opens the store, which must be refused without a change of the file. Returns the error text.
    fn refused(&self) -> String {
        self.refused_with(self.options())
    }

    fn refused_with(&self, options: Options) -> String {
        let before = std::fs::read(self.path()).ok();
        let error = RedbStore::open(self.path(), options).unwrap_err().to_string();
        assert_eq!(std::fs::read(self.path()).ok(), before, "a refused file is left as it was");
        error
    }

    /// Replaces the store by these bytes, with its private mode.
    fn replace(&self, bytes: &[u8]) {
        std::fs::create_dir_all(self.path().parent().unwrap()).unwrap();
        rotogate_core::private_file::write_private_atomic(&self.path(), bytes).unwrap();
    }
}

/// All data that a store can return.
async fn content(store: &RedbStore) -> (Vec<Session>, Vec<Revocation>, Timestamp) {
    let sessions = store.list(Filter::All, None, 1000).await.unwrap();
    assert_eq!(sessions.next, None);
    let revocations = store.revocations_since(Cursor::default()).await.unwrap().0;
    (sessions.sessions, revocations, store.last_known_time().await.unwrap())
}

/// A few sessions, one rotated, one revoked, one confirmed, and a not-before.
async fn fill(store: &RedbStore) {
    let [a, b, c] = [1, 2, 3].map(|n| session("alice", n, later(START, 10)));
    for s in [&a, &b, &c] {
        insert(store, s).await;
    }
    assert_eq!(store.compare_and_swap(1, rotated(&a, later(START, 500)), None).await.unwrap(), Swap::Swapped);
    store.revoke(gone(b.id), RevokedBecause::Logout).await.unwrap();
    store.confirm(vec![(c.id, Generation::FIRST)]).await.unwrap();
    store.revoke(not_before(subject("bob"), START), RevokedBecause::Operator).await.unwrap();
}

/// Whether a write that was not synced survives a crash: all such writes, no such write, or each at random.
fn survives(which: u32, random: &mut u64) -> bool {
    match which {
        0 => true,
        1 => false,
        _ => {
            *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *random >> 63 == 0
        }
    }
}

/// Copies the file as a killed process would leave it: with its content, but not closed cleanly.
fn killed_copy(from: &Place) -> Place {
    let to = Place::new();
    to.replace(&std::fs::read(from.path()).unwrap());
    to
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_redb_store_passes_the_conformance_suite() {
    let places = Mutex::new(Vec::new());
    conformance::run(|_, _| {
        let place = Place::new();
        let store = Arc::new(place.open());
        places.lock().push(place);
        store
    })
    .await;
}

#[tokio::test]
async fn r2_everything_is_there_after_a_clean_stop_and_after_a_kill() {
    let place = Place::new();
    let store = place.open();
    fill(&store).await;
    let before = content(&store).await;
    let killed = killed_copy(&place);
    store.close().await.unwrap();
    assert!(store.load(before.0[0].id).await.unwrap_err().to_string().contains("closed"));
    assert!(store.confirm(vec![]).await.is_err() && store.check().await.is_err());
    store.close().await.unwrap();
    for place in [&place, &killed] {
        let again = place.open();
        assert_eq!(content(&again).await, before);
        let page = again.list(Filter::Subject("alice".into()), None, 10).await.unwrap();
        assert_eq!(page.sessions.len(), 3);
        // The log continues after the known entries.
        let (_, end) = again.revocations_since(Cursor::default()).await.unwrap();
        again.revoke(not_before(Target::Global, START), RevokedBecause::Operator).await.unwrap();
        let (entries, _) = again.revocations_since(end).await.unwrap();
        assert_eq!(entries.len(), 1);
    }
}

#[tokio::test]
async fn dropping_the_last_handle_finishes_what_is_queued() {
    let place = Place::new();
    let store = place.open();
    let s = session("alice", 1, START);
    let handle = store.clone();
    // The operation is queued, and its caller stops waiting.
    let mut pending = Box::pin(handle.insert(s.clone(), SubjectBound::NONE));
    assert!(futures_util::poll!(&mut pending).is_pending());
    drop(pending);
    drop(handle);
    drop(store);
    assert_eq!(place.open().load(s.id).await.unwrap(), Some(s));
}

/// Keeps the writer busy until the sender is dropped.
async fn hold(store: &RedbStore) -> (std_mpsc::Sender<()>, impl Future<Output = Result<(), StoreError>>) {
    let (release, held) = std_mpsc::channel::<()>();
    let (started, running) = oneshot::channel();
    let handle = store.clone();
    let mut blocking = Box::pin(async move {
        handle
            .write(move |_, _| {
                started.send(()).unwrap();
                let _ = held.recv();
                Ok(())
            })
            .await
    });
    assert!(futures_util::poll!(&mut blocking).is_pending());
    running.await.unwrap();
    (release, blocking)
}

/// Lets other tasks run until this many operations are queued.
async fn queued(store: &RedbStore, n: usize) {
    let queue = store.inner.queue.lock().clone().unwrap();
    while queue.max_capacity() - queue.capacity() < n {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_queued_together_is_one_commit_and_what_changes_nothing_is_none() {
    const N: u64 = 300;
    let place = Place::new();
    let store = place.open();
    let (release, blocking) = hold(&store).await;
    // One session more than N. The store refuses it, and writes the others of its batch.
    let mut inserts = JoinSet::new();
    for n in (0..N).chain([0]) {
        let store = store.clone();
        inserts.spawn(async move { store.insert(session("alice", n, START), SubjectBound::NONE).await });
    }
    queued(&store, N as usize + 1).await;
    assert_eq!(store.commits(), 0);
    drop(release);
    blocking.await.unwrap();
    let results = inserts.join_all().await;
    assert_eq!(results.iter().filter(|r| matches!(r, Ok(Inserted::Inserted(_)))).count() as u64, N);
    assert_eq!(results.iter().filter(|r| r.is_err()).count(), 1);
    assert_eq!(store.commits(), 1);
    store.confirm(vec![(session("alice", 1, START).id, Generation::new(9))]).await.unwrap();
    assert_eq!(store.commits(), 1);
}

#[tokio::test]
async fn operations_of_one_batch_see_each_other() {
    let place = Place::new();
    let store = place.open();
    let s = session("alice", 1, START);
    let (release, blocking) = hold(&store).await;
    let next = rotated(&s, later(START, 5));
    let mut all = Box::pin(async {
        tokio::join!(
            store.insert(s.clone(), SubjectBound::NONE),
            store.compare_and_swap(1, next.clone(), None),
            store.compare_and_swap(1, next.clone(), None),
            store.revoke(gone(s.id), RevokedBecause::Logout),
            store.compare_and_swap(2, rotated(&next, later(START, 6)), None),
        )
    });
    assert!(futures_util::poll!(&mut all).is_pending());
    drop(release);
    blocking.await.unwrap();
    let (inserted, first, second, revoked, after) = all.await;
    assert_eq!((inserted.unwrap(), first.unwrap()), (Inserted::Inserted(Vec::new()), Swap::Swapped));
    assert_eq!(second.unwrap(), Swap::Changed(Some(Box::new(next.clone()))));
    assert_eq!(revoked.unwrap().until, next.latest_access_expires.plus(conformance::LEEWAY));
    assert!(matches!(after.unwrap(), Swap::Changed(Some(_))));
    assert_eq!(store.commits(), 1);
}

#[tokio::test]
async fn who_finds_the_queue_full_waits() {
    let place = Place::new();
    let store = place.open();
    let (release, blocking) = hold(&store).await;
    let mut calls = JoinSet::new();
    for _ in 0..writer::QUEUE_LENGTH + 50 {
        let store = store.clone();
        calls.spawn(async move { store.confirm(vec![]).await });
    }
    queued(&store, writer::QUEUE_LENGTH).await;
    drop(release);
    blocking.await.unwrap();
    assert!(calls.join_all().await.into_iter().all(|r| r.is_ok()));
}

#[tokio::test]
async fn r2_o22_a_failed_commit_is_told_to_all_and_the_store_opens_again_by_itself() {
    let place = Place::new();
    let store = place.open();
    let s = session("alice", 1, START);
    insert(&store, &s).await;
    store.check().await.unwrap();
    assert_eq!(store.inner.shared.failed_for(), None);
    store.inner.backend.fail();
    let (a, b) = (session("alice", 2, START), session("alice", 3, START));
    let (first, second) =
        tokio::join!(store.insert(a.clone(), SubjectBound::NONE), store.insert(b, SubjectBound::NONE));
    for error in [first.unwrap_err(), second.unwrap_err()] {
        assert!(error.to_string().contains("unknown until"), "{error}");
    }
    assert_eq!(store.commits(), 1);
    // The disk works again after a while.
    while let Err(error) = store.check().await {
        assert!(error.to_string().contains("reopened"), "{error}");
        assert!(store.inner.shared.failed_for().is_some());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.inner.shared.failed_for(), None);
    assert_eq!(store.load(s.id).await.unwrap(), Some(s.clone()));
    assert_eq!(store.load(a.id).await.unwrap(), None, "what was not acknowledged is not there");
    insert(&store, &a).await;
    store.revoke(gone(s.id), RevokedBecause::Logout).await.unwrap();
    drop(store);
    let again = place.open();
    assert!(matches!(again.load(s.id).await.unwrap().unwrap().status, rotogate_core::session::Status::Revoked(_)));
    assert_eq!(again.load(a.id).await.unwrap(), Some(a));
}

#[tokio::test]
async fn o22_a_store_that_cannot_be_written_can_be_read_and_is_closed() {
    let place = Place::new();
    let store = place.open();
    let s = session("alice", 1, START);
    insert(&store, &s).await;
    store.inner.backend.fail();
    store.insert(session("alice", 2, START), SubjectBound::NONE).await.unwrap_err();
    // While the file is missing, the store must not create another one.
    std::fs::rename(place.path(), place.path().with_extension("away")).unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(store.check().await.is_err());
    assert!(!place.path().exists());
    std::fs::rename(place.path().with_extension("away"), place.path()).unwrap();
    while store.check().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.load(s.id).await.unwrap(), Some(s));
    store.inner.backend.fail();
    store.close().await.unwrap();
}

#[tokio::test]
async fn r23_ending_what_has_ended_is_no_commit() {
    let place = Place::new();
    let store = place.open();
    let s = session("alice", 1, START);
    insert(&store, &s).await;
    let all = [
        gone(s.id),
        Revocation { target: Target::Global, effect: Effect::NotBefore(START), until: START },
        Revocation {
            target: Target::Subject { issuer: conformance::ISSUER.into(), subject: "alice".into() },
            effect: Effect::NotBefore(START),
            until: START,
        },
    ];
    for entry in &all {
        store.revoke(entry.clone(), RevokedBecause::Logout).await.unwrap();
    }
    let (commits, kept) = (store.commits(), store.revocations_since(Cursor::default()).await.unwrap());
    for entry in &all {
        store.revoke(entry.clone(), RevokedBecause::Operator).await.unwrap();
    }
    assert_eq!((store.commits(), store.revocations_since(Cursor::default()).await.unwrap()), (commits, kept));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_backup_taken_under_writes_is_a_moment_of_the_store() {
    let place = Place::new();
    let store = place.open();
    // Each step changes two records in one transaction, so they agree at any moment.
    let [a, b] = [1, 2].map(|n| session("alice", n, START));
    insert(&store, &a).await;
    insert(&store, &b).await;
    let (stop, stopped) = std_mpsc::channel::<()>();
    let writing = tokio::spawn({
        let (store, a, b) = (store.clone(), a.clone(), b.clone());
        async move {
            let (mut a, mut b, mut n) = (a, b, 0_u64);
            while n < 20 || stopped.try_recv() == Err(std_mpsc::TryRecvError::Empty) {
                n += 1;
                let next = [rotated(&a, later(START, n)), rotated(&b, later(START, n))];
                [a, b] = store
                    .write(move |rules, state| {
                        for record in &next {
                            rules.compare_and_swap(state, record.revision - 1, record, None)?;
                        }
                        Ok(next)
                    })
                    .await
                    .unwrap();
                store.insert(session("bob", n, later(START, n)), SubjectBound::NONE).await.unwrap();
            }
        }
    });
    for n in 0..5 {
        let path = place.dir.path().join(format!("copy-{n}.redb"));
        store.backup_to(&path).await.unwrap();
        let options = Options { high_water: None, ..place.options() };
        let copy = RedbStore::open(&path, options).unwrap();
        let sessions: BTreeMap<_, _> =
            copy.list(Filter::All, None, 1000).await.unwrap().sessions.into_iter().map(|s| (s.id, s)).collect();
        assert_eq!(sessions[&a.id].current, sessions[&b.id].current);
        assert!(copy.last_known_time().await.unwrap() >= sessions[&a.id].issued_at);
        // The indexes of the copy match its records, so all of them can be swept.
        let bobs = copy.list(Filter::Subject("bob".into()), None, 1000).await.unwrap().sessions.len();
        assert_eq!(sessions.len(), bobs + 2);
        let swept = copy.sweep(Timestamp::MAX).await.unwrap();
        assert_eq!(swept.sessions as usize, sessions.len());
    }
    drop(stop);
    writing.await.unwrap();
}

#[tokio::test]
async fn a_backup_of_a_store_at_rest_leaves_it_alone_and_overwrites_nothing() {
    let place = Place::new();
    let store = place.open();
    fill(&store).await;
    let before = content(&store).await;
    let killed = killed_copy(&place);
    let astray = place.dir.path().join("astray");
    assert!(store.backup_to(astray.join("copy.redb")).await.is_err());
    assert!(!astray.exists(), "a spelling mistake makes no folder");
    drop(store);
    for place in [&place, &killed] {
        let bytes = std::fs::read(place.path()).unwrap();
        let folder = place.dir.path().join("copies");
        let copy = folder.join("copy.redb");
        let without_folder = RedbStore::backup_file(place.path(), &copy).unwrap_err().to_string();
        assert!(without_folder.contains(&format!("there is no folder {}", folder.display())), "{without_folder}");
        assert!(!folder.exists());
        std::fs::create_dir(&folder).unwrap();
        RedbStore::backup_file(place.path(), &copy).unwrap();
        assert!(std::fs::read(place.path()).unwrap() == bytes);
        let again = RedbStore::backup_file(place.path(), &copy).unwrap_err().to_string();
        assert!(again.contains("not overwritten"), "{again}");
        let options = Options { high_water: None, ..place.options() };
        assert_eq!(content(&RedbStore::open(&copy, options).unwrap()).await, before);
    }
    assert!(RedbStore::backup_file(place.dir.path().join("none"), place.dir.path().join("copy")).is_err());
}
