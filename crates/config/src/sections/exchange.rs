//! `exchange` of `[[clients]]`: which tokens a client may exchange. The rules of a client have the type
//! [`ExchangeRules`].

use super::super::declare::section;
use super::super::value;
use super::clients::scopes;
use crate::Config;
use rotogate_core::client::{Client, ExchangeRules, Grant};
use rotogate_core::session::Scope;
use rotogate_core::token::verify::OWN;
use rotogate_kit::config::Section;

section! {
    impl ExchangeRules, read by read_keys(section) {
        /// Audiences that identify the client. The client may exchange tokens that were issued for one of these
        /// audiences, and tokens of its own users.
        reload audiences as "as": Vec<Box<str>> = by { texts(section, "as") },
        /// Required: Audiences for which the client may get tokens. If there are several, a request must name one.
        reload to: Vec<Box<str>> = by { texts(section, "to") },
        /// Issuers whose tokens the client may exchange; `"self"` is the gate. Other issuers need a `subject_prefix`.
        reload issuers: Vec<Box<str>> = by { issuers(section) },
        /// Scopes that the new tokens may have. Unset: the scopes of the exchanged token.
        reload scopes: Option<Scope> = by { self::scopes(section, "scopes") },
        /// Maximum length of the chain of acting clients (`act`), including this client; 1 to 8.
        reload depth: usize = get_or(value::count(1, ExchangeRules::MAX_DEPTH), ExchangeRules::default().depth),
    }
}

fn texts(section: &Section<'_>, key: &'static str) -> Vec<Box<str>> {
    section.list_or_empty(key, value::text).into_iter().map(Into::into).collect()
}

fn issuers(section: &Section<'_>) -> Vec<Box<str>> {
    if section.has("issuers") { texts(section, "issuers") } else { ExchangeRules::default().issuers }
}

pub(super) fn read(section: &Section<'_>) -> ExchangeRules {
    let rules = read_keys(section);
    if rules.to.is_empty() && !section.is_bad() {
        section.blame("to", "does not name an audience; expected a list such as [\"billing\"]");
    }
    rules
}

pub(super) fn check_client(section: &Section<'_>, client: &Client, is_public: bool) {
    match (client.may(Grant::TokenExchange), &client.exchange) {
        (true, None) if !section.has("exchange") => {
            section.blame("grants", "contains `token-exchange`, which needs `exchange = { as = […], to = […] }`");
        }
        (false, Some(_)) => section.blame("exchange", "has no effect without \"token-exchange\" in `grants`"),
        (true, Some(_)) if is_public => {
            let message = "contains `token-exchange`, which is only for confidential clients (RFC 8693 §5); give the \
                           client a `secret_hash` or `secret_hash_file`";
            section.blame("grants", message);
        }
        _ => {}
    }
}

pub(super) fn check(sections: &[Section<'_>], config: &Config) {
    let names: Vec<&str> = std::iter::once(OWN).chain(config.issuers.iter().map(|issuer| &*issuer.name)).collect();
    let asserted = |to: &str| {
        let of_upstream = config.upstreams.iter().map(|one| one.assertion_audience.as_ref().unwrap_or(&one.name));
        let mut all = of_upstream.chain(config.authorizers.iter().filter_map(|one| one.assertion_audience.as_ref()));
        config.identity.assertion.is_some() && all.any(|audience| audience == to)
    };
    for (section, client) in sections.iter().zip(&config.clients) {
        let Some(rules) = client.exchange.as_ref().filter(|_| !section.is_bad()) else { continue };
        for name in &rules.issuers {
            let issuer = config.issuers.iter().find(|issuer| *issuer.name == **name);
            if !names.contains(&&**name) {
                section.blame("exchange.issuers", super::dangling("issuer", name, &names));
            } else if issuer.is_some_and(|issuer| issuer.subject_prefix.is_empty()) {
                let message = format!(
                    "the issuer {name} has no `subject_prefix`, so one of its users could have the same subject as a \
                     user of the gate; set `subject_prefix`"
                );
                section.blame("exchange.issuers", message);
            }
        }
        if let Some(to) = rules.to.iter().find(|to| asserted(to)) {
            let message = format!(
                "\"{to}\" is an audience of assertions, so access tokens must not have it; rename one of the two"
            );
            section.blame("exchange.to", message);
        }
    }
}
