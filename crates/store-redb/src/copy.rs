//! Fills unfinished copies, and resets the last known time of a store.

use async_trait::async_trait;
use redb::Database;

use super::RedbStore;
use super::schema::{COPYING_ROW, Writing, meta_row};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::session::Session;
use rotogate_core::store::copy::{CopyTarget, is_whole, put_record};
use rotogate_core::store::reset_clock::RemembersTime;
use rotogate_core::store::rules::{self, Failure, State};
use rotogate_core::store::{Revocation, Store, StoreError};

fn put(state: &mut Writing<'_>, work: impl FnOnce(&mut Writing<'_>) -> Result<(), Failure>) -> Result<(), Failure> {
    match state.text(COPYING_ROW)? {
        Some(_) => work(state),
        None => Err(Failure::Refused(is_whole())),
    }
}

#[async_trait]
impl CopyTarget for RedbStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError> {
        let put_all = move |state: &mut Writing<'_>| {
            for session in &sessions {
                put_record(state, session)?;
                state.raise_time(session.created())?;
            }
            Ok(())
        };
        self.write(move |_, state| put(state, put_all)).await
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError> {
        let put_all = move |state: &mut Writing<'_>| entries.iter().try_for_each(|entry| rules::put(state, entry));
        self.write(move |_, state| put(state, put_all)).await
    }

    async fn end_copy(&self) -> Result<(), StoreError> {
        self.write(|_, state| match state.text(COPYING_ROW)? {
            Some(_) => state.set_text(COPYING_ROW, None),
            None => Ok(()),
        })
        .await
    }
}

#[async_trait]
impl RemembersTime for RedbStore {
    async fn time_now(&self) -> Result<Timestamp, StoreError> {
        Ok(SystemTime::new().wall())
    }

    async fn latest_time(&self) -> Result<Timestamp, StoreError> {
        self.last_known_time().await
    }

    async fn finish(&self) -> Result<(), StoreError> {
        self.close().await
    }

    async fn lower_times(&self, now: Timestamp, entries: Vec<Revocation>) -> Result<(), StoreError> {
        self.write(move |_, state| state.set_time(now, &entries)).await
    }
}

pub(super) fn copying(database: &Database) -> Result<Option<String>, StoreError> {
    let row = meta_row(database, COPYING_ROW)?;
    Ok(row.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}
