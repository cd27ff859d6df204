//! The tables in the file, and the encoding of their keys and values.
//!
//! | table | key | value |
//! |---|---|---|
//! | `sessions` | id | record, versioned |
//! | `sessions_by_subject` | subject, id | end, ms |
//! | `live_sessions` | subject, id; only sessions that are not revoked | end of the session, ms |
//! | `sessions_by_end` | end in ms, id | |
//! | `revocations` | target | log position, effect, and expiry (`until`); versioned |
//! | `revocations_by_until` | until in ms, target | |
//! | `revocation_log` | position | target |
//! | `rows` | space, key | row, versioned |
//! | `rows_by_until` | space, until in ms, key | |
//! | `rows_in` | space | number of rows |
//! | `rotogate_meta` | `schema` | version of these tables |
//! | `rotogate_meta` | `head` | [`StoreHead`], versioned |
//! | `rotogate_meta` | `copying` | the name of the store that is copied into this one, until the copy is complete |
//!
//! [`encoding`](rotogate_core::store::kit::encoding) describes the bytes of records.

use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::kit::encoding::{decode, decode_session, decode_target, encode, encode_target};
use rotogate_core::store::rows::{Row, RowKey, RowTable, Space};
use rotogate_core::store::rules::{Failure, State};
use rotogate_core::store::{StoreError, Swept};

pub(super) type Id = [u8; 16];
pub(super) type KeyBytes = [u8; 32];

pub(super) const SESSIONS: TableDefinition<&Id, &[u8]> = TableDefinition::new("sessions");
pub(super) const BY_SUBJECT: TableDefinition<(&str, &Id), u64> = TableDefinition::new("sessions_by_subject");
pub(super) const LIVE: TableDefinition<(&str, &Id), u64> = TableDefinition::new("live_sessions");
pub(super) const BY_END: TableDefinition<(u64, &Id), ()> = TableDefinition::new("sessions_by_end");
pub(super) const REVOCATIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("revocations");
pub(super) const BY_UNTIL: TableDefinition<(u64, &[u8]), ()> = TableDefinition::new("revocations_by_until");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("revocation_log");
/// The first write creates this table, so a store may lack it.
pub(super) const ROWS: TableDefinition<(u8, &KeyBytes), &[u8]> = TableDefinition::new("rows");
pub(super) const ROWS_BY_UNTIL: TableDefinition<(u8, u64, &KeyBytes), ()> = TableDefinition::new("rows_by_until");
pub(super) const ROWS_IN: TableDefinition<u8, u64> = TableDefinition::new("rows_in");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("rotogate_meta");

pub(super) const SCHEMA_ROW: &str = "schema";
/// Changes with every commit.
pub(super) const HEAD_ROW: &str = "head";
pub(super) const COPYING_ROW: &str = "copying";
/// The current schema version.
pub(super) const SCHEMA: u32 = 2;
/// The schema version before `live_sessions`. When a gate opens such a store, it adds the table.
pub(super) const SCHEMA_WITHOUT_LIVE: u32 = 1;
pub(super) const FIRST_ID: Id = [0; 16];
pub(super) const LAST_ID: Id = [0xff; 16];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreHead {
    pub(super) store: Uuid,
    /// The keyring that derives the sessions' refresh tokens.
    pub(super) keyring: Uuid,
    pub(super) sequence: u64,
    pub(super) revocations: u64,
    pub(super) last_known_time: Timestamp,
}

#[derive(PartialEq, Serialize, Deserialize)]
struct RevocationRow {
    place: u64,
    effect: Effect,
    until: Timestamp,
}

pub(super) fn decode_row(key: RowKey, bytes: &[u8]) -> Result<Row, StoreError> {
    decode(format_args!("{key:?}"), bytes)
}

pub(super) fn meta_row(database: &Database, row: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let read = database.begin_read().map_err(failed)?;
    let meta = read.open_table(META).map_err(failed)?;
    Ok(meta.get(row).map_err(failed)?.map(|bytes| bytes.value().to_vec()))
}

/// Returns the entry, and its position in the log.
pub(super) fn decode_revocation(key: &[u8], bytes: &[u8]) -> Result<(u64, Revocation), StoreError> {
    let target = decode_target(key)?;
    let RevocationRow { place, effect, until } = decode(format_args!("the revocation of {target:?}"), bytes)?;
    Ok((place, Revocation { target, effect, until }))
}

/// Decodes the bytes as each kind of record. Returns whether each decoded record is unchanged after it is encoded and
/// decoded again. The fuzz targets use this function.
#[cfg(feature = "test-util")]
pub fn records_read_back_the_same(bytes: &[u8]) -> bool {
    fn holds<T: Serialize + serde::de::DeserializeOwned + PartialEq>(bytes: &[u8]) -> bool {
        let again = |record: &T| decode::<T>("a record", &encode(record).ok()?).ok();
        decode::<T>("a record", bytes).map_or(true, |record| again(&record) == Some(record))
    }
    let again = |target: &Target| encode_target(target).and_then(|key| decode_target(&key)).ok();
    let target = decode_target(bytes).map_or(true, |target| again(&target) == Some(target));
    holds::<Session>(bytes) && holds::<StoreHead>(bytes) && holds::<RevocationRow>(bytes) && target
}

/// Converts a redb error for the operator.
pub(super) fn failed(error: impl Into<redb::Error>) -> StoreError {
    let error = error.into();
    StoreError::caused_by(format!("the store cannot be read or written: {error}"), error)
}

/// Converts a redb error inside a transaction, which must then be aborted.
pub(super) fn broken(error: impl Into<redb::Error>) -> Failure {
    Failure::Broken(failed(error))
}

/// The tables of one write transaction.
pub(super) struct Writing<'t> {
    sessions: Table<'t, &'static Id, &'static [u8]>,
    by_subject: Table<'t, (&'static str, &'static Id), u64>,
    live: Table<'t, (&'static str, &'static Id), u64>,
    by_end: Table<'t, (u64, &'static Id), ()>,
    revocations: Table<'t, &'static [u8], &'static [u8]>,
    by_until: Table<'t, (u64, &'static [u8]), ()>,
    log: Table<'t, u64, &'static [u8]>,
    rows: Table<'t, (u8, &'static KeyBytes), &'static [u8]>,
    rows_by_until: Table<'t, (u8, u64, &'static KeyBytes), ()>,
    rows_in: Table<'t, u8, u64>,
    meta: Table<'t, &'static str, &'static [u8]>,
    head: StoreHead,
    changed: bool,
    /// Whether a revocation may revoke API keys.
    pub(super) ends_keys: bool,
}

impl<'t> Writing<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction, head: StoreHead) -> Result<Self, redb::Error> {
        let meta = transaction.open_table(META)?;
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            by_subject: transaction.open_table(BY_SUBJECT)?,
            live: transaction.open_table(LIVE)?,
            by_end: transaction.open_table(BY_END)?,
            revocations: transaction.open_table(REVOCATIONS)?,
            by_until: transaction.open_table(BY_UNTIL)?,
            log: transaction.open_table(LOG)?,
            rows: transaction.open_table(ROWS)?,
            rows_by_until: transaction.open_table(ROWS_BY_UNTIL)?,
            rows_in: transaction.open_table(ROWS_IN)?,
            meta,
            head,
            changed: false,
            ends_keys: false,
        })
    }

    pub(super) fn text(&self, row: &str) -> Result<Option<String>, Failure> {
        let bytes = self.meta.get(row).map_err(broken)?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes.value()).into_owned()))
    }

    /// Writes a string to a row of [`META`]. `None` removes the row.
    pub(super) fn set_text(&mut self, row: &str, text: Option<&str>) -> Result<(), Failure> {
        match text {
            Some(text) => drop(self.meta.insert(row, text.as_bytes()).map_err(broken)?),
            None => drop(self.meta.remove(row).map_err(broken)?),
        }
        self.changed = true;
        Ok(())
    }

    pub(super) fn found(&mut self) -> Result<(), Failure> {
        self.meta.insert(SCHEMA_ROW, SCHEMA.to_be_bytes().as_slice()).map_err(broken)?;
        self.changed = true;
        Ok(())
    }

    /// Fills the table of live sessions, which older stores lack.
    pub(super) fn fill_live(&mut self) -> Result<(), Failure> {
        for row in self.sessions.iter().map_err(broken)? {
            let (id, record) = row.map_err(broken)?;
            match decode_session(id.value(), record.value()) {
                Ok(session) if session.is_revoked() => {}
                Ok(session) => {
                    let key = (&*session.subject, id.value());
                    self.live.insert(key, session.expires.as_millis()).map_err(broken)?;
                }
                // An undecodable session is not counted, because no request can use it.
                Err(error) => tracing::warn!(
                    session = %SessionId::from_bytes(*id.value()),
                    %error,
                    "session not counted towards its user's limit, because its record cannot be read. If `error` \
                     names another version of rotogate, start that version; otherwise run `rotogate session revoke ID`"
                ),
            }
        }
        self.found()
    }

    pub(super) fn rename(&mut self, store: Uuid) {
        self.head.store = store;
        self.changed = true;
    }

    /// Makes [`Self::finish`] write the head.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// Writes the store's head, or returns `None` if nothing changed.
    pub(super) fn finish(mut self) -> Result<Option<StoreHead>, Failure> {
        if !self.changed {
            return Ok(None);
        }
        self.head.sequence += 1;
        let bytes = encode(&self.head).map_err(Failure::Broken)?;
        self.meta.insert(HEAD_ROW, bytes.as_slice()).map_err(broken)?;
        Ok(Some(self.head))
    }

    fn entry(&self, key: &[u8]) -> Result<Option<(u64, Revocation)>, Failure> {
        let row = self.revocations.get(key).map_err(broken)?;
        row.map(|row| decode_revocation(key, row.value())).transpose().map_err(Failure::Refused)
    }

    fn remove_ended_sessions(&mut self, before: u64, limit: usize) -> Result<u64, Failure> {
        let mut ended: Vec<(u64, Id)> = Vec::new();
        for row in self.by_end.range(..(before, &FIRST_ID)).map_err(broken)?.take(limit) {
            let (key, ()) = row.map(|(key, unit)| (key, unit.value())).map_err(broken)?;
            let (end, id) = key.value();
            ended.push((end, *id));
        }
        for (end, id) in &ended {
            self.by_end.remove((*end, id)).map_err(broken)?;
            let record = self.sessions.remove(id).map_err(broken)?.map(|row| decode_session(id, row.value()));
            match record {
                Some(Ok(session)) => {
                    self.live.remove((&*session.subject, id)).map_err(broken)?;
                    self.by_subject.remove((&*session.subject, id)).map_err(broken)?;
                }
                // The index row stays, because the subject is unknown. Readers skip it.
                Some(Err(error)) => tracing::warn!(
                    %error,
                    "an ended session was removed, although its record could not be read"
                ),
                None => {}
            }
        }
        Ok(ended.len() as u64)
    }

    fn remove_ended_revocations(&mut self, before: u64, limit: usize) -> Result<u64, Failure> {
        let mut ended: Vec<(u64, Vec<u8>)> = Vec::new();
        for row in self.by_until.range(..(before, [].as_slice())).map_err(broken)?.take(limit) {
            let (key, ()) = row.map(|(key, unit)| (key, unit.value())).map_err(broken)?;
            let (until, target) = key.value();
            ended.push((until, target.to_vec()));
        }
        // If an entry is unreadable, the sweep fails before it writes anything.
        let places = ended.iter().map(|(_, target)| Ok(self.entry(target)?.map(|(place, _)| place)));
        let places: Vec<_> = places.collect::<Result<_, Failure>>()?;
        for ((until, target), place) in ended.iter().zip(places) {
            self.by_until.remove((*until, target.as_slice())).map_err(broken)?;
            self.revocations.remove(target.as_slice()).map_err(broken)?;
            if let Some(place) = place {
                self.log.remove(place).map_err(broken)?;
            }
        }
        Ok(ended.len() as u64)
    }
}

impl Writing<'_> {
    /// Sets the last known time, which may become earlier, and writes the entries.
    pub(super) fn set_time(&mut self, time: Timestamp, entries: &[Revocation]) -> Result<(), Failure> {
        entries.iter().try_for_each(|entry| self.put_revocation(entry))?;
        self.head.last_known_time = time;
        self.changed = true;
        Ok(())
    }
}

impl State for Writing<'_> {
    fn session(&self, id: SessionId) -> Result<Option<Session>, Failure> {
        let row = self.sessions.get(id.as_bytes()).map_err(broken)?;
        row.map(|row| decode_session(id.as_bytes(), row.value())).transpose().map_err(Failure::Refused)
    }

    fn revocation(&self, target: &Target) -> Result<Option<Revocation>, Failure> {
        let key = encode_target(target).map_err(Failure::Refused)?;
        Ok(self.entry(&key)?.map(|(_, entry)| entry))
    }

    fn end_of_subject(&self, subject: &str) -> Result<Timestamp, Failure> {
        let mut latest = 0;
        for row in self.by_subject.range((subject, &FIRST_ID)..=(subject, &LAST_ID)).map_err(broken)? {
            let (_, end) = row.map_err(broken)?;
            latest = latest.max(end.value());
        }
        Ok(Timestamp::from_millis(latest))
    }

    fn end_of_all(&self) -> Result<Timestamp, Failure> {
        let last = self.by_end.last().map_err(broken)?;
        Ok(last.map_or(Timestamp::ZERO, |(key, _)| Timestamp::from_millis(key.value().0)))
    }

    fn live_of(&self, subject: &str, limit: usize) -> Result<Vec<(SessionId, Timestamp)>, Failure> {
        let rows = self.live.range((subject, &FIRST_ID)..=(subject, &LAST_ID)).map_err(broken)?;
        rows.take(limit)
            .map(|row| {
                let (key, end) = row.map_err(broken)?;
                let (_, id) = key.value();
                Ok((SessionId::from_bytes(*id), Timestamp::from_millis(end.value())))
            })
            .collect()
    }

    fn forget_live(&mut self, subject: &str, id: SessionId) -> Result<(), Failure> {
        self.live.remove((subject, id.as_bytes())).map_err(broken)?;
        self.changed = true;
        Ok(())
    }

    fn put_session(&mut self, old: Option<&Session>, new: &Session) -> Result<(), Failure> {
        // The record is encoded before the first write, so that an error refuses only this operation.
        let bytes = encode(new).map_err(Failure::Refused)?;
        let (id, end) = (new.id.as_bytes(), new.ends_at().as_millis());
        let old_end = old.map(|old| old.ends_at().as_millis());
        if old_end != Some(end) {
            if let Some(old_end) = old_end {
                self.by_end.remove((old_end, id)).map_err(broken)?;
            }
            self.by_end.insert((end, id), ()).map_err(broken)?;
            self.by_subject.insert((&*new.subject, id), end).map_err(broken)?;
        }
        let live = |session: &Session| (!session.is_revoked()).then_some(session.expires);
        match (old.and_then(live), live(new)) {
            (old, Some(end)) if old != Some(end) => {
                self.live.insert((&*new.subject, id), end.as_millis()).map_err(broken)?;
            }
            (Some(_), None) => {
                self.live.remove((&*new.subject, id)).map_err(broken)?;
            }
            (_, Some(_)) | (None, None) => {}
        }
        self.sessions.insert(id, bytes.as_slice()).map_err(broken)?;
        self.changed = true;
        Ok(())
    }

    fn put_revocation(&mut self, entry: &Revocation) -> Result<(), Failure> {
        let key = encode_target(&entry.target).map_err(Failure::Broken)?;
        if let Some((place, old)) = self.entry(&key)? {
            self.log.remove(place).map_err(broken)?;
            self.by_until.remove((old.until.as_millis(), key.as_slice())).map_err(broken)?;
        }
        self.ends_keys |= entry.ends_api_keys();
        self.head.revocations += 1;
        let place = self.head.revocations;
        let bytes =
            encode(&RevocationRow { place, effect: entry.effect, until: entry.until }).map_err(Failure::Broken)?;
        self.revocations.insert(key.as_slice(), bytes.as_slice()).map_err(broken)?;
        self.by_until.insert((entry.until.as_millis(), key.as_slice()), ()).map_err(broken)?;
        self.log.insert(place, key.as_slice()).map_err(broken)?;
        self.changed = true;
        Ok(())
    }

    fn raise_time(&mut self, time: Timestamp) -> Result<(), Failure> {
        if time > self.head.last_known_time {
            self.head.last_known_time = time;
            self.changed = true;
        }
        Ok(())
    }

    fn remove_ended(&mut self, before: Timestamp, limit: usize) -> Result<Swept, Failure> {
        // Removing revocations is the only step that can be refused, so it runs before any write.
        let revocations = self.remove_ended_revocations(before.as_millis(), limit)?;
        let sessions = self.remove_ended_sessions(before.as_millis(), limit)?;
        self.changed |= sessions + revocations > 0;
        Ok(Swept { sessions, revocations })
    }
}

impl Writing<'_> {
    fn count_rows(&mut self, space: Space, number: u64) -> Result<(), Failure> {
        self.rows_in.insert(space.id(), number).map(drop).map_err(broken)
    }
}

impl RowTable for Writing<'_> {
    fn row(&self, space: Space, key: RowKey) -> Result<Option<Row>, Failure> {
        let row = self.rows.get((space.id(), &key.0)).map_err(broken)?;
        row.map(|row| decode_row(key, row.value())).transpose().map_err(Failure::Refused)
    }

    fn rows_in(&self, space: Space) -> Result<u64, Failure> {
        Ok(self.rows_in.get(space.id()).map_err(broken)?.map_or(0, |number| number.value()))
    }

    fn put_row(&mut self, space: Space, key: RowKey, old: Option<&Row>, new: &Row) -> Result<(), Failure> {
        let bytes = encode(new).map_err(Failure::Refused)?;
        match old {
            Some(old) => {
                self.rows_by_until.remove((space.id(), old.until.as_millis(), &key.0)).map_err(broken)?;
            }
            None => self.count_rows(space, self.rows_in(space)? + 1)?,
        }
        self.rows_by_until.insert((space.id(), new.until.as_millis(), &key.0), ()).map_err(broken)?;
        self.rows.insert((space.id(), &key.0), bytes.as_slice()).map_err(broken)?;
        self.changed = true;
        Ok(())
    }

    fn take_row(&mut self, space: Space, key: RowKey, old: &Row) -> Result<(), Failure> {
        self.rows_by_until.remove((space.id(), old.until.as_millis(), &key.0)).map_err(broken)?;
        self.rows.remove((space.id(), &key.0)).map_err(broken)?;
        self.count_rows(space, self.rows_in(space)?.saturating_sub(1))?;
        self.changed = true;
        Ok(())
    }

    fn take_ended_rows(&mut self, space: Space, now: Timestamp, limit: usize) -> Result<u64, Failure> {
        let mut ended: Vec<(u64, KeyBytes)> = Vec::new();
        let (from, to) = ((space.id(), 0, &[0; 32]), (space.id(), now.as_millis(), &[0xff; 32]));
        for row in self.rows_by_until.range::<(u8, u64, &KeyBytes)>(from..=to).map_err(broken)?.take(limit) {
            let (at, ()) = row.map(|(at, unit)| (at, unit.value())).map_err(broken)?;
            let (_, until, key) = at.value();
            ended.push((until, *key));
        }
        if ended.is_empty() {
            return Ok(0);
        }
        for (until, key) in &ended {
            self.rows_by_until.remove((space.id(), *until, key)).map_err(broken)?;
            self.rows.remove((space.id(), key)).map_err(broken)?;
        }
        let removed = ended.len() as u64;
        self.count_rows(space, self.rows_in(space)?.saturating_sub(removed))?;
        self.changed = true;
        Ok(removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_an_entry_never_change() {
        let entry =
            RevocationRow { place: 7, effect: Effect::NotBefore(Timestamp::from_millis(5)), until: Timestamp::MAX };
        assert_eq!(
            encode(&entry).unwrap().as_slice(),
            [1, 7, 1, 5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]
        );
    }
}
