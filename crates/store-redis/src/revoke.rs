//! Revocations as they are written, and their sweep.

use super::RedisInner;
use super::commit::{CommitCall, Committed, MAX_DECISIONS, Operation, changed_again, margin};
use super::partitions::{Partition, in_each};
use super::record::{Op, target};
use super::script::{SWEEP, unexpected};
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::RevokedBecause;
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::rules::fits;
use rotogate_core::store::{NODE_KEPT, StoreError, Swept, WriteOutcome};

/// How many revocations one script removes: other writers wait meanwhile.
const SWEPT_AT_ONCE: u64 = 128;

/// What begins from now on begins after this moment.
pub(super) fn raises(entry: &Revocation) -> Option<Timestamp> {
    match entry.effect {
        Effect::NotBefore(moment) => Some(moment),
        Effect::Minimum { .. } | Effect::Gone => None,
    }
}

fn merged(mut entry: Revocation, other: Revocation) -> Revocation {
    entry.absorb(&other);
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
        let revoked = self.decide(&self.call_to_revoke(partition, op), operation, presumed, revoke).await?;
        revoked.ok_or_else(|| unexpected("a time that was not given"))
    }

    /// The partition that has the entries of a target; `None` if each of them has.
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

    /// A not-before in every partition: see [`partitions`](super::partitions). The rules run over what all of them have. Then
    /// each gets the result, unless it has changed since: then they run again.
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
        // What each has, and when the sessions there end.
        let mut found = vec![(None::<Revocation>, Timestamp::ZERO); self.partitions.count()];
        let mut done = vec![None; found.len()];
        for number in 0..MAX_DECISIONS {
            let end = found.iter().map(|(_, end)| *end).max().unwrap_or_default();
            let over = |entry: Option<&Revocation>| {
                let mut snapshot = Snapshot::default();
                snapshot.see_end(end);
                entry.into_iter().for_each(|entry| snapshot.see_entry(entry.clone()));
                snapshot
            };
            let mut known = found.iter().filter_map(|(known, _)| known.clone());
            let greatest = known.next().map(|first| known.fold(first, merged));
            let now = rules.revoke(&mut over(greatest.as_ref()), entry.clone(), because)?;
            let open: Vec<_> =
                self.partitions.iter().filter(|of| done.get(of.number) != Some(&Some(now.clone()))).collect();
            if open.is_empty() {
                return Ok(now);
            }
            let commits = open.iter().map(async |partition| {
                let mut plan = over(found.get(partition.number).and_then(|(known, _)| known.as_ref()));
                rules.revoke(&mut plan, now.clone(), because)?;
                let call = self.call_to_revoke(partition, op);
                self.commit(&call, &[(&operation, &plan, true)]).await?.pop().ok_or_else(|| unexpected("no answer"))
            });
            let is_begun = done.iter().any(Option::is_some);
            // Some partition may have it.
            let in_doubt = |error: StoreError| if is_begun { error.with_outcome(WriteOutcome::InDoubt) } else { error };
            let answers = in_each(commits).await.map_err(in_doubt)?;
            for (partition, answer) in open.iter().zip(answers) {
                let is = match answer {
                    Committed::Done => {
                        done.iter_mut().skip(partition.number).take(1).for_each(|done| *done = Some(now.clone()));
                        (Some(now.clone()), end)
                    }
                    Committed::Changed(mut snapshot) => {
                        snapshot.allow(margin(number));
                        (snapshot.entry(&entry.target).cloned(), snapshot.found_end())
                    }
                    Committed::Late => return Err(unexpected("a time that was not given")),
                };
                found.iter_mut().skip(partition.number).take(1).for_each(|found| *found = is.clone());
            }
        }
        Err(changed_again())
    }

    /// A commit that a storm of refreshes does not hold up.
    pub(super) fn call_to_revoke<'a>(&'a self, partition: &'a Partition, op: Op) -> CommitCall<'a> {
        CommitCall { primaries: &self.revokes, partition, op, history: partition.history() }
    }

    /// Sessions expire by themselves. Of several nodes that sweep at once, each removes what the others have not.
    /// A not-before counts once for each partition that had it.
    pub(super) async fn sweep(&self) -> Result<Swept, StoreError> {
        let swept = in_each(self.partitions.iter().map(|partition| self.sweep_in(partition))).await?;
        self.mark.raise(self.partitions.writes()).await;
        Ok(Swept { revocations: swept.iter().map(|swept| swept.revocations).sum(), ..Swept::default() })
    }

    async fn sweep_in(&self, partition: &Partition) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let args = vec![SWEPT_AT_ONCE.to_string().into(), NODE_KEPT.as_millis().to_string().into()];
            let mut answer = self.run(partition, &SWEEP, vec![partition.keys.named("n")], args).await?;
            if answer.status != "swept" {
                return Err(answer.unknown());
            }
            let removed = answer.number()?;
            swept.revocations += removed;
            if removed < SWEPT_AT_ONCE {
                return Ok(swept);
            }
        }
    }
}
