//! `[dpop]`: the library's [`DpopSettings`].

use std::time::Duration;

use toml::{Table, Value};

use super::super::print::{number, put, time};
use super::super::raw::Section;
use super::super::value;
use super::SECOND;
use rotogate_core::client::{CertificateUse, DpopUse};
use rotogate_core::dpop::{CountedIn, DpopSettings, NoncePolicy};

const NONCES: [(&str, NoncePolicy); 2] = [("off", NoncePolicy::Off), ("required", NoncePolicy::Required)];
const REPLAYS: [(&str, CountedIn); 2] = [("store", CountedIn::Store), ("gate", CountedIn::Gate)];
/// The words of `dpop` in `[[clients]]`.
pub(super) const USES: [(&str, DpopUse); 3] =
    [("off", DpopUse::Off), ("optional", DpopUse::Optional), ("required", DpopUse::Required)];
/// The words of `certificate_bound` in `[[clients]]`.
pub(super) const CERTIFICATE_USES: [(&str, CertificateUse); 3] =
    [("off", CertificateUse::Off), ("optional", CertificateUse::Optional), ("required", CertificateUse::Required)];
/// The longest `max_age`: a proof is for one request.
const MAX_AGE: Duration = Duration::from_secs(300);

pub(super) fn read(root: &Section<'_>) -> Option<DpopSettings> {
    if !root.has("dpop") {
        return None;
    }
    let section = root.section("dpop");
    let default = DpopSettings::default();
    let max_proofs = section.get("max_proofs", value::count(1000, 100_000_000));
    let settings = DpopSettings {
        nonce: section.get("nonce", value::word(&NONCES, &[])).unwrap_or(default.nonce),
        max_age: section.get("max_age", value::duration_within(SECOND, MAX_AGE)).unwrap_or(default.max_age),
        max_proofs: max_proofs.unwrap_or(default.max_proofs),
        counted_in: section.get("replay", value::word(&REPLAYS, &[])).unwrap_or(default.counted_in),
    };
    section.finish();
    Some(settings)
}

pub(super) fn print(settings: &DpopSettings) -> Value {
    let DpopSettings { nonce, max_age, max_proofs, counted_in } = settings;
    let mut table = Table::new();
    put(&mut table, "nonce", word(&NONCES, nonce));
    put(&mut table, "max_age", time(*max_age));
    put(&mut table, "max_proofs", number(*max_proofs));
    put(&mut table, "replay", word(&REPLAYS, counted_in));
    table.into()
}

/// The word of a value.
pub(super) fn word<T: PartialEq>(words: &[(&'static str, T)], value: &T) -> &'static str {
    words.iter().find(|(_, known)| known == value).map_or("", |(word, _)| word)
}
