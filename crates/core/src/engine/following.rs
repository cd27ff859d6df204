//! Follows a store to which other gates also write.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Engine;
use super::exchange::successor_token;
use crate::clock::{ClockState, Timestamp};
use crate::revocation::{Effect, Revocation, Target};
use crate::session::SessionId;
use crate::session::rotation::REVOKED;
use crate::store::{FeedStep, Heard, Staleness, StoreError};

/// The maximum number of rotated sessions to look up in one step. The long connections of all other rotated sessions
/// end.
const MAX_ASKED: usize = 256;
/// The task yields after this many entries, because a feed can deliver a million entries at once.
const MERGED_AT_ONCE: usize = 1024;
/// The session of a long connection is read this long before the token expires.
const ASKED_BEFORE: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub(super) struct Following {
    staleness: Option<Staleness>,
    /// The time until which the engine may issue tokens, in ms of engine time.
    fresh_until: AtomicU64,
    store_time: AtomicU64,
}

/// How recent the engine's knowledge of revocations is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The gate is up to date with the writes of other gates.
    Fresh,
    /// The gates are restoring revocations that the store lost. The gate does not issue tokens, but accepts them.
    Restoring,
    /// The revocation list is too outdated to issue tokens, but the gate still accepts tokens.
    Degraded,
    /// The revocation list is too outdated to accept tokens.
    Stale,
}

impl Following {
    pub(super) fn new(staleness: Option<Staleness>) -> Self {
        let fresh_until = if staleness.is_some() { Timestamp::ZERO } else { Timestamp::MAX };
        Self { staleness, fresh_until: AtomicU64::new(fresh_until.as_millis()), store_time: AtomicU64::new(0) }
    }

    pub(super) fn staleness(&self) -> Option<Staleness> {
        self.staleness
    }

    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now.as_millis() < self.fresh_until.load(Ordering::Acquire)
    }

    /// No gate creates a session with an earlier creation time than this.
    pub(super) fn store_time(&self) -> Timestamp {
        Timestamp::from_millis(self.store_time.load(Ordering::Acquire))
    }
}

impl Engine {
    /// Applies a step of the feed.
    ///
    /// # Errors
    /// The store lost writes, and this gate could not write its revocations back. The next step tries again.
    pub async fn take_step(&self, step: &FeedStep) -> Result<(), StoreError> {
        let mut rotated = Vec::new();
        for entries in step.entries.chunks(MERGED_AT_ONCE) {
            self.revocations.apply_all(entries.iter().filter(|entry| match self.rotated_elsewhere(entry) {
                Some(session) if rotated.len() < MAX_ASKED => {
                    rotated.push((session, *entry));
                    false
                }
                Some(_) | None => true,
            }));
            if entries.len() == MERGED_AT_ONCE {
                tokio::task::yield_now().await;
            }
        }
        // If the store does not respond, the remaining connections end, so that the feed is not delayed.
        let mut answers = true;
        for (session, entry) in rotated {
            answers = answers && self.advance_lines(session).await;
            self.revocations.apply(entry);
        }
        if step.lost || self.is_loss_suspected() {
            self.suspect_loss();
            return match self.store.shared() {
                Some(shared) => self.restore(shared).await,
                None => Ok(()),
            };
        }
        let (Some(heard), Some(staleness)) = (step.complete, self.following.staleness) else { return Ok(()) };
        let Heard { asked, answered, store_time } = heard;
        self.clock.follow_store((asked, answered), store_time);
        self.following.store_time.fetch_max(store_time.as_millis(), Ordering::AcqRel);
        // The response describes the store as it was at the query. The entries of the response must be applied first
        // (requirement C8).
        let since = self.clock.at(asked);
        self.following.fresh_until.store(since.plus(staleness.limit).as_millis(), Ordering::Release);
        self.revocations.use_until(since.plus(staleness.served));
        self.written.hear(self.clock.source().monotonic());
        self.is_restored().await;
        Ok(())
    }

    /// Returns the entry's session if the entry revokes tokens of long connections. If another gate has rotated the
    /// session, the connections continue with the new token (requirement C27).
    fn rotated_elsewhere(&self, entry: &Revocation) -> Option<SessionId> {
        match (&entry.target, entry.effect) {
            (Target::Session(id), Effect::Minimum { minimum, .. }) if minimum != REVOKED => {
                (self.revocations.minimum(*id) < minimum && self.live_sessions.has(*id)).then_some(*id)
            }
            _ => None,
        }
    }

    /// Returns false if the store does not respond.
    async fn advance_lines(&self, id: SessionId) -> bool {
        let session = match self.store.load(id).await {
            Ok(session) => session,
            Err(error) => return error.is_of_one_record(),
        };
        let Some(session) = session.filter(|session| !session.is_revoked()) else { return true };
        if let Some(token) = successor_token(&self.keyring(), &session) {
            for presented in [session.previous, session.current] {
                self.live_sessions.advance(id, presented, token);
            }
        }
        true
    }

    /// If the token of a long connection expires soon, reads the connection's session from the shared store.
    pub async fn advance_expiring_lines(&self) {
        if self.store.shared().is_none() {
            return;
        }
        let now = self.clock.latest();
        for session in self.live_sessions.expiring(now..now.plus(ASKED_BEFORE)) {
            if !self.advance_lines(session).await {
                return;
            }
        }
    }

    /// How recent the engine's knowledge of revocations is.
    pub fn freshness(&self) -> Freshness {
        let now = self.clock.now();
        match (self.following.is_fresh(now), self.revocations.is_usable(now)) {
            (true, _) if !self.restoring.is_over() => Freshness::Restoring,
            (true, _) => Freshness::Fresh,
            (false, true) => Freshness::Degraded,
            (false, false) => Freshness::Stale,
        }
    }

    /// The time since the shared store's last response.
    pub fn unheard_for(&self) -> Option<Duration> {
        let staleness = self.following.staleness?;
        let fresh_until = Timestamp::from_millis(self.following.fresh_until.load(Ordering::Acquire));
        Some(self.clock.now().since(fresh_until.minus(staleness.limit)))
    }

    /// Returns whether this engine's clock is reliable enough to remove expired records.
    pub fn may_sweep(&self) -> bool {
        self.clock.state() == ClockState::Good
    }
}
