//! The provider where users of browsers log in, as a renewal asks it.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use zeroize::Zeroizing;

use super::super::{Engine, Event, GateEvent, Origin, audit};
use super::RenewWhen;
use crate::clock::Timestamp;
use crate::denial::{Denial, ProviderFlaw};
use crate::fault::Error;
use crate::session::{Session, SessionId, VouchedBy};
use crate::token::session_cookie::SessionCookie;

/// Of how many sessions with open streams a gate asks at once: a provider that hangs does not hold up the others for long.
const ASKED_AT_ONCE: usize = 64;

/// What requests need of the provider where the user of a session logged in.
pub struct ProviderTerms {
    /// Its access token, if it is kept. Does not print.
    pub access_token: Option<Arc<Zeroizing<String>>>,
    /// The end of that token.
    pub token_until: Timestamp,
    /// Whether the provider gave a refresh token.
    pub is_refreshable: bool,
    /// From this time on a request has the token refreshed.
    pub refresh_from: Timestamp,
    /// The session is good until this time without another look at the vault.
    pub good_until: Timestamp,
}

impl std::fmt::Debug for ProviderTerms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderTerms").field("token_until", &self.token_until).finish_non_exhaustive()
    }
}

/// The provider where users of browsers log in.
#[async_trait]
pub trait SessionProvider: Send + Sync {
    /// The terms of a live session that ends at `ends`, after a refresh of the provider's tokens if it is time for that.
    ///
    /// # Errors
    /// [`Denial::SessionOver`] if the provider does not continue it; a fault, after which nothing is known.
    async fn terms(
        &self,
        cookie: &SessionCookie,
        user: &VouchedBy,
        ends: Timestamp,
        when: RenewWhen,
    ) -> Result<ProviderTerms, Error>;
}

/// The user at the provider of a session whose user logged in there.
pub(super) fn user_at_provider(session: &Session) -> Option<&VouchedBy> {
    session.browser.as_deref().filter(|binding| binding.at_provider)?;
    session.vouched_by.as_deref()
}

/// What the provider of a session says; `None` for a session of an own login.
pub(super) async fn provider_terms(
    session: &Session,
    cookie: &SessionCookie,
    provider: Option<&dyn SessionProvider>,
    when: RenewWhen,
) -> Result<Option<ProviderTerms>, Error> {
    let Some(user) = user_at_provider(session) else { return Ok(None) };
    let provider = provider.ok_or(Denial::SessionOver("its provider is not that of the gate any more"))?;
    provider.terms(cookie, user, session.expires, when).await.map(Some)
}

impl Engine {
    /// Notes that a login at a provider was refused, after the browser proved that it began it.
    // Requirement B56.
    pub fn tell_provider_login_refused(&self, issuer: &str, client: &str, flaw: ProviderFlaw, origin: &Origin) {
        self.counts.add(Event::LoginRefused);
        audit::login_refused(None, None, None, client, origin);
        tracing::warn!(issuer, flaw = flaw.what(), "a login at this provider was refused");
        self.events.tell(|| GateEvent::LoginRefused { subject: None, client: client.into(), address: origin.address });
    }

    /// Asks directory, issuers and provider about the browser sessions of long connections, once for the life of an access
    /// token each, as a renewal would. It writes no record but an end, and is no activity. What the provider answers goes
    /// into the vault, because its last refresh token may be spent.
    // Requirement B14.
    pub async fn ask_about_browsers(&self, provider: Option<&dyn SessionProvider>) {
        let questions = self.live_sessions.unasked(self.clock.now()).into_iter();
        let questions = questions.map(async |(id, cookie)| {
            // After a fault nothing is known. The connections go on, and the next question comes in time.
            if let Err(error) = self.ask_about_browser(id, &cookie, provider).await {
                tracing::debug!(session.id = %id, ?error, "the question about the session of an open stream");
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
