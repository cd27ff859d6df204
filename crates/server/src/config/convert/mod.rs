//! From the tree to the ready [`Config`]: each section is read, its defaults are put in, and then the sections are
//! held against each other. A value that was refused counts as its default, so that reading goes on; what comes of it
//! is thrown away, because a problem was noted.

mod base;
mod listeners;
mod overload;
mod routing;
mod traffic;
mod upstreams;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::raw::{Section, Value};
use super::types::{Config, EndpointConfig};
use super::value;
use rotogate::session::profile::{
    MAX_SESSIONS_PER_SUBJECT, OnOtherClient, OnReuse, OnTooMany, Profile, ProfileOverride,
};

pub(super) fn config(root: &Section<'_>, dir: &Path) -> Config {
    let at = |key| root.section(key);

    let server_section = at("server");
    let server = base::server(&server_section, dir);
    let admin = base::admin(&at("admin"), dir, &server);
    let issuer = base::issuer(&at("issuer"), dir, &server);
    let issuer_sections = root.sections("issuers");
    let issuers = base::issuers(&issuer_sections, dir, &issuer);

    let sessions_section = at("sessions");
    let sessions = base::sessions(&sessions_section);
    let sessions_are_sound = sessions.profile.problems().is_empty() && !sessions_section.is_bad();

    let store = base::store(&at("store"), dir);
    let directory = base::directory(&at("directory"), dir);
    let limits = base::limits(&at("limits"));
    let cors = base::cors(&at("cors"));
    let log = base::log(&at("log"), dir);
    let access_log = base::access_log(&at("access_log"), dir, &log);

    let client_sections = root.sections("clients");
    let clients = traffic::clients(&client_sections, dir);
    let endpoint_sections = root.sections("endpoints");
    let endpoints = traffic::endpoints(&endpoint_sections, &clients, server.public_url.scheme_str() == Some("https"));
    let identity = traffic::identity(&at("identity"), !issuers.is_empty());
    let upstreams = upstreams::upstreams(&root.sections("upstreams"), dir, &server, &admin);
    let route_sections = root.sections("routes");
    let routes = traffic::routes(&route_sections, &upstreams, &issuers);
    traffic::let_in(&issuer_sections, &issuers, &routes);
    root.finish();

    let config = Config {
        server,
        admin,
        issuer,
        issuers,
        sessions,
        store,
        directory,
        limits,
        cors,
        clients,
        endpoints,
        identity,
        upstreams,
        routes,
        log,
        warnings: Vec::new(),
        access_log,
        source: std::sync::Arc::default(),
    };
    routing::check(&config, &route_sections);
    if sessions_are_sound {
        check_profiles(&config, &client_sections, &endpoint_sections);
    }
    config
}

/// The keys of a profile, wherever one stands.
fn profile(section: &Section<'_>) -> ProfileOverride {
    let reuse = [
        ("revoke-session", OnReuse::RevokeSession),
        ("revoke-subject", OnReuse::RevokeSubject),
        ("deny", OnReuse::Deny),
    ];
    let other = [("deny", OnOtherClient::Deny), ("revoke-session", OnOtherClient::RevokeSession)];
    let too_many = [("end-oldest", OnTooMany::EndOldest), ("refuse", OnTooMany::Refuse)];
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
            .get("max_sessions_per_subject", value::count(1, MAX_SESSIONS_PER_SUBJECT as usize))
            .and_then(|most| u32::try_from(most).ok()),
        on_too_many: section.get("on_too_many", value::word(&too_many, &[])),
        revoke_previous_after: section.get("revoke_previous_after", value::duration),
    }
}

/// Blames each bound that the rules break. True when there is none.
fn check_profile(section: &Section<'_>, rules: &Profile, place: &str) -> bool {
    let problems = rules.problems();
    for problem in &problems {
        let found = match problem.key {
            "access_ttl" => rules.access_ttl,
            "grace" => rules.grace,
            "lost_response_window" => rules.lost_response_window,
            _ => rules.idle_ttl,
        };
        let found = humantime::format_duration(found);
        section.blame(problem.key, format!("is {found}{place}, and {}", problem.expected));
    }
    problems.is_empty()
}

/// The rules of each endpoint, of each client, and of each client at each endpoint must hold together.
fn check_profiles(config: &Config, clients: &[Section<'_>], endpoints: &[Section<'_>]) {
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
            let serves = endpoint.clients.as_ref().is_none_or(|ids| ids.contains(&client.id));
            if serves {
                let place = format!(" at the endpoint {}", endpoint.path);
                check_profile(&section.section("profile"), &config.profile(endpoint, client), &place);
            }
        }
    }
}

/// A path, relative to the file's directory.
fn path_in(dir: &Path) -> impl Fn(&Value) -> Result<PathBuf, String> {
    move |v| value::text(v).map(|path| dir.join(path))
}

/// Would both listen at one place?
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() != 0 && a.port() == b.port() && (x == y || x.is_unspecified() || y.is_unspecified())
}
