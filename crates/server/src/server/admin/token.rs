//! The admin token: a file that only users who may administer the gate can read.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use rotogate::private_file;
use rotogate::random::{are_equal, random};

/// The minimum length of a token.
const MIN_CHARS: usize = 32;

/// The token. `Debug` does not print it.
pub struct AdminToken(SecretString);

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(…)")
    }
}

impl AdminToken {
    /// Reads the token. If the file is missing, creates it with 256 random bits and mode 0600.
    ///
    /// # Errors
    /// The file cannot be read or created, others may access it, or it has fewer than 32 characters.
    pub fn load_or_create(path: &Path) -> Result<Self, String> {
        if !path.exists() {
            let random = random::<32>().map_err(|error| error.to_string())?;
            let text = Zeroizing::new(format!("{}\n", URL_SAFE_NO_PAD.encode(random.as_slice())));
            let failed = |error| format!("the admin token {} cannot be created: {error}", path.display());
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                private_file::create_private_dir(folder).map_err(failed)?;
            }
            private_file::create_private_new(path, text.as_bytes()).map_err(failed)?;
        }
        Self::load(path)
    }

    /// Reads the token.
    ///
    /// # Errors
    /// As [`Self::load_or_create`].
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = private_file::read_private(path)?;
        let token = text.trim();
        if token.len() < MIN_CHARS {
            return Err(format!(
                "the admin token in {} has fewer than {MIN_CHARS} characters; delete the file, and the gate creates a new one",
                path.display()
            ));
        }
        Ok(Self(SecretString::from(token)))
    }

    /// Whether `presented` is the token. Compares in constant time.
    pub(crate) fn is(&self, presented: &str) -> bool {
        are_equal(self.0.expose_secret().as_bytes(), presented.as_bytes())
    }

    /// The token, to send it to a running gate.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}
