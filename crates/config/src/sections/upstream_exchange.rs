//! `exchange` of `[[upstreams]]`: token exchange at a provider.

use std::time::Duration;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::clients::scopes;
use super::providers::ProviderSettings;
use super::{HOUR, SECOND, check_known};
use crate::Config;
use rotogate_core::exchange::ExchangeForm;
use rotogate_core::route::{Auth, Route};
use rotogate_core::session::Scope;
use rotogate_core::token::verify::OWN;
use rotogate_kit::config::Section;
use rotogate_proxy::{ExchangeSettings, Upstream};

section! {
    impl ExchangeSettings, read by read_keys(section) {
        /// Required: Name of the entry of `[[providers]]` that exchanges the tokens.
        reload provider: String = required("the name of a `[[providers]]` entry", value::text),
        /// Kind of token request: `"rfc8693"`: token exchange; `"entra"`: the on-behalf-of flow of Microsoft Entra;
        /// `"id-jag"`: an identity assertion, which `authorization_server` accepts as a grant.
        reload form: ExchangeForm = get_or(value::word_of, ExchangeForm::default()),
        /// Audience to request; not allowed with `"entra"`. Required with `"id-jag"`, where it is the issuer URL of the
        /// `authorization_server`.
        reload audience: Option<String> = get(value::text),
        /// Resource to request; not allowed with `"entra"`.
        reload resource: Option<String> = get(value::text),
        /// Scopes to request. Required with `"entra"`, where they are delegated scopes.
        reload scope: Scope = by { scopes(section, "scope").unwrap_or_default() },
        /// Name of the entry of `[[providers]]` that is the upstream's authorization server; only allowed with
        /// `"id-jag"`.
        reload authorization_server: Option<String> = get(value::text),
        /// Maximum time for which the gate caches an exchanged token; 1s to 1h.
        reload max_age: Duration = get_or(value::duration_within(SECOND, HOUR), Duration::from_secs(300)),
    }
}

impl Words for ExchangeForm {
    const WORDS: &'static [(&'static str, Self)] =
        &[("rfc8693", Self::Rfc8693), ("entra", Self::Entra), ("id-jag", Self::IdJag)];
}

pub(super) fn read(section: &Section<'_>) -> ExchangeSettings {
    let exchange = read_keys(section);
    if exchange.form == ExchangeForm::Entra {
        if exchange.scope.is_empty() && !section.is_bad() {
            section.blame(
                "scope",
                "is missing: `form = \"entra\"` needs the delegated scopes of the API behind the upstream",
            );
        }
        let message = "is not a parameter of Entra's on-behalf-of flow, in which `scope` names the API; remove it";
        section.blame_present(&["audience", "resource"], message);
    }
    let is_jag = exchange.form == ExchangeForm::IdJag;
    for key in ["audience", "authorization_server"] {
        if is_jag && !section.has(key) && !section.is_bad() {
            section.blame(key, "is missing: `form = \"id-jag\"` needs the authorization server of the upstream");
        }
    }
    if !is_jag {
        section.blame_present(&["authorization_server"], "only applies with `form = \"id-jag\"`");
    }
    exchange
}

/// Checks that the provider issued the caller's token.
// Requirement D11.
pub(super) fn check(sections: &[Section<'_>], config: &Config) {
    let known: Vec<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
    for (index, (section, upstream)) in sections.iter().zip(&config.upstreams).enumerate() {
        let Some(exchange) = upstream.exchange.as_ref().filter(|_| !section.is_bad()) else { continue };
        let Some(provider) = config.providers.iter().find(|provider| provider.name == exchange.provider) else {
            section.blame("exchange.provider", super::dangling("provider", &exchange.provider, &known));
            continue;
        };
        if provider.issuer.is_empty() {
            section.blame(
                "exchange.provider",
                "names an entry of `[[providers]]` that has no `issuer`, but the exchange needs to know whose tokens \
                 it may send",
            );
            continue;
        }
        if let Some(server) = &exchange.authorization_server {
            check_known(section, "exchange.authorization_server", "provider", server, known.iter().copied());
        }
        if upstream.authorization_file.is_some() {
            section.blame("exchange", "conflicts with `authorization_file`; remove one of the two");
        }
        let is_its = |route: &&Route| route.upstream.is_some_and(|upstream| upstream.position() == index);
        for route in config.routes.iter().filter(is_its) {
            let why = match exchange.form {
                ExchangeForm::IdJag => problem_of_sessions(route, provider, config, upstream),
                _ => problem(route, &provider.issuer, config, upstream),
            };
            if let Some(why) = why {
                section.blame("exchange", why);
            }
        }
    }
}

/// The provider exchanges only ID tokens that it issued to the gate's client.
fn problem_of_sessions(
    route: &Route,
    provider: &ProviderSettings,
    config: &Config,
    upstream: &Upstream,
) -> Option<String> {
    let (policy, name, issuer) = (&route.policy, &upstream.name, &provider.issuer);
    let browsers = || config.endpoints.iter().filter_map(|endpoint| endpoint.browser.as_ref());
    let at_it = browsers().find(|browser| browser.provider.as_deref() == Some(issuer));
    let Some(client) = at_it.and_then(|browser| browser.client.as_ref()) else {
        return Some(format!(
            "with `form = \"id-jag\"` exchanges the ID tokens of sessions, but no endpoint with `dialect = \
             \"browser\"` logs in users at {issuer}"
        ));
    };
    if client.id != provider.client.id {
        return Some(format!(
            "with `form = \"id-jag\"` needs the client that logs in browser users, {}, but {} in `[[providers]]` has \
             another client",
            client.id, provider.name
        ));
    }
    let sessions_alone = policy.credentials.session && !policy.credentials.token && !policy.credentials.key;
    (policy.auth != Auth::Required || policy.forward_token || !sessions_alone).then(|| {
        format!(
            "with `form = \"id-jag\"` works only for sessions, but the route {} to {name} accepts other callers or \
             forwards their token; write `credentials = [\"session\"]` there, without `auth` and `forward_token`",
            route.id
        )
    })
}

fn problem(route: &Route, issuer: &str, config: &Config, upstream: &Upstream) -> Option<String> {
    let policy = &route.policy;
    let name = &upstream.name;
    let mut others = config.issuers.iter().filter(|it| it.name != issuer).map(|it| (it.name.as_str(), it.everywhere));
    let other = others.find(|(name, everywhere)| policy.takes(name, *everywhere)).map(|(name, _)| name);
    let other = other.or_else(|| policy.takes(OWN, true).then_some(OWN));
    if policy.auth != Auth::Required {
        return Some(format!(
            "needs an authenticated caller, but the route {} to {name} does not require one; write `auth = \
             \"required\"` there",
            route.id
        ));
    }
    if policy.forward_token {
        return Some(format!(
            "replaces the caller's token, but the route {} to {name} forwards that token; remove `forward_token` there",
            route.id
        ));
    }
    if policy.credentials.session {
        return Some(format!(
            "works only for tokens, but the route {} to {name} accepts sessions; write `credentials = [\"token\"]` \
             there",
            route.id
        ));
    }
    other.map(|other| {
        format!(
            "works only for tokens of {issuer}, but the route {} to {name} accepts those of {other}; write `issuers \
             = [\"{issuer}\"]` there",
            route.id
        )
    })
}
