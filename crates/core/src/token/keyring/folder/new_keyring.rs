//! A key ring that is made at a first start.

use std::path::{Path, PathBuf};

use super::{FolderWriteLock, INDEX, Index, RefreshEntry, RefreshState, SigningEntry, VERSION, file_error, io};
use crate::token::keyring::{Algorithm, KeyError, KeyMaterial, KeyState, Keyring, RefreshSecret, SigningKey, new_id};

/// A key ring whose keys are in its folder, but not in force yet. Dropping it removes them.
pub struct NewKeyring {
    folder: FolderWriteLock,
    dir: PathBuf,
    index: Index,
    keyring: Keyring,
    is_published: bool,
}

impl std::fmt::Debug for NewKeyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewKeyring").field("keyring", &self.keyring).finish_non_exhaustive()
    }
}

impl NewKeyring {
    pub(super) fn begin(folder: FolderWriteLock, dir: &Path, algorithm: Algorithm) -> Result<Self, KeyError> {
        refuse_leftovers(dir)?;
        let material = KeyMaterial::generate(algorithm)?;
        let key = SigningKey::from_material(algorithm, &material)?;
        let signing = SigningEntry::new(&key, KeyState::Signing);
        folder.create(&dir.join(&signing.file), material.expose())?;
        let refresh = RefreshEntry { id: 1, state: RefreshState::Current, file: "refresh-1.secret".to_owned() };
        let secret = RefreshSecret::generate()?.to_text();
        folder.create(&dir.join(&refresh.file), secret.as_bytes())?;
        let index = Index { version: VERSION, id: new_id()?, signing: vec![signing], refresh: vec![refresh] };
        let keyring = index.keyring(dir)?;
        Ok(Self { folder, dir: dir.to_owned(), index, keyring, is_published: false })
    }

    /// The keys.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// Puts the key ring in force.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn publish(mut self) -> Result<Keyring, KeyError> {
        self.index.write(&self.folder, &self.dir)?;
        self.is_published = true;
        self.index.keyring(&self.dir)
    }
}

impl Drop for NewKeyring {
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        let signing = self.index.signing.iter().map(|key| &key.file);
        for file in signing.chain(self.index.refresh.iter().map(|secret| &secret.file)) {
            // If this fails, the next start reports the key file that was left behind.
            let _ = std::fs::remove_file(self.dir.join(file));
        }
    }
}

/// Keys without a `keyring.toml` are an error, not a first start.
pub(super) fn refuse_leftovers(dir: &Path) -> Result<(), KeyError> {
    let index = dir.join(INDEX);
    if std::fs::symlink_metadata(&index).is_ok() {
        return Err(file_error(&index, "there is a key ring already"));
    }
    let entries = std::fs::read_dir(dir).map_err(|e| io(dir, e))?;
    for entry in entries {
        let name = entry.map_err(|e| io(dir, e))?.file_name();
        if Path::new(&name).extension().is_some_and(|e| e == "pem" || e == "secret") {
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
