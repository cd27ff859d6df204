//! A copy of another store, and the store that was moved to one. Until a copy is whole, its heads say so, and no gate opens
//! it. The head of partition 0 of a store that was moved says so first, and then the others.

use async_trait::async_trait;
use redis::{Value, pipe};
use uuid::Uuid;

use super::super::copy::{CopyTarget, Destination, Put, Standing};
use super::super::reset_clock::RemembersTime;
use super::super::{Revocation, StoreError, mark};
use super::cluster::Primaries;
use super::connect::Request;
use super::opening::Ways;
use super::partitions::{Keys, Partition, in_each};
use super::record::{encode_effect, encode_record, millis, new_op, target};
use super::script::{LOWER, MOVE, PUT, bytes, unexpected};
use super::{MOVED, RedisOptions, RedisStore, drop_mut};
use crate::clock::Timestamp;
use crate::session::{RevokedBecause, Session};
use crate::store::SharedStore;

/// How many records are under way at once.
const AT_ONCE: usize = 64;

#[async_trait]
impl CopyTarget for RedisStore {
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<Put, StoreError> {
        let mut put = Put::Done;
        for some in sessions.chunks(AT_ONCE) {
            let each = in_each(some.iter().map(|session| self.put(session))).await?;
            if each.contains(&Put::Whole) {
                put = Put::Whole;
            }
        }
        Ok(put)
    }

    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<Put, StoreError> {
        let inner = &self.0;
        for entry in entries {
            let op = new_op()?;
            // As an entry that reaches nothing here: the records have their end already.
            let put = async |partition: &Partition| {
                let reach = ("none", Vec::new(), Vec::new());
                inner.revoke_in(partition, op, &entry, RevokedBecause::Operator, reach).await.map(drop)
            };
            match inner.held_by(&entry.target)? {
                Some(partition) => put(partition).await?,
                None => in_each(inner.partitions.iter().map(put)).await.map(drop)?,
            }
        }
        Ok(Put::Done)
    }

    async fn raise_stamp(&self, latest: Timestamp) -> Result<(), StoreError> {
        self.stamp_creation(latest).await?.map(drop).ok_or_else(|| {
            StoreError::new(
                "a session began later than the clock of Redis says: set the clocks of both machines by NTP",
            )
        })
    }

    async fn end_copy(&self) -> Result<(), StoreError> {
        let inner = &self.0;
        let Some(of) = inner.options.copying.as_deref() else {
            return Err(StoreError::new("this store is no copy"));
        };
        let end = async |partition: &Partition| {
            let head = partition.keys.of("h");
            let ended = inner.read(&inner.commands, partition, |pipeline| {
                drop_mut(pipeline.cmd("HSET").arg(&head).arg("copied").arg(of).cmd("HDEL").arg(&head).arg("copying"));
            });
            ended.await.map(drop)
        };
        // The first one last: a copy whose first head is whole is whole.
        in_each(inner.partitions.iter().skip(1).map(end)).await?;
        inner.settle().await?;
        end(inner.partitions.first()).await?;
        inner.settle().await
    }

    async fn move_to(&self, to: &Destination) -> Result<(), StoreError> {
        let inner = &self.0;
        let leave = async |partition: &Partition| {
            // Eight bytes, as any history: no other move has the same.
            let random = new_op()?;
            let history: Vec<u8> = MOVED.iter().chain(&random).copied().take(random.len()).collect();
            let args = vec![history, to.encode().into_bytes()];
            let mut answer = inner.run(partition, &MOVE, Vec::new(), args).await?;
            if answer.status != "moved" {
                return Err(answer.unknown());
            }
            let known = Destination::decode(&answer.text()?)?;
            if known.store == to.store { Ok(()) } else { Err(StoreError::new(known.refusal("the store"))) }
        };
        leave(inner.partitions.first()).await?;
        in_each(inner.partitions.iter().skip(1).map(leave)).await.map(drop)
    }

    async fn standing(&self) -> Result<Standing, StoreError> {
        standing(&self.0.commands, &self.0.options).await
    }
}

/// How many entries one script writes anew.
const LOWERED_AT_ONCE: usize = 128;

#[async_trait]
impl RemembersTime for RedisStore {
    async fn time_now(&self) -> Result<Timestamp, StoreError> {
        self.0.time().await
    }

    async fn latest_time(&self) -> Result<Timestamp, StoreError> {
        let first = self.0.partitions.first();
        let head = first.keys.of("h");
        let read = |pipeline: &mut redis::Pipeline| {
            drop_mut(pipeline.cmd("HMGET").arg(head).arg("stamp").arg("adopted"));
        };
        let mut replies = self.0.read(&self.0.commands, first, read).await?;
        let Some(Value::Array(fields)) = replies.next() else { return Err(unexpected("no times")) };
        let times = fields.into_iter().filter_map(bytes).filter_map(|time| String::from_utf8(time).ok()?.parse().ok());
        Ok(times.max().map(Timestamp::from_millis).unwrap_or_default())
    }

    async fn lower_times(&self, _now: Timestamp, entries: Vec<Revocation>) -> Result<(), StoreError> {
        let inner = &self.0;
        for partition in inner.partitions.iter() {
            let mut args = Vec::new();
            for entry in &entries {
                if inner.held_by(&entry.target)?.is_none_or(|holder| holder.number == partition.number) {
                    let end = millis(entry.until).into();
                    args.push([target(&entry.target)?, encode_effect(entry.effect), end]);
                }
            }
            // Once at least.
            let mut rest = args.chunks(LOWERED_AT_ONCE);
            let mut some = rest.next().unwrap_or_default();
            loop {
                let keys = vec![partition.keys.of("n"), partition.keys.of("f")];
                let answer = inner.run(partition, &LOWER, keys, some.concat()).await?;
                if answer.status != "lowered" {
                    return Err(answer.unknown());
                }
                match rest.next() {
                    Some(next) => some = next,
                    None => break,
                }
            }
        }
        Ok(())
    }
}

impl RedisStore {
    /// How a store stands, without a change of it.
    ///
    /// # Errors
    /// Redis does not answer.
    #[doc(hidden)]
    pub async fn standing_at(options: RedisOptions) -> Result<Standing, StoreError> {
        let options = std::sync::Arc::new(options);
        standing(&Ways::find(&options).await?.commands, &options).await
    }

    async fn put(&self, session: &Session) -> Result<Put, StoreError> {
        let inner = &self.0;
        let op = new_op()?;
        let partition = inner.partitions.of(session.id);
        let history = partition.history();
        let keys = vec![partition.keys.session(session.id), partition.keys.subject(&session.subject)];
        let args =
            vec![encode_record(&inner.versions, session, &op, &history)?.to_vec(), session.id.as_bytes().to_vec()];
        let answer = inner.run_as(&inner.commands, partition, (op, history), &PUT, keys, args).await?;
        match answer.status.as_str() {
            "put" => Ok(Put::Done),
            "whole" => Ok(Put::Whole),
            _ => Err(answer.unknown()),
        }
    }
}

/// What the first head says.
async fn standing(primaries: &Primaries, options: &RedisOptions) -> Result<Standing, StoreError> {
    let mut pipeline = pipe();
    let head = Keys::new(&options.prefix, 0).of("h");
    drop_mut(pipeline.cmd("HMGET").arg(head).arg("store").arg("copying").arg("copied").arg("moved"));
    let Value::Array(replies) = primaries.ask(0, &Request::Pipeline(pipeline)).await? else {
        return Err(unexpected("no list"));
    };
    let Some(Value::Array(fields)) = replies.into_iter().next() else { return Err(unexpected("no head")) };
    let [store, copying, copied, moved] =
        <[Value; 4]>::try_from(fields).map_err(|_| unexpected("a short head"))?.map(bytes);
    let Some(store) = store else { return Ok(Standing::Missing) };
    let store: Uuid = mark::uuid(store.try_into().map_err(|_| unexpected("no store"))?);
    let text = |bytes: Option<Vec<u8>>| bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Standing::read(store, text(copying), text(copied), text(moved).as_deref())
}
