use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::{Pipeline, Value};

use super::commit::CommitCall;
use super::partitions::{Partition, in_each};
use super::record::{Op, decode_live, decode_record, encode_record, millis, new_op, target};
use super::script::{ANNOUNCE, ROOM, SWAP, bytes, unexpected};
use super::{RedisInner, drop_mut};
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate_core::store::kit::begin::begin_at;
use rotogate_core::store::kit::commit::{InsertRoom, Operation, confirm_each, held_against};
use rotogate_core::store::kit::fields::encode_effect;
use rotogate_core::store::kit::snapshot::Snapshot;
use rotogate_core::store::rules::{Failure, Rules};
use rotogate_core::store::{Inserted, StoreError, SubjectBound, Swap, WriteOutcome};

/// The number is limited, because other writers wait while the script runs.
const CONFIRMED_AT_ONCE: usize = 64;
/// A login reads the not-befores of at most this many other clients.
const CLIENTS_KNOWN: usize = 32;

/// The sessions to revoke before an insert, and the number of inserts in each partition.
type SubjectRoom = InsertRoom<Vec<String>>;

impl RedisInner {
    pub(super) async fn load_all(
        &self,
        ids: &[SessionId],
    ) -> Result<Vec<(SessionId, Result<Session, StoreError>)>, StoreError> {
        let sorted = self.partitions.sort(ids.iter().copied(), |id| *id);
        let reads = sorted.into_iter().map(|(partition, ids)| self.load_of(partition, ids));
        let mut found: Vec<_> = try_join_all(reads).await?.into_iter().flatten().collect();
        if self.partitions.count() > 1 {
            let mut known: BTreeMap<_, _> = found.into_iter().collect();
            found = ids.iter().filter_map(|id| known.remove_entry(id)).collect();
        }
        Ok(found)
    }

    async fn load_of(
        &self,
        partition: &Partition,
        ids: Vec<SessionId>,
    ) -> Result<Vec<(SessionId, Result<Session, StoreError>)>, StoreError> {
        let keys = ids.iter().map(|id| partition.keys.session(*id));
        let records = if self.partitions.count() > 1 {
            // Each key has its own `GET`, because during a slot migration each key may be on either server.
            let get = |pipeline: &mut Pipeline| keys.for_each(|key| drop_mut(pipeline.cmd("GET").arg(key)));
            self.read(&self.commands, partition, get).await?.collect()
        } else {
            let keys: Vec<_> = keys.collect();
            let get = |pipeline: &mut Pipeline| drop_mut(pipeline.cmd("MGET").arg(keys));
            match self.read(&self.commands, partition, get).await?.next() {
                Some(Value::Array(records)) => records,
                _ => return Err(unexpected("no records")),
            }
        };
        let read = |id: SessionId, record| Some((id, decode_record(id, &bytes(record)?)));
        let found = ids.iter().zip(records).filter_map(|(id, record)| read(*id, record));
        Ok(found.collect())
    }

    /// Returns the sessions to revoke before the insert, or a reason to refuse the insert.
    pub(super) async fn room_for(
        &self,
        session: &Session,
        bound: SubjectBound,
    ) -> Result<Result<SubjectRoom, Inserted>, StoreError> {
        InsertRoom::find(self.sessions_beside(session).await?, &self.rules(), session, bound)
    }

    /// Announces a new session in all other partitions. Returns false if another insert has announced a session first.
    pub(super) async fn announce(&self, session: &Session, room: &SubjectRoom) -> Result<bool, StoreError> {
        let own = self.partitions.of_session(session.id);
        let others = self.partitions.iter().filter(|partition| partition.number != own.number);
        let announced = in_each(others.map(async |partition| {
            let keys = vec![partition.keys.subject(&session.subject)];
            let known = room.known.get(partition.number).cloned().unwrap_or_default();
            let answer = self.run(partition, &ANNOUNCE, keys, vec![known.into()]).await?;
            match answer.status.as_str() {
                "announced" => Ok(true),
                "again" => Ok(false),
                _ => Err(answer.unknown()),
            }
        }));
        Ok(!announced.await?.contains(&false))
    }

    /// Inserts a session whose subject's limit spans several partitions (see [`partitions`](super::partitions)).
    pub(super) async fn insert_among_partitions(
        &self,
        op: Op,
        session: &Session,
        room: SubjectRoom,
    ) -> Result<Option<Inserted>, StoreError> {
        if !self.announce(session, &room).await? {
            return Ok(None);
        }
        // First insert into the session's own partition, and then revoke older sessions.
        let mut plan = Snapshot::default();
        self.rules().insert(&mut plan, session, SubjectBound::NONE)?;
        match self.insert_as(op, session, &InsertRoom { known: room.known, plan, ended: Vec::new() }).await? {
            Some(Inserted::Inserted(_)) => {}
            other => return Ok(other),
        }
        let entries = in_each(room.ended.iter().map(async |ended| {
            let entry = Revocation { until: Timestamp::ZERO, ..ended.clone() };
            self.revoke(new_op()?, entry, RevokedBecause::TooMany).await
        }));
        // The session is already stored, so an error leaves the outcome of the insert in doubt.
        let entries = entries.await.map_err(|error| error.with_outcome(WriteOutcome::InDoubt))?;
        Ok(Some(Inserted::Inserted(entries)))
    }

    /// Inserts a session. Returns `None` if the subject's sessions have changed since the check.
    pub(super) async fn insert_as(
        &self,
        op: Op,
        session: &Session,
        room: &SubjectRoom,
    ) -> Result<Option<Inserted>, StoreError> {
        let call = self.call_for(session.id, op);
        let operation = Operation {
            live: room.plan.sessions().filter(|one| !one.is_revoked()).map(|one| one.id).collect(),
            subject: Some(&session.subject),
            inserts: room.known.get(call.partition.number).map(String::as_str),
            ..Operation::inserting(session)
        };
        room.insert(&call, &operation, &self.rules(), session).await
    }

    /// Returns the insert counters, and the subject's sessions and revocations. One round trip suffices for a single
    /// partition.
    async fn sessions_beside(&self, session: &Session) -> Result<(Vec<String>, Snapshot), StoreError> {
        if self.partitions.count() == 1 {
            return self.sessions_in_one(session).await;
        }
        let (inserts, ids) = self.sessions_of(&session.subject).await?;
        let mut ids: BTreeSet<_> = ids.into_iter().collect();
        ids.insert(session.id);
        let ids: Vec<_> = ids.into_iter().collect();
        let mut found = Snapshot::default();
        for (id, record) in self.load_all(&ids).await? {
            see_or_log(&mut found, id, record);
        }
        let mut targets: BTreeSet<Target> =
            found.sessions().map(|one| Target::Session(one.id)).chain([Target::Global]).collect();
        for one in found.sessions().chain([session]) {
            targets.extend(held_against(&self.issuer, one));
        }
        // Every partition has all not-befores, but only the entries of its own sessions.
        let own = |target: &Target| match target {
            Target::Session(id) => *id,
            Target::Subject { .. } | Target::Client { .. } | Target::Global | Target::Token { .. } => session.id,
        };
        let reads = self.partitions.sort(targets, own).into_iter().map(|(of, some)| self.entries_of(of, some));
        for entry in try_join_all(reads).await?.into_iter().flatten() {
            found.see_entry(entry);
        }
        Ok((inserts, found))
    }

    async fn sessions_in_one(&self, session: &Session) -> Result<(Vec<String>, Snapshot), StoreError> {
        let first = self.partitions.first();
        let client_of = |client: &str| Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() };
        let mut targets = BTreeSet::from(held_against(&self.issuer, session));
        // The script cannot decode the clients of other sessions, so the gate sends the clients that it knows.
        targets.extend(self.clients.lock().iter().map(|client| client_of(client)));
        let fields = targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        let own = target(&Target::Session(session.id))?;
        let of_session = own.strip_suffix(session.id.as_bytes()).ok_or_else(|| unexpected("no target of a session"))?;
        let mut args = vec![first.keys.named("s:"), of_session.to_vec()];
        args.extend(fields.iter().cloned());
        let reply = self.run(first, &ROOM, vec![first.keys.subject(&session.subject)], args).await?;
        let mut answer = reply.with_status("room")?;
        let (inserts, mut found) = (vec![answer.text()?], Snapshot::default());
        let mut sessions = answer.list()?.into_iter().map(bytes);
        while let (Some(Some(id)), Some(Some(record)), Some(Some(entry))) =
            (sessions.next(), sessions.next(), sessions.next())
        {
            let id = SessionId::from_bytes(id.try_into().map_err(|_| unexpected("no id"))?);
            if !entry.is_empty() {
                found.see_entry(decode_live(&target(&Target::Session(id))?, &entry)?.0);
            }
            if !record.is_empty() {
                see_or_log(&mut found, id, decode_record(id, &record));
            }
        }
        for (field, entry) in fields.iter().zip(answer.list()?.into_iter().filter_map(bytes)) {
            if !entry.is_empty() {
                found.see_entry(decode_live(field, &entry)?.0);
            }
        }
        let others: BTreeSet<_> =
            found.sessions().map(|one| client_of(&one.client)).filter(|of| !targets.contains(of)).collect();
        if !others.is_empty() {
            // Later logins then include these clients in their first request.
            self.learn_clients(found.sessions());
            for entry in self.entries_of(first, others.into_iter().collect()).await? {
                found.see_entry(entry);
            }
        }
        Ok((inserts, found))
    }

    fn learn_clients<'a>(&self, of: impl Iterator<Item = &'a Session>) {
        let mut known = self.clients.lock();
        known.extend(of.map(|one| one.client.clone()));
        while known.len() > CLIENTS_KNOWN {
            known.pop_first();
        }
    }

    async fn entries_of(&self, partition: &Partition, targets: Vec<Target>) -> Result<Vec<Revocation>, StoreError> {
        let fields = targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        let (key, asked) = (partition.keys.named("r"), fields.clone());
        let mut replies = self
            .read(&self.commands, partition, |pipeline| drop_mut(pipeline.cmd("HMGET").arg(key).arg(asked)))
            .await?;
        let Some(Value::Array(values)) = replies.next() else { return Err(unexpected("no entries")) };
        let known = fields.iter().zip(values).filter_map(|(field, value)| Some((field, bytes(value)?)));
        known.map(|(field, value)| decode_live(field, &value).map(|(entry, _)| entry)).collect()
    }

    /// Returns a subject's session ids, and the number of inserts in each partition.
    pub(super) async fn sessions_of(&self, subject: &str) -> Result<(Vec<String>, Vec<SessionId>), StoreError> {
        let reads = self.partitions.iter().map(|partition| self.sessions_in(partition, subject));
        let (counts, ids): (_, Vec<_>) = try_join_all(reads).await?.into_iter().unzip();
        Ok((counts, ids.into_iter().flatten().collect()))
    }

    async fn sessions_in(&self, partition: &Partition, subject: &str) -> Result<(String, Vec<SessionId>), StoreError> {
        let key = partition.keys.subject(subject);
        let counted = key.clone();
        let mut replies = self
            .read(&self.commands, partition, |pipeline| {
                pipeline.cmd("ZSCORE").arg(counted).arg("#");
                pipeline.cmd("ZRANGE").arg(key).arg(0).arg(-1);
            })
            .await?;
        let inserts = match replies.next() {
            Some(Value::Nil) => "0".to_owned(),
            Some(Value::BulkString(score)) => String::from_utf8(score).map_err(|_| unexpected("no score"))?,
            _ => return Err(unexpected("no score")),
        };
        let Some(Value::Array(members)) = replies.next() else { return Err(unexpected("no index")) };
        let ids = members.into_iter().filter_map(|id| bytes(id)?.try_into().ok()).map(SessionId::from_bytes);
        Ok((inserts, ids.collect()))
    }

    pub(super) async fn swap(
        &self,
        op: Op,
        expected: u64,
        record: &Session,
        revocation: Option<&Revocation>,
    ) -> Result<Swap, StoreError> {
        Rules::may_swap(expected, record, revocation)?;
        let call = self.call_for(record.id, op);
        let begin = begin_at(record, false, expected);
        let keys = vec![call.partition.keys.session(record.id), call.partition.keys.subject(&record.subject)];
        let new = encode_record(record, &op, &call.history)?.to_vec();
        let mut args = vec![begin.to_vec(), new, millis(record.created()).into()];
        for held in held_against(&self.issuer, record) {
            args.push(target(&held)?);
        }
        args.push(record.id.as_bytes().to_vec());
        if let Some(entry) = revocation {
            args.extend([target(&entry.target)?, encode_effect(entry.effect), millis(entry.until).into()]);
        }
        let mut answer = self.run_as(call.primaries, call.partition, (op, call.history), &SWAP, keys, args).await?;
        match answer.status.as_str() {
            "swapped" => Ok(Swap::Swapped),
            "late" => Ok(Swap::NoLongerValid),
            "changed" => match answer.bytes()? {
                now if now.is_empty() => Ok(Swap::Changed(None)),
                now => Ok(self.refused_swap(expected, record, decode_record(record.id, &now)?)?),
            },
            _ => Err(answer.unknown()),
        }
    }

    /// Returns why the rules refuse the swap.
    fn refused_swap(&self, expected: u64, record: &Session, now: Session) -> Result<Swap, Failure> {
        let mut found = Snapshot::default();
        found.see(record.id, Ok(now));
        self.rules().compare_and_swap(&mut found, expected, record, None)
    }

    pub(super) async fn confirm_in(
        &self,
        partition: &Partition,
        seen: &[(SessionId, Generation)],
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut marked = Vec::new();
        for seen in seen.chunks(CONFIRMED_AT_ONCE) {
            let call = self.call_in(partition, new_op()?);
            let found = self.load_of(partition, seen.iter().map(|(id, _)| *id).collect()).await?;
            marked.extend(confirm_each(&call, &self.rules(), seen, found).await?);
        }
        Ok(marked)
    }

    pub(super) fn call_for(&self, id: SessionId, op: Op) -> CommitCall<'_> {
        self.call_in(self.partitions.of_session(id), op)
    }

    pub(super) fn call_in<'a>(&'a self, partition: &'a Partition, op: Op) -> CommitCall<'a> {
        CommitCall { inner: self, primaries: &self.commands, partition, op, history: partition.history() }
    }
}

/// Adds a record to `found`. An unreadable record is only logged, because no request can use the session.
fn see_or_log(found: &mut Snapshot, id: SessionId, record: Result<Session, StoreError>) {
    match record {
        Ok(record) => found.see(id, Ok(record)),
        Err(error) => tracing::error!(
            session = %id,
            %error,
            "session not counted towards its user's limit, because its record cannot be read. If `error` names \
             another version of rotogate, start that version; otherwise run `rotogate session revoke ID`"
        ),
    }
}
