//! The high-water mark: a small file outside the store, with the store's id and its number of commits. A store that
//! contradicts its mark was lost or restored from a backup.
//!
//! The mark is a lower bound. It is updated at start, after every [`COMMITS_PER_MARK`] commits, and at a clean stop.
//!
//! The mark is also updated before a revocation of API keys is acknowledged, so the loss of such a revocation is always
//! detected. Other lost commits are **not** detected if they all came after the last update.

use std::io::ErrorKind;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::private_file;
use crate::store::StoreError;

/// The number of commits between two updates of the mark.
pub const COMMITS_PER_MARK: u64 = 4096;
const VERSION: u32 = 1;
const MAX_LEN: u64 = 4096;

/// A store, and the number of a durable commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The store's id.
    pub store: Uuid,
    /// A lower bound for the number of commits.
    pub sequence: u64,
}

/// The result of comparing a store with its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkVerdict {
    /// The store is not older than the mark, or there is no mark.
    AsExpected,
    /// There is a mark, but no store.
    Missing,
    /// The store has another id.
    Another(Uuid),
    /// The store has only this many commits, which is fewer than the mark.
    Behind(u64),
}

impl MarkVerdict {
    /// Compares the recorded mark with the state of the store.
    pub fn compare(mark: Option<Mark>, store: Option<Mark>) -> Self {
        match (mark, store) {
            (None, _) => Self::AsExpected,
            (Some(_), None) => Self::Missing,
            (Some(mark), Some(store)) if mark.store != store.store => Self::Another(store.store),
            (Some(mark), Some(store)) if store.sequence < mark.sequence => Self::Behind(store.sequence),
            (Some(_), Some(_)) => Self::AsExpected,
        }
    }
}

/// The mark's file.
#[derive(Clone, Debug)]
pub struct HighWater {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkRecord {
    version: u32,
    store: Uuid,
    sequence: u64,
}

/// Logs that the operator accepted the store although it contradicts its mark.
pub fn accept(alarm: &str) {
    tracing::warn!(
        target: "rotogate::audit",
        event = "store_accepted",
        alarm,
        "store accepted although it contradicts its high-water mark"
    );
}

impl HighWater {
    /// The mark in this file.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads the mark. `None` if there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(&self) -> Result<Option<Mark>, StoreError> {
        let shown = self.path.display();
        // A dangling link does not count as a missing file.
        if std::fs::symlink_metadata(&self.path).is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            return Ok(None);
        }
        let bytes = private_file::read_private_bytes(&self.path, MAX_LEN).map_err(StoreError::new)?;
        let damaged = |what: String| {
            StoreError::new(format!(
                "{shown}, the high-water mark of the store, is damaged ({what}). If you are sure that the store is the \
                 latest one, remove {shown} and start again"
            ))
        };
        let MarkRecord { version, store, sequence } =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if version != VERSION {
            return Err(damaged(format!("it has version {version}, but this program reads only version {VERSION}")));
        }
        Ok(Some(Mark { store, sequence }))
    }

    /// Writes the mark atomically and durably. The commit must already be durable in the store.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, mark: Mark) -> Result<(), StoreError> {
        let failed = |error: std::io::Error| {
            StoreError::caused_by(format!("cannot write the high-water mark {}: {error}", self.path.display()), error)
        };
        let written = MarkRecord { version: VERSION, store: mark.store, sequence: mark.sequence };
        let mut text = serde_json::to_vec(&written).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        private_file::create_private_dir(private_file::parent(&self.path)).map_err(failed)?;
        private_file::write_private_atomic(&self.path, &text).map_err(failed)
    }

    /// Raises the mark. The mark is never lowered, because other processes may also write it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn raise(&self, mark: Mark) -> Result<(), StoreError> {
        match self.read() {
            Ok(Some(known)) if known.store == mark.store && known.sequence >= mark.sequence => Ok(()),
            Ok(_) | Err(_) => self.write(mark),
        }
    }

    /// Returns the error message if the store contradicts the mark. The message says what the operator can do.
    pub fn alarm(&self, verdict: MarkVerdict, mark: Option<Mark>, store: &std::path::Path) -> Option<String> {
        let known = mark.map_or_else(String::new, |m| format!("store {} at commit {}", m.store, m.sequence));
        let found = match verdict {
            MarkVerdict::AsExpected => return None,
            MarkVerdict::Missing => "there is no store at this place".to_owned(),
            MarkVerdict::Another(id) => format!("this store is {id}"),
            MarkVerdict::Behind(sequence) => format!("the store is only at commit {sequence}"),
        };
        Some(format!(
            "{} LOOKS LIKE A RESTORED BACKUP OR A LOST FILE: the keys were last used with {known} (says {}), but \
             {found}. If you use an older store, refresh tokens that were exchanged since then are valid again, and \
             sessions, tokens and API keys that were revoked since then are no longer revoked. If you start without a \
             store, every session is lost. Put the latest store back, or, if this is what you want, run `rotogate \
             store accept-restored` once",
            store.display(),
            self.path.display(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    #[test]
    fn o4_a_store_is_judged_by_its_mark() {
        let at = |store, sequence| Some(Mark { store, sequence });
        assert_eq!(MarkVerdict::compare(None, None), MarkVerdict::AsExpected);
        assert_eq!(MarkVerdict::compare(None, at(A, 3)), MarkVerdict::AsExpected);
        assert_eq!(MarkVerdict::compare(at(A, 3), at(A, 3)), MarkVerdict::AsExpected);
        assert_eq!(MarkVerdict::compare(at(A, 3), at(A, 4)), MarkVerdict::AsExpected);
        assert_eq!(MarkVerdict::compare(at(A, 3), at(A, 2)), MarkVerdict::Behind(2));
        assert_eq!(MarkVerdict::compare(at(A, 3), at(B, 9)), MarkVerdict::Another(B));
        assert_eq!(MarkVerdict::compare(at(A, 0), None), MarkVerdict::Missing);
    }

    #[test]
    fn a_mark_reads_as_written_and_a_damaged_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys").join("store.mark");
        let file = HighWater::at(path.clone());
        assert_eq!(file.read().unwrap(), None);
        let mark = Mark { store: A, sequence: 4096 };
        file.write(mark).unwrap();
        assert_eq!(file.read().unwrap(), Some(mark));
        for bad in ["", "{", "{\"version\":2,\"store\":\"00000000-0000-0000-0000-000000000001\",\"sequence\":1}"] {
            std::fs::write(&path, bad).unwrap();
            let error = file.read().unwrap_err().to_string();
            assert!(error.contains("damaged") && error.contains("store.mark"), "{error}");
        }
    }
}
