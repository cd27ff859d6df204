//! Decides what a presented refresh token does, as a pure function. The first row that matches decides:
//!
//! | session | presented | decision |
//! |---|---|---|
//! | revoked by its record or by the list; user inactive; begun before `sessions_valid_from` | any | [`Revoked`](Decision::Revoked) |
//! | past `session_ttl`, or idle past `idle_ttl` | any | [`Expired`](Decision::Expired) |
//! | live | > current, or `minimum_known` > current | [`Ahead`](Decision::Ahead) |
//! | live | = current | [`Rotate`](Decision::Rotate) |
//! | live | = previous, within `grace` of `issued_at` | [`Replay`](Decision::Replay) |
//! | live | = previous, later, current unconfirmed, within `lost_response_window` of `rotated_at` | [`Reissue`](Decision::Reissue) |
//! | live | anything else | [`Reuse`](Decision::Reuse) |
//!
//! A window of `d` is open while less than `d` has passed, so a window of zero is never open.

use std::time::Duration;

use super::profile::Profile;
use super::{Generation, LastPair, Session, Status};
use crate::clock::Timestamp;

/// A session with this minimum generation accepts no token.
pub const REVOKED: Generation = Generation::new(u64::MAX);

/// The facts that a decision needs in addition to the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the user exists, is active and is still in the session's account.
    pub user_active: bool,
    /// The latest not-before for the session, which also covers sessions created in the same millisecond.
    pub sessions_valid_from: Timestamp,
    /// The session's minimum generation in the revocation list, even before it takes effect, or [`Generation::NONE`].
    ///
    /// Read this **before** the record. A rotation writes to the store first, so a record that is loaded later is at
    /// least as recent. In the reverse order, a concurrent rotation would look like lost writes.
    pub minimum_known: Generation,
    /// Whether this gate has every revocation of this session, even if the store has lost data.
    ///
    /// Once false, the value stays false for the rest of the session.
    pub unbroken_revocations: bool,
}

/// Why a session counts as revoked.
///
/// ```
/// use rotogate::denial::{Class, Denial};
/// use rotogate::session::SessionEnd;
///
/// let denial = Denial::SessionRevoked(SessionEnd::UserInactive);
/// assert_eq!(denial.class(), Class::BadGrant { expired: false }, "the reply does not say why");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// The session's record is marked as revoked.
    Record,
    /// The revocation list has an entry for the session.
    List,
    /// The user is unknown, disabled, removed, or now in another account.
    UserInactive,
    /// The session began before the user's `sessions_valid_from`, for example before a change of password.
    BeforeValidFrom,
    /// The session is older than a not-before for its user, its client or the whole gate.
    NotBefore,
    /// The issuer at which the user logged in has ended the login.
    Elsewhere,
}

/// The lifetime that a session has exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// The session exceeded `session_ttl`.
    Session,
    /// The session exceeded `idle_ttl`.
    Idle,
}

/// The circumstances of a reuse, for the audit event but not for the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// How many generations the token is behind the current one.
    pub generations_old: u64,
    /// How long ago the token's successor was issued, or `None` if unknown.
    pub superseded_for: Option<Duration>,
}

/// The response to a refresh token. See the module's table.
///
/// ```
/// use rotogate_core::session::rotation::Decision;
///
/// fn issues_tokens(decision: Decision) -> bool {
///     match decision {
///         Decision::Rotate | Decision::Replay | Decision::Reissue => true,
///         Decision::Ahead { fast_forward } => fast_forward,
///         Decision::Revoked(_) | Decision::Expired(_) | Decision::Reuse(_) => false,
///     }
/// }
/// assert!(issues_tokens(Decision::Rotate) && !issues_tokens(Decision::Ahead { fast_forward: false }));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The session was revoked.
    Revoked(SessionEnd),
    /// The session exceeded a lifetime.
    Expired(Lifetime),
    /// The store or the record has lost writes.
    // Requirement O5.
    Ahead {
        /// Whether the session may continue from the presented generation. Otherwise the token is refused.
        fast_forward: bool,
    },
    /// Issue a new pair.
    Rotate,
    /// Return the current pair again.
    Replay,
    /// Issue a new pair that replaces an unused pair.
    Reissue,
    /// The token is superseded.
    Reuse(Reuse),
}

impl Decision {
    /// Returns whether the gate repeats an earlier exchange because its response may have been lost.
    pub const fn repeats(self) -> bool {
        matches!(self, Self::Replay | Self::Reissue)
    }
}

/// Makes the decision without I/O, clock or random numbers.
pub fn decide(s: &Session, generation: Generation, facts: Facts, now: Timestamp, profile: &Profile) -> Decision {
    if let Some(why) = ended(s, facts) {
        return Decision::Revoked(why);
    }
    if let Some(which) = lapsed(s, now, profile) {
        return Decision::Expired(which);
    }
    if generation > s.current || facts.minimum_known > s.current {
        let latest = generation > s.current && generation >= facts.minimum_known;
        let fast_forward = facts.unbroken_revocations && latest && successor(generation).is_some();
        return Decision::Ahead { fast_forward };
    }
    if generation == s.current {
        return Decision::Rotate;
    }
    // `NONE` means that the session was never refreshed.
    if generation == s.previous && generation != Generation::NONE {
        if now.since(s.issued_at) < profile.grace {
            return Decision::Replay;
        }
        if !s.confirmed && now.since(s.rotated_at) < profile.lost_response_window {
            return Decision::Reissue;
        }
    }
    Decision::Reuse(Reuse {
        generations_old: s.current.get() - generation.get(),
        superseded_for: (generation == s.previous && generation != Generation::NONE).then(|| now.since(s.rotated_at)),
    })
}

fn ended(s: &Session, facts: Facts) -> Option<SessionEnd> {
    match s.status {
        Status::Revoked(_) => return Some(SessionEnd::Record),
        Status::Live => {}
    }
    if facts.minimum_known == REVOKED {
        return Some(SessionEnd::List);
    }
    if !facts.user_active {
        return Some(SessionEnd::UserInactive);
    }
    (s.created() <= facts.sessions_valid_from).then_some(SessionEnd::BeforeValidFrom)
}

fn lapsed(s: &Session, now: Timestamp, profile: &Profile) -> Option<Lifetime> {
    if now >= s.expires.min(s.created().plus(profile.session_ttl)) {
        return Some(Lifetime::Session);
    }
    (now.since(s.issued_at) >= profile.idle_ttl).then_some(Lifetime::Idle)
}

/// The effect of a rotation on the session's earlier access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaisedMinimum {
    /// The lowest accepted generation from `effective_from` on.
    pub minimum: Generation,
    /// When `minimum` takes effect.
    pub effective_from: Timestamp,
    /// The lowest accepted generation before `effective_from`.
    pub before: Generation,
    /// When the last access token with a generation below the minimum expires.
    pub until: Timestamp,
}

/// The new record, and the revocation that results from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    /// The new record.
    pub record: Session,
    /// The entry for the revocation list, written in the same transaction.
    pub raised: Option<RaisedMinimum>,
}

/// Never returns `REVOKED`, which no token may have.
fn successor(generation: Generation) -> Option<Generation> {
    generation.next().filter(|next| *next < REVOKED)
}

/// How the record changes, or `None` if `decision` does not issue a new generation.
pub fn apply_decision(
    s: &Session,
    decision: Decision,
    presented: Generation,
    pair: LastPair,
    now: Timestamp,
    profile: &Profile,
) -> Option<RecordChange> {
    let raise_by_profile = profile.revoke_previous_after;
    let (previous, current, rotated_at, raise_after, abandoned_end) = match decision {
        Decision::Rotate => (s.current, successor(s.current)?, now, raise_by_profile, s.latest_access_expires),
        // The unused generations after `previous` are revoked at once, even if their access tokens have expired.
        // With `max(now)`, the entry has not yet expired, so gates can write it back if the store loses it.
        Decision::Reissue => {
            (s.previous, successor(s.current)?, s.rotated_at, Some(Duration::ZERO), s.latest_access_expires.max(now))
        }
        // At `lost`, all access tokens of lost generations have expired.
        Decision::Ahead { fast_forward: true } => {
            let lost = now.plus(profile.max_access_ttl).min(s.expires);
            (presented, successor(presented)?, now, raise_by_profile, s.latest_access_expires.max(lost))
        }
        Decision::Revoked(_)
        | Decision::Expired(_)
        | Decision::Ahead { fast_forward: false }
        | Decision::Replay
        | Decision::Reuse(_) => return None,
    };
    let raised = raise_after.map(|after| RaisedMinimum {
        minimum: current,
        effective_from: now.plus(after),
        before: Generation::NONE,
        until: abandoned_end,
    });
    let record = Session {
        current,
        previous,
        rotated_at,
        issued_at: now,
        confirmed: false,
        latest_access_expires: abandoned_end.max(pair.access_expires),
        last: pair,
        revision: s.revision.checked_add(1)?,
        ..s.clone()
    };
    Some(RecordChange { record, raised })
}

#[cfg(test)]
mod tests;
