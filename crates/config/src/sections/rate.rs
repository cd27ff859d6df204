//! `rate` of a route: the rate limits for its callers.

use std::num::NonZeroU32;
use std::time::Duration;

use toml::Value;

use super::super::declare::section;
use super::super::print::{Print, Words};
use super::super::value;
use crate::Config;
use rotogate_core::route::{LimitOver, LimitPer, RateLimit, unusable_limit};
use rotogate_kit::config::{Section, Value as Raw};

/// A limit in the form `"100/1m"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quota {
    requests: NonZeroU32,
    window: Duration,
}

section! {
    /// The keys of a limit.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct RateKeys, read by read_keys(section) {
        /// Required: Property by which requests are counted. Requests with the same value share a count: `"subject"`,
        /// `"client"`, `"key"` (API keys), `"account"`, `"address"`, `"route"` (all requests), or a claim:
        /// `"claim:org_id"`. Callers without this property share one count.
        reload per: LimitPer = by { section.require("per", "the property by which requests are counted, such as \
                                                            \"subject\"", per).unwrap_or(LimitPer::Route) },
        /// Required: Number of requests in a time, such as `"100/1m"`: a burst of 100, and then 100 per minute, evenly
        /// spread. `"20/12s"` also allows 100 per minute, but only a burst of 20.
        reload limit: Quota = by { section.require("limit", "a limit such as \"100/1m\"", quota).unwrap_or_default() },
        /// `"gate"`: each gate counts its own requests; `"gates"`: all gates that share the store count together. Write
        /// `"gates"` if the limit must apply to all of them together.
        reload over: LimitOver = get_or(value::word_of, LimitOver::Gate),
        /// Name of the limit in responses, logs and metrics. Several routes share one limit if they use the same name.
        /// Two limits of a route with the same `per` need different names. Default: the `id` of the route and `per`.
        reload name: Option<String> = get(value::text),
    }
}

impl Default for Quota {
    fn default() -> Self {
        Self { requests: NonZeroU32::MIN, window: Duration::from_secs(1) }
    }
}

impl Words for LimitOver {
    const WORDS: &'static [(&'static str, Self)] =
        &[(Self::Gate.word(), Self::Gate), (Self::Gates.word(), Self::Gates)];
}

/// Which responses contain rate limit headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RateHeaders {
    /// Responses to requests that a limit refused.
    #[default]
    Refused,
    /// All responses on routes with limits.
    Always,
    /// No responses.
    Off,
}

impl RateHeaders {
    /// The argument for `GateBuilder::rate_headers`, or `None` if the default applies.
    pub const fn setting(self) -> Option<bool> {
        match self {
            Self::Refused => None,
            Self::Always => Some(true),
            Self::Off => Some(false),
        }
    }
}

impl Words for RateHeaders {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refused", Self::Refused), ("always", Self::Always), ("off", Self::Off)];
}

impl Print for Quota {
    fn print(&self) -> Value {
        format!("{}/{}", self.requests, humantime::format_duration(self.window).to_string().replace(' ', "")).into()
    }
}

impl Print for RateLimit {
    #[cfg(test)]
    const KEYS: &'static [super::super::declare::Key] = RateKeys::KEYS;

    fn print(&self) -> Value {
        // The burst always equals `requests`.
        let Self { name, per, requests, window, burst: _, over, place: _ } = self.clone();
        let limit = Quota { requests, window };
        RateKeys { per, limit, over, name: name.map(Into::into) }.print()
    }
}

fn per(v: &Raw) -> Result<LimitPer, String> {
    LimitPer::parse(&value::text(v)?).map_err(|why| format!("{why}, found {}", v.describe()))
}

fn quota(v: &Raw) -> Result<Quota, String> {
    value::rate(v)?;
    let text = value::text(v)?;
    let parsed = text.split_once('/').and_then(|(requests, window)| {
        Some(Quota { requests: requests.trim().parse().ok()?, window: humantime::parse_duration(window.trim()).ok()? })
    });
    parsed.ok_or_else(|| "expected a limit such as \"100/1m\"".to_owned())
}

pub(super) fn of_route(section: &Section<'_>) -> Vec<RateLimit> {
    let limits = section.sections("rate").into_iter().map(|section| {
        let RateKeys { per, limit: Quota { requests, window }, over, name } = read_keys(&section);
        section.finish();
        RateLimit { name: name.map(Into::into), per, requests, window, burst: None, over, place: 0 }
    });
    limits.collect()
}

// Requirement K23.
pub(super) fn check(sections: &[Section<'_>], config: &Config) {
    if sections.iter().any(Section::is_bad) {
        return;
    }
    if let Some((index, why)) = unusable_limit(&config.routes)
        && let Some(section) = sections.get(index)
    {
        section.blame("rate", why);
    }
}
