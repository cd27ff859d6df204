//! What the rules read from a record, and how they change it.

use crate::clock::Timestamp;
use crate::session::{Generation, RevokedBecause, Session, Status};

/// Returns the later of the issue and rotation times. The creation time may be ahead of engine time.
pub fn time_in(session: &Session) -> Timestamp {
    session.issued_at.max(session.rotated_at)
}

/// Returns `None` if the record is already revoked.
pub(super) fn apply_revoke(record: &Session, because: RevokedBecause) -> Option<Session> {
    (!record.is_revoked()).then(|| Session {
        status: Status::Revoked(because),
        revision: record.revision.saturating_add(1),
        ..record.clone()
    })
}

/// Returns `None` if the session is not live, or the generation is old or already confirmed.
pub(super) fn apply_confirm(record: &Session, generation: Generation) -> Option<Session> {
    (!record.is_revoked() && record.current == generation && !record.confirmed).then(|| Session {
        confirmed: true,
        revision: record.revision.saturating_add(1),
        ..record.clone()
    })
}
