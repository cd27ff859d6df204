//! Loads all revocations when a gate starts.
//!
//! Several threads read the table in ranges of row keys. If a processor is free, a thread passes the upper half of its
//! range to a new thread. The range is split in the numeric middle, so that the halves are similar in size.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::{Scope, available_parallelism, scope};

use parking_lot::Mutex;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, ReadableTableMetadata};

use super::schema::{REVOCATIONS, decode_revocation, failed};
use rotogate_core::revocation::RevocationList;
use rotogate_core::revocation::list::{ListFilling, ListShare};
use rotogate_core::store::{Cursor, StoreError};

/// A thread looks for a free processor after this number of entries. The number is small in tests, so that a load takes
/// several steps.
const ENTRIES_PER_STEP: usize = if cfg!(test) { 16 } else { 8 << 10 };
/// More threads would only wait for the same pages.
const MAX_THREADS: usize = 8;
/// The number is limited, because checksums do not cover the table's length.
const MAX_RESERVED_ENTRIES: u64 = 16 << 20;

type Revocations = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// Reads the table instead of the log, because the order does not matter.
pub(super) fn all(database: &Database) -> Result<(RevocationList, Cursor), StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let table = read.open_table(REVOCATIONS).map_err(failed)?;
    let room = table.len().map_err(failed)?.min(MAX_RESERVED_ENTRIES);
    let filling = ListFilling::expecting(usize::try_from(room).unwrap_or(0));
    let threads = available_parallelism().map_or(1, NonZeroUsize::get).min(MAX_THREADS);
    let loading = Loading {
        table: &table,
        filling: &filling,
        shares: Mutex::new(Vec::new()),
        threads,
        busy: AtomicUsize::new(1),
        end: AtomicU64::new(0),
        error: Mutex::new(None),
    };
    if let Some(all) = loading.all()? {
        scope(|threads| loading.take(threads, all));
    }
    let Loading { end, error, shares, .. } = loading;
    shares.into_inner().into_iter().for_each(ListShare::finish);
    match error.into_inner() {
        Some(error) => Err(error),
        None => Ok((filling.finish(), Cursor::from_place(end.into_inner()))),
    }
}

struct Loading<'a> {
    table: &'a Revocations,
    filling: &'a ListFilling,
    /// Unused shares, which new threads reuse.
    shares: Mutex<Vec<ListShare<'a>>>,
    threads: usize,
    busy: AtomicUsize,
    end: AtomicU64,
    /// The first error stops all threads.
    error: Mutex<Option<StoreError>>,
}

/// Both bounds are existing row keys.
struct KeyRange {
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Loading<'_> {
    fn all(&self) -> Result<Option<KeyRange>, StoreError> {
        let first = self.table.first().map_err(failed)?.map(|(key, _)| key.value().to_vec());
        let last = self.table.last().map_err(failed)?.map(|(key, _)| key.value().to_vec());
        Ok(first.zip(last).map(|(first, last)| KeyRange { first, last }))
    }

    /// Reads a range, and passes parts of the range to other threads.
    fn take<'scope>(&'scope self, threads: &'scope Scope<'scope, '_>, keys: KeyRange) {
        let share = self.shares.lock().pop();
        let mut share = share.unwrap_or_else(|| self.filling.share(self.threads));
        if let Err(error) = self.read(threads, keys, &mut share) {
            self.error.lock().get_or_insert(error);
        }
        self.shares.lock().push(share);
        self.busy.fetch_sub(1, Ordering::Relaxed);
    }

    fn read<'scope>(
        &'scope self,
        threads: &'scope Scope<'scope, '_>,
        mut keys: KeyRange,
        share: &mut ListShare<'_>,
    ) -> Result<(), StoreError> {
        let mut end = 0;
        loop {
            if self.error.lock().is_some() {
                return Ok(());
            }
            while self.may_begin() {
                let Some(upper) = self.split(&mut keys)? else {
                    self.busy.fetch_sub(1, Ordering::Relaxed);
                    break;
                };
                threads.spawn(move || self.take(threads, upper));
            }
            let mut rows = self.table.range::<&[u8]>(&*keys.first..=&*keys.last).map_err(failed)?;
            for row in rows.by_ref().take(ENTRIES_PER_STEP) {
                let (target, entry) = row.map_err(failed)?;
                let (place, revocation) = decode_revocation(target.value(), entry.value())?;
                share.add(&revocation);
                end = end.max(place);
            }
            let Some(next) = rows.next() else { break };
            let (next, _) = next.map_err(failed)?;
            let next = next.value().to_vec();
            drop(rows);
            keys.first = next;
        }
        self.end.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    /// Counts one more busy thread. Returns false if all threads are already busy.
    fn may_begin(&self) -> bool {
        let more = |busy| (busy < self.threads).then_some(busy + 1);
        self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Splits off the upper half of a range. `None` if the bounds are too close.
    fn split(&self, keys: &mut KeyRange) -> Result<Option<KeyRange>, StoreError> {
        let Some(middle) = middle(&keys.first, &keys.last) else { return Ok(None) };
        let upper = self.table.range::<&[u8]>(&*middle..=&*keys.last).map_err(failed)?.next().transpose();
        let lower = self.table.range::<&[u8]>(&*keys.first..&*middle).map_err(failed)?.next_back().transpose();
        let (Some((first, _)), Some((last, _))) = (upper.map_err(failed)?, lower.map_err(failed)?) else {
            return Ok(None);
        };
        let upper = KeyRange { first: first.value().to_vec(), last: std::mem::take(&mut keys.last) };
        keys.last = last.value().to_vec();
        Ok(Some(upper))
    }
}

/// Returns a key above `low`, and at most `high`. `None` if the two keys are too close.
fn middle(low: &[u8], high: &[u8]) -> Option<Vec<u8>> {
    let same = low.iter().zip(high).take_while(|(low, high)| low == high).count();
    let number = |key: &[u8]| {
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(key.iter().skip(same)).for_each(|(to, from)| *to = *from);
        u64::from_be_bytes(bytes)
    };
    let (from, to) = (number(low), number(high));
    let half = to.checked_sub(from)? / 2;
    let middle = (half > 0).then_some(from + half)?;
    Some(low.iter().take(same).copied().chain(middle.to_be_bytes()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_two_keys_is_above_the_one_and_not_above_the_other() {
        let cases: [(&[u8], &[u8]); 7] = [
            (&[0; 8], &[0, 0, 0, 0, 0, 0, 0, 1]),
            (&[0, 1, 0x8b], &[0, 1, 0x8c]),
            (&[0], &[3]),
            (&[], &[0, 0, 0, 0, 0, 0, 0, 9]),
            (b"https://a/jti-1", b"https://a/jti-11"),
            (&[7; 20], &[8; 20]),
            (&[0xff, 0], &[0xff, 0xff, 0xff]),
        ];
        for (low, high) in cases {
            let middle = middle(low, high).unwrap();
            assert!(*low < *middle && *middle <= *high, "{low:?} {middle:?} {high:?}");
        }
        assert_eq!(middle(&[1, 2, 3], &[1, 2, 3]), None);
        assert_eq!(middle(&[2], &[1]), None, "keys out of order, as only a damaged file has them");
    }
}
