//! `[dpop]`: the library's [`DpopSettings`].

use std::time::Duration;

use super::super::declare::section;
use super::super::print::Words;
use super::super::raw::Section;
use super::super::value;
use super::SECOND;
use rotogate_core::client::{CertificateUse, DpopUse};
use rotogate_core::dpop::{CountedIn, DpopSettings, NoncePolicy};

/// The words of `dpop` in `[[clients]]`.
pub(super) const USES: [(&str, DpopUse); 3] =
    [("off", DpopUse::Off), ("optional", DpopUse::Optional), ("required", DpopUse::Required)];
/// The words of `certificate_bound` in `[[clients]]`.
pub(super) const CERTIFICATE_USES: [(&str, CertificateUse); 3] =
    [("off", CertificateUse::Off), ("optional", CertificateUse::Optional), ("required", CertificateUse::Required)];
/// The longest `max_age`: a proof is for one request.
const MAX_AGE: Duration = Duration::from_secs(300);

section! {
    impl DpopSettings, read by read_keys(section, default: &DpopSettings) {
        restart nonce: NoncePolicy = get_or(value::word_of, default.nonce),
        restart max_age: Duration = get_or(value::duration_within(SECOND, MAX_AGE), default.max_age),
        restart max_proofs: u64 = get_or(value::count(1000, 100_000_000), default.max_proofs),
        restart counted_in as "replay": CountedIn = get_or(value::word_of, default.counted_in),
    }
}

impl Words for NoncePolicy {
    const WORDS: &'static [(&'static str, Self)] = &[("off", Self::Off), ("required", Self::Required)];
}

impl Words for CountedIn {
    const WORDS: &'static [(&'static str, Self)] = &[("store", Self::Store), ("gate", Self::Gate)];
}

pub(super) fn read(root: &Section<'_>) -> Option<DpopSettings> {
    root.table("dpop", |section| read_keys(section, &DpopSettings::default()))
}

/// The word of a value.
pub(super) fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}
