//! How a session continues: the exchange of a credential for the next pair.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use secrecy::{ExposeSecret, SecretString};

use super::audit;
use super::evidence::Evidence;
use super::grant::{access_expiry, allowed_ttl, granted_at_refresh, still_granted};
use super::turn::Turn;
use super::{APPLICATION, Engine, Event, Exchange, HeldUp, IssueKind, IssuedTokens, MAX_TRIES, Refresh};
use crate::claim::OwnClaims;
use crate::clock::Timestamp;
use crate::denial::{Denial, ProofFlaw};
use crate::directory::User;
use crate::dpop::OnceProof;
use crate::engine::live_sessions::SuccessorToken;
use crate::fault::{Error, Fault};
use crate::revocation::Revocation;
use crate::session::profile::{OnOtherClient, OnReuse, Profile};
use crate::session::rotation::{self, Decision, Facts, Reuse, SessionEnd, decide};
use crate::session::{Generation, LastPair, RevokedBecause, Session, SessionId, Status};
use crate::store::{Cursor, StoreError, Swap};
use crate::token::claims::OwnChecked;
use crate::token::keyring::Keyring;
use crate::token::refresh;
use crate::token::verify::VOUCHED_IDLE;
use crate::trace;

mod explain;

pub(crate) use explain::denial_of;

impl Engine {
    /// Exchanges a refresh credential. [`rotation`] has the rules.
    ///
    /// The future must run to its end: give it a task of its own if its caller may be dropped. If it is dropped between
    /// the store and the revocation list, the session has rotated, but the access tokens that the rotation ends stay
    /// valid until the next start.
    ///
    /// # Errors
    /// A [`Denial`] by the rules of the table; a fault, which consumed nothing that the client cannot try again.
    pub async fn refresh(&self, refresh: Refresh<'_>) -> Result<IssuedTokens, Error> {
        self.refresh_from(refresh, None).await
    }

    /// Takes the turn of the session that a refresh token names, and reads its record, for
    /// [`refresh_from`](Self::refresh_from) to begin with.
    ///
    /// # Errors
    /// A fault of the store.
    pub(crate) async fn begin_refresh(&self, token: &SecretString) -> Result<Option<Begun<'_>>, Error> {
        let Some(named) = refresh::authenticate(self.keyring().refresh_keys(), token.expose_secret()) else {
            return Ok(None);
        };
        let turn = self.turns.take(named.session).await;
        let record = match self.recall_for_refresh(named.session, named.generation) {
            Some(record) => Some(record),
            None => self.read_for_refresh(named.session).await?,
        };
        Ok(record.map(|record| Begun { record, turn }))
    }

    /// The record as it was written here last, if that may still be what the store has.
    fn recall_for_refresh(&self, id: SessionId, presented: Generation) -> Option<ReadRecord> {
        let minimum_known = self.revocations.minimum(id);
        let session = self.written.recall(id, presented)?;
        Some(ReadRecord { session, minimum_known, is_recalled: true })
    }

    async fn read_for_refresh(&self, id: SessionId) -> Result<Option<ReadRecord>, StoreError> {
        // Read before the record: the list entry of a refresh that wins meanwhile must not look like writes that
        // the record has lost.
        let minimum_known = self.revocations.minimum(id);
        let read = self.store.load(id).await?;
        Ok(read.map(|session| ReadRecord { session, minimum_known, is_recalled: false }))
    }

    /// The same as [`refresh`](Self::refresh), with the turn and the record that its token has: it saves a read.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub(crate) async fn refresh_from(
        &self,
        refresh: Refresh<'_>,
        begun: Option<Begun<'_>>,
    ) -> Result<IssuedTokens, Error> {
        self.may_mint()?;
        self.is_recent(refresh.arrived)?;
        allowed_ttl(refresh.access_ttl, refresh.profile)?;
        let keyring = self.keyring();
        let held = PresentedCredential::of(refresh.credential, &keyring)?;
        let presented = held.generation;
        let (mut read, turn) = match begun.filter(|begun| begun.record.session.id == held.session) {
            Some(Begun { record, turn }) => (Some(record), turn),
            None => {
                let turn = self.turns.take(held.session).await;
                (self.recall_for_refresh(held.session, presented), turn)
            }
        };
        let mut turn = Some(turn);
        let mut user = None;
        let mut counted = false;
        let mut is_proved = false;
        for _ in 0..MAX_TRIES {
            let record = match read.take() {
                Some(record) => Some(record),
                None => self.read_for_refresh(held.session).await?,
            };
            let Some(ReadRecord { mut session, minimum_known, is_recalled }) = record else {
                return Err(Denial::UnknownRefreshToken.into());
            };
            if !held.proves(&session) {
                return Err(Denial::UnknownRefreshToken.into());
            }
            // Before anything that could change or end the session: a presenter without the key can do neither.
            proves_key(&session, &refresh)?;
            presents_certificate(&session, &refresh)?;
            if let (Some(proof), false) = (&refresh.proof, is_proved) {
                proof.use_once(self.clock.now(), &*self.store).await?;
                is_proved = true;
            }
            self.belongs(&session, &refresh).await?;
            if user.is_none() && session.dialect.as_ref() != APPLICATION {
                user = match &self.directory {
                    Some(directory) => {
                        Some(self.look_up(directory.as_ref(), session.account.as_deref(), &session.subject).await?)
                    }
                    None => None,
                };
            }
            // Notes that are not written yet count.
            session.confirmed |= self.confirmations.has(session.id, session.current);
            let now = self.clock.now();
            let profile = bounded(&session, refresh.profile);
            let mut facts = self.facts(&session, user.as_ref(), minimum_known);
            let mut decision = decide(&session, presented, facts, now, &profile);
            if is_recalled && decision != Decision::Rotate {
                // Only the swap of a rotation finds out whether the record is still so.
                continue;
            }
            if decision == (Decision::Ahead { fast_forward: false }) && self.may_continue(&session).await? {
                facts.unbroken_revocations = true;
                decision = decide(&session, presented, facts, now, &profile);
            }
            let how = match decision {
                Decision::Revoked(why) => {
                    if session.status == Status::Live && self.ended_elsewhere(&session) {
                        self.revoke_session(&session, RevokedBecause::IssuerLogout).await?;
                    } else if ends_for_its_user(&session, user.as_ref(), why) {
                        self.revoke_session(&session, RevokedBecause::UserChanged).await?;
                    }
                    return Err(Denial::SessionRevoked(self.cause_of(&session, user.as_ref(), why)).into());
                }
                Decision::Expired(which) => return Err(Denial::SessionExpired(which).into()),
                Decision::Ahead { fast_forward: false } => {
                    self.counts.add(Event::Ahead);
                    audit::ahead(&session, presented, refresh.origin);
                    return Err(Denial::Ahead.into());
                }
                Decision::Reuse(reuse) => {
                    // Its client may have gone on at another gate meanwhile (requirement C9).
                    self.is_recent(refresh.arrived)?;
                    let Some(own) = self.written_in_doubt(&session, presented).await? else {
                        return Err(self.reused(&session, reuse, &refresh).await?.into());
                    };
                    let id = own.id;
                    // Not without the turn: it is answered once.
                    if let Some(issued) = self.replay(&keyring, own, now, &refresh, user.as_ref(), &mut None).await? {
                        self.resolved(id);
                        self.counts.add(Event::Replayed);
                        return Ok(with_user(issued, user));
                    }
                    continue;
                }
                Decision::Replay => {
                    if let Some(issued) =
                        self.replay(&keyring, session, now, &refresh, user.as_ref(), &mut turn).await?
                    {
                        self.counts.add(Event::Replayed);
                        return Ok(with_user(issued, user));
                    }
                    continue;
                }
                Decision::Rotate => IssueKind::Rotated,
                Decision::Reissue => IssueKind::Reissued,
                Decision::Ahead { fast_forward: true } => IssueKind::FastForwarded,
            };
            names_resource(&session, &refresh)?;
            if !counted {
                self.limits.rotation(session.id).inspect_err(|denial| {
                    let (subject, client) = (Some(session.subject.clone()), Some(session.client.clone()));
                    let of = || HeldUp { session: Some(session.id), subject, client, ..HeldUp::default() };
                    self.tell_held_up(&(*denial).into(), refresh.origin, of);
                })?;
                counted = true;
            }
            let pair = LastPair {
                scope: granted_at_refresh(&session, &refresh, user.as_ref().and_then(Option::as_ref))?,
                access_expires: access_expiry(now, session.expires, refresh.access_ttl, refresh.profile),
                kid: keyring.signer().kid().into(),
                refresh_key: keyring.refresh_keys().current(),
            };
            let Some(mut step) = rotation::apply_decision(&session, decision, presented, pair, now, &profile) else {
                return Err(Fault::Contention.into());
            };
            step.record.claims = claims_now(&session, user.as_ref());
            if let (Some(_), Some(proof)) = (session.bound_to, &refresh.proof) {
                // A confidential client may change its key: its refresh tokens are bound to its secret.
                step.record.bound_to = Some(proof.key());
            }
            if session.certificate.is_some() {
                // The same for its certificate, which was renewed.
                step.record.certificate = refresh.certificate;
            }
            let raised = step.raised.map(|raised| Revocation::raised(session.id, raised, self.leeway));
            self.is_recent(refresh.arrived)?;
            // As before a read: the swap brings the record if another request has changed it.
            let minimum_known = self.revocations.minimum(session.id);
            // The first is asked first: while the store writes, the token is signed.
            let (swapped, issued) =
                tokio::join!(self.swap(session.revision, step.record.clone(), raised.clone()), async {
                    self.pair(&keyring, &step.record, now, how)
                });
            match swapped? {
                Swap::Swapped => {
                    if is_recalled {
                        self.written.count_right();
                    }
                    self.keep_written(&step.record);
                    self.last_refreshes.remember(&step.record, self.kept_origin(refresh.origin));
                    if let Some(successor) = successor_token(&keyring, &step.record) {
                        self.live_sessions.advance(session.id, presented, successor);
                    }
                    if let Some(raised) = &raised {
                        self.revocations.apply(raised);
                    }
                    self.counts.add(if how == IssueKind::Rotated { Event::Rotated } else { Event::Reissued });
                    audit::refreshed(&step.record, how, refresh.origin);
                    // Without a token the session has gone on all the same, as if this reply were lost.
                    return Ok(with_user(issued?, user));
                }
                // Another request changed the session, or the session ended: decide again on the new record.
                Swap::Changed(now) => {
                    if is_recalled {
                        self.written.count_wrong();
                    }
                    read = now.map(|session| ReadRecord { session: *session, minimum_known, is_recalled: false });
                }
                Swap::NoLongerValid if is_recalled => self.written.count_wrong(),
                Swap::NoLongerValid => {}
            }
        }
        Err(Fault::Contention.into())
    }

    /// The record, if a refresh with this token at this node wrote it, and the store's reply did not come. The client
    /// repeats that refresh and has no later tokens: no window counts for it (requirement C11).
    async fn written_in_doubt(&self, session: &Session, presented: Generation) -> Result<Option<Session>, StoreError> {
        match self.store.shared() {
            Some(shared) if presented == session.previous && !session.confirmed => {
                let own = shared.written_in_doubt(session.id).await?;
                Ok(own.filter(|own| own.revision == session.revision))
            }
            Some(_) | None => Ok(None),
        }
    }

    fn resolved(&self, id: SessionId) {
        if let Some(shared) = self.store.shared() {
            shared.resolved(id);
        }
    }

    async fn swap(&self, expected: u64, record: Session, raised: Option<Revocation>) -> Result<Swap, StoreError> {
        let swapping = self.measured(self.store.compare_and_swap(expected, record, raised));
        let swapped = trace::step("rotogate.store.commit", "swap", swapping).await;
        if swapped.is_err() {
            // The write may have reached the store, and then the list lacks what it revokes.
            self.is_behind.store(true, Ordering::SeqCst);
        }
        swapped
    }

    /// Adds to the list what the store knows of revocations and the list does not, once the store works again. From a
    /// shared store its feed brings that.
    pub(crate) async fn catch_up(&self) {
        if self.store.shared().is_some() || !self.is_behind.load(Ordering::SeqCst) || self.store.check().await.is_err()
        {
            return;
        }
        self.is_behind.store(false, Ordering::SeqCst);
        match self.store.revocations_since(Cursor::default()).await {
            Ok((entries, _)) => entries.iter().for_each(|entry| {
                self.revocations.apply(entry);
            }),
            Err(_) => self.is_behind.store(true, Ordering::SeqCst),
        }
    }

    /// Checks that the session belongs to the client, the account and the endpoint at which its token was presented.
    async fn belongs(&self, session: &Session, refresh: &Refresh<'_>) -> Result<(), Error> {
        if session.client != refresh.client.id {
            self.counts.add(Event::OtherClient);
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
        // Accepting a dialect's sessions does not make their access tokens refresh credentials (requirement R17).
        let taken = match refresh.credential {
            Exchange::Access(_) => refresh.by_access,
            Exchange::Refresh(_) | Exchange::Pair(..) => refresh.accepts,
        };
        if !taken.contains(&session.dialect) {
            return Err(Denial::OtherDialect.into());
        }
        Ok(())
    }

    /// Whose moment it is that a session began before. The table of decisions knows the latest of them alone.
    // Requirement O33.
    fn cause_of(&self, session: &Session, user: Option<&Option<User>>, why: SessionEnd) -> SessionEnd {
        match why {
            SessionEnd::BeforeValidFrom if ends_for_its_user(session, user, why) => why,
            SessionEnd::BeforeValidFrom if self.ended_elsewhere(session) => SessionEnd::Elsewhere,
            SessionEnd::BeforeValidFrom => SessionEnd::NotBefore,
            SessionEnd::Record
            | SessionEnd::List
            | SessionEnd::UserInactive
            | SessionEnd::NotBefore
            | SessionEnd::Elsewhere => why,
        }
    }

    /// Did the issuer that vouched for the user end the login there?
    pub(super) fn ended_elsewhere(&self, session: &Session) -> bool {
        session.vouched_by.as_ref().is_some_and(|by| self.revocations.ended_elsewhere(by, session.created()))
    }

    fn facts(&self, session: &Session, user: Option<&Option<User>>, minimum_known: Generation) -> Facts {
        let listed = self.revocations.not_before(&self.issuer, &session.subject, Some(&session.client));
        let (user_active, valid_from) = match user {
            // No directory answers for this session.
            None => (true, Timestamp::ZERO),
            Some(None) => (false, Timestamp::ZERO),
            // A user who was moved to another account is not a user of this one.
            Some(Some(user)) => (user.active && user.account == session.account, user.sessions_valid_from),
        };
        let elsewhere = if self.ended_elsewhere(session) { session.created() } else { Timestamp::ZERO };
        Facts {
            user_active,
            sessions_valid_from: valid_from.max(listed).max(elsewhere),
            minimum_known,
            // The store of a single node falls behind only while no process has it open, so no process kept the
            // revocations. Of a shared one, `may_continue` says it.
            unbroken_revocations: false,
        }
    }

    /// Returns the current pair again: the same bytes, if key and time allow it. `None` if the session changed
    /// meanwhile.
    async fn replay(
        &self,
        keyring: &Keyring,
        session: Session,
        now: Timestamp,
        refresh: &Refresh<'_>,
        user: Option<&Option<User>>,
        turn: &mut Option<Turn<'_>>,
    ) -> Result<Option<IssuedTokens>, Error> {
        // The pair is bound to the key of the request that it answered first.
        if session.bound_to.is_some() && session.bound_to != refresh.proof.as_ref().map(OnceProof::key) {
            return Err(Denial::OtherSessionKey.into());
        }
        if session.certificate.is_some() && session.certificate != refresh.certificate {
            return Err(Denial::OtherSessionCertificate.into());
        }
        names_resource(&session, refresh)?;
        let last = &session.last;
        let life = last.access_expires.since(session.issued_at);
        let left = last.access_expires.since(now);
        let same_keys = keyring.signing_key(&last.kid).is_some() && keyring.refresh_keys().contains(last.refresh_key);
        let scope = still_granted(&last.scope, refresh.client, user.and_then(Option::as_ref));
        let claims = claims_now(&session, user);
        let allowed = scope == last.scope && claims == session.claims;
        // Near the session's end, no new token would live longer.
        let longest = left * 2 >= life || last.access_expires.as_secs() >= session.expires.as_secs();
        if same_keys && allowed && longest {
            // Nothing is written from here on. Those that wait for replicas wait together, not one after the other.
            drop(turn.take());
            // The rotation may have been read before it was acknowledged (requirement C14).
            self.settle().await?;
            self.last_refreshes.count_replay(session.id, session.current);
            return Ok(Some(self.pair(keyring, &session, now, IssueKind::Replayed)?));
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
            claims,
            revision: expected + 1,
            ..session
        };
        let issued = self.pair(keyring, &record, now, IssueKind::Replayed)?;
        let (id, current, successor) = (record.id, record.current, successor_token(keyring, &record));
        let swapping = self.measured(self.store.compare_and_swap(expected, record.clone(), None));
        match trace::step("rotogate.store.commit", "swap", swapping).await? {
            Swap::Swapped => {
                self.keep_written(&record);
                self.last_refreshes.count_replay(id, current);
                if let Some(successor) = successor {
                    self.live_sessions.advance(id, current, successor);
                }
                Ok(Some(issued))
            }
            Swap::Changed(_) | Swap::NoLongerValid => Ok(None),
        }
    }

    /// Ends what the profile's `on_reuse` says, before the reply.
    async fn reused(&self, session: &Session, reuse: Reuse, refresh: &Refresh<'_>) -> Result<Denial, Error> {
        self.counts.add(Event::Reuse);
        let last = self.last_refreshes.get(session.id, session.current);
        let evidence = Evidence::of(session, last, reuse, refresh.profile.grace, refresh.origin);
        audit::reuse(session, reuse, &evidence, refresh);
        match refresh.profile.on_reuse {
            OnReuse::RevokeSession => {
                self.revoke_session(session, RevokedBecause::Reuse).await?;
            }
            OnReuse::RevokeSubject => {
                let one = self.revoke_session(session, RevokedBecause::Reuse).await;
                // A fault of the one does not spare the others.
                self.revoke_subject(&session.subject, RevokedBecause::Reuse).await?;
                one?;
            }
            OnReuse::Deny => {}
        }
        Ok(Denial::Reuse(reuse))
    }

    /// May this access token, superseded by a rotation, be exchanged for the same successor again?
    ///
    /// # Errors
    /// A fault of store or directory.
    pub async fn may_be_replayed(&self, access: OwnChecked<'_>, profile: &Profile) -> Result<bool, Error> {
        let Some((session, generation)) = access.token().session else { return Ok(false) };
        let minimum_known = self.revocations.minimum(session);
        let Some(session) = self.store.load(session).await? else { return Ok(false) };
        let user = match &self.directory {
            Some(directory) if session.dialect.as_ref() != APPLICATION => {
                Some(self.look_up(directory.as_ref(), session.account.as_deref(), &session.subject).await?)
            }
            Some(_) | None => None,
        };
        let facts = self.facts(&session, user.as_ref(), minimum_known);
        let profile = bounded(&session, profile);
        Ok(decide(&session, generation, facts, self.clock.now(), &profile) == Decision::Replay)
    }
}

/// Checks the key of a bound session. That of a public client stays what it was at its login; a confidential client
/// authenticates by its secret, so it may use another one, but never none.
// Requirements N35, N37.
fn proves_key(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    let Some(bound_to) = session.bound_to else { return Ok(()) };
    let proof = refresh.proof.as_ref().ok_or(ProofFlaw::Missing)?;
    if may_change_binding(session, refresh) || proof.key() == bound_to { Ok(()) } else { Err(Denial::OtherSessionKey) }
}

/// The same for the client certificate (RFC 8705 §4).
fn presents_certificate(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    let Some(bound_to) = session.certificate else { return Ok(()) };
    let presented = refresh.certificate.ok_or(Denial::OtherSessionCertificate)?;
    if may_change_binding(session, refresh) || presented == bound_to {
        Ok(())
    } else {
        Err(Denial::OtherSessionCertificate)
    }
}

/// Does the client prove by its secret that the session is its own?
fn may_change_binding(session: &Session, refresh: &Refresh<'_>) -> bool {
    refresh.client.secret_hash.is_some() && session.client == refresh.client.id
}

/// A refresh may name the resource of its session, and no other (RFC 8707 §2.2). Judged of good tokens alone: a bad one gets
/// the answer that every bad one gets.
// Requirement N45.
fn names_resource(session: &Session, refresh: &Refresh<'_>) -> Result<(), Denial> {
    if refresh.resource.is_none() || refresh.resource == session.resource { Ok(()) } else { Err(Denial::InvalidTarget) }
}

/// The rules of a session. One that began by another issuer must be refreshed while a notice of that issuer is kept: so no
/// such session outlives a notice unseen.
fn bounded<'a>(session: &Session, profile: &'a Profile) -> Cow<'a, Profile> {
    match session.vouched_by {
        Some(_) if profile.idle_ttl > VOUCHED_IDLE => Cow::Owned(Profile { idle_ttl: VOUCHED_IDLE, ..profile.clone() }),
        Some(_) | None => Cow::Borrowed(profile),
    }
}

/// Whether the directory says that the session is over. Then it ends for good, and with it its access tokens: a user who
/// is enabled again logs in again.
// Requirement I23.
fn ends_for_its_user(session: &Session, user: Option<&Option<User>>, why: SessionEnd) -> bool {
    match why {
        SessionEnd::UserInactive => true,
        // A not-before in the revocation list has the same effect by itself.
        SessionEnd::BeforeValidFrom => {
            user.and_then(Option::as_ref).is_some_and(|user| session.created() <= user.sessions_valid_from)
        }
        SessionEnd::Record | SessionEnd::List | SessionEnd::NotBefore | SessionEnd::Elsewhere => false,
    }
}

/// A record as the store had it, and what the list knew of its session before it was read.
struct ReadRecord {
    session: Session,
    minimum_known: Generation,
    /// It was not read: the store had it once, and may have a later one.
    is_recalled: bool,
}

/// A refresh that has its turn and its session's record.
pub(crate) struct Begun<'a> {
    record: ReadRecord,
    turn: Turn<'a>,
}

impl Begun<'_> {
    /// The client of the session.
    pub(crate) fn client(&self) -> &str {
        &self.record.session.client
    }
}

/// A credential whose authenticity was checked as far as possible without the session's record.
struct PresentedCredential {
    session: SessionId,
    generation: Generation,
    /// What remains to be checked against the record. `None` for an access token: its signature proves everything.
    refresh: Option<refresh::Authentic>,
}

impl PresentedCredential {
    fn of(credential: Exchange<'_>, keyring: &Keyring) -> Result<Self, Denial> {
        let by_refresh = |token: &SecretString| {
            let authentic = refresh::authenticate(keyring.refresh_keys(), token.expose_secret())
                .ok_or(Denial::UnknownRefreshToken)?;
            Ok(Self { session: authentic.session, generation: authentic.generation, refresh: Some(authentic) })
        };
        match credential {
            Exchange::Refresh(token) => by_refresh(token),
            Exchange::Access(access) => {
                let (session, generation) = access.token().session.ok_or(Denial::UnknownRefreshToken)?;
                Ok(Self { session, generation, refresh: None })
            }
            Exchange::Pair(token, access) => {
                let held = by_refresh(token)?;
                let (session, generation) = access.token().session.ok_or(Denial::UnknownRefreshToken)?;
                let fits = session == held.session
                    && (generation == held.generation || generation.next() == Some(held.generation));
                if fits { Ok(held) } else { Err(Denial::MismatchedPair) }
            }
        }
    }

    fn proves(&self, session: &Session) -> bool {
        self.refresh.as_ref().is_none_or(|authentic| authentic.proves(&session.secret, &session.client))
    }
}

/// The user's current claims in the directory; those of the last pair, if no directory answers for the session.
fn claims_now(session: &Session, user: Option<&Option<User>>) -> OwnClaims {
    match user {
        Some(Some(user)) => user.claims.clone(),
        Some(None) | None => session.claims.clone(),
    }
}

/// The terms of the session's long connections after this record was written. `None` if the key that signed its token
/// is gone: then the token is refused, too.
pub(super) fn successor_token(keyring: &Keyring, record: &Session) -> Option<SuccessorToken> {
    let key = keyring.signing_key(&record.last.kid)?.verifying_key().print();
    Some(SuccessorToken { generation: record.current, expires: record.last.access_expires, key })
}

fn with_user(issued: IssuedTokens, user: Option<Option<User>>) -> IssuedTokens {
    IssuedTokens { user: user.flatten(), ..issued }
}
