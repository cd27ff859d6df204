//! Continues a session by exchanging a credential for the next pair of tokens.

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
    /// Exchanges a refresh credential. The rules are in [`rotation`](crate::session::rotation).
    ///
    /// The future must run to completion. Spawn it as a task if its caller may be dropped. If the future is dropped
    /// between the write to the store and the update of the revocation list, the session has rotated, but the access
    /// tokens that the rotation ends stay valid until the next start.
    ///
    /// # Errors
    /// A [`Denial`] by the rules of the table; or a fault, after which the client can retry with the same credential.
    pub async fn refresh(&self, refresh: Refresh<'_>) -> Result<IssuedTokens, Error> {
        self.refresh_from(refresh, None).await
    }

    /// Waits for a turn on the session of a refresh token, and reads its record, for
    /// [`refresh_from`](Self::refresh_from).
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn begin_refresh(&self, token: &SecretString) -> Result<Option<StartedRefresh<'_>>, Error> {
        self.begin_explained(token, None).await
    }

    /// Implements [`begin_refresh`](Self::begin_refresh). With `explained`, it serves an explanation, which has no
    /// effects.
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
            // A request must pass this check before all other steps.
            self.may_mint()?;
        }
        let turn = self.turns.take(named.session).await;
        // A record from memory may be outdated. Only the swap of a rotation detects an outdated record, so an
        // explanation reads the record from the store.
        let recalled =
            if explained.is_none() { self.recall_for_refresh(named.session, named.generation) } else { None };
        let record = match recalled {
            Some(record) => Some(record),
            None => self.read_for_refresh(named.session).await?,
        };
        // An actual refresh checks the token against the record later, in each attempt.
        let proves = |record: &ReadRecord| named.proves(&record.session.secret, &record.session.client);
        let record = record.filter(|record| explained.is_none() || proves(record));
        if let (Some(record), Some(explained)) = (&record, explained) {
            explained.session = Some(record.session.clone());
        }
        Ok(record.map(|record| StartedRefresh { record, turn }))
    }

    /// The record that this gate wrote last, if the store may still have the same record.
    fn recall_for_refresh(&self, id: SessionId, presented: Generation) -> Option<ReadRecord> {
        let minimum_known = self.revocations.minimum(id);
        let session = self.written.recall(id, presented)?;
        Some(ReadRecord { session, minimum_known, is_recalled: true })
    }

    pub(super) async fn read_for_refresh(&self, id: SessionId) -> Result<Option<ReadRecord>, StoreError> {
        // The revocation list is read before the record. Otherwise, after a concurrent refresh, the record would look
        // as if it lacked a write that the list already contains.
        let minimum_known = self.revocations.minimum(id);
        let read = self.store.load(id).await?;
        Ok(read.map(|session| ReadRecord { session, minimum_known, is_recalled: false }))
    }

    /// Does the same as [`refresh`](Self::refresh), with the turn and the record of
    /// [`begin_refresh`](Self::begin_refresh), which saves a read.
    ///
    /// # Errors
    /// The errors of [`refresh`](Self::refresh).
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

    /// Returns the record if this gate wrote it in a refresh with this token, but the store's reply was lost. The
    /// client repeats that refresh and cannot have later tokens, so the repetition is allowed at any time (requirement
    /// C11).
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
            // The write may have reached the store. In that case the revocation list lacks the revocations of this
            // write.
            self.is_behind.store(true, Ordering::SeqCst);
        }
        swapped
    }

    /// Adds the revocations that are in the store but not in the revocation list, once the store works again. For a
    /// shared store, the feed adds them.
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

    /// The directory's entry for the user of a session. The outer `None` means that the directory is not responsible
    /// for the session, because the application or a provider logged the user in.
    pub(super) async fn user_of(&self, session: &Session) -> Result<Option<Option<User>>, Error> {
        let is_at_provider = session.browser.as_deref().is_some_and(|binding| binding.at_provider);
        match &self.directory {
            Some(directory) if !is_at_provider && session.dialect.as_ref() != APPLICATION => {
                Ok(Some(self.look_up(directory.as_ref(), session.account.as_deref(), &session.subject).await?))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// The source of the not-before that ended the session. The decision table knows only the latest not-before.
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

    /// The denial for a session that must be treated as revoked, with the cause of the session's end. If the session's
    /// user or another issuer caused the end, the end is also written to the store.
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

    /// Returns whether the other issuer that authenticated the user has ended the user's login.
    pub(super) fn ended_elsewhere(&self, session: &Session) -> bool {
        session.vouched_by.as_ref().is_some_and(|by| self.revocations.ended_elsewhere(by, session.created()))
    }

    pub(super) fn facts(&self, session: &Session, user: Option<&Option<User>>, minimum_known: Generation) -> Facts {
        let listed = self.revocations.not_before(&self.issuer, &session.subject, Some(&session.client));
        let (user_active, valid_from) = match user {
            // The directory is not responsible for this session.
            None => (true, Timestamp::ZERO),
            Some(None) => (false, Timestamp::ZERO),
            // A user who was moved to another account no longer counts as the user of this session.
            Some(Some(user)) => (user.active && user.account == session.account, user.sessions_valid_from),
        };
        let elsewhere = if self.ended_elsewhere(session) { session.created() } else { Timestamp::ZERO };
        Facts {
            user_active,
            sessions_valid_from: valid_from.max(listed).max(elsewhere),
            minimum_known,
            // The store of a single gate can lose writes only while the process does not run, and then the list of
            // revocations in memory is lost as well. For a shared store, `may_continue` decides.
            unbroken_revocations: false,
        }
    }

    fn count_replay(&self, session: &Session) {
        self.last_refreshes.count_replay(session.id, session.current);
        self.counts.add(Event::Replayed);
    }

    /// Counts a reuse, and reports it to the audit log and to the application.
    fn tell_reuse(&self, session: &Session, reuse: Reuse, refresh: &Refresh<'_>) {
        self.counts.add(Event::Reuse);
        let last = self.last_refreshes.get(session.id, session.current);
        let evidence = Evidence::new(session, last, reuse, refresh.profile.grace, refresh.origin);
        self.events.tell(&Happening::Reuse { session, reuse, evidence: &evidence, refresh });
    }

    /// Ends the sessions that the profile's `on_reuse` specifies, before the reply is sent.
    async fn reused(&self, session: &Session, reuse: Reuse, refresh: &Refresh<'_>) -> Result<Denial, Error> {
        self.tell_reuse(session, reuse, refresh);
        match refresh.profile.on_reuse {
            OnReuse::RevokeSession => {
                self.revoke_session(session, RevokedBecause::Reuse).await?;
            }
            OnReuse::RevokeSubject => {
                let one = self.revoke_session(session, RevokedBecause::Reuse).await;
                // End the subject's other sessions even if ending this session failed.
                self.revoke_subject(&session.subject, RevokedBecause::Reuse).await?;
                one?;
            }
            OnReuse::Deny => {}
        }
        Ok(reuse.denial())
    }
}

/// The rules of a session. If another issuer authenticated the session's user, the session must be refreshed within the
/// time for which that issuer's notices are kept, so that the session cannot outlive a missed notice.
pub(super) fn bounded<'a>(session: &Session, profile: &'a Profile) -> Cow<'a, Profile> {
    match session.vouched_by {
        Some(_) if profile.idle_ttl > VOUCHED_IDLE => Cow::Owned(Profile { idle_ttl: VOUCHED_IDLE, ..profile.clone() }),
        Some(_) | None => Cow::Borrowed(profile),
    }
}

/// Returns whether the directory ends the session. This end is final for the session and its access tokens. A user who
/// is enabled again must log in again.
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

/// A record as read from the store, and the session's minimum generation in the revocation list before the read.
pub(super) struct ReadRecord {
    pub(super) session: Session,
    pub(super) minimum_known: Generation,
    /// Whether the record comes from memory instead of the store. The store may have a later version.
    pub(super) is_recalled: bool,
}

/// A refresh that has its turn on the session, and the session's record.
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

/// The user's current claims in the directory, or the claims of the last pair if the directory is not responsible for
/// the session.
pub(super) fn claims_now(session: &Session, user: Option<&Option<User>>) -> OwnClaims {
    match user {
        Some(Some(user)) => user.claims.clone(),
        Some(None) | None => session.claims.clone(),
    }
}

/// The access token that determines how long the session's open connections last after this record was written. Returns
/// `None` if the key that signed the token was removed, because the token is then also refused.
pub(super) fn successor_token(keyring: &Keyring, record: &Session) -> Option<SuccessorToken> {
    let key = keyring.signing_key(&record.last.kid)?.verifying_key().print();
    let (generation, issued_at) = (record.current, record.issued_at);
    Some(SuccessorToken { generation, issued_at, expires: record.last.access_expires, key })
}
