//! A key ring that is made at a first start.

use std::path::{Path, PathBuf};

use super::{
    FolderWriteLock, INDEX, Index, RefreshEntry, RefreshState, SigningEntry, VERSION, file_error, io, is_missing,
};
use crate::token::keyring::{Algorithm, KeyError, KeyMaterial, KeyState, Keyring, RefreshSecret, SigningKey, new_id};

/// The index of a new key ring that is not in force yet.
pub(super) const PENDING: &str = ".keyring.toml.new";

/// A key ring whose keys are in its folder, but not in force yet. The next start takes it up again if this start is cut
/// short: a shared store may belong to it already.
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
            // No store knows a key ring before all its keys are written.
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

    /// The keys.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Puts the key ring in force. This needs no room on the disk.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn publish(self) -> Result<Keyring, KeyError> {
        self.folder.rename(&self.dir.join(PENDING), &self.dir.join(INDEX))?;
        self.index.keyring(&self.dir)
    }

    /// Removes the key ring, which no store knows.
    pub fn remove(self) {
        remove(&self.dir, &self.index);
    }
}

/// The index of a key ring that an earlier start did not put in force.
fn pending(dir: &Path) -> Result<Option<Index>, KeyError> {
    if is_missing(&dir.join(PENDING)) { Ok(None) } else { Index::read_as(PENDING, dir).map(Some) }
}

/// Removes the files of a key ring that is not in force. If this fails, the next start tries again, or reports them.
fn remove(dir: &Path, index: &Index) {
    for file in index.files().chain([PENDING]) {
        let _ = std::fs::remove_file(dir.join(file));
    }
}

/// Keys without a `keyring.toml` are an error, not a first start, unless a first start that was cut short wrote them.
pub(super) fn refuse_leftovers(dir: &Path) -> Result<(), KeyError> {
    let index = dir.join(INDEX);
    if std::fs::symlink_metadata(&index).is_ok() {
        return Err(file_error(&index, "there is a key ring already"));
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
                    "a key without a {INDEX}: either that file was lost (bring it back), or a first start was cut \
                     short (empty the folder)"
                ),
            ));
        }
    }
    Ok(())
}
