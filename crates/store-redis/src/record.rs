//! The bytes of what the store keeps. A script reads the fixed parts only, so each fact that it decides by is there.

use std::fmt;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

use rotogate_core::clock::Timestamp;
use rotogate_core::revocation::{Effect, Revocation};
use rotogate_core::session::{Session, SessionId, Status};
use rotogate_core::store::kit::encoding::{decode_session, decode_target, encode, encode_target};
use rotogate_core::store::kit::fields::{EFFECT, number_at, reason};
pub(super) use rotogate_core::store::kit::fields::{Op, decode_effect, encode_effect, millis, new_op, reason_number};
use rotogate_core::store::rules::end_of;
use rotogate_core::store::{StoreError, WriteOutcome};

/// The version of everything that scripts read. The record behind it has a version of its own.
const VERSION: u8 = 1;
const REVOKED: u8 = 1;
pub(super) const CONFIRMED: u8 = 2;
/// Reasons count in steps of this.
const REASON: u8 = 4;
/// Where the subject's length is, behind the numbers.
const NUMBERS: usize = 58;

/// A session's record: the fixed part, its subject, and the record as the embedded store has it, without the subject and
/// the end of the last access token.
pub(super) fn encode_record(session: &Session, op: &Op, history: &[u8; 8]) -> Result<Zeroizing<Vec<u8>>, StoreError> {
    let length = u16::try_from(session.subject.len())
        .map_err(|_| StoreError::new("a subject has more than 65535 bytes").with_outcome(WriteOutcome::Refused))?;
    let mut flags = if session.confirmed { CONFIRMED } else { 0 };
    if let Status::Revoked(because) = session.status {
        flags |= REVOKED | (reason_number(because) * REASON);
    }
    let mut bytes = Zeroizing::new(vec![VERSION, flags]);
    bytes.extend_from_slice(&session.revision.to_be_bytes());
    bytes.extend_from_slice(&session.current.get().to_be_bytes());
    bytes.extend_from_slice(op);
    bytes.extend_from_slice(history);
    bytes.extend_from_slice(&millis(end_of(session)));
    bytes.extend_from_slice(&millis(session.latest_access_expires));
    bytes.extend_from_slice(&whose(session));
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(session.subject.as_bytes());
    // These are there already.
    let rest = Session { subject: "".into(), latest_access_expires: Timestamp::ZERO, ..session.clone() };
    bytes.extend_from_slice(&encode(&rest)?);
    Ok(bytes)
}

/// What wrote a record last.
pub(super) fn op_of(record: &[u8]) -> Option<Op> {
    record.get(18..26)?.try_into().ok()
}

pub(super) fn flags_of(record: &[u8]) -> u8 {
    record.get(1).copied().unwrap_or_default()
}

/// Differs if the subject or the client differs: a mistake of the caller, so eight bytes are enough.
fn whose(session: &Session) -> [u8; 8] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(session.subject.len() as u64).to_be_bytes());
    context.update(session.subject.as_bytes());
    context.update(session.client.as_bytes());
    let mut first = [0; 8];
    first.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    first
}

/// The record under an id. What a script changed is in the fixed part, which counts. An error is of this record alone.
pub(super) fn decode_record(id: SessionId, bytes: &[u8]) -> Result<Session, StoreError> {
    let damaged = || StoreError::new(format!("the store is damaged: session {id} cannot be read")).of_one_record();
    let (&version, rest) = bytes.split_first().ok_or_else(damaged)?;
    if version != VERSION {
        return Err(unreadable(id, version.into()));
    }
    let (&flags, _) = rest.split_first().ok_or_else(damaged)?;
    let (numbers, rest) = bytes.split_at_checked(NUMBERS).ok_or_else(damaged)?;
    let revision = number_at(numbers, 2).ok_or_else(damaged)?;
    let latest_access_expires = Timestamp::from_millis(number_at(numbers, 42).ok_or_else(damaged)?);
    let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(damaged)?;
    let (subject, record) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(damaged)?;
    let subject = std::str::from_utf8(subject).map_err(|_| damaged())?.into();
    let session = decode_session(id.as_bytes(), record)?;
    let status = match flags & REVOKED {
        0 => Status::Live,
        _ => Status::Revoked(reason(flags / REASON).ok_or_else(damaged)?),
    };
    Ok(Session { subject, latest_access_expires, revision, confirmed: flags & CONFIRMED != 0, status, ..session })
}

/// A session whose record a script found to be of another version, or cut short.
pub(super) fn unreadable(id: SessionId, version: u64) -> StoreError {
    let error = if version == u64::from(VERSION) {
        StoreError::new(format!("the store is damaged: session {id} is cut short"))
    } else {
        unknown_version(format_args!("session {id}"), version)
    };
    error.of_one_record()
}

pub(super) fn unknown_version(what: impl fmt::Display, version: u64) -> StoreError {
    StoreError::new(format!(
        "{what} has version {version} in Redis, and this program knows only {VERSION}: it was written by another version of \
         rotogate, which can read it"
    ))
    .with_outcome(WriteOutcome::NotDone)
}

/// A place in the log.
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

/// The entry of a target among the live ones, and its place in the log.
pub(super) fn decode_live(target: &[u8], value: &[u8]) -> Result<(Revocation, LogId), StoreError> {
    let (effect, until, id) = split_entry(value).ok_or_else(damaged)?;
    let id = LogId::parse(id).ok_or_else(damaged)?;
    Ok((Revocation { target: decode_target(target)?, effect, until }, id))
}

/// The merged entry that a script answers with.
pub(super) fn decode_merged(target: &[u8], effect: &[u8], until: &[u8]) -> Result<Revocation, StoreError> {
    let effect = decode_effect(effect).ok_or_else(damaged)?;
    let until = Timestamp::from_millis(number_at(until, 0).ok_or_else(damaged)?);
    Ok(Revocation { target: decode_target(target)?, effect, until })
}

/// The effect of an entry and its end, as scripts keep them, and what follows.
fn split_entry(value: &[u8]) -> Option<(Effect, Timestamp, &[u8])> {
    let (&kind, rest) = value.split_first()?;
    let (effect, rest) = match kind {
        b'E' => (Effect::SESSION_REVOKED, rest),
        b'G' => (Effect::Gone, rest),
        b'N' => {
            let (moment, rest) = rest.split_first_chunk()?;
            (Effect::NotBefore(Timestamp::from_millis(u64::from_be_bytes(*moment))), rest)
        }
        _ => {
            let (effect, rest) = value.split_at_checked(EFFECT)?;
            (decode_effect(effect)?, rest)
        }
    };
    let (until, rest) = rest.split_first_chunk()?;
    Some((effect, Timestamp::from_millis(u64::from_be_bytes(*until)), rest))
}

/// An entry of the log, and the write that made it.
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

pub(super) fn target(target: &rotogate_core::revocation::Target) -> Result<Vec<u8>, StoreError> {
    encode_target(target)
}
