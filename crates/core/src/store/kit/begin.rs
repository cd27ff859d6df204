//! The header of a stored record, for a store that only compares records. The header changes with each write.

use std::fmt;

use aws_lc_rs::digest;

use super::encoding::decode_session;
use crate::session::{Session, SessionId};
use crate::store::{StoreError, WriteOutcome};

/// The version of the header. The record that follows has a separate version.
pub const VERSION: u8 = 1;
/// The length of the header: version, status, revision, and a digest of subject and client.
pub const BEGIN: usize = 18;

/// The header of this record. Each write of a session has a different header.
pub fn begin_of(session: &Session) -> [u8; BEGIN] {
    begin_at(session, session.is_revoked(), session.revision)
}

/// The session's header at this revision.
pub fn begin_at(session: &Session, is_revoked: bool, revision: u64) -> [u8; BEGIN] {
    let mut bytes = [0; BEGIN];
    let parts = begin_of_all(is_revoked).into_iter().chain(revision.to_be_bytes());
    bytes.iter_mut().zip(parts.chain(whose(session))).for_each(|(to, from)| *to = from);
    bytes
}

/// The first two bytes of a session's header: version and status.
pub fn begin_of_all(is_revoked: bool) -> [u8; 2] {
    [VERSION, u8::from(is_revoked)]
}

/// Eight bytes are enough, because the digest only detects mistakes of a caller.
fn whose(session: &Session) -> [u8; 8] {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(&(session.subject.len() as u64).to_be_bytes());
    context.update(session.subject.as_bytes());
    context.update(session.client.as_bytes());
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// Decodes the record with this id. `server` is the server's name for error messages. An error concerns only this
/// record.
///
/// # Errors
/// The bytes are damaged or of another version.
pub fn decode_begun(server: &str, id: SessionId, begin: &[u8], record: Option<&[u8]>) -> Result<Session, StoreError> {
    let damaged = || StoreError::new(format!("the store is damaged: session {id} cannot be read")).of_one_record();
    let &version = begin.first().ok_or_else(damaged)?;
    if version != VERSION {
        return Err(unknown_version(server, format_args!("session {id}"), version.into()).of_one_record());
    }
    let session = decode_session(id.as_bytes(), record.ok_or_else(damaged)?)?;
    if begin.starts_with(&begin_of(&session)) { Ok(session) } else { Err(damaged()) }
}

/// The error for a record that another version of this program wrote.
pub fn unknown_version(server: &str, what: impl fmt::Display, version: u64) -> StoreError {
    StoreError::new(format!(
        "{what} has version {version} in {server}, but this program reads only version {VERSION}: it was written by \
         another version of rotogate, which can read it"
    ))
    .with_outcome(WriteOutcome::NotDone)
}
