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
        /// Prefix of each API key, as in `acme_k1_…`; 2 to 12 characters from a-z and 0-9. Set it to your own name, so
        /// that your secret scanners find leaked API keys.
        restart prefix: KeyPrefix = get_or(key_prefix, KeyPrefix::default()),
        /// Header in which clients may send an API key, besides `Authorization: Bearer`. Set it if clients can send it
        /// only in another header, or if the upstream uses `X-Api-Key` itself. `""`: only `Authorization`.
        restart header: Option<HeaderName> = get_or(value::identity_header, Some(HeaderName::from_static("x-api-key"))),
        /// Maximum lifetime of an API key; up to 365d. If the request that creates the API key does not state a
        /// lifetime, it is valid for 90d. Shorten it if a policy demands new API keys more often.
        restart max_lifetime: Duration = get_or(
            value::duration_within(DAY, ApiKeySettings::LONGEST_LIFETIME), ApiKeySettings::LONGEST_LIFETIME
        ),
        /// How long the old API key remains valid after a rotation. The rotation request may shorten this time.
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

/// API keys have neither a proof of possession nor a login time.
pub(super) fn check(config: &Config, routes: &[Section<'_>], endpoints: &[Section<'_>]) {
    let of_keys = config.endpoints.iter().zip(endpoints).filter(|(endpoint, _)| endpoint.dialect == MY_KEYS);
    for (_, section) in of_keys.filter(|_| config.api_keys.is_none()) {
        section.blame("dialect", "needs API keys; add a section `[api_keys]`");
    }
    for (route, section) in config.routes.iter().zip(routes).filter(|(route, _)| route.policy.credentials.key) {
        let policy = &route.policy;
        let needs = [
            (policy.dpop_required, "dpop = \"required\""),
            (policy.certificate_required, "certificate_bound = \"required\""),
            (policy.step_up.is_some(), "step_up"),
        ];
        for (_, what) in needs.iter().filter(|(is_needed, _)| *is_needed) {
            section.blame(
                "credentials",
                format!("accepts API keys, but an API key cannot satisfy `{what}`; remove one of the two"),
            );
        }
    }
}
