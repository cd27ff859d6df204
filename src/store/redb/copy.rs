//! A copy of another store, the store that was moved to one, and the one whose time is reset.

use std::path::Path;

use async_trait::async_trait;
use redb::{Database, ReadableDatabase};

use super::super::copy::{CopyTarget, Destination, Put, Standing, is_later};
use super::super::encoding::decode;
use super::super::reset_clock::RemembersTime;
use super::super::rules::{self, Failure, State};
use super::super::{Revocation, Store, StoreError};
use super::schema::{COPIED_ROW, COPYING_ROW, HEAD_ROW, Head, META, MOVED_ROW, Writing};
use super::writer::failed;
use super::{RedbStore, open};
use crate::clock::{SystemTime, TimeSource, Timestamp};
use crate::session::Session;

/// Puts into a copy that is not whole.
fn put(state: &mut Writing<'_>, work: impl FnOnce(&mut Writing<'_>) -> Result<(), Failure>) -> Result<Put, Failure> {
    if state.text(COPYING_ROW)?.is_none() {
        return Ok(Put::Whole);
    }
    work(state).map(|()| Put::Done)
}

#[async_trait]
impl CopyTarget for RedbStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<Put, StoreError> {
        let put_all = move |state: &mut Writing<'_>| {
            for session in &sessions {
                let old = state.session(session.id)?;
                if old.as_ref().is_none_or(|old| !is_later(old, session)) {
                    state.put_session(old.as_ref(), session)?;
                }
                state.raise_time(session.created())?;
            }
            Ok(())
        };
        self.write(move |_, state| put(state, put_all)).await
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<Put, StoreError> {
        let put_all = move |state: &mut Writing<'_>| entries.iter().try_for_each(|entry| rules::put(state, entry));
        self.write(move |_, state| put(state, put_all)).await
    }

    async fn end_copy(&self) -> Result<(), StoreError> {
        self.write(|_, state| match state.text(COPYING_ROW)? {
            Some(of) => {
                state.set_text(COPIED_ROW, Some(&of))?;
                state.set_text(COPYING_ROW, None)
            }
            None => Ok(()),
        })
        .await
    }

    async fn move_to(&self, to: &Destination) -> Result<(), StoreError> {
        let to = to.clone();
        self.write_always(move |_, state| match state.text(MOVED_ROW)? {
            None => state.set_text(MOVED_ROW, Some(&to.encode())),
            Some(known) => match Destination::decode(&known) {
                Ok(known) if known.store == to.store => Ok(()),
                Ok(known) => Err(Failure::Refused(StoreError::new(known.refusal("the store")))),
                Err(error) => Err(Failure::Refused(error)),
            },
        })
        .await
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        standing(&*self.database()?)
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

impl RedbStore {
    /// How the store in a file stands, without a change of the file.
    ///
    /// # Errors
    /// It cannot be read, or a process has it open.
    #[doc(hidden)]
    pub fn standing_at(path: &Path) -> Result<Standing, StoreError> {
        if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(Standing::Missing);
        }
        standing(&open::view(path, super::DEFAULT_CACHE_SIZE)?)
    }
}

pub(super) fn standing(database: &Database) -> Result<Standing, StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let meta = read.open_table(META).map_err(failed)?;
    let row = |name: &str| meta.get(name).map_err(failed);
    let head = row(HEAD_ROW)?.ok_or_else(|| StoreError::new("the store lost its head row"))?;
    let head: Head = decode("the head of the store", head.value())?;
    let text = |name| -> Result<_, StoreError> {
        Ok(row(name)?.map(|bytes| String::from_utf8_lossy(bytes.value()).into_owned()))
    };
    let [copying, copied, moved] = [text(COPYING_ROW)?, text(COPIED_ROW)?, text(MOVED_ROW)?];
    Standing::read(head.store, copying, copied, moved.as_deref())
}
