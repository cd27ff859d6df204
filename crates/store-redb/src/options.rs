//! The options of the embedded store.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

/// The default size of the cache in memory, 16 MiB. The operating system also caches the file in unused memory, so
/// a larger cache makes little difference (docs/scale.md).
pub const DEFAULT_CACHE_SIZE: usize = 16 << 20;
/// The default file size up to which a store is verified in full when it is opened, 256 MiB.
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
    /// The gate's own issuer. The sessions in the store belong to its subjects and clients.
    pub issuer: Arc<str>,
    /// The keyring in use. A store that belongs to another keyring is refused.
    pub keyring_id: Uuid,
    /// The tolerated difference between clocks. A revocation is kept for this time after the end of the last session or
    /// token that it can match.
    pub leeway: Duration,
    /// The file of the high-water mark. It belongs beside the signing keys, not beside the store. Without a mark, the
    /// gate cannot detect that an older store has replaced this one.
    pub high_water: Option<PathBuf>,
    /// Whether the operator accepts that the store is missing, has been replaced by another one, or is older than
    /// its mark.
    pub accept_restored: bool,
    /// The size of the cache in memory, in bytes.
    pub cache_size: usize,
    /// The maximum file size, in bytes, up to which all checksums of the file are verified when it is opened.
    pub check_up_to: u64,
    /// The name of another store if this store is to become a copy of it. This store must be new, or an unfinished
    /// copy of the same store.
    #[doc(hidden)]
    pub copying: Option<String>,
}

impl Options {
    /// The defaults, without a high-water mark. Without the mark, the gate cannot detect that an older copy has
    /// replaced the store, in which case sessions and revocations are missing. A warning in the log says so when
    /// the store is opened. See [`Self::high_water`].
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

    /// Sets the path of the high-water mark, with which the gate detects that a store was lost or restored from a
    /// back-up. The file belongs beside the signing keys, not beside the store. If the mark is restored together with
    /// the store, the gate cannot detect the older store.
    #[must_use]
    pub fn high_water(mut self, path: impl Into<PathBuf>) -> Self {
        self.high_water = Some(path.into());
        self
    }
}
