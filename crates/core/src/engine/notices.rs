//! What other issuers tell of ends: carried out, counted, and recorded if it is refused.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::{Engine, Origin, audit};
use crate::clock::Timestamp;
use crate::counters::{CountedDurations, Durations};
use crate::denial::Denial;
use crate::fault::Error;
use crate::revocation::Revocation;
use crate::session::RevokedBecause;
use crate::token::verify::EventProtocol;

/// The bounds of ages, in seconds: a notice comes at once, or after the retries of its sender.
const AGE_SECONDS: [f64; 8] = [1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, f64::INFINITY];

/// What became of a good notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeResult {
    /// What it names is ended.
    Applied,
    /// It ends nothing: it is an event of another kind.
    Noted,
}

/// The issuer's name, which the configuration has, the protocol and the result.
type NoticeKind = (Box<str>, &'static str, &'static str);

/// How many notices came, and how old those were that ended something.
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

    /// The ages of those that ended something, from their `iat` until they were applied.
    pub fn ages(&self) -> CountedDurations {
        self.ages.counted()
    }
}

impl Engine {
    /// Ends what another issuer ended. Durable when this returns.
    ///
    /// # Errors
    /// A fault of the store, after which the entry holds on this node.
    pub async fn end_elsewhere(
        &self,
        entry: Revocation,
        also: Option<Revocation>,
        told: Timestamp,
    ) -> Result<NoticeResult, Error> {
        // Both are refused here, and owed, whatever the store does.
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
