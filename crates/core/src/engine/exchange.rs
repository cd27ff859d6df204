//! Exchanges a credential for the next pair of tokens.

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
use crate::fault::{Error, Fault};
use crate::revocation::Revocation;
use crate::session::profile::{OnReuse, Profile};
use crate::session::rotation::{Facts, Reuse, SessionEnd};
use crate::session::{Generation, RevokedBecause, Session, SessionId, Status};
use crate::store::{Cursor, StoreError, Swap};
use crate::token::claims::SuccessorToken;
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
    /// Exchanges a refresh credential. The rules are in [`rotation`](crate::session::rotation). The future must run to
    /// completion, so spawn it as a task if its caller may be dropped. A dropped future may leave the old access tokens
    /// valid until the next start.
    ///
    /// # Errors
    /// A [`Denial`], or a fault, after which the client can retry.
    pub async fn refresh(&self, refresh: Refresh<'_>) -> Result<IssuedTokens, Error> {
        self.refresh_from(refresh, None).await
    }

    /// Waits until no other refresh of the session is running, and reads the session's record. Pass the result to
    /// [`refresh_from`](Self::refresh_from).
    ///
    /// # Errors
    /// A fault of the store.
    pub async fn begin_refresh(&self, token: &SecretString) -> Result<Option<StartedRefresh<'_>>, Error> {
        self.begin_explained(token, None).await
    }

    /// Begins a refresh. If `explained` is set, the function only fills it and has no other effect.
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
            self.may_mint()?;
        }
        let turn = self.turns.take(named.session).await;
        // For an explanation, read the store, because the record in memory may be outdated.
        let recalled =
            if explained.is_none() { self.recall_for_refresh(named.session, named.generation) } else { None };
        let record = match recalled {
            Some(record) => Some(record),
            None => self.read_for_refresh(named.session).await?,
        };
        let proves = |record: &ReadRecord| named.proves(&record.session.secret, &record.session.client);
        let record = record.filter(|record| explained.is_none() || proves(record));
        if let (Some(record), Some(explained)) = (&record, explained) {
            explained.session = Some(record.session.clone());
        }
        Ok(record.map(|record| StartedRefresh { record, turn }))
    }

    fn recall_for_refresh(&self, id: SessionId, presented: Generation) -> Option<ReadRecord> {
        let minimum_known = self.revocations.minimum(id);
        let session = self.written.recall(id, presented)?;
        Some(ReadRecord { session, minimum_known, is_recalled: true })
    }

    pub(super) async fn read_for_refresh(&self, id: SessionId) -> Result<Option<ReadRecord>, StoreError> {
        // Read the revocation list before the record, so that a concurrent refresh does not look like a lost write.
        let minimum_known = self.revocations.minimum(id);
        let read = self.store.load(id).await?;
        Ok(read.map(|session| ReadRecord { session, minimum_known, is_recalled: false }))
    }

    /// Like [`refresh`](Self::refresh), but continues from [`begin_refresh`](Self::begin_refresh).
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

    /// Returns the record that this gate wrote for this token without an acknowledgement from the store. The client has
    /// no later tokens, so it may repeat the refresh at any time (requirement C11).
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
            // The store may have applied the write despite the error. The list then lacks the new entries.
            self.is_behind.store(true, Ordering::SeqCst);
        }
        swapped
    }

    /// Adds revocations from the store to the list once the store works again. For a shared store, the feed does this.
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

    async fn judge_other_client(&self, session: &Session, refresh: &Refresh<'_>) -> Result<(), Error> {
        self.counts.add(Event::OtherClient);
        audit::other_client(session, &refresh.client.id, refresh.origin);
        if refresh.profile.other_client_ends_session {
            self.revoke_session(session, RevokedBecause::OtherClient).await?;
        }
        Ok(())
    }

    /// Looks up the user in the directory. The outer `None` means that the directory did not log the user in.
    pub(super) async fn user_of(&self, session: &Session) -> Result<Option<Option<User>>, Error> {
        let is_at_provider = session.browser.as_deref().is_some_and(|binding| binding.at_provider);
        match &self.directory {
            Some(directory) if !is_at_provider && session.dialect.as_ref() != APPLICATION => {
                Ok(Some(self.look_up(directory.as_ref(), session.account.as_deref(), &session.subject).await?))
            }
            Some(_) | None => Ok(None),
        }
    }

    /// Determines whose not-before ended the session.
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

    /// Returns why the session ended. Revokes the session in the store if its user changed or another issuer ended it.
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

    pub(super) fn ended_elsewhere(&self, session: &Session) -> bool {
        session.vouched_by.as_ref().is_some_and(|by| self.revocations.ended_elsewhere(by, session.created()))
    }

    pub(super) fn facts(&self, session: &Session, user: Option<&Option<User>>, minimum_known: Generation) -> Facts {
        let listed = self.revocations.not_before(&self.issuer, &session.subject, Some(&session.client));
        let (user_active, valid_from) = match user {
            None => (true, Timestamp::ZERO),
            Some(None) => (false, Timestamp::ZERO),
            Some(Some(user)) => (user.active && user.account == session.account, user.sessions_valid_from),
        };
        let elsewhere = if self.ended_elsewhere(session) { session.created() } else { Timestamp::ZERO };
        Facts {
            user_active,
            sessions_valid_from: valid_from.max(listed).max(elsewhere),
            minimum_known,
            // An embedded store can lose writes only with a restart, which also clears the list in memory. For a shared
            // store, `may_continue` decides.
            unbroken_revocations: false,
        }
    }

    fn count_replay(&self, session: &Session) {
        self.last_refreshes.count_replay(session.id, session.current);
        self.counts.add(Event::Replayed);
    }

    fn tell_reuse(&self, session: &Session, reuse: Reuse, refresh: &Refresh<'_>) {
        self.counts.add(Event::Reuse);
        let last = self.last_refreshes.get(session.id, session.current);
        let evidence = Evidence::new(session, last, reuse, refresh.profile.grace, refresh.origin);
        self.events.tell(&Happening::Reuse { session, reuse, evidence: &evidence, refresh });
    }

    async fn reused(&self, session: &Session, reuse: Reuse, refresh: &Refresh<'_>) -> Result<Denial, Error> {
        self.tell_reuse(session, reuse, refresh);
        match refresh.profile.on_reuse {
            OnReuse::RevokeSession => {
                self.revoke_session(session, RevokedBecause::Reuse).await?;
            }
            OnReuse::RevokeSubject => {
                let one = self.revoke_session(session, RevokedBecause::Reuse).await;
                self.revoke_subject(&session.subject, RevokedBecause::Reuse).await?;
                one?;
            }
            OnReuse::Deny => {}
        }
        Ok(reuse.denial())
    }
}

/// Limits the idle timeout if another issuer authenticated the user. Notices of that issuer are kept only for a limited
/// time, so a longer idle session could miss a notice.
pub(super) fn bounded<'a>(session: &Session, profile: &'a Profile) -> Cow<'a, Profile> {
    match session.vouched_by {
        Some(_) if profile.idle_ttl > VOUCHED_IDLE => Cow::Owned(Profile { idle_ttl: VOUCHED_IDLE, ..profile.clone() }),
        Some(_) | None => Cow::Borrowed(profile),
    }
}

/// Returns whether the user's state ends the session permanently. A user who is enabled again must log in again.
// Requirement I23.
fn ends_for_its_user(session: &Session, user: Option<&Option<User>>, why: SessionEnd) -> bool {
    match why {
        SessionEnd::UserInactive => true,
        SessionEnd::BeforeValidFrom => {
            user.and_then(Option::as_ref).is_some_and(|user| session.created() <= user.sessions_valid_from)
        }
        SessionEnd::Record | SessionEnd::List | SessionEnd::NotBefore | SessionEnd::Elsewhere => false,
    }
}

pub(super) struct ReadRecord {
    pub(super) session: Session,
    pub(super) minimum_known: Generation,
    /// Whether the record comes from memory, and may be outdated.
    pub(super) is_recalled: bool,
}

/// A started refresh, which keeps other refreshes of the session waiting.
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

/// Returns the last claims if the directory did not log the user in.
pub(super) fn claims_now(session: &Session, user: Option<&Option<User>>) -> OwnClaims {
    match user {
        Some(Some(user)) => user.claims.clone(),
        Some(None) | None => session.claims.clone(),
    }
}

/// Returns `None` if the key that signed the token was removed, because the token is then refused.
pub(super) fn successor_token(keyring: &Keyring, record: &Session) -> Option<SuccessorToken> {
    let key = keyring.signing_key(&record.last.kid)?.verifying_key().print();
    let (generation, issued_at) = (record.current, record.issued_at);
    Some(SuccessorToken { generation, issued_at, expires: record.last.access_expires, key })
}
