//! The spaces of rows in the store.

use rotogate_core::engine::api_keys::API_KEYS;
use rotogate_core::engine::used::USED_ASSERTIONS;
use rotogate_core::store::rows::Space;

#[cfg(feature = "browser-oidc")]
use super::browser::vault::VAULTS;
use crate::relay::record::{EXCHANGES, KEPT_REPLIES, TOKEN_USES};

/// The spaces of all parts. A gate sweeps each of them.
pub const SPACES: &[Space] = &[
    API_KEYS,
    USED_ASSERTIONS,
    EXCHANGES,
    KEPT_REPLIES,
    TOKEN_USES,
    #[cfg(feature = "browser-oidc")]
    VAULTS,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_space_has_its_own_id_and_name() {
        let ids: BTreeSet<_> = SPACES.iter().map(|space| space.id()).collect();
        let names: BTreeSet<_> = SPACES.iter().map(|space| space.name()).collect();
        assert_eq!((ids.len(), names.len()), (SPACES.len(), SPACES.len()));
    }
}
