//! Revocations as they are written, and their sweep.

use super::RedisInner;
use super::partitions::{Partition, in_each};
use super::record::{Op, decode_merged, encode_effect, millis, reason_number, target};
use super::script::{REVOKE, SWEEP};
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::RevokedBecause;
use rotogate_core::store::rules::{ends_session, fits};
use rotogate_core::store::{NODE_KEPT, StoreError, Swept, WriteOutcome};

/// How many revocations one script removes: other writers wait meanwhile.
const SWEPT_AT_ONCE: u64 = 128;

impl RedisInner {
    pub(super) async fn revoke(
        &self,
        op: Op,
        entry: Revocation,
        because: RevokedBecause,
    ) -> Result<Revocation, StoreError> {
        fits(&entry)?;
        let Some(partition) = self.held_by(&entry.target)? else { return self.revoke_in_all(op, entry, because).await };
        let reach = match &entry.target {
            Target::Session(id) => ("session", vec![partition.keys.session(*id)], id.as_bytes().to_vec()),
            // No session of ours, so no session's end: the caller knows how long the tokens live.
            Target::Subject { .. } | Target::Client { .. } | Target::Global | Target::Token { .. } => {
                ("none", Vec::new(), Vec::new())
            }
        };
        self.revoke_in(partition, op, &entry, because, reach).await
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

    /// A not-before, in two rounds: see [`partitions`](super::partitions).
    async fn revoke_in_all(
        &self,
        op: Op,
        entry: Revocation,
        because: RevokedBecause,
    ) -> Result<Revocation, StoreError> {
        let reach = |partition: &Partition| match &entry.target {
            Target::Subject { subject, .. } => ("subject", vec![partition.keys.subject(subject)], Vec::new()),
            Target::Client { .. } | Target::Global | Target::Session(_) | Target::Token { .. } => {
                ("all", Vec::new(), Vec::new())
            }
        };
        let first =
            self.partitions.iter().map(|partition| self.revoke_in(partition, op, &entry, because, reach(partition)));
        let had = in_each(first).await?;
        let mut greatest = entry.clone();
        had.iter().for_each(|one| greatest.absorb(one));
        let differ = self.partitions.iter().zip(&had).filter(|(_, had)| **had != greatest);
        let second = differ.map(|(partition, _)| self.revoke_in(partition, op, &greatest, because, reach(partition)));
        let has = in_each(second).await.map_err(|error| error.with_outcome(WriteOutcome::InDoubt))?;
        // Others may have raised it meanwhile.
        has.iter().for_each(|one| greatest.absorb(one));
        Ok(greatest)
    }

    pub(super) async fn revoke_in(
        &self,
        partition: &Partition,
        op: Op,
        entry: &Revocation,
        because: RevokedBecause,
        (reaches, keys, id): (&str, Vec<Vec<u8>>, Vec<u8>),
    ) -> Result<Revocation, StoreError> {
        let field = target(&entry.target)?;
        let args = vec![
            field.clone(),
            encode_effect(entry.effect),
            millis(entry.until).into(),
            self.leeway(),
            reaches.into(),
            reason_number(because).to_string().into(),
            vec![if ends_session(entry.effect) { b'1' } else { b'0' }],
            partition.keys.named("sub:"),
            id,
        ];
        let name = (op, partition.history());
        let mut answer = self.run_as(&self.revokes, partition, name, &REVOKE, keys, args).await?;
        if answer.status != "merged" {
            return Err(answer.unknown());
        }
        let (effect, until) = (answer.bytes()?, answer.bytes()?);
        if answer.number()? != 0 {
            tracing::error!(target = %entry.target, "session revoked, but its record cannot be read");
        }
        decode_merged(&field, &effect, &until)
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
