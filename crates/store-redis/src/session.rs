//! Sessions: load, insert, swap, confirm.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher;
use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::{Pipeline, Value};
use tokio::sync::{Mutex, MutexGuard};

use super::cluster::Primaries;
use super::connect::FIRST_PAUSE;
use super::fault::not_done;
use super::partitions::{Partition, in_each};
use super::record::{
    Op, decode_live, decode_record, encode_effect, encode_record, millis, new_op, reason_number, target, unreadable,
};
use super::script::{ANNOUNCE, CONFIRM, INSERT, ROOM, SWAP, ScriptReply, bytes, unexpected};
use super::{RedisInner, drop_mut};
use rotogate_core::clock::Timestamp;
use rotogate_core::random::jittered;
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate_core::store::rules::Rules;
use rotogate_core::store::{Inserted, StoreError, SubjectBound, Swap, WriteOutcome};

mod view;

use view::View;

/// How often an insert that is bounded is decided again, because another node changed the subject's sessions meanwhile.
const MAX_DECISIONS: u32 = 24;
/// How many records one script confirms.
const CONFIRMED_AT_ONCE: usize = 256;
const TURNS: usize = 64;
/// How many clients are asked about besides a login's own.
const CLIENTS_KNOWN: usize = 32;

/// Inserts of one subject that count its sessions take turns: among nodes, the one that loses decides again.
pub(super) struct InsertTurns {
    locks: [Mutex<()>; TURNS],
    hasher: foldhash::fast::RandomState,
}

impl InsertTurns {
    pub(super) fn new() -> Self {
        Self { locks: std::array::from_fn(|_| Mutex::default()), hasher: foldhash::fast::RandomState::default() }
    }

    async fn take(&self, subject: &str) -> Option<MutexGuard<'_, ()>> {
        let turn = usize::try_from(self.hasher.hash_one(subject) % TURNS as u64).unwrap_or_default();
        Some(self.locks.get(turn)?.lock().await)
    }
}

/// What a bounded insert needs besides.
#[derive(Debug, Default)]
pub(super) struct InsertBound {
    /// How often a session of the subject was inserted, in each partition. Empty: it does not matter.
    inserts: Vec<String>,
    stays: Vec<SessionId>,
    gives_way: Vec<(SessionId, u64)>,
}

impl RedisInner {
    pub(super) async fn load(&self, primaries: &Primaries, id: SessionId) -> Result<Option<Session>, StoreError> {
        let partition = self.partitions.of_session(id);
        let key = partition.keys.session(id);
        let mut replies = self.read(primaries, partition, |pipeline| drop_mut(pipeline.cmd("GET").arg(key))).await?;
        match replies.next() {
            Some(Value::Nil) => Ok(None),
            Some(Value::BulkString(record)) => decode_record(id, &record).map(Some),
            _ => Err(unexpected("no record")),
        }
    }

    /// The records of these ids, as far as there are any.
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
            // While a slot moves, each key is at one of two servers.
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

    pub(super) async fn insert(&self, session: &Session, bound: SubjectBound) -> Result<Inserted, StoreError> {
        let op = new_op()?;
        if bound == SubjectBound::NONE {
            return match self.insert_as(op, session, &InsertBound::default()).await? {
                Some(inserted) => Ok(inserted),
                None => Err(unexpected("a bound that was not asked for")),
            };
        }
        let _turn = self.inserts.take(&session.subject).await;
        for decision in 0..MAX_DECISIONS {
            let room = match self.room_for(session, bound).await? {
                Ok(room) => room,
                Err(refused) => return Ok(refused),
            };
            if self.partitions.count() > 1 {
                if let Some(inserted) = self.insert_among_partitions(op, session, room).await? {
                    return Ok(inserted);
                }
                // Two that hinder each other would go on to do so.
                tokio::time::sleep(jittered(FIRST_PAUSE.saturating_mul(1 << decision.min(6)))).await;
            } else if let Some(inserted) = self.insert_as(op, session, &room).await? {
                return Ok(inserted);
            }
        }
        Err(not_done("other gates began sessions of one subject at every attempt to begin another"))
    }

    /// What gives way to a session, by the rules; or why it does not begin.
    pub(super) async fn room_for(
        &self,
        session: &Session,
        bound: SubjectBound,
    ) -> Result<Result<InsertBound, Inserted>, StoreError> {
        let mut view = self.view(session).await?;
        let rules = Rules::new(Arc::clone(&self.issuer), self.options.leeway);
        match rules.insert(&mut view, session, bound)? {
            Inserted::Inserted(_) => Ok(Ok(view.room())),
            refused @ (Inserted::NoLongerValid(_) | Inserted::TooMany) => Ok(Err(refused)),
        }
    }

    /// Says in each other partition that a session is about to begin. False: the room was found before another said so.
    pub(super) async fn announce(&self, session: &Session, room: &InsertBound) -> Result<bool, StoreError> {
        let own = self.partitions.of_session(session.id);
        let others = self.partitions.iter().filter(|partition| partition.number != own.number);
        let announced = in_each(others.map(async |partition| {
            let keys = vec![partition.keys.subject(&session.subject)];
            let known = room.inserts.get(partition.number).cloned().unwrap_or_default();
            let answer = self.run(partition, &ANNOUNCE, keys, vec![known.into()]).await?;
            match answer.status.as_str() {
                "announced" => Ok(true),
                "again" => Ok(false),
                _ => Err(answer.unknown()),
            }
        }));
        Ok(!announced.await?.contains(&false))
    }

    /// An insert that is bounded over all partitions: see [`partitions`](super::partitions).
    pub(super) async fn insert_among_partitions(
        &self,
        op: Op,
        session: &Session,
        room: InsertBound,
    ) -> Result<Option<Inserted>, StoreError> {
        if !self.announce(session, &room).await? {
            return Ok(None);
        }
        let here = InsertBound { inserts: room.inserts, ..InsertBound::default() };
        match self.insert_as(op, session, &here).await? {
            Some(Inserted::Inserted(_)) => {}
            other => return Ok(other),
        }
        let entries = in_each(room.gives_way.iter().map(async |(id, _)| {
            let effect = Effect::SESSION_REVOKED;
            let entry = Revocation { target: Target::Session(*id), effect, until: Timestamp::ZERO };
            self.revoke(new_op()?, entry, RevokedBecause::TooMany).await
        }));
        // The session is there, and not acknowledged.
        let entries = entries.await.map_err(|error| error.with_outcome(WriteOutcome::InDoubt))?;
        Ok(Some(Inserted::Inserted(entries)))
    }

    /// `None`: the subject's sessions are not what the room was found in.
    pub(super) async fn insert_as(
        &self,
        op: Op,
        session: &Session,
        room: &InsertBound,
    ) -> Result<Option<Inserted>, StoreError> {
        let partition = self.partitions.of_session(session.id);
        let key = |id: &SessionId| partition.keys.session(*id);
        let history = partition.history();
        let record = encode_record(session, &op, &history)?;
        let targets = self.targets(session)?;
        let mut keys = vec![key(&session.id), partition.keys.subject(&session.subject)];
        keys.extend(room.stays.iter().chain(room.gives_way.iter().map(|(id, _)| id)).map(key));
        let mut args = vec![record.to_vec(), millis(session.created()).into()];
        args.extend(targets);
        args.extend([
            session.id.as_bytes().to_vec(),
            room.inserts.get(partition.number).cloned().unwrap_or_default().into(),
            self.leeway(),
            reason_number(RevokedBecause::TooMany).to_string().into(),
            partition.keys.named("sub:"),
            room.stays.len().to_string().into(),
        ]);
        let mut ended = Vec::new();
        for (id, revision) in &room.gives_way {
            let gone = target(&Target::Session(*id))?;
            args.extend([id.as_bytes().to_vec(), revision.to_be_bytes().into(), gone.clone()]);
            ended.push(gone);
        }
        let mut answer = self.run_as(&self.commands, partition, (op, history), &INSERT, keys, args).await?;
        match answer.status.as_str() {
            "inserted" => {
                let found = answer.list()?.into_iter().map(bytes);
                let entries = ended.iter().zip(found).map(|(target, value)| {
                    decode_live(target, &value.ok_or_else(|| unexpected("no entry"))?).map(|(entry, _)| entry)
                });
                Ok(Some(Inserted::Inserted(entries.collect::<Result<_, _>>()?)))
            }
            "exists" => Err(StoreError::new(format!("there is a session {} already", session.id))
                .with_outcome(WriteOutcome::Refused)),
            "old" => Err(not_done(format!("session {} took more than an hour to begin", session.id))),
            "late" => Ok(Some(Inserted::NoLongerValid(time_in(&mut answer)?))),
            "again" => Ok(None),
            _ => Err(answer.unknown()),
        }
    }

    /// The subject's sessions, and what is held against them: in one round trip, if they are in one partition.
    async fn view(&self, session: &Session) -> Result<View, StoreError> {
        if self.partitions.count() == 1 {
            return self.view_of_one(session).await;
        }
        let (inserts, ids) = self.sessions_of(&session.subject).await?;
        let mut ids: BTreeSet<_> = ids.into_iter().collect();
        ids.insert(session.id);
        let ids: Vec<_> = ids.into_iter().collect();
        let mut view = View { inserts, ..View::default() };
        for (id, record) in self.load_all(&ids).await? {
            match record {
                Ok(record) => drop(view.sessions.insert(id, record)),
                // No request can continue an unreadable session.
                Err(error) => tracing::error!(session = %id, %error, "session not counted"),
            }
        }
        let mut targets: BTreeSet<Target> =
            view.sessions.keys().map(|id| Target::Session(*id)).chain([Target::Global]).collect();
        for one in view.sessions.values().chain([session]) {
            let (issuer, subject, client) = (Arc::clone(&self.issuer), one.subject.clone(), one.client.clone());
            targets.insert(Target::Subject { issuer: Arc::clone(&issuer), subject });
            targets.insert(Target::Client { issuer, client });
        }
        // Every partition has the not-befores, and each the entries of its sessions.
        let own = |target: &Target| match target {
            Target::Session(id) => *id,
            Target::Subject { .. } | Target::Client { .. } | Target::Global | Target::Token { .. } => session.id,
        };
        let reads = self.partitions.sort(targets, own).into_iter().map(|(of, some)| self.entries_of(of, some));
        for entry in try_join_all(reads).await?.into_iter().flatten() {
            view.revocations.insert(entry.target.clone(), entry);
        }
        Ok(view)
    }

    async fn view_of_one(&self, session: &Session) -> Result<View, StoreError> {
        let first = self.partitions.first();
        let client_of = |client: &str| Target::Client { issuer: Arc::clone(&self.issuer), client: client.into() };
        let mut targets = BTreeSet::from(self.held_against(session));
        // The script cannot read whose client's the others are.
        targets.extend(self.clients().iter().map(|client| client_of(client)));
        let fields = targets.iter().map(target).collect::<Result<Vec<_>, _>>()?;
        let own = target(&Target::Session(session.id))?;
        let of_session = own.strip_suffix(session.id.as_bytes()).ok_or_else(|| unexpected("no target of a session"))?;
        let mut args = vec![first.keys.named("s:"), of_session.to_vec()];
        args.extend(fields.iter().cloned());
        let mut answer = self.run(first, &ROOM, vec![first.keys.subject(&session.subject)], args).await?;
        if answer.status != "room" {
            return Err(answer.unknown());
        }
        let mut view = View { inserts: vec![answer.text()?], ..View::default() };
        let mut entries = Vec::new();
        let mut sessions = answer.list()?.into_iter().map(bytes);
        while let (Some(Some(id)), Some(Some(record)), Some(Some(entry))) =
            (sessions.next(), sessions.next(), sessions.next())
        {
            let id = SessionId::from_bytes(id.try_into().map_err(|_| unexpected("no id"))?);
            if !entry.is_empty() {
                entries.push(decode_live(&target(&Target::Session(id))?, &entry)?.0);
            }
            if record.is_empty() {
                continue;
            }
            match decode_record(id, &record) {
                Ok(record) => drop(view.sessions.insert(id, record)),
                // No request can continue an unreadable session.
                Err(error) => tracing::error!(session = %id, %error, "session not counted"),
            }
        }
        for (field, entry) in fields.iter().zip(answer.list()?.into_iter().filter_map(bytes)) {
            if !entry.is_empty() {
                entries.push(decode_live(field, &entry)?.0);
            }
        }
        let others: BTreeSet<_> =
            view.sessions.values().map(|one| client_of(&one.client)).filter(|of| !targets.contains(of)).collect();
        if !others.is_empty() {
            // Asked for at once from the next login on.
            self.learn_clients(view.sessions.values());
            entries.extend(self.entries_of(first, others.into_iter().collect()).await?);
        }
        view.revocations = entries.into_iter().map(|entry| (entry.target.clone(), entry)).collect();
        Ok(view)
    }

    fn learn_clients<'a>(&self, of: impl Iterator<Item = &'a Session>) {
        let mut known = self.clients();
        known.extend(of.map(|one| one.client.clone()));
        while known.len() > CLIENTS_KNOWN {
            known.pop_first();
        }
    }

    /// The clients of sessions that were counted lately.
    fn clients(&self) -> parking_lot::MutexGuard<'_, BTreeSet<Box<str>>> {
        self.clients.lock()
    }

    /// The live entries of these targets.
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

    /// The ids in a subject's indexes, and how often one was inserted in each partition.
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
        let partition = self.partitions.of_session(record.id);
        let history = partition.history();
        let bytes = encode_record(record, &op, &history)?;
        let keys = vec![partition.keys.session(record.id), partition.keys.subject(&record.subject)];
        let mut args = vec![expected.to_be_bytes().into(), bytes.to_vec(), millis(record.created()).into()];
        args.extend(self.targets(record)?);
        args.push(record.id.as_bytes().to_vec());
        if let Some(entry) = revocation {
            args.extend([target(&entry.target)?, encode_effect(entry.effect), millis(entry.until).into()]);
        }
        let mut answer = self.run_as(&self.commands, partition, (op, history), &SWAP, keys, args).await?;
        match answer.status.as_str() {
            "swapped" => Ok(Swap::Swapped),
            "changed" => {
                let now = answer.bytes()?;
                let now = if now.is_empty() { None } else { Some(Box::new(decode_record(record.id, &now)?)) };
                Ok(Swap::Changed(now))
            }
            "late" => Ok(Swap::NoLongerValid),
            "moved" => {
                Err(StoreError::new(format!("the subject and the client of session {} never change", record.id))
                    .with_outcome(WriteOutcome::Refused))
            }
            "version" => Err(unreadable(record.id, answer.number()?)),
            _ => Err(answer.unknown()),
        }
    }

    pub(super) async fn confirm(&self, seen: &[(SessionId, Generation)]) -> Result<Vec<SessionId>, StoreError> {
        let sorted = self.partitions.sort(seen.iter().copied(), |(id, _)| *id);
        Ok(in_each(sorted.iter().map(|(partition, seen)| self.confirm_in(partition, seen))).await?.concat())
    }

    async fn confirm_in(
        &self,
        partition: &Partition,
        seen: &[(SessionId, Generation)],
    ) -> Result<Vec<SessionId>, StoreError> {
        let mut marked = Vec::new();
        for seen in seen.chunks(CONFIRMED_AT_ONCE) {
            let keys = seen.iter().map(|(id, _)| partition.keys.session(*id)).collect();
            let args = seen.iter().map(|(_, generation)| generation.get().to_be_bytes().into()).collect();
            let mut answer = self.run(partition, &CONFIRM, keys, args).await?;
            if answer.status != "confirmed" {
                return Err(answer.unknown());
            }
            marked.extend(of_places(seen, &answer.list()?));
            // The others count all the same: unconfirmed is the safe side.
            for id in of_places(seen, &answer.list()?) {
                tracing::error!(session = %id, "session not confirmed: another version wrote its record");
            }
        }
        Ok(marked)
    }
}

/// The sessions at places that a script counts from one.
fn of_places(seen: &[(SessionId, Generation)], places: &[Value]) -> impl Iterator<Item = SessionId> {
    places.iter().filter_map(|place| {
        let Value::Int(place) = place else { return None };
        let (id, _) = seen.get(usize::try_from(*place).ok()?.checked_sub(1)?)?;
        Some(*id)
    })
}

fn time_in(answer: &mut ScriptReply) -> Result<Timestamp, StoreError> {
    let bytes = answer.bytes()?.try_into().map_err(|_| unexpected("no time"))?;
    Ok(Timestamp::from_millis(u64::from_be_bytes(bytes)))
}
