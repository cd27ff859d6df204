//! `[dpop]`: the library's [`DpopSettings`].

use std::time::Duration;

use super::super::declare::section;
use super::super::value;
use super::SECOND;
use rotogate_core::dpop::DpopSettings;

/// The longest `max_age`.
const MAX_AGE: Duration = Duration::from_secs(300);

section! {
    impl DpopSettings, read by pub(super) read_keys(section, default: &DpopSettings) {
        /// Maximum number of DPoP proofs that the gate remembers, in up to 64 bytes each. Further proofs get 503. At most a
        /// fiftieth of them may be signed with the same key. Further proofs of that key get 429.
        fixed max_proofs: u64 = get_or(value::count(1000, 100_000_000), DpopSettings::default().max_proofs),
        /// `"required"`: a DPoP proof must contain a nonce that the gate issued at most 5m ago. Set it if proofs that
        /// an attacker created in advance must be useless.
        restart needs_nonce as ("nonce" NONCES): bool = get_or(value::word(&NONCES, &[]), default.needs_nonce),
        /// Maximum age of a DPoP proof, in addition to `leeway` of `[issuer]`.
        fixed max_age: Duration = get_or(value::duration_within(SECOND, MAX_AGE), DpopSettings::default().max_age),
        /// All gates that share a `[store]` together accept each DPoP proof only once. This check needs a round trip to
        /// the store for each proof.
        fixed counted_in_store as "replay": bool = always(DpopSettings::default().counted_in_store),
    }
}

/// The values of `nonce`.
const NONCES: [(&str, bool); 2] = [("off", false), ("required", true)];
