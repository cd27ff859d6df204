//! The password for a store's server.

use std::path::PathBuf;

use secrecy::SecretString;

use crate::private_file::read_private_bytes;
use crate::store::{StoreError, WriteOutcome};

const MAX_FILE: u64 = 4096;

/// The password, or the file that contains it.
#[derive(Clone)]
pub enum Password {
    /// The password itself.
    Value(SecretString),
    /// The password file. Other users must not be able to read the file.
    File(PathBuf),
}

impl Password {
    /// Reads the current password. `server` names the server in errors.
    ///
    /// # Errors
    /// The file cannot be read, or others can read it.
    pub fn read(&self, server: &str) -> Result<SecretString, StoreError> {
        let path = match self {
            Self::Value(password) => return Ok(password.clone()),
            Self::File(path) => path,
        };
        let unreadable = |why: &str| {
            StoreError::new(format!("the password of {server} cannot be read: {why}"))
                .with_outcome(WriteOutcome::NotDone)
        };
        let bytes = read_private_bytes(path, MAX_FILE).map_err(|why| unreadable(&why))?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| unreadable(&format!("{}: not UTF-8 text", path.display())))?;
        Ok(SecretString::from(text.trim_end_matches(['\r', '\n'])))
    }
}
