//! The [`Store`] in PostgreSQL: sessions and revocations.

use async_trait::async_trait;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::call::{Arg, ResultRow, unexpected};
use super::connect::ConnectionPool;
use super::record::{decode, decode_entry, key, millis, session_prefix, target_key, time, uuid};
use super::{PostgresInner, PostgresStore};
use rotogate_core::clock::{SystemTime, TimeSource, Timestamp};
use rotogate_core::revocation::list::ListFilling;
use rotogate_core::revocation::{Revocation, RevocationList, Target};
use rotogate_core::session::{Generation, RevokedBecause, Session, SessionId, Status};
use rotogate_core::store::kit::commit::{
    InsertRoom, MAX_DECISIONS, Operation, confirm_each, decide, held_against, insert_unbounded, raises,
};
use rotogate_core::store::kit::encoding::decode_target;
use rotogate_core::store::kit::fields::{LiveRevocations, Op, in_order, new_op};
use rotogate_core::store::kit::network::{compare_clocks, not_done};
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::rules::{MAX_ENDED, MAX_SWEPT, Rules, State, fits, time_in};
use rotogate_core::store::{Cursor, Filter, Inserted, Page, SharedStore, Store, StoreError, SubjectBound, Swap, Swept};

const CONFIRMED_AT_ONCE: usize = 256;

/// The ids of the subject's sessions at the check. `None` if the list may be incomplete.
type SubjectRoom = InsertRoom<Option<Vec<SessionId>>>;

pub(super) fn row_of(row: &ResultRow, id: SessionId) -> Result<Session, StoreError> {
    decode(id, row.get("o_state")?, row.get("o_record")?)
}

fn id_of(id: &Uuid) -> SessionId {
    SessionId::from_bytes(*id.as_bytes())
}

impl PostgresInner {
    pub(super) async fn read(
        &self,
        pool: &ConnectionPool,
        id: SessionId,
    ) -> Result<Option<(ResultRow, Option<Revocation>)>, StoreError> {
        let of = Target::Session(id);
        let answer = self.one_by(pool, "rg_load", vec![Arg::Id(uuid(id)), Arg::bytes(&target_key(&of)?)]).await?;
        match answer.status()? {
            "none" => Ok(None),
            "found" => {
                let entry = answer.get::<Option<&[u8]>>("o_entry")?.and_then(|entry| decode_entry(of, entry).ok());
                Ok(Some((answer, entry)))
            }
            _ => Err(answer.unknown()),
        }
    }

    /// Returns the sessions that the new session replaces, or a reason to refuse the new session.
    pub(super) async fn room_for(
        &self,
        session: &Session,
        bound: SubjectBound,
    ) -> Result<Result<SubjectRoom, Inserted>, StoreError> {
        InsertRoom::find(self.sessions_beside(session, bound).await?, &self.rules(), session, bound)
    }

    /// Returns the subject's live sessions, and revocations that may match them.
    async fn sessions_beside(
        &self,
        session: &Session,
        bound: SubjectBound,
    ) -> Result<(Option<Vec<SessionId>>, Snapshot), StoreError> {
        let held = held_against(&self.issuer, session);
        let keys = held.iter().map(target_key).collect::<Result<Vec<_>, _>>()?;
        let limit = usize::try_from(bound.most).unwrap_or(usize::MAX).saturating_add(MAX_ENDED);
        let args = vec![
            Arg::bytes(&key(session.subject.as_bytes())),
            Arg::Big(millis(time_in(session))),
            Arg::limit(limit),
            Arg::bytes(&session_prefix()?),
            Arg::byte_list(keys),
        ];
        let answer = self.one("rg_room", args).await?.with_status("room")?;
        let list = |name| Ok::<_, StoreError>(answer.get::<Option<Vec<&[u8]>>>(name)?.unwrap_or_default());
        let ids: Vec<Uuid> = answer.get::<Option<_>>("o_ids")?.unwrap_or_default();
        let ids: Vec<SessionId> = ids.iter().map(id_of).collect();
        let mut found = Snapshot::default();
        for ((id, state), record) in ids.iter().zip(list("o_states")?).zip(list("o_records")?) {
            match decode(*id, state, record) {
                Ok(record) => found.see(*id, Ok(record)),
                // An unreadable session is not counted, because no request can use it.
                Err(error) => tracing::error!(
                    session = %id,
                    %error,
                    "session not counted towards its user's limit, because its record cannot be read. If `error` \
                     names another version of rotogate, start that version; otherwise run `rotogate session revoke ID`"
                ),
            }
        }
        for (of, entry) in list("o_targets")?.into_iter().zip(list("o_entries")?) {
            found.see_entry(decode_entry(decode_target(of)?, entry)?);
        }
        // Newer sessions end later, so a list with fewer than `limit` ids is complete.
        Ok(((ids.len() < limit).then_some(ids), found))
    }

    /// Inserts a session. Returns `None` if the subject's sessions have changed since the check.
    pub(super) async fn insert_as(
        &self,
        op: Op,
        session: &Session,
        room: &SubjectRoom,
    ) -> Result<Option<Inserted>, StoreError> {
        // If the insert ends no sessions, changes to other sessions are irrelevant.
        let counted = room.plan.sessions().filter(|_| !room.ended.is_empty());
        let operation = Operation {
            live: counted.map(|one| one.id).collect(),
            subject: Some(&session.subject),
            only: room.known.as_deref().map(|ids| (ids, time_in(session))),
            ..Operation::inserting(session)
        };
        room.insert(&self.commit_as(op, &self.commands), &operation, &self.rules(), session).await
    }

    /// Replaces a record, if its predecessor and the known revocation entry are unchanged.
    pub(super) async fn swap(
        &self,
        op: Op,
        expected: u64,
        record: &Session,
        revocation: Option<&Revocation>,
    ) -> Result<Swap, StoreError> {
        let id = record.id;
        let mut presumed = self.hints.take(id);
        presumed.see(id, Ok(Session { revision: expected, status: Status::Live, ..record.clone() }));
        let operation = Operation {
            ids: vec![id],
            targets: revocation.iter().map(|entry| entry.target.clone()).collect(),
            held: Some(record),
            ..Operation::default()
        };
        let swap = |state: &mut Snapshot| {
            let swapped = self.rules().compare_and_swap(state, expected, record, revocation)?;
            Ok((swapped, state.revocation(&Target::Session(id))?))
        };
        let swapped = decide(&self.commit_as(op, &self.commands), operation, presumed, swap).await?;
        let (swapped, entry) = swapped.ok_or_else(|| unexpected("a time that the gate did not send"))?;
        self.hints.note(id, None, entry);
        Ok(swapped)
    }
}

#[async_trait]
impl Store for PostgresStore {
    /// Remembers the revocation entry for the next rotation.
    async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some((row, entry)) = self.0.read(&self.0.commands, id).await? else { return Ok(None) };
        self.0.hints.note(id, None, entry);
        row_of(&row, id).map(Some)
    }

    async fn insert(&self, session: Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        let op = new_op()?;
        if bound == SubjectBound::NONE {
            let call = self.0.commit_as(op, &self.0.commands);
            return insert_unbounded(&call, &self.0.rules(), &session).await;
        }
        let _turn = self.0.inserts.take(&session.subject).await;
        for _ in 0..MAX_DECISIONS {
            let room = match self.0.room_for(&session, bound).await? {
                Ok(room) => room,
                Err(refused) => return Ok(refused),
            };
            if let Some(inserted) = self.0.insert_as(op, &session, &room).await? {
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
        fits(&entry)?;
        let (mut ids, mut presumed, mut subject) = (Vec::new(), Snapshot::default(), None);
        match &entry.target {
            Target::Session(id) => (ids, presumed) = (vec![*id], self.0.hints.take(*id)),
            Target::Subject { issuer, subject: own } if *issuer == self.0.issuer => subject = Some(&**own),
            Target::Subject { .. } | Target::Client { .. } | Target::Global | Target::Token { .. } => {}
        }
        let targets = vec![entry.target.clone()];
        let operation =
            Operation { ids, targets, subject, raises: raises(&entry), keeps_names: true, ..Operation::default() };
        let revoke = |state: &mut Snapshot| self.0.rules().revoke(state, entry.clone(), because);
        let revoked = decide(&self.0.commit_by(&self.0.revocations)?, operation, presumed, revoke).await?;
        // Requirement K35.
        if entry.ends_api_keys() {
            self.0.mark.raise(self.0.one("rg_check", Vec::new()).await?.count("o_writes")?).await;
        }
        revoked.ok_or_else(|| unexpected("a time that the gate did not send"))
    }

    async fn revocations_since(&self, cursor: Cursor) -> Result<(Vec<Revocation>, Cursor), StoreError> {
        let history = self.0.known.history();
        if let Some(mut place) = self.0.place(&cursor)?
            && let Some(entries) = self.0.logged_after(&self.0.commands, history, &mut place).await?
        {
            let mut last = LiveRevocations::new();
            for (id, entry) in entries {
                last.insert(entry.target.clone(), (id, entry));
            }
            return Ok((in_order(last), self.0.cursor(history, &place)));
        }
        let (live, end) = self.0.snapshot(&self.0.commands, history).await?;
        Ok((in_order(live), self.0.cursor(history, &end)))
    }

    async fn revocations(&self) -> Result<(RevocationList, Cursor), StoreError> {
        let history = self.0.known.history();
        let (live, end) = self.0.snapshot(&self.0.commands, history).await?;
        let mut list = ListFilling::expecting(live.len());
        live.values().for_each(|(_, entry)| list.add(entry));
        Ok((list.finish(), self.0.cursor(history, &end)))
    }

    async fn confirm(&self, mut seen: Vec<(SessionId, Generation)>) -> Result<Vec<SessionId>, StoreError> {
        let mut marked = Vec::new();
        // All functions lock records in id order.
        seen.sort_unstable();
        for seen in seen.chunks(CONFIRMED_AT_ONCE) {
            let ids = Arg::Ids(seen.iter().map(|(id, _)| uuid(*id)).collect());
            let rows = self.0.all("rg_load_all", vec![ids]).await?;
            let record = |row: &ResultRow| {
                let id = id_of(&row.get("o_id")?);
                Ok((id, row_of(row, id)))
            };
            let found = rows.iter().map(record).collect::<Result<Vec<_>, StoreError>>()?;
            let call = self.0.commit_by(&self.0.commands)?;
            marked.extend(confirm_each(&call, &self.0.rules(), seen, found).await?);
        }
        Ok(marked)
    }

    async fn list(&self, filter: Filter, after: Option<SessionId>, limit: usize) -> Result<Page, StoreError> {
        let limit = Rules::page_size(limit);
        let mut page = Page { sessions: Vec::new(), next: None };
        let mut at = after;
        loop {
            let subject = match &filter {
                Filter::All => Arg::Null(Type::BYTEA),
                Filter::Subject(name) => Arg::bytes(&key(name.as_bytes())),
            };
            let from = at.map_or(Arg::Null(Type::UUID), |id| Arg::Id(uuid(id)));
            // One extra id shows whether there is a further page.
            let asked = limit + 1;
            let rows = self.0.all("rg_list", vec![subject, from, Arg::limit(asked)]).await?;
            let is_last = rows.len() < asked;
            for row in &rows {
                let id = id_of(&row.get("o_id")?);
                at = Some(id);
                let session = match row_of(row, id) {
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
                if page.sessions.len() == limit {
                    page.next = page.sessions.last().map(|last| last.id);
                    return Ok(page);
                }
                page.sessions.push(session);
            }
            if is_last {
                return Ok(page);
            }
        }
    }

    /// If several nodes sweep at the same time, one of them does the work.
    async fn sweep(&self, _now: Timestamp) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        loop {
            let answer = self.0.one("rg_sweep", vec![Arg::limit(MAX_SWEPT)]).await?.with_status("swept")?;
            swept.sessions += answer.count("o_sessions")?;
            swept.revocations += answer.count("o_revocations")?;
            if !answer.get::<bool>("o_more")? {
                self.0.mark.raise(answer.count("o_writes")?).await;
                return Ok(swept);
            }
        }
    }

    async fn last_known_time(&self) -> Result<Timestamp, StoreError> {
        Ok(time(self.0.one("rg_time", Vec::new()).await?.get("o_now")?))
    }

    fn shared(&self) -> Option<&dyn SharedStore> {
        Some(self)
    }

    async fn check(&self) -> Result<(), StoreError> {
        let clock = SystemTime::new();
        let before = clock.wall();
        let answer = self.0.one("rg_check", Vec::new()).await?.with_status("ready")?;
        let options = &self.0.options;
        let server = format!("PostgreSQL at {}", options.address());
        compare_clocks(&options.network, server, before, time(answer.get("o_now")?), clock.wall())
    }
}
