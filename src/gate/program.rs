//! Operations of a gate that only the program needs.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};

use super::overloaded::overloaded;
use super::{Gate, Sessions, Verdict, Whose, relay};
use crate::dialect::Reply;
use crate::dialect::browser::reader::PageCause;
use rotogate_core::clock::Timestamp;
use rotogate_core::counters::{CountedCommits, CountedDurations};
use rotogate_core::directory::User;
use rotogate_core::engine::{Counts, Freshness, Unpaid};
use rotogate_core::fault::Error;
use rotogate_core::limit::LimitName;
use rotogate_core::overload::{Overload, Refusal};
use rotogate_core::reason::Reason;
use rotogate_core::revocation::Revocation;
use rotogate_core::session::{RevokedBecause, Status};
use rotogate_core::verify_cache::CheckResult;

#[cfg(feature = "grpc")]
pub use super::authorizer::grpc;
pub use super::endpoint::envelopes;
pub use super::maintain::SPACES;
pub use super::tunnel::{carry, protocol};

#[doc(hidden)]
impl Gate {
    /// The reply to a request that is rejected because of overload.
    pub fn overloaded<B>(&self, request: &Request<B>, refusal: Refusal) -> (Reply, Verdict) {
        let (dialect, route) = self.0.speaks(request);
        let reason = Reason::shed(refusal);
        reason.tell();
        let mut reply = overloaded(refusal, dialect, request.headers());
        if let Some(route) = route.as_ref().filter(|_| dialect.is_none()) {
            reply = self.0.for_person((request.method(), request.headers()), Some(&route.policy), None, reply);
        }
        (reply, Verdict { route, ..Verdict::new(reason) })
    }

    /// Returns the page that takes the place of the proxy's problem document, and sets its headers. `None` if no person
    /// reads it.
    pub fn page_of(&self, verdict: &Verdict, status: StatusCode, headers: &mut HeaderMap) -> Option<Bytes> {
        self.0.page(verdict.reader?, PageCause::Status, (status, headers))
    }

    /// Returns the number of token exchanges for upstreams, by provider and result.
    pub fn exchanges(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        self.0.running.exchanges.results.counted()
    }

    /// The pools that limit concurrency and buffers.
    pub fn overload(&self) -> &Overload {
        &self.0.running.overload
    }

    /// Refuses logins, refreshes and other grants with 503 while this flag is set, for a program that cannot write its
    /// audit log. Revocations and existing tokens still work. Only the first call of this method has an effect.
    pub fn suspend_grants_while(&self, suspended: Arc<AtomicBool>) {
        self.0.running.engine.suspend_grants_while(suspended);
    }

    /// Waits until no refresh token is being sent to a provider. Call this before the process stops. An exchange
    /// continues after its client disconnects, and must not be aborted.
    pub async fn relays_idle(&self) {
        for relay in &self.0.running.relays {
            relay.idle().await;
        }
    }

    /// Returns the revocations that the store has not acknowledged.
    pub fn unpaid(&self) -> Unpaid {
        self.0.engine.unpaid()
    }

    /// The counters of session events in this process.
    pub fn session_counts(&self) -> &Counts {
        self.0.engine.counts()
    }

    /// Returns the number of checked access tokens by result.
    pub fn verifications(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        CheckResult::ALL.map(CheckResult::name).into_iter().zip(self.0.checker.results())
    }

    /// Returns how long signature operations took, by algorithm.
    pub fn signature_times(&self) -> Vec<(&'static str, CountedDurations)> {
        self.0.checker.signature_times()
    }

    /// Returns the number of grants by type and result.
    pub fn grants(&self) -> Vec<(&'static str, &'static str, u64)> {
        self.0.running.grants.counts().collect()
    }

    /// The number of browser logins by result.
    pub fn browser_logins(&self) -> Vec<(&'static str, u64)> {
        self.0.running.browser_logins.counts().collect()
    }

    /// The number of device proofs by result.
    pub fn browser_devices(&self) -> Vec<(&'static str, u64)> {
        self.0.running.browser_devices.counts().collect()
    }

    /// Returns how many MCP calls were permitted and refused, by resource and rule pattern.
    pub fn mcp_calls(&self) -> Vec<(String, [u64; 2])> {
        self.0.call_counts().map(|(path, rule)| (format!("{path} {}", rule.calls), rule.counted())).collect()
    }

    /// Returns the key of each limit in `[limits]`, and how many attempts the limit refused.
    pub fn rate_limited(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        LimitName::ALL.map(LimitName::name).into_iter().zip(self.0.engine.limits().refused_attempts())
    }

    /// Returns how many requests each route limit refused, by name.
    pub fn refused_requests(&self) -> Vec<(&'static str, u64)> {
        self.0.limits.refused_requests()
    }

    /// Returns the counts of writes to a shared store, or `None` without one.
    pub fn shared_writes(&self) -> Option<CountedCommits> {
        self.0.engine.shared_writes()
    }

    /// Returns whether the last contact with the store is too old, so that tokens are refused.
    pub fn is_store_stale(&self) -> bool {
        self.0.engine.freshness() == Freshness::Stale
    }

    /// The engine's time minus the wall clock, in seconds.
    pub fn time_skew(&self) -> f64 {
        let clock = self.0.engine.clock();
        let (now, wall) = (clock.now(), clock.wall());
        now.since(wall).as_secs_f64() - wall.since(now).as_secs_f64()
    }

    /// The number of relayed refresh tokens by result.
    pub fn relay_exchanges(&self) -> Vec<(&'static str, u64)> {
        let mut sums = [0; relay::RESULTS.len()];
        for relay in &self.0.running.relays {
            sums.iter_mut().zip(relay.exchanges()).for_each(|(sum, count)| *sum += count);
        }
        relay::RESULTS.into_iter().zip(sums).collect()
    }

    /// The number of responses that relays keep until their tokens are used.
    pub fn relay_kept(&self) -> u64 {
        self.0.running.relays.iter().map(|relay| relay.kept().0 as u64).sum()
    }

    /// The number of responses that relays kept only for the grace period, because a limit was reached.
    pub fn relay_not_kept(&self) -> u64 {
        self.0.running.relays.iter().map(|relay| relay.kept().1).sum()
    }

    /// The paths of the relays that cannot keep any more responses.
    pub fn full_relays(&self) -> Vec<String> {
        let full = self.0.running.relays.iter().filter(|relay| relay.keeps_the_maximum());
        full.map(|relay| relay.path().to_owned()).collect()
    }

    /// The time since the last contact with a shared store, or `None` without one.
    pub fn store_staleness(&self) -> Option<Duration> {
        self.0.engine.unheard_for()
    }

    /// Returns the number of introspections, by issuer name and result.
    pub fn introspections(&self) -> Vec<(Arc<str>, &'static str, u64)> {
        self.0.checker.introspections()
    }

    /// Publishes a digest of this gate's users to the gates that share the store.
    pub fn say_users(&self, digest: &str) {
        self.0.running.row.change(|row| row.users = Some(digest.into()));
    }
}

/// The result of a revocation of many sessions.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// The number of sessions that match the selection.
    pub matched: u64,
    /// The number of matching sessions that were still live.
    pub ended: u64,
    /// Sessions that began at or before this time were revoked.
    pub not_before: Timestamp,
}

#[doc(hidden)]
impl Sessions {
    /// Returns the time to pass to [`Self::subject_before`] after a user was changed or removed. All gates that share
    /// the store get the same time. `after` is the changed user, or `None` if the user was removed.
    ///
    /// # Errors
    /// The errors of the store.
    pub async fn moment_of_change(&self, subject: &str, after: Option<&User>) -> Result<Timestamp, Error> {
        Ok(self.gate.0.engine.moment_of_change(subject, after).await?)
    }

    /// Returns revocations for sessions that began at this gate after `moment` with outdated user data. Returns `None`
    /// if the gate does not know these sessions.
    pub fn begun_otherwise(&self, subject: &str, after: Option<&User>, moment: Timestamp) -> Option<Vec<Revocation>> {
        self.gate.0.engine.begun_otherwise(subject, after, moment)
    }

    /// Refuses the target of a revocation until [`Self::let_go`] is called, or the process stops.
    pub fn refuse_for_now(&self, revocation: &Revocation) {
        self.gate.0.engine.refuse_for_now(revocation, RevokedBecause::Operator);
    }

    /// Ends the refusal that [`Self::refuse_for_now`] began. Call this method after a durable revocation has replaced
    /// the refusal.
    pub fn let_go(&self, revocation: &Revocation) {
        self.gate.0.engine.let_go(revocation);
    }

    /// Calls [`Self::revoke_all`], and then counts the selected sessions.
    ///
    /// # Errors
    /// See [`Self::revoke`].
    pub async fn revoke_counted(&self, whose: Whose<'_>) -> Result<Tally, Error> {
        let engine = &self.gate.0.engine;
        let (revocations, issuer) = (engine.revocations(), engine.issuer());
        let (subject, client) = match whose {
            Whose::Subject(subject) => (subject, None),
            Whose::Client(client) => ("", Some(client)),
            Whose::Everyone => ("", None),
        };
        let before = revocations.not_before(issuer, subject, client);
        self.revoke_all(whose).await?;
        let mut tally = Tally { not_before: revocations.not_before(issuer, subject, client), ..Tally::default() };
        let now = engine.clock().now();
        self.each(whose, |session| {
            if session.created() > tally.not_before {
                return true;
            }
            tally.matched += 1;
            // A revocation of the client may already have revoked some of the subject's sessions, and vice versa.
            let (subject, client) = match whose {
                Whose::Subject(_) => ("", Some(session.client.as_ref())),
                Whose::Client(_) => (session.subject.as_ref(), None),
                Whose::Everyone => (session.subject.as_ref(), Some(session.client.as_ref())),
            };
            let over = before.max(revocations.not_before_of_its_own(issuer, subject, client));
            if session.status == Status::Live && session.expires > now && session.created() > over {
                tally.ended += 1;
            }
            true
        })
        .await?;
        Ok(tally)
    }

    /// Counts the sessions that [`Self::revoke_counted`] would match and revoke now.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn count(&self, whose: Whose<'_>) -> Result<Tally, Error> {
        let mut tally = Tally::default();
        self.each(whose, |session| {
            tally.matched += 1;
            tally.ended += u64::from(session.status == Status::Live && self.is_over(session).is_none());
            true
        })
        .await?;
        Ok(tally)
    }
}
