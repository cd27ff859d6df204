//! `[status_list]`: the library's [`StatusListSettings`].

use std::time::Duration;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::SECOND;
use rotogate_core::status_list::{ListSize, StatusListSettings};
use rotogate_core::token::remote_status::{MissingStatus, StatusRules};
use rotogate_kit::config::Section;

/// The default bounds of the time for which a list of another issuer is cached.
const TTL: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(900));
const MAX_EXPIRES: Duration = Duration::from_secs(24 * 3600);

section! {
    impl StatusListSettings, read by read_keys(section, default: &StatusListSettings) {
        /// Path of the lists: `/status` stands for `/status/{number}`.
        restart path: String = get_or(value::text, default.path.clone()),
        /// Bits of a list, one for each session; `"2^14"` to `"2^24"`. A list of 2^20 bits takes 128 KiB.
        restart size: ListSize = get_or(value::word_of, default.size),
        /// How long a verifier may keep a list; 5s to 1h. A verifier sees a logout after at most this time and 2s.
        restart ttl: Duration = get_or(
            value::duration_within(*StatusListSettings::TTL.start(), *StatusListSettings::TTL.end()),
            default.ttl
        ),
        /// Lifetime of a list; at least twice `ttl`, at most 24h.
        restart expires: Duration = get_or(
            value::duration_within(*StatusListSettings::TTL.start() * 2, MAX_EXPIRES),
            default.expires
        ),
    }
}

section! {
    impl StatusRules, read by read_rules_keys(section) {
        /// Required: Allowed prefixes of the lists' URLs (`["https://idp.example.com/status/"]`).
        reload prefixes: Vec<String> = list_or_empty(value::text),
        /// Shortest and longest time that the gate keeps a list.
        reload ttl: (Duration, Duration) = by {
            match *section.list_or_empty("ttl", value::duration_within(SECOND, MAX_EXPIRES)) {
                [shortest, longest] => (shortest, longest),
                [] => TTL,
                _ => {
                    section.blame("ttl", "must be two times, such as [\"10s\", \"15m\"]");
                    TTL
                }
            }
        },
        /// How long the gate uses the last good list while fetches fail, until its `exp` at most. Then 503.
        reload stale_for: Duration = get_or(value::duration_within(Duration::ZERO, MAX_EXPIRES), 300 * SECOND),
        /// Token without a status: `"accept"` or `"refuse"`.
        reload missing: MissingStatus = get_or(value::word_of, MissingStatus::default()),
    }
}

impl Words for MissingStatus {
    const WORDS: &'static [(&'static str, Self)] = &[("accept", Self::Accept), ("refuse", Self::Refuse)];
}

/// `status_list` of an entry of `[[issuers]]`.
pub(super) fn read_rules(section: &Section<'_>) -> StatusRules {
    let rules = read_rules_keys(section);
    if let Err(why) = rules.check()
        && !section.is_bad()
    {
        let (key, why) = why.split_once(' ').unwrap_or(("prefixes", why));
        section.blame(if key == "ttl" { "ttl" } else { "prefixes" }, why);
    }
    rules
}

impl Words for ListSize {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("2^14", Self(14)),
        ("2^15", Self(15)),
        ("2^16", Self(16)),
        ("2^17", Self(17)),
        ("2^18", Self(18)),
        ("2^19", Self(19)),
        ("2^20", Self(20)),
        ("2^21", Self(21)),
        ("2^22", Self(22)),
        ("2^23", Self(23)),
        ("2^24", Self(24)),
    ];
}

pub(super) fn read(section: &Section<'_>) -> StatusListSettings {
    let settings = read_keys(section, &StatusListSettings::default());
    if let Err(why) = settings.check()
        && !section.is_bad()
    {
        let (key, why) = why.split_once(' ').unwrap_or(("path", why));
        section.blame(if key == "expires" { "expires" } else { "path" }, why);
    }
    settings
}
