//! A key ring that is stored in a folder.
//!
//! `keyring.toml` lists the keys and their uses. Each key is in its own file, as PKCS #8 in PEM or as a secret in
//! base64url.
//!
//! ```toml
//! version = 1
//! id = "6f1c…"
//! [[signing]]
//! kid = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
//! algorithm = "EdDSA"
//! state = "signing"
//! file = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k.pem"
//! [[refresh]]
//! id = 1
//! state = "current"
//! file = "refresh-1.secret"
//! ```

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::super::algorithm::Family;
use super::{Algorithm, KeyError, KeyMaterial, KeyState, Keyring, RefreshKeys, RefreshSecret, SigningKey};
use crate::private_file::{self, EditLock};

mod new_keyring;

pub use new_keyring::NewKeyring;
use new_keyring::{PENDING, refuse_leftovers};

const INDEX: &str = "keyring.toml";
const VERSION: u32 = 1;
const MAX_LEN: u64 = 64 * 1024;
const HEAD: &str = "# Written by rotogate: the keys in this folder, and how each key is used.\n";

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Index {
    version: u32,
    id: Uuid,
    signing: Vec<SigningEntry>,
    refresh: Vec<RefreshEntry>,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SigningEntry {
    kid: String,
    algorithm: Algorithm,
    state: KeyState,
    file: String,
}

#[derive(PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshEntry {
    id: u8,
    state: RefreshState,
    file: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RefreshState {
    Current,
    Verifying,
}

impl Keyring {
    /// Loads the key ring from this folder.
    ///
    /// # Errors
    /// A file is missing, malformed, or accessible to other users. The message names the file and the remedy.
    pub fn load(dir: &Path) -> Result<Self, KeyError> {
        private_file::check_private_dir(dir).map_err(KeyError::Refused)?;
        Index::read(dir)?.keyring_or_later(dir)
    }

    /// Creates a key ring, with a signing key for `algorithm` and one refresh secret.
    ///
    /// A missing folder is created with mode 0700, and the files with mode 0600.
    ///
    /// # Errors
    /// The folder has a key ring or remains of one, or cannot be written.
    pub fn create(dir: &Path, algorithm: Algorithm) -> Result<Self, KeyError> {
        let folder = FolderWriteLock::begin(dir)?;
        Self::create_in(folder, dir, algorithm)
    }

    /// Loads the key ring, or creates it at the first start.
    ///
    /// This function cannot detect lost keys. If a store exists already, call [`Keyring::load`] instead.
    ///
    /// # Errors
    /// The errors of [`Keyring::load`] and [`Keyring::create`]. Keys without a `keyring.toml` are an error, not a first
    /// start.
    pub fn load_or_create(dir: &Path, algorithm: Algorithm) -> Result<Self, KeyError> {
        let index = dir.join(INDEX);
        if is_missing(&index) {
            let folder = FolderWriteLock::begin(dir)?;
            // Another process may have created the key ring in the meantime.
            if is_missing(&index) {
                return Self::create_in(folder, dir, algorithm);
            }
        }
        Self::load(dir)
    }

    /// Loads the key ring, or returns `None` if there is none. Never writes.
    ///
    /// Waits for another process that is creating a key ring.
    ///
    /// # Errors
    /// The errors of [`Keyring::load_or_create`], except for write errors.
    pub fn load_if_there(dir: &Path) -> Result<Option<Self>, KeyError> {
        if !is_missing(&dir.join(INDEX)) {
            return Self::load(dir).map(Some);
        }
        if is_missing(dir) {
            return Ok(None);
        }
        refuse_link(dir)?;
        private_file::check_private_dir(dir).map_err(KeyError::Refused)?;
        let leftovers = match refuse_leftovers(dir) {
            Ok(()) if is_missing(&dir.join(PENDING)) => return Ok(None),
            judged => judged,
        };
        // Either a first start was interrupted, or a first start is in progress and has the lock.
        let Ok(Some(_folder)) = private_file::wait_for_edit(&dir.join(INDEX)) else { return leftovers.map(|()| None) };
        if !is_missing(&dir.join(INDEX)) {
            return Self::load(dir).map(Some);
        }
        refuse_leftovers(dir).map(|()| None)
    }

    /// Makes the key with this `kid` the signing key. The previous key remains for verification.
    ///
    /// # Errors
    /// The errors of [`Keyring::load`], a missing key, or a folder that cannot be written.
    pub fn make_signing(dir: &Path, kid: &str) -> Result<(), KeyError> {
        let folder = FolderWriteLock::begin(dir)?;
        let mut index = Index::read(dir)?;
        if !index.signing.iter().any(|k| k.kid == kid) {
            return Err(file_error(&dir.join(INDEX), "has no key with this kid"));
        }
        index.sign_with(kid);
        index.write(&folder, dir)
    }

    fn create_in(folder: FolderWriteLock, dir: &Path, algorithm: Algorithm) -> Result<Self, KeyError> {
        NewKeyring::begin(folder, dir, algorithm)?.publish()
    }
}

/// Only our own crates call these functions.
#[doc(hidden)]
impl Keyring {
    /// Adds the key in the file `from`, and returns its `kid`. If the key exists already, only its state changes.
    ///
    /// With [`KeyState::Signing`], the previous key remains for verification.
    ///
    /// # Errors
    /// The errors of [`Keyring::load`], a file that is unusable or accessible to other users, or a folder that cannot
    /// be written.
    pub fn import(dir: &Path, from: &Path, algorithm: Algorithm, state: KeyState) -> Result<String, KeyError> {
        let material = KeyMaterial::new(read_secret(from)?.to_vec());
        add(dir, &material, algorithm, state).map_err(|e| located(from, e))
    }

    /// Generates and adds a key like [`Keyring::import`], and returns its `kid`.
    ///
    /// # Errors
    /// The errors of [`Keyring::load`], or a folder that cannot be written.
    pub fn add(dir: &Path, algorithm: Algorithm, state: KeyState) -> Result<String, KeyError> {
        add(dir, &KeyMaterial::generate(algorithm)?, algorithm, state)
    }

    /// Loads the key ring, or prepares a new one that is not yet in use.
    ///
    /// A gate on a shared store uses this function, because it may not be the first gate. Other processes cannot write
    /// until the new key ring is published or dropped.
    ///
    /// # Errors
    /// The errors of [`Keyring::load_or_create`].
    pub fn load_or_begin(dir: &Path, algorithm: Algorithm) -> Result<OpenedKeyring, KeyError> {
        let index = dir.join(INDEX);
        if is_missing(&index) {
            let folder = FolderWriteLock::begin(dir)?;
            if is_missing(&index) {
                return NewKeyring::begin(folder, dir, algorithm).map(|new| OpenedKeyring::New(Box::new(new)));
            }
        }
        Self::load(dir).map(|keyring| OpenedKeyring::Loaded(Box::new(keyring)))
    }

    /// When the file of this key or refresh secret was last written, or `None` if there is no such key.
    ///
    /// # Errors
    /// The errors of [`Keyring::load`].
    pub fn written_at(dir: &Path, kid: &str) -> Result<Option<std::time::SystemTime>, KeyError> {
        let index = Index::read(dir)?;
        let signing = index.signing.iter().find(|key| key.kid == kid).map(|key| &key.file);
        let refresh = || index.refresh.iter().find(|key| Self::refresh_id(kid) == Some(key.id)).map(|key| &key.file);
        let Some(file) = signing.or_else(refresh) else { return Ok(None) };
        let file = beside(dir, file)?;
        let modified = std::fs::metadata(&file).and_then(|meta| meta.modified());
        modified.map(Some).map_err(|error| io(&file, error))
    }
}

/// A loaded key ring, or a new one that is not yet in use.
#[derive(Debug)]
pub enum OpenedKeyring {
    /// The key ring existed already.
    Loaded(Box<Keyring>),
    /// The key ring is new.
    New(Box<NewKeyring>),
}

fn is_missing(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

fn refuse_link(dir: &Path) -> Result<(), KeyError> {
    if std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_symlink()) {
        let what = "is a symbolic link, but the gate does not write keys through a link. Give the path of the folder \
                    itself";
        return Err(file_error(dir, what));
    }
    Ok(())
}

fn add(dir: &Path, material: &KeyMaterial, algorithm: Algorithm, state: KeyState) -> Result<String, KeyError> {
    let key = SigningKey::from_material(algorithm, material)?;
    let folder = FolderWriteLock::begin(dir)?;
    let mut index = Index::read(dir)?;
    match index.signing.iter().find(|k| k.kid == key.kid()) {
        Some(known) if known.algorithm != algorithm => {
            return Err(KeyError::BadSet(format!(
                "this key is already bound to {}, and a key can have only one algorithm",
                known.algorithm
            )));
        }
        Some(known) if known.state == KeyState::Signing && state == KeyState::Verifying => {
            return Err(KeyError::BadSet("this key signs tokens; promote another key first".to_owned()));
        }
        Some(_) => {}
        None => {
            let entry = SigningEntry::new(&key, KeyState::Verifying);
            let path = dir.join(&entry.file);
            // An interrupted import may have left a file with the same key.
            let same = || read_secret(&path).is_ok_and(|old| old.as_slice() == material.expose());
            match folder.create(&path, material.expose()) {
                Err(KeyError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists && same() => {}
                created => created?,
            }
            index.signing.push(entry);
        }
    }
    if state == KeyState::Signing {
        index.sign_with(key.kid());
    }
    index.keyring(dir)?;
    index.write(&folder, dir)?;
    Ok(key.kid().to_owned())
}

/// Other processes cannot write into the folder while this value exists.
struct FolderWriteLock(#[expect(dead_code, reason = "held for its lock")] EditLock);

impl FolderWriteLock {
    fn begin(dir: &Path) -> Result<Self, KeyError> {
        refuse_link(dir)?;
        private_file::create_private_dir(dir).map_err(|e| unwritten(dir, e))?;
        private_file::check_private_dir(dir).map_err(KeyError::Refused)?;
        private_file::lock_for_edit(&dir.join(INDEX)).map(Self).map_err(|e| unwritten(dir, e))
    }

    #[expect(clippy::unused_self, reason = "only the holder of the lock may write")]
    fn create(&self, path: &Path, text: &[u8]) -> Result<(), KeyError> {
        private_file::create_private_new(path, text).map_err(|e| unwritten(path, e))
    }

    #[expect(clippy::unused_self, reason = "only the holder of the lock may write")]
    fn rename(&self, from: &Path, to: &Path) -> Result<(), KeyError> {
        private_file::rename_durably(from, to).map_err(|e| unwritten(to, e))
    }

    #[expect(clippy::unused_self, reason = "only the holder of the lock may write")]
    fn replace(&self, path: &Path, text: &[u8]) -> Result<(), KeyError> {
        private_file::write_private_atomic(path, text).map_err(|e| unwritten(path, e))
    }
}

fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    private_file::read_private_bytes(path, MAX_LEN).map_err(KeyError::Refused)
}

fn io(path: &Path, source: std::io::Error) -> KeyError {
    KeyError::Io { path: path.display().to_string(), source }
}

fn unwritten(path: &Path, error: std::io::Error) -> KeyError {
    if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) {
        let remedy = "change the keys as the owner of the folder, on a machine where the folder is writable, and copy it \
                      from there";
        return file_error(path, format!("cannot be written ({error}): {remedy}"));
    }
    io(path, error)
}

fn file_error(path: &Path, message: impl Into<String>) -> KeyError {
    KeyError::File { path: path.display().to_string(), message: message.into() }
}

fn located(path: &Path, error: KeyError) -> KeyError {
    match error {
        KeyError::Io { .. } | KeyError::File { .. } | KeyError::Refused(_) => error,
        KeyError::Algorithm(_)
        | KeyError::Unusable { .. }
        | KeyError::ShortSecret { .. }
        | KeyError::PublicAsSecret(_)
        | KeyError::BadKid
        | KeyError::BadSet(_)
        | KeyError::Random => file_error(path, error.to_string()),
    }
}

/// Refuses a path outside the folder.
fn beside(dir: &Path, file: &str) -> Result<PathBuf, KeyError> {
    let plain = !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', '\0']);
    if plain {
        Ok(dir.join(file))
    } else {
        Err(file_error(&dir.join(INDEX), format!("{file:?} is not the name of a file in the same folder")))
    }
}

impl SigningEntry {
    fn new(key: &SigningKey, state: KeyState) -> Self {
        let extension = if key.algorithm().family() == Family::Hmac { "secret" } else { "pem" };
        let kid = key.kid().to_owned();
        // A leading hyphen would look like an option.
        let file = if kid.starts_with('-') { format!("key{kid}.{extension}") } else { format!("{kid}.{extension}") };
        Self { kid, algorithm: key.algorithm(), state, file }
    }
}

impl Index {
    fn read(dir: &Path) -> Result<Self, KeyError> {
        Self::read_as(INDEX, dir)
    }

    fn read_as(name: &str, dir: &Path) -> Result<Self, KeyError> {
        let path = dir.join(name);
        let text = read_secret(&path)?;
        let wrong = |why: String| file_error(&path, why);
        let text = std::str::from_utf8(&text).map_err(|_| wrong("is not UTF-8".to_owned()))?;
        let Version { version } = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        if version != VERSION {
            return Err(wrong(format!("has version {version}, but this program reads only version {VERSION}")));
        }
        toml::from_str(text).map_err(|e| wrong(e.to_string()))
    }

    fn write(&self, folder: &FolderWriteLock, dir: &Path) -> Result<(), KeyError> {
        self.write_as(INDEX, folder, dir)
    }

    fn write_as(&self, name: &str, folder: &FolderWriteLock, dir: &Path) -> Result<(), KeyError> {
        let path = dir.join(name);
        let text = toml::to_string(self).map_err(|e| file_error(&path, e.to_string()))?;
        folder.replace(&path, format!("{HEAD}{text}").as_bytes())
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        let signing = self.signing.iter().map(|key| key.file.as_str());
        signing.chain(self.refresh.iter().map(|secret| secret.file.as_str()))
    }

    fn is_whole(&self, dir: &Path) -> bool {
        self.files().all(|file| !is_missing(&dir.join(file)))
    }

    fn sign_with(&mut self, kid: &str) {
        for key in &mut self.signing {
            key.state = if key.kid == kid { KeyState::Signing } else { KeyState::Verifying };
        }
    }

    /// If the index was replaced in the meantime, the newer one is loaded.
    fn keyring_or_later(mut self, dir: &Path) -> Result<Keyring, KeyError> {
        loop {
            let wrong = match self.keyring(dir) {
                Ok(keyring) => return Ok(keyring),
                Err(wrong) => wrong,
            };
            // When a key is removed, the index changes before the file is deleted.
            let now = Self::read(dir)?;
            if now == self {
                return Err(wrong);
            }
            self = now;
        }
    }

    fn keyring(&self, dir: &Path) -> Result<Keyring, KeyError> {
        let path = dir.join(INDEX);
        let wrong = |why: &str| file_error(&path, why);
        let mut signer = None;
        let mut verifying = Vec::new();
        for entry in &self.signing {
            let file = beside(dir, &entry.file)?;
            let material = KeyMaterial::new(read_secret(&file)?.to_vec());
            let key = SigningKey::from_material_named(entry.algorithm, &material, &entry.kid)
                .map_err(|e| located(&file, e))?;
            match entry.state {
                KeyState::Verifying => verifying.push(key),
                KeyState::Signing if signer.is_none() => signer = Some(key),
                KeyState::Signing => return Err(wrong("more than one key has the state \"signing\"")),
            }
        }
        let signer = signer.ok_or_else(|| wrong("no key has the state \"signing\""))?;
        let mut current = None;
        let mut secrets = Vec::new();
        for entry in &self.refresh {
            let file = beside(dir, &entry.file)?;
            let secret = RefreshSecret::from_text(&read_secret(&file)?).map_err(|e| located(&file, e))?;
            secrets.push((entry.id, secret));
            match entry.state {
                RefreshState::Verifying => {}
                RefreshState::Current if current.is_none() => current = Some(entry.id),
                RefreshState::Current => return Err(wrong("more than one refresh key has the state \"current\"")),
            }
        }
        let current = current.ok_or_else(|| wrong("no refresh key has the state \"current\""))?;
        let refresh = RefreshKeys::new(current, &secrets).map_err(|e| located(&path, e))?;
        Keyring::from_parts(self.id, signer, verifying, refresh).map_err(|e| located(&path, e))
    }
}

mod roll;

#[cfg(test)]
mod tests;
