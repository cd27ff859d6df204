//! Requirement C3: a store with operations in another language gives the same results as the rules in Rust.
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::conformance::{self, ISSUER, LEEWAY, gone, later, minimum, not_before, rotated, session, start, subject};
use super::{Cursor, Filter, Inserted, MemoryStore, Store, SubjectBound, Swap};
use crate::clock::Timestamp;
use crate::revocation::{Effect, Target};
use crate::session::{Generation, RevokedBecause, Session, SessionId, Status};

/// The numbers are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Runs the same operations on an empty `store` and on a memory store, and compares the results.
pub async fn agrees_with_the_rules(store: &dyn Store, seed: u64, operations: u64) {
    let memory = MemoryStore::for_a_trial(ISSUER, LEEWAY);
    let mut trial = Trial { numbers: Numbers(seed), store, memory: &memory, known: Vec::new(), said: Vec::new() };
    // This session fixes the latest expiry, because some stores never lower it.
    let longest = session("dave", 1 << 41, start());
    let longest = Session { expires: longest.expires.plus(Duration::from_secs(86_400)), ..longest };
    for store in trial.stores() {
        conformance::insert(store, &longest).await;
    }
    let mut kinds = BTreeSet::new();
    for n in 0..operations {
        let at = later(start(), n * 3);
        let name = ["alice", "bob", "carol"][trial.numbers.below(3) as usize];
        let pick = trial.numbers.below(trial.known.len().max(1) as u64) as usize;
        let id = trial.known.get(pick).copied().unwrap_or_else(|| session(name, 1 << 40, at).id);
        let kind = trial.numbers.below(10);
        match kind {
            0 | 1 => trial.insert(name, n, at).await,
            2..=4 if !trial.swap(id, at).await => continue,
            2..=4 => {}
            5 | 6 => trial.revoke(id, name, at).await,
            7 => trial.confirm(id).await,
            8 => {
                let restored = trial.restore(session(name, n, at), id).await;
                kinds.insert(100 + u64::from(restored));
            }
            _ => trial.list(name).await,
        }
        for store in trial.stores() {
            trial.said.push(format!("{:?}", store.load(id).await.unwrap()));
        }
        let said = std::mem::take(&mut trial.said);
        let (of_store, of_memory): (Vec<_>, Vec<_>) =
            said.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
        assert_eq!(of_store, of_memory, "seed {seed}, operation {n}, kind {kind}");
        kinds.insert(kind);
    }
    assert_eq!(kinds.len(), 12, "each kind, and records that were restored and not: {kinds:?}");
    let [of_store, of_memory] = trial.stores().map(|store| store.revocations_since(Cursor::default()));
    let (mut of_store, mut of_memory) = (of_store.await.unwrap().0, of_memory.await.unwrap().0);
    // The order of entries with different targets is arbitrary.
    of_store.sort_by(|a, b| a.target.cmp(&b.target));
    of_memory.sort_by(|a, b| a.target.cmp(&b.target));
    assert_eq!(of_store, of_memory);
}

struct Trial<'a> {
    numbers: Numbers,
    store: &'a dyn Store,
    memory: &'a MemoryStore,
    known: Vec<SessionId>,
    said: Vec<String>,
}

impl<'a> Trial<'a> {
    fn stores(&self) -> [&'a dyn Store; 2] {
        [self.store, self.memory]
    }

    async fn insert(&mut self, name: &str, n: u64, at: Timestamp) {
        let most = [2, 4, u32::MAX][self.numbers.below(3) as usize];
        let ends_oldest = self.numbers.below(2) == 1;
        let bound = SubjectBound { most, idle_ttl: Duration::from_secs(3), ends_oldest };
        let bound = if most == u32::MAX { SubjectBound::NONE } else { bound };
        let client = ["web", "tv"][self.numbers.below(2) as usize];
        let created = Timestamp::from_millis(at.as_millis() - self.numbers.below(20));
        let begun = Session { client: client.into(), issued_at: at, ..session(name, n, created) };
        for store in self.stores() {
            self.said.push(format!("{:?}", store.insert(begun.clone(), bound).await.map_err(|e| e.outcome())));
        }
        self.known.push(begun.id);
    }

    async fn swap(&mut self, id: SessionId, at: Timestamp) -> bool {
        let Some(record) = self.memory.load(id).await.unwrap() else { return false };
        let next = Session { status: Status::Live, ..rotated(&record, at) };
        let expected = record.revision - self.numbers.below(4) / 3;
        let entry = minimum(id, self.numbers.below(6), later(at, self.numbers.below(900_000)));
        let entry = (self.numbers.below(2) == 0).then_some(entry);
        for store in self.stores() {
            let swap = store.compare_and_swap(expected, next.clone(), entry.clone()).await;
            self.said.push(format!("{:?}", swap.map_err(|error| error.outcome())));
        }
        true
    }

    async fn revoke(&mut self, id: SessionId, name: &str, at: Timestamp) {
        let moment = Timestamp::from_millis(at.as_millis() - self.numbers.below(5000));
        let entry = match self.numbers.below(8) {
            0..=3 => gone(id),
            4 => minimum(id, self.numbers.below(9), later(at, self.numbers.below(900_000))),
            5 => not_before(conformance::client("tv"), moment),
            6 => not_before(Target::Global, Timestamp::from_millis(moment.as_millis() - 3000)),
            _ => not_before(subject(name), moment),
        };
        let because = [RevokedBecause::Logout, RevokedBecause::Reuse][self.numbers.below(2) as usize];
        for store in self.stores() {
            let merged = store.revoke(entry.clone(), because).await;
            self.said.push(format!("{:?}", merged.map_err(|error| error.outcome())));
        }
    }

    async fn confirm(&mut self, id: SessionId) {
        let seen = vec![(id, Generation::new(1 + self.numbers.below(3)))];
        for store in self.stores() {
            self.said.push(format!("{:?}", store.confirm(seen.clone()).await.unwrap()));
        }
    }

    /// Writes back a record that is slightly older or newer than the stored one. Returns whether the record was
    /// restored.
    async fn restore(&mut self, unknown: Session, id: SessionId) -> bool {
        let shared = self.store.shared().unwrap();
        let record = match self.memory.load(id).await.unwrap() {
            Some(record) => Session { status: Status::Live, ..record },
            None => unknown,
        };
        let generation = (record.current.get() + self.numbers.below(3)).saturating_sub(1);
        let revision = (record.revision + self.numbers.below(3)).saturating_sub(1).max(1);
        let record = Session { current: Generation::new(generation), revision, ..record };
        // After `adopt`, the store treats all records as written before the loss.
        shared.adopt().await.unwrap();
        let written = shared.restore(vec![record.clone()]).await.unwrap();
        let restored = self.memory.restore(&record).unwrap();
        assert_eq!(written, usize::from(restored), "{record:?}");
        self.known.push(record.id);
        restored
    }

    async fn list(&mut self, name: &str) {
        for store in self.stores() {
            let page = store.list(Filter::Subject(name.into()), None, 1000).await.unwrap();
            self.said.push(format!("{:?} {:?}", page.sessions, page.next));
        }
    }
}

/// A node decides again after another node's write.
pub async fn decides_anew<S: Store>([a, b]: [Arc<S>; 2]) {
    let begun = session("alice", 1, start());
    conformance::insert(&*a, &begun).await;
    b.revoke(minimum(begun.id, 9, later(start(), 900_000)), RevokedBecause::Operator).await.unwrap();
    let next = rotated(&begun, later(start(), 5));
    let swap = a.compare_and_swap(1, next.clone(), Some(minimum(begun.id, 2, later(start(), 600_000)))).await.unwrap();
    assert_eq!(swap, Swap::Swapped);
    let (entries, _) = b.revocations_since(Cursor::default()).await.unwrap();
    let Effect::Minimum { minimum: highest, .. } = entries[0].effect else { panic!("{entries:?}") };
    assert_eq!((entries.len(), highest.get()), (1, 9));
    let find = async || a.shared().unwrap().load_to_revoke(begun.id).await.unwrap();
    // Node `a` has read this entry.
    find().await;
    b.revoke(minimum(begun.id, 12, later(start(), 900_000)), RevokedBecause::Operator).await.unwrap();
    let merged = a.revoke(minimum(begun.id, 3, later(start(), 600_000)), RevokedBecause::Operator).await.unwrap();
    let Effect::Minimum { minimum: highest, .. } = merged.effect else { panic!("{merged:?}") };
    assert_eq!(highest.get(), 12);
    // Node `a` reads the session while it is live.
    find().await;
    let last = rotated(&next, later(start(), 6));
    assert_eq!(b.compare_and_swap(next.revision, last.clone(), None).await.unwrap(), Swap::Swapped);
    a.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    let ended = b.load(begun.id).await.unwrap().unwrap();
    assert_eq!((ended.current, ended.revision), (last.current, last.revision + 1));
}

/// A not-before succeeds although new sessions begin all the time.
pub async fn outlives_what_begins<S: Store + 'static>([a, b]: [Arc<S>; 2]) {
    let (stop, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let storm = {
        let (stop, begun) = (Arc::clone(&stop), Arc::clone(&begun));
        tokio::spawn(async move {
            let mut last = None;
            while !stop.load(Ordering::SeqCst) {
                let number = begun.fetch_add(1, Ordering::SeqCst);
                let one = session("alice", number, later(start(), number));
                if let Inserted::Inserted(_) = b.insert(one.clone(), SubjectBound::NONE).await.unwrap() {
                    last = Some(one.expires);
                }
            }
            last
        })
    };
    for round in 0..20 {
        let reached = begun.load(Ordering::SeqCst);
        while begun.load(Ordering::SeqCst) < reached + 5 {
            tokio::task::yield_now().await;
        }
        let entry = not_before(Target::Global, later(start(), round));
        let held = a.revoke(entry, RevokedBecause::Operator).await.unwrap();
        let known = session("alice", reached, later(start(), reached));
        assert!(held.until >= known.expires.plus(LEEWAY), "{held:?}");
    }
    stop.store(true, Ordering::SeqCst);
    assert!(storm.await.unwrap().is_some());
}
