//! Revocations: their meaning, their merging, and the list against which every request is checked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::session::rotation::{REVOKED, RaisedMinimum};
use crate::session::{Generation, SessionId};

pub mod epoch;
pub mod list;

/// Tests replace these atomics.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

pub use list::RevocationList;

/// The target of a revocation. Most targets contain an issuer, because `sub`, `client_id` and `jti` are unique only per
/// issuer. A session always belongs to the gate.
///
/// ```
/// use rotogate::store::Target;
///
/// /// A column of a store's table of revocations.
/// fn kind(target: &Target) -> &'static str {
///     match target {
///         Target::Session(_) => "session",
///         Target::Subject { .. } | Target::Client { .. } | Target::Global => "not-before",
///         Target::Token { .. } => "token",
///     }
/// }
/// assert_eq!(kind(&Target::Global), "not-before");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Target {
    /// One of the gate's sessions.
    Session(SessionId),
    /// All sessions and tokens of one subject.
    Subject {
        /// The `iss`.
        issuer: Arc<str>,
        /// The `sub`.
        subject: Box<str>,
    },
    /// All sessions and tokens of one client.
    Client {
        /// The `iss`.
        issuer: Arc<str>,
        /// The `client_id`.
        client: Box<str>,
    },
    /// All sessions and tokens.
    Global,
    /// One token without a session.
    Token {
        /// The `iss`.
        issuer: Arc<str>,
        /// The `jti`.
        jti: Box<str>,
    },
}

/// A suffix of an issuer's name. Issuer names never contain `#` (RFC 8414 §2).
const SESSIONS_OF: &str = "#sid";
const WITHOUT_SESSION: &str = "#without-sid";
const ANY_SESSION: &str = "#any-sid";
pub(crate) const REFRESHED: &str = "#refreshed";
pub(crate) const REFRESHED_SESSION: &str = "#refreshed-sid";

impl Target {
    /// All tokens of one session of another issuer.
    ///
    /// The target is encoded as a subject of an impossible issuer, so that every store can read it.
    pub fn session_of(issuer: &str, sid: &str) -> Self {
        Self::Subject { issuer: format!("{issuer}{SESSIONS_OF}").into(), subject: sid.into() }
    }

    /// Excludes the gate's own sessions that are tied to a session of this issuer.
    pub(crate) fn any_session_of(issuer: &str, subject: &str) -> Self {
        Self::Subject { issuer: format!("{issuer}{ANY_SESSION}").into(), subject: subject.into() }
    }

    /// Only tokens without a session match this target.
    pub(crate) fn without_session_of(issuer: &str, subject: &str) -> Self {
        Self::Subject { issuer: format!("{issuer}{WITHOUT_SESSION}").into(), subject: subject.into() }
    }

    /// A target for access tokens that must be refreshed. The sessions of these tokens continue.
    pub(crate) fn refreshed(issuer: &str, subject: &str) -> Self {
        Self::Subject { issuer: format!("{issuer}{REFRESHED}").into(), subject: subject.into() }
    }

    pub(crate) fn refreshed_session(issuer: &str, sid: &str) -> Self {
        Self::Subject { issuer: format!("{issuer}{REFRESHED_SESSION}").into(), subject: sid.into() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(session) => write!(f, "session {session}"),
            Self::Subject { issuer, subject } => write!(f, "subject {subject} of {issuer}"),
            Self::Client { issuer, client } => write!(f, "client {client} of {issuer}"),
            Self::Global => f.write_str("all"),
            Self::Token { issuer, jti } => write!(f, "token {jti} of {issuer}"),
        }
    }
}

/// The moment or generation from which a target's tokens are accepted.
///
/// ```
/// use rotogate::clock::Timestamp;
/// use rotogate::store::Effect;
///
/// let monday = Effect::NotBefore(Timestamp::from_secs(1_800_000_000));
/// let tuesday = Effect::NotBefore(Timestamp::from_secs(1_800_086_400));
/// assert_eq!(monday.merge(tuesday), tuesday, "the later one also covers the earlier one");
/// assert_eq!(tuesday.merge(monday), tuesday, "whichever arrives first");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// Tokens below a generation are refused. The target is a [`Target::Session`].
    Minimum {
        /// The minimum generation from `effective_from` on. `REVOKED` refuses all generations.
        minimum: Generation,
        /// When `minimum` takes effect.
        effective_from: Timestamp,
        /// The minimum generation that applies before `effective_from`.
        before: Generation,
    },
    /// Sessions created and tokens issued at or before this moment are refused. The target is a subject, a client or
    /// everyone.
    NotBefore(Timestamp),
    /// Like [`NotBefore`](Self::NotBefore), but API keys are refused too.
    NotBeforeWithKeys {
        /// Sessions created and tokens issued at or before this moment are refused.
        sessions: Timestamp,
        /// API keys created at or before this moment are refused.
        keys: Timestamp,
    },
    /// The token is refused.
    Gone,
}

/// The maximum lifetime of an API key. A not-before that revokes API keys is kept this long.
pub const LONGEST_KEY: Duration = Duration::from_secs(366 * 86_400);

/// If the `jti` of an entry is an API key's id with this suffix, every gate reloads the key.
pub(crate) const REPLACED: &str = ":replaced";

impl Effect {
    /// Ends a session at once.
    pub const SESSION_REVOKED: Self =
        Self::Minimum { minimum: REVOKED, effective_from: Timestamp::ZERO, before: Generation::NONE };

    /// Creates a not-before, which also ends API keys if `with_keys` is true.
    pub const fn not_before(moment: Timestamp, with_keys: bool) -> Self {
        if with_keys { Self::NotBeforeWithKeys { sessions: moment, keys: moment } } else { Self::NotBefore(moment) }
    }

    /// The moment up to which sessions are refused, if this is a not-before.
    pub const fn sessions_until(self) -> Option<Timestamp> {
        match self {
            Self::NotBefore(sessions) | Self::NotBeforeWithKeys { sessions, .. } => Some(sessions),
            Self::Minimum { .. } | Self::Gone => None,
        }
    }

    /// The moment up to which API keys are refused.
    pub const fn keys_until(self) -> Option<Timestamp> {
        match self {
            Self::NotBeforeWithKeys { keys, .. } => Some(keys),
            Self::NotBefore(_) | Self::Minimum { .. } | Self::Gone => None,
        }
    }

    /// Merges two effects on the same target, in any order. The higher minimum and the later not-before win, and `Gone`
    /// always wins.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Minimum { minimum: a, effective_from: a_from, before: a_before },
                Self::Minimum { minimum: b, effective_from: b_from, before: b_before },
            ) => {
                if a == REVOKED || b == REVOKED {
                    return Self::SESSION_REVOKED;
                }
                let (minimum, effective_from, lower) = match a.cmp(&b) {
                    std::cmp::Ordering::Greater => (a, a_from, b),
                    std::cmp::Ordering::Less => (b, b_from, a),
                    std::cmp::Ordering::Equal => (a, a_from.min(b_from), Generation::NONE),
                };
                Self::Minimum { minimum, effective_from, before: a_before.max(b_before).max(lower) }
            }
            (Self::NotBefore(a), Self::NotBefore(b)) => Self::NotBefore(a.max(b)),
            (Self::NotBeforeWithKeys { sessions: a, keys }, Self::NotBefore(b))
            | (Self::NotBefore(b), Self::NotBeforeWithKeys { sessions: a, keys }) => {
                Self::NotBeforeWithKeys { sessions: a.max(b), keys }
            }
            (
                Self::NotBeforeWithKeys { sessions: a, keys: a_keys },
                Self::NotBeforeWithKeys { sessions: b, keys: b_keys },
            ) => Self::NotBeforeWithKeys { sessions: a.max(b), keys: a_keys.max(b_keys) },
            // A target should have effects of only one kind.
            (Self::Gone, _) | (_, Self::Gone) => Self::Gone,
            (minimum @ Self::Minimum { .. }, Self::NotBefore(_) | Self::NotBeforeWithKeys { .. })
            | (Self::NotBefore(_) | Self::NotBeforeWithKeys { .. }, minimum @ Self::Minimum { .. }) => minimum,
        }
    }
}

/// An entry of the revocation list.
///
/// ```
/// use rotogate::clock::Timestamp;
/// use rotogate::store::{Effect, Revocation, Target};
///
/// let target = Target::Token { issuer: "https://login.example.com".into(), jti: "t-42".into() };
/// let entry = |until| Revocation { target: target.clone(), effect: Effect::Gone, until: Timestamp::from_secs(until) };
/// let mut known = entry(1_800_000_000);
/// known.absorb(&entry(1_800_000_600));
/// assert_eq!(known, entry(1_800_000_600), "the later end counts");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The target.
    pub target: Target,
    /// The effect on the target.
    pub effect: Effect,
    /// The time when all matching tokens have expired, including the leeway.
    pub until: Timestamp,
}

impl Revocation {
    /// Returns whether the entry may end API keys.
    // Requirement K35.
    pub const fn ends_api_keys(&self) -> bool {
        matches!(self.target, Target::Token { .. }) || self.effect.keys_until().is_some()
    }
}

/// The revocation of a session's earlier access tokens after a rotation.
pub fn raised_minimum(id: SessionId, raised: RaisedMinimum, leeway: Duration) -> Revocation {
    let RaisedMinimum { minimum, effective_from, before, until } = raised;
    Revocation {
        target: Target::Session(id),
        effect: Effect::Minimum { minimum, effective_from, before },
        until: until.plus(leeway),
    }
}

impl Revocation {
    /// Merges another entry for the same target. The later expiry wins.
    pub fn absorb(&mut self, other: &Self) {
        debug_assert_eq!(self.target, other.target);
        self.effect = self.effect.merge(other.effect);
        self.until = self.until.max(other.until);
    }
}

#[cfg(test)]
mod tests;
