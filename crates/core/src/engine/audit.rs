//! The audit trail, as `tracing` events with the target `rotogate::audit`. Events never contain tokens, passwords or
//! keys. Unknown values are omitted. The field names are those of the access log (docs/logs.md). The configured log
//! level does not hide audit events. The events that an application can also follow are in `events.rs`.

use std::net::IpAddr;

use tracing::field::display;
use tracing::{info, warn};

use crate::denial::EventFlaw;
use crate::engine::{HeldUp, IssueKind, Origin};
use crate::session::{Generation, Session};
use crate::thumbprint::KeyThumbprint;
use crate::token::claims::MintedClaims;
use crate::token::delegation::Delegation;

pub(super) const TARGET: &str = "rotogate::audit";

/// An event whose name depends on the kind of credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// A client has logged in.
    Login,
    /// A client has ended its session.
    Logout,
    /// A browser has logged in.
    BrowserLogin,
    /// A browser has ended its session.
    BrowserLogout,
    /// A browser has bound its session to its device.
    BrowserBound,
}

impl SessionEvent {
    /// All session events.
    pub const ALL: [Self; 5] = [Self::Login, Self::Logout, Self::BrowserLogin, Self::BrowserLogout, Self::BrowserBound];

    /// The name of the event in the audit trail.
    // Requirement B56.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Logout => "logout",
            Self::BrowserLogin => "browser_login",
            Self::BrowserLogout => "browser_logout",
            Self::BrowserBound => "browser_bound",
        }
    }
}

pub(super) fn address(origin: &Origin) -> Option<tracing::field::DisplayValue<IpAddr>> {
    origin.address.map(display)
}

pub(super) fn rate_limited(limit: &str, held_up: &HeldUp, origin: &Origin) {
    let HeldUp { session, subject, name_hash, account, client } = held_up;
    warn!(
        target: TARGET,
        event = "rate_limited",
        limit,
        session.id = session.map(display),
        user.id = subject.as_deref(),
        user.name_hash = name_hash.as_deref(),
        rotogate.account = account.as_deref(),
        rotogate.client.id = client.as_deref(),
        client.address = address(origin),
        "attempt refused by a limit",
    );
}

pub(crate) fn too_many_sessions(session: &Session, origin: &Origin) {
    warn!(
        target: TARGET,
        event = "too_many_sessions",
        user.id = &*session.subject,
        rotogate.client.id = &*session.client,
        client.address = address(origin),
        "login refused: too many sessions",
    );
}

pub(crate) fn gave_way(session: &Session, ended: usize) {
    warn!(
        target: TARGET,
        event = "sessions_gave_way",
        session.id = %session.id,
        user.id = &*session.subject,
        ended,
        "older sessions ended to make room for a new session",
    );
}

pub(crate) fn client_token(client: &str, jti: &str, origin: &Origin) {
    info!(
        target: TARGET,
        event = "client_token",
        rotogate.client.id = client,
        rotogate.token.id = jti,
        client.address = address(origin),
        "token issued to a client",
    );
}

pub(crate) fn api_key(event: &'static str, key: &crate::api_key::ApiKey) {
    info!(
        target: TARGET,
        event,
        user.id = &*key.subject,
        rotogate.account = key.account.as_deref(),
        rotogate.token.id = &*key.id,
        rotogate.client.id = %crate::api_key::KeyClient(&key.id),
        scope = key.scopes.as_str(),
        "API key",
    );
}

pub(crate) fn token_exchanged(minted: &MintedClaims<'_>, delegation: &Delegation, origin: &Origin) {
    info!(
        target: TARGET,
        event = "token_exchange",
        session.id = minted.session.map(|(session, _)| display(session)),
        user.id = minted.subject,
        rotogate.client.id = minted.client,
        rotogate.token.id = minted.jti,
        rotogate.issuer = minted.vouched_by.map(|by| &*by.issuer),
        audience = minted.audience.first().map(|audience| &**audience),
        scope = minted.scope.as_str(),
        act = %delegation.act(),
        client.address = address(origin),
        "token exchanged",
    );
}

/// An expired access token was presented again, and its successor was still unused.
pub(crate) fn repeated(session: &Session, origin: &Origin) {
    reissue(session, "repeated", origin);
}

fn reissue(session: &Session, how: &str, origin: &Origin) {
    warn!(
        target: TARGET,
        event = "reissue",
        how,
        session.id = %session.id,
        user.id = &*session.subject,
        rotogate.generation = session.current.get(),
        client.address = address(origin),
        "reissue",
    );
}

/// Rotations and replays are routine, so they are not warnings.
pub(crate) fn refreshed(session: &Session, how: IssueKind, origin: &Origin) {
    match how {
        IssueKind::Reissued => reissue(session, "reissued", origin),
        IssueKind::FastForwarded => reissue(session, "fast_forwarded", origin),
        IssueKind::Login
        | IssueKind::ClientCredentials
        | IssueKind::Exchanged
        | IssueKind::Rotated
        | IssueKind::Replayed => {
            tracing::debug!(
                target: "rotogate::session",
                event = "rotation",
                session.id = %session.id,
                rotogate.generation = session.current.get(),
                "rotation",
            );
        }
    }
}

pub(crate) fn ahead(session: &Session, presented: Generation, origin: &Origin) {
    warn!(
        target: TARGET,
        event = "ahead_of_store",
        session.id = %session.id,
        user.id = &*session.subject,
        presented = presented.get(),
        current = session.current.get(),
        client.address = address(origin),
        "refresh token is newer than the record in the store",
    );
}

pub(crate) fn other_client(session: &Session, presented_by: &str, origin: &Origin) {
    warn!(
        target: TARGET,
        event = "other_client",
        session.id = %session.id,
        user.id = &*session.subject,
        rotogate.client.id = &*session.client,
        presented_by,
        client.address = address(origin),
        "refresh token was presented by another client",
    );
}

pub(crate) fn logout(session: &Session, origin: &Origin) {
    let event = if session.browser.is_some() { SessionEvent::BrowserLogout } else { SessionEvent::Logout };
    info!(
        target: TARGET,
        event = event.name(),
        session.id = %session.id,
        user.id = &*session.subject,
        rotogate.client.id = &*session.client,
        client.address = address(origin),
        "logout",
    );
}

pub(super) fn bound(session: &Session, device: &KeyThumbprint, origin: &Origin) {
    info!(
        target: TARGET,
        event = SessionEvent::BrowserBound.name(),
        session.id = %session.id,
        user.id = &*session.subject,
        rotogate.device = %device,
        client.address = address(origin),
        "session bound to a device",
    );
}

pub(super) fn notice_refused(issuer: &str, protocol: &str, flaw: EventFlaw, origin: &Origin) {
    warn!(
        target: TARGET,
        event = "notice_refused",
        rotogate.issuer = issuer,
        protocol,
        reason = flaw.word(),
        why = flaw.what(),
        client.address = address(origin),
        "notice from another issuer refused; no sessions were ended",
    );
}

pub(super) fn issuer_event(issuer: &str, kind: &str, effect: &str, id: &str, origin: &Origin) {
    info!(
        target: TARGET,
        event = "issuer_event",
        rotogate.issuer = issuer,
        kind,
        effect,
        rotogate.token.id = id,
        client.address = address(origin),
        "event from another issuer accepted",
    );
}
