//! The encoding of the columns.

use std::borrow::Cow;

use aws_lc_rs::digest;
use uuid::Uuid;

use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Revocation, Target};
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::begin::{begin_of, decode_begun};
use rotogate_core::store::kit::encoding::{decode_target, encode, encode_target};
use rotogate_core::store::kit::fields::{decode_effect, encode_effect};
use zeroize::Zeroizing;

/// The maximum length of an indexed value in PostgreSQL.
const MAX_KEY: usize = 1024;

/// Returns milliseconds, capped at the maximum of a column (292 million years).
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

/// Returns the indexed form of a value. A long value is replaced by its digest.
pub(super) fn key(value: &[u8]) -> Cow<'_, [u8]> {
    if value.len() <= MAX_KEY {
        return Cow::Borrowed(value);
    }
    let digest = digest::digest(&digest::SHA256, value);
    Cow::Owned([&[0xff], digest.as_ref()].concat())
}

pub(super) fn target_key(of: &Target) -> Result<Vec<u8>, StoreError> {
    Ok(key(&encode_target(of)?).into_owned())
}

/// Returns the bytes before the session id in an encoded revocation target.
pub(super) fn session_prefix() -> Result<Vec<u8>, StoreError> {
    let id = SessionId::from_bytes([0xa5; 16]);
    let whole = encode_target(&Target::Session(id))?;
    match whole.strip_suffix(id.as_bytes()) {
        Some(prefix) => Ok(prefix.to_vec()),
        None => Err(StoreError::new("the revocation target of a session does not end with the session's id")),
    }
}

pub(super) fn encode_row(session: &Session) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut bytes = Zeroizing::new(begin_of(session).to_vec());
    bytes.extend_from_slice(&millis(session.ends_at()).to_be_bytes());
    bytes.extend_from_slice(&encode(session)?);
    Ok(bytes)
}

pub(super) fn decode(id: SessionId, state: &[u8], record: &[u8]) -> Result<Session, StoreError> {
    decode_begun("PostgreSQL", id, state, Some(record))
}

/// Encodes an entry for the comparison in a commit.
pub(super) fn encode_entry(entry: &Revocation) -> Zeroizing<Vec<u8>> {
    Zeroizing::new([encode_effect(entry.effect), millis(entry.until).to_be_bytes().to_vec()].concat())
}

pub(super) fn decode_entry(target: Target, bytes: &[u8]) -> Result<Revocation, StoreError> {
    let (effect, until) = bytes.split_last_chunk().ok_or_else(damaged)?;
    let effect = decode_effect(effect).ok_or_else(damaged)?;
    Ok(Revocation { target, effect, until: time(i64::from_be_bytes(*until)) })
}

fn damaged() -> StoreError {
    StoreError::new(
        "a revocation in PostgreSQL cannot be read: the store is damaged, or another version of rotogate wrote it",
    )
}

pub(super) fn entry(target: &[u8], effect: &[u8], until: i64) -> Result<Revocation, StoreError> {
    let effect = decode_effect(effect).ok_or_else(damaged)?;
    Ok(Revocation { target: decode_target(target)?, effect, until: time(until) })
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
        // A digest key begins with 0xff, so no encoded target may begin with 0xff.
        for of in [Target::Global, Target::Session(SessionId::from_bytes([0xff; 16]))] {
            assert!(encode_target(&of).unwrap()[0] < 0xff);
        }
        assert!(session_prefix().is_ok());
    }
}
