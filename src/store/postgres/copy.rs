//! A copy of another store, and the store that was moved to one. Until a copy is whole, its head says so, and no gate opens
//! it.

use async_trait::async_trait;
use futures_util::future::join_all;

use super::super::copy::{CopyTarget, Destination, Put, Standing};
use super::super::fields::new_op;
use super::super::reset_clock::RemembersTime;
use super::super::rules::end_of;
use super::super::{Revocation, SharedStore, Store, StoreError};
use super::call::Arg;
use super::record::{Columns, columns, key, millis, time, uuid};
use super::revoke::Reach;
use super::{Inner, PostgresOptions, PostgresStore, check};
use crate::clock::Timestamp;
use crate::session::{RevokedBecause, Session};

#[async_trait]
impl CopyTarget for PostgresStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<Put, StoreError> {
        let mut put = Put::Done;
        for some in sessions.chunks(self.0.options.connections) {
            for done in join_all(some.iter().map(|session| self.0.put(session))).await {
                if done? == Put::Whole {
                    put = Put::Whole;
                }
            }
        }
        Ok(put)
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<Put, StoreError> {
        for entry in entries {
            // As an entry that reaches nothing here: the records have their end already.
            self.0.revoke_as_far(&entry, RevokedBecause::Operator, Reach::Nothing).await?;
        }
        Ok(Put::Done)
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

    async fn move_to(&self, to: &Destination) -> Result<(), StoreError> {
        let args = vec![Arg::bytes(&new_op()?), Arg::bytes(to.encode().as_bytes())];
        let answer = self.0.one("rg_move", args).await?;
        if answer.status()? != "moved" {
            return Err(answer.unknown());
        }
        let known = Destination::decode(answer.get("o_to")?)?;
        if known.store == to.store { Ok(()) } else { Err(StoreError::new(known.refusal("the store"))) }
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        check::standing(&self.0.commands).await
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

impl PostgresStore {
    /// How a store stands, without a change of it.
    ///
    /// # Errors
    /// PostgreSQL does not answer.
    #[doc(hidden)]
    pub async fn standing_at(options: PostgresOptions) -> Result<Standing, StoreError> {
        check::standing_at(options).await
    }
}

impl Inner {
    async fn put(&self, session: &Session) -> Result<Put, StoreError> {
        let Columns { revision, current, confirmed, revoked, record } = columns(&self.versions, session)?;
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
            "put" => Ok(Put::Done),
            "whole" => Ok(Put::Whole),
            _ => Err(answer.unknown()),
        }
    }
}
