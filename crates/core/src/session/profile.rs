//! The session rules of an endpoint or a client.

use crate::invalid::InvalidValue;
use std::time::Duration;

use serde::{Deserialize, Serialize};

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 86_400;
/// The maximum of `max_sessions_per_subject`. A larger number would make logins slow, because a login counts the
/// subject's sessions one by one.
pub const MAX_SESSIONS_PER_SUBJECT: u32 = 10_000;

/// What happens if a superseded token is presented (RFC 9700 §4.14.2).
///
/// ```
/// use rotogate::session::profile::{OnReuse, Profile};
///
/// // A copied refresh token ends every session of its user.
/// let profile = Profile { on_reuse: OnReuse::RevokeSubject, ..Profile::default() };
/// let builder = rotogate::Gate::builder().profile(profile);
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum OnReuse {
    /// The session and its access tokens are revoked.
    RevokeSession,
    /// Every session of the subject is revoked.
    RevokeSubject,
    /// Only the token is refused.
    Deny,
}

impl OnReuse {
    /// The name of this value in `gateway.toml`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::RevokeSession => "revoke-session",
            Self::RevokeSubject => "revoke-subject",
            Self::Deny => "deny",
        }
    }
}

/// The rules for a session's tokens. The defaults are those of `gateway.toml`.
///
/// ```
/// use std::time::Duration;
/// use rotogate::session::profile::Profile;
///
/// let profile = Profile { access_ttl: Duration::from_secs(120), ..Profile::default() };
/// // A user can have only one session. Another login is refused until the user has logged out.
/// let profile = Profile { max_sessions_per_subject: 1, ends_oldest: false, ..profile };
/// assert!(profile.problems().is_empty());
/// let builder = rotogate::Gate::builder().profile(profile);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The lifetime of an access token, unless the client requests another one.
    pub access_ttl: Duration,
    /// The longest lifetime that a client may request for an access token.
    pub max_access_ttl: Duration,
    /// The maximum lifetime of a session since its login.
    pub session_ttl: Duration,
    /// How long a session lasts without a refresh.
    pub idle_ttl: Duration,
    /// How long an exchanged refresh token yields the same successor.
    pub grace: Duration,
    /// How long an exchanged refresh token yields a new pair if its successor is unused.
    pub lost_response_window: Duration,
    /// What happens if a superseded token is presented.
    pub on_reuse: OnReuse,
    /// Whether a session ends when another client presents its refresh token. The token is refused in either case.
    pub other_client_ends_session: bool,
    /// The maximum number of live sessions per subject, over all clients and endpoints.
    pub max_sessions_per_subject: u32,
    /// Whether a login over the limit revokes the oldest session. Otherwise the login is refused.
    pub ends_oldest: bool,
    /// How long after a rotation the earlier access tokens are revoked. `None` means never.
    pub revoke_previous_after: Option<Duration>,
}

impl Default for Profile {
    fn default() -> Self {
        Self {
            access_ttl: Duration::from_secs(10 * MINUTE),
            max_access_ttl: Duration::from_secs(24 * HOUR),
            session_ttl: Duration::from_secs(30 * DAY),
            idle_ttl: Duration::from_secs(14 * DAY),
            grace: Duration::from_secs(10 * SECOND),
            lost_response_window: Duration::from_secs(24 * HOUR),
            on_reuse: OnReuse::RevokeSession,
            other_client_ends_session: false,
            max_sessions_per_subject: 100,
            ends_oldest: true,
            revoke_previous_after: None,
        }
    }
}

/// Rules that replace those of a profile.
///
/// ```
/// use std::time::Duration;
/// use rotogate::client::Client;
/// use rotogate::session::profile::ProfileOverride;
///
/// // The user of a television logs in only once a year.
/// let year = Duration::from_secs(365 * 86_400);
/// let profile = ProfileOverride { session_ttl: Some(year), ..ProfileOverride::default() };
/// let builder = rotogate::Gate::builder().client(Client { profile, ..Client::public("tv") });
/// # let _ = builder;
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are documented in Profile")]
pub struct ProfileOverride {
    pub access_ttl: Option<Duration>,
    pub max_access_ttl: Option<Duration>,
    pub session_ttl: Option<Duration>,
    pub idle_ttl: Option<Duration>,
    pub grace: Option<Duration>,
    pub lost_response_window: Option<Duration>,
    pub on_reuse: Option<OnReuse>,
    pub other_client_ends_session: Option<bool>,
    pub max_sessions_per_subject: Option<u32>,
    pub ends_oldest: Option<bool>,
    pub revoke_previous_after: Option<Duration>,
}

impl ProfileOverride {
    /// Returns the rules of `base`, overridden by the rules that are set here.
    pub fn over(&self, base: &Profile) -> Profile {
        Profile {
            access_ttl: self.access_ttl.unwrap_or(base.access_ttl),
            max_access_ttl: self.max_access_ttl.unwrap_or(base.max_access_ttl),
            session_ttl: self.session_ttl.unwrap_or(base.session_ttl),
            idle_ttl: self.idle_ttl.unwrap_or(base.idle_ttl),
            grace: self.grace.unwrap_or(base.grace),
            lost_response_window: self.lost_response_window.unwrap_or(base.lost_response_window),
            on_reuse: self.on_reuse.unwrap_or(base.on_reuse),
            other_client_ends_session: self.other_client_ends_session.unwrap_or(base.other_client_ends_session),
            max_sessions_per_subject: self.max_sessions_per_subject.unwrap_or(base.max_sessions_per_subject),
            ends_oldest: self.ends_oldest.unwrap_or(base.ends_oldest),
            revoke_previous_after: self.revoke_previous_after.or(base.revoke_previous_after),
        }
    }
}

impl Profile {
    /// All violated limits.
    pub fn problems(&self) -> Vec<InvalidValue> {
        let mut found = Vec::new();
        let mut rule = |holds: bool, key, expected: String| {
            if !holds {
                found.push(InvalidValue::of_key(key, expected));
            }
        };
        let show = crate::clock::written;
        rule(self.access_ttl >= Duration::from_secs(1), "access_ttl", "must be at least 1s".into());
        rule(
            self.access_ttl >= self.grace * 2,
            "access_ttl",
            format!(
                "must be at least twice grace ({}), because otherwise a replay returns a token that is about to expire",
                show(self.grace)
            ),
        );
        rule(
            self.access_ttl <= self.max_access_ttl,
            "access_ttl",
            format!("must not exceed max_access_ttl ({})", show(self.max_access_ttl)),
        );
        rule(self.grace <= Duration::from_secs(60), "grace", "must be at most 60s".into());
        rule(
            self.lost_response_window <= self.idle_ttl.min(Duration::from_secs(7 * DAY)),
            "lost_response_window",
            "must be at most 7d and at most idle_ttl".into(),
        );
        rule(
            !self.grace.is_zero() || self.lost_response_window.is_zero(),
            "lost_response_window",
            "must be 0s when grace is 0s".into(),
        );
        rule(
            (1..=MAX_SESSIONS_PER_SUBJECT).contains(&self.max_sessions_per_subject),
            "max_sessions_per_subject",
            format!("must be from 1 to {MAX_SESSIONS_PER_SUBJECT}"),
        );
        rule(!self.idle_ttl.is_zero(), "idle_ttl", "must be more than 0s".into());
        rule(
            self.idle_ttl <= self.session_ttl,
            "idle_ttl",
            format!("must not exceed session_ttl ({})", show(self.session_ttl)),
        );
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_together() {
        assert_eq!(Profile::default().problems(), []);
    }

    #[test]
    fn each_bound_is_named() {
        let s = Duration::from_secs;
        let cases: [(&str, Profile); 8] = [
            ("access_ttl", Profile { access_ttl: s(19), ..Profile::default() }),
            ("access_ttl", Profile { max_access_ttl: s(60), ..Profile::default() }),
            ("grace", Profile { grace: s(61), ..Profile::default() }),
            ("lost_response_window", Profile { lost_response_window: s(7 * DAY + 1), ..Profile::default() }),
            ("lost_response_window", Profile { grace: s(0), ..Profile::default() }),
            ("max_sessions_per_subject", Profile { max_sessions_per_subject: 0, ..Profile::default() }),
            ("idle_ttl", Profile { idle_ttl: s(31 * DAY), ..Profile::default() }),
            ("idle_ttl", Profile { idle_ttl: s(0), lost_response_window: s(0), ..Profile::default() }),
        ];
        for (key, profile) in cases {
            let keys: Vec<_> = profile.problems().into_iter().filter_map(|p| p.key()).collect();
            assert_eq!(keys, [key], "{profile:?}");
        }
    }
}
