//! Partitions are the parts of the store. A script can access all Redis keys of one partition.
//!
//! A script accesses the Redis keys of only one partition. These Redis keys have the same hash tag, and are therefore
//! in the same slot of a cluster. The last byte of a session's id, which is random, selects the session's partition.
//! Not-befores of a subject, of a client and of all sessions are in **every** partition, so that each rotation is
//! atomic with all revocations that could refuse it. A single server has one partition.
//!
//! **Stamps** (requirement C4). Only partition 0 stamps creations and not-befores, so they are in one order. A
//! not-before is acknowledged once every partition has it. Partition 0 then raises its last stamp to the
//! not-before, so every creation that is stamped afterwards is later. Now consider a session that was stamped
//! before the not-before. If its insert reaches its partition after the not-before, the insert is refused. If the
//! insert comes first, later swaps of the session are refused, because its partition has the not-before by the time
//! that the not-before is acknowledged. There is no other order.
//!
//! **A not-before** is computed from the target's entries in all partitions, and from the latest end of the sessions
//! there. Each partition accepts the result if its entry is unchanged and it has no session that ends later. Otherwise
//! it returns its present state, and the not-before is computed again. Both steps can be repeated. If a node crashes
//! between the steps, it has not acknowledged the not-before. The next not-before for the target completes the partial
//! result in every partition.
//!
//! **The maximum number of a subject's sessions** is checked over all partitions. A bounded insert first reads all
//! partitions, including the number of inserts in each. Then it raises this number in each other partition, unless
//! the number has changed. Finally it inserts into its own partition, unless the number there has changed. Of two
//! such inserts, the later one has read the session of the earlier one. Proof: suppose that B inserts after A, but
//! B read A's partition before A inserted. Then B raised the number in A's partition before A inserted, or else B
//! failed there. If A read this number before B raised it, A fails. If A read it afterwards, A read after all of
//! B's reads. In this case A raised the number in B's partition after B had read it and before B inserts, so B
//! fails. A failed insert is tried again from the start. The sessions that must end for the new one are ended after
//! the insert, but before the insert is acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_lc_rs::digest;
use futures_util::future::join_all;

use rotogate_core::session::SessionId;
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::{StoreError, WriteOutcome};

/// The number of partitions in a cluster. It is stored in the head and never changes.
pub(super) const OF_A_CLUSTER: usize = 16;

/// The names of the Redis keys of one partition.
pub(super) struct PartitionKeys {
    pub(super) tag: String,
}

impl PartitionKeys {
    pub(super) fn new(prefix: &str, partition: usize) -> Self {
        Self { tag: format!("{{{prefix}:{partition}}}:") }
    }

    pub(super) fn named(&self, name: &str) -> Vec<u8> {
        format!("{}{name}", self.tag).into_bytes()
    }

    pub(super) fn with(&self, name: &str, rest: &[u8]) -> Vec<u8> {
        let mut key = self.named(name);
        key.extend_from_slice(rest);
        key
    }

    pub(super) fn session(&self, id: SessionId) -> Vec<u8> {
        self.with("s:", id.as_bytes())
    }

    pub(super) fn subject(&self, subject: &str) -> Vec<u8> {
        self.with("sub:", subject.as_bytes())
    }

    /// Returns the Redis keys that every script gets first.
    pub(super) fn fixed(&self) -> Vec<Vec<u8>> {
        ["h", "r", "u", "log"].map(|name| self.named(name)).into()
    }
}

/// A partition, and what the gate knows about its state.
pub(super) struct Partition {
    pub(super) number: usize,
    pub(super) keys: PartitionKeys,
    /// The history that every request expects.
    history: AtomicU64,
    /// The highest number of writes that the server has reported.
    pub(super) seq: AtomicU64,
    /// Whether the server has lost acknowledged writes, or may have lost some.
    lost: AtomicBool,
}

/// How certain it is that writes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Another server has replied, the server was restarted, or another node noticed a loss. It is possible that no
    /// write is missing.
    Possible,
    /// The server reports fewer writes than it has acknowledged, or its log no longer contains an entry that was
    /// read.
    Certain,
}

impl Partition {
    pub(super) fn new(prefix: &str, number: usize, (history, seq): (History, u64)) -> Self {
        Self {
            number,
            keys: PartitionKeys::new(prefix, number),
            history: AtomicU64::new(u64::from_be_bytes(history)),
            seq: AtomicU64::new(seq),
            lost: AtomicBool::new(false),
        }
    }

    pub(super) fn history(&self) -> History {
        self.history.load(Ordering::Acquire).to_be_bytes()
    }

    /// Switches to the new history that was given to the data after a loss.
    pub(super) fn adopt(&self, history: History, seq: u64) {
        self.seq.store(seq, Ordering::Release);
        self.history.store(u64::from_be_bytes(history), Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }

    /// Records that the server has made this many writes in this history.
    pub(super) fn saw(&self, history: History, seq: u64) {
        if self.history() == history {
            self.seq.fetch_max(seq, Ordering::AcqRel);
        }
    }

    /// Records that writes of this history appear to be lost. Does nothing if another history was adopted in the
    /// meantime.
    pub(super) fn flag_lost(&self, history: History, sign: Sign) {
        if self.history() != history || self.lost.swap(true, Ordering::AcqRel) {
            return;
        }
        match sign {
            Sign::Possible => tracing::info!(
                partition = self.number,
                "Redis was restarted or replaced; the gates are writing back what it may have lost"
            ),
            Sign::Certain => {
                tracing::error!(
                    partition = self.number,
                    "Redis lost writes that it had acknowledged. The gates write back the sessions and revocations \
                     that they know"
                );
            }
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

/// All partitions of a store. There is at least one.
pub(super) struct Partitions {
    first: Partition,
    others: Box<[Partition]>,
}

impl Partitions {
    pub(super) fn new(first: Partition, others: Vec<Partition>) -> Self {
        Self { first, others: others.into() }
    }

    /// Returns the partition that issues stamps, and whose time is the store's time.
    pub(super) fn first(&self) -> &Partition {
        &self.first
    }

    pub(super) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Returns the number of writes that the servers have reported, summed over all partitions.
    pub(super) fn writes(&self) -> u64 {
        self.iter().map(|partition| partition.seq.load(Ordering::Acquire)).fold(0, u64::saturating_add)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Partition> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(super) fn get(&self, number: usize) -> &Partition {
        number.checked_sub(1).and_then(|at| self.others.get(at)).unwrap_or(&self.first)
    }

    pub(super) fn of_session(&self, id: SessionId) -> &Partition {
        self.of_bytes(id.as_bytes())
    }

    /// Returns the partition that the last byte selects.
    pub(super) fn of_bytes(&self, id: &[u8]) -> &Partition {
        self.get(usize::from(id.last().copied().unwrap_or_default()) % self.count())
    }

    /// Returns the partition of a target that cannot affect sessions of this gate's issuer.
    pub(super) fn of_target(&self, target: &[u8]) -> &Partition {
        self.of_bytes(digest::digest(&digest::SHA256, target).as_ref())
    }

    /// Groups values by partition, in the order of the partitions. Partitions without values are omitted.
    pub(super) fn sort<T>(
        &self,
        all: impl IntoIterator<Item = T>,
        id: impl Fn(&T) -> SessionId,
    ) -> Vec<(&Partition, Vec<T>)> {
        let mut sorted = BTreeMap::<usize, Vec<T>>::new();
        for one in all {
            sorted.entry(self.of_session(id(&one)).number).or_default().push(one);
        }
        sorted.into_iter().map(|(number, some)| (self.get(number), some)).collect()
    }
}

/// Writes to several partitions in parallel. Each write is attempted, even if others fail.
pub(super) async fn in_each<T>(
    writes: impl IntoIterator<Item = impl Future<Output = Result<T, StoreError>>>,
) -> Result<Vec<T>, StoreError> {
    let results = join_all(writes).await;
    let may_be_done = |result: &Result<T, StoreError>| match result {
        Ok(_) => true,
        Err(error) => error.outcome() == WriteOutcome::InDoubt,
    };
    let is_in_doubt = results.iter().any(may_be_done);
    results.into_iter().collect::<Result<_, _>>().map_err(|error: StoreError| {
        // The writes to other partitions may have succeeded.
        let may_be_in_doubt = is_in_doubt && error.outcome() == WriteOutcome::NotDone;
        if may_be_in_doubt { error.with_outcome(WriteOutcome::InDoubt) } else { error }
    })
}
