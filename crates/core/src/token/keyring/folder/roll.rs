//! Changes to a key ring: new refresh secrets, and removal of unused keys.

use std::path::Path;
use std::time::SystemTime;

use super::{FolderWriteLock, INDEX, Index, RefreshEntry, RefreshState, beside, file_error, io};
use crate::token::keyring::error::KeyError;
use crate::token::keyring::{KeyState, Keyring, RefreshSecret};

const REFRESH: &str = "refresh-";

/// Only our own crates call these functions.
#[doc(hidden)]
impl Keyring {
    /// The id in the name of a refresh secret, such as `refresh-2`.
    pub fn refresh_id(name: &str) -> Option<u8> {
        name.strip_prefix(REFRESH)?.parse().ok()
    }

    /// Adds a new refresh secret for verification only, and returns its id.
    ///
    /// # Errors
    /// The errors of [`Keyring::load`], too many secrets, or a folder that cannot be written.
    pub fn add_refresh(dir: &Path) -> Result<u8, KeyError> {
        let folder = FolderWriteLock::begin(dir)?;
        let mut index = Index::read(dir)?;
        // The secret with the lowest id is the HMAC key for names in a shared store. A new secret must therefore get
        // a higher id.
        let last = index.refresh.iter().map(|secret| secret.id).max().unwrap_or_default();
        let full = || KeyError::BadSet("all 255 ids for refresh secrets are in use".to_owned());
        let id = last.checked_add(1).ok_or_else(full)?;
        let file = format!("{REFRESH}{id}.secret");
        folder.replace(&dir.join(&file), RefreshSecret::generate()?.to_text().as_bytes())?;
        index.refresh.push(RefreshEntry { id, state: RefreshState::Verifying, file });
        index.keyring(dir)?;
        index.write(&folder, dir)?;
        Ok(id)
    }

    /// Makes new refresh tokens with this secret from now on.
    ///
    /// # Errors
    /// The errors of [`Keyring::load`], a missing secret, or a folder that cannot be written.
    pub fn make_current(dir: &Path, id: u8) -> Result<(), KeyError> {
        let folder = FolderWriteLock::begin(dir)?;
        let mut index = Index::read(dir)?;
        if !index.refresh.iter().any(|secret| secret.id == id) {
            return Err(file_error(&dir.join(INDEX), format!("has no refresh secret {id}")));
        }
        for secret in &mut index.refresh {
            secret.state = if secret.id == id { RefreshState::Current } else { RefreshState::Verifying };
        }
        index.write(&folder, dir)
    }

    /// Removes a key and its file.
    ///
    /// # Errors
    /// The errors of [`Keyring::load`], a missing key, a key in use for new tokens, or a folder that cannot be written.
    pub fn retire(dir: &Path, name: &str) -> Result<(), KeyError> {
        let folder = FolderWriteLock::begin(dir)?;
        let mut index = Index::read(dir)?;
        let in_use = || KeyError::BadSet(format!("{name} is in use: promote another key first"));
        let missing = || file_error(&dir.join(INDEX), format!("has no key {name:?}"));
        let file = if let Some(at) = index.signing.iter().position(|key| key.kid == name) {
            let key = index.signing.remove(at);
            if key.state == KeyState::Signing {
                return Err(in_use());
            }
            key.file
        } else {
            let id = Self::refresh_id(name).ok_or_else(missing)?;
            let at = index.refresh.iter().position(|secret| secret.id == id).ok_or_else(missing)?;
            let secret = index.refresh.remove(at);
            if secret.state == RefreshState::Current {
                return Err(in_use());
            }
            secret.file
        };
        let path = beside(dir, &file)?;
        index.keyring(dir)?;
        index.write(&folder, dir)?;
        std::fs::remove_file(&path).map_err(|error| {
            file_error(
                &path,
                format!("is no longer used as a key, but the file cannot be removed ({error}): remove it by hand"),
            )
        })
    }

    /// When the keys or their uses last changed.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn changed_at(dir: &Path) -> Result<SystemTime, KeyError> {
        let path = dir.join(INDEX);
        std::fs::metadata(&path).and_then(|meta| meta.modified()).map_err(|error| io(&path, error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Algorithm;

    #[test]
    fn c28_keys_in_use_stay_and_others_go_with_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("keys");
        let first = Keyring::create(&dir, Algorithm::EdDsa).unwrap().signer().kid().to_owned();
        let next = Keyring::add(&dir, Algorithm::EdDsa, KeyState::Signing).unwrap();
        let files = || {
            std::fs::read_dir(&dir)
                .unwrap()
                .filter(|one| one.as_ref().unwrap().path().extension().is_some_and(|e| e == "pem" || e == "secret"))
                .count()
        };
        assert_eq!(files(), 3);
        assert!(Keyring::create(&dir, Algorithm::EdDsa).unwrap_err().to_string().contains("a key ring already"));
        assert!(Keyring::retire(&dir, &next).unwrap_err().to_string().contains("in use"));
        assert!(Keyring::retire(&dir, "unknown").unwrap_err().to_string().contains("no key"));
        Keyring::retire(&dir, &first).unwrap();
        let keyring = Keyring::load(&dir).unwrap();
        assert!(keyring.signing_key(&first).is_none() && keyring.signer().kid() == next);
        assert_eq!(files(), 2);

        assert_eq!(Keyring::add_refresh(&dir).unwrap(), 2);
        assert_eq!(Keyring::load(&dir).unwrap().refresh_keys().current(), 1);
        assert!(Keyring::retire(&dir, "refresh-1").unwrap_err().to_string().contains("in use"));
        assert!(Keyring::make_current(&dir, 3).is_err());
        Keyring::make_current(&dir, 2).unwrap();
        Keyring::retire(&dir, "refresh-1").unwrap();
        let keyring = Keyring::load(&dir).unwrap();
        assert_eq!((keyring.refresh_keys().current(), keyring.refresh_keys().ids().count()), (2, 1));
        assert_eq!(files(), 2);
        assert_eq!(Keyring::add_refresh(&dir).unwrap(), 3, "an id is of one secret");
    }
}
