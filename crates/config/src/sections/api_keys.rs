//! `[api_keys]`: the library's [`ApiKeySettings`].

use std::time::Duration;

use http::HeaderName;
use toml::Value;

use super::super::declare::section;
use super::super::print::Print;
use super::super::value;
use super::{Config, DAY};
use rotogate::program::MY_KEYS;
use rotogate_core::api_key::{ApiKeySettings, KeyPrefix};
use rotogate_kit::config::{Section, Value as Raw};

/// The longest `overlap`.
const MAX_OVERLAP: Duration = DAY.saturating_mul(90);

section! {
    impl ApiKeySettings, read by pub(super) read_keys(section) {
        /// First characters of each key, as in `acme_k1_…`; 2 to 12 of a-z and 0-9. Set it to your own name, so that
        /// your secret scanners find leaked keys.
        restart prefix: KeyPrefix = get_or(key_prefix, KeyPrefix::default()),
        /// Header of a key, besides `Authorization: Bearer`. Set it if clients have another header built in, or if
        /// `X-Api-Key` is a header of the upstream. `""`: none.
        restart header: Option<HeaderName> = get_or(value::identity_header, Some(HeaderName::from_static("x-api-key"))),
        /// Longest lifetime of a key; up to 365d. If a request does not state a lifetime, the key is valid for 90d.
        /// Shorten it if a policy demands new keys more often.
        restart max_lifetime: Duration = get_or(
            value::duration_within(DAY, ApiKeySettings::LONGEST_LIFETIME), ApiKeySettings::LONGEST_LIFETIME
        ),
        /// How long a rotated key remains valid. A request for a rotation may shorten this time.
        fixed overlap: Duration = get_or(value::duration_within(Duration::ZERO, MAX_OVERLAP), DAY.saturating_mul(7)),
    }
}

impl Print for KeyPrefix {
    fn print(&self) -> Value {
        self.name().into()
    }
}

fn key_prefix(v: &Raw) -> Result<KeyPrefix, String> {
    let text = value::text(v)?;
    KeyPrefix::new(&text).map_or_else(|| value::unexpected("2 to 12 characters of a-z and 0-9", v), Ok)
}

/// Checks that API keys are used consistently. A route that accepts API keys cannot require a proof of possession or a
/// recent login, because keys have neither. An endpoint for keys needs the section `[api_keys]`.
pub(super) fn check(config: &Config, routes: &[Section<'_>], endpoints: &[Section<'_>]) {
    let of_keys = config.endpoints.iter().zip(endpoints).filter(|(endpoint, _)| endpoint.dialect == MY_KEYS);
    for (_, section) in of_keys.filter(|_| config.api_keys.is_none()) {
        section.blame("dialect", "needs API keys; write a section [api_keys]");
    }
    for (route, section) in config.routes.iter().zip(routes).filter(|(route, _)| route.policy.credentials.key) {
        let policy = &route.policy;
        let needs = [
            (policy.dpop_required, "dpop = \"required\""),
            (policy.certificate_required, "certificate_bound = \"required\""),
            (policy.step_up.is_some(), "step_up"),
        ];
        for (_, what) in needs.iter().filter(|(is_needed, _)| *is_needed) {
            section.blame("credentials", format!("names keys, but no key can satisfy {what}; remove one of the two"));
        }
    }
}
