//! `[sessions]`, and the profile keys, which clients and endpoints may override.

use std::time::Duration;

use toml::{Table, Value};

use super::super::print::{number, put, put_some, time};
use super::super::raw::Section;
use super::super::value;
use super::{Config, DAY, EndpointConfig, SECOND};
use rotogate::gate::DEFAULT_MAX_STREAM;
use rotogate_core::session::profile::{
    MAX_SESSIONS_PER_SUBJECT, OnOtherClient, OnReuse, OnTooMany, Profile, ProfileOverride,
};

/// `[sessions]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionsConfig {
    /// The rules, unless an endpoint or a client overrides them.
    pub profile: Profile,
    /// Whether a session keeps user agent and address of its login.
    pub keep_login_client: bool,
    /// The longest lifetime of a forwarded stream or upgraded connection.
    pub max_stream: Duration,
}

/// The defaults of the section, beside those of [`Profile`] and [`DEFAULT_MAX_STREAM`].
impl SessionsConfig {
    const KEEP_LOGIN_CLIENT: bool = true;
}

pub(super) fn read(section: &Section<'_>) -> SessionsConfig {
    section.later(&["on_expiry"]);
    let rules = read_profile(section).over(&Profile::default());
    let keep_login_client =
        section.get("keep_login_client", value::boolean).unwrap_or(SessionsConfig::KEEP_LOGIN_CLIENT);
    let stream = value::duration_within(SECOND, 30 * DAY);
    let max_stream = section.get("max_stream", stream).unwrap_or(DEFAULT_MAX_STREAM);
    // A refused value was reported; its default need not be checked too.
    if !section.is_bad() {
        check_profile(section, &rules, "");
    }
    section.finish();
    SessionsConfig { profile: rules, keep_login_client, max_stream }
}

/// Reads the profile keys of a table.
fn read_profile(section: &Section<'_>) -> ProfileOverride {
    let reuse = [OnReuse::RevokeSession, OnReuse::RevokeSubject, OnReuse::Deny].map(|rule| (rule.word(), rule));
    let other = [OnOtherClient::Deny, OnOtherClient::RevokeSession].map(|rule| (rule.word(), rule));
    let too_many = [OnTooMany::EndOldest, OnTooMany::Refuse].map(|rule| (rule.word(), rule));
    ProfileOverride {
        access_ttl: section.get("access_ttl", value::duration),
        max_access_ttl: section.get("max_access_ttl", value::duration),
        session_ttl: section.get("session_ttl", value::duration),
        idle_ttl: section.get("idle_ttl", value::duration),
        grace: section.get("grace", value::duration),
        lost_response_window: section.get("lost_response_window", value::duration),
        on_reuse: section.get("on_reuse", value::word(&reuse, &[])),
        on_other_client: section.get("on_other_client", value::word(&other, &[])),
        max_sessions_per_subject: section
            .get("max_sessions_per_subject", value::count(1, MAX_SESSIONS_PER_SUBJECT as usize)),
        on_too_many: section.get("on_too_many", value::word(&too_many, &[])),
        revoke_previous_after: section.get("revoke_previous_after", value::duration),
    }
}

/// Reads the `profile` table of a client or an endpoint.
pub(super) fn read_override(section: &Section<'_>) -> ProfileOverride {
    let own = section.section("profile");
    own.later(&["max_stream", "on_expiry"]);
    let rules = read_profile(&own);
    own.finish();
    rules
}

/// Blames each bound that the rules break. Returns whether there is none.
fn check_profile(section: &Section<'_>, rules: &Profile, place: &str) -> bool {
    let problems = rules.problems();
    for problem in &problems {
        let found = match problem.key {
            "access_ttl" => rules.access_ttl,
            "grace" => rules.grace,
            "lost_response_window" => rules.lost_response_window,
            _ => rules.idle_ttl,
        };
        let found = rotogate_core::clock::written(found);
        section.blame(problem.key, format!("is {found}{place}, and {}", problem.expected));
    }
    problems.is_empty()
}

/// The rules of each endpoint, of each client, and of each client at each endpoint must be consistent.
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

pub(super) fn print(sessions: &SessionsConfig) -> Value {
    let SessionsConfig { profile, keep_login_client, max_stream } = sessions;
    let Profile {
        access_ttl,
        max_access_ttl,
        session_ttl,
        idle_ttl,
        grace,
        lost_response_window,
        on_reuse,
        on_other_client,
        max_sessions_per_subject,
        on_too_many,
        revoke_previous_after,
    } = profile;
    let mut table = print_profile(&ProfileOverride {
        access_ttl: Some(*access_ttl),
        max_access_ttl: Some(*max_access_ttl),
        session_ttl: Some(*session_ttl),
        idle_ttl: Some(*idle_ttl),
        grace: Some(*grace),
        lost_response_window: Some(*lost_response_window),
        on_reuse: Some(*on_reuse),
        on_other_client: Some(*on_other_client),
        max_sessions_per_subject: Some(*max_sessions_per_subject),
        on_too_many: Some(*on_too_many),
        revoke_previous_after: *revoke_previous_after,
    });
    put(&mut table, "keep_login_client", *keep_login_client);
    put(&mut table, "max_stream", time(*max_stream));
    table.into()
}

fn print_profile(rules: &ProfileOverride) -> Table {
    let ProfileOverride {
        access_ttl,
        max_access_ttl,
        session_ttl,
        idle_ttl,
        grace,
        lost_response_window,
        on_reuse,
        on_other_client,
        max_sessions_per_subject,
        on_too_many,
        revoke_previous_after,
    } = rules;
    let mut table = Table::new();
    for (key, duration) in [
        ("access_ttl", access_ttl),
        ("max_access_ttl", max_access_ttl),
        ("session_ttl", session_ttl),
        ("idle_ttl", idle_ttl),
        ("grace", grace),
        ("lost_response_window", lost_response_window),
        ("revoke_previous_after", revoke_previous_after),
    ] {
        put_some(&mut table, key, duration.map(time));
    }
    let reuse = on_reuse.map(OnReuse::word);
    let other = on_other_client.map(OnOtherClient::word);
    let too_many = on_too_many.map(OnTooMany::word);
    put_some(&mut table, "max_sessions_per_subject", max_sessions_per_subject.map(number));
    put_some(&mut table, "on_too_many", too_many);
    put_some(&mut table, "on_reuse", reuse);
    put_some(&mut table, "on_other_client", other);
    table
}

/// Puts the `profile` table of a client or an endpoint, unless it is empty.
pub(super) fn put_override(table: &mut Table, rules: &ProfileOverride) {
    let rules = print_profile(rules);
    if !rules.is_empty() {
        put(table, "profile", rules);
    }
}
