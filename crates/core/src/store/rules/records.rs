//! The facts that the rules read from a record, and the changes that they make to it.

use crate::clock::Timestamp;
use crate::session::{Generation, RevokedBecause, Session, Status};

/// The most sessions of a page, whatever the caller asks for.
const MAX_PAGE: usize = 1000;

/// The end of a session and of everything issued in it. A revoked session is kept only as long as its access tokens
/// could live: otherwise a client that logs in and out all day would fill the store.
///
/// ```
/// use rotogate::store::rules::end_of;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// # let id = gate.sessions().start(NewSession::new("ada", "web")).await?.session.ok_or("it has an id")?;
/// # let session = gate.sessions().get(id).await?.ok_or("it has a record")?;
/// // A column of your table of sessions, for `State::remove_ended`.
/// assert_eq!(end_of(&session), session.expires);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub fn end_of(session: &Session) -> Timestamp {
    match session.status {
        Status::Live => session.expires.max(session.latest_access_expires),
        Status::Revoked(_) => session.latest_access_expires,
    }
}

/// How many sessions a page may have if `limit` was requested.
///
/// ```
/// use rotogate::store::rules::page_size;
///
/// assert_eq!(page_size(50), 50);
/// assert_eq!(page_size(0), 1);
/// assert_eq!(page_size(usize::MAX), 1000);
/// ```
pub fn page_size(limit: usize) -> usize {
    limit.clamp(1, MAX_PAGE)
}

/// The latest engine time in a record, without its creation, which may be stamped ahead of the engine time.
pub fn time_in(session: &Session) -> Timestamp {
    session.issued_at.max(session.rotated_at)
}

/// The record, revoked; `None` if it is revoked already, and keeps its first reason.
pub(super) fn apply_revoke(record: &Session, because: RevokedBecause) -> Option<Session> {
    (!is_revoked(record)).then(|| Session {
        status: Status::Revoked(because),
        revision: record.revision.saturating_add(1),
        ..record.clone()
    })
}

/// The record with `generation` confirmed; `None` if `generation` is not the current generation of a live session, or
/// is confirmed already.
pub(super) fn apply_confirm(record: &Session, generation: Generation) -> Option<Session> {
    (!is_revoked(record) && record.current == generation && !record.confirmed).then(|| Session {
        confirmed: true,
        revision: record.revision.saturating_add(1),
        ..record.clone()
    })
}

/// Was the session ended before its expiry?
///
/// ```
/// use rotogate::store::rules::is_revoked;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// # let id = gate.sessions().start(NewSession::new("ada", "web")).await?.session.ok_or("it has an id")?;
/// # let session = gate.sessions().get(id).await?.ok_or("it has a record")?;
/// assert!(!is_revoked(&session));
/// gate.sessions().revoke(session.id).await?;
/// assert!(gate.sessions().get(session.id).await?.is_some_and(|session| is_revoked(&session)));
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
pub fn is_revoked(record: &Session) -> bool {
    match record.status {
        Status::Live => false,
        Status::Revoked(_) => true,
    }
}
