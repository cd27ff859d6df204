//! Counters of session events, for metrics.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::notices::NoticeCounts;
use crate::counters::Commits;
use crate::fault::Error;
use crate::session::RevokedBecause;

/// A counted event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session began.
    Login,
    /// A username or password was wrong.
    LoginRefused,
    /// A client got a token for its own account.
    ClientToken,
    /// A client exchanged a token.
    TokenExchanged,
    /// A session was rotated.
    Rotated,
    /// The current tokens were returned again.
    Replayed,
    /// Unused tokens were replaced with new ones.
    Reissued,
    /// A superseded credential was presented.
    Reuse,
    /// Another client presented a credential.
    OtherClient,
    /// The presented token's generation is later than the stored generation.
    Ahead,
    /// A session, a token, or a group of them was revoked.
    Revoked,
    /// A record from the store had a missing or invalid seal.
    BrokenSeal,
}

impl Event {
    /// All events.
    pub const ALL: [Self; 12] = [
        Self::Login,
        Self::LoginRefused,
        Self::ClientToken,
        Self::TokenExchanged,
        Self::Rotated,
        Self::Replayed,
        Self::Reissued,
        Self::Reuse,
        Self::OtherClient,
        Self::Ahead,
        Self::Revoked,
        Self::BrokenSeal,
    ];

    /// The event's name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::LoginRefused => "login_refused",
            Self::ClientToken => "client_token",
            Self::TokenExchanged => "token_exchange",
            Self::Rotated => "rotated",
            Self::Replayed => "replayed",
            Self::Reissued => "reissued",
            Self::Reuse => "reuse",
            Self::OtherClient => "other_client",
            Self::Ahead => "ahead_of_store",
            Self::Revoked => "revoked",
            Self::BrokenSeal => "broken_seal",
        }
    }
}

const RENEWALS: [&str; 3] = ["ok", "over", "unavailable"];

/// Counters for events.
#[derive(Debug, Default)]
pub struct Counts {
    events: [AtomicU64; Event::ALL.len()],
    started: Mutex<BTreeMap<Box<str>, u64>>,
    ended: [AtomicU64; RevokedBecause::ALL.len()],
    renewals: [AtomicU64; RENEWALS.len()],
    pub(super) notices: NoticeCounts,
    /// Excludes the commits of an embedded store, which are counted elsewhere.
    pub(super) writes: Commits,
}

impl Counts {
    /// The count of one event.
    pub fn get(&self, event: Event) -> u64 {
        self.events.get(event as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn add(&self, event: Event) {
        if let Some(count) = self.events.get(event as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The counters of notices from other issuers.
    pub const fn notices(&self) -> &NoticeCounts {
        &self.notices
    }

    pub(super) fn session_started(&self, dialect: &str) {
        self.add(Event::Login);
        let mut started = self.started.lock();
        match started.get_mut(dialect) {
            Some(number) => *number += 1,
            None => {
                started.insert(dialect.into(), 1);
            }
        }
    }

    pub(super) fn session_ended(&self, because: RevokedBecause) {
        if let Some(count) = self.ended.get(because as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    // Requirement B56.
    pub(super) fn renewed(&self, error: Option<&Error>) {
        let at = match error {
            None => 0,
            Some(Error::Denied(denial)) if !denial.is_undecided() => 1,
            Some(_) => 2,
        };
        if let Some(count) = self.renewals.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The number of browser session renewals per result.
    pub fn renewals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RENEWALS.into_iter().zip(self.renewals.iter().map(|count| count.load(Ordering::Relaxed)))
    }

    /// The number of started sessions for each dialect.
    pub fn sessions_started(&self) -> BTreeMap<Box<str>, u64> {
        self.started.lock().clone()
    }

    /// The number of individually revoked sessions, for each reason in [`RevokedBecause::ALL`].
    pub fn sessions_ended(&self) -> [u64; RevokedBecause::ALL.len()] {
        self.ended.each_ref().map(|count| count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_has_a_counter_of_its_own() {
        let counts = Counts::default();
        for (times, event) in Event::ALL.into_iter().enumerate() {
            (0..times).for_each(|_| counts.add(event));
        }
        for (times, event) in Event::ALL.into_iter().enumerate() {
            assert_eq!(counts.get(event), times as u64, "{}", event.name());
        }
    }
}
