//! How browser sessions end.

use std::time::Duration;

use super::super::exchange::ReadRecord;
use super::super::{Engine, Origin};
use crate::clock::Timestamp;
use crate::directory::User;
use crate::fault::Error;
use crate::session::profile::Profile;
use crate::session::rotation::{Decision, decide};
use crate::session::{RevokedBecause, Session};
use crate::store::Swap;
use crate::token::session_cookie::SessionCookie;

impl Engine {
    /// Ends a session that its provider has refused to continue.
    ///
    /// # Errors
    /// The errors of [`revoke_session`](Self::revoke_session).
    // Requirement B40.
    pub async fn end_refused_by_provider(&self, cookie: &SessionCookie) -> Result<(), Error> {
        const BECAUSE: RevokedBecause = RevokedBecause::ProviderRefused;
        match self.record_to_end(cookie.session(), Timestamp::ZERO, BECAUSE).await? {
            Some(session) if self.is_cookie_of(cookie, &session) => {
                self.revoke_session(&session, BECAUSE).await.map(drop)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Ends the session that a browser presented at a login. A session of the same user stays valid for `grace`, and
    /// the function returns `grace`.
    pub async fn end_presented(
        &self,
        presented: &SessionCookie,
        new: &Session,
        grace: Duration,
        origin: &Origin,
    ) -> Option<Duration> {
        if self.goes_on_for(presented, new, grace).await {
            return Some(grace);
        }
        // A failure must not end the new session.
        let _ = self.end_browser(presented, origin).await;
        None
    }

    /// Lets the session continue for `grace` if the new session belongs to the same user. When this returns, the
    /// delayed revocation is durable.
    pub(in crate::engine) async fn goes_on_for(
        &self,
        presented: &SessionCookie,
        new: &Session,
        grace: Duration,
    ) -> bool {
        let Ok(read) = self.read_browser(presented).await else { return false };
        let old = &read.session;
        let who = |session: &Session| session.vouched_by.as_ref().map(|by| by.issuer.clone());
        if grace.is_zero() || (&old.subject, &old.account) != (&new.subject, &new.account) || who(old) != who(new) {
            return false;
        }
        let expires = old.expires.min(self.clock.now().plus(grace));
        let record = Session { expires, revision: old.revision.saturating_add(1), ..old.clone() };
        let is_written = matches!(self.swap(old.revision, record.clone(), None).await, Ok(Swap::Swapped));
        if is_written {
            self.keep_written(&record);
        }
        is_written
    }

    /// Ends the session of a cookie. When this returns, the revocation is durable.
    ///
    /// # Errors
    /// A fault of the store, after which only this gate refuses the session. Keep the cookie in the browser, so that it
    /// can try again.
    pub async fn end_browser(&self, cookie: &SessionCookie, origin: &Origin) -> Result<(), Error> {
        let id = cookie.session();
        let record = self.record_to_end(id, Timestamp::ZERO, RevokedBecause::Logout).await?;
        match record.filter(|session| self.is_cookie_of(cookie, session)) {
            Some(session) => self.log_out(&session, &session.client, origin).await,
            None => Ok(()),
        }
    }

    /// Ends the session if its user or issuer no longer permits it. Returns whether the session has ended.
    pub(in crate::engine) async fn end_for_user(
        &self,
        read: &ReadRecord,
        user: Option<&Option<User>>,
    ) -> Result<bool, Error> {
        let facts = self.facts(&read.session, user, read.minimum_known);
        // The session's connections enforce the idle timeout.
        let profile = Profile { idle_ttl: Duration::MAX, session_ttl: Duration::MAX, ..Profile::default() };
        match decide(&read.session, read.session.current, facts, self.clock.now(), &profile) {
            Decision::Revoked(why) => self.end_revoked(&read.session, user, why).await.map(|_| true),
            _ => Ok(false),
        }
    }
}
