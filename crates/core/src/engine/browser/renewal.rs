//! When browser sessions are renewed, and loaded into the cache of verified tokens.

use std::sync::Arc;

use super::super::Engine;
use super::{PresentedDevice, RulesOf, SessionProvider};
use crate::denial::{Denial, Standing};
use crate::fault::Error;
use crate::session::Session;
use crate::verify_cache::{TokenChecker, Verified};

/// When a session is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewWhen {
    /// Never. The request does not count as activity.
    Never,
    /// The session is renewed if its access token has expired.
    Over,
    /// Like [`Over`](Self::Over), for a request with this device cookie. The session is not renewed if its device must
    /// first prove possession of its key.
    OverBy(PresentedDevice),
    /// The session is renewed after four fifths of the access token's lifetime.
    Due,
}

impl Engine {
    /// Returns the session for a cookie. The session comes from the cache if another request has loaded it in the
    /// meantime. Otherwise, the session is read, after a renewal if `when` requires one.
    ///
    /// The future must run to completion, so the caller must run it in its own task.
    ///
    /// # Errors
    /// The errors of [`browser_session`](Self::browser_session); or [`Denial::SessionNotRenewed`].
    // Requirement B9.
    pub async fn load_session(
        &self,
        checker: &TokenChecker,
        value: &Arc<str>,
        by: (RulesOf<'_>, Option<&dyn SessionProvider>),
        when: RenewWhen,
    ) -> Result<Arc<Verified>, Error> {
        let cookie = self.session_cookie(value).ok_or(Denial::UnknownSessionCookie)?;
        let turn = self.take_turn(cookie.session()).await;
        if let Some(known) = checker.cached_session(value, when == RenewWhen::Due)? {
            return Ok(known);
        }
        match self.browser_token(&turn, &cookie, by, when).await {
            Ok(token) => checker.keep_session(value, token),
            Err(Error::Denied(denial)) if denial.standing() == Standing::Dead => {
                // A session that has ended never becomes valid again.
                checker.remember_refused(value, denial);
                Err(denial.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Returns what [`load_session`](Self::load_session) would return, for an explanation. Does not renew the session
    /// or change the cache. Returns `None` if `load_session` would renew the session first.
    ///
    /// # Errors
    /// The errors of [`browser_session`](Self::browser_session).
    pub async fn foresee_session(
        &self,
        checker: &TokenChecker,
        value: &Arc<str>,
        by: (RulesOf<'_>, Option<&dyn SessionProvider>),
    ) -> Result<Option<Arc<Verified>>, Error> {
        let cookie = self.session_cookie(value).ok_or(Denial::UnknownSessionCookie)?;
        let turn = self.take_turn(cookie.session()).await;
        match self.browser_token(&turn, &cookie, by, RenewWhen::Never).await {
            Ok(token) => checker.session_of(value, token).map(Some),
            Err(Error::Denied(Denial::SessionNotRenewed)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Somebody who stole only the cookie must not keep the session alive, or use up the provider's refresh token.
    // Requirements B21 and B48.
    pub(super) fn renewal_of(&self, session: &Session, when: RenewWhen) -> (RenewWhen, Denial) {
        match when {
            RenewWhen::OverBy(device) if self.admits_device(session, device) => {
                (RenewWhen::Over, Denial::SessionNotRenewed)
            }
            RenewWhen::OverBy(_) => (RenewWhen::Never, Denial::DeviceProofMissing),
            RenewWhen::Never | RenewWhen::Over | RenewWhen::Due => (when, Denial::SessionNotRenewed),
        }
    }
}
