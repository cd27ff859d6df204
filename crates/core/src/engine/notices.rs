//! Notices from other issuers about ended sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::bad_entries::LookupKey;
use super::{Engine, Origin, audit};
use crate::clock::Timestamp;
use crate::counters::{CountedDurations, Durations};
use crate::denial::{Denial, EventFlaw};
use crate::directory::{NamedUsers, UserName};
use crate::fault::Error;
use crate::revocation::{Revocation, Target};
use crate::session::RevokedBecause;
use crate::token::verify::{AskedRevocation, Ended, EventEffect, EventKind, Reported, RevokedUser};

/// The boundaries of the age histogram, in seconds.
const AGE_SECONDS: [f64; 8] = [1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 3600.0, f64::INFINITY];

/// An issuer that ends or refreshes this many users within [`MANY_WITHIN`] may have been compromised.
const MANY: usize = 100;
const MANY_WITHIN: Duration = Duration::from_secs(600);

/// The result of a valid notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeResult {
    /// The named sessions have ended.
    Applied,
    /// The revocation applies, but this process has not seen an affected token or session.
    Unseen,
    /// The event is of a kind that does not end sessions.
    Noted,
    /// The gate does not know this form of subject.
    Unmatched,
}

impl NoticeResult {
    // Requirement S31.
    const fn ended(is_seen: bool) -> Self {
        if is_seen { Self::Applied } else { Self::Unseen }
    }

    /// The result's name in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unseen => "unseen",
            Self::Noted => "noted",
            Self::Unmatched => "unmatched",
        }
    }

    const fn effect(self, of: EventEffect) -> &'static str {
        match self {
            Self::Applied => of.word(),
            Self::Noted => EventEffect::Log.word(),
            Self::Unseen | Self::Unmatched => self.word(),
        }
    }
}

const UNSURE: &str = "the notice names only a session, but the gate has not accepted a token with that session";

type NoticeKind = (Box<str>, &'static str, &'static str);
type ByIssuer = Vec<(Box<str>, &'static str, &'static str, u64)>;

/// The number of notices, and their ages.
#[derive(Debug)]
pub struct NoticeCounts {
    results: Mutex<BTreeMap<NoticeKind, u64>>,
    effects: Mutex<BTreeMap<NoticeKind, u64>>,
    ages: Durations<{ AGE_SECONDS.len() + 1 }>,
    concerned: Mutex<BTreeMap<Box<str>, ConcernedUsers>>,
}

#[derive(Debug)]
struct ConcernedUsers {
    /// The monotonic time at which the period began.
    begun: Duration,
    users: BTreeSet<Box<str>>,
}

impl Default for NoticeCounts {
    fn default() -> Self {
        Self {
            results: Mutex::default(),
            effects: Mutex::default(),
            ages: Durations::new(&AGE_SECONDS),
            concerned: Mutex::default(),
        }
    }
}

fn listed(counts: &Mutex<BTreeMap<NoticeKind, u64>>) -> ByIssuer {
    let counts = counts.lock();
    counts.iter().map(|((issuer, of, word), number)| (issuer.clone(), *of, *word, *number)).collect()
}

impl NoticeCounts {
    /// The number of notices, by the issuer's name, the protocol and the result.
    pub fn results(&self) -> ByIssuer {
        listed(&self.results)
    }

    /// The number of valid events, by the issuer's name, the event type and the effect.
    pub fn effects(&self) -> ByIssuer {
        listed(&self.effects)
    }

    /// Counts the user. Returns true once per period, when [`MANY`] users have been counted.
    fn are_many(&self, (issuer, user): (&str, &str), now: Duration) -> bool {
        let mut concerned = self.concerned.lock();
        let begun = || ConcernedUsers { begun: now, users: BTreeSet::new() };
        let period = concerned.entry(issuer.into()).or_insert_with(begun);
        if now.saturating_sub(period.begun) >= MANY_WITHIN {
            *period = begun();
        }
        period.users.len() < MANY && period.users.insert(user.into()) && period.users.len() == MANY
    }

    /// The delay from each notice's `iat` to its effect.
    pub fn ages(&self) -> CountedDurations {
        self.ages.counted()
    }
}

impl Engine {
    /// Applies another issuer's report. When this returns, the result is durable. A repeated notice does not end
    /// sessions that began later.
    ///
    /// # Errors
    /// [`Denial::RefusedEvent`] if a session may not have ended, or a fault. After a fault of the store, the entry
    /// applies only at this gate.
    // Requirements S22, S23.
    pub async fn take_report(&self, reported: Reported) -> Result<NoticeResult, Error> {
        let told = reported.told;
        match reported.ended {
            Ended::Tokens { entry, also, is_seen, is_sure, .. } => {
                let ended = self.end_elsewhere(entry, also, told).await.map(|()| NoticeResult::ended(is_seen));
                // With this error, the sender learns that the gate may still accept some of the tokens.
                if is_sure { ended } else { ended.and(Err(Denial::RefusedEvent(EventFlaw::Request(UNSURE)).into())) }
            }
            Ended::OfDirectory { issuer, name, effect, at } => {
                let NamedUsers::One(user) = self.named_users(&issuer, &name).await? else {
                    return Ok(NoticeResult::Unmatched);
                };
                // The issuer's time is in whole seconds, so include all sessions that began in this second.
                let at = Timestamp::from_secs(at.as_secs()).plus(Duration::from_millis(999));
                let entry = match effect {
                    EventEffect::Refresh => {
                        self.before(Target::refreshed(&self.issuer, &user.subject), at, RevokedBecause::IssuerLogout)
                    }
                    EventEffect::End | EventEffect::Log => {
                        let target = Target::Subject { issuer: Arc::clone(&self.issuer), subject: user.subject };
                        let because = match reported.kind.ends_keys() {
                            true => RevokedBecause::GlobalRevocation,
                            false => RevokedBecause::IssuerLogout,
                        };
                        self.before(target, at, because)
                    }
                };
                self.end_elsewhere(entry, None, told).await.map(|()| NoticeResult::Applied)
            }
            Ended::Nothing => Ok(NoticeResult::Noted),
            Ended::Unmatched => Ok(NoticeResult::Unmatched),
        }
    }

    /// Finds the local user whom a request for global revocation names. Returns `None` if no local user is affected.
    ///
    /// # Errors
    /// [`Denial::RefusedEvent`] if a name does not identify exactly one user; or a fault of the directory, after which
    /// nothing has changed.
    pub async fn user_of_revocation(&self, asked: &AskedRevocation) -> Result<Option<Box<str>>, Error> {
        match &asked.user {
            RevokedUser::Subject { at_directory, .. } => {
                let (Some(directory), Some(subject)) = (&self.directory, at_directory) else { return Ok(None) };
                let found = directory.lookup_of_issuer(&asked.issuer, subject).await;
                let found = found.map_err(|error| self.noted(error, &LookupKey::Subject(subject), None))?;
                Ok(found.map(|user| user.subject))
            }
            RevokedUser::Named(name) => match self.named_users(&asked.issuer, name).await? {
                NamedUsers::One(user) => Ok(Some(user.subject)),
                NamedUsers::None => Err(Denial::RefusedEvent(EventFlaw::UnknownUser).into()),
                NamedUsers::Several => Err(Denial::RefusedEvent(EventFlaw::SeveralUsers).into()),
            },
        }
    }

    /// Ends all sessions and tokens of a user at the request of another issuer. When this returns, the revocation is
    /// durable, even for a user the gate has never seen.
    ///
    /// # Errors
    /// A fault of the store, after which the ends apply only at this gate. [`Denial::RefusedEvent`] if the directory's
    /// name for the user is unknown.
    // Requirements S15, S31.
    pub async fn revoke_globally(&self, asked: AskedRevocation, own: Option<&str>) -> Result<NoticeResult, Error> {
        let of_issuer = match asked.user {
            RevokedUser::Subject { entry, is_seen, is_sure, .. } => {
                let ended = self.revoke(entry, RevokedBecause::GlobalRevocation).await;
                ended.map(|_| NoticeResult::ended(is_seen || own.is_some())).and_then(|ended| match is_sure {
                    true => Ok(ended),
                    false => Err(Denial::RefusedEvent(EventFlaw::UnknownUser).into()),
                })
            }
            RevokedUser::Named(_) => Ok(NoticeResult::Applied),
        };
        if let Some(own) = own {
            self.revoke_subject(own, RevokedBecause::GlobalRevocation).await?;
        }
        of_issuer
    }

    async fn named_users(&self, issuer: &str, name: &UserName) -> Result<NamedUsers, Error> {
        let Some(directory) = &self.directory else { return Ok(NamedUsers::None) };
        let found = directory.lookup_named(issuer, name).await;
        Ok(found.map_err(|error| self.noted(error, &LookupKey::Name(name.text()), None))?)
    }

    /// Ends sessions that another issuer has ended. When this returns, the revocation is durable.
    ///
    /// # Errors
    /// A fault of the store, after which the entry applies only at this gate.
    pub async fn end_elsewhere(
        &self,
        entry: Revocation,
        also: Option<Revocation>,
        told: Timestamp,
    ) -> Result<(), Error> {
        // Apply both entries at this gate first, in case the store fails.
        if let Some(also) = &also {
            self.refuse(also, RevokedBecause::Logout);
        }
        let ended = self.revoke(entry, RevokedBecause::Logout).await;
        if let Some(also) = also {
            self.keep(also, RevokedBecause::Logout).await?;
        }
        ended?;
        self.counts.notices.ages.add(self.clock.wall().since(told));
        Ok(())
    }

    /// Counts a notice, and logs it if it was refused.
    pub fn record_notice(
        &self,
        issuer: &str,
        protocol: &'static str,
        ended: Result<NoticeResult, &Error>,
        origin: &Origin,
    ) {
        let result = match ended {
            Ok(result) => result.word(),
            Err(Error::Denied(Denial::RefusedEvent(flaw))) => {
                audit::notice_refused(issuer, protocol, *flaw, origin);
                flaw.word()
            }
            Err(Error::Denied(Denial::RateLimited(..))) => "limited",
            Err(Error::Denied(_) | Error::Failed(_)) => "unavailable",
        };
        let mut results = self.counts.notices.results.lock();
        *results.entry((issuer.into(), protocol, result)).or_default() += 1;
    }

    /// Counts and logs the effect of a valid event. For `user`, see [`Ended::Tokens`].
    // Requirement S15.
    pub fn record_event(
        &self,
        (issuer, user): (&str, Option<&str>),
        (kind, effect, id): (EventKind, EventEffect, &str),
        result: NoticeResult,
        origin: &Origin,
    ) {
        // Only notices about a whole user are counted, because logouts from single sessions are common.
        if let Some(user) = user.filter(|_| matches!(result, NoticeResult::Applied | NoticeResult::Unseen))
            && self.counts.notices.are_many((issuer, user), self.clock.source().monotonic())
        {
            tracing::error!(
                issuer,
                "an issuer has revoked the tokens of 100 users within 10 minutes, or required the users to refresh. \
                 Ask the issuer whether it was attacked. If it does not respond, remove `backchannel_logout`, `events` \
                 and `global_revocation` from its entry"
            );
        }
        let effect = result.effect(effect);
        audit::issuer_event(issuer, kind.word(), effect, id, origin);
        let mut effects = self.counts.notices.effects.lock();
        *effects.entry((issuer.into(), kind.word(), effect)).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s15_many_users_of_one_issuer_are_told_once_in_a_period() {
        let counts = NoticeCounts::default();
        let at = Duration::from_secs(1000);
        let told = |issuer: &str, at: Duration, mut users: std::ops::Range<usize>| -> Option<usize> {
            let told = users.find(|n| counts.are_many((issuer, &format!("u-{n}")), at));
            assert!(!users.any(|n| counts.are_many((issuer, &format!("u-{n}")), at)), "told twice");
            told
        };
        assert_eq!((told("okta", at, 0..99), told("other", at, 0..99)), (None, None));
        assert_eq!(told("okta", at, 0..99), None, "the same users");
        assert_eq!(told("okta", at + MANY_WITHIN - Duration::from_secs(1), 99..300), Some(99));
        assert_eq!(told("other", at + MANY_WITHIN, 99..100), None, "another period");
        assert_eq!(told("okta", at + MANY_WITHIN, 0..200), Some(99));
        assert_eq!(counts.concerned.lock()["okta"].users.len(), MANY);
    }
}
