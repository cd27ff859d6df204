//! The sessions that revocations ended, for receivers outside of the gate. The session records state client and reason,
//! so the gate writes nothing but the revocation itself.

use std::borrow::Cow;

use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};

use super::Engine;
use crate::clock::Timestamp;
use crate::revocation::list::{ListFilling, RevocationList, TokenFacts};
use crate::revocation::{Effect, Revocation, Target, asks_for_refresh};
use crate::session::{RevokedBecause, Session, SessionId, Status};
use crate::store::rules::ends_session;
use crate::store::{Cursor, Filter, Store, StoreError};

/// How many sessions are read at once.
const PAGE: usize = 1000;
/// How many entries are resolved at once.
const ENTRIES: usize = 16;

/// What ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The user.
    pub subject: Box<str>,
    /// The session; `None` for every session of the user that began until [`Self::until`].
    pub session: Option<SessionId>,
    /// The moment of the user's not-before, if the entry is one.
    pub until: Option<Timestamp>,
    /// The reason, in a word.
    pub reason: Cow<'static, str>,
    /// CAEP's word for the party that caused the end.
    pub initiating_entity: Cow<'static, str>,
}

impl End {
    fn of_session(session: &Session, because: RevokedBecause) -> Self {
        let (subject, session) = (session.subject.clone(), Some(session.id));
        let (reason, initiating_entity) = (because.word().into(), initiating_entity(because).into());
        Self { subject, session, until: None, reason, initiating_entity }
    }

    /// A not-before does not state its cause. If it also ends API keys, an operator caused it, otherwise the user.
    fn of_subject(subject: &str, effect: Effect, until: Timestamp) -> Self {
        let is_own = effect.keys_until() != Some(until);
        let (reason, initiating_entity) = if is_own { ("logout", "user") } else { ("administrative", "admin") };
        let (reason, initiating_entity) = (reason.into(), initiating_entity.into());
        Self { subject: subject.into(), session: None, until: Some(until), reason, initiating_entity }
    }
}

const fn initiating_entity(because: RevokedBecause) -> &'static str {
    match because {
        RevokedBecause::Logout => "user",
        RevokedBecause::Operator => "admin",
        RevokedBecause::Restored => "system",
        RevokedBecause::Reuse
        | RevokedBecause::OtherClient
        | RevokedBecause::TooMany
        | RevokedBecause::UserChanged
        | RevokedBecause::IssuerLogout
        | RevokedBecause::ProviderRefused
        | RevokedBecause::GlobalRevocation => "policy",
    }
}

/// The revocations of one read of the feed.
pub struct EndedBatch {
    /// Entries that end one session, or the sessions of one subject.
    single: Vec<Revocation>,
    /// Entries whose ended sessions can be found only by a scan of all sessions.
    wide: Option<RevocationList>,
}

/// The position up to which a batch was resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndPlace {
    entry: usize,
    after: Option<SessionId>,
}

impl EndedBatch {
    /// The entries that end sessions of this issuer.
    pub fn new(issuer: &str, entries: &[Revocation]) -> Self {
        let (mut single, mut wide) = (Vec::new(), Vec::new());
        for entry in entries {
            match &entry.target {
                Target::Session(_) if ends_session(entry.effect) => single.push(entry.clone()),
                Target::Subject { issuer: of, .. } if **of == *issuer => single.push(entry.clone()),
                Target::Client { issuer: of, .. } if **of == *issuer => wide.push(entry),
                Target::Global => wide.push(entry),
                // An entry of another issuer ends the sessions that this issuer vouched for. An entry that only asks
                // for a refresh of tokens ends no session.
                Target::Subject { .. } if !asks_for_refresh(entry) => wide.push(entry),
                Target::Session(_) | Target::Subject { .. } | Target::Client { .. } | Target::Token { .. } => {}
            }
        }
        let wide = (!wide.is_empty()).then(|| {
            let mut list = ListFilling::expecting(wide.len());
            wide.into_iter().for_each(|entry| list.add(entry));
            list.finish()
        });
        Self { single, wide }
    }

    /// The next ended sessions of these clients, and the position of the following ones; `None` at the end.
    ///
    /// # Errors
    /// The store does not answer.
    // Requirements S24 and S26.
    pub async fn next(
        &self,
        store: &dyn Store,
        issuer: &str,
        clients: &[Box<str>],
        place: EndPlace,
        now: Timestamp,
    ) -> Result<(Vec<End>, Option<EndPlace>), StoreError> {
        let mut ends = Vec::new();
        if place.entry < self.single.len() {
            let entries = self.single.iter().skip(place.entry).take(ENTRIES);
            let found = try_join_all(entries.map(|entry| one(store, clients, entry))).await?;
            ends.extend(found.into_iter().flatten());
            let entry = place.entry + ENTRIES;
            let is_done = entry >= self.single.len() && self.wide.is_none();
            return Ok((ends, (!is_done).then_some(EndPlace { entry, after: None })));
        }
        let Some(list) = &self.wide else { return Ok((ends, None)) };
        let page = store.list(Filter::All, place.after, PAGE).await?;
        for session in page.sessions.iter().filter(|session| is_of(clients, session)) {
            if !session.is_revoked() && session.expires > now && ends_here(list, issuer, session, now) {
                let by = session.vouched_by.as_deref();
                let is_elsewhere = by.is_some_and(|by| list.ended_elsewhere(by, session.id.created()));
                let because = if is_elsewhere { RevokedBecause::IssuerLogout } else { RevokedBecause::Operator };
                ends.push(End::of_session(session, because));
            }
        }
        Ok((ends, page.next.map(|after| EndPlace { after: Some(after), ..place })))
    }
}

fn is_of(clients: &[Box<str>], session: &Session) -> bool {
    clients.contains(&session.client)
}

/// The end that one entry for a session or a subject caused.
async fn one(store: &dyn Store, clients: &[Box<str>], entry: &Revocation) -> Result<Option<End>, StoreError> {
    match (&entry.target, entry.effect.sessions_until()) {
        (Target::Session(id), _) => match store.load(*id).await {
            Ok(session) => Ok(session.filter(|session| is_of(clients, session)).map(|session| {
                let because = match session.status {
                    Status::Revoked(because) => because,
                    // The record dates from before a loss of the store, and only the entry was written back.
                    Status::Live => RevokedBecause::Restored,
                };
                End::of_session(&session, because)
            })),
            // The record cannot be read, which is logged, so its client is not known.
            Err(error) if error.is_of_one_record() => Ok(None),
            Err(error) => Err(error),
        },
        (Target::Subject { subject, .. }, Some(until)) => {
            let mut after = None;
            loop {
                let page = store.list(Filter::Subject(subject.clone()), after, PAGE).await?;
                if page.sessions.iter().any(|session| is_of(clients, session) && session.id.created() <= until) {
                    return Ok(Some(End::of_subject(subject, entry.effect, until)));
                }
                after = page.next;
                if after.is_none() {
                    return Ok(None);
                }
            }
        }
        _ => Ok(None),
    }
}

impl<'a> TokenFacts<'a> {
    /// The facts of a token that this issuer would mint for the session now. A request for newer tokens concerns no such
    /// token, so these facts are refused only if the session has ended.
    pub(super) fn from_session(issuer: &'a str, session: &'a Session) -> Self {
        Self {
            issuer,
            subject: &session.subject,
            client: Some(&session.client),
            session: Some((session.id, session.current)),
            issuer_session: None,
            vouched_by: session.vouched_by.as_deref(),
            jti: None,
            issued_at: Some(Timestamp::MAX),
            delegation: None,
            is_key: false,
        }
    }
}

fn ends_here(list: &RevocationList, issuer: &str, session: &Session, now: Timestamp) -> bool {
    list.judge(TokenFacts::from_session(issuer, session), now).refuses(now)
}

impl Engine {
    /// The ends that were written after this position, and the position after the last of them.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn ended_since(&self, after: Cursor) -> Result<(EndedBatch, Cursor), StoreError> {
        let (entries, end) = self.store.revocations_since(after).await?;
        Ok((EndedBatch::new(&self.issuer, &entries), end))
    }

    /// [`EndedBatch::next`] with this engine's store.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn next_ends(
        &self,
        batch: &EndedBatch,
        clients: &[Box<str>],
        place: EndPlace,
    ) -> Result<(Vec<End>, Option<EndPlace>), StoreError> {
        batch.next(&*self.store, &self.issuer, clients, place, self.clock.now()).await
    }

    /// When the data of the store was adopted last: an adoption invalidates all earlier positions in the feed of
    /// revocations.
    pub fn adopted(&self) -> Timestamp {
        self.restoring.adopted()
    }
}

#[cfg(test)]
mod tests;
