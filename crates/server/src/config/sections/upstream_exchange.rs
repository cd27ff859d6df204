//! `exchange` of `[[upstreams]]`: the tokens that the gate requests from a provider on behalf of a caller.

use std::time::Duration;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::clients::scopes;
use super::{HOUR, SECOND};
use crate::config::Config;
use rotogate_core::exchange::ExchangeForm;
use rotogate_core::route::{Auth, Route};
use rotogate_core::session::Scope;
use rotogate_core::token::verify::OWN;
use rotogate_kit::config::Section;
use rotogate_proxy::{ExchangeSettings, Upstream};

section! {
    impl ExchangeSettings, read by read_keys(section) {
        /// Required: The entry of `[[providers]]`.
        reload provider: String = required("the name of a [[providers]] entry", value::text),
        /// How the provider is asked: `"rfc8693"`, or `"entra"` for its on-behalf-of flow.
        reload form: ExchangeForm = get_or(value::word_of, ExchangeForm::default()),
        /// The audience that is asked for; not with `"entra"`.
        reload audience: Option<String> = get(value::text),
        /// The resource that is asked for; not with `"entra"`.
        reload resource: Option<String> = get(value::text),
        /// The scopes that are asked for: delegated ones with `"entra"`, which needs them.
        reload scope: Scope = by { scopes(section, "scope").unwrap_or_default() },
        /// The longest that an answer is kept; 1s to 1h.
        reload max_age: Duration = get_or(value::duration_within(SECOND, HOUR), Duration::from_secs(300)),
    }
}

impl Words for ExchangeForm {
    const WORDS: &'static [(&'static str, Self)] = &[("rfc8693", Self::Rfc8693), ("entra", Self::Entra)];
}

pub(super) fn read(section: &Section<'_>) -> ExchangeSettings {
    let exchange = read_keys(section);
    if exchange.form == ExchangeForm::Entra {
        if exchange.scope.is_empty() && !section.is_bad() {
            section
                .blame("scope", "is needed with form = \"entra\": the delegated scopes of the API behind the upstream");
        }
        for key in ["audience", "resource"] {
            if section.has(key) {
                section.blame(key, "is not a parameter of Entra's on-behalf-of flow: its scopes name the API");
            }
        }
    }
    exchange
}

/// Checks that the caller's token comes from the provider's issuer, so that it is sent to no other party.
// Requirement D11.
pub(super) fn check(sections: &[Section<'_>], config: &Config) {
    let known: Vec<&str> = config.providers.iter().map(|provider| provider.name.as_str()).collect();
    for (index, (section, upstream)) in sections.iter().zip(&config.upstreams).enumerate() {
        let Some(exchange) = upstream.exchange.as_ref().filter(|_| !section.is_bad()) else { continue };
        let Some(provider) = config.providers.iter().find(|provider| provider.name == exchange.provider) else {
            section.blame("exchange.provider", super::dangling("provider", &exchange.provider, &known));
            continue;
        };
        if cfg!(not(feature = "relay")) {
            section.blame("exchange", "is impossible: this build lacks the feature `relay`");
        }
        if upstream.authorization_file.is_some() {
            section.blame("exchange", "conflicts with authorization_file; expected one of the two");
        }
        let is_its = |route: &&Route| route.upstream.is_some_and(|upstream| upstream.position() == index);
        for route in config.routes.iter().filter(is_its) {
            if let Some(why) = problem(route, &provider.issuer, config, upstream) {
                section.blame("exchange", why);
            }
        }
    }
}

/// Why tokens of the callers of a route cannot be exchanged at a provider of this issuer.
fn problem(route: &Route, issuer: &str, config: &Config, upstream: &Upstream) -> Option<String> {
    let policy = &route.policy;
    let name = &upstream.name;
    let mut others = config.issuers.iter().filter(|it| it.name != issuer).map(|it| (it.name.as_str(), it.everywhere));
    let other = others.find(|(name, everywhere)| policy.takes(name, *everywhere)).map(|(name, _)| name);
    let other = other.or_else(|| policy.takes(OWN, true).then_some(OWN));
    if policy.auth != Auth::Required {
        return Some(format!(
            "needs a caller, and the route {} to {name} requires none: auth = \"required\"",
            route.id
        ));
    }
    if policy.forward_token {
        return Some(format!("takes the place of the caller's token, which the route {} to {name} forwards", route.id));
    }
    if policy.credentials.session {
        return Some(format!(
            "is for tokens, and the route {} to {name} takes sessions: credentials = [\"token\"]",
            route.id
        ));
    }
    other.map(|other| {
        format!(
            "is for tokens of {issuer}, and the route {} to {name} takes those of {other}: issuers = [\"{issuer}\"]",
            route.id
        )
    })
}
