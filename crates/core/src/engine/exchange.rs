//! Continues a session: exchanges a credential for the next pair.

use std::borrow::Cow;
use std::sync::atomic::Ordering;

use secrecy::{ExposeSecret, SecretString};

use super::events::Happening;
use super::evidence::Evidence;
use super::grant::allowed_ttl;
use super::turn::Turn;
use super::{APPLICATION, Engine, Event, IssuedTokens, MAX_TRIES, Refresh, audit};
use crate::claim::OwnClaims;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::directory::User;
use crate::engine::live_sessions::SuccessorToken;
use crate::fault::{Error, Fault};
use crate::revocation::Revocation;
use crate::session::profile::{OnReuse, Profile};
use crate::session::rotation::{Facts, Reuse, SessionEnd};
use crate::session::{Generation, RevokedBecause, Session, SessionId, Status};
use crate::store::{Cursor, StoreError, Swap};
use crate::token::keyring::Keyring;
use crate::token::refresh;
use crate::token::verify::VOUCHED_IDLE;
use crate::trace;

mod explain;
mod presented;
mod run;

pub use explain::{ExplainedRefresh, RefreshTerms, denial_of, rotates};
use run::RefreshRun;

impl Engine {
    /// Exchanges a refresh credential. [`rotation`](crate::session::rotation) has the rules.
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

    /// Takes a turn on the session that a refresh token names, and reads its record, for
    /// [`refresh_from`](Self::refresh_from).
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn begin_refresh(&self, token: &SecretString) -> Result<Option<StartedRefresh<'_>>, Error> {
        self.begin_explained(token, None).await
    }

    /// [`begin_refresh`](Self::begin_refresh); with `explained`, of an explanation, which has no effects.
    async fn begin_explained(
        &self,
        token: &SecretString,
        mut explained: Option<&mut ExplainedRefresh>,
    ) -> Result<Option<StartedRefresh<'_>>, Error> {
        let Some(named) = refresh::authenticate(self.keyring().refresh_keys(), token.expose_secret()) else {
            return Ok(None);
        };
        if let Some(explained) = &mut explained {
            explained.named = Some((named.session, named.generation));
            // For a request this is checked before all other steps.
            self.may_mint()?;
        }
        let turn = self.turns.take(named.session).await;
        // Only the swap of a rotation detects whether a recalled record is outdated.
        let recalled =
            if explained.is_none() { self.recall_for_refresh(named.session, named.generation) } else { None };
        let record = match recalled {
            Some(record) => Some(record),
            None => self.read_for_refresh(named.session).await?,
        };
        // A request checks the token against the record of each attempt instead.
        let proves = |record: &ReadRecord| named.proves(&record.session.secret, &record.session.client);
        let record = record.filter(|record| explained.is_none() || proves(record));
        if let (Some(record), Some(explained)) = (&record, explained) {
            explained.session = Some(record.session.clone());
        }
        Ok(record.map(|record| StartedRefresh { record, turn }))
    }

    /// The record that this gate wrote last, if the store may still have it.
    fn recall_for_refresh(&self, id: SessionId, presented: Generation) -> Option<ReadRecord> {
        let minimum_known = self.revocations.minimum(id);
        let session = self.written.recall(id, presented)?;
        Some(ReadRecord { session, minimum_known, is_recalled: true })
    }

    pub(super) async fn read_for_refresh(&self, id: SessionId) -> Result<Option<ReadRecord>, StoreError> {
        // The list is read before the record: otherwise the list entry of a concurrent refresh would look like a write
        // that the record has lost.
        let minimum_known = self.revocations.minimum(id);
        let read = self.store.load(id).await?;
        Ok(read.map(|session| ReadRecord { session, minimum_known, is_recalled: false }))
    }

    /// [`refresh`](Self::refresh) with the turn and the record of [`begin_refresh`](Self::begin_refresh), which saves a
    /// read.
    ///
    /// # Errors
    /// As [`refresh`](Self::refresh).
    pub async fn refresh_from(
        &self,
        refresh: Refresh<'_>,
        begun: Option<StartedRefresh<'_>>,
    ) -> Result<IssuedTokens, Error> {
        self.may_mint()?;
        self.is_recent(refresh.arrived)?;
        allowed_ttl(refresh.access_ttl, refresh.profile)?;
        let mut run = RefreshRun::begin(self, refresh, begun, None).await?;
        for _ in 0..MAX_TRIES {
            if let Some(issued) = run.attempt().await? {
                return Ok(IssuedTokens { user: run.into_user(), ..issued });
            }
        }
        Err(Fault::Contention.into())
    }

    /// The record, if a refresh with this token at this gate wrote it, and the store's reply was lost. The client
    /// repeats that refresh and has no later tokens, so no window limits it (requirement C11).
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

    pub(super) async fn swap(
        &self,
        expected: u64,
        record: Session,
        raised: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        let swapping = self.measured(self.store.compare_and_swap(expected, record, raised));
        let swapped = trace::step("rotogate.store.commit", "swap", swapping).await;
        if swapped.is_err() {
            // The write may have reached the store. Then the list lacks the write's revocations.
            self.is_behind.store(true, Ordering::SeqCst);
        }
        swapped
    }

    /// Adds the revocations that the store has and the list lacks, once the store works again. The feed of a shared
    /// store does this on its own.
    pub async fn catch_up(&self) {
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

    /// Applies the profile's rule for a client that presents another client's token.
    async fn judge_other_client(&self, session: &Session, refresh: &Refresh<'_>) -> Result<(), Error> {
        self.counts.add(Event::OtherClient);
        audit::other_client(session, &refresh.client.id, refresh.origin);
        if refresh.profile.other_client_ends_session {
            self.revoke_session(session, RevokedBecause::OtherClient).await?;
        }
        Ok(())
    }

    /// The user of a session. `None` if no directory answers for the session: the application or a provider does.
    pub(super) async fn user_of(&self, session: &Session) -> Result<Option<Option<User>>, Error> {
        let is_at_provider = session.browser.as_deref().is_some_and(|binding| binding.at_provider);
        match &self.directory {
            Some(directory) if !is_at_provider && session.dialect.as_ref() != APPLICATION => {
                Ok(Some(self.look_up(directory.as_ref(), session.account.as_deref(), &session.subject).await?))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The source of the not-before that ended the session. The table of decisions knows only the latest not-before.
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

    /// The end of a session that counts as revoked, with its cause. If its user or another issuer ended the session, the
    /// store ends it, too.
    pub(super) async fn end_revoked(
        &self,
        session: &Session,
        user: Option<&Option<User>>,
        why: SessionEnd,
    ) -> Result<SessionEnd, Error> {
        if session.status == Status::Live && self.ended_elsewhere(session) {
            self.revoke_session(session, RevokedBecause::IssuerLogout).await?;
        } else if ends_for_its_user(session, user, why) {
            self.revoke_session(session, RevokedBecause::UserChanged).await?;
        }
        Ok(self.cause_of(session, user, why))
    }

    /// Has the issuer that vouched for the user ended the user's login at this issuer?
    pub(super) fn ended_elsewhere(&self, session: &Session) -> bool {
        session.vouched_by.as_ref().is_some_and(|by| self.revocations.ended_elsewhere(by, session.created()))
    }

    pub(super) fn facts(&self, session: &Session, user: Option<&Option<User>>, minimum_known: Generation) -> Facts {
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
            // The store of a single gate falls behind only while no process has it open, so no process kept the
            // revocations. `may_continue` decides for a shared store.
            unbroken_revocations: false,
        }
    }

    fn count_replay(&self, session: &Session) {
        self.last_refreshes.count_replay(session.id, session.current);
        self.counts.add(Event::Replayed);
    }

    /// Ends what the profile's `on_reuse` names, before the reply.
    async fn reused(&self, session: &Session, reuse: Reuse, refresh: &Refresh<'_>) -> Result<Denial, Error> {
        self.counts.add(Event::Reuse);
        let last = self.last_refreshes.get(session.id, session.current);
        let evidence = Evidence::new(session, last, reuse, refresh.profile.grace, refresh.origin);
        self.events.tell(&Happening::Reuse { session, reuse, evidence: &evidence, refresh });
        match refresh.profile.on_reuse {
            OnReuse::RevokeSession => {
                self.revoke_session(session, RevokedBecause::Reuse).await?;
            }
            OnReuse::RevokeSubject => {
                let one = self.revoke_session(session, RevokedBecause::Reuse).await;
                // Both ends are tried, even if one fails.
                self.revoke_subject(&session.subject, RevokedBecause::Reuse).await?;
                one?;
            }
            OnReuse::Deny => {}
        }
        Ok(reuse.denial())
    }
}

/// The rules of a session. A session that another issuer vouched for must be refreshed as long as a notice of that
/// issuer is kept, so that no such session outlives an unseen notice.
pub(super) fn bounded<'a>(session: &Session, profile: &'a Profile) -> Cow<'a, Profile> {
    match session.vouched_by {
        Some(_) if profile.idle_ttl > VOUCHED_IDLE => Cow::Owned(Profile { idle_ttl: VOUCHED_IDLE, ..profile.clone() }),
        Some(_) | None => Cow::Borrowed(profile),
    }
}

/// Does the directory end the session? Such an end is final for the session and its access tokens: a user who is
/// enabled again must log in again.
// Requirement I23.
fn ends_for_its_user(session: &Session, user: Option<&Option<User>>, why: SessionEnd) -> bool {
    match why {
        SessionEnd::UserInactive => true,
        // A not-before in the revocation list has the same effect.
        SessionEnd::BeforeValidFrom => {
            user.and_then(Option::as_ref).is_some_and(|user| session.created() <= user.sessions_valid_from)
        }
        SessionEnd::Record | SessionEnd::List | SessionEnd::NotBefore | SessionEnd::Elsewhere => false,
    }
}

/// A record as it was in the store, and the revocation list's entry for the session before the read.
pub(super) struct ReadRecord {
    pub(super) session: Session,
    pub(super) minimum_known: Generation,
    /// The record was not read from the store but recalled: the store may have a later record.
    pub(super) is_recalled: bool,
}

/// A refresh that has its turn and the record of its session.
pub struct StartedRefresh<'a> {
    record: ReadRecord,
    turn: Turn<'a>,
}

impl StartedRefresh<'_> {
    /// The client of the session.
    pub fn client(&self) -> &str {
        &self.record.session.client
    }
}

/// The user's current claims in the directory; the claims of the last pair, if no directory answers for the session.
pub(super) fn claims_now(session: &Session, user: Option<&Option<User>>) -> OwnClaims {
    match user {
        Some(Some(user)) => user.claims.clone(),
        Some(None) | None => session.claims.clone(),
    }
}

/// The terms of the session's long connections after this record was written. `None` if the key that signed its token
/// is gone: the token is then refused, too.
pub(super) fn successor_token(keyring: &Keyring, record: &Session) -> Option<SuccessorToken> {
    let key = keyring.signing_key(&record.last.kid)?.verifying_key().print();
    let (generation, issued_at) = (record.current, record.issued_at);
    Some(SuccessorToken { generation, issued_at, expires: record.last.access_expires, key })
}
