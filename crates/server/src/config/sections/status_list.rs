//! `[status_list]`: the library's [`StatusListSettings`].

use std::time::Duration;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use rotogate_core::status_list::{ListSize, StatusListSettings};
use rotogate_kit::config::Section;

const MAX_EXPIRES: Duration = Duration::from_secs(24 * 3600);

section! {
    impl StatusListSettings, read by read_keys(section, default: &StatusListSettings) {
        /// Where they are served: `/status` stands for `/status/{number}`.
        restart path: String = get_or(value::text, default.path.clone()),
        /// Bits of a list, one for each session; `"2^14"` to `"2^24"`. A list takes an eighth of that in bytes.
        restart size: ListSize = get_or(value::word_of, default.size),
        /// How long a verifier may keep a list; 5s to 1h. A logout is seen by then, or within 2s more.
        restart ttl: Duration = get_or(
            value::duration_within(*StatusListSettings::TTL.start(), *StatusListSettings::TTL.end()),
            default.ttl
        ),
        /// After this time a list is not used any more; at least twice `ttl`, at most 24h.
        restart expires: Duration = get_or(
            value::duration_within(*StatusListSettings::TTL.start() * 2, MAX_EXPIRES),
            default.expires
        ),
    }
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

pub(super) fn read(root: &Section<'_>) -> Option<StatusListSettings> {
    root.table("status_list", |section| {
        let settings = read_keys(section, &StatusListSettings::default());
        if let Err(why) = settings.check()
            && !section.is_bad()
        {
            let key = why.split(' ').next().unwrap_or("path");
            section.blame(key, why.strip_prefix(key).unwrap_or(why).trim_start());
        }
        settings
    })
}
