//! The encoding of records and entries. Scripts read only the fixed parts.

use std::fmt;

use zeroize::Zeroizing;

use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Effect, Revocation};
use rotogate_core::session::{Session, SessionId};
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::begin::{self, BEGIN, VERSION, begin_of, decode_begun};
pub(super) use rotogate_core::store::kit::encoding::encode_target as target;
use rotogate_core::store::kit::encoding::{decode_target, encode};
use rotogate_core::store::kit::fields::{EFFECT, decode_effect, encode_effect, not_before};
pub(super) use rotogate_core::store::kit::fields::{Op, millis, new_op};

/// The offset of the encoded record. The preceding bytes are the fixed part, which scripts read.
const FIXED: usize = 42;
const OP: std::ops::Range<usize> = 18..26;
pub(super) const HISTORY: std::ops::Range<usize> = 26..34;

/// Encodes a record: the fixed part for scripts, then the embedded store's encoding.
pub(super) fn encode_record(session: &Session, op: &Op, history: &[u8; 8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let mut bytes = Zeroizing::new(begin_of(session).to_vec());
    bytes.extend_from_slice(op);
    bytes.extend_from_slice(history);
    bytes.extend_from_slice(&millis(session.ends_at()));
    bytes.extend_from_slice(&encode(session)?);
    Ok(bytes)
}

pub(super) fn op_of(record: &[u8]) -> Option<Op> {
    record.get(OP)?.try_into().ok()
}

pub(super) fn decode_record(id: SessionId, bytes: &[u8]) -> Result<Session, StoreError> {
    decode_begun("Redis", id, bytes.get(..BEGIN).unwrap_or(bytes), bytes.get(FIXED..))
}

pub(super) fn unknown_version(what: impl fmt::Display, version: u64) -> StoreError {
    begin::unknown_version("Redis", what, version)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogId {
    pub(super) time: u64,
    pub(super) number: u64,
}

impl LogId {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let (time, number) = std::str::from_utf8(text).ok()?.split_once('-')?;
        Some(Self { time: time.parse().ok()?, number: number.parse().ok()? })
    }
}

impl fmt::Display for LogId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.time, self.number)
    }
}

fn damaged() -> StoreError {
    StoreError::new(
        "a revocation in Redis cannot be read: the store is damaged, or another version of rotogate wrote it",
    )
}

/// Returns a target's live entry, and its position in the log.
pub(super) fn decode_live(target: &[u8], value: &[u8]) -> Result<(Revocation, LogId), StoreError> {
    let (effect, until, id) = split_entry(value).ok_or_else(damaged)?;
    let id = LogId::parse(id).ok_or_else(damaged)?;
    Ok((Revocation { target: decode_target(target)?, effect, until }, id))
}

pub(super) fn encode_kept(entry: &Revocation) -> Vec<u8> {
    let whole = encode_effect(entry.effect);
    let effect = match entry.effect {
        Effect::SESSION_REVOKED => b"E",
        Effect::Gone => b"G",
        Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. } => whole.get(..17).unwrap_or_default(),
        Effect::Minimum { .. } => &*whole,
    };
    [effect, &millis(entry.until)].concat()
}

fn split_entry(value: &[u8]) -> Option<(Effect, Timestamp, &[u8])> {
    let (&kind, rest) = value.split_first()?;
    let (effect, rest) = match kind {
        b'E' => (Effect::SESSION_REVOKED, rest),
        b'G' => (Effect::Gone, rest),
        b'N' => {
            let (sessions, rest) = rest.split_first_chunk()?;
            let (keys, rest) = rest.split_first_chunk()?;
            (not_before(u64::from_be_bytes(*sessions), u64::from_be_bytes(*keys)), rest)
        }
        _ => {
            let (effect, rest) = value.split_at_checked(EFFECT)?;
            (decode_effect(effect)?, rest)
        }
    };
    let (until, rest) = rest.split_first_chunk()?;
    Some((effect, Timestamp::from_millis(u64::from_be_bytes(*until)), rest))
}

/// Returns a log entry, and the id of its write.
pub(super) fn decode_logged(bytes: &[u8]) -> Result<(Op, Revocation), StoreError> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => {
            let (op, rest) = rest.split_first_chunk::<8>().ok_or_else(damaged)?;
            let (effect, until, target) = split_entry(rest).ok_or_else(damaged)?;
            Ok((*op, Revocation { target: decode_target(target)?, effect, until }))
        }
        Some((version, _)) => Err(unknown_version("a revocation", (*version).into())),
        None => Err(damaged()),
    }
}
