//! `[dpop]`: the library's [`DpopSettings`].

use std::time::Duration;

use super::super::declare::section;
use super::super::print::Words;
use super::super::value;
use super::SECOND;
use rotogate_core::dpop::{CountedIn, DpopSettings, NoncePolicy};
use rotogate_kit::config::Section;

/// The longest `max_age`. It is short, because a proof is for one request.
const MAX_AGE: Duration = Duration::from_secs(300);

section! {
    impl DpopSettings, read by read_keys(section, default: &DpopSettings) {
        /// The most proofs that the gate remembers, up to 64 bytes each; those of one key take at most a fiftieth.
        /// Beyond that: 503.
        restart max_proofs: u64 = get_or(value::count(1000, 100_000_000), default.max_proofs),
        /// `"required"`: a proof must have a nonce of the gate, at most 5m old.
        restart nonce: NoncePolicy = get_or(value::word_of, default.nonce),
        /// How old a proof may be, besides `leeway` of `[issuer]`; 1s to 5m.
        restart max_age: Duration = get_or(value::duration_within(SECOND, MAX_AGE), default.max_age),
        /// `"store"`: a proof is accepted once by all gates that share `[store]`, for a round trip. `"gate"`: once by
        /// each gate.
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
