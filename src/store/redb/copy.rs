//! A copy of another store.

use async_trait::async_trait;

use super::super::copy::CopyTarget;
use super::super::rules::State;
use super::super::{Revocation, StoreError};
use super::RedbStore;
use crate::session::Session;

#[async_trait]
impl CopyTarget for RedbStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError> {
        self.write(move |_, state| {
            for session in &sessions {
                let old = state.session(session.id)?;
                state.put_session(old.as_ref(), session)?;
                state.raise_time(session.created())?;
            }
            Ok(())
        })
        .await
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError> {
        self.write(move |_, state| entries.iter().try_for_each(|entry| state.put_revocation(entry))).await
    }
}
