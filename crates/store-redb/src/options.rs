//! The options of the embedded store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

/// The default cache size, 16 MiB. The operating system also caches the file (docs/scale.md).
pub const DEFAULT_CACHE_SIZE: usize = 16 << 20;
/// The default of [`Options::check_up_to`], 256 MiB.
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
    /// The gate's own issuer.
    pub issuer: Arc<str>,
    /// The keyring in use. Opening a store that uses another keyring fails.
    pub keyring_id: Uuid,
    /// The tolerated difference between clocks. The store keeps revocations for this additional time.
    pub leeway: Duration,
    /// The file of the high-water mark, which belongs beside the signing keys, not beside the store. Without the mark,
    /// the gate cannot detect an older copy of the store.
    pub high_water: Option<PathBuf>,
    /// Whether the operator accepts a store that is missing, replaced, or older than its mark.
    pub accept_restored: bool,
    /// The size of the cache in memory, in bytes.
    pub cache_size: usize,
    /// The maximum file size, in bytes, up to which opening verifies all checksums.
    pub check_up_to: u64,
    /// The name of the store to copy. This store must be new, or an unfinished copy of the same store.
    #[doc(hidden)]
    pub copying: Option<String>,
}

impl Options {
    /// The defaults, without a high-water mark. See [`Self::high_water`].
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

    /// Sets the path of the high-water mark, which detects a lost or restored store. Keep the file beside the signing
    /// keys. If the mark is restored with the store, the gate cannot detect the older store.
    #[must_use]
    pub fn high_water(mut self, path: impl Into<PathBuf>) -> Self {
        self.high_water = Some(path.into());
        self
    }
}
