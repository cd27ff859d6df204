//! The tables of the file, and the bytes in them.
//!
//! | table | key | value |
//! |---|---|---|
//! | `sessions` | id | record, versioned |
//! | `sessions_by_subject` | subject, id | end, ms |
//! | `live_sessions` | subject, id, of those that are not revoked | end of the session, ms |
//! | `sessions_by_end` | end in ms, id | |
//! | `revocations` | target | place in the log, effect, until; versioned |
//! | `revocations_by_until` | until in ms, target | |
//! | `revocation_log` | place | target |
//! | `relay_records` | id | record, versioned; only with the feature `relay` |
//! | `relay_records_by_until` | until in ms, id | |
//! | `rotogate_meta` | `schema`: version of this table of tables; `head`: [`Head`], versioned | |
//!
//! Records are postcard behind one byte that names their version: what this program does not know is an error.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

#[cfg(feature = "relay")]
use super::super::relay::{RelayId, RelayRecord, RelayRows};
use super::super::rules::{Failure, State, end_of, is_revoked};
use super::super::{StoreError, Swept};
use crate::clock::Timestamp;
use crate::revocation::{Effect, Revocation, Target};
use crate::session::{Session, SessionId};

pub(super) type Id = [u8; 16];
#[cfg(feature = "relay")]
pub(super) type RelayKey = [u8; 32];

pub(super) const SESSIONS: TableDefinition<&Id, &[u8]> = TableDefinition::new("sessions");
pub(super) const BY_SUBJECT: TableDefinition<(&str, &Id), u64> = TableDefinition::new("sessions_by_subject");
pub(super) const LIVE: TableDefinition<(&str, &Id), u64> = TableDefinition::new("live_sessions");
pub(super) const BY_END: TableDefinition<(u64, &Id), ()> = TableDefinition::new("sessions_by_end");
pub(super) const REVOCATIONS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("revocations");
pub(super) const BY_UNTIL: TableDefinition<(u64, &[u8]), ()> = TableDefinition::new("revocations_by_until");
pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("revocation_log");
/// Created by the first write: a store may lack it, and an earlier program leaves it alone.
#[cfg(feature = "relay")]
pub(super) const RELAYS: TableDefinition<&RelayKey, &[u8]> = TableDefinition::new("relay_records");
#[cfg(feature = "relay")]
pub(super) const RELAYS_BY_UNTIL: TableDefinition<(u64, &RelayKey), ()> =
    TableDefinition::new("relay_records_by_until");
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("rotogate_meta");

/// The row of [`META`] with the version of the tables.
pub(super) const SCHEMA_ROW: &str = "schema";
/// The row of [`META`] that changes with every commit.
pub(super) const HEAD_ROW: &str = "head";
/// The tables as above.
pub(super) const SCHEMA: u32 = 2;
/// The same without `live_sessions`, which is made when such a store is opened.
pub(super) const SCHEMA_WITHOUT_LIVE: u32 = 1;
/// The version of every record, revocation and head that is written, but for [`WITH_CLAIMS`].
const RECORD_VERSION: u8 = 1;
/// The version of a session's record that ends with claims. A record without claims has the previous version, so that
/// earlier programs can read it.
const WITH_CLAIMS: u8 = 2;

/// The least and the greatest id, for the bounds of a range.
pub(super) const FIRST_ID: Id = [0; 16];
pub(super) const LAST_ID: Id = [0xff; 16];

/// The store's own description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The id of this store.
    pub(super) store: Uuid,
    /// The keyring that makes its refresh tokens.
    pub(super) keyring: Uuid,
    /// The number of commits that changed something.
    pub(super) sequence: u64,
    /// The last position of the revocation log.
    pub(super) revocations: u64,
    /// The last engine time known.
    pub(super) last_known_time: Timestamp,
}

/// A target's entry, as in its row: the target is the key.
#[derive(PartialEq, Serialize, Deserialize)]
struct Entry {
    place: u64,
    effect: Effect,
    until: Timestamp,
}

/// Encodes a record. The bytes may contain a session's secret.
pub(super) fn encode(record: &impl Serialize) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    postcard::to_extend(record, vec![RECORD_VERSION])
        .map(Zeroizing::new)
        .map_err(|error| StoreError::caused_by("a record cannot be encoded", error))
}

/// Encodes the record of a session.
pub(super) fn encode_session(session: &Session) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut bytes = encode(session)?;
    if let (false, Some(version)) = (session.claims.is_empty(), bytes.first_mut()) {
        *version = WITH_CLAIMS;
    }
    Ok(bytes)
}

/// Decodes what [`encode`] made; `what` names it in errors.
pub(super) fn decode<T: DeserializeOwned>(what: impl std::fmt::Display, bytes: &[u8]) -> Result<T, StoreError> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, rest)) => read(what, rest),
        Some((version, _)) => Err(unknown_version(what, *version)),
        None => Err(empty(what)),
    }
}

/// Decodes what [`encode_session`] made.
fn decode_record(what: impl std::fmt::Display, bytes: &[u8]) -> Result<Session, StoreError> {
    match bytes.split_first() {
        Some((&RECORD_VERSION, rest)) => {
            // As if it ended with claims: with an empty text, whose length is one byte.
            let mut whole = Zeroizing::new(Vec::with_capacity(rest.len() + 1));
            whole.extend_from_slice(rest);
            whole.push(0);
            read(what, &whole)
        }
        Some((&WITH_CLAIMS, rest)) => read(what, rest),
        Some((version, _)) => Err(unknown_version(what, *version)),
        None => Err(empty(what)),
    }
}

fn read<T: DeserializeOwned>(what: impl std::fmt::Display, bytes: &[u8]) -> Result<T, StoreError> {
    match postcard::take_from_bytes(bytes) {
        Ok((record, [])) => Ok(record),
        Ok((_, more)) => Err(StoreError::new(format!("the store is damaged: {what} has {} extra bytes", more.len()))),
        Err(error) => Err(StoreError::caused_by(format!("the store is damaged: {what} cannot be read"), error)),
    }
}

fn unknown_version(what: impl std::fmt::Display, version: u8) -> StoreError {
    StoreError::new(format!(
        "{what} has record version {version}, and this program knows only {RECORD_VERSION} and {WITH_CLAIMS}: it was written \
         by another version of rotogate, which can read it"
    ))
}

fn empty(what: impl std::fmt::Display) -> StoreError {
    StoreError::new(format!("the store is damaged: {what} is empty"))
}

#[cfg(feature = "relay")]
pub(super) fn decode_relay(id: RelayId, bytes: &[u8]) -> Result<RelayRecord, StoreError> {
    decode(format_args!("{id:?}"), bytes)
}

pub(super) fn decode_session(id: &Id, bytes: &[u8]) -> Result<Session, StoreError> {
    let id = SessionId::from_bytes(*id);
    let session = decode_record(format_args!("session {id}"), bytes)?;
    if session.id == id {
        Ok(session)
    } else {
        Err(StoreError::new(format!("the store is damaged: session {} is stored under the id {id}", session.id)))
    }
}

/// The entry of a target, and its position in the log.
pub(super) fn decode_revocation(key: &[u8], bytes: &[u8]) -> Result<(u64, Revocation), StoreError> {
    let target = decode_target(key)?;
    let Entry { place, effect, until } = decode(format_args!("the revocation of {target:?}"), bytes)?;
    Ok((place, Revocation { target, effect, until }))
}

fn encode_target(target: &Target) -> Result<Vec<u8>, StoreError> {
    postcard::to_stdvec(target).map_err(|error| StoreError::caused_by("a target cannot be encoded", error))
}

fn decode_target(key: &[u8]) -> Result<Target, StoreError> {
    match postcard::take_from_bytes(key) {
        Ok((target, [])) => Ok(target),
        Ok(_) | Err(_) => Err(StoreError::new("the store is damaged: the target of a revocation cannot be read")),
    }
}

/// Reads bytes as a record of each kind. Does everything that can be read stay the same when it is written and read
/// again? For the fuzz targets.
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub fn records_read_back_the_same(bytes: &[u8]) -> bool {
    fn holds<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) -> bool {
        let again = |record: &T| decode::<T>("a record", &encode(record).ok()?).ok();
        decode::<T>("a record", bytes).map_or(true, |record| again(&record) == Some(record))
    }
    let again = |target: &Target| encode_target(target).and_then(|key| decode_target(&key)).ok();
    let session = |bytes: &[u8]| decode_record("a record", bytes).ok();
    let holds_session = session(bytes)
        .is_none_or(|record| encode_session(&record).ok().and_then(|bytes| session(&bytes)) == Some(record));
    let target = decode_target(bytes).map_or(true, |target| again(&target) == Some(target));
    holds_session && holds::<Head>(bytes) && holds::<Entry>(bytes) && target
}

/// A redb error inside a transaction: nothing of it may be committed.
pub(super) fn broken(error: impl Into<redb::Error>) -> Failure {
    let error = error.into();
    Failure::Broken(StoreError::caused_by(format!("the store cannot be read or written: {error}"), error))
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
    #[cfg(feature = "relay")]
    relays: Table<'t, &'static RelayKey, &'static [u8]>,
    #[cfg(feature = "relay")]
    relays_by_until: Table<'t, (u64, &'static RelayKey), ()>,
    meta: Table<'t, &'static str, &'static [u8]>,
    head: Head,
    changed: bool,
}

impl<'t> Writing<'t> {
    /// Opens the tables; creates them in a new file.
    pub(super) fn open(transaction: &'t WriteTransaction, head: Head) -> Result<Self, redb::Error> {
        Ok(Self {
            sessions: transaction.open_table(SESSIONS)?,
            by_subject: transaction.open_table(BY_SUBJECT)?,
            live: transaction.open_table(LIVE)?,
            by_end: transaction.open_table(BY_END)?,
            revocations: transaction.open_table(REVOCATIONS)?,
            by_until: transaction.open_table(BY_UNTIL)?,
            log: transaction.open_table(LOG)?,
            #[cfg(feature = "relay")]
            relays: transaction.open_table(RELAYS)?,
            #[cfg(feature = "relay")]
            relays_by_until: transaction.open_table(RELAYS_BY_UNTIL)?,
            meta: transaction.open_table(META)?,
            head,
            changed: false,
        })
    }

    /// Marks a new file as ours.
    pub(super) fn found(&mut self) -> Result<(), Failure> {
        self.meta.insert(SCHEMA_ROW, SCHEMA.to_be_bytes().as_slice()).map_err(broken)?;
        self.changed = true;
        Ok(())
    }

    /// Fills the table of live sessions, which was missing.
    pub(super) fn fill_live(&mut self) -> Result<(), Failure> {
        for row in self.sessions.iter().map_err(broken)? {
            let (id, record) = row.map_err(broken)?;
            match decode_session(id.value(), record.value()) {
                Ok(session) if is_revoked(&session) => {}
                Ok(session) => {
                    let key = (&*session.subject, id.value());
                    self.live.insert(key, session.expires.as_millis()).map_err(broken)?;
                }
                // No request can continue an unreadable session, so it does not count.
                Err(error) => tracing::warn!(%error, "session not counted as live"),
            }
        }
        self.found()
    }

    /// Gives the store a new id.
    pub(super) fn rename(&mut self, store: Uuid) {
        self.head.store = store;
        self.changed = true;
    }

    /// Writes at least the head.
    pub(super) fn touch(&mut self) {
        self.changed = true;
    }

    /// Writes the head, if anything was written. `None`: nothing was, and there is nothing to commit.
    pub(super) fn finish(mut self) -> Result<Option<Head>, Failure> {
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
                // Its subject is unknown, so its row stays in the index, where readers skip it.
                Some(Err(error)) => tracing::warn!(%error, "ended session removed unread"),
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
        // Read all of them first: an unreadable entry refuses the sweep before anything is written.
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
        // Decided before the first write, so that a record that cannot be encoded refuses only one operation.
        let bytes = encode_session(new).map_err(Failure::Refused)?;
        let (id, end) = (new.id.as_bytes(), end_of(new).as_millis());
        let old_end = old.map(|old| end_of(old).as_millis());
        if old_end != Some(end) {
            if let Some(old_end) = old_end {
                self.by_end.remove((old_end, id)).map_err(broken)?;
            }
            self.by_end.insert((end, id), ()).map_err(broken)?;
            self.by_subject.insert((&*new.subject, id), end).map_err(broken)?;
        }
        // A rotation does not change this.
        let live = |session: &Session| (!is_revoked(session)).then_some(session.expires);
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
        self.head.revocations += 1;
        let place = self.head.revocations;
        let bytes = encode(&Entry { place, effect: entry.effect, until: entry.until }).map_err(Failure::Broken)?;
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
        // Revocations first: only they can refuse, and must do so before anything is written.
        let revocations = self.remove_ended_revocations(before.as_millis(), limit)?;
        let sessions = self.remove_ended_sessions(before.as_millis(), limit)?;
        self.changed |= sessions + revocations > 0;
        Ok(Swept { sessions, revocations })
    }
}

#[cfg(feature = "relay")]
impl RelayRows for Writing<'_> {
    fn relay(&self, id: RelayId) -> Result<Option<RelayRecord>, Failure> {
        let row = self.relays.get(&id.0).map_err(broken)?;
        row.map(|row| decode_relay(id, row.value())).transpose().map_err(Failure::Refused)
    }

    fn put_relay(&mut self, id: RelayId, old: Option<&RelayRecord>, new: &RelayRecord) -> Result<(), Failure> {
        let bytes = encode(new).map_err(Failure::Refused)?;
        if let Some(old) = old {
            self.relays_by_until.remove((old.until.as_millis(), &id.0)).map_err(broken)?;
        }
        self.relays_by_until.insert((new.until.as_millis(), &id.0), ()).map_err(broken)?;
        self.relays.insert(&id.0, bytes.as_slice()).map_err(broken)?;
        self.raise_time(new.since)?;
        self.changed = true;
        Ok(())
    }

    fn take_relay(&mut self, id: RelayId, old: &RelayRecord) -> Result<(), Failure> {
        self.relays_by_until.remove((old.until.as_millis(), &id.0)).map_err(broken)?;
        self.relays.remove(&id.0).map_err(broken)?;
        self.changed = true;
        Ok(())
    }

    fn take_ended_relays(&mut self, now: Timestamp, limit: usize) -> Result<u64, Failure> {
        let mut ended: Vec<(u64, RelayKey)> = Vec::new();
        let to = (now.as_millis(), &[0xff; 32]);
        for row in self.relays_by_until.range::<(u64, &RelayKey)>(..=to).map_err(broken)?.take(limit) {
            let (key, ()) = row.map(|(key, unit)| (key, unit.value())).map_err(broken)?;
            let (until, id) = key.value();
            ended.push((until, *id));
        }
        for (until, id) in &ended {
            self.relays_by_until.remove((*until, id)).map_err(broken)?;
            self.relays.remove(id).map_err(broken)?;
        }
        self.changed |= !ended.is_empty();
        Ok(ended.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn the_bytes_of_version_1_never_change() {
        // Every later program must be able to read a record of today. If this fails, the layout changed: raise
        // RECORD_VERSION, and still read the old layout.
        let session = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let bytes = encode_session(&session).unwrap();
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, GOLDEN_SESSION);
        assert_eq!(decode_session(session.id.as_bytes(), &bytes).unwrap(), session);

        let target = Target::Subject { issuer: "https://i".into(), subject: "alice".into() };
        assert_eq!(encode_target(&target).unwrap(), b"\x01\x09https://i\x05alice");
        assert_eq!(decode_target(b"\x01\x09https://i\x05alice").unwrap(), target);
        let entry = Entry { place: 7, effect: Effect::NotBefore(Timestamp::from_millis(5)), until: Timestamp::MAX };
        assert_eq!(
            encode(&entry).unwrap().as_slice(),
            [1, 7, 1, 5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]
        );
    }

    const GOLDEN_SESSION: &str = "01018bcfe56800700080000000000000015e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e05616c696365010461636d65037765620a\
        72656164207772697465066f617574683280e090d3c631c09fbaffbc31010080d095ffbc3180d095ffbc31000472656164c0\
        9fbaffbc31056b65792d310100010107612070686f6e650100c0000201";

    #[test]
    fn i42_a_record_with_claims_has_a_version_of_its_own_and_reads_back_the_same() {
        let old = conformance::session("alice", 1, Timestamp::from_millis(1_700_000_000_000));
        let mut session = old.clone();
        session.claims.insert("roles", ["admin"]).unwrap();
        let bytes = encode_session(&session).unwrap();
        let without = encode_session(&old).unwrap();
        assert_eq!((bytes[0], without[0]), (WITH_CLAIMS, RECORD_VERSION));
        // The claims stand behind what every record holds.
        assert_eq!(bytes[1..without.len()], without[1..]);
        assert_eq!(decode_session(session.id.as_bytes(), &bytes).unwrap(), session);
        // A record of before there were claims has none.
        let old_bytes = GOLDEN_SESSION.replace(char::is_whitespace, "");
        let old_bytes: Vec<u8> =
            (0..old_bytes.len()).step_by(2).map(|at| u8::from_str_radix(&old_bytes[at..at + 2], 16).unwrap()).collect();
        assert_eq!(decode_session(old.id.as_bytes(), &old_bytes).unwrap(), old);
        // Neither may be longer or shorter than it is, nor hold a claim that the gate itself sets.
        for bytes in [bytes[..bytes.len() - 1].to_vec(), [&bytes[..], &[0]].concat(), [&without[..], &[0]].concat()] {
            assert!(decode_session(session.id.as_bytes(), &bytes).is_err());
        }
        let mut reserved = without.to_vec();
        reserved[0] = WITH_CLAIMS;
        reserved.push(14);
        reserved.extend_from_slice(br#"{"sub":"root"}"#);
        assert!(decode_session(session.id.as_bytes(), &reserved).is_err());
    }

    #[test]
    fn o4_an_unknown_record_version_is_an_error_that_names_it() {
        let error = decode_record("session x", &[9, 1, 2, 3]).unwrap_err().to_string();
        assert!(error.contains("session x") && error.contains("version 9"), "{error}");
        assert!(decode::<u64>("x", &[]).is_err());
        assert!(decode::<u64>("x", &[1, 5, 5]).unwrap_err().to_string().contains("1 extra bytes"));
    }
}
