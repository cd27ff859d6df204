//! Sessions: load, insert, swap, confirm, list.

use std::collections::BTreeMap;

use tokio_postgres::types::Type;
use uuid::Uuid;

use super::PostgresInner;
use super::call::{Arg, ResultRow, unexpected};
use super::connect::{ConnectionPool, not_done};
use super::record::{decode, decode_entry, key, millis, session_prefix, target, uuid};
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::{Generation, Session, SessionId, Status};
use rotogate_core::store::kit::commit::{
    Commit, Decided, MAX_DECISIONS, Operation, decide, decide_each, held_against, inserted, too_late,
};
use rotogate_core::store::kit::encoding::decode_target;
use rotogate_core::store::kit::fields::Op;
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::rules::{MAX_ENDED, Rules, State, time_in};
use rotogate_core::store::{Filter, Inserted, Page, StoreError, SubjectBound, Swap};

/// How many records one call confirms.
const CONFIRMED_AT_ONCE: usize = 256;

/// The sessions that must end for a new one, and the state from which this was decided.
#[derive(Debug, Default)]
pub(super) struct InsertRoom {
    /// The ids of the subject's sessions; `None` if there may be more.
    ids: Option<Vec<SessionId>>,
    /// The subject's sessions, and the changes by the rules.
    plan: Snapshot,
    ended: Vec<Revocation>,
}

fn row_of(row: &ResultRow, id: SessionId) -> Result<Session, StoreError> {
    decode(id, row.get("o_state")?, row.get("o_record")?)
}

fn id_of(id: &Uuid) -> SessionId {
    SessionId::from_bytes(*id.as_bytes())
}

impl PostgresInner {
    /// Reads the record of a session, and its revocation entry.
    async fn read(
        &self,
        pool: &ConnectionPool,
        id: SessionId,
    ) -> Result<Option<(ResultRow, Option<Revocation>)>, StoreError> {
        let of = Target::Session(id);
        let answer = self.one_by(pool, "rg_load", vec![Arg::Id(uuid(id)), Arg::bytes(&key(&target(&of)?))]).await?;
        match answer.status()? {
            "none" => Ok(None),
            "found" => {
                let entry = answer.get::<Option<&[u8]>>("o_entry")?.and_then(|entry| decode_entry(of, entry).ok());
                Ok(Some((answer, entry)))
            }
            _ => Err(answer.unknown()),
        }
    }

    /// Loads a session. A rotation that follows presumes that the revocation entry is unchanged.
    pub(super) async fn load(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some((row, entry)) = self.read(&self.commands, id).await? else { return Ok(None) };
        self.hints.note(id, None, entry);
        row_of(&row, id).map(Some)
    }

    /// Loads a session. A revocation that follows presumes that record and entry are unchanged.
    pub(super) async fn load_to_revoke(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some((row, entry)) = self.read(&self.revocations, id).await? else { return Ok(None) };
        let record = row_of(&row, id)?;
        self.hints.note(id, Some(record.clone()), entry);
        Ok(Some(record))
    }

    /// The record of a session, if a swap in doubt wrote it last and its tokens have not been used since.
    pub(super) async fn written_in_doubt(&self, id: SessionId) -> Result<Option<Session>, StoreError> {
        let Some(ops) = self.doubts.ops(id) else { return Ok(None) };
        let Some((row, _)) = self.read(&self.commands, id).await? else { return Ok(None) };
        let op: &[u8] = row.get("o_op")?;
        let record = row_of(&row, id)?;
        Ok((ops.iter().any(|own| own == op) && !record.confirmed).then_some(record))
    }

    pub(super) async fn insert(&self, op: Op, session: &Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        if bound == SubjectBound::NONE {
            let call = self.commit_as(op, &self.commands);
            let insert = |state: &mut Snapshot| self.rules().insert(state, session, bound);
            let inserted = decide(&call, Operation::inserting(session), Snapshot::default(), insert).await?;
            return inserted.ok_or_else(|| too_late(session));
        }
        let _turn = self.inserts.take(&session.subject).await;
        for _ in 0..MAX_DECISIONS {
            let room = match self.room_for(session, bound).await? {
                Ok(room) => room,
                Err(refused) => return Ok(refused),
            };
            if let Some(inserted) = self.insert_as(op, session, &room).await? {
                return Ok(inserted);
            }
        }
        Err(not_done("other gates began sessions of one subject at every attempt to begin another"))
    }

    /// The sessions that must end for the new one, by the rules; or the reason why the new session is refused.
    pub(super) async fn room_for(
        &self,
        session: &Session,
        bound: SubjectBound,
    ) -> Result<Result<InsertRoom, Inserted>, StoreError> {
        let (ids, mut plan) = self.sessions_beside(session, bound).await?;
        match self.rules().insert(&mut plan, session, bound)? {
            Inserted::Inserted(ended) => Ok(Ok(InsertRoom { ids, plan, ended })),
            refused @ (Inserted::NoLongerValid(_) | Inserted::TooMany) => Ok(Err(refused)),
        }
    }

    /// The subject's live sessions, and the revocations that may match them.
    async fn sessions_beside(
        &self,
        session: &Session,
        bound: SubjectBound,
    ) -> Result<(Option<Vec<SessionId>>, Snapshot), StoreError> {
        let held = held_against(&self.issuer, session);
        let keys = held.iter().map(|of| Ok(key(&target(of)?).into_owned())).collect::<Result<Vec<_>, StoreError>>()?;
        let limit = usize::try_from(bound.most).unwrap_or(usize::MAX).saturating_add(MAX_ENDED);
        let args = vec![
            Arg::bytes(&key(session.subject.as_bytes())),
            Arg::Big(millis(time_in(session))),
            Arg::Int(i32::try_from(limit).unwrap_or(i32::MAX)),
            Arg::bytes(&session_prefix()?),
            Arg::byte_list(keys),
        ];
        let answer = self.one("rg_room", args).await?;
        if answer.status()? != "room" {
            return Err(answer.unknown());
        }
        let list = |name| Ok::<_, StoreError>(answer.get::<Option<Vec<&[u8]>>>(name)?.unwrap_or_default());
        let ids: Vec<Uuid> = answer.get::<Option<_>>("o_ids")?.unwrap_or_default();
        let ids: Vec<SessionId> = ids.iter().map(id_of).collect();
        let mut found = Snapshot::default();
        for ((id, state), record) in ids.iter().zip(list("o_states")?).zip(list("o_records")?) {
            match decode(*id, state, record) {
                Ok(record) => found.see(*id, Ok(record)),
                // No request can continue an unreadable session.
                Err(error) => tracing::error!(session = %id, %error, "session not counted"),
            }
        }
        for (of, entry) in list("o_targets")?.into_iter().zip(list("o_entries")?) {
            found.see_entry(decode_entry(decode_target(of)?, entry)?);
        }
        // Sessions that begin meanwhile are later than these, so the list is complete if it has less than `limit` ids.
        Ok(((ids.len() < limit).then_some(ids), found))
    }

    /// Inserts a session. `None` if the subject's sessions have changed since the room was found.
    pub(super) async fn insert_as(
        &self,
        op: Op,
        session: &Session,
        room: &InsertRoom,
    ) -> Result<Option<Inserted>, StoreError> {
        // If no session must give way, it does not matter whether another session ends meanwhile.
        let counted = room.plan.sessions().filter(|_| !room.ended.is_empty());
        let operation = Operation {
            live: counted.map(|one| one.id).collect(),
            subject: Some(&session.subject),
            only: room.ids.as_deref().map(|ids| (ids, time_in(session))),
            ..Operation::inserting(session)
        };
        let decided = Decided { operation: &operation, snapshot: &room.plan, is_answer: true };
        let committed = self.commit_as(op, &self.commands).commit(&[decided]).await?.pop();
        inserted(committed, &self.rules(), session, &room.ended)
    }

    /// Replaces a record. Presumes the record that precedes the new one, and the revocation entry that was read or
    /// written last.
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
        let (swapped, entry) = swapped.ok_or_else(|| unexpected("a time that was not given"))?;
        self.hints.note(id, None, entry);
        Ok(swapped)
    }

    pub(super) async fn confirm(&self, seen: &[(SessionId, Generation)]) -> Result<Vec<SessionId>, StoreError> {
        let (mut marked, mut seen) = (Vec::new(), seen.to_vec());
        // Sorts by id, the order in which all functions lock records.
        seen.sort_unstable();
        for seen in seen.chunks(CONFIRMED_AT_ONCE) {
            let mut found = BTreeMap::<_, Snapshot>::new();
            let ids = Arg::Ids(seen.iter().map(|(id, _)| uuid(*id)).collect());
            for row in self.all_by(&self.commands, "rg_load_all", self.known.history(), vec![ids]).await? {
                let id = id_of(&row.get("o_id")?);
                found.entry(id).or_default().see(id, row_of(&row, id));
            }
            let operations = seen.iter().map(|(id, _)| {
                let operation = Operation { ids: vec![*id], keeps_names: true, ..Operation::default() };
                (operation, found.remove(id).unwrap_or_default())
            });
            let confirm = |state: &mut Snapshot, place: usize| match seen.get(place) {
                Some(seen) => self.rules().confirm(state, std::slice::from_ref(seen)),
                None => Ok(Vec::new()),
            };
            for confirmed in decide_each(&self.commit_by(&self.commands)?, operations, confirm).await? {
                marked.extend(confirmed?.into_iter().flatten());
            }
        }
        Ok(marked)
    }

    pub(super) async fn list(
        &self,
        filter: &Filter,
        after: Option<SessionId>,
        limit: usize,
    ) -> Result<Page, StoreError> {
        let limit = Rules::page_size(limit);
        let mut page = Page { sessions: Vec::new(), next: None };
        let mut at = after;
        loop {
            let subject = match filter {
                Filter::All => Arg::Null(Type::BYTEA),
                Filter::Subject(name) => Arg::bytes(&key(name.as_bytes())),
            };
            let from = at.map_or(Arg::Null(Type::UUID), |id| Arg::Id(uuid(id)));
            // One more id than the page has shows whether there is a next page.
            let asked = limit + 1;
            let args = vec![subject, from, Arg::Int(i32::try_from(asked).unwrap_or(i32::MAX))];
            let rows = self.all_by(&self.commands, "rg_list", self.known.history(), args).await?;
            let is_last = rows.len() < asked;
            for row in &rows {
                let id = SessionId::from_bytes(*row.get::<Uuid>("o_id")?.as_bytes());
                at = Some(id);
                let session = match row_of(row, id) {
                    Ok(session) => session,
                    Err(error) => {
                        tracing::error!(session = %id, %error, "session not listed");
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
}
