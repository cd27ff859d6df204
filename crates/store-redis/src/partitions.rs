//! Partitions: parts of the store that one script can reach as a whole.
//!
//! A script touches keys of one partition only, which have one hash tag and so one slot of a cluster. A session is in the
//! partition of the last byte of its id, which is random. The not-befores of a subject, a client and all are in **every**
//! partition: so each rotation is atomic with all that it is held against. One server has one partition.
//!
//! **Stamps** (requirement C4). Partition 0 alone stamps creations and not-befores, so they are in one order. A not-before is
//! acknowledged once every partition has it, partition 0 among them, which raises its last stamp to it: every creation
//! that is stamped afterwards is later. A session that was stamped before is at or before a not-before that is stamped
//! later. Its insert reaches its own partition after the not-before, and is refused there; or before it, and then each
//! swap is refused, because the not-before is in that partition once it is acknowledged. No other order is left.
//!
//! **A not-before** is decided over what all partitions have of it, and the latest end of the sessions there. Each partition takes
//! the result if it still has what was found, and no session there ends later. Else it answers with what it has, and the
//! not-before is decided again. Either may be repeated. A node that dies between them has acknowledged nothing, and the next
//! not-before of that target brings what it left to every partition.
//!
//! **The bound of a subject's sessions** is decided over all partitions. An insert that is bounded reads them all, with the
//! number of inserts in each. Then it raises that number in each other partition, unless it changed since. Then it inserts,
//! unless the number changed in its own. Of two such inserts, the later one has read what the earlier one wrote. Suppose
//! that B inserts after A, and read A's partition before A inserted. B raised the number there before A inserted, or else B
//! failed there. A read that number before B raised it, and fails; or afterwards, and so after all that B read. Then A
//! raised the number in B's partition after B had read it and before A inserted, hence before B inserts: B fails. An insert
//! that fails is decided again. The sessions that give way end after the insert, and before it is acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aws_lc_rs::digest;
use futures_util::future::join_all;

use rotogate_core::session::SessionId;
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::{StoreError, WriteOutcome};

/// How many partitions a cluster's store has. It is in the head, and never changes.
pub(super) const OF_A_CLUSTER: usize = 16;

/// The names of keys of one partition.
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

    /// The first keys of every script.
    pub(super) fn fixed(&self) -> Vec<Vec<u8>> {
        ["h", "r", "u", "log"].map(|name| self.named(name)).into()
    }
}

/// A partition, and what is known of it.
pub(super) struct Partition {
    pub(super) number: usize,
    pub(super) keys: PartitionKeys,
    /// The history that every request expects.
    history: AtomicU64,
    /// The number of writes that the server was known to have made.
    pub(super) seq: AtomicU64,
    /// The server went back behind what it had acknowledged, or may have.
    lost: AtomicBool,
}

/// How sure it is that writes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// Another server answers, or it started again, or another node has noticed: maybe none is missing.
    Possible,
    /// The server counts fewer writes than it had acknowledged, or its log lacks an entry that was read.
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

    /// The data is of this history from now on, and what was lost is known.
    pub(super) fn adopt(&self, history: History, seq: u64) {
        self.seq.store(seq, Ordering::Release);
        self.history.store(u64::from_be_bytes(history), Ordering::Release);
        self.lost.store(false, Ordering::Release);
    }

    /// The server has made this many writes in this history.
    pub(super) fn saw(&self, history: History, seq: u64) {
        if self.history() == history {
            self.seq.fetch_max(seq, Ordering::AcqRel);
        }
    }

    /// Something shows that the data is no longer all of this history. It may have been adopted since.
    pub(super) fn flag_lost(&self, history: History, sign: Sign) {
        if self.history() != history || self.lost.swap(true, Ordering::AcqRel) {
            return;
        }
        match sign {
            Sign::Possible => tracing::info!(
                partition = self.number,
                "another server of Redis answers, or it has started again: the gates write back what it lacks"
            ),
            Sign::Certain => {
                tracing::error!(partition = self.number, "Redis lost writes that it had acknowledged");
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

    /// The one that stamps, and whose time is the store's.
    pub(super) fn first(&self) -> &Partition {
        &self.first
    }

    pub(super) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// How many writes the servers are known to have made, over all partitions.
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

    /// By the last byte.
    pub(super) fn of_bytes(&self, id: &[u8]) -> &Partition {
        self.get(usize::from(id.last().copied().unwrap_or_default()) % self.count())
    }

    /// Of a target that no session of ours is held against.
    pub(super) fn of_target(&self, target: &[u8]) -> &Partition {
        self.of_bytes(digest::digest(&digest::SHA256, target).as_ref())
    }

    /// Sorts values by partition, in order. Partitions without a value are left out.
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

/// Writes to several partitions at once. Each is tried, whatever becomes of the others.
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
        // Others may have done their part.
        let may_be_in_doubt = is_in_doubt && error.outcome() == WriteOutcome::NotDone;
        if may_be_in_doubt { error.with_outcome(WriteOutcome::InDoubt) } else { error }
    })
}
