//! Assertions that all gates of a store together accept only once. Each used assertion has a row in the store. The row
//! expires when the assertion would be refused as expired.

use super::Engine;
use crate::denial::Denial;
use crate::fault::Error;
use crate::random::{are_equal, parts_digest};
use crate::store::StoreError;
use crate::store::rows::{Row, RowInserted, RowKey, RowStore, Space};
use crate::token::verify::UsableOnce;

/// The rows of used assertions. Each contains a tag that only a gate can make.
pub const USED_ASSERTIONS: Space = Space::copied(1, "used assertions", 4_000_000, 32);

impl Engine {
    /// Records that `client` used an assertion.
    ///
    /// # Errors
    /// `replayed` if the assertion was used before, or [`Denial::RateLimited`]. After a fault, the use may have been
    /// recorded.
    // Requirements D22, D26.
    pub async fn use_once(
        &self,
        store: &dyn RowStore,
        (used, client): (&UsableOnce, &str),
        replayed: Denial,
    ) -> Result<(), Error> {
        self.limits.assertion(client)?;
        let now = self.clock.now();
        let key = name(used);
        let tags = self.used_tags(key);
        let tag = tags.first().ok_or_else(|| StoreError::new("the record of a used assertion cannot be sealed"))?;
        let row = Row::new(used.until.max(now), tag.clone())?;
        match self.measured(store.insert_row(USED_ASSERTIONS, key, row, now)).await? {
            RowInserted::Inserted => Ok(()),
            RowInserted::Present(known) if tags.iter().any(|tag| are_equal(tag, &known.bytes)) => Err(replayed.into()),
            RowInserted::Present(_) => {
                tracing::error!(
                    "record of a used assertion: the seal is missing or invalid. If `rotogate keys list --refresh` \
                     does not list all refresh secrets of the other gates, copy their key folder. Otherwise find out \
                     which other program writes to the store"
                );
                Err(StoreError::new("used assertion: the seal is missing or invalid").of_one_record().into())
            }
        }
    }

    /// Returns one tag for each key, beginning with the current key.
    fn used_tags(&self, key: RowKey) -> Vec<Vec<u8>> {
        let message = [&b"used assertion"[..], &key.0].concat();
        self.keyring().refresh_keys().relay_secrets(&message).iter().map(|tag| tag.as_ref().to_vec()).collect()
    }
}

/// All gates compute the same key, whatever keyring they have.
fn name(used: &UsableOnce) -> RowKey {
    RowKey(parts_digest(&[used.kind.as_bytes(), used.issuer.as_bytes(), used.id.as_bytes()]))
}
