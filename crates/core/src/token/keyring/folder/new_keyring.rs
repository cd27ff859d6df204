//! A key ring for a first start.

use std::path::{Path, PathBuf};

use super::{
    FolderWriteLock, INDEX, Index, RefreshEntry, RefreshState, SigningEntry, VERSION, file_error, io, is_missing,
};
use crate::token::keyring::error::KeyError;
use crate::token::keyring::{Algorithm, KeyMaterial, KeyState, Keyring, RefreshSecret, SigningKey, new_id};

pub(super) const PENDING: &str = ".keyring.toml.new";

/// A key ring that is written but not yet in use.
///
/// After an interrupted start, the next start uses the same keys, because a shared store may already depend on them.
pub struct NewKeyring {
    folder: FolderWriteLock,
    dir: PathBuf,
    index: Index,
    keyring: Keyring,
}

crate::debug_with!(NewKeyring { keyring });

impl NewKeyring {
    pub(super) fn begin(folder: FolderWriteLock, dir: &Path, algorithm: Algorithm) -> Result<Self, KeyError> {
        refuse_leftovers(dir)?;
        if let Some(index) = pending(dir)? {
            if index.is_whole(dir) {
                let keyring = index.keyring(dir)?;
                return Ok(Self { folder, dir: dir.to_owned(), index, keyring });
            }
            // A store is used only after all keys are written, so it is safe to remove these files.
            remove(dir, &index);
        }
        let material = KeyMaterial::generate(algorithm)?;
        let key = SigningKey::from_material(algorithm, &material)?;
        let signing = SigningEntry::new(&key, KeyState::Signing);
        let refresh = RefreshEntry { id: 1, state: RefreshState::Current, file: "refresh-1.secret".to_owned() };
        let secret = RefreshSecret::generate()?.to_text();
        let index = Index { version: VERSION, id: new_id()?, signing: vec![signing], refresh: vec![refresh] };
        index.write_as(PENDING, &folder, dir)?;
        let files = index.files().zip([material.expose(), secret.as_bytes()]);
        files.into_iter().try_for_each(|(file, content)| folder.create(&dir.join(file), content))?;
        let keyring = index.keyring(dir)?;
        Ok(Self { folder, dir: dir.to_owned(), index, keyring })
    }

    /// The new key ring.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Activates the key ring without additional disk space.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn publish(self) -> Result<Keyring, KeyError> {
        self.folder.rename(&self.dir.join(PENDING), &self.dir.join(INDEX))?;
        self.index.keyring(&self.dir)
    }

    /// Removes a key ring that was never used with a store.
    pub fn remove(self) {
        remove(&self.dir, &self.index);
    }
}

fn pending(dir: &Path) -> Result<Option<Index>, KeyError> {
    if is_missing(&dir.join(PENDING)) { Ok(None) } else { Index::read_as(PENDING, dir).map(Some) }
}

/// On failure, the next start tries again or reports the files.
fn remove(dir: &Path, index: &Index) {
    for file in index.files().chain([PENDING]) {
        let _ = std::fs::remove_file(dir.join(file));
    }
}

/// Keys without a `keyring.toml` are an error, unless an interrupted first start wrote them.
pub(super) fn refuse_leftovers(dir: &Path) -> Result<(), KeyError> {
    let index = dir.join(INDEX);
    if std::fs::symlink_metadata(&index).is_ok() {
        return Err(file_error(&index, "the folder has a key ring already"));
    }
    let pending = pending(dir)?;
    let is_pending = |name: &Path| pending.iter().flat_map(Index::files).any(|file| Path::new(file) == name);
    let entries = std::fs::read_dir(dir).map_err(|e| io(dir, e))?;
    for entry in entries {
        let name = entry.map_err(|e| io(dir, e))?.file_name();
        let name = Path::new(&name);
        if name.extension().is_some_and(|e| e == "pem" || e == "secret") && !is_pending(name) {
            return Err(file_error(
                &dir.join(name),
                format!(
                    "the folder has a key without a {INDEX}. Either that file was lost (bring it back), or a first \
                     start was cut short (empty the folder)"
                ),
            ));
        }
    }
    Ok(())
}
