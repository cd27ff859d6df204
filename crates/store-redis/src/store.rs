//! The [`Store`] in Redis: sessions and revocations.

use async_trait::async_trait;
use futures_util::future::try_join_all;
use parking_lot::Mutex;

use super::check::{check_policy, info};
use super::partitions::in_each;
use super::record::{decode_record, new_op};
use super::script::CHECK;
use super::{RedisStore, log, opening};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::revocation::list::ListFilling;
use rotogate_core::revocation::{Revocation, RevocationList};
use rotogate_core::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate_core::store::kit::commit::{MAX_DECISIONS, insert_unbounded};
use rotogate_core::store::kit::fields::in_order;
use rotogate_core::store::kit::network::{not_done, pause_after, refused};
use rotogate_core::store::rules::Rules;
use rotogate_core::store::{Cursor, Filter, Inserted, Page, SharedStore, Store, StoreError, SubjectBound, Swap, Swept};

/// The percentage of `maxmemory` above which the store is not ready.
const FULL: u128 = 90;

#[async_trait]
impl Store for RedisStore {
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let partition = self.0.partitions.of_session(id);
        let record = self.0.value_of(partition, partition.keys.session(id)).await?;
        record.map(|record| decode_record(id, &record)).transpose()
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        let op = new_op()?;
        if bound == SubjectBound::NONE {
            return insert_unbounded(&self.0.call_for(session.id, op), &self.0.rules(), &session).await;
        }
        let _turn = self.0.inserts.take(&session.subject).await;
        for decision in 0..MAX_DECISIONS {
            let room = match self.0.room_for(&session, bound).await? {
                Ok(room) => room,
                Err(refused) => return Ok(refused),
            };
            if self.0.partitions.count() > 1 {
                if let Some(inserted) = self.0.insert_among_partitions(op, &session, room).await? {
                    return Ok(inserted);
                }
                // The pauses differ, so that two conflicting writers do not conflict again.
                tokio::time::sleep(pause_after(decision)).await;
            } else if let Some(inserted) = self.0.insert_as(op, &session, &room).await? {
                return Ok(inserted);
            }
        }
        Err(not_done(
            "the session was not created, because other gates created sessions for the same subject during every \
             attempt",
        ))
    }

    async fn compare_and_swap(
        &self,
        expected: u64,
        record: Session,
        revocation: Option<Revocation>,
    ) -> Result<Swap, StoreError> {
        let op = new_op()?;
        let swapped = self.0.swap(op, expected, &record, revocation.as_ref()).await;
        self.0.doubts.take(record.id, op, &swapped);
        swapped
    }

    async fn revoke(&self, entry: Revocation, because: RevokedBecause) -> Result<Revocation, StoreError> {
        let ends_keys = entry.ends_api_keys();
        let revoked = self.0.revoke(new_op()?, entry, because).await?;
        // Requirement K35.
        if ends_keys {
            self.0.mark.raise(self.0.partitions.writes()).await;
        }
        Ok(revoked)
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        let places = self.0.places(&cursor)?;
        let reads = self.0.partitions.iter().zip(places).map(|(partition, from)| self.0.since(partition, from));
        let (live, ends) = log::all_of(try_join_all(reads).await?);
        Ok((in_order(live), self.0.cursor(&ends)))
    }

    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        let list = Mutex::new(ListFilling::default());
        let reads = self.0.partitions.iter().map(|partition| self.0.fill(&list, partition));
        let ends: Vec<_> = try_join_all(reads).await?;
        let list = list.into_inner();
        Ok((list.finish(), self.0.cursor(&ends)))
    }

    async fn confirm(&self, seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        let sorted = self.0.partitions.sort(seen, |(id, _)| *id);
        let confirmed = in_each(sorted.iter().map(|(partition, seen)| self.0.confirm_in(partition, seen)));
        Ok(confirmed.await?.concat())
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        let ids = match &filter {
            Filter::Subject(subject) => {
                let (_, mut ids) = self.0.sessions_of(subject).await?;
                ids.sort_unstable();
                ids.into()
            }
            Filter::All => self.0.all(after.is_some()).await?,
        };
        let limit = Rules::page_size(limit);
        let mut page = Page { sessions: Vec::new(), next: None };
        let mut rest = &ids[..];
        if let Some(after) = after {
            let from = ids.partition_point(|id| *id <= after);
            rest = ids.get(from..).unwrap_or_default();
        }
        while !rest.is_empty() {
            // One extra id shows whether there is a further page.
            let (some, more) = rest.split_at(rest.len().min(limit + 1));
            for (id, record) in self.0.load_all(some).await? {
                let session = match record {
                    Ok(session) => session,
                    Err(error) => {
                        tracing::error!(
                            session = %id,
                            %error,
                            "session not listed, because its record cannot be read. If `error` names another version \
                             of rotogate, start that version; otherwise run `rotogate session revoke ID`"
                        );
                        continue;
                    }
                };
                if matches!(&filter, Filter::Subject(subject) if *subject != session.subject) {
                    continue;
                }
                if page.sessions.len() == limit {
                    page.next = page.sessions.last().map(|last| last.id);
                    return Ok(page);
                }
                page.sessions.push(session);
            }
            rest = more;
        }
        Ok(page)
    }

    /// Sessions expire without a sweep.
    async fn sweep(&self, _now: Timestamp) -> Result<Swept, StoreError> {
        let swept = in_each(self.0.partitions.iter().map(|partition| self.0.sweep_in(partition))).await?;
        self.0.mark.raise(self.0.partitions.writes()).await;
        Ok(Swept { sessions: 0, revocations: swept.into_iter().sum() })
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        self.0.time().await
    }

    fn shared(&self) -> Option<&dyn SharedStore> {
        Some(self)
    }

    async fn check(&self) -> Result<(), StoreError> {
        let mut evicted = 0;
        for partition in self.0.commands.one_of_each() {
            if let Some(info) = info(&*self.0.commands.link_of(partition)?, None).await? {
                check_policy(&self.0.options, &info)?;
                evicted += info.number("evicted_keys");
                let (used, most) = (u128::from(info.number("used_memory")), u128::from(info.number("maxmemory")));
                if most > 0 && used * 100 > most * FULL {
                    return Err(refused(format!("Redis uses more than {FULL} % of its maxmemory: raise maxmemory")));
                }
            }
        }
        if evicted > self.0.evicted {
            let lost = evicted - self.0.evicted;
            return Err(refused(format!(
                "Redis has evicted {lost} keys since the gate started, and sessions or revocations may be among them: \
                 restore what was lost, and restart the gate"
            )));
        }
        let clock = SystemTime::new();
        let answers = in_each(self.0.partitions.iter().map(async |partition| {
            let before = clock.monotonic();
            let answer = self.0.run(partition, &CHECK, Vec::new(), Vec::new()).await?.with_status("ready")?;
            Ok((before, answer.time, clock.monotonic()))
        }));
        opening::agree(&self.0.options, &answers.await?)
    }
}
