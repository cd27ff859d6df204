//! Checks the sources of the gate's subjects: `[directory]` and some issuers.

use super::{Config, TrustedIssuer};
use rotogate_core::token::JagSubject;
use rotogate_core::token::verify::{UserSource, bare_source, prefix_problem};
use rotogate_kit::config::{Section, printable};

/// Sets `logs_in_browsers` of each issuer.
pub(super) fn mark(config: &mut Config) {
    let providers = config.endpoints.iter().filter_map(|endpoint| endpoint.browser.as_ref()?.provider.as_deref());
    let providers: Vec<_> = providers.collect();
    for issuer in &mut config.issuers {
        issuer.logs_in_browsers = providers.contains(&issuer.name.as_str());
    }
}

fn how(config: &Config, issuer: &TrustedIssuer) -> Option<&'static str> {
    let rules = config.clients.iter().filter_map(|client| client.exchange.as_ref());
    let mut exchanged = rules.flat_map(|rules| &rules.issuers);
    if issuer.logs_in_browsers {
        Some("the browser login")
    } else if issuer.id_jag.as_ref().is_some_and(|jag| jag.subject == JagSubject::Issuer) {
        Some("`id_jag`")
    } else {
        exchanged.any(|name| **name == *issuer.name).then_some("the token exchange of a client")
    }
}

/// Checks that users from different sources cannot get the same subject.
// Requirements B39, I67.
pub(super) fn check(sections: &[Section<'_>], config: &Config) {
    for (section, issuer) in sections.iter().zip(&config.issuers).filter(|(section, _)| !section.is_bad()) {
        let others = config.issuers.iter().filter(|other| other.url != issuer.url);
        let problem = prefix_problem(&issuer.subject_prefix, others.map(|other| &*other.subject_prefix), false);
        problem.into_iter().for_each(|why| section.blame("subject_prefix", why.trim_start_matches("subject_prefix ")));
    }
    let of_issuers = sections.iter().zip(&config.issuers);
    let of_issuers = of_issuers.filter_map(|(section, issuer)| Some((section, issuer, how(config, issuer)?)));
    let of_issuers: Vec<_> = of_issuers.collect();
    let own = (!config.directories.is_empty()).then_some(UserSource::Own);
    let prefixes = of_issuers.iter().map(|(_, issuer, _)| UserSource::Issuer(&issuer.subject_prefix));
    let sources: Vec<_> = prefixes.chain(own).collect();
    let Some(&(section, issuer, how)) = bare_source(&sources).and_then(|place| of_issuers.get(place)) else { return };
    let other = of_issuers.iter().map(|(_, other, _)| *other).find(|other| other.url != issuer.url);
    let (whose, remedy) = match (own, other) {
        (Some(_), _) => {
            ("users of `[directory]`".to_owned(), ", or `kind = \"none\"` in `[directory]` if it has no users")
        }
        (None, other) => (format!("users of {}", other.map(|it| printable(&it.name)).unwrap_or_default()), ""),
    };
    if !section.is_bad() {
        let message = format!(
            "is missing: through {how}, the issuer's users become subjects of the gate, and {whose} could have the \
             same subject; write a prefix, such as \"{}|\"{remedy}",
            printable(&issuer.name)
        );
        section.blame("subject_prefix", message);
    }
}
