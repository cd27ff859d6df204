//! The cost of a start, and of a check of the list after it.

use std::path::Path;
use std::time::Instant;

use rotogate::clock::Timestamp;
use rotogate::session::{Generation, SessionId};
use rotogate::store::Store;
use rotogate_core::revocation::RevocationList;
use rotogate_core::revocation::list::TokenFacts;

use super::contents::{self, BEGUN, ISSUER, id, store, unknown};
use super::support::busy;

/// The number of timed look-ups: enough to evict the first from the processor's caches.
const CHECKS: usize = 1 << 20;

fn load(store: &impl Store) -> RevocationList {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(store.revocations()).unwrap().0
}

/// Milliseconds to open a store and to load its revocations; bytes of memory afterwards, and at the peak.
pub(super) fn open(folder: &Path) -> Vec<f64> {
    let before = memory("VmRSS:");
    let start = Instant::now();
    let store = store(folder);
    let opened = start.elapsed();
    let list = load(&store);
    let loaded = start.elapsed() - opened;
    let (now, most) = (memory("VmRSS:") - before, memory("VmHWM:") - before);
    drop((list, store));
    vec![opened.as_secs_f64() * 1e3, loaded.as_secs_f64() * 1e3, now, most]
}

/// Nanoseconds of a check of a session that is not in the list, and of one that is.
pub(super) fn check(number: usize, folder: &Path) -> Vec<f64> {
    let store = store(folder);
    let list = load(&store);
    let ids = |make: fn(usize, usize) -> SessionId| -> Vec<SessionId> {
        (0..CHECKS).map(|n| make(n.wrapping_mul(0x9e37_79b1) % number.max(1), number)).collect()
    };
    let time = |ids: &[SessionId], refused: bool| {
        let took = busy(|| {
            for id in ids {
                let facts = TokenFacts {
                    delegation: None,
                    key_vouchers: None,
                    issuer_session: None,
                    vouched_by: None,
                    issuer: ISSUER,
                    subject: "ada",
                    sub: None,
                    client: Some(contents::CLIENT),
                    session: Some((*id, Generation::new(1))),
                    jti: None,
                    issued_at: None,
                };
                assert_eq!(list.judge(facts, BEGUN).refuse_from == Timestamp::ZERO, refused);
            }
        });
        took.as_nanos() as f64 / ids.len() as f64
    };
    vec![time(&ids(unknown), false), time(&ids(id), number > 0)]
}

/// The value of a line in `/proc/self/status`, in bytes.
pub(super) fn memory(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let found = status.lines().find_map(|one| one.strip_prefix(line));
    found.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).map_or(f64::NAN, |kib: f64| kib * 1024.0)
}
