//! `[sessions]`. Clients and endpoints may override only the profile keys.

use std::time::Duration;

use toml::Value;

use super::super::declare::section;
use super::super::print::{Print, Words};
use super::super::value;
use super::{Config, DAY, EndpointConfig, SECOND};
use rotogate::gate::DEFAULT_MAX_STREAM;
use rotogate_core::session::profile::{MAX_SESSIONS_PER_SUBJECT, OnReuse, Profile, ProfileOverride};
use rotogate_kit::config::Section;

section! {
    /// `[sessions]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct SessionsConfig, read by read_keys(section) {
        /// The session rules, unless an endpoint or a client overrides them.
        reload profile as "..": Profile = by { read_profile(section).over(&Profile::default()) },
        /// true: the gate stores the user agent and the address of the login with the session. Write `false` if data
        /// protection forbids that.
        reload keep_login_client: bool = get_or(value::boolean, true),
        /// Maximum duration of a WebSocket or of another long response.
        fixed max_stream: Duration = get_or(value::duration_within(SECOND, 30 * DAY), DEFAULT_MAX_STREAM),
    }
}

section! {
    impl ProfileOverride, read by read_profile(section) {
        /// Lifetime of an access token. Shorten it if other servers check the tokens, because they do not see
        /// revocations.
        reload access_ttl: Option<Duration> = get(value::duration),
        /// Maximum access token lifetime that a client may request, for example by Kuzzle's `expiresIn`. Raise it for
        /// clients that request a longer lifetime.
        reload max_access_ttl: Option<Duration> = get(value::duration),
        /// Lifetime of a session, counted from the login. After that the user must log in again. Shorten it if a policy
        /// demands more frequent logins.
        reload session_ttl: Option<Duration> = get(value::duration),
        /// Maximum time between two refreshes, after which the session ends. Raise it for applications that users open
        /// rarely.
        reload idle_ttl: Option<Duration> = get(value::duration),
        /// How long after a refresh other requests with the same refresh token (retries, other tabs) get the same new
        /// tokens; 60s at most. Raise it if clients on slow networks retry later.
        reload grace: Option<Duration> = get(value::duration),
        /// How long the old refresh token remains valid if the new tokens have not been used, for example because the
        /// response was lost. Set `"0s"` if only other servers check the access tokens, because the gate then does not
        /// see that the tokens are used.
        reload lost_response_window: Option<Duration> = get(value::duration),
        /// What the gate does when a superseded refresh token is used, which is a sign of theft: `"revoke-session"`,
        /// `"revoke-subject"` (end all sessions of the user) or `"deny"` (only refuse the request).
        reload on_reuse: Option<OnReuse> = get(value::word_of),
        no_key other_client_ends_session: Option<bool> = by {
            section.for_tests().get("on_other_client", value::word(&OTHER_CLIENTS, &[]))
        },
        /// Maximum number of active sessions of one subject, with all clients together; 10000 at most. Raise it for a
        /// subject that many devices share.
        reload max_sessions_per_subject: Option<u32> = get(value::count(1, MAX_SESSIONS_PER_SUBJECT as usize)),
        no_key ends_oldest: Option<bool> = by { section.for_tests().get("on_too_many", value::word(&TOO_MANY, &[])) },
        /// Delay after which a refresh revokes the session's earlier access tokens. Unset: they stay valid until they
        /// expire. Set it if a stolen access token must not outlive the next refresh.
        reload revoke_previous_after: Option<Duration> = get(value::duration),
    }
    with {
        /// What the gate does when another client presents the refresh token: it refuses the request.
        fixed on_other_client: text = "deny",
        /// What the gate does at a login beyond `max_sessions_per_subject`: it ends the subject's oldest session.
        fixed on_too_many: text = "end-oldest",
    }
}

impl Print for Profile {
    #[cfg(test)]
    const KEYS: &'static [crate::declare::Key] = <ProfileOverride as Print>::KEYS;

    fn print(&self) -> Value {
        let all = ProfileOverride {
            access_ttl: Some(self.access_ttl),
            max_access_ttl: Some(self.max_access_ttl),
            session_ttl: Some(self.session_ttl),
            idle_ttl: Some(self.idle_ttl),
            grace: Some(self.grace),
            lost_response_window: Some(self.lost_response_window),
            on_reuse: Some(self.on_reuse),
            other_client_ends_session: Some(self.other_client_ends_session),
            max_sessions_per_subject: Some(self.max_sessions_per_subject),
            ends_oldest: Some(self.ends_oldest),
            revoke_previous_after: self.revoke_previous_after,
        };
        all.print()
    }
}

impl Words for OnReuse {
    const WORDS: &'static [(&'static str, Self)] = &[
        (Self::RevokeSession.word(), Self::RevokeSession),
        (Self::RevokeSubject.word(), Self::RevokeSubject),
        (Self::Deny.word(), Self::Deny),
    ];
}

const OTHER_CLIENTS: [(&str, bool); 2] = [("deny", false), ("revoke-session", true)];
const TOO_MANY: [(&str, bool); 2] = [("end-oldest", true), ("refuse", false)];

pub(super) fn read(section: &Section<'_>) -> SessionsConfig {
    section.later(&["on_expiry"]);
    let sessions = read_keys(section);
    // Invalid values were already reported.
    if !section.is_bad() {
        check_profile(section, &sessions.profile, "");
    }
    section.finish();
    sessions
}

/// Reads the `profile` table of a client or an endpoint.
pub(super) fn read_override(section: &Section<'_>) -> ProfileOverride {
    section.inner("profile", |own| {
        own.later(&["max_stream", "on_expiry"]);
        read_profile(own)
    })
}

/// Reports each bound that the rules violate. Returns true if there is no violation.
fn check_profile(section: &Section<'_>, rules: &Profile, place: &str) -> bool {
    let problems = rules.problems();
    for problem in &problems {
        let key = problem.key().unwrap_or_default();
        let found = match key {
            "access_ttl" => rules.access_ttl,
            "grace" => rules.grace,
            "lost_response_window" => rules.lost_response_window,
            _ => rules.idle_ttl,
        };
        let found = rotogate_core::clock::written(found);
        section.blame(key, format!("is {found}{place}, and {}", problem.problem()));
    }
    problems.is_empty()
}

pub(super) fn check_profiles(config: &Config, clients: &[Section<'_>], endpoints: &[Section<'_>]) {
    let base = &config.sessions.profile;
    let sound = |own: &ProfileOverride, section: &Section<'_>| {
        let section = section.section("profile");
        !section.is_bad() && check_profile(&section, &own.over(base), "")
    };
    let sound_endpoints: Vec<&EndpointConfig> =
        config.endpoints.iter().zip(endpoints).filter(|(e, s)| sound(&e.profile, s)).map(|(e, _)| e).collect();
    for (client, section) in config.clients.iter().zip(clients) {
        if client.profile == ProfileOverride::default() || !sound(&client.profile, section) {
            continue;
        }
        for endpoint in &sound_endpoints {
            let serves = endpoint.clients.as_ref().is_none_or(|ids| ids.iter().any(|id| **id == *client.id));
            if serves {
                let place = format!(" at the endpoint {}", endpoint.path);
                check_profile(&section.section("profile"), &config.profile(endpoint, client), &place);
            }
        }
    }
}
