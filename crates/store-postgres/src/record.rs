//! What the columns hold.

use std::borrow::Cow;

use aws_lc_rs::digest;
use uuid::Uuid;

use super::call::{Arg, ResultRow};
use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::{Generation, Session, SessionId, Status};
use rotogate_core::store::kit::encoding::{decode_session, decode_target, encode, encode_target};
use rotogate_core::store::kit::fields::{decode_effect, reason, reason_number};
use rotogate_core::store::{StoreError, WriteOutcome};
use tokio_postgres::types::Type;

/// The version of a row. The record in it has a version of its own.
pub(super) const VERSION: i16 = 1;
/// An index takes no longer values.
const MAX_KEY: usize = 1024;

/// Capped at the largest that a column holds: 292 million years.
pub(super) fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

pub(super) fn time(millis: i64) -> Timestamp {
    match u64::try_from(millis) {
        Ok(most) if millis == i64::MAX => Timestamp::from_millis(most.saturating_mul(2).saturating_add(1)),
        Ok(millis) => Timestamp::from_millis(millis),
        Err(_) => Timestamp::ZERO,
    }
}

pub(super) fn uuid(id: SessionId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

/// What an index holds of a value: itself, or its digest if it is too long.
pub(super) fn key(value: &[u8]) -> Cow<'_, [u8]> {
    if value.len() <= MAX_KEY {
        return Cow::Borrowed(value);
    }
    let digest = digest::digest(&digest::SHA256, value);
    Cow::Owned([&[0xff], digest.as_ref()].concat())
}

pub(super) fn target(of: &Target) -> Result<Vec<u8>, StoreError> {
    encode_target(of)
}

/// What the target of every session begins with, before its id.
pub(super) fn session_prefix() -> Result<Vec<u8>, StoreError> {
    let id = SessionId::from_bytes([0xa5; 16]);
    let whole = target(&Target::Session(id))?;
    match whole.strip_suffix(id.as_bytes()) {
        Some(prefix) => Ok(prefix.to_vec()),
        None => Err(StoreError::new("the target of a session does not end with its id")),
    }
}

/// A number that a column must hold exactly.
pub(super) fn exact(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| {
        StoreError::new(format!("{number} is above what PostgreSQL holds")).with_outcome(WriteOutcome::Refused)
    })
}

/// The columns that a session's own values go to.
pub(super) struct Columns {
    pub(super) revision: Arg,
    pub(super) current: Arg,
    pub(super) confirmed: Arg,
    pub(super) revoked: Arg,
    pub(super) record: Arg,
}

pub(super) fn columns(session: &Session) -> Result<Columns, StoreError> {
    let revoked = match session.status {
        Status::Live => Arg::Null(Type::INT2),
        Status::Revoked(because) => Arg::Small(reason_number(because).into()),
    };
    Ok(Columns {
        revision: Arg::Big(exact(session.revision)?),
        current: Arg::Big(exact(session.current.get())?),
        confirmed: Arg::Bool(session.confirmed),
        revoked,
        record: Arg::Bytes(encode(session)?),
    })
}

/// The session in an answer. What a function changed is in its columns, which count. What cannot be read is a fault of this
/// record alone.
pub(super) fn decode(id: SessionId, answer: &ResultRow) -> Result<Session, StoreError> {
    let damaged = || StoreError::new(format!("the store is damaged: session {id} cannot be read")).of_one_record();
    let version: i16 = answer.get("o_version")?;
    if version != VERSION {
        return Err(unknown_version(format_args!("session {id}"), version).of_one_record());
    }
    let session = decode_session(id.as_bytes(), answer.get("o_record")?)?;
    let status = match answer.get::<Option<i16>>("o_revoked")? {
        None => Status::Live,
        Some(number) => Status::Revoked(u8::try_from(number).ok().and_then(reason).ok_or_else(damaged)?),
    };
    let revision = u64::try_from(answer.get::<i64>("o_revision")?).map_err(|_| damaged())?;
    Ok(Session { revision, confirmed: answer.get("o_confirmed")?, status, ..session })
}

pub(super) fn unknown_version(what: impl std::fmt::Display, version: i16) -> StoreError {
    StoreError::new(format!(
        "{what} has version {version} in PostgreSQL, and this program knows only {VERSION}: it was written by another version \
         of rotogate, which can read it"
    ))
    .with_outcome(WriteOutcome::NotDone)
}

/// An entry as its columns have it.
pub(super) fn entry(target: &[u8], effect: &[u8], until: i64) -> Result<Revocation, StoreError> {
    let effect = decode_effect(effect).ok_or_else(|| {
        StoreError::new(
            "a revocation in PostgreSQL cannot be read: the store is damaged, or another version of rotogate wrote it",
        )
    })?;
    Ok(Revocation { target: decode_target(target)?, effect, until: time(until) })
}

/// A generation that no row can have is none.
pub(super) fn generation(of: Generation) -> i64 {
    i64::try_from(of.get()).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_kept_up_to_a_cap() {
        for exact in [0, 1, 1_700_000_000_000, i64::MAX as u64 - 1] {
            let at = Timestamp::from_millis(exact);
            assert_eq!(time(millis(at)), at);
        }
        assert_eq!(time(millis(Timestamp::MAX)), Timestamp::MAX);
    }

    #[test]
    fn a_value_that_is_too_long_for_an_index_has_a_key_of_its_own() {
        let (short, long) = (vec![7; MAX_KEY], vec![7; MAX_KEY + 1]);
        assert_eq!(*key(&short), short);
        assert_eq!(key(&long).len(), 33);
        assert_ne!(key(&long), key(&vec![8; MAX_KEY + 1]));
        // No target begins with the byte that marks a digest.
        for of in [Target::Global, Target::Session(SessionId::from_bytes([0xff; 16]))] {
            assert!(target(&of).unwrap()[0] < 0xff);
        }
        assert!(session_prefix().is_ok());
    }
}
