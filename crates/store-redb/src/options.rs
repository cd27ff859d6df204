//! The options of the embedded store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

/// The default size of the cache in memory: 16 MiB. The system also keeps the file in unused memory, so more makes
/// little difference (docs/scale.md).
pub const DEFAULT_CACHE_SIZE: usize = 16 << 20;
/// The default size up to which a file is verified in full when it is opened: 256 MiB.
pub const DEFAULT_CHECK_UP_TO: u64 = 256 << 20;
/// The options of a store.
///
/// ```
/// use rotogate::Gate;
/// use rotogate::store::RedbOptions;
/// # let keyring = rotogate::token::Keyring::ephemeral()?;
///
/// let options = RedbOptions::new("https://api.example.com", keyring.id(), Gate::DEFAULT_LEEWAY);
/// let options = RedbOptions { cache_size: 64 << 20, ..options }.high_water("data/keys/high-water");
/// assert!(!options.accept_restored, "an older copy of the store is refused");
/// # Ok::<(), rotogate::token::KeyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    /// Our own issuer. The sessions belong to its subjects and clients.
    pub issuer: Arc<str>,
    /// The keyring in use. A store of another one is refused.
    pub keyring_id: Uuid,
    /// The tolerance for differing clocks. A revocation is kept for this time after the last session or token that it
    /// can match has ended.
    pub leeway: Duration,
    /// The file of the high-water mark. It belongs beside the keys, not beside the store. Without a mark, the gate
    /// cannot detect that an older store has replaced this one.
    pub high_water: Option<PathBuf>,
    /// Whether the operator accepts that the store is missing, is another one, or is older than its mark.
    pub accept_restored: bool,
    /// The size of the cache in memory, in bytes.
    pub cache_size: usize,
    /// Up to this size, in bytes, all checksums of the file are verified when it is opened.
    pub check_up_to: u64,
    /// The store is to become a copy of the store with this name. It must be new, or an unfinished copy of the same
    /// store.
    #[doc(hidden)]
    pub copying: Option<String>,
}

impl Options {
    /// The defaults, without a high-water mark. Without it, the gate cannot detect that an older copy has replaced the
    /// store, and that sessions and revocations are missing. The log warns of this when the store is opened. See
    /// [`Self::high_water`].
    pub fn new(issuer: impl Into<Arc<str>>, keyring_id: Uuid, leeway: Duration) -> Self {
        Self {
            issuer: issuer.into(),
            keyring_id,
            leeway,
            high_water: None,
            accept_restored: false,
            cache_size: DEFAULT_CACHE_SIZE,
            check_up_to: DEFAULT_CHECK_UP_TO,
            copying: None,
        }
    }

    /// Detects a store that was lost or restored from a back-up, by a file at this path. This file belongs beside the
    /// keys, not beside the store, because a mark that is restored together with the store detects nothing.
    #[must_use]
    pub fn high_water(mut self, path: impl Into<PathBuf>) -> Self {
        self.high_water = Some(path.into());
        self
    }
}
