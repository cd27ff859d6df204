//! Sessions that the application starts, refreshes, lists and revokes.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::Gate;
use super::to_its_end::to_its_end;
use rotogate_core::client::Grant;
use rotogate_core::clock::Timestamp;
use rotogate_core::context::{Actor, Context};
use rotogate_core::denial::Denial;
use rotogate_core::engine::{
    APPLICATION, AccountRule, ApplicationLogin, Exchange, HeldUp, IssuedTokens, Origin, Refresh,
};
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::{RevokedBecause, Session, SessionId, Status};
use rotogate_core::store::{Cursor, Filter, Page};

mod new_session;

pub use new_session::NewSession;

/// Starts, refreshes, lists and revokes sessions. See [`Gate::sessions`].
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let sessions = gate.sessions();
/// let tokens = sessions.start(NewSession::new("ada", "web")).await?;
/// let id = tokens.session.ok_or("a login has a session")?;
/// assert!(sessions.revoke(id).await?, "its tokens are refused from now on");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Sessions {
    pub(super) gate: Gate,
    actor: Option<Actor>,
}

/// Selects the sessions to end.
///
/// ```
/// use rotogate::gate::Whose;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// gate.sessions().start(NewSession::new("ada", "web")).await?;
/// gate.sessions().revoke_all(Whose::Client("web")).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Whose<'a> {
    /// The sessions of this gate's own issuer whose tokens have this `sub`.
    Subject(&'a str),
    /// The sessions of a client.
    Client(&'a str),
    /// All sessions.
    Everyone,
}

impl Sessions {
    pub(super) const fn new(gate: Gate) -> Self {
        Self { gate, actor: None }
    }

    /// Returns a handle that records an actor, such as a support agent, for the sessions that it ends. The actor is
    /// `by` in [`GateEvent::Ended`](super::GateEvent::Ended), and `rotogate.actor` in the audit log. The name is cut
    /// after 256 characters, and control characters are escaped.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use rotogate::{Gate, client::Client, gate::{GateEvent, NewSession, Whose}, token::Keyring};
    /// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let gate = gate.client(Client::public("web")).build().await?;
    /// let mut events = gate.events();
    /// gate.sessions().acting_as("support:ivan").revoke_all(Whose::Subject("ada")).await?;
    /// let event = events.next().await;
    /// assert!(matches!(event, Some(GateEvent::Ended { by, .. }) if by.as_deref() == Some("support:ivan")));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn acting_as(&self, name: &str) -> Self {
        Self { gate: self.gate.clone(), actor: Some(Actor::named_by_application(name)) }
    }

    async fn acting<T>(&self, work: impl Future<Output = T>) -> T {
        match self.context() {
            Some(context) => context.scope(work).await,
            None => work.await,
        }
    }

    fn context(&self) -> Option<Context> {
        let actor = self.actor.clone()?;
        Some(Context::current().unwrap_or_else(Context::without_request).acted_by(actor))
    }

    /// Starts a session for a user whom the application has logged in itself. The gate does not look up the user in a
    /// directory, so the session lasts until it is revoked or expires. Endpoints with `accepts("application")` refresh
    /// the tokens.
    ///
    /// The profile decides what happens if the user already has the maximum number of sessions: the oldest session
    /// ends, or the new one is refused.
    ///
    /// # Errors
    /// [`Denial::InvalidClient`] if the client is not registered ([`GateBuilder::client`](super::GateBuilder::client)).
    /// A denial if a token cannot have this subject, or if the user has too many sessions. A fault of the store or the
    /// clock.
    pub async fn start(&self, new: NewSession) -> Result<IssuedTokens, Error> {
        let gate = &self.gate.0;
        if gate.clients.get(&new.client).is_none() {
            tracing::warn!(
                client = new.client,
                "session not started, because its client is not registered: register the client with \
                 `GateBuilder::client`"
            );
            return Err(Denial::InvalidClient.into());
        }
        let start = ApplicationLogin {
            subject: &new.subject,
            account: new.account.as_deref(),
            client: &new.client,
            scope: new.scope,
            claims: new.claims,
            vouched_by: new.vouched_by,
            profile: new.profile.as_ref().unwrap_or(&gate.profile),
            origin: &new.origin,
        };
        gate.engine.start(start).await
    }

    /// Exchanges a refresh token for new tokens, for a session that [`Self::start`] began. Rotation, replay within the
    /// grace period and reuse detection work as at an endpoint. If the tokens are in cookies, see [`Gate::cookies`].
    ///
    /// The refresh runs to completion even if the future is dropped.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
    /// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let gate = gate.client(Client::public("web")).build().await?;
    /// let first = gate.sessions().start(NewSession::new("ada", "web")).await?;
    /// let refresh_token = first.refresh_token.expect("a session has one");
    /// let second = gate.sessions().refresh(refresh_token.expose()).await?;
    /// assert_eq!(&*second.subject, "ada");
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// [`Denial::UnknownRefreshToken`], [`Denial::Reuse`] and the other refusals of a refresh. [`Denial::OtherDialect`]
    /// if the session began at an endpoint. [`Denial::RateLimited`]. After a fault, the same token can still be
    /// refreshed.
    pub async fn refresh(&self, token: &str) -> Result<IssuedTokens, Error> {
        self.refresh_at(SecretString::from(token), None).await
    }

    /// Like [`Self::refresh`], but also counts the refresh for the rate limit of the client's address.
    ///
    /// # Errors
    /// See [`Self::refresh`].
    pub async fn refresh_from(&self, token: &str, address: IpAddr) -> Result<IssuedTokens, Error> {
        self.refresh_at(SecretString::from(token), Some(address)).await
    }

    pub(super) async fn refresh_at(&self, token: SecretString, address: Option<IpAddr>) -> Result<IssuedTokens, Error> {
        let gate = Arc::clone(&self.gate.0);
        let (origin, arrived) = (Origin { address, ..Origin::default() }, gate.engine.arrival());
        to_its_end(async move {
            gate.engine.limits().refresh(address).inspect_err(|denial| {
                gate.engine.tell_held_up(&(*denial).into(), &origin, HeldUp::default);
            })?;
            let begun = gate.engine.begin_refresh(&token).await?.ok_or(Denial::UnknownRefreshToken)?;
            let client = gate.clients.get(begun.client()).ok_or(Denial::InvalidClient)?;
            if !client.may(Grant::RefreshToken) {
                return Err(Denial::UnauthorizedClient.into());
            }
            let refresh = Refresh {
                credential: Exchange::Refresh(&token),
                client: &client,
                account: AccountRule::Any,
                scope: None,
                access_ttl: None,
                resource: None,
                profile: &client.profile.over(&gate.profile),
                accepts: &[APPLICATION.into()],
                proof: None,
                certificate: None,
                by_access: &[],
                arrived,
                origin: &origin,
            };
            gate.engine.refresh_from(refresh, Some(begun)).await
        })
        .await
        .inspect_err(|error| Reason::from(error).tell())
    }

    /// An unknown token is not an error.
    pub(super) async fn log_out(&self, token: SecretString, address: Option<IpAddr>) -> Result<(), Error> {
        let gate = Arc::clone(&self.gate.0);
        let origin = Origin { address, ..Origin::default() };
        to_its_end(async move { gate.engine.log_out_by(token.expose_secret(), &origin).await.map(drop) }).await
    }

    /// Returns the record of one session.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn get(&self, id: SessionId) -> Result<Option<Session>, Error> {
        Ok(self.gate.0.engine.store().load(id).await?)
    }

    /// Returns a page of sessions, oldest first.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, Error> {
        Ok(self.gate.0.engine.store().list(filter, after, limit).await?)
    }

    /// Returns the live sessions of a subject, newest first, at most 1000.
    ///
    /// ```
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
    /// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let gate = gate.client(Client::public("web")).build().await?;
    /// gate.sessions().start(NewSession::new("ada", "web")).await?;
    /// for session in gate.sessions().live_of("ada").await? {
    ///     println!("{} since {}, {:?}", session.client, session.created().rfc3339(), session.user_agent);
    ///     gate.sessions().revoke(session.id).await?;
    /// }
    /// assert!(gate.sessions().live_of("ada").await?.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn live_of(&self, subject: &str) -> Result<Vec<Session>, Error> {
        self.gate.0.engine.live_of(subject).await
    }

    /// Returns why a session has ended although its record is still live. The reason is `expired`, `not-before`, or the
    /// reason of a revocation that is not in the store yet.
    pub fn is_over(&self, session: &Session) -> Option<&'static str> {
        self.gate.0.engine.is_over(session)
    }

    /// Returns the time for [`Self::subject_before`] that covers all sessions so far.
    pub fn now(&self) -> Timestamp {
        self.gate.0.engine.clock().stamp_not_before()
    }

    /// Returns whether other gates also write to the store.
    pub fn are_shared(&self) -> bool {
        self.gate.0.engine.store().shared().is_some()
    }

    /// Returns a revocation of a subject's sessions that began at or before `moment`. Apply it with [`Self::refuse`],
    /// and store it with [`Self::write`].
    pub fn subject_before(&self, subject: &str, moment: Timestamp) -> Revocation {
        self.gate.0.engine.subject_before(subject, moment)
    }

    /// Refuses a revocation's target at this gate, without storing the revocation.
    pub fn refuse(&self, revocation: &Revocation) {
        let refuse = || self.gate.0.engine.refuse(revocation, RevokedBecause::Operator);
        match self.context() {
            Some(context) => context.enter(refuse),
            None => refuse(),
        };
    }

    /// Stores a revocation durably and refuses its target.
    ///
    /// # Errors
    /// A fault of the store. Call again until it succeeds.
    pub async fn write(&self, revocation: Revocation) -> Result<(), Error> {
        self.acting(self.gate.0.engine.keep(revocation, RevokedBecause::Operator)).await
    }

    /// Ends a session. Its tokens are refused from the next request on. Returns `false` if no session has this id. In a
    /// shared store, an unknown id is also revoked, because the store may have lost the session.
    ///
    /// # Errors
    /// A fault of the store. This gate already refuses the session, but call again until the call succeeds.
    pub async fn revoke(&self, id: SessionId) -> Result<bool, Error> {
        self.acting(self.end(id)).await
    }

    async fn end(&self, id: SessionId) -> Result<bool, Error> {
        let engine = &self.gate.0.engine;
        let session = match engine.store().load(id).await {
            Ok(Some(session)) => session,
            // Requirement R32.
            Ok(None) if self.are_shared() => {
                let entry = engine.end_of(id, Timestamp::ZERO);
                return engine.revoke(entry, RevokedBecause::Operator).await.map(|_| false);
            }
            Ok(None) => return Ok(false),
            Err(error) => {
                engine.end_unread(id, Timestamp::ZERO, RevokedBecause::Operator, error).await?;
                return Ok(true);
            }
        };
        // An expired session does not have to be revoked. Other sessions are revoked again, because earlier revocations
        // may not be durable yet.
        if session.status == Status::Live && session.expires <= engine.clock().now() {
            return Ok(true);
        }
        engine.revoke_session(&session, RevokedBecause::Operator).await.map(|_| true)
    }

    /// Ends the selected sessions that exist now.
    ///
    /// # Errors
    /// See [`Self::revoke`].
    pub async fn revoke_all(&self, whose: Whose<'_>) -> Result<(), Error> {
        let (engine, because) = (&self.gate.0.engine, RevokedBecause::Operator);
        let ended = async {
            match whose {
                Whose::Subject(subject) => engine.revoke_subject(subject, because).await,
                Whose::Client(client) => engine.revoke_client(client, because).await,
                Whose::Everyone => engine.revoke_all(because).await,
            }
        };
        self.acting(ended).await.map(drop)
    }

    /// Returns the revocations that can still match a token.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn revocations(&self) -> Result<Vec<Revocation>, Error> {
        let (entries, _) = self.gate.0.engine.store().revocations_since(Cursor::default()).await?;
        Ok(entries)
    }

    /// Returns whether the store has any of the selected sessions.
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn has_any(&self, whose: Whose<'_>) -> Result<bool, Error> {
        let mut found = false;
        self.each(whose, |_| {
            found = true;
            false
        })
        .await?;
        Ok(found)
    }

    /// Calls `look` for each session until `look` returns `false`.
    pub(super) async fn each(&self, whose: Whose<'_>, mut look: impl FnMut(&Session) -> bool) -> Result<(), Error> {
        let filter = || match whose {
            Whose::Subject(subject) => Filter::Subject(subject.into()),
            Whose::Client(_) | Whose::Everyone => Filter::All,
        };
        let is_one = |session: &Session| match whose {
            Whose::Subject(_) | Whose::Everyone => true,
            Whose::Client(client) => session.client.as_ref() == client,
        };
        let mut after = None;
        loop {
            let page = self.list(filter(), after, 1000).await?;
            if !page.sessions.iter().filter(|session| is_one(session)).all(&mut look) {
                return Ok(());
            }
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    /// Refuses one token that does not belong to a session: a token of another issuer, or a client's own token. The
    /// entry is kept until `expires`, the token's `exp`.
    ///
    /// # Errors
    /// See [`Self::revoke`].
    pub async fn revoke_token(&self, issuer: &str, jti: &str, expires: Timestamp) -> Result<(), Error> {
        let gate = &self.gate.0;
        let entry = Revocation {
            target: Target::Token { issuer: issuer.into(), jti: jti.into() },
            effect: Effect::Gone,
            until: expires.plus(gate.leeway),
        };
        self.acting(gate.engine.revoke(entry, RevokedBecause::Operator)).await.map(drop)
    }

    /// Revokes another issuer's tokens for a subject, if their `iat` is not after the current time. The entry is kept
    /// for `lifetime`, the longest lifetime of such a token.
    ///
    /// # Errors
    /// See [`Self::revoke`].
    pub async fn revoke_foreign_subject(
        &self,
        issuer: &str,
        subject: &str,
        lifetime: std::time::Duration,
    ) -> Result<(), Error> {
        let gate = &self.gate.0;
        // Other issuers set `iat` from the wall clock.
        let moment = gate.engine.clock().wall();
        let entry = Revocation {
            target: Target::Subject { issuer: issuer.into(), subject: subject.into() },
            effect: Effect::NotBefore(moment),
            until: moment.plus(lifetime).plus(gate.leeway),
        };
        self.acting(gate.engine.revoke(entry, RevokedBecause::Operator)).await.map(drop)
    }
}
