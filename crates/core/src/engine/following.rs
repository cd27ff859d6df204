//! Follows a store to which other gates also write. Tracks how recent the engine's knowledge of the other gates'
//! revocations is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Engine;
use super::exchange::successor_token;
use crate::clock::{ClockState, Timestamp};
use crate::revocation::{Effect, Revocation, Target};
use crate::session::SessionId;
use crate::session::rotation::REVOKED;
use crate::store::{FeedStep, Heard, Staleness, StoreError};

/// The maximum number of sessions that are read from the store between two entries of a feed. If more sessions were
/// rotated, the long connections of the remaining sessions end.
const MAX_ASKED: usize = 256;
/// The number of entries that are merged before other requests get a turn, because a feed can deliver a million entries
/// at once.
const MERGED_AT_ONCE: usize = 1024;
/// The time before the expiry of a long connection's token at which the connection's session is read from the store.
const ASKED_BEFORE: Duration = Duration::from_secs(3);

/// The state of following a shared store.
#[derive(Debug)]
pub(super) struct Following {
    staleness: Option<Staleness>,
    /// Until this moment, the engine may mint tokens without news from the store. Engine time, in milliseconds.
    fresh_until: AtomicU64,
    /// The store's time at its last response, in ms.
    store_time: AtomicU64,
}

/// How recent the engine's knowledge of other gates' revocations is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Either only this gate writes to the store, or all writes of other gates until a moment ago are known.
    Fresh,
    /// The store lost writes, and the gates are writing their revocations back. Tokens are not minted, but requests
    /// with a token pass.
    Restoring,
    /// The knowledge is too old to mint tokens. Requests with a token still pass.
    Degraded,
    /// The knowledge is too old to accept tokens.
    Stale,
}

impl Following {
    /// Creates the initial state. If `staleness` is set, the gate's knowledge of revocations is stale until the store
    /// first responds.
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

    /// The store's time at its last response. Sessions that begin from now on, at any gate, are not created before this
    /// time.
    pub(super) fn store_time(&self) -> Timestamp {
        Timestamp::from_millis(self.store_time.load(Ordering::Acquire))
    }
}

impl Engine {
    /// Applies a step of the feed.
    ///
    /// # Errors
    /// Returns an error if the store has lost writes and this gate's revocations could not be written back. The next
    /// step tries again.
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
        // A store that does not respond must not delay the feed. The remaining connections end instead.
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
        // The time counts from the query and not from the response, because the response describes the store as it was
        // at the query. It is set only now, after the entries of the response were applied (requirement C8).
        let since = self.clock.at(asked);
        self.following.fresh_until.store(since.plus(staleness.limit).as_millis(), Ordering::Release);
        self.revocations.use_until(since.plus(staleness.served));
        self.written.hear(self.clock.source().monotonic());
        self.is_restored().await;
        Ok(())
    }

    /// The session whose earlier access tokens this entry ends, if this gate has long connections that depend on these
    /// tokens. Another gate may have exchanged the session's token. In that case the connections continue with the new
    /// token (requirement C27).
    fn rotated_elsewhere(&self, entry: &Revocation) -> Option<SessionId> {
        match (&entry.target, entry.effect) {
            (Target::Session(id), Effect::Minimum { minimum, .. }) if minimum != REVOKED => {
                (self.revocations.minimum(*id) < minimum && self.live_sessions.has(*id)).then_some(*id)
            }
            _ => None,
        }
    }

    /// Moves the long connections of a session to the token that another gate issued. Returns false if the store does
    /// not respond. The connections then end with their current token.
    async fn advance_lines(&self, id: SessionId) -> bool {
        let session = match self.store.load(id).await {
            Ok(session) => session,
            // If only this record is unreadable, the store can still be queried for other sessions.
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

    /// Finds the long connections whose token expires soon, and reads their sessions from a shared store.
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

    /// How recent the engine's knowledge of other gates' revocations is.
    pub fn freshness(&self) -> Freshness {
        let now = self.clock.now();
        match (self.following.is_fresh(now), self.revocations.is_usable(now)) {
            (true, _) if !self.restoring.is_over() => Freshness::Restoring,
            (true, _) => Freshness::Fresh,
            (false, true) => Freshness::Degraded,
            (false, false) => Freshness::Stale,
        }
    }

    /// The time since the store's last response, or `None` if only this gate writes to the store.
    pub fn unheard_for(&self) -> Option<Duration> {
        let staleness = self.following.staleness?;
        let fresh_until = Timestamp::from_millis(self.following.fresh_until.load(Ordering::Acquire));
        Some(self.clock.now().since(fresh_until.minus(staleness.limit)))
    }

    /// Returns whether records may be removed based on this engine's time.
    pub fn may_sweep(&self) -> bool {
        self.clock.state() == ClockState::Good
    }
}
