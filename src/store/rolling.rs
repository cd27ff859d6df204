//! C30: gates of two releases on one store. The next release is this one with a version of records that tests alone have.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::conformance::{BY_OPERATOR, gone, insert, rotated, session};
use super::{Cursor, Follow, Heard, LiveRow, SharedStore, Swap};
use crate::clock::{SystemTime, TimeSource, Timestamp};
use crate::session::{RevokedBecause, Session, SessionId, Status};

const PATIENCE: Duration = Duration::from_secs(60);
/// How many clients there are, and how many sessions of each must go by before a step ends.
const CLIENTS: u64 = 4;
const SESSIONS: u64 = 15;

/// A node that runs: its feed beats and brings what others revoke.
struct Node<S> {
    store: Arc<S>,
    row: Arc<LiveRow>,
    feed: JoinHandle<()>,
    beats: Arc<AtomicU64>,
}

impl<S> Drop for Node<S> {
    fn drop(&mut self) {
        self.feed.abort();
    }
}

impl<S: SharedStore> Node<S> {
    async fn begin(store: Arc<S>, name: &str) -> Self {
        let time: Arc<dyn TimeSource> = Arc::new(SystemTime::new());
        let (row, beats) = (Arc::new(LiveRow::default()), Arc::new(AtomicU64::new(0)));
        row.change(|row| row.node = name.into());
        let follow = Follow { time, every: Duration::from_millis(20), row: Arc::clone(&row) };
        let mut feed = store.follow(Cursor::default(), follow).await.unwrap();
        let counted = Arc::clone(&beats);
        let feed = tokio::spawn(async move {
            loop {
                if let Some(Heard { .. }) = feed.next().await.expect("the feed goes on").complete {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let node = Self { store, row, feed, beats };
        node.beats_on().await;
        node
    }

    /// Waits until its row says what it does now.
    async fn beats_on(&self) {
        let until_then = self.beats.load(Ordering::SeqCst) + 2;
        until(async || {
            assert!(!self.feed.is_finished(), "the feed ended");
            self.beats.load(Ordering::SeqCst) >= until_then
        })
        .await;
    }

    /// The versions that the nodes write, by their names, once this one has looked.
    async fn looks(&self) -> Vec<(Box<str>, u8)> {
        self.store.nodes().await.unwrap();
        self.beats_on().await;
        let mut rows: Vec<_> =
            self.store.nodes().await.unwrap().into_iter().map(|seen| (seen.row.node, seen.row.writes)).collect();
        rows.sort();
        rows
    }
}

async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("it comes");
}

/// Clients whose sessions begin at one of the stores, are rotated at each in turn, and end at one. Nothing fails, and no
/// step is taken for another's.
struct Load {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<Session>>>,
}

impl Load {
    fn on<S: SharedStore>(stores: &[Arc<S>], first: u64) -> Self {
        let (stop, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |number: u64| {
            let (stores, stop, ended) = (stores.to_vec(), Arc::clone(&stop), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut kept = Vec::new();
                let mut turn = number;
                let mut next = || {
                    turn += 1;
                    Arc::clone(&stores[usize::try_from(turn).unwrap() % stores.len()])
                };
                let mut sessions = first + number * 1_000_000..;
                while !stop.load(Ordering::SeqCst) {
                    let n = sessions.next().unwrap();
                    let now = next().stamp_creation(Timestamp::ZERO).await.unwrap().expect("the clocks agree");
                    let mut record = session(&format!("user {number}"), n, now);
                    insert(&*next(), &record).await;
                    for _ in 0..3 {
                        let found = next().load(record.id).await.unwrap().expect("the session is there");
                        assert_eq!(found, record);
                        let after = rotated(&record, now);
                        let swapped = next().compare_and_swap(record.revision, after.clone(), None).await.unwrap();
                        assert_eq!(swapped, Swap::Swapped);
                        record = after;
                    }
                    next().confirm(vec![(record.id, record.current)]).await.unwrap();
                    record = Session { confirmed: true, revision: record.revision + 1, ..record };
                    if n % 2 == 0 {
                        next().revoke(gone(record.id), RevokedBecause::Logout).await.unwrap();
                        let after = next().load(record.id).await.unwrap().expect("the session is there");
                        assert_eq!(after.status, Status::Revoked(RevokedBecause::Logout));
                    } else {
                        kept.push(record);
                    }
                    ended.fetch_add(1, Ordering::SeqCst);
                }
                kept
            })
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { stop, ended, clients }
    }

    async fn goes_on(&self) {
        let until_then = self.ended.load(Ordering::SeqCst) + CLIENTS * SESSIONS;
        until(async || {
            self.ended.load(Ordering::SeqCst) >= until_then || self.clients.iter().any(JoinHandle::is_finished)
        })
        .await;
    }

    /// The sessions that live.
    async fn end(self) -> Vec<Session> {
        self.stop.store(true, Ordering::SeqCst);
        let mut kept = Vec::new();
        for client in self.clients {
            kept.extend(client.await.expect("no operation failed"));
        }
        assert!(!kept.is_empty());
        kept
    }
}

async fn reads_all<S: SharedStore>(store: &S, kept: &[Session]) {
    for session in kept {
        assert_eq!(store.load(session.id).await.unwrap().as_ref(), Some(session));
    }
}

async fn cannot_read<S: SharedStore>(store: &S, id: SessionId) {
    let error = store.load(id).await.unwrap_err().to_string();
    assert!(error.contains("version") && error.contains("another version of rotogate"), "{error}");
}

/// `connect` makes a handle of this release, or of the next one; `forget` makes the store forget that a node with this name
/// was heard of, as 5 minutes do.
pub(super) async fn two_releases_share_a_store<S: SharedStore>(
    connect: impl AsyncFn(bool) -> Arc<S>,
    forget: impl AsyncFn(&S, &str),
) {
    let name = |name: &str, writes| (name.into(), writes);
    let old = Node::begin(connect(false).await, "old").await;
    let new = Node::begin(connect(true).await, "new").await;
    assert_eq!((old.store.reads(), new.store.reads()), ([1, 1], [1, 2]));
    // Forwards: both write what both read.
    let load = Load::on(&[Arc::clone(&old.store), Arc::clone(&new.store)], 1);
    load.goes_on().await;
    assert_eq!(new.looks().await, [name("new", 1), name("old", 1)]);
    load.goes_on().await;
    let mut kept = load.end().await;
    // Back, before the last of the old ones is gone: all of it is readable.
    drop(new);
    reads_all(&*old.store, &kept).await;
    // And forwards once more, to the end.
    let new = Node::begin(connect(true).await, "next").await;
    let load = Load::on(&[Arc::clone(&old.store), Arc::clone(&new.store)], 100_000);
    load.goes_on().await;
    kept.extend(load.end().await);
    let Node { store: stopped, .. } = &old;
    let (stopped, row) = (Arc::clone(stopped), Arc::clone(&old.row));
    drop(old);
    for gone in ["old", "new"] {
        forget(&stopped, gone).await;
    }
    let load = Load::on(&[Arc::clone(&new.store)], 200_000);
    load.goes_on().await;
    assert_eq!(new.looks().await, [name("next", 2)]);
    load.goes_on().await;
    let later = load.end().await;
    reads_all(&*new.store, &kept).await;
    reads_all(&*new.store, &later).await;
    // An old one that comes back reads what was written for it, and guesses at nothing else.
    reads_all(&*stopped, &kept).await;
    let (last, before) = later.split_last().unwrap();
    cannot_read(&*stopped, last.id).await;
    let after = rotated(last, last.created());
    assert!(stopped.compare_and_swap(last.revision - 1, after.clone(), None).await.is_err());
    assert_eq!(new.store.load(last.id).await.unwrap().as_ref(), Some(last), "nothing was done");
    // It ends sessions all the same.
    stopped.revoke(gone(last.id), BY_OPERATOR).await.unwrap();
    assert_eq!(new.store.load(last.id).await.unwrap().unwrap().status, Status::Revoked(BY_OPERATOR));
    // While it runs, the new one writes for it again.
    let old = Node::begin(stopped, &row.get().node).await;
    assert_eq!(new.looks().await, [name("next", 1), name("old", 1)]);
    let again = before.last().unwrap();
    cannot_read(&*old.store, again.id).await;
    let after = rotated(again, again.created());
    assert_eq!(new.store.compare_and_swap(again.revision, after.clone(), None).await.unwrap(), Swap::Swapped);
    reads_all(&*old.store, &[after]).await;
}
