//! Browser sessions, whose only credential is a cookie. A browser has no refresh token, because the gate renews the
//! session itself. The cookie never changes within a session, so losing a renewal's response is harmless. Reuse
//! detection does not apply, because a renewal always rotates the current generation.

mod device;
mod ending;
mod provider;
mod renewal;

use std::sync::Arc;
use std::time::Duration;

use super::exchange::{ReadRecord, bounded, claims_now, successor_token};
use super::grant::{access_expiry, still_granted};
use super::turn::Turn;
use super::{APPLICATION, ApplicationLogin, Engine, Event, IssueKind, IssuedTokens, Login, MAX_TRIES, Origin, audit};
use crate::client::Client;
use crate::clock::Timestamp;
use crate::denial::{Denial, ProviderFlaw};
use crate::directory::User;
use crate::fault::{Error, Fault};
use crate::revocation::raised_minimum;
use crate::session::profile::Profile;
use crate::session::rotation::{self, Decision, Lifetime, REVOKED, RecordChange, SessionEnd, decide};
use crate::session::{BrowserBinding, DeviceBinding, LastPair, Session, SessionId, VouchedBy};
use crate::store::Swap;
use crate::token::keyring::Keyring;
use crate::token::session_cookie::SessionCookie;
use crate::verify_cache::{BrowserToken, ProviderTerms, SessionTerms};
pub(super) use device::DeviceProofs;
pub use device::{DeviceAnswer, PresentedDevice};
pub use provider::SessionProvider;
use provider::{provider_terms, user_at_provider};
pub use renewal::RenewWhen;

/// If the provider's response takes at least this long, the gate checks the session again.
const LONG_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeldBy {
    Client,
    Browser,
    /// The user logged in at a provider through this dialect.
    BrowserAtProvider(&'static str),
}

pub(super) struct BegunSession {
    pub(super) session: Session,
    pub(super) issued: IssuedTokens,
    pub(super) cookie: Option<SessionCookie>,
}

impl HeldBy {
    pub(super) const fn dialect(self) -> &'static str {
        match self {
            Self::BrowserAtProvider(dialect) => dialect,
            Self::Client | Self::Browser => APPLICATION,
        }
    }

    /// Returns the cookie, and the binding for the session's record.
    pub(super) fn cookie(
        self,
        keyring: &Keyring,
        id: SessionId,
    ) -> Result<Option<(SessionCookie, Box<BrowserBinding>)>, Fault> {
        if self == Self::Client {
            return Ok(None);
        }
        let keys = keyring.refresh_keys();
        let cookie = SessionCookie::new(keys, id)?;
        let bound = cookie.and_then(|cookie| cookie.binding(keys).map(|binding| (cookie, binding)));
        let (cookie, binding) = bound.ok_or(Fault::Signing("the current refresh key is missing"))?;
        Ok(Some((cookie, Box::new(BrowserBinding { at_provider: self != Self::Browser, ..binding }))))
    }
}

/// The rules of a browser session.
#[derive(Clone, Debug)]
pub struct BrowserRules {
    /// The session's client in the current configuration.
    pub client: Arc<Client>,
    /// The profile of the endpoint for this client.
    pub profile: Profile,
}

/// Finds the rules of a session. Returns a denial if none of the gate's endpoints serves the session.
pub type RulesOf<'a> = &'a (dyn Fn(&Session) -> Result<BrowserRules, Denial> + Send + Sync);

/// A browser that has logged in.
#[derive(Debug)]
pub struct BrowserLogin {
    /// The cookie to set.
    pub cookie: SessionCookie,
    /// The record of the session.
    pub session: Session,
    /// The user, if a directory authenticated the user.
    pub user: Option<User>,
    /// How long parallel requests can still use the user's previous session. The caller ends that session afterwards.
    pub presented_ends_in: Option<Duration>,
}

/// A live session.
#[derive(Debug)]
pub struct BrowserSession {
    /// The record of the session.
    pub session: Session,
    /// The absolute expiry of the session.
    pub expires: Timestamp,
    /// The expiry if no further request arrives.
    pub idle_expires: Timestamp,
}

impl Engine {
    /// Logs a user in, and begins a browser session. The session of the `presented` cookie ends. If both sessions
    /// belong to the same user, the old session ends after `grace`, so that parallel requests pass. The login must not
    /// contain a proof or a certificate.
    ///
    /// # Errors
    /// The errors of [`login`](Self::login).
    // Requirement B8.
    pub async fn begin_browser(
        &self,
        login: Login<'_>,
        presented: Option<&SessionCookie>,
    ) -> Result<BrowserLogin, Error> {
        let (origin, grace) = (login.origin, login.profile.grace);
        let (begun, user) = self.log_in(login, HeldBy::Browser).await?;
        self.browser_begun(begun, Some(user), (presented, grace), origin).await
    }

    /// Begins a browser session for a user whom the application has authenticated.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start).
    pub async fn start_browser(
        &self,
        start: ApplicationLogin<'_>,
        presented: Option<&SessionCookie>,
    ) -> Result<BrowserLogin, Error> {
        let (origin, grace) = (start.origin, start.profile.grace);
        let begun = self.start_for(start, HeldBy::Browser).await?;
        self.browser_begun(begun, None, (presented, grace), origin).await
    }

    /// Begins a browser session after a login at a provider. The caller must then write the vault, which contains the
    /// provider's tokens. The caller must also end the session that the browser presented.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start).
    pub async fn start_at_provider(
        &self,
        start: ApplicationLogin<'_>,
        dialect: &'static str,
    ) -> Result<BrowserLogin, Error> {
        let origin = start.origin;
        let is_its = |by: &VouchedBy| self.is_of_issuer(start.subject, &by.issuer);
        if !start.vouched_by.as_ref().is_some_and(is_its) {
            return Err(Denial::ProviderLogin(ProviderFlaw::IdToken(
                "its subject does not begin with the prefix of its issuer",
            ))
            .into());
        }
        let begun = self.start_for(start, HeldBy::BrowserAtProvider(dialect)).await?;
        self.browser_begun(begun, None, (None, Duration::ZERO), origin).await
    }

    async fn browser_begun(
        &self,
        begun: BegunSession,
        user: Option<User>,
        (presented, grace): (Option<&SessionCookie>, Duration),
        origin: &Origin,
    ) -> Result<BrowserLogin, Error> {
        let BegunSession { session, cookie, .. } = begun;
        let cookie = cookie.ok_or(Fault::Signing("the current refresh key is missing"))?;
        let presented_ends_in = match presented {
            Some(presented) => self.end_presented(presented, &session, grace, origin).await,
            None => None,
        };
        Ok(BrowserLogin { cookie, session, user, presented_ends_in })
    }

    /// Authenticates a session cookie without reading the store. Returns `None` if the cookie was not made with a key
    /// of this gate.
    pub fn session_cookie(&self, value: &str) -> Option<SessionCookie> {
        SessionCookie::authenticate(self.keyring().refresh_keys(), value)
    }

    /// The live session for a cookie. The lookup does not count as activity.
    ///
    /// # Errors
    /// [`Denial::SessionOver`], [`Denial::UnknownSessionCookie`] or a fault.
    pub async fn browser_session(
        &self,
        cookie: &SessionCookie,
        rules_of: RulesOf<'_>,
    ) -> Result<BrowserSession, Error> {
        let read = self.read_browser(cookie).await?;
        let rules = rules_of(&read.session)?;
        let profile = bounded(&read.session, &rules.profile);
        let now = self.clock.now();
        if !self.revocations.is_usable(now) {
            return Err(Fault::Stale.into());
        }
        self.judge_browser(&read, None, &profile, now).await?;
        let terms = SessionTerms::new(&read.session, &profile);
        Ok(BrowserSession { expires: terms.ends, idle_expires: terms.idle_expires(), session: read.session })
    }

    pub(crate) async fn take_turn(&self, session: SessionId) -> Turn<'_> {
        self.turns.take(session).await
    }

    /// Returns the current access token of a session, and renews it first if necessary. The caller must hold the
    /// session's `Turn`, so that only one request at this gate renews the session. If several gates renew at once, one
    /// of them writes, and the others read its record. If the directory or the provider does not permit the renewal,
    /// the request does not count as activity. The future must run to completion.
    ///
    /// # Errors
    /// [`Denial::SessionOver`] or [`Denial::UnknownSessionCookie`], after which the user must log in again.
    /// [`Denial::SessionNotRenewed`], [`Denial::DeviceProofMissing`] or a fault.
    // Requirements B9, B10.
    pub(crate) async fn browser_token(
        &self,
        _: &Turn<'_>,
        cookie: &SessionCookie,
        by: (RulesOf<'_>, Option<&dyn SessionProvider>),
        when: RenewWhen,
    ) -> Result<BrowserToken, Error> {
        let mut renews = false;
        let token = self.token_after_renewal(cookie, by, when, (None, &mut renews)).await;
        if renews {
            self.counts.renewed(token.as_ref().err());
        }
        token
    }

    /// Sets `renews` if the session must be renewed. If `binds` is set, also binds an unbound session to the device.
    async fn token_after_renewal(
        &self,
        cookie: &SessionCookie,
        (rules_of, provider): (RulesOf<'_>, Option<&dyn SessionProvider>),
        when: RenewWhen,
        (binds, renews): (Option<(&DeviceBinding, &Origin)>, &mut bool),
    ) -> Result<BrowserToken, Error> {
        let (mut known, mut user, mut terms, mut is_asked) = (None, None, None, false);
        for _ in 0..MAX_TRIES {
            let read = match known.take() {
                Some(read) => self.presented(read, cookie)?,
                None => self.read_browser(cookie).await?,
            };
            let rules = rules_of(&read.session)?;
            let profile = bounded(&read.session, &rules.profile);
            let keyring = self.keyring();
            let now = self.clock.now();
            let decision = self.judge_browser(&read, None, &profile, now).await?;
            let (when, refusal) = self.renewal_of(&read.session, when);
            let is_to_be_bound = binds.map(|(device, _)| device::is_to_be_bound(&read.session, device)).transpose()?;
            let is_due = decision != Decision::Rotate
                || is_to_be_bound.unwrap_or_else(|| self.is_due(&read.session, &profile, &keyring, when));
            if is_due {
                if when == RenewWhen::Never {
                    return Err(refusal.into());
                }
                *renews = true;
                self.may_mint()?;
                if !is_asked {
                    user = self.user_of(&read.session).await?;
                    is_asked = true;
                }
                self.judge_browser(&read, user.as_ref(), &profile, now).await?;
            }
            if terms.is_none() {
                let asked = provider_terms(&read.session, cookie, provider, when).await;
                terms = asked.map_err(|error| match error {
                    Error::Denied(Denial::SessionNotRenewed) => refusal.into(),
                    error => error,
                })?;
                // Check the session again, because a token may have expired during the wait.
                if self.clock.now().since(now) >= LONG_WAIT {
                    continue;
                }
            }
            if !is_due {
                return self.token_of((&keyring, &read.session), &profile, terms, now);
            }
            let mut change = self.renewal(&read, decision, user.as_ref(), (&rules, &keyring), now)?;
            let binds = binds.filter(|_| is_to_be_bound == Some(true));
            if let Some((device, _)) = binds {
                device::bind(&mut change, device, now);
            }
            match self.write_renewal(&read, change, &keyring, decision).await? {
                Renewed::Done(record) => {
                    binds.inspect(|(device, origin)| audit::bound(&record, &device.thumbprint, origin));
                    return self.token_of((&keyring, &record), &profile, terms, now);
                }
                Renewed::Changed(read) => known = read.map(|read| *read),
            }
        }
        Err(Fault::Contention.into())
    }

    async fn read_browser(&self, cookie: &SessionCookie) -> Result<ReadRecord, Error> {
        let id = cookie.session();
        // If this gate knows that the session has ended, do not ask the store.
        if self.revocations.minimum(id) == REVOKED {
            return Err(over(SessionEnd::List).into());
        }
        let Some(read) = self.read_for_refresh(id).await? else {
            // If the store has lost the record, another gate may restore it.
            self.may_mint()?;
            // A missing record means that the session ended.
            return Err(Denial::SessionOver("its record no longer exists").into());
        };
        self.presented(read, cookie).map_err(Error::from)
    }

    fn presented(&self, read: ReadRecord, cookie: &SessionCookie) -> Result<ReadRecord, Denial> {
        if self.is_cookie_of(cookie, &read.session) { Ok(read) } else { Err(Denial::UnknownSessionCookie) }
    }

    fn is_cookie_of(&self, cookie: &SessionCookie, session: &Session) -> bool {
        let keyring = self.keyring();
        session.browser.as_deref().is_some_and(|binding| cookie.proves(keyring.refresh_keys(), binding))
    }

    async fn judge_browser(
        &self,
        read: &ReadRecord,
        user: Option<&Option<User>>,
        profile: &Profile,
        now: Timestamp,
    ) -> Result<Decision, Error> {
        let session = &read.session;
        let facts = self.facts(session, user, read.minimum_known);
        match decide(session, session.current, facts, now, profile) {
            Decision::Revoked(why) => Err(over(self.end_revoked(session, user, why).await?).into()),
            Decision::Expired(Lifetime::Session) => {
                Err(Denial::SessionOver("it lasted longer than `session_ttl`").into())
            }
            Decision::Expired(Lifetime::Idle) => {
                Err(Denial::SessionOver("it was idle for longer than `idle_ttl`").into())
            }
            // The store lost renewals. Continue from the latest generation in the store, because the cookie is valid
            // for all generations.
            Decision::Ahead { .. } if self.may_continue(session).await? => Ok(Decision::Ahead { fast_forward: true }),
            Decision::Ahead { .. } => Err(Denial::SessionOver("the store lost changes to the session's record").into()),
            Decision::Rotate | Decision::Replay | Decision::Reissue | Decision::Reuse(_) => Ok(Decision::Rotate),
        }
    }

    fn is_due(&self, session: &Session, profile: &Profile, keyring: &Keyring, when: RenewWhen) -> bool {
        let last = &session.last;
        let is_over = self.clock.latest() >= last.access_expires
            || keyring.signing_key(&last.kid).is_none()
            || !keyring.refresh_keys().contains(last.refresh_key);
        let by = session.vouched_by.as_deref();
        let is_asked_for = self.revocations.asks_for_another((&self.issuer, &session.subject), by, session.issued_at);
        let is_ahead = when == RenewWhen::Due && self.clock.now() >= SessionTerms::new(session, profile).renew_from;
        is_over || is_asked_for || is_ahead
    }

    fn token_of(
        &self,
        (keyring, session): (&Keyring, &Session),
        profile: &Profile,
        provider: Option<ProviderTerms>,
        now: Timestamp,
    ) -> Result<BrowserToken, Error> {
        let issued = self.pair(keyring, session, now, IssueKind::Replayed)?;
        let device = session.browser.as_deref().and_then(BrowserBinding::bound_device);
        let (access_token, terms) = (issued.access_token, SessionTerms::new(session, profile));
        let at_provider = user_at_provider(session).map(|user| Box::new(user.clone()));
        Ok(BrowserToken { access_token, terms, at_provider, device, provider })
    }

    fn renewal(
        &self,
        read: &ReadRecord,
        decision: Decision,
        user: Option<&Option<User>>,
        (rules, keyring): (&BrowserRules, &Keyring),
        now: Timestamp,
    ) -> Result<RecordChange, Error> {
        let session = &read.session;
        let pair = LastPair {
            scope: still_granted(&session.scope, &rules.client, user.and_then(Option::as_ref)),
            access_expires: access_expiry(now, session.expires, None, &rules.profile),
            kid: keyring.signer().kid().into(),
            refresh_key: keyring.refresh_keys().current(),
        };
        let latest = session.current.max(read.minimum_known);
        let change = rotation::apply_decision(session, decision, latest, pair, now, &rules.profile);
        let mut change = change.ok_or(Fault::Contention)?;
        change.record.claims = claims_now(session, user);
        Ok(change)
    }

    async fn write_renewal(
        &self,
        read: &ReadRecord,
        change: RecordChange,
        keyring: &Keyring,
        decision: Decision,
    ) -> Result<Renewed, Error> {
        let RecordChange { record, raised } = change;
        let (id, before) = (record.id, read.session.current);
        let raised = raised.map(|raised| raised_minimum(id, raised, self.leeway));
        // Read the minimum before the swap, because the swap may return a record that another request changed.
        let minimum_known = self.revocations.minimum(id);
        match self.swap(read.session.revision, record.clone(), raised.clone()).await? {
            Swap::Swapped => {
                self.keep_written(&record);
                if let Some(successor) = successor_token(keyring, &record) {
                    self.live_sessions.advance(id, before, successor);
                }
                if let Some(raised) = &raised {
                    self.revocations.apply(raised);
                }
                self.counts.add(Event::Rotated);
                let how = if decision == Decision::Rotate { IssueKind::Rotated } else { IssueKind::FastForwarded };
                audit::refreshed(&record, how, &Origin::default());
                Ok(Renewed::Done(Box::new(record)))
            }
            Swap::Changed(now) => {
                let read = now.map(|session| ReadRecord { session: *session, minimum_known, is_recalled: false });
                Ok(Renewed::Changed(read.map(Box::new)))
            }
            Swap::NoLongerValid => Ok(Renewed::Changed(None)),
        }
    }
}

enum Renewed {
    Done(Box<Session>),
    Changed(Option<Box<ReadRecord>>),
}

const fn over(why: SessionEnd) -> Denial {
    Denial::SessionOver(match why {
        SessionEnd::Record | SessionEnd::List => "it was ended",
        SessionEnd::UserInactive => "its user was deleted, is inactive, or is in another account",
        SessionEnd::BeforeValidFrom => "it began before the user's `sessions_valid_from`",
        SessionEnd::NotBefore => "all sessions of the user, of the client or of the gate were ended",
        SessionEnd::Elsewhere => "the issuer that confirmed the login has ended the session",
    })
}
