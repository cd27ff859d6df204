//! A copy of another store. Until it is whole, its head says so, and no gate opens it.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::super::copy::CopyTarget;
use super::super::fields::new_op;
use super::super::rules::end_of;
use super::super::{Revocation, SharedStore, StoreError};
use super::call::Arg;
use super::record::{Columns, columns, key, millis, uuid};
use super::revoke::Reach;
use super::{Inner, PostgresStore};
use crate::session::{RevokedBecause, Session};

#[async_trait]
impl CopyTarget for PostgresStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError> {
        let latest = sessions.iter().map(Session::created).max().unwrap_or_default();
        for some in sessions.chunks(self.0.options.connections) {
            for done in join_all(some.iter().map(|session| self.0.put(session))).await {
                done?;
            }
        }
        // A not-before is stamped after all that began.
        self.stamp_creation(latest).await?.map(drop).ok_or_else(|| {
            StoreError::new(
                "a session began later than the clock of PostgreSQL says: set the clocks of both machines by NTP",
            )
        })
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError> {
        for entry in entries {
            // As an entry that reaches nothing here: the records have their end already.
            self.0.revoke_as_far(&entry, RevokedBecause::Operator, Reach::Nothing).await?;
        }
        Ok(())
    }
}

impl PostgresStore {
    /// The copy is whole: gates may open it.
    ///
    /// # Errors
    /// PostgreSQL does not answer.
    #[doc(hidden)]
    pub async fn end_copy(&self) -> Result<(), StoreError> {
        let answer = self.0.one("rg_end_copy", Vec::new()).await?;
        if answer.status()? == "whole" { Ok(()) } else { Err(answer.unknown()) }
    }
}

impl Inner {
    async fn put(&self, session: &Session) -> Result<(), StoreError> {
        let Columns { revision, current, confirmed, revoked, record } = columns(session)?;
        let args = vec![
            Arg::bytes(&new_op()?),
            Arg::Id(uuid(session.id)),
            revision,
            current,
            confirmed,
            revoked,
            Arg::Big(millis(session.created())),
            Arg::Big(millis(session.expires)),
            Arg::Big(millis(session.latest_access_expires)),
            Arg::Big(millis(session.issued_at)),
            Arg::Big(millis(end_of(session))),
            Arg::bytes(&key(session.subject.as_bytes())),
            self.client(session)?,
            record,
        ];
        let answer = self.one("rg_put", args).await?;
        if answer.status()? == "put" { Ok(()) } else { Err(answer.unknown()) }
    }
}
