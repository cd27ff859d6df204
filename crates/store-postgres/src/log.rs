//! Reads the live revocations, and the log of recent writes.
//!
//! A writer locks the log, and then takes an id. The lock lasts until the transaction ends. If ids are missing, a
//! reader queries which transactions hold the lock. Ids that are missing after these transactions end were rolled back.
//!
//! A new reader records the log's end, reads the live revocations, and then reads the log from the recorded end. The
//! log contains each change during this read, because revocations only become stricter.

use std::collections::{BTreeMap, BTreeSet};

use super::PostgresInner;
use super::call::{Arg, ResultRow, unexpected};
use super::connect::ConnectionPool;
use super::loss::ServerPosition;
use super::record::{entry, time};
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::Revocation;
use rotogate_core::store::kit::fields::{History, LiveRevocations, add_logged};
use rotogate_core::store::kit::network::{not_done, refused};
use rotogate_core::store::{Cursor, StoreError};

pub(super) const PAGE: i32 = 1000;
/// The maximum number of missing ids. A new reader looks for missing ids up to this distance below the log's end.
const MAX_MISSING: i32 = 10_000;
/// The maximum number of attempts before a reader gives up.
const MAX_STARTS: u32 = 3;
/// How often a reader still searches for a missing id that no open transaction can have taken.
const MAX_LOOKS: u32 = 8;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogProgress {
    /// All entries up to this id were read, except those in `missing`.
    pub(super) high: i64,
    /// For each missing id, the transactions that may have taken it, or `None` if not known yet.
    missing: BTreeMap<i64, Option<BTreeSet<String>>>,
}

pub(super) struct Beat<'a> {
    pub(super) node: &'a [u8],
    pub(super) said: &'a [u8],
}

#[derive(Debug)]
pub(super) struct LogBatch {
    pub(super) entries: Vec<(i64, Revocation)>,
    pub(super) more: bool,
    /// Whether an id is missing although no open transaction can have taken it. The next read shows whether the id
    /// still appears.
    unsettled: bool,
    /// Whether the log was trimmed past the position, so that the live revocations must be read.
    pub(super) is_lost: bool,
    pub(super) now: Timestamp,
    pub(super) server: Option<ServerPosition>,
}

impl PostgresInner {
    pub(super) fn cursor(&self, history: History, place: &LogProgress) -> Cursor {
        if *place == LogProgress::default() {
            return Cursor::default();
        }
        let ids = std::iter::once(&place.high).chain(place.missing.keys());
        let ids = ids.flat_map(|id| id.to_be_bytes());
        Cursor::new(history.into_iter().chain(ids).collect::<Vec<_>>())
    }

    pub(super) fn place(&self, cursor: &Cursor) -> Result<Option<LogProgress>, StoreError> {
        let (parts, rest) = cursor.as_bytes().as_chunks::<8>();
        match (parts, rest) {
            ([], []) => Ok(None),
            ([history, high, missing @ ..], []) => Ok((*history == self.known.history()).then(|| LogProgress {
                high: i64::from_be_bytes(*high),
                missing: missing.iter().map(|id| (i64::from_be_bytes(*id), None)).collect(),
            })),
            _ => Err(refused("this cursor into the revocations was created by another kind of store")),
        }
    }

    /// Returns every live revocation, complete up to the returned log position.
    pub(super) async fn snapshot(
        &self,
        pool: &ConnectionPool,
        history: History,
    ) -> Result<(LiveRevocations<i64>, LogProgress), StoreError> {
        for _ in 0..MAX_STARTS {
            let answer = self.one_of(pool, "rg_end", history, vec![Arg::Int(MAX_MISSING)]).await?;
            let missing: Vec<i64> = answer.get("o_missing")?;
            let mut place = LogProgress {
                high: answer.get("o_last")?,
                missing: missing.into_iter().map(|id| (id, None)).collect(),
            };
            let mut live = self.live(pool, history).await?;
            let Some(entries) = self.logged_after(pool, history, &mut place).await? else { continue };
            add_logged(&mut live, entries);
            return Ok((live, place));
        }
        Err(not_done("the log of revocations in PostgreSQL was repeatedly trimmed while it was read"))
    }

    async fn live(&self, pool: &ConnectionPool, history: History) -> Result<LiveRevocations<i64>, StoreError> {
        let (mut live, mut after) = (LiveRevocations::new(), None::<Vec<u8>>);
        loop {
            let from = Arg::bytes_or_null(after.as_deref());
            let rows = self.all_by(pool, "rg_live", history, vec![from, Arg::Int(PAGE)]).await?;
            for row in &rows {
                let entry = entry(row.get("o_target")?, row.get("o_effect")?, row.get("o_until")?)?;
                live.insert(entry.target.clone(), (row.get("o_place")?, entry));
            }
            match rows.last() {
                Some(last) if rows.len() >= PAGE as usize => after = Some(last.get("o_key")?),
                _ => return Ok(live),
            }
        }
    }

    /// Returns the entries after a position, and moves the position. Returns `None` if those entries were trimmed.
    pub(super) async fn logged_after(
        &self,
        pool: &ConnectionPool,
        history: History,
        place: &mut LogProgress,
    ) -> Result<Option<Vec<(i64, Revocation)>>, StoreError> {
        let (mut found, mut looks) = (Vec::new(), 0);
        loop {
            let reading = self.read_on(pool, history, place, None).await?;
            if reading.is_lost {
                return Ok(None);
            }
            found.extend(reading.entries);
            looks += u32::from(!reading.more);
            if !reading.more && (!reading.unsettled || looks > MAX_LOOKS) {
                return Ok(Some(found));
            }
        }
    }

    pub(super) async fn read_on(
        &self,
        pool: &ConnectionPool,
        history: History,
        place: &mut LogProgress,
        beat: Option<Beat<'_>>,
    ) -> Result<LogBatch, StoreError> {
        let beats = beat.is_some();
        let (node, said) = beat.map(|Beat { node, said }| (node, said)).unzip();
        let missing = Arg::Bigs(place.missing.keys().copied().collect());
        let (node, said) = (Arg::bytes_or_null(node), Arg::bytes_or_null(said));
        let args = vec![node, said, Arg::Big(place.high), missing, Arg::Int(PAGE)];
        let answer = self.one_of(pool, "rg_read", history, args).await?.with_status("read")?;
        let (last, floor): (i64, i64) = (answer.get("o_last")?, answer.get("o_floor")?);
        if last < place.high {
            self.known.flag_lost(history);
            tracing::error!(
                last,
                known = place.high,
                "PostgreSQL lost writes that it had acknowledged. The gates write back the sessions and revocations \
                 that they know"
            );
        }
        let entries = entries(&answer)?;
        let ids: BTreeSet<i64> = entries.iter().map(|(id, _)| *id).collect();
        let new = entries.iter().filter(|(id, _)| *id > place.high).count();
        let more = new >= PAGE as usize;
        let top = entries.iter().map(|(id, _)| *id).max().unwrap_or_default();
        let end = if more { top } else { top.max(last) };
        let skipped = (end - place.high).saturating_sub(i64::try_from(new).unwrap_or(i64::MAX));
        let mut reading = LogBatch {
            entries,
            more,
            unsettled: false,
            is_lost: last < place.high || floor > place.high || skipped > i64::from(MAX_MISSING),
            now: time(answer.get("o_now")?),
            server: if beats { Some(ServerPosition::in_answer(&answer)?) } else { None },
        };
        if reading.is_lost {
            return Ok(reading);
        }
        let set = |name| Ok::<_, StoreError>(answer.get::<Vec<String>>(name)?.into_iter().collect::<BTreeSet<_>>());
        let (before, behind) = (set("o_before")?, set("o_behind")?);
        place.missing.retain(|id, writers| {
            let gone = match writers {
                Some(writers) => {
                    writers.retain(|writer| before.contains(writer));
                    writers.is_empty()
                }
                None => false,
            };
            !gone && !ids.contains(id) && *id > floor
        });
        let fresh = (place.high + 1..=end).filter(|id| !ids.contains(id) && *id > floor).map(|id| (id, None));
        place.missing.extend(fresh);
        for writers in place.missing.values_mut().filter(|writers| writers.is_none()) {
            *writers = Some(behind.clone());
        }
        reading.unsettled = place.missing.values().flatten().any(BTreeSet::is_empty);
        place.high = place.high.max(end);
        Ok(reading)
    }
}

fn entries(answer: &ResultRow) -> Result<Vec<(i64, Revocation)>, StoreError> {
    let ids: Vec<i64> = answer.get("o_ids")?;
    let targets: Vec<&[u8]> = answer.get::<Option<_>>("o_targets")?.unwrap_or_default();
    let effects: Vec<&[u8]> = answer.get::<Option<_>>("o_effects")?.unwrap_or_default();
    let untils: Vec<i64> = answer.get::<Option<_>>("o_untils")?.unwrap_or_default();
    if [targets.len(), effects.len(), untils.len()] != [ids.len(); 3] {
        return Err(unexpected("columns of different lengths"));
    }
    let rows = ids.into_iter().zip(targets).zip(effects).zip(untils);
    rows.map(|(((id, target), effect), until)| Ok((id, entry(target, effect, until)?))).collect()
}
