//! Writes revocations, and removes expired ones.

use super::RedisInner;
use super::commit::CommitCall;
use super::partitions::{Partition, in_each};
use super::record::{Op, target};
use super::script::{SWEEP, unexpected};
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::RevokedBecause;
use rotogate_core::store::kit::commit::{
    Commit, Committed, Decided, MAX_DECISIONS, Operation, changed_again, decide, margin, raises,
};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::rules::fits;
use rotogate_core::store::{NODE_KEPT, StoreError, WriteOutcome};

/// The number is limited, because other writers wait while the script runs.
const SWEPT_AT_ONCE: u64 = 128;

/// A partition's entry for a not-before, and the latest expiry of the matching sessions.
struct PartitionEntry<'a> {
    partition: &'a Partition,
    known: Option<Revocation>,
    end: Timestamp,
    is_written: bool,
}

impl PartitionEntry<'_> {
    fn has(&self, now: &Revocation) -> bool {
        self.is_written && self.known.as_ref() == Some(now)
    }
}

fn merged(known: Option<Revocation>, other: &Revocation) -> Revocation {
    let mut entry = known.unwrap_or_else(|| other.clone());
    entry.absorb(other);
    entry
}

impl RedisInner {
    pub(super) async fn revoke(
        &self,
        op: Op,
        entry: Revocation,
        because: RevokedBecause,
    ) -> Result<Revocation, StoreError> {
        fits(&entry)?;
        let Some(partition) = self.held_by(&entry.target)? else {
            return self.revoke_in_all(op, &entry, because).await;
        };
        let (ids, presumed) = match &entry.target {
            Target::Session(id) => (vec![*id], self.hints.take(*id)),
            Target::Subject { .. } | Target::Client { .. } | Target::Global | Target::Token { .. } => {
                (Vec::new(), Snapshot::default())
            }
        };
        let targets = vec![entry.target.clone()];
        let operation = Operation { ids, targets, raises: raises(&entry), keeps_names: true, ..Operation::default() };
        let revoke = |state: &mut Snapshot| self.rules().revoke(state, entry.clone(), because);
        let revoked = decide(&self.call_to_revoke(partition, op), operation, presumed, revoke).await?;
        revoked.ok_or_else(|| unexpected("a time that the gate did not send"))
    }

    /// Returns the only partition with a target's entries, or `None` if all have them.
    pub(super) fn held_by(&self, of: &Target) -> Result<Option<&Partition>, StoreError> {
        Ok(match of {
            Target::Session(id) => Some(self.partitions.of_session(*id)),
            Target::Subject { issuer, .. } | Target::Client { issuer, .. } if *issuer == self.issuer => None,
            Target::Global => None,
            Target::Subject { .. } | Target::Client { .. } | Target::Token { .. } => {
                Some(self.partitions.of_target(&target(of)?))
            }
        })
    }

    /// Writes a not-before to every partition (see [`partitions`](super::partitions)). If a partition has changed, the
    /// rules are applied again.
    async fn revoke_in_all(
        &self,
        op: Op,
        entry: &Revocation,
        because: RevokedBecause,
    ) -> Result<Revocation, StoreError> {
        let rules = self.rules();
        let subject = match &entry.target {
            Target::Subject { subject, .. } => Some(&**subject),
            Target::Client { .. } | Target::Global | Target::Session(_) | Target::Token { .. } => None,
        };
        let operation =
            Operation { targets: vec![entry.target.clone()], subject, raises: raises(entry), ..Operation::default() };
        let at = |partition| PartitionEntry { partition, known: None, end: Timestamp::ZERO, is_written: false };
        let mut all: Vec<_> = self.partitions.iter().map(at).collect();
        for number in 0..MAX_DECISIONS {
            let end = all.iter().map(|one| one.end).max().unwrap_or_default();
            let over = |known: Option<&Revocation>| {
                let mut snapshot = Snapshot::default();
                snapshot.see_end(end);
                known.into_iter().for_each(|known| snapshot.see_entry(known.clone()));
                snapshot
            };
            let known =
                all.iter().filter_map(|one| one.known.as_ref()).fold(None, |known, one| Some(merged(known, one)));
            let now = rules.revoke(&mut over(known.as_ref()), entry.clone(), because)?;
            let is_begun = all.iter().any(|one| one.is_written);
            // Once a partition was written, an error leaves the outcome in doubt.
            let in_doubt = |error: StoreError| if is_begun { error.with_outcome(WriteOutcome::InDoubt) } else { error };
            let open: Vec<_> = all.iter_mut().filter(|one| !one.has(&now)).collect();
            if open.is_empty() {
                return Ok(now);
            }
            let commits = open.into_iter().map(async |one| {
                let mut plan = over(one.known.as_ref());
                rules.revoke(&mut plan, now.clone(), because)?;
                let call = self.call_to_revoke(one.partition, op);
                let decided = Decided { operation: &operation, snapshot: &plan, is_answer: true };
                match call.commit(&[decided]).await?.pop() {
                    Some(Committed::Done) => (one.known, one.is_written) = (Some(now.clone()), true),
                    Some(Committed::Changed(mut found)) => {
                        found.allow(margin(number));
                        (one.known, one.is_written) = (found.entry(&entry.target).cloned(), false);
                        one.end = found.found_end();
                    }
                    Some(Committed::Late) | None => return Err(unexpected("no answer")),
                }
                Ok(())
            });
            in_each(commits).await.map_err(in_doubt)?;
        }
        Err(changed_again().with_outcome(WriteOutcome::InDoubt))
    }

    /// Prepares a commit on the connections that refreshes do not use.
    pub(super) fn call_to_revoke<'a>(&'a self, partition: &'a Partition, op: Op) -> CommitCall<'a> {
        CommitCall { inner: self, primaries: &self.revokes, partition, op, history: partition.history() }
    }

    /// Removes expired revocations, and returns their number. Concurrent sweeps remove different entries.
    pub(super) async fn sweep_in(&self, partition: &Partition) -> Result<u64, StoreError> {
        let mut swept = 0;
        loop {
            let args = vec![SWEPT_AT_ONCE.to_string().into(), NODE_KEPT.as_millis().to_string().into()];
            let reply = self.run(partition, &SWEEP, vec![partition.keys.named("n")], args).await?;
            let removed = reply.with_status("swept")?.number()?;
            swept += removed;
            if removed < SWEPT_AT_ONCE {
                return Ok(swept);
            }
        }
    }
}
