//! The provider where browsers' users log in.

use async_trait::async_trait;
use futures_util::StreamExt as _;

use super::super::events::Happening;
use super::super::{Engine, Event, Origin};
use super::{BrowserLogin, RenewWhen};
use crate::clock::Timestamp;
use crate::denial::{Denial, ProviderFlaw};
use crate::fault::Error;
use crate::session::{Session, SessionId, VouchedBy};
use crate::token::session_cookie::SessionCookie;
use crate::verify_cache::ProviderTerms;

/// The maximum number of sessions that are checked at once.
const ASKED_AT_ONCE: usize = 64;

/// The provider where browsers' users log in.
#[async_trait]
pub trait SessionProvider: Send + Sync {
    /// Returns the provider data for a live session that expires at `ends`. Refreshes the provider's tokens if
    /// necessary.
    ///
    /// # Errors
    /// [`Denial::SessionOver`] if the provider ended the session, or a fault if its decision is unknown.
    async fn terms(
        &self,
        cookie: &SessionCookie,
        user: &VouchedBy,
        ends: Timestamp,
        when: RenewWhen,
    ) -> Result<ProviderTerms, Error>;
}

/// Returns `None` if the user did not log in at a provider.
pub(super) fn user_at_provider(session: &Session) -> Option<&VouchedBy> {
    session.browser.as_deref().filter(|binding| binding.at_provider)?;
    session.vouched_by.as_deref()
}

/// Returns `None` if the user did not log in at a provider.
pub(super) async fn provider_terms(
    session: &Session,
    cookie: &SessionCookie,
    provider: Option<&dyn SessionProvider>,
    when: RenewWhen,
) -> Result<Option<ProviderTerms>, Error> {
    let Some(user) = user_at_provider(session) else { return Ok(None) };
    let provider = provider.ok_or(Denial::SessionOver("its login provider is no longer configured"))?;
    provider.terms(cookie, user, session.expires, when).await.map(Some)
}

impl Engine {
    /// Ends a new session if its user, client or provider login was revoked during the login.
    ///
    /// # Errors
    /// [`Denial::ProviderLogin`] or the errors of [`revoke_session`](Self::revoke_session).
    // Requirements B42 and S15.
    pub async fn end_if_over(&self, begun: &BrowserLogin, vouched_at: Timestamp, origin: &Origin) -> Result<(), Error> {
        let BrowserLogin { session, cookie, .. } = begun;
        let not_before = self.revocations.not_before(&self.issuer, &session.subject, Some(&session.client));
        let is_over_there = |by: &VouchedBy| self.revocations.ended_elsewhere(by, vouched_at);
        if vouched_at > not_before && !session.vouched_by.as_deref().is_some_and(is_over_there) {
            return Ok(());
        }
        self.end_browser(cookie, origin).await?;
        Err(Denial::ProviderLogin(ProviderFlaw::IdToken("the user was logged out after `iat`")).into())
    }

    /// Records that a login at a provider was refused. Call this only if the browser proved that it had started this
    /// login.
    // Requirement B56.
    pub fn tell_provider_login_refused(&self, issuer: &str, client: &str, flaw: ProviderFlaw, origin: &Origin) {
        self.counts.add(Event::LoginRefused);
        let (subject, name_hash, account) = (None, None, None);
        self.events.tell(&Happening::LoginRefused { subject, name_hash, account, client, origin });
        tracing::warn!(issuer, flaw = flaw.what(), "a login at this provider was refused");
    }

    /// Checks whether the browser sessions of long connections may continue. The check queries the directory, the
    /// issuers and the provider, once per lifetime of an access token. The check does not count as activity. The vault
    /// stores the provider's response, because the previous refresh token may now be invalid.
    // Requirement B14.
    pub async fn ask_about_browsers(&self, provider: Option<&dyn SessionProvider>) {
        let questions = self.live_sessions.unasked(self.clock.now()).into_iter();
        let questions = questions.map(async |(id, cookie)| {
            // If the check fails, the connections stay open until the next check.
            if let Err(error) = self.ask_about_browser(id, &cookie, provider).await {
                tracing::debug!(session.id = %id, ?error, "could not check the session of an open stream");
            }
        });
        futures_util::stream::iter(questions).buffer_unordered(ASKED_AT_ONCE).collect::<()>().await;
    }

    async fn ask_about_browser(
        &self,
        id: SessionId,
        cookie: &str,
        provider: Option<&dyn SessionProvider>,
    ) -> Result<(), Error> {
        let _turn = self.take_turn(id).await;
        let Some(read) = self.read_for_refresh(id).await? else { return Ok(()) };
        let user = self.user_of(&read.session).await?;
        if self.end_for_user(&read, user.as_ref()).await? {
            return Ok(());
        }
        let Some(cookie) = self.session_cookie(cookie) else { return Ok(()) };
        provider_terms(&read.session, &cookie, provider, RenewWhen::Due).await.map(drop)
    }
}
