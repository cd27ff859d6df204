//! Notices of other issuers that sessions have ended: they are executed, counted, and recorded if refused.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Engine, Origin, audit};
use crate::clock::Timestamp;
use crate::counters::{CountedDurations, Durations};
use crate::denial::Denial;
use crate::fault::Error;
use crate::revocation::Revocation;
use crate::session::RevokedBecause;
use crate::store::StoreError;
use crate::token::verify::EventProtocol;

/// The bounds of ages, in seconds: a notice arrives at once, or after its sender's retries.
const AGE_SECONDS: [f64; 8] = [1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, f64::INFINITY];

/// The result of a good notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeResult {
    /// The named sessions are ended.
    Applied,
    /// The event is of another kind, and ends nothing.
    Noted,
}

/// Knows which events that end nothing are expected: those that verify a stream have the `state` that was asked for.
#[async_trait]
pub trait ExpectedEvents: std::fmt::Debug + Send + Sync + 'static {
    /// Whether a security event token of this issuer, which is verified, is no answer to what nobody asked.
    ///
    /// # Errors
    /// It is not known.
    async fn is_expected(&self, issuer: &str, set: &str) -> Result<bool, StoreError>;
}

/// The issuer's configured name, the protocol and the result.
type NoticeKind = (Box<str>, &'static str, &'static str);

/// The number of notices, and the age of those that ended something.
#[derive(Debug)]
pub struct NoticeCounts {
    results: Mutex<BTreeMap<NoticeKind, u64>>,
    ages: Durations<{ AGE_SECONDS.len() + 1 }>,
}

impl Default for NoticeCounts {
    fn default() -> Self {
        Self { results: Mutex::default(), ages: Durations::new(&AGE_SECONDS) }
    }
}

impl NoticeCounts {
    /// The issuer's name, the protocol, the result, the number.
    pub fn results(&self) -> Vec<(Box<str>, &'static str, &'static str, u64)> {
        let results = self.results.lock();
        results
            .iter()
            .map(|((issuer, protocol, result), number)| (issuer.clone(), *protocol, *result, *number))
            .collect()
    }

    /// The ages of notices that ended something, from `iat` until they were applied.
    pub fn ages(&self) -> CountedDurations {
        self.ages.counted()
    }
}

impl Engine {
    /// Ends the sessions that another issuer has ended. Durable when this returns.
    ///
    /// # Errors
    /// A fault of the store, after which the entry holds on this node.
    pub async fn end_elsewhere(
        &self,
        entry: Revocation,
        also: Option<Revocation>,
        told: Timestamp,
    ) -> Result<NoticeResult, Error> {
        // This gate refuses both, and owes them to the store, whatever the store answers.
        if let Some(also) = &also {
            self.refuse(also, RevokedBecause::Logout);
        }
        let ended = self.revoke(entry, RevokedBecause::Logout).await;
        if let Some(also) = also {
            self.keep(also, RevokedBecause::Logout).await?;
        }
        ended?;
        self.counts.notices.ages.add(self.clock.wall().since(told));
        Ok(NoticeResult::Applied)
    }

    /// Counts a notice, and records it if it is refused.
    pub fn record_notice(
        &self,
        issuer: &str,
        protocol: EventProtocol,
        ended: &Result<NoticeResult, Error>,
        origin: &Origin,
    ) {
        let result = match ended {
            Ok(NoticeResult::Applied) => "applied",
            Ok(NoticeResult::Noted) => "noted",
            Err(Error::Denied(Denial::RefusedEvent(flaw))) => {
                audit::notice_refused(issuer, protocol, *flaw, origin);
                flaw.word()
            }
            Err(Error::Denied(Denial::RateLimited(..))) => "limited",
            Err(Error::Denied(_) | Error::Failed(_)) => "unavailable",
        };
        let mut results = self.counts.notices.results.lock();
        *results.entry((issuer.into(), protocol.word(), result)).or_default() += 1;
    }
}
