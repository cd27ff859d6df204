//! The provider where users of browsers log in, and the requests to this provider before a renewal.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use zeroize::Zeroizing;

use super::super::events::Happening;
use super::super::{Engine, Event, Origin};
use super::{BrowserLogin, RenewWhen};
use crate::clock::Timestamp;
use crate::denial::{Denial, ProviderFlaw};
use crate::fault::Error;
use crate::session::{Session, SessionId, VouchedBy};
use crate::token::session_cookie::SessionCookie;

/// The approximate number of sessions with open streams that a gate checks concurrently, so that one hanging provider
/// does not delay the requests to other providers for long.
const ASKED_AT_ONCE: usize = 64;

/// The information from a session's provider that requests need.
pub struct ProviderTerms {
    /// The provider's access token, if it is kept. The `Debug` output does not contain it.
    pub access_token: Option<Arc<Zeroizing<String>>>,
    /// The expiry of that token.
    pub token_until: Timestamp,
    /// Whether the provider gave a refresh token.
    pub is_refreshable: bool,
    /// From this time on, a request causes a refresh of the token.
    pub refresh_from: Timestamp,
    /// Until this time the session is valid without another read of the vault.
    pub good_until: Timestamp,
}

crate::debug_with!(ProviderTerms { token_until });

/// The provider where users of browsers log in.
#[async_trait]
pub trait SessionProvider: Send + Sync {
    /// The terms of a live session that ends at `ends`. Refreshes the provider's tokens first if necessary.
    ///
    /// # Errors
    /// [`Denial::SessionOver`] if the provider does not continue the session; or a fault, if the provider's decision is
    /// unknown.
    async fn terms(
        &self,
        cookie: &SessionCookie,
        user: &VouchedBy,
        ends: Timestamp,
        when: RenewWhen,
    ) -> Result<ProviderTerms, Error>;
}

/// The user's identity at the provider, if the user logged in at a provider.
pub(super) fn user_at_provider(session: &Session) -> Option<&VouchedBy> {
    session.browser.as_deref().filter(|binding| binding.at_provider)?;
    session.vouched_by.as_deref()
}

/// The terms of the session's provider, or `None` if the user did not log in at a provider.
pub(super) async fn provider_terms(
    session: &Session,
    cookie: &SessionCookie,
    provider: Option<&dyn SessionProvider>,
    when: RenewWhen,
) -> Result<Option<ProviderTerms>, Error> {
    let Some(user) = user_at_provider(session) else { return Ok(None) };
    let provider = provider.ok_or(Denial::SessionOver("the gate no longer uses its provider"))?;
    provider.terms(cookie, user, session.expires, when).await.map(Some)
}

impl Engine {
    /// Called right after a session began. Ends the session if its user, its client or the login at the provider was
    /// revoked between the authentication at the provider and the start of the session. A later revocation ends the
    /// session without this function.
    ///
    /// # Errors
    /// [`Denial::ProviderLogin`]; the errors of [`revoke_session`](Self::revoke_session).
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

    /// Records that a login at a provider was refused. Called only after the browser has proved that it had started
    /// this login.
    // Requirement B56.
    pub fn tell_provider_login_refused(&self, issuer: &str, client: &str, flaw: ProviderFlaw, origin: &Origin) {
        self.counts.add(Event::LoginRefused);
        let (subject, name_hash, account) = (None, None, None);
        self.events.tell(&Happening::LoginRefused { subject, name_hash, account, client, origin });
        tracing::warn!(issuer, flaw = flaw.what(), "a login at this provider was refused");
    }

    /// Checks whether the browser sessions of long connections may continue. Like a renewal, this queries the
    /// directory, the issuers and the provider. Each session is checked once per lifetime of an access token. The check
    /// does not change the session's record unless it ends the session, and does not count as activity. The provider's
    /// response is stored in the vault, because the provider may have invalidated its previous refresh token.
    // Requirement B14.
    pub async fn ask_about_browsers(&self, provider: Option<&dyn SessionProvider>) {
        let questions = self.live_sessions.unasked(self.clock.now()).into_iter();
        let questions = questions.map(async |(id, cookie)| {
            // After a fault the session's state is unknown. The connections stay open, and the check is repeated later.
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
