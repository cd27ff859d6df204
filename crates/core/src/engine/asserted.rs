//! Issues tokens in exchange for assertions of other issuers. Each assertion begins at most one session. The session's
//! id is derived only from the assertion, so all gates compute the same id. A repeated assertion therefore finds its
//! session, and cannot revive an ended one. The client does not get a refresh token, but presents the issuer's next
//! assertion.

use std::time::Duration;

use super::bad_entries::LookupKey;
use super::events::Happening;
use super::grant::{access_expiry, granted_at_login};
use super::{AccountRule, Arrival, Engine, IssueKind, IssuedTokens, Origin};
use crate::claim::OwnClaims;
use crate::client::Client;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::directory::{User, is_valid_subject, login_state};
use crate::dpop::OnceProof;
use crate::fault::{Error, Fault};
use crate::random::{parts_digest, random};
use crate::session::profile::Profile;
use crate::session::rotation::REVOKED;
use crate::session::{Generation, LastPair, Scope, Seal, Session, SessionId, SessionSecret, Status};
use crate::store::{Inserted, StoreError, SubjectBound, WriteOutcome};
use crate::thumbprint::CertificateThumbprint;
use crate::token::claims::CLIENT_PREFIX;
use crate::token::mint;
use crate::token::verify::{JagSubject, ProvedGrant, ProvedUser, is_subject};

/// A client's request for a token, with an assertion of another issuer.
#[derive(Debug)]
pub struct AssertedLogin<'a> {
    /// The client that gets the token.
    pub client: &'a Client,
    /// The assertion.
    pub grant: &'a ProvedGrant,
    /// The accounts that may get tokens at the endpoint.
    pub account: AccountRule<'a>,
    /// The requested scope, or `None` for all allowed scopes.
    pub scope: Option<Scope>,
    /// The audience of the session's tokens, if it differs from the gate's audience.
    pub resource: Option<Box<str>>,
    /// The endpoint's rules.
    pub profile: &'a Profile,
    /// The endpoint's dialect.
    pub dialect: &'a str,
    /// The proof for the key to which the tokens will be bound.
    pub proof: Option<OnceProof<'a>>,
    /// The client certificate to which the tokens will be bound.
    pub certificate: Option<CertificateThumbprint>,
    /// When the request arrived.
    pub arrived: Arrival,
    /// The origin of the request.
    pub origin: &'a Origin,
}

struct AssertedHolder {
    subject: Box<str>,
    account: Option<Box<str>>,
    scope: Scope,
    claims: OwnClaims,
    user: Option<User>,
}

const OVER: Denial = Denial::GrantAssertion("its session has ended, or all sessions of the user ended after `iat`");
const OTHER: Denial = Denial::GrantAssertion("its session belongs to another user, key or resource");
const UNKNOWN_USER: Denial = Denial::GrantAssertion("its user is not in the directory, or is inactive");

impl Engine {
    /// Issues a token for an assertion.
    ///
    /// # Errors
    /// [`Denial::GrantAssertion`], [`Denial::InvalidScope`], [`Denial::RateLimited`] or a fault. After a fault, the
    /// assertion can be used again.
    // Requirements D19 to D22.
    pub async fn asserted(&self, login: AssertedLogin<'_>) -> Result<IssuedTokens, Error> {
        self.may_mint()?;
        self.is_recent(login.arrived)?;
        self.limits.assertion(&login.client.id)?;
        let holder = self.holder(&login).await?;
        let granted = granted_at_login(login.scope.as_ref(), login.client.scopes.as_ref(), &holder.scope)?;
        // The stamp must not be earlier than the assertion's `iat`, which may be ahead of this gate's clock.
        let now = self.stamp_creation(login.grant.issued_at.minus(Duration::from_millis(1))).await?;
        let session = self.session_of(&login, &holder, &granted, now)?;
        let valid_from = holder.user.as_ref().map_or(Timestamp::ZERO, |user| user.sessions_valid_from);
        self.goes_on(&session, valid_from)?;
        self.proved_key(login.proof.as_ref()).await?;
        // Another gate may insert the session after the look-up, so try twice.
        for _ in 0..2 {
            match self.store.load(session.id).await? {
                Some(known) => {
                    self.goes_on_as(&known, &session, login.grant.user.is_some())?;
                    return self.asserted_token(&known, &granted, now, &login);
                }
                None => match self.insert_asserted(&session).await {
                    Ok(Inserted::Inserted(_)) => {
                        self.began(&session, &holder, login.origin);
                        return self.asserted_token(&session, &granted, now, &login);
                    }
                    Ok(Inserted::NoLongerValid(_)) => return Err(OVER.into()),
                    Ok(Inserted::TooMany) => return Err(Denial::TooManySessions.into()),
                    Err(error) if error.outcome() == WriteOutcome::Refused => {}
                    Err(error) => return Err(error.into()),
                },
            }
        }
        Err(Fault::Contention.into())
    }

    /// Returns the user and the session of an assertion, without changing anything.
    ///
    /// # Errors
    /// A denial if the assertion cannot be exchanged for another token; or a fault.
    pub async fn foresee_asserted(&self, grant: &ProvedGrant) -> Result<(Option<User>, Option<Session>), Error> {
        if self.revocations.ended_elsewhere(&grant.vouched_by, grant.issued_at) {
            return Err(OVER.into());
        }
        let user = match &grant.user {
            Some(user) if user.by == JagSubject::Directory => {
                Some(self.named_by(&grant.vouched_by.issuer, &user.at_issuer).await?)
            }
            _ => None,
        };
        let Some(known) = self.store.load(id_of(grant, &grant.client)).await? else {
            self.store.probe().await?;
            return Ok((user, None));
        };
        self.goes_on(&known, user.as_ref().map_or(Timestamp::ZERO, |user| user.sessions_valid_from))?;
        self.goes_on_as(&known, &known, grant.user.is_some())?;
        Ok((user, Some(known)))
    }

    async fn insert_asserted(&self, session: &Session) -> Result<Inserted, StoreError> {
        self.measured(self.store.insert(session.clone(), SubjectBound::NONE)).await
    }

    async fn holder(&self, login: &AssertedLogin<'_>) -> Result<AssertedHolder, Error> {
        let Some(proved) = &login.grant.user else {
            let subject = format!("{CLIENT_PREFIX}{}", login.client.id);
            if !is_subject(&subject) {
                return Err(Denial::UnauthorizedClient.into());
            }
            let scope = login.client.scopes.clone().unwrap_or_default();
            return Ok(AssertedHolder {
                subject: subject.into(),
                account: None,
                scope,
                claims: OwnClaims::new(),
                user: None,
            });
        };
        let ProvedUser { by, subject, at_issuer, account, scope, claims, .. } = proved;
        let holder = match by {
            JagSubject::Issuer => {
                let (account, claims) = (account.clone(), claims.clone());
                AssertedHolder { subject: subject.clone(), account, scope: scope.clone(), claims, user: None }
            }
            JagSubject::Directory => {
                let user = self.named_by(&login.grant.vouched_by.issuer, at_issuer).await?;
                let scope = scope.intersection(&user.scopes);
                let (account, claims) = (user.account.clone(), user.claims.clone());
                AssertedHolder { subject: user.subject.clone(), account, scope, claims, user: Some(user) }
            }
        };
        if !is_valid_subject(&holder.subject) {
            return Err(Denial::GrantAssertion("its subject is not allowed in a token").into());
        }
        // Requirement R21.
        if !login.account.has(holder.account.as_deref()) {
            return Err(Denial::OtherAccount.into());
        }
        let by_issuer = &login.grant.vouched_by;
        let is_its = match by {
            JagSubject::Issuer => self.is_of_issuer(&holder.subject, &by_issuer.issuer),
            JagSubject::Directory => self.may_be_own(&holder.subject, Some(by_issuer)),
        };
        if is_its {
            Ok(holder)
        } else {
            Err(Denial::GrantAssertion("its subject could belong to a user of another issuer").into())
        }
    }

    async fn named_by(&self, issuer: &str, subject: &str) -> Result<User, Error> {
        let directory = self.directory.as_ref().ok_or(UNKNOWN_USER)?;
        let found = directory.lookup_of_issuer(issuer, subject).await;
        let found = found.map_err(|error| self.noted(error, &LookupKey::Subject(subject), None))?;
        found.filter(|user| user.active).ok_or_else(|| UNKNOWN_USER.into())
    }

    fn session_of(
        &self,
        login: &AssertedLogin<'_>,
        holder: &AssertedHolder,
        granted: &Scope,
        now: Timestamp,
    ) -> Result<Session, Error> {
        let (grant, keyring) = (login.grant, self.keyring());
        // The record outlives the assertion by the lifetime of an access token. A repeated assertion therefore always
        // finds its session. No token of the session outlives the record.
        let access_ttl = login.profile.access_ttl.min(login.profile.max_access_ttl);
        let end = Timestamp::from_secs(grant.once.until.plus(access_ttl).as_secs_rounded_up());
        let origin = self.kept_origin(login.origin);
        Ok(Session {
            id: id_of(grant, &login.client.id),
            secret: SessionSecret::new(*random().map_err(Fault::from)?),
            subject: holder.subject.clone(),
            account: holder.account.clone(),
            client: login.client.id.clone(),
            scope: holder.scope.clone(),
            dialect: login.dialect.into(),
            expires: end,
            latest_access_expires: end,
            current: Generation::FIRST,
            previous: Generation::NONE,
            rotated_at: now,
            issued_at: now,
            confirmed: false,
            last: LastPair {
                scope: granted.clone(),
                access_expires: access_expiry(now, end, None, login.profile),
                kid: keyring.signer().kid().into(),
                refresh_key: keyring.refresh_keys().current(),
            },
            status: Status::Live,
            revision: 1,
            user_agent: origin.user_agent,
            address: origin.address,
            claims: holder.claims.clone(),
            bound_to: login.proof.as_ref().map(OnceProof::key),
            resource: login.resource.clone(),
            vouched_by: Some(Box::new(grant.vouched_by.clone())),
            certificate: login.certificate,
            browser: None,
            seal: Seal::default(),
        })
    }

    /// Fails if the session, or all sessions of its user or client, were revoked after the assertion was issued.
    fn goes_on(&self, session: &Session, valid_from: Timestamp) -> Result<(), Denial> {
        let not_before = self.revocations.not_before(&self.issuer, &session.subject, Some(&session.client));
        let is_over = session.created() <= not_before.max(valid_from)
            || self.ended_elsewhere(session)
            || self.revocations.minimum(session.id) == REVOKED;
        if is_over { Err(OVER) } else { Ok(()) }
    }

    /// `like` is the session that the assertion would begin. Both sessions must have the same user, client, resource
    /// and key.
    fn goes_on_as(&self, known: &Session, like: &Session, is_repeatable: bool) -> Result<(), Denial> {
        if !is_repeatable {
            return Err(Denial::GrantAssertion("it was used before"));
        }
        if known.status != Status::Live || known.expires <= self.clock.now() {
            return Err(OVER);
        }
        let same = (&known.subject, &known.account, &known.client, &known.resource, &known.vouched_by)
            == (&like.subject, &like.account, &like.client, &like.resource, &like.vouched_by)
            && (known.bound_to, known.certificate) == (like.bound_to, like.certificate);
        if same { Ok(()) } else { Err(OTHER) }
    }

    fn began(&self, session: &Session, holder: &AssertedHolder, origin: &Origin) {
        self.keep_written(session);
        if let (Some(own), Some(user)) = (&self.own_logins, &holder.user) {
            own.add(session, login_state(user));
        }
        self.counts.session_started(&session.dialect);
        self.events.tell(&Happening::Begun { session, name: None, origin });
    }

    fn asserted_token(
        &self,
        session: &Session,
        scope: &Scope,
        now: Timestamp,
        login: &AssertedLogin<'_>,
    ) -> Result<IssuedTokens, Error> {
        let scope = scope.intersection(&session.scope);
        let expires = access_expiry(now, session.expires, None, login.profile);
        let jti = uuid::Builder::from_random_bytes(*random().map_err(Fault::from)?).into_uuid().to_string();
        let claims = self.claims_of(session, &jti, &scope, (now, expires));
        let access_token = mint::mint(self.keyring().signer(), &claims).map_err(Fault::from)?;
        Ok(IssuedTokens::new(access_token, &claims, now, IssueKind::Login))
    }
}

/// The id consists of the assertion's `iat` and a digest.
fn id_of(grant: &ProvedGrant, client: &str) -> SessionId {
    let digest = parts_digest(&[grant.once.issuer.as_bytes(), grant.once.id.as_bytes(), client.as_bytes()]);
    SessionId::new(grant.issued_at, digest.first_chunk().copied().unwrap_or_default())
}
