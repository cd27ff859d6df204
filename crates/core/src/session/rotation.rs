//! Decides what a presented refresh credential does. This is a pure function of the session, the credential, the facts
//! about the user, the time and the profile. The first row that matches decides:
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

/// A minimum generation that is higher than that of any token. It means that the session is revoked.
pub const REVOKED: Generation = Generation::new(u64::MAX);

/// The facts that a decision needs in addition to the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether the directory has the user, and the user is active and still in the session's account.
    pub user_active: bool,
    /// The latest of the directory's, the subject's, the client's and the global not-before. A session that was created
    /// in the same millisecond is not valid.
    pub sessions_valid_from: Timestamp,
    /// The minimum generation that the revocation list has for this session, even if it has not taken effect yet.
    /// [`Generation::NONE`] if there is none.
    ///
    /// Read this **before** the record is loaded. A rotation writes to the store before it writes to the list, so a
    /// record that is loaded later is at least as recent as the list's entry. If the order were reversed, a rotation by
    /// another request in between would look like writes that the store has lost.
    pub minimum_known: Generation,
    /// Whether this gate has every revocation of this session, even if the store has lost data. Once this gate has
    /// loaded its revocations from a store that had lost writes, the value is false for the rest of the session. Later
    /// changes of the session do not bring back the lost revocations.
    pub unbroken_revocations: bool,
}

/// The reason for which a session counts as revoked.
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
    /// The session's record says that it is revoked.
    Record,
    /// The revocation list has an entry for the session.
    List,
    /// The user is unknown, disabled, removed, or now in another account.
    UserInactive,
    /// The session began at or before the time from which the user's sessions are valid, for example because the user's
    /// password has changed.
    BeforeValidFrom,
    /// The session began at or before a not-before in the revocation list, because all sessions of its user, of its
    /// client or of the gate were revoked.
    NotBefore,
    /// The issuer that authenticated the user ended the user's login there.
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

/// The circumstances of a reuse. They are for the audit event, and never for the reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// The number of generations by which the token is older than the current generation.
    pub generations_old: u64,
    /// The time since its successor was issued, if the record still contains this time.
    pub superseded_for: Option<Duration>,
}

/// What a presented refresh credential does. See the module's table.
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
    /// The session was ended.
    Revoked(SessionEnd),
    /// The session exceeded a lifetime.
    Expired(Lifetime),
    /// The store or the record has lost writes. The session is fast-forwarded if that is safe. Otherwise the credential
    /// is refused.
    // Requirement O5.
    Ahead {
        /// Whether the session may continue from the presented generation.
        fast_forward: bool,
    },
    /// Issue a new pair.
    Rotate,
    /// Return the current pair again.
    Replay,
    /// Issue a new pair that replaces an unused one.
    Reissue,
    /// The token is superseded.
    Reuse(Reuse),
}

impl Decision {
    /// Returns whether the decision repeats a lost reply. In this case the credential was already exchanged, and the
    /// gate returns a pair of tokens again.
    pub const fn repeats(self) -> bool {
        matches!(self, Self::Replay | Self::Reissue)
    }
}

/// Decides, without I/O, clock or random numbers.
pub fn decide(s: &Session, generation: Generation, facts: Facts, now: Timestamp, profile: &Profile) -> Decision {
    if let Some(why) = ended(s, facts) {
        return Decision::Revoked(why);
    }
    if let Some(which) = lapsed(s, now, profile) {
        return Decision::Expired(which);
    }
    if generation > s.current || facts.minimum_known > s.current {
        // The list gives a lower bound for the lost generation, so only a token at or past this bound can be the latest
        // one.
        let latest = generation > s.current && generation >= facts.minimum_known;
        let fast_forward = facts.unbroken_revocations && latest && successor(generation).is_some();
        return Decision::Ahead { fast_forward };
    }
    if generation == s.current {
        return Decision::Rotate;
    }
    // `NONE` was never issued. It marks a session that was never refreshed.
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

/// What a rotation does to the session's earlier access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RaisedMinimum {
    /// The lowest generation whose access tokens are accepted from `effective_from` on.
    pub minimum: Generation,
    /// The time from which `minimum` applies.
    pub effective_from: Timestamp,
    /// The minimum until that time.
    pub before: Generation,
    /// The expiry of the last access token below the minimum.
    pub until: Timestamp,
}

/// The record after a decision that issues a new generation, and the revocation that results from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordChange {
    /// The record to swap in.
    pub record: Session,
    /// The entry for the revocation list, which must be written in the same transaction.
    pub raised: Option<RaisedMinimum>,
}

/// The next generation. It never reaches `REVOKED`, which therefore never denotes a token.
fn successor(generation: Generation) -> Option<Generation> {
    generation.next().filter(|next| *next < REVOKED)
}

/// The change of the record if `decision` issues a new generation. Returns `None` if `decision` does not issue one, or
/// if the record's counters are used up.
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
        // The unused generations after `previous` end at once, regardless of `revoke_previous_after`. Their access
        // tokens may have expired in the meantime, but their refresh tokens have not. In case the store loses the write
        // of this decision, the list keeps the entry at least as long as a sweep keeps ended entries.
        Decision::Reissue => {
            (s.previous, successor(s.current)?, s.rotated_at, Some(Duration::ZERO), s.latest_access_expires.max(now))
        }
        // The record does not contain the access tokens that were issued in lost writes, but tokens cannot live longer
        // than this.
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
