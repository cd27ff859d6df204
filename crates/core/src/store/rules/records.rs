//! The facts that the rules read from a record, and the changes that they make to it.

use crate::clock::Timestamp;
use crate::session::{Generation, RevokedBecause, Session, Status};

/// The latest engine time in a record. The creation time is ignored, because it may be stamped ahead of the engine
/// time.
pub fn time_in(session: &Session) -> Timestamp {
    session.issued_at.max(session.rotated_at)
}

/// Returns the record with the status revoked. `None` if it is already revoked and keeps its first reason.
pub(super) fn apply_revoke(record: &Session, because: RevokedBecause) -> Option<Session> {
    (!record.is_revoked()).then(|| Session {
        status: Status::Revoked(because),
        revision: record.revision.saturating_add(1),
        ..record.clone()
    })
}

/// Returns the record with `generation` confirmed. `None` if `generation` is not the current generation of a live
/// session, or is already confirmed.
pub(super) fn apply_confirm(record: &Session, generation: Generation) -> Option<Session> {
    (!record.is_revoked() && record.current == generation && !record.confirmed).then(|| Session {
        confirmed: true,
        revision: record.revision.saturating_add(1),
        ..record.clone()
    })
}
