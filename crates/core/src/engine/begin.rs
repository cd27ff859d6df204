//! Begins sessions, and issues tokens for a client's own account.

use std::time::Duration;

use super::bad_entries::LookupKey;
use super::browser::{BegunSession, HeldBy};
use super::events::Happening;
use super::grant::{access_expiry, allowed_ttl, granted_at_login};
use super::{ApplicationLogin, Engine, Event, HeldUp, IssueKind, IssuedTokens, Login, Origin, audit};
use crate::claim::OwnClaims;
use crate::client::Client;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::directory::{Directory, DirectoryError, LoginRequest, User, login_state};
use crate::dpop::OnceProof;
use crate::fault::{Error, Fault};
use crate::limit::{Attempt, CheckPermit};
use crate::random::random;
use crate::revocation::Revocation;
use crate::session::profile::Profile;
use crate::session::{
    Generation, LastPair, RevokedBecause, Scope, Seal, Session, SessionId, SessionSecret, Status, VouchedBy,
};
use crate::store::{Inserted, SubjectBound};
use crate::thumbprint::{CertificateThumbprint, KeyThumbprint};
use crate::token::claims::{CLIENT_PREFIX, MintedClaims, TokenStyle};
use crate::token::keyring::Keyring;
use crate::token::mint;
use crate::token::session_cookie::SessionCookie;
use crate::token::verify::{is_name, is_subject};
use crate::trace;

/// The maximum number of password checks in one login.
const MAX_PASSWORD_CHECKS: usize = 4;

impl Engine {
    /// Logs a user in and begins a new session.
    ///
    /// # Errors
    /// [`Denial::RateLimited`], [`Denial::WrongPassword`], [`Denial::NoAccount`], [`Denial::InvalidScope`] or
    /// [`Denial::TooManySessions`]. After a fault, the login can be retried.
    pub async fn login(&self, login: Login<'_>) -> Result<IssuedTokens, Error> {
        let (begun, user) = self.log_in(login, HeldBy::Client).await?;
        Ok(IssuedTokens { user: Some(user), ..begun.issued })
    }

    pub(super) async fn log_in(&self, login: Login<'_>, held_by: HeldBy) -> Result<(BegunSession, User), Error> {
        self.may_mint()?;
        self.is_recent(login.arrived)?;
        allowed_ttl(login.access_ttl, login.profile)?;
        let directory = self.directory.as_ref().ok_or(Denial::UnsupportedGrantType)?;
        let name = directory.limit_key(login.account, login.username);
        let attempt = Attempt {
            address: login.origin.address,
            account: login.account,
            username: &name,
            client: &login.client.id,
        };
        // Get the stamp in parallel with the login limits, because a shared store may be slow (requirement C42).
        let stamping = async { self.stamp_creation(Timestamp::ZERO).await.map_err(Error::from) };
        let (_place, first) = tokio::try_join!(self.admit_login(&login, attempt), stamping)?;
        let mut first = Some(first);
        // Another gate may have stamped a revocation with a time ahead of this gate's clock.
        let mut known = Timestamp::ZERO;
        let mut is_proved = false;
        for _ in 0..MAX_PASSWORD_CHECKS {
            // No later revocation gets an earlier stamp.
            let asked = match first.take() {
                Some(asked) => asked,
                None => self.stamp_creation(Timestamp::ZERO).await?,
            };
            let user = self.authenticate(directory.as_ref(), &login, attempt).await?;
            let not_before =
                self.revocations.not_before(&self.issuer, &user.subject, Some(&login.client.id)).max(known);
            if not_before >= asked && not_before > known {
                known = not_before;
                continue;
            }
            let scope = granted_at_login(login.scope.as_ref(), login.client.scopes.as_ref(), &user.scopes)?;
            // Record the proof only after the password check, so that clients without a password cannot fill the store.
            if !is_proved {
                self.proved_key(login.proof.as_ref()).await?;
                is_proved = true;
            }
            let new = SessionDraft {
                bound_to: login.proof.as_ref().map(OnceProof::key),
                certificate: login.certificate,
                resource: login.resource.clone(),
                vouched_by: user.vouched_by.clone().map(Box::new),
                subject: &user.subject,
                account: user.account.as_deref(),
                client: &login.client.id,
                scope,
                claims: user.claims.clone(),
                dialect: login.dialect,
                valid_from: user.sessions_valid_from.max(not_before),
                access_ttl: login.access_ttl,
                profile: login.profile,
                origin: login.origin,
                held_by,
                // A revocation after the password check has a later stamp, and ends the session.
                stamped: self.store.shared().map(|_| asked),
                checked: Some(CheckedUser {
                    directory: directory.as_ref(),
                    user: &user,
                    name: login.username,
                    attempt,
                    not_before,
                }),
            };
            match self.begin(new).await? {
                BeginOutcome::Begun(begun) => return Ok((*begun, user)),
                BeginOutcome::Changed(moment) => known = known.max(moment),
            }
        }
        Err(Fault::Contention.into())
    }

    async fn admit_login(&self, login: &Login<'_>, attempt: Attempt<'_>) -> Result<CheckPermit, Error> {
        self.limits.admit_login(attempt).await.inspect_err(|error| {
            self.tell_held_up(error, login.origin, || HeldUp {
                name_hash: self.keyring().refresh_keys().name_hash(login.username).map(Into::into),
                account: login.account.map(Into::into),
                client: Some((*login.client.id).into()),
                ..HeldUp::default()
            });
        })
    }

    async fn authenticate(
        &self,
        directory: &dyn Directory,
        login: &Login<'_>,
        attempt: Attempt<'_>,
    ) -> Result<User, Error> {
        let answer = trace::step("rotogate.directory", "log_in", directory.log_in(&asked_of(login))).await;
        let noted = |error| self.noted(error, &LookupKey::Name(login.username), login.account);
        let (user, refusal) = match answer {
            Err(DirectoryError::NoAccount) => (None, Denial::NoAccount),
            answered => (answered.map_err(noted)?, Denial::WrongPassword),
        };
        // Refuse an inactive user, even if the directory returns one.
        let subject = user.as_ref().map(|user| user.subject.clone());
        let Some(user) = user.filter(|user| user.active) else {
            self.counts.add(Event::LoginRefused);
            self.limits.record_failed_login(attempt).await;
            let unknown = if subject.is_none() { Some(login.username) } else { None };
            let name_hash = unknown.and_then(|name| self.keyring().refresh_keys().name_hash(name));
            let (subject, name_hash) = (subject.as_deref(), name_hash.as_deref());
            let Login { account, client, origin, .. } = *login;
            self.events.tell(&Happening::LoginRefused { subject, name_hash, account, client: &client.id, origin });
            return Err(refusal.into());
        };
        // An invalid subject could imitate a client's subject, or be unusable in a header (requirements J9, R21).
        if !crate::directory::is_valid_subject(&user.subject) {
            let problem = "the directory returned an invalid subject; expected 1 to 256 visible ASCII characters that \
                           do not begin with `client:`";
            return Err(noted(DirectoryError::Entry(problem.to_owned())).into());
        }
        if !self.may_be_own(&user.subject, user.vouched_by.as_ref()) {
            let problem = "the directory returned a subject that begins with the `subject_prefix` of an issuer that \
                           did not authenticate the user";
            return Err(noted(DirectoryError::Entry(problem.to_owned())).into());
        }
        Ok(user)
    }

    /// Begins a session for a user whom the application has authenticated.
    ///
    /// # Errors
    /// [`Denial::MalformedRequest`] for a subject, client or account that a token cannot contain,
    /// [`Denial::TooManySessions`], or a fault.
    pub async fn start(&self, start: ApplicationLogin<'_>) -> Result<IssuedTokens, Error> {
        Ok(self.start_for(start, HeldBy::Client).await?.issued)
    }

    pub(super) async fn start_for(&self, start: ApplicationLogin<'_>, held_by: HeldBy) -> Result<BegunSession, Error> {
        self.may_mint()?;
        if !crate::directory::is_valid_subject(start.subject) {
            return Err(Denial::MalformedRequest(
                "`subject` must have 1 to 256 visible ASCII characters and must not begin with `client:`",
            )
            .into());
        }
        if !is_subject(start.client) {
            return Err(Denial::MalformedRequest("`client` must have 1 to 256 visible ASCII characters").into());
        }
        if !start.account.is_none_or(is_name) {
            return Err(Denial::MalformedRequest("`account` must have 1 to 256 bytes and no control characters").into());
        }
        if start.vouched_by.as_ref().is_some_and(|by| !by.is_valid()) {
            return Err(
                Denial::MalformedRequest("`vouched_by` must have 1 to 256 bytes and no control characters").into()
            );
        }
        if !self.may_be_own(start.subject, start.vouched_by.as_ref()) {
            return Err(Denial::MalformedRequest(
                "`subject` belongs to an issuer that did not vouch for the user. If an issuer has no `subject_prefix`, \
                 every subject belongs to that issuer",
            )
            .into());
        }
        let not_before = self.revocations.not_before(&self.issuer, start.subject, Some(start.client));
        let begun = self.begin(SessionDraft {
            bound_to: None,
            certificate: None,
            resource: None,
            vouched_by: start.vouched_by.map(Box::new),
            subject: start.subject,
            account: start.account,
            client: start.client,
            scope: start.scope,
            claims: start.claims,
            dialect: held_by.dialect(),
            valid_from: not_before,
            access_ttl: None,
            profile: start.profile,
            origin: start.origin,
            held_by,
            stamped: None,
            checked: None,
        });
        match begun.await? {
            BeginOutcome::Begun(begun) => Ok(*begun),
            // Only the application knows whether the user may still log in.
            BeginOutcome::Changed(_) => Err(Fault::Contention.into()),
        }
    }

    async fn begin(&self, new: SessionDraft<'_>) -> Result<BeginOutcome, Error> {
        let keyring = self.keyring();
        let created = match new.stamped {
            Some(stamp) if stamp > new.valid_from => stamp,
            Some(_) | None => self.stamp_creation(new.valid_from).await?,
        };
        let (session, cookie) = self.first_record(&new, created, &keyring)?;
        let issued = self.pair(&keyring, &session, created, IssueKind::Login)?;
        if let (Some(own), Some(checked)) = (&self.own_logins, &new.checked) {
            // Record the login first, so that the gate can end the session if the user changes later.
            own.add(&session, login_state(checked.user));
        }
        // Look the user up after the creation stamp, so that a later change of the user ends the session.
        if let Some(checked) = &new.checked
            && !self.holds(checked, new.client).await?
        {
            return Ok(BeginOutcome::Changed(Timestamp::ZERO));
        }
        let bound = SubjectBound {
            most: new.profile.max_sessions_per_subject,
            idle_ttl: new.profile.idle_ttl,
            ends_oldest: new.profile.ends_oldest,
        };
        let inserting = self.measured(self.store.insert(session.clone(), bound));
        let inserting = trace::step("rotogate.store.commit", "insert", inserting);
        let inserted = match &new.checked {
            // The password was right, so record the login while the session is inserted.
            Some(checked) => tokio::join!(inserting, self.limits.record_login(checked.attempt)).0,
            None => inserting.await,
        };
        match inserted? {
            Inserted::Inserted(ended) => {
                self.keep_written(&session);
                self.gave_way(&session, &ended);
                self.counts.session_started(&session.dialect);
                let name = new.checked.as_ref().map(|checked| checked.name);
                self.events.tell(&Happening::Begun { session: &session, name, origin: new.origin });
                Ok(BeginOutcome::Begun(Box::new(BegunSession { session, issued, cookie })))
            }
            Inserted::TooMany => {
                self.counts.add(Event::LoginRefused);
                audit::too_many_sessions(&session, new.origin);
                Err(Denial::TooManySessions.into())
            }
            Inserted::NoLongerValid(moment) => Ok(BeginOutcome::Changed(moment)),
        }
    }

    fn first_record(
        &self,
        new: &SessionDraft<'_>,
        created: Timestamp,
        keyring: &Keyring,
    ) -> Result<(Session, Option<SessionCookie>), Error> {
        let id = SessionId::new(created, *random().map_err(Fault::from)?);
        let (cookie, browser) = new.held_by.cookie(keyring, id)?.unzip();
        let expires = created.plus(new.profile.session_ttl);
        let last = LastPair {
            scope: new.scope.clone(),
            access_expires: access_expiry(created, expires, new.access_ttl, new.profile),
            kid: keyring.signer().kid().into(),
            refresh_key: keyring.refresh_keys().current(),
        };
        let origin = self.kept_origin(new.origin);
        let session = Session {
            id,
            secret: SessionSecret::new(*random().map_err(Fault::from)?),
            subject: new.subject.into(),
            account: new.account.map(Into::into),
            client: new.client.into(),
            scope: new.scope.clone(),
            dialect: new.dialect.into(),
            expires,
            latest_access_expires: last.access_expires,
            current: Generation::FIRST,
            previous: Generation::NONE,
            rotated_at: created,
            issued_at: created,
            confirmed: false,
            last,
            status: Status::Live,
            revision: 1,
            user_agent: origin.user_agent,
            address: origin.address,
            claims: new.claims.clone(),
            bound_to: new.bound_to,
            resource: new.resource.clone(),
            vouched_by: new.vouched_by.clone(),
            certificate: new.certificate,
            browser,
            // The engine seals a record when it writes the record.
            seal: Seal::default(),
        };
        Ok((session, cookie))
    }

    /// Returns whether the user is unchanged since the password check.
    async fn holds(&self, checked: &CheckedUser<'_>, client: &str) -> Result<bool, Error> {
        let then = checked.user;
        let Some(now) = self.look_up(checked.directory, then.account.as_deref(), &then.subject).await? else {
            return Ok(false);
        };
        let same = now.active
            && now.account == then.account
            && now.sessions_valid_from == then.sessions_valid_from
            && now.password_mark == then.password_mark;
        let not_before = self.revocations.not_before(&self.issuer, &then.subject, Some(client));
        Ok(same && not_before <= checked.not_before)
    }

    /// The store ended these sessions to make room for a new one of the same subject. This gate must refuse the ended
    /// sessions before it returns the new tokens.
    fn gave_way(&self, session: &Session, ended: &[Revocation]) {
        for entry in ended {
            self.revocations.apply(entry);
            self.counts.add(Event::Revoked);
            self.counts.session_ended(RevokedBecause::TooMany);
            self.events.tell(&Happening::Ended { entry, because: RevokedBecause::TooMany, owed: None });
        }
        if !ended.is_empty() {
            audit::gave_way(session, ended.len());
        }
    }

    /// Issues a token for a confidential client's own account (RFC 6749 §4.4). The token does not have a session or a
    /// refresh token.
    ///
    /// # Errors
    /// [`Denial::RateLimited`], [`Denial::InvalidScope`] or a fault.
    pub async fn client_token(
        &self,
        client: &Client,
        scope: Option<&Scope>,
        resource: Option<&[Box<str>]>,
        profile: &Profile,
        (proof, certificate): (Option<OnceProof<'_>>, Option<CertificateThumbprint>),
        origin: &Origin,
    ) -> Result<IssuedTokens, Error> {
        self.admit_grant(client, origin)?;
        let allowed = client.scopes.clone().unwrap_or_default();
        let scope = granted_at_login(scope, Some(&allowed), &allowed)?;
        let subject = format!("{CLIENT_PREFIX}{}", client.id);
        if !is_subject(&subject) {
            return Err(Denial::UnauthorizedClient.into());
        }
        let bound_to = self.proved_key(proof.as_ref()).await?;
        let now = self.stamp_sessionless(&subject, &client.id).await?;
        let expires = access_expiry(now, now.plus(crate::token::MAX_SESSIONLESS_LIFETIME), None, profile);
        let jti = uuid::Builder::from_random_bytes(*random().map_err(Fault::from)?).into_uuid().to_string();
        let claims = MintedClaims {
            issuer: &self.issuer,
            subject: &subject,
            audience: self.audience_for(resource),
            expires,
            issued_at: now,
            jti: &jti,
            client: &client.id,
            scope: &scope,
            session: None,
            account: None,
            bound_to,
            certificate,
            vouched_by: None,
            delegation: None,
            own: None,
            style: TokenStyle::default(),
        };
        let keyring = self.keyring();
        let access_token = mint::mint(keyring.signer(), &claims).map_err(Fault::from)?;
        self.counts.add(Event::ClientToken);
        audit::client_token(&client.id, &jti, origin);
        Ok(IssuedTokens::new(access_token, &claims, now, IssueKind::ClientCredentials))
    }

    pub(super) async fn proved_key(&self, proof: Option<&OnceProof<'_>>) -> Result<Option<KeyThumbprint>, Error> {
        let Some(proof) = proof else { return Ok(None) };
        proof.use_once(self.clock.now(), &*self.store).await?;
        Ok(Some(proof.key()))
    }

    /// Returns a creation time whose whole second is later than every not-before, because `iat` has whole seconds.
    async fn stamp_sessionless(&self, subject: &str, client: &str) -> Result<Timestamp, Fault> {
        let not_before = self.revocations.not_before(&self.issuer, subject, Some(client));
        let now = self.stamp_creation(not_before).await?;
        if Timestamp::from_secs(now.as_secs()) > not_before {
            return Ok(now);
        }
        // Take a stamp in the next second, so that `iat` is later than the not-before.
        let end_of_second = Timestamp::from_secs(now.as_secs().saturating_add(1)).minus(Duration::from_millis(1));
        self.stamp_creation(end_of_second).await
    }
}

fn asked_of<'a>(login: &'a Login<'_>) -> LoginRequest<'a> {
    LoginRequest {
        client: Some(&login.client.id),
        address: login.origin.address,
        user_agent: login.origin.user_agent.as_deref(),
        scope: login.scope.as_ref(),
        ..LoginRequest::new(login.account, login.username, login.password)
    }
}

struct SessionDraft<'a> {
    bound_to: Option<KeyThumbprint>,
    certificate: Option<CertificateThumbprint>,
    resource: Option<Box<str>>,
    vouched_by: Option<Box<VouchedBy>>,
    subject: &'a str,
    account: Option<&'a str>,
    client: &'a str,
    scope: Scope,
    claims: OwnClaims,
    dialect: &'a str,
    valid_from: Timestamp,
    access_ttl: Option<Duration>,
    profile: &'a Profile,
    origin: &'a Origin,
    held_by: HeldBy,
    /// A creation time from before the password check, used if later than `valid_from`.
    stamped: Option<Timestamp>,
    /// `None` if the application begins the session.
    checked: Option<CheckedUser<'a>>,
}

struct CheckedUser<'a> {
    directory: &'a dyn Directory,
    user: &'a User,
    /// The name in the login request.
    name: &'a str,
    attempt: Attempt<'a>,
    /// The latest not-before at the time of the password check.
    not_before: Timestamp,
}

enum BeginOutcome {
    Begun(Box<BegunSession>),
    /// The user or the user's sessions changed. Contains the time of the change, or zero if the time is unknown.
    Changed(Timestamp),
}
