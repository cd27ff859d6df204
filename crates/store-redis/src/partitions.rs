//! The partitions of the store.
//!
//! A script accesses only one partition. The Redis keys of a partition have the same hash tag, and therefore the same
//! cluster slot. The last byte of a session's id, which is random, selects the partition. Not-befores are in **every**
//! partition, so that a rotation is atomic with all revocations that could refuse it. A single server has one
//! partition.
//!
//! **Stamps** (requirement C4). Only partition 0 stamps creations and not-befores, so they are in one order. A
//! not-before is acknowledged once every partition has it. Partition 0 then raises its last stamp to the not-before, so
//! that later sessions get later stamps. A gate may still insert a session with an earlier stamp. A partition with the
//! not-before refuses the insert. If the not-before arrives later, it blocks the session's swaps.
//!
//! **Writing a not-before.** The gate merges the new not-before with the target's entries in all partitions. The result
//! is kept until the target's last session has ended. A partition accepts the result if its own entry is unchanged and
//! none of its sessions ends later. Otherwise the partition returns its present state, and the gate computes the result
//! again. Both steps can be repeated. After a crash between them, the target's next not-before completes the work.
//!
//! **The maximum number of a subject's sessions** is checked over all partitions. A bounded insert first reads all
//! partitions, including the number of inserts in each. Then it raises this number in each other partition, unless the
//! number has changed. Finally it inserts the session into its own partition, unless that partition's number has
//! changed. Of two concurrent inserts, the later one has read the earlier one's session. Proof: suppose that A inserts
//! first, and that B read A's partition before this insert. Then B fails. If B inserts into the same partition, A's
//! insert has changed the number there. Otherwise B raises the number in A's partition. After A's insert, B would find
//! a changed number there, and fail. So B raises it before A's insert. A did not fail, so A read the number after this,
//! and therefore after all of B's reads. A then raised the number in B's partition after B had read it, but before A's
//! insert. B inserts later, finds a changed number, and fails. A failed insert is tried again from the start. The
//! excess sessions are ended after the insert, and before its acknowledgment.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_lc_rs::digest;
use futures_util::future::join_all;

use rotogate_core::session::SessionId;
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::{StoreError, WriteOutcome};

/// The number is stored in the head, and never changes.
pub(super) const OF_A_CLUSTER: usize = 16;

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

    /// Returns the fixed Redis keys, with which every script's key list begins.
    pub(super) fn fixed(&self) -> Vec<Vec<u8>> {
        ["h", "r", "u", "log"].map(|name| self.named(name)).into()
    }
}

pub(super) struct Partition {
    pub(super) number: usize,
    pub(super) keys: PartitionKeys,
    /// The history id that requests expect.
    history: AtomicU64,
    /// The highest number of writes that the server has reported.
    pub(super) seq: AtomicU64,
    /// Whether the server may have lost acknowledged writes.
    lost: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Another server replied, the server restarted, or another node noticed a loss.
    Possible,
    /// The server reports fewer writes than acknowledged, or its log lacks an entry that was read.
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

    /// Switches to the new history after a loss.
    pub(super) fn adopt(&self, history: History, seq: u64) {
        self.seq.store(seq, Ordering::Release);
        self.history.store(u64::from_be_bytes(history), Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }

    pub(super) fn saw(&self, history: History, seq: u64) {
        if self.history() == history {
            self.seq.fetch_max(seq, Ordering::AcqRel);
        }
    }

    /// Records a loss of writes, unless the history has changed in the meantime.
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

/// All partitions of a store.
pub(super) struct Partitions {
    first: Partition,
    others: Box<[Partition]>,
}

impl Partitions {
    pub(super) fn new(first: Partition, others: Vec<Partition>) -> Self {
        Self { first, others: others.into() }
    }

    /// The partition that issues stamps and the store's time.
    pub(super) fn first(&self) -> &Partition {
        &self.first
    }

    pub(super) fn count(&self) -> usize {
        self.others.len() + 1
    }

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

    pub(super) fn of_bytes(&self, id: &[u8]) -> &Partition {
        self.get(usize::from(id.last().copied().unwrap_or_default()) % self.count())
    }

    /// Returns the partition for a target that cannot affect this issuer's sessions.
    pub(super) fn of_target(&self, target: &[u8]) -> &Partition {
        self.of_bytes(digest::digest(&digest::SHA256, target).as_ref())
    }

    /// Groups values by partition, in order. Partitions without values are omitted.
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

/// Writes to several partitions in parallel. A failure does not stop the other writes.
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
        // Other partitions may have executed the write.
        let may_be_in_doubt = is_in_doubt && error.outcome() == WriteOutcome::NotDone;
        if may_be_in_doubt { error.with_outcome(WriteOutcome::InDoubt) } else { error }
    })
}
