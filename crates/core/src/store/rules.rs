//! The rules of every store operation, for all stores.
//!
//! [`State`] gives the rules access to a store's tables within a transaction.

use std::sync::Arc;
use std::time::Duration;

use super::{Inserted, StoreError, SubjectBound, Swap, Swept, WriteOutcome};
use crate::clock::Timestamp;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::rotation::REVOKED;
use crate::session::{Generation, RevokedBecause, Session, SessionId};

mod records;

pub use records::time_in;
use records::{apply_confirm, apply_revoke};

/// How long records are kept after all of their tokens have expired. Clocks may differ, and requests may be in flight.
pub const KEPT_AFTER_END: Duration = Duration::from_secs(3600);
/// The maximum number of sessions, and of revocations, that one sweep step removes. Other writers wait meanwhile.
pub const MAX_SWEPT: usize = 64;
/// The maximum number of sessions that one insert revokes. Other writers wait meanwhile.
pub const MAX_ENDED: usize = 1000;
const MAX_PAGE: usize = 1000;
/// Why an operation failed.
///
/// ```
/// use rotogate::store::StoreError;
/// use rotogate::store::rules::Failure;
///
/// /// After a broken operation the whole transaction rolls back.
/// fn may_commit(failure: &Failure) -> bool {
///     matches!(failure, Failure::Refused(_))
/// }
/// let failure = Failure::Broken(StoreError::new("the connection to the database is lost"));
/// assert!(!may_commit(&failure));
/// ```
#[derive(Debug)]
pub enum Failure {
    /// The operation was refused before it wrote anything.
    Refused(StoreError),
    /// The store failed, so this transaction must not be committed.
    Broken(StoreError),
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) | Failure::Broken(error) => error,
        }
    }
}

fn refused<T>(message: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Refused(StoreError::new(message).with_outcome(WriteOutcome::Refused)))
}

/// Sessions and revocations inside one transaction. Reads see earlier writes.
///
/// ```
/// use rotogate::session::SessionId;
/// use rotogate::store::rules::{Failure, State};
///
/// /// Returns whether this session may still be refreshed. Runs in a transaction on your tables.
/// fn is_live(tables: &impl State, id: SessionId) -> Result<bool, Failure> {
///     Ok(tables.session(id)?.is_some_and(|record| !record.is_revoked()))
/// }
/// ```
pub trait State {
    /// The record of a session, or [`Failure::Refused`] if the record cannot be read.
    fn session(&self, id: SessionId) -> Result<Option<Session>, Failure>;
    /// The revocation entry of a target.
    fn revocation(&self, target: &Target) -> Result<Option<Revocation>, Failure>;
    /// The latest [`Session::ends_at`] of a subject's sessions, or [`Timestamp::ZERO`] if there are none.
    fn end_of_subject(&self, subject: &str) -> Result<Timestamp, Failure>;
    /// The latest [`Session::ends_at`] of all sessions, or [`Timestamp::ZERO`] if there are none.
    fn end_of_all(&self) -> Result<Timestamp, Failure>;
    /// At most `limit` sessions of a subject that are not revoked, each with its expiry. The oldest session comes
    /// first.
    fn live_of(&self, subject: &str, limit: usize) -> Result<Vec<(SessionId, Timestamp)>, Failure>;
    /// Removes a session from the result of [`live_of`](Self::live_of).
    fn forget_live(&mut self, subject: &str, id: SessionId) -> Result<(), Failure>;
    /// Writes a record, which replaces `old`.
    fn put_session(&mut self, old: Option<&Session>, new: &Session) -> Result<(), Failure>;
    /// Writes the entry of a target to the end of the sequence, and removes the earlier entry.
    fn put_revocation(&mut self, entry: &Revocation) -> Result<(), Failure>;
    /// Stores this time if it is later than the stored time.
    fn raise_time(&mut self, time: Timestamp) -> Result<(), Failure>;
    /// Removes sessions and revocations whose tokens all expired before `before`, at most `limit` of each.
    fn remove_ended(&mut self, before: Timestamp, limit: usize) -> Result<Swept, Failure>;
}

/// The parameters of the rules.
///
/// ```
/// use rotogate::session::RevokedBecause;
/// use rotogate::store::rules::{Rules, State};
/// use rotogate::store::{Revocation, StoreError};
///
/// /// The central part of `Store::revoke`, between the beginning of a transaction and its commit.
/// fn revoke(rules: &Rules, tables: &mut impl State, entry: Revocation) -> Result<Revocation, StoreError> {
///     Ok(rules.revoke(tables, entry, RevokedBecause::Operator)?)
/// }
/// let rules = Rules::new("https://api.example.com", rotogate::Gate::DEFAULT_LEEWAY);
/// # let _ = rules;
/// ```
#[derive(Clone, Debug)]
pub struct Rules {
    pub(super) issuer: Arc<str>,
    pub(super) leeway: Duration,
}

impl Rules {
    /// Rules for the sessions of this issuer. `leeway` is the tolerance for clocks that differ, by default
    /// `Gate::DEFAULT_LEEWAY`.
    pub fn new(issuer: impl Into<Arc<str>>, leeway: Duration) -> Self {
        Self { issuer: issuer.into(), leeway }
    }

    /// The page size for a requested `limit`, from 1 to 1000.
    pub fn page_size(limit: usize) -> usize {
        limit.clamp(1, MAX_PAGE)
    }

    /// See [`Store::insert`](super::Store::insert).
    pub fn insert(&self, state: &mut impl State, session: &Session, bound: SubjectBound) -> Result<Inserted, Failure> {
        if state.session(session.id)?.is_some() {
            return refused(format!("session {} exists already", session.id));
        }
        if let Some(not_before) = self.not_before(state, session)?
            && session.created() <= not_before
        {
            return Ok(Inserted::NoLongerValid(not_before));
        }
        let Some(room) = self.room_for(state, session, bound)? else { return Ok(Inserted::TooMany) };
        for id in room.over {
            state.forget_live(&session.subject, id)?;
        }
        let mut ended = Vec::new();
        for GivesWay { old, new, merged } in room.give_way {
            state.put_session(Some(&old), &new)?;
            if let Some(changed) = &merged.changed {
                state.put_revocation(changed)?;
            }
            ended.push(merged.now);
        }
        state.put_session(None, session)?;
        state.raise_time(time_in(session))?;
        Ok(Inserted::Inserted(ended))
    }

    fn room_for(&self, state: &impl State, session: &Session, bound: SubjectBound) -> Result<Option<Room>, Failure> {
        let mut room = Room::default();
        let Some(most) = usize::try_from(bound.most).ok().filter(|_| bound != SubjectBound::NONE) else {
            return Ok(Some(room));
        };
        let now = time_in(session);
        let rows = state.live_of(&session.subject, most.saturating_add(MAX_ENDED))?;
        let of_all = self.not_before_of_all(state, &session.subject)?;
        let mut live = Vec::new();
        for (id, expires) in rows {
            if expires <= now || of_all.is_some_and(|not_before| id.created() <= not_before) {
                room.over.push(id);
            } else {
                live.push(id);
            }
        }
        if live.len() < most {
            return Ok(Some(room));
        }
        let mut records = Vec::new();
        for id in live {
            match state.session(id) {
                Ok(Some(record)) if self.is_live(state, &record, now, bound.idle_ttl)? => records.push(record),
                Ok(Some(_) | None) => {}
                // A session with an unreadable record cannot continue, so it does not count.
                Err(Failure::Refused(error)) => tracing::error!(
                    session = %id,
                    %error,
                    "session not counted towards its user's limit, because its record cannot be read. If `error` names \
                     another version of rotogate, start that version. Otherwise run `rotogate session revoke ID`"
                ),
                Err(broken @ Failure::Broken(_)) => return Err(broken),
            }
        }
        let too_many = (records.len() + 1).saturating_sub(most);
        if too_many > 0 && !bound.ends_oldest {
            return Ok(None);
        }
        for old in records.into_iter().take(too_many.min(MAX_ENDED)) {
            let Some(new) = apply_revoke(&old, RevokedBecause::TooMany) else { continue };
            let entry = Revocation {
                target: Target::Session(old.id),
                effect: Effect::SESSION_REVOKED,
                until: old.latest_access_expires.plus(self.leeway),
            };
            room.give_way.push(GivesWay { merged: merge(state, &entry)?, old, new });
        }
        Ok(Some(room))
    }

    fn is_live(
        &self,
        state: &impl State,
        session: &Session,
        now: Timestamp,
        idle_ttl: Duration,
    ) -> Result<bool, Failure> {
        Ok(!session.is_revoked()
            && session.expires > now
            && session.issued_at.plus(idle_ttl) > now
            && self.not_before(state, session)?.is_none_or(|not_before| session.created() > not_before))
    }

    /// See [`Store::compare_and_swap`](super::Store::compare_and_swap).
    pub fn compare_and_swap(
        &self,
        state: &mut impl State,
        expected: u64,
        record: &Session,
        revocation: Option<&Revocation>,
    ) -> Result<Swap, Failure> {
        Self::may_swap(expected, record, revocation)?;
        let Some(known) = state.session(record.id)? else {
            return Ok(Swap::Changed(None));
        };
        if known.revision != expected || known.is_revoked() {
            return Ok(Swap::Changed(Some(Box::new(known))));
        }
        if known.subject != record.subject || known.client != record.client {
            return refused(format!("the subject and the client of session {} must not change", record.id));
        }
        if self.not_before(state, &known)?.is_some_and(|not_before| known.created() <= not_before) {
            return Ok(Swap::NoLongerValid);
        }
        let merged = match revocation {
            Some(entry) => merge(state, entry)?.changed,
            None => None,
        };
        state.put_session(Some(&known), record)?;
        if let Some(entry) = merged {
            state.put_revocation(&entry)?;
        }
        state.raise_time(time_in(record))?;
        Ok(Swap::Swapped)
    }

    /// Writes back a record that the store may have lost (see [`SharedStore::restore`](super::SharedStore::restore)).
    /// Returns false if the store has a later record, or the session was revoked.
    ///
    /// The caller must not pass sessions that were changed after the loss.
    #[doc(hidden)]
    pub fn restore(&self, state: &mut impl State, record: &Session) -> Result<bool, Failure> {
        let known = state.session(record.id)?;
        if known.as_ref().is_some_and(|known| known.subject != record.subject || known.client != record.client) {
            return refused(format!("the subject and the client of session {} must not change", record.id));
        }
        let is_later = known.as_ref().is_none_or(|known| {
            !known.is_revoked() && (known.current, known.revision) < (record.current, record.revision)
        });
        let has_ended = state.revocation(&Target::Session(record.id))?.is_some_and(|entry| ends_session(entry.effect))
            || self.not_before(state, record)?.is_some_and(|not_before| record.created() <= not_before);
        if !is_later || has_ended || record.is_revoked() {
            return Ok(false);
        }
        // A confirmation may have raised the stored revision.
        let revision = known.as_ref().map_or(record.revision, |known| record.revision.max(known.revision + 1));
        state.put_session(known.as_ref(), &Session { revision, ..record.clone() })?;
        state.raise_time(time_in(record))?;
        Ok(true)
    }

    /// Checks a swap before the store is read.
    ///
    /// # Errors
    /// The revision does not rise, or the revocation does not fit the record.
    pub fn may_swap(expected: u64, record: &Session, revocation: Option<&Revocation>) -> Result<(), Failure> {
        if record.revision <= expected {
            return refused(format!("the new record of session {} must have a higher revision", record.id));
        }
        revocation.map_or(Ok(()), fits)
    }

    /// See [`Store::revoke`](super::Store::revoke).
    pub fn revoke(
        &self,
        state: &mut impl State,
        mut entry: Revocation,
        because: RevokedBecause,
    ) -> Result<Revocation, Failure> {
        fits(&entry)?;
        let mut ended = None;
        let reach = match &entry.target {
            Target::Session(id) => match state.session(*id) {
                Ok(Some(record)) => {
                    let reach = record.latest_access_expires;
                    if ends_session(entry.effect) {
                        // A missing entry was swept, because everything that it could match has expired.
                        if record.is_revoked() && state.revocation(&entry.target)?.is_none() {
                            return Ok(entry);
                        }
                        ended = apply_revoke(&record, because).map(|new| (record, new));
                    }
                    reach
                }
                Ok(None) => Timestamp::ZERO,
                // An unreadable record cannot be marked as revoked, so the entry must outlive it.
                Err(Failure::Refused(error)) => {
                    tracing::error!(session = %id, %error, "session revoked, but its record cannot be read");
                    state.end_of_all()?
                }
                Err(broken @ Failure::Broken(_)) => return Err(broken),
            },
            Target::Subject { issuer, subject } if *issuer == self.issuer => state.end_of_subject(subject)?,
            Target::Client { issuer, .. } if *issuer == self.issuer => state.end_of_all()?,
            Target::Global => state.end_of_all()?,
            // Only the caller knows how long these tokens are valid.
            Target::Subject { .. } | Target::Client { .. } | Target::Token { .. } => Timestamp::ZERO,
        };
        entry.until = entry.until.max(reach.plus(self.leeway));
        let merged = merge(state, &entry)?;
        if let Some((old, new)) = ended {
            state.put_session(Some(&old), &new)?;
        }
        if let Some(changed) = &merged.changed {
            state.put_revocation(changed)?;
        }
        Ok(merged.now)
    }

    /// See [`Store::confirm`](super::Store::confirm).
    pub fn confirm(&self, state: &mut impl State, seen: &[(SessionId, Generation)]) -> Result<Vec<SessionId>, Failure> {
        let mut marked = Vec::new();
        for &(id, generation) in seen {
            match state.session(id) {
                Ok(Some(record)) => {
                    if let Some(confirmed) = apply_confirm(&record, generation) {
                        state.put_session(Some(&record), &confirmed)?;
                        marked.push(id);
                    }
                }
                Ok(None) => {}
                // An unreadable record does not affect the other confirmations. A missing confirmation is harmless.
                Err(Failure::Refused(error)) => {
                    tracing::error!(
                        session = %id,
                        %error,
                        "session not confirmed, because its record cannot be read. If `error` names another version of \
                         rotogate, start that version. Otherwise run `rotogate session revoke ID`"
                    );
                }
                Err(broken @ Failure::Broken(_)) => return Err(broken),
            }
        }
        Ok(marked)
    }

    /// One step of [`Store::sweep`](super::Store::sweep).
    pub fn sweep_step(&self, state: &mut impl State, now: Timestamp) -> Result<Swept, Failure> {
        state.raise_time(now)?;
        state.remove_ended(now.minus(KEPT_AFTER_END), MAX_SWEPT)
    }

    fn not_before(&self, state: &impl State, session: &Session) -> Result<Option<Timestamp>, Failure> {
        let client = Target::Client { issuer: Arc::clone(&self.issuer), client: session.client.clone() };
        Ok(self.not_before_of_all(state, &session.subject)?.max(not_before(state, &client)?))
    }

    fn not_before_of_all(&self, state: &impl State, subject: &str) -> Result<Option<Timestamp>, Failure> {
        let subject = Target::Subject { issuer: Arc::clone(&self.issuer), subject: subject.into() };
        Ok(not_before(state, &subject)?.max(not_before(state, &Target::Global)?))
    }
}

fn not_before(state: &impl State, target: &Target) -> Result<Option<Timestamp>, Failure> {
    // These targets should only have not-befores. An entry with another effect refuses all sessions of the target.
    Ok(state.revocation(target)?.map(|entry| entry.effect.sessions_until().unwrap_or(Timestamp::MAX)))
}

#[derive(Default)]
struct Room {
    over: Vec<SessionId>,
    give_way: Vec<GivesWay>,
}

struct GivesWay {
    old: Session,
    new: Session,
    merged: MergedEntry,
}

/// Returns whether this effect revokes a session.
pub fn ends_session(effect: Effect) -> bool {
    match effect {
        Effect::Minimum { minimum, .. } => minimum == REVOKED,
        Effect::Gone => true,
        Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. } => false,
    }
}

/// Checks that an effect fits its target. Otherwise the revocation would have no effect.
///
/// # Errors
/// The effect does not fit.
pub fn fits(entry: &Revocation) -> Result<(), Failure> {
    let fits = match (&entry.target, entry.effect) {
        (Target::Session(_), Effect::Minimum { .. } | Effect::Gone)
        | (
            Target::Subject { .. } | Target::Client { .. } | Target::Global,
            Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. },
        )
        | (Target::Token { .. }, Effect::Gone) => true,
        (Target::Session(_), Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. })
        | (Target::Subject { .. } | Target::Client { .. } | Target::Global, Effect::Minimum { .. } | Effect::Gone)
        | (Target::Token { .. }, Effect::Minimum { .. } | Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. }) => {
            false
        }
    };
    if fits {
        Ok(())
    } else {
        refused(format!("the effect {:?} is not allowed for the target {:?}", entry.effect, entry.target))
    }
}

struct MergedEntry {
    now: Revocation,
    /// `None` means that the merge changed nothing.
    changed: Option<Revocation>,
}

/// Merges another store's entry with the stored entry of the same target.
///
/// # Errors
/// An access to the tables fails.
pub fn put(state: &mut impl State, entry: &Revocation) -> Result<(), Failure> {
    match merge(state, entry)?.changed {
        Some(changed) => state.put_revocation(&changed),
        None => Ok(()),
    }
}

fn merge(state: &impl State, entry: &Revocation) -> Result<MergedEntry, Failure> {
    let known = state.revocation(&entry.target)?;
    let mut now = known.clone().unwrap_or_else(|| entry.clone());
    now.absorb(entry);
    let changed = (known.as_ref() != Some(&now)).then(|| now.clone());
    Ok(MergedEntry { now, changed })
}
