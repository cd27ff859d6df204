//! The stored hash of a client's secret.

use secrecy::{ExposeSecret, SecretString};

use crate::random::{NoRandomness, random};

/// An argon2id hash as a PHC string, which `Debug` does not show.
///
/// ```
/// use rotogate::client::{Client, SecretHash};
///
/// let mut client = Client::public("backend");
/// // The line that `rotogate hash` printed for the client's secret.
/// let line = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$yFl2Zn4Ldm0lJg8bB6m9Yd5gYcT7rJ3k5xw0iVq1h2E";
/// client.secret_hash = Some(SecretHash::new(line));
/// assert!(!format!("{client:?}").contains("yFl2"));
/// ```
#[derive(Clone)]
pub struct SecretHash(SecretString);

impl SecretHash {
    /// Wraps a PHC string.
    pub fn new(phc: impl Into<String>) -> Self {
        Self(SecretString::from(phc.into()))
    }

    /// The PHC string, for [`Passwords::verify`](super::Passwords::verify).
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// A hash of random bytes, which does not match any secret.
///
/// # Errors
/// The system's random number generator failed.
pub fn unmatched_secret_hash() -> Result<SecretHash, NoRandomness> {
    use base64::Engine as _;
    let bytes = random::<48>()?;
    let (salt, digest) = bytes.split_at(16);
    let text = |bytes| base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes);
    Ok(SecretHash::new(format!("$argon2id$v=19$m=19456,t=2,p=1${}${}", text(salt), text(digest))))
}

/// This comparison is for configurations, not for a presented secret.
impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for SecretHash {}

crate::debug_with!(SecretHash);
