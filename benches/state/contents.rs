//! The stores to measure.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use rotogate::clock::Timestamp;
use rotogate::session::{RevokedBecause, Session, SessionId};
use rotogate::store::redb::{Options, RedbStore};
use rotogate::store::{Inserted, Store, SubjectBound, Swept};
use rotogate_core::revocation::{Effect, Revocation, Target};
use uuid::Uuid;

use super::Kind;
use super::support::sessions::{begun_session, numbered_id};

pub(super) const ISSUER: &str = "https://auth.example.com";
pub(super) const CLIENT: &str = "web";
pub(super) const LEEWAY: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 3600);
const KEYRING: Uuid = Uuid::from_u128(7);
/// The number of writes in flight.
const AT_ONCE: usize = 4096;

/// The creation time of the oldest session.
pub(super) const BEGUN: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// A time at which every record has expired, grace included.
pub(super) const OVER: Timestamp = BEGUN.plus(Duration::from_secs(10 * 24 * 3600));

pub(super) fn store(folder: &Path) -> RedbStore {
    let mut options = Options::new(ISSUER, KEYRING, LEEWAY);
    if let Some(mib) = std::env::var("ROTOGATE_BENCH_CACHE_MIB").ok().and_then(|mib| mib.parse::<usize>().ok()) {
        options.cache_size = mib << 20;
    }
    RedbStore::open(folder.join("rotogate.redb"), options).unwrap()
}

/// The id of a session. Creation times are spread evenly over a day.
pub(super) fn id(number: usize, of: usize) -> SessionId {
    let created = BEGUN.plus(Duration::from_micros(DAY.as_micros() as u64 * number as u64 / of.max(1) as u64));
    numbered_id(number, created)
}

/// An id that no session has; in key order it lies among the existing ones.
pub(super) fn unknown(number: usize, of: usize) -> SessionId {
    let mut bytes = *id(number, of).as_bytes();
    bytes[9] ^= 0xff;
    SessionId::from_bytes(bytes)
}

/// A session after its login.
pub(super) fn session(number: usize, of: usize) -> Session {
    begun_session(id(number, of), format!("user-{number}"))
}

pub(super) fn revocation(number: usize, of: usize) -> Revocation {
    let id = id(number, of);
    Revocation { target: Target::Session(id), effect: Effect::SESSION_REVOKED, until: id.created().plus(DAY) }
}

/// Fills a store. Returns the seconds that it took, and the size of the file.
pub(super) fn fill(kind: Kind, number: usize, folder: &Path) -> Vec<f64> {
    let took = fill_store(&store(folder), kind, number);
    vec![took, std::fs::metadata(folder.join("rotogate.redb")).unwrap().len() as f64]
}

/// Fills a store and closes it. Returns the seconds that it took.
pub(super) fn fill_store(store: &RedbStore, kind: Kind, number: usize) -> f64 {
    let start = Instant::now();
    let write = |n: usize| async move {
        match kind {
            Kind::Sessions => {
                let inserted = store.insert(session(n, number), SubjectBound::NONE).await.unwrap();
                assert_eq!(inserted, Inserted::Inserted(Vec::new()));
            }
            Kind::Revocations => {
                store.revoke(revocation(n, number), RevokedBecause::Operator).await.unwrap();
            }
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        stream::iter(0..number).map(write).buffer_unordered(AT_ONCE).for_each(|()| async {}).await;
    });
    let took = start.elapsed().as_secs_f64();
    runtime.block_on(store.close()).unwrap();
    took
}

/// A copy as a crash would leave it: made while the store is open, right after a commit.
pub(super) fn crash(folder: &Path) {
    let (opened, crashed) = (store(folder), folder.join("crashed"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // Ends no session: it only writes the time, so that the file is not clean.
    static AFTER: AtomicU64 = AtomicU64::new(0);
    let after = DAY + Duration::from_secs(3599) + Duration::from_millis(AFTER.fetch_add(1, Ordering::Relaxed));
    assert_eq!(runtime.block_on(opened.sweep(BEGUN.plus(after))).unwrap(), Swept::default());
    let _ = std::fs::remove_dir_all(&crashed);
    std::fs::create_dir(&crashed).unwrap();
    let copy = crashed.join("rotogate.redb");
    std::fs::copy(opened.path(), &copy).unwrap();
    // Otherwise the kernel writes it later, during another measurement.
    std::fs::File::open(copy).unwrap().sync_all().unwrap();
}
