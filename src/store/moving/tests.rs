#![cfg(feature = "redb")]

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::clock::Timestamp;
use crate::session::{Generation, RevokedBecause};
use crate::store::conformance::{
    self, BY_OPERATOR, ISSUER, LEEWAY, gone, insert, later, minimum, not_before, rotated, session, start, subject,
};
use crate::store::copy::{Destination, content, copy, is_later};
use crate::store::owed::{Owed, OwedFile};
use crate::store::redb::Options;
use crate::store::rules::is_revoked;
use crate::store::{Cursor, Filter, Inserted, Page, RedbStore, Store, SubjectBound, Swap, Swept, redb};

const KEYRING: Uuid = Uuid::from_u128(7);

/// A store with planted faults.
#[derive(Clone, Debug)]
struct Faulty {
    store: RedbStore,
    /// Nothing is put.
    is_away: Arc<AtomicBool>,
    /// A fence does not stay.
    forgets: Arc<AtomicBool>,
}

impl Faulty {
    fn over(store: RedbStore) -> Self {
        Self { store, is_away: Arc::default(), forgets: Arc::default() }
    }

    fn is_there(&self) -> Result<(), StoreError> {
        if self.is_away.load(Ordering::SeqCst) { Err(StoreError::new("planted: it is away")) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for Faulty {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        self.store.load(id).await
    }
    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        self.store.insert(session, bound).await
    }
    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        self.store.compare_and_swap(expected, record, revocation).await
    }
    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        self.store.revoke(entry, because).await
    }
    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        self.store.revocations_since(cursor).await
    }
    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        self.store.confirm(seen).await
    }
    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        self.store.list(filter, after, limit).await
    }
    async fn sweep(&self, now: Timestamp) -> Result<Swept, StoreError> {
        self.store.sweep(now).await
    }
    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        self.store.last_known_time().await
    }
    fn owed_file(&self) -> Option<&Arc<OwedFile>> {
        self.store.owed_file()
    }
    async fn check(&self) -> Result<(), StoreError> {
        self.store.check().await
    }
}

#[async_trait]
impl CopyTarget for Faulty {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<Put, StoreError> {
        self.is_there()?;
        self.store.put_sessions(sessions).await
    }
    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<Put, StoreError> {
        self.is_there()?;
        self.store.put_revocations(entries).await
    }
    async fn end_copy(&self) -> Result<(), StoreError> {
        self.is_there()?;
        self.store.end_copy().await
    }
    async fn move_to(&self, to: &Destination) -> Result<(), StoreError> {
        if self.forgets.load(Ordering::SeqCst) { Ok(()) } else { self.store.move_to(to).await }
    }
    async fn standing(&self) -> Result<Standing, StoreError> {
        self.is_there()?;
        self.store.standing().await
    }
}

/// Two files, and the handles on them.
#[derive(Clone, Debug)]
struct Site {
    folder: Arc<tempfile::TempDir>,
    old: Faulty,
    next: Arc<Mutex<Option<Faulty>>>,
}

fn options() -> Options {
    Options::new(ISSUER, KEYRING, LEEWAY)
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let old = Faulty::over(RedbStore::open(folder.path().join("old.redb"), options()).unwrap());
        Self { folder: Arc::new(folder), old, next: Arc::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn begin(&self) -> MovingStore {
        MovingStore::begin(Arc::new(self.old.clone()), self.clone()).await.unwrap()
    }

    fn next_store(&self) -> Faulty {
        self.next.lock().unwrap().clone().unwrap()
    }

    /// Opens the next store as a gate does that starts on it.
    async fn start_on_next(&self) -> RedbStore {
        let next = self.next.lock().unwrap().take();
        if let Some(next) = next {
            next.store.close().await.unwrap();
        }
        RedbStore::open(self.path("next.redb"), options()).unwrap()
    }

    /// What the old store answers a gate that starts without `[store.next]`.
    async fn refused_by_old(&self) -> String {
        self.old.store.close().await.unwrap();
        RedbStore::open(self.path("old.redb"), options()).unwrap_err().to_string()
    }
}

#[async_trait]
impl Opening for Site {
    async fn next(&self, of: Uuid) -> Result<Arc<dyn CopyTarget>, StoreError> {
        let mut next = self.next.lock().unwrap();
        if next.is_none() {
            let options = redb::Options { copying: Some(of.to_string()), ..options() };
            *next = Some(Faulty::over(RedbStore::open(self.path("next.copying"), options)?));
        }
        let next = next.clone().unwrap();
        next.is_there()?;
        Ok(Arc::new(next))
    }
    async fn moved(&self) -> Result<Arc<dyn CopyTarget>, StoreError> {
        Ok(Arc::new(self.old.clone()))
    }
    async fn standing(&self) -> Result<Standing, StoreError> {
        let next = self.next.lock().unwrap().clone();
        match next {
            Some(next) => next.standing().await,
            None => RedbStore::standing_at(&self.path("next.copying")),
        }
    }
    async fn publish(&self) -> Result<(), StoreError> {
        let next = self.next.lock().unwrap().clone();
        if let Some(next) = next {
            next.store.close().await?;
        }
        if self.path("next.copying").exists() {
            std::fs::rename(self.path("next.copying"), self.path("next.redb")).unwrap();
        }
        Ok(())
    }
    fn place(&self) -> String {
        "the next file".to_owned()
    }
    fn is_shared(&self) -> bool {
        false
    }
}

async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    for _ in 0..2000 {
        if is_so().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

const QUIET: &(dyn Fn(Report) + Send + Sync) = &|_| ();

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c31_a_store_that_is_being_moved_passes_the_conformance_suite() {
    conformance::run(|| {
        Arc::new(tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async { Site::new().begin().await })
        }))
    })
    .await;
}

#[tokio::test]
async fn c31_what_is_put_in_any_order_is_the_latest() {
    let site = Site::new();
    let _moving = site.begin().await;
    let next = site.next_store();
    let first = session("ada", 1, start());
    let second = rotated(&first, start());
    let third = rotated(&second, start());
    let ended = Session { status: crate::session::Status::Revoked(BY_OPERATOR), revision: 3, ..second.clone() };
    assert!(is_later(&third, &second) && is_later(&ended, &third) && !is_later(&first, &first));
    for order in [[&third, &first, &second], [&first, &third, &second]] {
        for record in order {
            assert_eq!(next.put_sessions(vec![record.clone()]).await.unwrap(), Put::Done);
        }
        assert_eq!(next.load(first.id).await.unwrap(), Some(third.clone()));
    }
    next.put_sessions(vec![ended.clone()]).await.unwrap();
    next.put_sessions(vec![third.clone()]).await.unwrap();
    assert_eq!(next.load(first.id).await.unwrap(), Some(ended));
    let (low, high) = (minimum(first.id, 2, later(start(), 9)), minimum(first.id, 3, later(start(), 5)));
    next.put_revocations(vec![high]).await.unwrap();
    next.put_revocations(vec![low]).await.unwrap();
    let (entries, _) = next.revocations_since(Cursor::default()).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].until, later(start(), 9), "the later end");
    assert!(
        matches!(entries[0].effect, crate::store::Effect::Minimum { minimum, .. } if minimum == Generation::new(3))
    );
}

#[tokio::test]
async fn c31_a_next_store_that_fails_costs_nothing_and_lacks_nothing_in_the_end() {
    let site = Site::new();
    let before = session("ada", 1, start());
    insert(&site.old, &before).await;
    let moving = site.begin().await;
    let next = site.next_store();
    let with = session("ada", 2, start());
    insert(&moving, &with).await;
    assert_eq!(next.load(with.id).await.unwrap(), Some(with.clone()), "before the acknowledgement");
    next.is_away.store(true, Ordering::SeqCst);
    let during = session("bob", 3, start());
    insert(&moving, &during).await;
    assert_eq!(moving.compare_and_swap(1, rotated(&with, start()), None).await.unwrap(), Swap::Swapped);
    moving.revoke(gone(before.id), BY_OPERATOR).await.unwrap();
    moving.revoke(not_before(subject("bob"), start()), BY_OPERATOR).await.unwrap();
    assert!(moving.copy(QUIET).await.is_err(), "it is away");
    assert!(moving.mirrored().missed > 0 && moving.mirrored().failed == 4, "{:?}", moving.mirrored());
    assert_eq!(next.load(during.id).await.unwrap(), None);
    next.is_away.store(false, Ordering::SeqCst);
    let now = moving.load(with.id).await.unwrap();
    until("what was missed is put", async || {
        next.load(during.id).await.unwrap().as_ref() == Some(&during) && next.load(with.id).await.unwrap() == now
    })
    .await;
    assert_eq!(moving.mirrored().missed, 0);
    // The not-before was missed, too: the comparison finds it.
    let found = moving.copy(QUIET).await.unwrap();
    assert_eq!((found.content.sessions, found.content.revocations, found.ahead), (3, 2, 0));
    assert_eq!(content(&next, start()).await.unwrap(), content(&site.old, start()).await.unwrap());
}

/// One life: what the old store took before the fence is in the next one, and it takes nothing afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c31_a_switch_under_load_loses_no_write_that_was_acknowledged_and_takes_none_after_it() {
    let site = Site::new();
    let moving = site.begin().await;
    let mut writers = Vec::new();
    for n in 0..8 {
        let moving = moving.clone();
        writers.push(tokio::spawn(async move {
            let mut record = session("ada", n, start());
            insert(&moving, &record).await;
            let (mut acknowledged, mut ended) = (record.clone(), Vec::new());
            for turn in 0.. {
                let next = rotated(&record, start());
                match moving.compare_and_swap(record.revision, next.clone(), None).await {
                    Ok(Swap::Swapped) => (record, acknowledged) = (next.clone(), next),
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => break,
                }
                if turn % 10 == 9 {
                    let other = session("bob", n * 1_000_000 + turn, start());
                    if moving.insert(other.clone(), SubjectBound::NONE).await.is_err()
                        || moving.revoke(gone(other.id), BY_OPERATOR).await.is_err()
                    {
                        break;
                    }
                    ended.push(other.id);
                }
            }
            (acknowledged, ended)
        }));
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let copied = moving.copy(QUIET).await.unwrap();
    let (level, _) = moving.switch(QUIET).await.unwrap();
    assert!(copied.content.sessions >= 8 && level.ahead == 0 && level.copied == 0, "{copied:?} {level:?}");
    moving.moved().await;
    let next = site.start_on_next().await;
    for writer in writers {
        let (acknowledged, ended) = writer.await.unwrap();
        let has = next.load(acknowledged.id).await.unwrap().unwrap();
        assert!(has.current >= acknowledged.current, "{} {}", has.revision, acknowledged.revision);
        for id in ended {
            assert!(is_revoked(&next.load(id).await.unwrap().unwrap()));
        }
    }
    assert_eq!(content(&next, start()).await.unwrap(), level.content);
    let error = moving.insert(session("late", 99, start()), SubjectBound::NONE).await.unwrap_err();
    assert!(error.to_string().contains("moved"), "{error}");
    assert!(site.refused_by_old().await.contains("was moved to the next file"));
}

/// A revocation that was kept beside the old store would be lost: no gate on the next store reads that file.
#[tokio::test]
async fn c31_nothing_stays_behind_in_the_file_beside_the_old_store() {
    let site = Site::new();
    let moving = site.begin().await;
    let known = session("ada", 1, start());
    insert(&moving, &known).await;
    let owed = Owed { because: BY_OPERATOR, entry: gone(known.id) };
    let file = Arc::clone(moving.owed_file().unwrap());
    file.keep(&owed).unwrap();
    for error in [
        moving.switch(QUIET).await.map(drop).unwrap_err(),
        copy(&site.old, &site.next_store(), start()).await.map(drop).unwrap_err(),
    ] {
        assert!(error.to_string().contains("has not taken yet"), "{error}");
    }
    assert!(matches!(site.old.standing().await.unwrap(), Standing::Serving { .. }), "it is not fenced");
    file.clear(file.lines()).unwrap();
    moving.switch(QUIET).await.unwrap();
    // The fenced store takes no revocation, and its file takes none in its place: the caller hears of a fault.
    moving.revoke(owed.entry.clone(), owed.because).await.unwrap_err();
    file.keep(&owed).unwrap_err();
    assert!(file.is_empty());
}

/// After each step of a switch, the process ends. A start comes to the end of it, and to one store in charge.
#[tokio::test]
async fn c31_a_switch_that_is_cut_short_at_any_step_is_brought_to_its_end() {
    for cut in 0..4 {
        let site = Site::new();
        let moving = site.begin().await;
        let kept = session("ada", 1, start());
        insert(&moving, &kept).await;
        moving.copy(QUIET).await.unwrap();
        let next = site.next_store();
        // What the old store acknowledged at the last moment, and the next one did not take.
        let last = session("ada", 2, start());
        insert(&site.old, &last).await;
        drop(moving);
        let id = next.standing().await.unwrap().store().unwrap();
        if cut == 0 {
            // Before the fence: the old store is in charge.
            assert!(matches!(site.old.standing().await.unwrap(), Standing::Serving { .. }));
            assert!(super::finish(&site.old, &site).await.unwrap_err().to_string().contains("not moved"));
            let again = site.begin().await;
            again.copy(QUIET).await.unwrap();
            again.switch(QUIET).await.unwrap();
        } else {
            let to = Destination { store: id, place: site.place() };
            site.old.move_to(&to).await.unwrap();
            if cut >= 2 {
                next.put_sessions(vec![last.clone()]).await.unwrap();
                next.end_copy().await.unwrap();
            }
            if cut >= 3 {
                assert_eq!(next.put_sessions(vec![rotated(&last, start())]).await.unwrap(), Put::Whole);
                let elsewhere = Destination { store: KEYRING, place: "elsewhere".to_owned() };
                assert!(site.old.move_to(&elsewhere).await.is_err(), "it was moved already");
            }
            // Twice: two gates may start at once.
            super::finish(&site.old, &site).await.unwrap();
        }
        let next = site.start_on_next().await;
        assert_eq!(next.load(kept.id).await.unwrap(), Some(kept), "cut {cut}");
        assert_eq!(next.load(last.id).await.unwrap(), Some(last), "cut {cut}");
        assert!(matches!(next.standing().await.unwrap(), Standing::Serving { of: Some(_), .. }));
        assert!(site.old.insert(session("late", 9, start()), SubjectBound::NONE).await.is_err());
        assert!(site.refused_by_old().await.contains("was moved"), "cut {cut}");
    }
}

/// A failover of the old store lost the fence: the copy that is whole is the fence then.
#[tokio::test]
async fn c31_an_old_store_that_forgot_its_move_acknowledges_nothing() {
    let site = Site::new();
    let moving = site.begin().await;
    let first = session("ada", 1, start());
    insert(&moving, &first).await;
    site.old.forgets.store(true, Ordering::SeqCst);
    let next = site.next_store();
    next.end_copy().await.unwrap();
    let error = moving.compare_and_swap(1, rotated(&first, start()), None).await.unwrap_err();
    assert!(error.to_string().contains("in charge"), "{error}");
    moving.moved().await;
    assert_eq!(next.load(first.id).await.unwrap(), Some(first));
}

/// A gate that only reads finds out as well.
#[tokio::test]
async fn c31_a_gate_leaves_an_old_store_that_another_gate_moved() {
    let site = Site::new();
    let moving = site.begin().await;
    let next = site.next_store();
    site.old.move_to(&Destination { store: KEYRING, place: "elsewhere".into() }).await.unwrap();
    next.end_copy().await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), moving.moved()).await.expect("it looks");
}

#[tokio::test]
async fn c31_a_copy_of_another_store_and_one_with_data_are_refused() {
    let site = Site::new();
    drop(RedbStore::open(site.path("next.copying"), options()).unwrap());
    let refused = MovingStore::begin(Arc::new(site.old.clone()), site.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("data of its own"), "{refused}");
    std::fs::remove_file(site.path("next.copying")).unwrap();
    let of_another = redb::Options { copying: Some("another".to_owned()), ..options() };
    drop(RedbStore::open(site.path("next.copying"), of_another).unwrap());
    let refused = MovingStore::begin(Arc::new(site.old.clone()), site.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("unfinished copy of another store"), "{refused}");
    let refused = RedbStore::open(site.path("next.copying"), options()).unwrap_err();
    assert!(refused.to_string().contains("not whole yet"), "{refused}");
}
