//! Repairs a store that was written while a clock was ahead (requirement C39). Gates must be stopped.
//!
//! Sessions cannot begin in this store until the clocks reach the remembered time. The repair lowers times in the
//! future to the current time. Lowered not-befores may no longer cover some tokens, so everything that was issued so
//! far is revoked.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::owed::OwedFile;
use super::{Cursor, Filter, Store, StoreError};
use crate::clock::Timestamp;
use crate::revocation::{Effect, LONGEST_KEY, Revocation, Target};
use crate::session::RevokedBecause;

const PAGE: usize = 256;

/// A store that remembers times.
#[async_trait]
pub trait RemembersTime: Store {
    /// The current time by the store's clock.
    async fn time_now(&self) -> Result<Timestamp, StoreError>;

    /// The latest remembered time, ignoring not-befores.
    async fn latest_time(&self) -> Result<Timestamp, StoreError>;

    /// Closes the store once everything is on the disk.
    async fn finish(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Lowers all remembered times to at most `now`, and replaces the store's revocation entries with `entries`.
    async fn lower_times(&self, now: Timestamp, entries: Vec<Revocation>) -> Result<(), StoreError>;
}

/// The current time, and the latest time that a store remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// The current time by the store's clock.
    pub now: Timestamp,
    /// The latest remembered time. It exceeds `now` only if a clock was ahead.
    pub latest: Timestamp,
}

impl Ahead {
    /// Returns whether the latest time is ahead by more than `leeway`.
    pub fn is_too_far(&self, leeway: Duration) -> bool {
        self.latest > self.now.plus(leeway)
    }
}

/// Reads the current time and the latest remembered time.
///
/// # Errors
/// The store fails, or its file of pending revocations is not empty. Their times would be ahead again.
pub async fn ahead(store: &dyn RemembersTime) -> Result<Ahead, StoreError> {
    OwedFile::none_beside(store, "their times would be ahead of the clock again at the next start")?;
    let (entries, _) = store.revocations_since(Cursor::default()).await?;
    let latest = entries.iter().filter_map(moment_of).max().unwrap_or_default();
    Ok(Ahead { now: store.time_now().await?, latest: store.latest_time().await?.max(latest) })
}

/// Revokes every session and token issued so far, and lowers times that are ahead. Returns the number of revoked
/// sessions.
///
/// An interrupted run can be repeated. `longest` is the longest lifetime of an access token.
///
/// # Errors
/// The store fails.
pub async fn reset_clock(store: &Arc<dyn RemembersTime>, longest: Duration) -> Result<u64, StoreError> {
    let now = store.time_now().await?;
    // This entry comes first, so that tokens are refused even if a later step fails.
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
