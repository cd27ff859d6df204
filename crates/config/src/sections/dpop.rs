//! `[dpop]`: the library's [`DpopSettings`].

use std::time::Duration;

use super::super::declare::section;
use super::super::value;
use super::SECOND;
use rotogate_core::dpop::DpopSettings;

/// The longest `max_age`. It is short, because each proof is for only one request.
const MAX_AGE: Duration = Duration::from_secs(300);

section! {
    impl DpopSettings, read by pub(super) read_keys(section, default: &DpopSettings) {
        /// Most proofs that the gate remembers, with up to 64 bytes each. At most a fiftieth of them may be proofs of
        /// the same key. Beyond that: 503.
        fixed max_proofs: u64 = get_or(value::count(1000, 100_000_000), DpopSettings::default().max_proofs),
        /// `"required"`: a proof must have a nonce of the gate, at most 5m old. Set it if proofs that a thief made in
        /// advance must be useless.
        restart needs_nonce as ("nonce" NONCES): bool = get_or(value::word(&NONCES, &[]), default.needs_nonce),
        /// Greatest age of a proof, in addition to `leeway` of `[issuer]`.
        fixed max_age: Duration = get_or(value::duration_within(SECOND, MAX_AGE), DpopSettings::default().max_age),
        /// All gates that share a `[store]` together accept a proof only once. This costs a round trip to the store.
        fixed counted_in_store as "replay": bool = always(DpopSettings::default().counted_in_store),
    }
}

/// The values of `nonce`.
const NONCES: [(&str, bool); 2] = [("off", false), ("required", true)];
