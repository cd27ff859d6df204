//! The high-water mark for a shared store: the store's id and its number of writes.
//!
//! The mark is raised at startup and every minute. The mark reveals that a store was emptied or restored while gates
//! were stopped. A running gate that detects a loss lowers the mark.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::fields::Op;
use super::highwater::{self, HighWater, Mark, MarkVerdict};
use crate::store::{StoreError, WriteOutcome};

/// Writes the mark, if there is a file for it.
pub struct Marker {
    file: Option<HighWater>,
    store: Uuid,
}

impl Marker {
    /// Creates a marker for the store with this id. Without a file, the marker does nothing.
    pub fn new(file: Option<&Path>, store: Op) -> Self {
        Self { file: file.map(PathBuf::from).map(HighWater::at), store: uuid(store) }
    }

    /// Raises the mark. After a failure, the next call tries again.
    pub async fn raise(&self, sequence: u64) {
        or_later(self.write(sequence, HighWater::raise).await);
    }

    /// Replaces the mark, even if the new mark is lower.
    pub async fn set(&self, sequence: u64) {
        or_later(self.write(sequence, HighWater::write).await);
    }

    /// Writes the mark at startup. The start fails if the mark cannot be written.
    ///
    /// # Errors
    /// The mark cannot be written.
    pub async fn begin(&self, sequence: u64, is_accepted: bool) -> Result<(), StoreError> {
        self.write(sequence, if is_accepted { HighWater::write } else { HighWater::raise }).await
    }

    async fn write(
        &self,
        sequence: u64,
        how: fn(&HighWater, Mark) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(file) = self.file.clone() else { return Ok(()) };
        let mark = Mark { store: self.store, sequence };
        let written = tokio::task::spawn_blocking(move || how(&file, mark)).await;
        written.map_err(|error| StoreError::caused_by("the high-water mark was not written", error))?
    }
}

fn or_later(written: Result<(), StoreError>) {
    if let Err(error) = written {
        tracing::error!(
            %error,
            "high-water mark not written; next attempt in a minute. Check that the folder of the mark is writable"
        );
    }
}

/// Converts the store's id to the UUID that embedded stores use.
pub fn uuid(store: Op) -> Uuid {
    let mut id = [0; 16];
    id.iter_mut().zip(store).for_each(|(to, from)| *to = from);
    Uuid::from_bytes(id)
}

/// Compares the store with the mark. Returns true if the operator accepts a store that contradicts the mark.
///
/// # Errors
/// The store contradicts the mark, or the mark cannot be read.
pub fn compare(file: Option<&Path>, accepts: bool, there: Option<(Op, u64)>, place: &str) -> Result<bool, StoreError> {
    let Some(file) = file.map(PathBuf::from).map(HighWater::at) else { return Ok(false) };
    let mark = file.read()?;
    let now = there.map(|(store, sequence)| Mark { store: uuid(store), sequence });
    match file.alarm(MarkVerdict::compare(mark, now), mark, Path::new(place)) {
        None => Ok(false),
        Some(alarm) if accepts => {
            highwater::accept(&alarm);
            Ok(true)
        }
        Some(alarm) => Err(StoreError::new(alarm).with_outcome(WriteOutcome::Refused)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn c19_a_gate_that_knows_of_fewer_writes_does_not_lower_the_mark_that_it_shares() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store.mark");
        let [a, b] = [(); 2].map(|()| Marker::new(Some(&file), Op::default()));
        a.raise(9).await;
        b.raise(5).await;
        assert_eq!(HighWater::at(file.clone()).read().unwrap().unwrap().sequence, 9);
        b.raise(12).await;
        assert_eq!(HighWater::at(file).read().unwrap().unwrap().sequence, 12);
    }
}
