//! A store that was written under a clock that was ahead, brought back to the time of now (requirement C39). No gate runs on it
//! meanwhile.
//!
//! Until the clocks reach the time that such a store remembers, nothing begins in it: a session that began before a not-before
//! would be over from the start. So the times that are ahead are lowered to now. Then they no longer cover what they ended,
//! and everything that was issued so far is ended instead.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::owed::OwedFile;
use super::rules::is_revoked;
use super::{Cursor, Filter, Store, StoreError};
use crate::clock::Timestamp;
use crate::revocation::{Effect, LONGEST_KEY, Revocation, Target};
use crate::session::RevokedBecause;

/// How many records are under way at once.
const PAGE: usize = 256;

/// A store that remembers times.
#[async_trait]
pub trait RemembersTime: Store {
    /// The time of now, as the store counts it: the server's own, or that of this machine.
    async fn time_now(&self) -> Result<Timestamp, StoreError>;

    /// The latest time that the store remembers besides its not-befores.
    async fn latest_time(&self) -> Result<Timestamp, StoreError>;

    /// Ends its use, once everything is on the disk.
    async fn finish(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Remembers no time later than `now`. These entries take the place of those that are there.
    async fn lower_times(&self, now: Timestamp, entries: Vec<Revocation>) -> Result<(), StoreError>;
}

/// What a store remembers of times that have not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The time of now.
    pub now: Timestamp,
    /// The latest of them; no later than `now` if there is none.
    pub latest: Timestamp,
}

impl Ahead {
    /// Is anything refused because of it?
    pub fn is_too_far(&self, leeway: Duration) -> bool {
        self.latest > self.now.plus(leeway)
    }
}

/// What the store remembers of times that have not come.
///
/// # Errors
/// Those of the store. The file beside it has revocations: the next start would bring their times back.
pub async fn ahead(store: &dyn RemembersTime) -> Result<Ahead, StoreError> {
    OwedFile::none_beside(store, "times that are ahead would come back with them")?;
    let (entries, _) = store.revocations_since(Cursor::default()).await?;
    let latest = entries.iter().filter_map(moment_of).max().unwrap_or_default();
    Ok(Ahead { now: store.time_now().await?, latest: store.latest_time().await?.max(latest) })
}

/// Ends every session and every token issued so far, and lowers what is ahead to now. Returns how many sessions it ended.
/// Cut short, it can be run again. `longest` is how long an access token lives at most.
///
/// # Errors
/// Those of the store.
pub async fn reset_clock(store: &Arc<dyn RemembersTime>, longest: Duration) -> Result<u64, StoreError> {
    let now = store.time_now().await?;
    // First: whatever follows, nothing of before is good afterwards.
    let until = now.plus(longest.max(LONGEST_KEY));
    let everything = Revocation { target: Target::Global, effect: Effect::not_before(now, true), until };
    store.revoke(everything, RevokedBecause::Operator).await?;
    let (mut ended, mut after) = (0, None);
    loop {
        let page = store.list(Filter::All, after, PAGE).await?;
        let mut ending = JoinSet::new();
        for session in page.sessions.iter().filter(|session| !is_revoked(session)) {
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
