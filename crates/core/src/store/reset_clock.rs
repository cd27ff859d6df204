//! Repairs a store that was written while a clock was ahead of the current time (requirement C39). No gate may use the
//! store meanwhile.
//!
//! No session can begin in such a store until the clocks reach the time that the store remembers, because a session
//! that is created before a not-before would be ended from the start. The times that are ahead are therefore lowered to
//! the current time. The lowered not-befores no longer cover everything that they ended, so everything that was issued
//! so far is ended instead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::owed::OwedFile;
use super::{Cursor, Filter, Store, StoreError};
use crate::clock::Timestamp;
use crate::revocation::{Effect, LONGEST_KEY, Revocation, Target};
use crate::session::RevokedBecause;

/// The number of sessions that are ended at once.
const PAGE: usize = 256;

/// A store that remembers times.
#[async_trait]
pub trait RemembersTime: Store {
    /// The current time by the store's clock: the server's clock, or the clock of this machine.
    async fn time_now(&self) -> Result<Timestamp, StoreError>;

    /// The latest time that the store remembers, apart from its not-befores.
    async fn latest_time(&self) -> Result<Timestamp, StoreError>;

    /// Closes the store once everything is on the disk.
    async fn finish(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Lowers all remembered times so that they are not after `now`. `entries` replace the store's revocation entries.
    async fn lower_times(&self, now: Timestamp, entries: Vec<Revocation>) -> Result<(), StoreError>;
}

/// The current time, and the latest time that a store remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The current time by the store's clock.
    pub now: Timestamp,
    /// The latest remembered time. It is not later than `now` if no time is ahead.
    pub latest: Timestamp,
}

impl Ahead {
    /// Returns whether the latest time is ahead by more than `leeway`. In that case the store refuses operations.
    pub fn is_too_far(&self, leeway: Duration) -> bool {
        self.latest > self.now.plus(leeway)
    }
}

/// Reads the current time and the latest time that the store remembers.
///
/// # Errors
/// The store returns an error, or the file beside the store has revocations, whose times would return at the next
/// start.
pub async fn ahead(store: &dyn RemembersTime) -> Result<Ahead, StoreError> {
    OwedFile::none_beside(store, "their times would be ahead again at the next start")?;
    let (entries, _) = store.revocations_since(Cursor::default()).await?;
    let latest = entries.iter().filter_map(moment_of).max().unwrap_or_default();
    Ok(Ahead { now: store.time_now().await?, latest: store.latest_time().await?.max(latest) })
}

/// Ends every session and every token issued so far, and lowers times that are ahead to the current time. Returns the
/// number of ended sessions. An interrupted run can be repeated. `longest` is the longest lifetime of an access token.
///
/// # Errors
/// The store returns an error.
pub async fn reset_clock(store: &Arc<dyn RemembersTime>, longest: Duration) -> Result<u64, StoreError> {
    let now = store.time_now().await?;
    // This entry is written first, so that everything that was issued before is refused even if a later step fails.
    let until = now.plus(longest.max(LONGEST_KEY));
    let everything = Revocation { target: Target::Global, effect: Effect::not_before(now, true), until };
    store.revoke(everything, RevokedBecause::Operator).await?;
    let (mut ended, mut after) = (0, None);
    loop {
        let page = store.list(Filter::All, after, PAGE).await?;
        let mut ending = JoinSet::new();
        for session in page.sessions.iter().filter(|session| !session.is_revoked()) {
            let target = Target::Session(session.id);
            let entry = Revocation { target, effect: Effect::SESSION_REVOKED, until: Timestamp::ZERO };
            let store = Arc::clone(store);
            ending.spawn(async move { store.revoke(entry, RevokedBecause::Operator).await });
        }
        while let Some(done) = ending.join_next().await {
            done.map_err(|error| StoreError::caused_by("a session was not ended", error))??;
            ended += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let (entries, _) = store.revocations_since(Cursor::default()).await?;
    let lowered = entries.into_iter().map(|entry| match moment_of(&entry) {
        Some(moment) if moment > now => {
            Revocation { effect: Effect::not_before(now, entry.effect.keys_until().is_some()), ..entry }
        }
        Some(_) | None => entry,
    });
    store.lower_times(now, lowered.collect()).await?;
    Ok(ended)
}

fn moment_of(entry: &Revocation) -> Option<Timestamp> {
    entry.effect.sessions_until().max(entry.effect.keys_until())
}
