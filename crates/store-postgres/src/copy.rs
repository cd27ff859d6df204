//! A copy of another store. Until it is whole, its head says so, and no gate opens it.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::call::Arg;
use super::record::{Columns, columns, key, millis, time, uuid};
use super::revoke::RevocationScope;
use super::{PostgresInner, PostgresStore};
use rotogate_core::clock::Timestamp;
use rotogate_core::session::{RevokedBecause, Session};
use rotogate_core::store::copy::{CopyTarget, is_whole};
use rotogate_core::store::kit::fields::new_op;
use rotogate_core::store::reset_clock::RemembersTime;
use rotogate_core::store::rules::end_of;
use rotogate_core::store::{Revocation, SharedStore, Store, StoreError};

#[async_trait]
impl CopyTarget for PostgresStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError> {
        for some in sessions.chunks(self.0.options.connections) {
            join_all(some.iter().map(|session| self.0.put(session))).await.into_iter().collect::<Result<(), _>>()?;
        }
        Ok(())
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError> {
        for entry in entries {
            // As an entry that reaches nothing here: the records have their end already.
            self.0.revoke_as_far(&entry, RevokedBecause::Operator, RevocationScope::Nothing).await?;
        }
        Ok(())
    }

    async fn raise_stamp(&self, latest: Timestamp) -> Result<(), StoreError> {
        self.stamp_creation(latest).await?.map(drop).ok_or_else(|| {
            StoreError::new(
                "a session began later than the clock of PostgreSQL says: set the clocks of both machines by NTP",
            )
        })
    }

    async fn end_copy(&self) -> Result<(), StoreError> {
        let answer = self.0.one("rg_end_copy", Vec::new()).await?;
        if answer.status()? == "whole" { Ok(()) } else { Err(answer.unknown()) }
    }
}

#[async_trait]
impl RemembersTime for PostgresStore {
    async fn time_now(&self) -> Result<Timestamp, StoreError> {
        self.last_known_time().await
    }

    async fn latest_time(&self) -> Result<Timestamp, StoreError> {
        let answer = self.0.one("rg_lower", vec![Arg::Bool(false)]).await?;
        if answer.status()? == "lowered" { Ok(time(answer.get("o_latest")?)) } else { Err(answer.unknown()) }
    }

    /// The function lowers the entries.
    async fn lower_times(&self, _now: Timestamp, _entries: Vec<Revocation>) -> Result<(), StoreError> {
        let answer = self.0.one("rg_lower", vec![Arg::Bool(true)]).await?;
        if answer.status()? == "lowered" { Ok(()) } else { Err(answer.unknown()) }
    }
}

impl PostgresInner {
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
        match answer.status()? {
            "put" => Ok(()),
            "whole" => Err(is_whole()),
            _ => Err(answer.unknown()),
        }
    }
}
