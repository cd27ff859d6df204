//! The writes of revocations, and the sweep.

use super::PostgresInner;
use super::call::{Arg, ResultRow, unexpected};
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::RevokedBecause;
use rotogate_core::store::kit::commit::{Operation, decide, raises};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::rules::{MAX_SWEPT, fits};
use rotogate_core::store::{StoreError, Swept};

/// The number of writes that the store has had.
pub(super) fn writes(answer: &ResultRow) -> Result<u64, StoreError> {
    answer.get::<i64>("o_writes").map(|writes| u64::try_from(writes).unwrap_or_default())
}

impl PostgresInner {
    pub(super) async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        fits(&entry)?;
        let (mut ids, mut presumed, mut subject) = (Vec::new(), Snapshot::default(), None);
        match &entry.target {
            Target::Session(id) => (ids, presumed) = (vec![*id], self.hints.take(*id)),
            Target::Subject { issuer, subject: own } if *issuer == self.issuer => subject = Some(&**own),
            Target::Subject { .. } | Target::Client { .. } | Target::Global | Target::Token { .. } => {}
        }
        let targets = vec![entry.target.clone()];
        let operation =
            Operation { ids, targets, subject, raises: raises(&entry), keeps_names: true, ..Operation::default() };
        let revoke = |state: &mut Snapshot| self.rules().revoke(state, entry.clone(), because);
        let revoked = decide(&self.commit_by(&self.revocations)?, operation, presumed, revoke).await?;
        revoked.ok_or_else(|| unexpected("a time that was not given"))
    }

    /// Removes ended data. If several nodes sweep at once, one of them does the work.
    pub(super) async fn sweep(&self) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let limit = Arg::Int(i32::try_from(MAX_SWEPT).unwrap_or(i32::MAX));
            let answer = self.one("rg_sweep", vec![limit]).await?;
            if answer.status()? != "swept" {
                return Err(answer.unknown());
            }
            let writes = writes(&answer)?;
            swept.sessions += u64::try_from(answer.get::<i64>("o_sessions")?).unwrap_or_default();
            swept.revocations += u64::try_from(answer.get::<i64>("o_revocations")?).unwrap_or_default();
            if !answer.get::<bool>("o_more")? {
                self.mark.raise(writes).await;
                return Ok(swept);
            }
        }
    }
}
