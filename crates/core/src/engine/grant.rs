//! The lifetime and scope of a grant.

use std::time::Duration;

use super::Refresh;
use crate::client::Client;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::directory::User;
use crate::session::profile::Profile;
use crate::session::{Scope, Session};

pub(super) fn allowed_ttl(asked: Option<Duration>, profile: &Profile) -> Result<(), Denial> {
    if asked.is_some_and(|ttl| ttl > profile.max_access_ttl) { Err(Denial::TtlExceeded) } else { Ok(()) }
}

/// The expiry is rounded up to a whole second, but is never later than the session's end.
pub(super) fn access_expiry(
    now: Timestamp,
    session_end: Timestamp,
    asked: Option<Duration>,
    profile: &Profile,
) -> Timestamp {
    let ttl = asked.unwrap_or(profile.access_ttl).min(profile.max_access_ttl);
    Timestamp::from_secs(now.plus(ttl).as_secs_rounded_up().min(session_end.as_secs()))
}

/// Grants only requested scopes that the client may request and the user has.
pub(super) fn granted_at_login(asked: Option<&Scope>, client: Option<&Scope>, user: &Scope) -> Result<Scope, Denial> {
    let Some(asked) = asked else {
        return Ok(client.map_or_else(|| user.clone(), |client| user.intersection(client)));
    };
    if client.is_some_and(|client| !asked.is_within(client)) {
        return Err(Denial::InvalidScope);
    }
    let granted = asked.intersection(user);
    if granted.is_empty() && !asked.is_empty() { Err(Denial::InvalidScope) } else { Ok(granted) }
}

/// Omits scopes that the user or the client has lost since the login (RFC 6749 §6).
pub(super) fn granted_at_refresh(
    session: &Session,
    refresh: &Refresh<'_>,
    user: Option<&User>,
) -> Result<Scope, Denial> {
    let asked = refresh.scope.as_ref().unwrap_or(&session.scope);
    if !asked.is_within(&session.scope) {
        return Err(Denial::InvalidScope);
    }
    Ok(still_granted(asked, refresh.client, user))
}

pub(super) fn still_granted(scope: &Scope, client: &Client, user: Option<&User>) -> Scope {
    let mut granted = scope.clone();
    if let Some(user) = user {
        granted = granted.intersection(&user.scopes);
    }
    if let Some(client) = &client.scopes {
        granted = granted.intersection(client);
    }
    granted
}
