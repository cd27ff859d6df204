//! Status lists: the place of a new session, and the bits of ended sessions.

use super::Engine;
use crate::clock::Timestamp;
use crate::session::{Session, StatusPlace};
use crate::store::StoreError;
use crate::token::claims::AccessToken;
use crate::token::keyring::Keyring;
use crate::token::status_token::StatusClaim;

#[cfg(feature = "relay")]
pub use lists::StatusFollower;

impl Engine {
    /// A place for a session that begins; `None` if no lists are published.
    pub(super) async fn status_place(
        &self,
        keyring: &Keyring,
        now: Timestamp,
    ) -> Result<Option<StatusPlace>, StoreError> {
        #[cfg(feature = "relay")]
        if let Some(lists) = self.status_lists.get() {
            return lists.place(keyring.refresh_keys(), now, || self.restoring.adopted()).await.map(Some);
        }
        let _ = (keyring, now);
        Ok(None)
    }

    /// The claim `status` of a session's tokens.
    pub(super) fn status_claim(&self, session: &Session) -> Option<StatusClaim<'_>> {
        self.claim_of(session.place?)
    }

    /// The claim `status` of a token that a client gets in exchange for one of our tokens: the claim of the same
    /// session.
    pub(super) fn carried_status(
        &self,
        subject: &AccessToken,
        claims: &serde_json::Map<String, serde_json::Value>,
    ) -> Option<StatusClaim<'_>> {
        let entry = claims.get("status").filter(|_| subject.is_ours())?.get("status_list")?;
        let index = u32::try_from(entry.get("idx")?.as_u64()?).ok()?;
        let list = entry.get("uri")?.as_str()?.rsplit('/').next()?.parse().ok()?;
        self.claim_of(StatusPlace { list, index })
    }

    fn claim_of(&self, place: StatusPlace) -> Option<StatusClaim<'_>> {
        #[cfg(feature = "relay")]
        if let Some(lists) = self.status_lists.get() {
            return Some(StatusClaim { base: lists.base(), place });
        }
        let _ = place;
        None
    }
}

/// Keeps the status lists up to date with the revocations.
#[cfg(feature = "relay")]
mod lists {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::task::JoinHandle;

    use super::super::{Engine, Freshness};
    use crate::clock::Timestamp;
    use crate::fault::Fault;
    use crate::revocation::list::TokenFacts;
    use crate::revocation::{Effect, Revocation, Target, asks_for_refresh};
    use crate::session::Session;
    use crate::session::rotation::REVOKED;
    use crate::status_list::StatusLists;
    use crate::store::{Cursor, Filter, StoreError};

    /// How many sessions are read at once.
    const PAGE: usize = 1000;
    /// For how long lists are served without an answer of the store, if no other gate writes to the store.
    const SERVED: Duration = Duration::from_secs(10);

    /// Follows the revocations for the lists.
    #[derive(Debug, Default)]
    pub struct StatusFollower {
        /// The position up to which the revocations were read; `None` if all sessions must be scanned first.
        read: Option<Cursor>,
        /// When the data in which `read` is a position was adopted.
        adopted: Timestamp,
        /// The sessions that are still to be scanned: the sessions of some subjects, or all.
        wanted: Vec<Filter>,
        /// The sessions that the scan reads now.
        look: Option<StatusLook>,
    }

    /// A scan of sessions in a task of its own, so that new revocations do not wait for it.
    #[derive(Debug)]
    struct StatusLook {
        /// When the revocations that caused the scan were read.
        begun: Timestamp,
        filters: Vec<Filter>,
        task: JoinHandle<Result<(), StoreError>>,
    }

    impl Engine {
        /// Publishes these status lists. Only the first call has an effect.
        pub fn publish_status(&self, lists: Arc<StatusLists>) {
            let _ = self.status_lists.set(lists);
        }

        /// The status lists, if they are published.
        pub fn status_lists(&self) -> Option<&Arc<StatusLists>> {
            self.status_lists.get()
        }

        /// Brings the lists up to date.
        ///
        /// # Errors
        /// The store does not answer. The published lists are served for a while.
        // Requirements S4 to S6.
        pub async fn follow_status(self: &Arc<Self>, follower: &mut StatusFollower) -> Result<(), Fault> {
            let Some(lists) = self.status_lists() else { return Ok(()) };
            if self.freshness() != Freshness::Fresh {
                return Ok(());
            }
            let (now, keyring) = (self.clock.now(), self.keyring());
            lists.read_register(keyring.refresh_keys(), now, || self.restoring.adopted()).await?;
            if self.restoring.adopted() != follower.adopted || lists.needs_scan() {
                // An adoption of the store's data invalidates the positions. A list of a store that lost records needs
                // its live sessions.
                (follower.read, follower.adopted) = (None, self.restoring.adopted());
            }
            let is_first = follower.read.is_none();
            let (entries, end) = self.store.revocations_since(follower.read.clone().unwrap_or_default()).await?;
            for entry in &entries {
                self.revocations.apply(entry);
            }
            if is_first {
                self.look(lists, &[Filter::All]).await?;
            } else {
                for entry in &entries {
                    self.note_ended(lists, entry, &mut follower.wanted).await?;
                }
            }
            follower.read = Some(end);
            if follower.looked(self, now).await? {
                lists.complete(now);
            }
            let (building, engine, at) = (Arc::clone(lists), Arc::clone(self), self.clock.now());
            let built = tokio::task::spawn_blocking(move || building.build(engine.issuer(), &keyring, at)).await;
            built.map_err(|_| Fault::Signing("a status list was not built"))??;
            let served = self.following.staleness().map_or(SERVED, |staleness| staleness.limit.max(SERVED));
            lists.serve_until(now.plus(served));
            Ok(())
        }

        async fn note_ended(
            &self,
            lists: &StatusLists,
            entry: &Revocation,
            wanted: &mut Vec<Filter>,
        ) -> Result<(), StoreError> {
            if asks_for_refresh(entry) {
                return Ok(());
            }
            let filter = match (&entry.target, entry.effect) {
                (Target::Session(id), Effect::Minimum { minimum: REVOKED, .. }) => {
                    return match self.store.load(*id).await {
                        Ok(session) => {
                            session.and_then(|session| session.place).into_iter().for_each(|place| lists.set(place));
                            Ok(())
                        }
                        // The record of this session cannot be read, which the engine has logged.
                        Err(error) if error.is_of_one_record() => Ok(()),
                        Err(error) => Err(error),
                    };
                }
                (Target::Session(_) | Target::Token { .. }, _) => return Ok(()),
                (Target::Subject { issuer, subject }, _) if *issuer == self.issuer => Filter::Subject(subject.clone()),
                // Ends the sessions of a client, of everyone, or of users for whom another issuer vouched: no index
                // finds them.
                (Target::Subject { .. } | Target::Client { .. } | Target::Global, _) => Filter::All,
            };
            if !wanted.contains(&filter) {
                wanted.push(filter);
            }
            Ok(())
        }

        /// Sets the bits of the ended sessions among those that the filters list.
        async fn look(&self, lists: &StatusLists, filters: &[Filter]) -> Result<(), StoreError> {
            for filter in filters {
                let (mut after, mut live) = (None, lists.begin_scan());
                loop {
                    let page = self.store.list(filter.clone(), after, PAGE).await?;
                    let now = self.clock.now();
                    for session in &page.sessions {
                        match session.place {
                            Some(place) if self.has_ended_early(session, now) => lists.set(place),
                            Some(place) => live.note(place),
                            None => {}
                        }
                    }
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
                if *filter == Filter::All {
                    lists.end_scan(live);
                }
            }
            Ok(())
        }

        fn has_ended_early(&self, session: &Session, now: Timestamp) -> bool {
            let facts = TokenFacts {
                issuer: &self.issuer,
                subject: &session.subject,
                client: Some(&session.client),
                session: Some((session.id, session.current)),
                issuer_session: None,
                vouched_by: session.vouched_by.as_deref(),
                jti: None,
                issued_at: Some(Timestamp::MAX),
                delegation: None,
                is_key: false,
            };
            session.is_revoked() || self.revocations.judge(facts, now).refuses(now)
        }
    }

    impl StatusFollower {
        /// Continues the scans, in a task of their own. True if no scan is left.
        async fn looked(&mut self, engine: &Arc<Engine>, now: Timestamp) -> Result<bool, StoreError> {
            if let Some(look) = &self.look
                && !look.task.is_finished()
            {
                return Ok(false);
            }
            if let Some(StatusLook { begun, filters, task }) = self.look.take() {
                match task.await {
                    Ok(Ok(())) => engine.status_lists().iter().for_each(|lists| lists.complete(begun)),
                    Ok(Err(error)) => {
                        self.wanted.extend(filters);
                        return Err(error);
                    }
                    Err(_) => self.wanted.extend(filters),
                }
            }
            if self.wanted.is_empty() {
                return Ok(true);
            }
            let mut filters = std::mem::take(&mut self.wanted);
            if filters.contains(&Filter::All) {
                filters = vec![Filter::All];
            }
            let (engine, of_task) = (Arc::clone(engine), filters.clone());
            let task = tokio::spawn(async move {
                match engine.status_lists() {
                    Some(lists) => engine.look(lists, &of_task).await,
                    None => Ok(()),
                }
            });
            self.look = Some(StatusLook { begun: now, filters, task });
            Ok(false)
        }
    }
}
