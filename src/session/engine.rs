//! The engine: store, clock and mint around [`decide`]. Everything that a reply needs is made before the commit, and
//! nothing is answered before the commit is durable.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use secrecy::{ExposeSecret, SecretString};

use super::confirm::Confirmations;
use super::profile::{OnOtherClient, OnReuse, Profile};
use super::rotation::{self, Decision, Facts, Presented, Reuse, decide};
use super::turn::Turns;
use super::{Generation, LastPair, RevokedBecause, Scope, Session, SessionId, SessionSecret, Status};
use crate::audit;
use crate::client::Client;
use crate::clock::{ClockState, EngineClock, Timestamp};
use crate::denial::{Denial, Error, Fault};
use crate::directory::{Directory, User};
use crate::limit::{Attempt, Limits};
use crate::revocation::{Revocation, RevocationList};
use crate::store::{Inserted, Store, Swap};
use crate::token::claims::{AccessToken, MintedClaims, TokenStyle};
use crate::token::keyring::Keyring;
use crate::token::verify::is_name;
use crate::token::{mint, refresh};

mod revoke;
mod types;

pub use types::{Exchange, How, Issued, Login, OfAccount, Origin, Refresh, Start};

/// How often a request tries again when others change the session under it. Each loss means that somebody else won, so
/// this many in a row say that something is wrong.
const TRIES: usize = 16;

/// The dialect of sessions that the application began itself; no directory is asked about them.
pub const APPLICATION: &str = "application";

/// What the engine needs around it.
#[derive(Debug)]
pub struct Parts {
    /// `iss` of the tokens minted.
    pub issuer: Arc<str>,
    /// `aud` of the tokens minted.
    pub audience: Vec<Box<str>>,
    /// The tolerance for clocks that differ.
    pub leeway: Duration,
    /// What the clients of a dialect need of an access token.
    pub styles: Vec<(Box<str>, TokenStyle)>,
    /// The keys.
    pub keyring: Arc<Keyring>,
    /// Where sessions are kept.
    pub store: Arc<dyn Store>,
    /// Who the users are, if the gate logs them in.
    pub directory: Option<Arc<dyn Directory>>,
    /// Engine time.
    pub clock: Arc<EngineClock>,
    /// The revocation list.
    pub revocations: Arc<RevocationList>,
    /// The limits.
    pub limits: Limits,
    /// Are user agent and address of a login kept with the session?
    pub keep_login_origin: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    issuer: Arc<str>,
    audience: Vec<Box<str>>,
    leeway: Duration,
    styles: Vec<(Box<str>, TokenStyle)>,
    keyring: ArcSwap<Keyring>,
    store: Arc<dyn Store>,
    directory: Option<Arc<dyn Directory>>,
    clock: Arc<EngineClock>,
    revocations: Arc<RevocationList>,
    confirmations: Confirmations,
    limits: Limits,
    turns: Turns,
    keep_login_origin: bool,
    random: SystemRandom,
}

impl Engine {
    /// An engine of these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            issuer: parts.issuer,
            audience: parts.audience,
            leeway: parts.leeway,
            styles: parts.styles,
            keyring: ArcSwap::new(parts.keyring),
            store: parts.store,
            directory: parts.directory,
            clock: parts.clock,
            revocations: parts.revocations,
            confirmations: Confirmations::default(),
            limits: parts.limits,
            turns: Turns::default(),
            keep_login_origin: parts.keep_login_origin,
            random: SystemRandom::new(),
        }
    }

    /// `iss` of the tokens minted.
    pub fn issuer(&self) -> &Arc<str> {
        &self.issuer
    }

    /// `aud` of the tokens minted.
    pub fn audience(&self) -> &[Box<str>] {
        &self.audience
    }

    /// Engine time.
    pub fn clock(&self) -> &EngineClock {
        &self.clock
    }

    /// Where sessions are kept.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The revocation list.
    pub fn revocations(&self) -> &RevocationList {
        &self.revocations
    }

    /// The generations seen in use.
    pub fn confirmations(&self) -> &Confirmations {
        &self.confirmations
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The keys in force.
    pub fn keyring(&self) -> Arc<Keyring> {
        self.keyring.load_full()
    }

    /// Mints with other keys from now on.
    pub fn set_keyring(&self, keyring: Arc<Keyring>) {
        self.keyring.store(keyring);
    }

    /// Logs a user in: a new session, and its first pair of tokens.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`], [`Denial::WrongPassword`], [`Denial::InvalidScope`]; a fault, which consumed nothing.
    pub async fn login(&self, login: Login<'_>) -> Result<Issued, Error> {
        self.may_mint()?;
        let attempt = Attempt {
            address: login.origin.address,
            account: login.account,
            username: login.username,
            client: &login.client.id,
        };
        allowed_ttl(login.access_ttl, login.profile)?;
        self.limits.login(attempt)?;
        let directory = self.directory.as_ref().ok_or(Denial::UnsupportedGrantType)?;
        let Some(user) = directory.authenticate(login.account, login.username, login.password).await? else {
            audit::login_refused(login.account, login.username, &login.client.id, login.origin);
            return Err(Denial::WrongPassword.into());
        };
        // A directory should not name such a user; a session that no refresh would let live is not begun.
        if !user.active {
            audit::login_refused(login.account, login.username, &login.client.id, login.origin);
            return Err(Denial::WrongPassword.into());
        }
        self.limits.logged_in(attempt);
        let scope = granted_at_login(login.scope.as_ref(), login.client.scopes.as_ref(), &user.scopes)?;
        let new = New {
            subject: &user.subject,
            account: user.account.as_deref(),
            client: &login.client.id,
            scope,
            dialect: login.dialect,
            valid_from: user.sessions_valid_from,
            access_ttl: login.access_ttl,
            profile: login.profile,
            origin: login.origin,
        };
        let mut issued = self.begin(new).await?;
        issued.user = Some(user);
        Ok(issued)
    }

    /// Begins a session that the application answers for. It ends when it is revoked or expires.
    ///
    /// # Errors
    /// [`Denial::MalformedRequest`] for a subject, client or account that cannot stand in a token; a fault, which consumed
    /// nothing.
    pub async fn start(&self, start: Start<'_>) -> Result<Issued, Error> {
        self.may_mint()?;
        if !crate::directory::is_valid_subject(start.subject) {
            return Err(Denial::MalformedRequest("subject: 1 to 256 visible ASCII characters are needed").into());
        }
        if !crate::directory::is_valid_subject(start.client) {
            return Err(Denial::MalformedRequest("client: 1 to 256 visible ASCII characters are needed").into());
        }
        if !start.account.is_none_or(is_name) {
            return Err(
                Denial::MalformedRequest("account: 1 to 256 characters are needed, no control characters").into()
            );
        }
        self.begin(New {
            subject: start.subject,
            account: start.account,
            client: start.client,
            scope: start.scope,
            dialect: APPLICATION,
            valid_from: Timestamp::ZERO,
            access_ttl: None,
            profile: start.profile,
            origin: start.origin,
        })
        .await
    }

    async fn begin(&self, new: New<'_>) -> Result<Issued, Error> {
        let keyring = self.keyring();
        let mut valid_from =
            new.valid_from.max(self.revocations.not_before(&self.issuer, new.subject, Some(new.client)));
        for _ in 0..TRIES {
            let created = self.clock.stamp_creation(valid_from).ok_or(Fault::Clock)?;
            let expires = created.plus(new.profile.session_ttl);
            let last = LastPair {
                scope: new.scope.clone(),
                access_expires: access_expiry(created, expires, new.access_ttl, new.profile),
                kid: keyring.signer().kid().into(),
                refresh_key: keyring.refresh_keys().current(),
            };
            let session = Session {
                id: SessionId::new(created, self.random_bytes()?),
                secret: SessionSecret::new(self.random_bytes()?),
                subject: new.subject.into(),
                account: new.account.map(Into::into),
                client: new.client.into(),
                scope: new.scope.clone(),
                dialect: new.dialect.into(),
                expires,
                latest_access_expires: last.access_expires,
                current: 1,
                previous: 0,
                rotated_at: created,
                issued_at: created,
                confirmed: false,
                last,
                status: Status::Live,
                revision: 1,
                user_agent: new.origin.user_agent.clone().filter(|_| self.keep_login_origin),
                address: new.origin.address.filter(|_| self.keep_login_origin),
            };
            let issued = self.pair(&keyring, &session, created, How::Login)?;
            match self.store.insert(session.clone()).await? {
                Inserted::Inserted => {
                    audit::login(&session, new.origin);
                    return Ok(issued);
                }
                Inserted::NoLongerValid(moment) => valid_from = valid_from.max(moment),
            }
        }
        Err(Fault::Contention.into())
    }

    /// A token for a confidential client's own account (RFC 6749 §4.4): no session, no refresh token, revoked by `jti`.
    ///
    /// # Errors
    /// [`Denial::TooManyRequests`], [`Denial::InvalidScope`]; a fault.
    pub fn client_token(
        &self,
        client: &Client,
        scope: Option<&Scope>,
        profile: &Profile,
        origin: &Origin,
    ) -> Result<Issued, Error> {
        self.may_mint()?;
        self.limits.client(origin.address, &client.id)?;
        let allowed = client.scopes.clone().unwrap_or_default();
        let scope = granted_at_login(scope, Some(&allowed), &allowed)?;
        let now = self.stamp_sessionless(&client.id)?;
        let expires = access_expiry(now, now.plus(crate::token::MAX_SESSIONLESS_LIFETIME), None, profile);
        let jti = uuid::Builder::from_random_bytes(self.random_bytes()?).into_uuid().to_string();
        let claims = MintedClaims {
            issuer: &self.issuer,
            subject: &client.id,
            audience: &self.audience,
            expires,
            issued_at: now,
            jti: &jti,
            client: &client.id,
            scope: &scope,
            session: None,
            account: None,
            style: TokenStyle::default(),
        };
        let keyring = self.keyring();
        let access_token = mint::mint(keyring.signer(), &claims).map_err(Fault::from)?;
        audit::client_token(&client.id, &jti, origin);
        Ok(Issued {
            access_token,
            refresh_token: None,
            expires,
            expires_in: expires.as_secs().saturating_sub(now.as_secs()),
            subject: client.id.clone(),
            scope,
            session: None,
            user: None,
            how: How::ClientCredentials,
        })
    }

    /// When a token without a session is issued: a moment whose whole second, which is all that `iat` holds, lies after
    /// every not-before. Otherwise a token issued in the second of a revocation would be dead from the start.
    fn stamp_sessionless(&self, client: &str) -> Result<Timestamp, Fault> {
        let not_before = self.revocations.not_before(&self.issuer, client, Some(client));
        let now = self.clock.stamp_creation(not_before).ok_or(Fault::Clock)?;
        if Timestamp::from_secs(now.as_secs()) > not_before {
            return Ok(now);
        }
        // The stamp moves with it, so that a later not-before comes after this token too.
        let end_of_second = Timestamp::from_secs(now.as_secs().saturating_add(1)).minus(Duration::from_millis(1));
        self.clock.stamp_creation(end_of_second).ok_or(Fault::Clock)
    }

    /// Exchanges a refresh token. See [`rotation`] for what it brings on.
    ///
    /// To be awaited to its end, in a task of its own where the caller may go away: one that is dropped between the store
    /// and the revocation list has rotated, but access tokens that the rotation ends live on until the next start.
    ///
    /// # Errors
    /// A [`Denial`] by the rules of the table; a fault, which consumed nothing that the client cannot try again.
    pub async fn refresh(&self, refresh: Refresh<'_>) -> Result<Issued, Error> {
        self.may_mint()?;
        allowed_ttl(refresh.access_ttl, refresh.profile)?;
        self.limits.refresh(refresh.origin.address)?;
        let keyring = self.keyring();
        let held = Held::of(refresh.credential, &keyring)?;
        let presented = Presented { generation: held.generation };
        let _turn = self.turns.take(held.session).await;
        let mut user = None;
        let mut counted = false;
        for _ in 0..TRIES {
            // Before the record: what a refresh that wins meanwhile adds to the list must not look as if the record
            // had lost writes.
            let minimum_known = self.revocations.minimum(held.session);
            let Some(mut session) = self.store.load(held.session).await? else {
                return Err(Denial::UnknownRefreshToken.into());
            };
            if !held.proves(&session) {
                return Err(Denial::UnknownRefreshToken.into());
            }
            self.belongs(&session, &refresh).await?;
            if user.is_none() && session.dialect.as_ref() != APPLICATION {
                user = match &self.directory {
                    Some(directory) => Some(directory.lookup(&session.subject).await?),
                    None => None,
                };
            }
            // Notes that wait to be written count.
            session.confirmed |= self.confirmations.has(session.id, session.current);
            let now = self.clock.now();
            let decision =
                decide(&session, presented, self.facts(&session, user.as_ref(), minimum_known), now, refresh.profile);
            let how = match decision {
                Decision::Revoked(why) => return Err(Denial::SessionRevoked(why).into()),
                Decision::Expired(which) => return Err(Denial::SessionExpired(which).into()),
                Decision::Ahead { fast_forward: false } => {
                    audit::ahead(&session, presented.generation, refresh.origin);
                    return Err(Denial::Ahead.into());
                }
                Decision::Reuse(reuse) => return Err(self.reused(&session, reuse, &refresh).await?.into()),
                Decision::Replay => {
                    if let Some(issued) = self.replay(&keyring, session, now, &refresh, user.as_ref()).await? {
                        return Ok(with_user(issued, user));
                    }
                    continue;
                }
                Decision::Rotate => How::Rotated,
                Decision::Reissue => How::Reissued,
                Decision::Ahead { fast_forward: true } => How::FastForwarded,
            };
            if !counted {
                self.limits.rotation(session.id)?;
                counted = true;
            }
            let pair = LastPair {
                scope: granted_at_refresh(&session, &refresh, user.as_ref().and_then(Option::as_ref))?,
                access_expires: access_expiry(now, session.expires, refresh.access_ttl, refresh.profile),
                kid: keyring.signer().kid().into(),
                refresh_key: keyring.refresh_keys().current(),
            };
            let Some(step) = rotation::step(&session, decision, presented, pair, now, refresh.profile) else {
                return Err(Fault::Contention.into());
            };
            let issued = self.pair(&keyring, &step.record, now, how)?;
            let raised = step.raised.map(|raised| Revocation::raised(session.id, raised, self.leeway));
            match self.store.compare_and_swap(session.revision, step.record.clone(), raised.clone()).await? {
                Swap::Swapped => {
                    if let Some(raised) = &raised {
                        self.revocations.apply(raised);
                    }
                    audit::refreshed(&step.record, how, refresh.origin);
                    return Ok(with_user(issued, user));
                }
                // Somebody was faster, or the session ended: what is there now decides.
                Swap::Changed(_) | Swap::NoLongerValid => {}
            }
        }
        Err(Fault::Contention.into())
    }

    /// Does the session belong to the client, the account and the endpoint at which its token was presented?
    async fn belongs(&self, session: &Session, refresh: &Refresh<'_>) -> Result<(), Error> {
        if session.client != refresh.client.id {
            audit::other_client(session, &refresh.client.id, refresh.origin);
            match refresh.profile.on_other_client {
                OnOtherClient::Deny => {}
                OnOtherClient::RevokeSession => {
                    self.revoke_session(session, RevokedBecause::OtherClient).await?;
                }
            }
            return Err(Denial::OtherClient.into());
        }
        if !refresh.account.has(session.account.as_deref()) {
            return Err(Denial::OtherAccount.into());
        }
        if !refresh.accepts.contains(&session.dialect) {
            return Err(Denial::OtherDialect.into());
        }
        Ok(())
    }

    fn facts(&self, session: &Session, user: Option<&Option<User>>, minimum_known: Generation) -> Facts {
        let listed = self.revocations.not_before(&self.issuer, &session.subject, Some(&session.client));
        let (user_active, valid_from) = match user {
            // No directory answers for this session.
            None => (true, Timestamp::ZERO),
            Some(None) => (false, Timestamp::ZERO),
            Some(Some(user)) => (user.active, user.sessions_valid_from),
        };
        Facts {
            user_active,
            sessions_valid_from: valid_from.max(listed),
            minimum_known,
            // A store of one node falls behind only while no process holds it: nobody kept the revocations.
            unbroken_revocations: false,
        }
    }

    /// The current pair again: the same bytes, where key and time allow it. `None` if the session changed meanwhile.
    async fn replay(
        &self,
        keyring: &Keyring,
        session: Session,
        now: Timestamp,
        refresh: &Refresh<'_>,
        user: Option<&Option<User>>,
    ) -> Result<Option<Issued>, Error> {
        let last = &session.last;
        let life = last.access_expires.since(session.issued_at);
        let left = last.access_expires.since(now);
        let same_keys = keyring.signing_key(&last.kid).is_some() && keyring.refresh_keys().contains(last.refresh_key);
        let scope = still_granted(&last.scope, refresh.client, user.and_then(Option::as_ref));
        let allowed = scope == last.scope;
        // Near the session's end no other token would live longer.
        let longest = left * 2 >= life || last.access_expires.as_secs() >= session.expires.as_secs();
        if same_keys && allowed && longest {
            return Ok(Some(self.pair(keyring, &session, now, How::Replayed)?));
        }
        let fresh = LastPair {
            scope,
            access_expires: access_expiry(now, session.expires, refresh.access_ttl, refresh.profile),
            kid: keyring.signer().kid().into(),
            refresh_key: if keyring.refresh_keys().contains(last.refresh_key) {
                last.refresh_key
            } else {
                keyring.refresh_keys().current()
            },
        };
        let expected = session.revision;
        let record = Session {
            latest_access_expires: session.latest_access_expires.max(fresh.access_expires),
            last: fresh,
            revision: expected + 1,
            ..session
        };
        let issued = self.pair(keyring, &record, now, How::Replayed)?;
        match self.store.compare_and_swap(expected, record, None).await? {
            Swap::Swapped => Ok(Some(issued)),
            Swap::Changed(_) | Swap::NoLongerValid => Ok(None),
        }
    }

    /// Ends what the profile says, before the answer is given.
    async fn reused(&self, session: &Session, reuse: Reuse, refresh: &Refresh<'_>) -> Result<Denial, Error> {
        audit::reuse(session, reuse, refresh.profile.on_reuse, refresh.origin);
        match refresh.profile.on_reuse {
            OnReuse::RevokeSession => self.revoke_session(session, RevokedBecause::Reuse).await?,
            OnReuse::RevokeSubject => {
                self.revoke_session(session, RevokedBecause::Reuse).await?;
                self.revoke_subject(&session.subject, RevokedBecause::Reuse).await?;
            }
            OnReuse::Deny => {}
        }
        Ok(Denial::Reuse(reuse))
    }

    /// What the directory says of a subject; `None` where there is no directory, or it knows nothing.
    ///
    /// # Errors
    /// A fault of the directory.
    pub async fn user(&self, subject: &str) -> Result<Option<User>, Error> {
        match &self.directory {
            Some(directory) => Ok(directory.lookup(subject).await?),
            None => Ok(None),
        }
    }

    /// May this access token, superseded by a rotation, be exchanged for the same successor again?
    ///
    /// # Errors
    /// A fault of store or directory.
    pub async fn may_be_replayed(&self, access: &AccessToken, profile: &Profile) -> Result<bool, Error> {
        let Some((session, generation)) = access.session else { return Ok(false) };
        let minimum_known = self.revocations.minimum(session);
        let Some(session) = self.store.load(session).await? else { return Ok(false) };
        let user = match &self.directory {
            Some(directory) if session.dialect.as_ref() != APPLICATION => {
                Some(directory.lookup(&session.subject).await?)
            }
            Some(_) | None => None,
        };
        let facts = self.facts(&session, user.as_ref(), minimum_known);
        Ok(decide(&session, Presented { generation }, facts, self.clock.now(), profile) == Decision::Replay)
    }

    fn may_mint(&self) -> Result<(), Fault> {
        match self.clock.tick() {
            // A clock that jumped is not followed, so what is minted is minted in the old time.
            ClockState::Good | ClockState::Jumped => Ok(()),
            ClockState::Behind => Err(Fault::Clock),
        }
    }

    /// The tokens that a record says: nothing in them is new.
    fn pair(&self, keyring: &Keyring, session: &Session, now: Timestamp, how: How) -> Result<Issued, Fault> {
        let last = &session.last;
        let key = keyring.signing_key(&last.kid).ok_or(Fault::Signing("the key of this pair is gone"))?;
        let jti = keyring
            .derive_jti(last.refresh_key, session.id, session.current, last.access_expires)
            .ok_or(Fault::Signing("the refresh key of this pair is gone"))?;
        let claims = MintedClaims {
            issuer: &self.issuer,
            subject: &session.subject,
            audience: &self.audience,
            expires: last.access_expires,
            issued_at: session.issued_at,
            jti: &jti,
            client: &session.client,
            scope: &last.scope,
            session: Some((session.id, session.current)),
            account: session.account.as_deref(),
            style: self.style(&session.dialect),
        };
        let access_token = mint::mint(key, &claims).map_err(Fault::from)?;
        let refresh_token = refresh::make(
            keyring.refresh_keys(),
            last.refresh_key,
            session.id,
            session.current,
            &session.secret,
            &session.client,
        )
        .ok_or(Fault::Signing("the refresh key of this pair is gone"))?;
        Ok(Issued {
            access_token,
            refresh_token: Some(refresh_token),
            expires: last.access_expires,
            expires_in: last.access_expires.as_secs().saturating_sub(now.as_secs()),
            subject: session.subject.clone(),
            scope: last.scope.clone(),
            session: Some(session.id),
            user: None,
            how,
        })
    }

    fn style(&self, dialect: &str) -> TokenStyle {
        self.styles.iter().find(|(name, _)| **name == *dialect).map(|(_, style)| *style).unwrap_or_default()
    }

    fn random_bytes<const N: usize>(&self) -> Result<[u8; N], Fault> {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes).map_err(|_| Fault::Signing("the system gave no random bytes"))?;
        Ok(bytes)
    }
}

/// A credential that was found authentic, as far as that can be without the session's record.
struct Held {
    session: SessionId,
    generation: Generation,
    /// What the record must prove still; an access token's signature has proved all.
    refresh: Option<refresh::Authentic>,
}

impl Held {
    fn of(credential: Exchange<'_>, keyring: &Keyring) -> Result<Self, Denial> {
        let by_refresh = |token: &SecretString| {
            let authentic = refresh::authenticate(keyring.refresh_keys(), token.expose_secret())
                .ok_or(Denial::UnknownRefreshToken)?;
            Ok(Self { session: authentic.session, generation: authentic.generation, refresh: Some(authentic) })
        };
        match credential {
            Exchange::Refresh(token) => by_refresh(token),
            Exchange::Access(access) => {
                let (session, generation) = access.session.ok_or(Denial::UnknownRefreshToken)?;
                Ok(Self { session, generation, refresh: None })
            }
            Exchange::Pair(token, access) => {
                let held = by_refresh(token)?;
                let (session, generation) = access.session.ok_or(Denial::UnknownRefreshToken)?;
                let fits = session == held.session
                    && (generation == held.generation || generation.checked_add(1) == Some(held.generation));
                if fits { Ok(held) } else { Err(Denial::MismatchedPair) }
            }
        }
    }

    fn proves(&self, session: &Session) -> bool {
        self.refresh.as_ref().is_none_or(|authentic| authentic.proves(&session.secret, &session.client))
    }
}

/// A session to come.
struct New<'a> {
    subject: &'a str,
    account: Option<&'a str>,
    client: &'a str,
    scope: Scope,
    dialect: &'a str,
    valid_from: Timestamp,
    access_ttl: Option<Duration>,
    profile: &'a Profile,
    origin: &'a Origin,
}

/// No client gets a token that lives longer than the profile allows.
fn allowed_ttl(asked: Option<Duration>, profile: &Profile) -> Result<(), Denial> {
    if asked.is_some_and(|ttl| ttl > profile.max_access_ttl) { Err(Denial::TtlExceeded) } else { Ok(()) }
}

/// When an access token issued now expires: a whole second, never past the session's end.
fn access_expiry(now: Timestamp, session_end: Timestamp, asked: Option<Duration>, profile: &Profile) -> Timestamp {
    let ttl = asked.unwrap_or(profile.access_ttl).min(profile.max_access_ttl);
    let seconds = now.as_secs().saturating_add(ttl.as_secs()).min(session_end.as_secs());
    Timestamp::from_secs(seconds)
}

/// What a login gets: what was asked for, if the client may ask for it, as far as the user has it.
fn granted_at_login(asked: Option<&Scope>, client: Option<&Scope>, user: &Scope) -> Result<Scope, Denial> {
    let Some(asked) = asked else {
        return Ok(client.map_or_else(|| user.clone(), |client| user.intersection(client)));
    };
    if client.is_some_and(|client| !asked.is_within(client)) {
        return Err(Denial::InvalidScope);
    }
    let granted = asked.intersection(user);
    if granted.is_empty() && !asked.is_empty() { Err(Denial::InvalidScope) } else { Ok(granted) }
}

/// What a refresh gets: the scope of the login or less (RFC 6749 §6), as far as client and user still have it.
fn granted_at_refresh(session: &Session, refresh: &Refresh<'_>, user: Option<&User>) -> Result<Scope, Denial> {
    let asked = refresh.scope.as_ref().unwrap_or(&session.scope);
    if !asked.is_within(&session.scope) {
        return Err(Denial::InvalidScope);
    }
    Ok(still_granted(asked, refresh.client, user))
}

/// What of a scope client and user still have.
fn still_granted(scope: &Scope, client: &Client, user: Option<&User>) -> Scope {
    let mut granted = scope.clone();
    if let Some(user) = user {
        granted = granted.intersection(&user.scopes);
    }
    if let Some(client) = &client.scopes {
        granted = granted.intersection(client);
    }
    granted
}

fn with_user(issued: Issued, user: Option<Option<User>>) -> Issued {
    Issued { user: user.flatten(), ..issued }
}

#[cfg(test)]
mod tests;
