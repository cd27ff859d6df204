//! Reads the live revocations, and the log of recent writes.
//!
//! A new reader records the log's end, reads the live revocations, and then reads the log from the recorded end. The
//! log contains each change during this read, because revocations only become stricter. A position is an entry's id
//! **and** the write that made the entry. If the log lacks this entry, later entries may be lost too, so the reader
//! starts again.

use std::collections::btree_map::Entry;

use futures_util::future::join;
use parking_lot::Mutex;
use redis::Value;

use super::cluster::Primaries;
use super::partitions::Partition;
use super::record::{LogId, Op, decode_live, decode_logged};
use super::script::{bytes, unexpected};
use super::{RedisInner, drop_mut};
use rotogate_core::revocation::Revocation;
use rotogate_core::revocation::list::ListFilling;
use rotogate_core::store::kit::fields::{LiveRevocations, add_logged};
use rotogate_core::store::kit::network::{not_done, refused};
use rotogate_core::store::{Cursor, StoreError};

pub(super) const PAGE: usize = 1000;
pub(super) const BEGIN: &[u8] = b"0";
/// The maximum number of attempts before a reader gives up.
const MAX_STARTS: u32 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogPosition {
    pub(super) id: LogId,
    /// The write that made the entry. All zeros if unknown. The log then has the position if no entry from `id` on was
    /// trimmed.
    pub(super) op: Op,
}

impl LogPosition {
    fn has_entry(&self) -> bool {
        self.op != Op::default()
    }

    /// Returns whether the log has all entries after this position. `found` is the entry with the same id.
    pub(super) fn is_there(&self, found: Option<&(Self, Revocation)>, floor: LogId) -> bool {
        if self.has_entry() { found.is_some_and(|(found, _)| found == self) } else { floor <= self.id }
    }
}

impl RedisInner {
    pub(super) fn cursor(&self, places: &[LogPosition]) -> Cursor {
        if places.iter().all(|place| *place == LogPosition::default()) {
            return Cursor::default();
        }
        let parts = self.partitions.iter().zip(places).flat_map(|(partition, place)| {
            [partition.history(), place.op, place.id.time.to_be_bytes(), place.id.number.to_be_bytes()]
        });
        Cursor::new(parts.flatten().collect::<Vec<_>>())
    }

    /// Returns the position in each partition, or `None` at the beginning or for another history.
    pub(super) fn places(&self, cursor: &Cursor) -> Result<Vec<Option<LogPosition>>, StoreError> {
        let (parts, rest) = cursor.as_bytes().as_chunks::<8>();
        let (places, short) = parts.as_chunks::<4>();
        if cursor.as_bytes().is_empty() {
            return Ok(vec![None; self.partitions.count()]);
        }
        if !rest.is_empty() || !short.is_empty() || places.len() != self.partitions.count() {
            return Err(refused("this cursor into the revocations was created by another kind of store"));
        }
        let of = |partition: &Partition, [history, op, time, number]: &[[u8; 8]; 4]| {
            (*history == partition.history()).then(|| LogPosition {
                id: LogId { time: u64::from_be_bytes(*time), number: u64::from_be_bytes(*number) },
                op: *op,
            })
        };
        Ok(self.partitions.iter().zip(places).map(|(partition, place)| of(partition, place)).collect())
    }

    /// Returns a partition's entries after a position, or all entries if the log lacks the position.
    pub(super) async fn since(
        &self,
        partition: &Partition,
        from: Option<LogPosition>,
    ) -> Result<(LiveRevocations<LogId>, LogPosition), StoreError> {
        if let Some(from) = from
            && let Some((entries, end)) = self.logged_after(&self.commands, partition, from).await?
        {
            let mut last = LiveRevocations::new();
            for (id, entry) in entries {
                last.insert(entry.target.clone(), (id, entry));
            }
            return Ok((last, end));
        }
        self.snapshot(&self.commands, partition).await
    }

    /// Adds a partition's live revocations to a list, complete up to the returned log position.
    pub(super) async fn fill(
        &self,
        list: &Mutex<ListFilling>,
        partition: &Partition,
    ) -> Result<LogPosition, StoreError> {
        // `ListFilling::add` merges the entries of each target, so duplicates and the order do not matter.
        let add = |entries: Vec<(LogId, Revocation)>| {
            let mut list = list.lock();
            entries.iter().for_each(|(_, entry)| list.add(entry));
        };
        for _ in 0..MAX_STARTS {
            let begin = self.end_of_log(&self.commands, partition).await?;
            self.each_page(&self.commands, partition, add).await?;
            if let Some((entries, end)) = self.logged_after(&self.commands, partition, begin).await? {
                add(entries);
                return Ok(end);
            }
        }
        Err(trimmed_again())
    }

    /// Returns a partition's live revocations, complete up to the returned log position.
    pub(super) async fn snapshot(
        &self,
        primaries: &Primaries,
        partition: &Partition,
    ) -> Result<(LiveRevocations<LogId>, LogPosition), StoreError> {
        for _ in 0..MAX_STARTS {
            let begin = self.end_of_log(primaries, partition).await?;
            let mut live = self.live(primaries, partition).await?;
            let Some((entries, end)) = self.logged_after(primaries, partition, begin).await? else { continue };
            add_logged(&mut live, entries);
            return Ok((live, end));
        }
        Err(trimmed_again())
    }

    async fn live(&self, primaries: &Primaries, partition: &Partition) -> Result<LiveRevocations<LogId>, StoreError> {
        let mut live = LiveRevocations::new();
        self.each_page(primaries, partition, |entries| {
            live.extend(entries.into_iter().map(|(id, entry)| (entry.target.clone(), (id, entry))));
        })
        .await?;
        Ok(live)
    }

    async fn each_page(
        &self,
        primaries: &Primaries,
        partition: &Partition,
        mut take: impl FnMut(Vec<(LogId, Revocation)>),
    ) -> Result<(), StoreError> {
        let (mut page, mut rest) = self.scan_live(primaries, partition, BEGIN.into()).await?;
        while let Some(cursor) = rest {
            // Requests the next page early, to process pages in parallel.
            let next = self.scan_live(primaries, partition, cursor);
            let (next, taken) = join(next, async { decode_page(page).map(&mut take) }).await;
            taken?;
            (page, rest) = next?;
        }
        decode_page(page).map(take)
    }

    /// Returns a page of live revocations, and the next cursor. A revocation that stays live during the scan is on at
    /// least one page.
    pub(super) async fn live_page(
        &self,
        primaries: &Primaries,
        partition: &Partition,
        cursor: Vec<u8>,
    ) -> Result<(Vec<(LogId, Revocation)>, Option<Vec<u8>>), StoreError> {
        let (page, next) = self.scan_live(primaries, partition, cursor).await?;
        Ok((decode_page(page)?, next))
    }

    async fn scan_live(
        &self,
        primaries: &Primaries,
        partition: &Partition,
        cursor: Vec<u8>,
    ) -> Result<(Vec<Value>, Option<Vec<u8>>), StoreError> {
        let key = partition.keys.named("r");
        let mut replies = self
            .read(primaries, partition, |pipeline| {
                drop_mut(pipeline.cmd("HSCAN").arg(key).arg(cursor).arg("COUNT").arg(PAGE));
            })
            .await?;
        let Some(Value::Array(parts)) = replies.next() else { return Err(unexpected("no scan")) };
        let [next, Value::Array(pairs)] = <[Value; 2]>::try_from(parts).map_err(|_| unexpected("a short scan"))? else {
            return Err(unexpected("no entries"));
        };
        let next = bytes(next).ok_or_else(|| unexpected("no cursor"))?;
        Ok((pairs, (next != BEGIN).then_some(next)))
    }

    pub(super) async fn end_of_log(
        &self,
        primaries: &Primaries,
        partition: &Partition,
    ) -> Result<LogPosition, StoreError> {
        let (log, head) = (partition.keys.named("log"), partition.keys.named("h"));
        let mut replies = self
            .read(primaries, partition, |pipeline| {
                pipeline.cmd("XREVRANGE").arg(log).arg("+").arg("-").arg("COUNT").arg(1);
                pipeline.cmd("HGET").arg(head).arg("floor");
            })
            .await?;
        let entries = read_log(replies.next())?;
        let empty = LogPosition { id: floor(replies.next())?, op: Op::default() };
        Ok(entries.first().map_or(empty, |(place, _)| *place))
    }

    async fn logged_after(
        &self,
        primaries: &Primaries,
        partition: &Partition,
        from: LogPosition,
    ) -> Result<Option<(Vec<(LogId, Revocation)>, LogPosition)>, StoreError> {
        let (mut found, mut at) = (Vec::new(), from);
        loop {
            let (log, head) = (partition.keys.named("log"), partition.keys.named("h"));
            let mut replies = self
                .read(primaries, partition, |pipeline| {
                    // The read begins with the entry at the position. If the position's entry is present, no later
                    // entry is missing.
                    pipeline.cmd("XRANGE").arg(log).arg(at.id.to_string()).arg("+").arg("COUNT").arg(PAGE);
                    pipeline.cmd("HGET").arg(head).arg("floor");
                })
                .await?;
            let entries = read_log(replies.next())?;
            let full = entries.len() == PAGE;
            if !at.is_there(entries.first(), floor(replies.next())?) {
                return Ok(None);
            }
            for (place, entry) in entries.into_iter().skip(usize::from(at.has_entry())) {
                at = place;
                found.push((place.id, entry));
            }
            if !full {
                return Ok(Some((found, at)));
            }
        }
    }
}

/// A page is a list of targets, each followed by its value.
fn decode_page(page: Vec<Value>) -> Result<Vec<(LogId, Revocation)>, StoreError> {
    let mut entries = Vec::with_capacity(page.len() / 2);
    let mut pairs = page.into_iter().filter_map(bytes);
    while let (Some(target), Some(value)) = (pairs.next(), pairs.next()) {
        let (entry, id) = decode_live(&target, &value)?;
        entries.push((id, entry));
    }
    Ok(entries)
}

fn trimmed_again() -> StoreError {
    not_done("the log of revocations in Redis was repeatedly trimmed while it was read")
}

/// Merges the partitions, because a target may have entries in several partitions. Also returns the end of each log.
pub(super) fn all_of(
    of_each: Vec<(LiveRevocations<LogId>, LogPosition)>,
) -> (LiveRevocations<LogId>, Vec<LogPosition>) {
    let mut parts = of_each.into_iter();
    let Some((mut live, end)) = parts.next() else { return (LiveRevocations::new(), Vec::new()) };
    let mut ends = vec![end];
    for (part, end) in parts {
        ends.push(end);
        for (target, (id, entry)) in part {
            match live.entry(target) {
                Entry::Vacant(free) => drop(free.insert((id, entry))),
                Entry::Occupied(mut known) => {
                    let (known_id, known) = known.get_mut();
                    *known_id = id.max(*known_id);
                    known.absorb(&entry);
                }
            }
        }
    }
    (live, ends)
}

pub(super) fn floor(reply: Option<Value>) -> Result<LogId, StoreError> {
    reply.and_then(bytes).as_deref().and_then(LogId::parse).ok_or_else(|| unexpected("no floor"))
}

/// Decodes a reply to XRANGE, or one stream of a reply to XREAD.
pub(super) fn read_log(reply: Option<Value>) -> Result<Vec<(LogPosition, Revocation)>, StoreError> {
    let Some(Value::Array(entries)) = reply else { return Err(unexpected("no log")) };
    entries.into_iter().map(read_entry).collect()
}

fn read_entry(entry: Value) -> Result<(LogPosition, Revocation), StoreError> {
    let damaged = || unexpected("a log entry that cannot be read");
    let Value::Array(parts) = entry else { return Err(damaged()) };
    let [id, Value::Array(fields)] = <[Value; 2]>::try_from(parts).map_err(|_| damaged())? else {
        return Err(damaged());
    };
    let id = bytes(id).as_deref().and_then(LogId::parse).ok_or_else(damaged)?;
    let [name, value] = <[Value; 2]>::try_from(fields).map_err(|_| damaged())?.map(bytes);
    match (name.as_deref(), value) {
        (Some(b"e"), Some(value)) => {
            let (op, entry) = decode_logged(&value)?;
            Ok((LogPosition { id, op }, entry))
        }
        _ => Err(damaged()),
    }
}
