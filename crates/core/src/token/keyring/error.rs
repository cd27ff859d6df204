//! What is wrong with keys.

use super::super::algorithm::Algorithm;
use crate::random::NoRandomness;

/// A problem with a key, a secret or their folder.
///
/// The message names the problem, the file and the remedy, and never contains a secret.
///
/// ```
/// use rotogate::token::RulesError;
/// use rotogate::token::{Algorithm, IssuerKeys, KeyError};
///
/// let error = IssuerKeys::from_public_pem(b"not a key", Algorithm::Es256).unwrap_err();
/// assert!(matches!(error, RulesError::Key(KeyError::Unusable { algorithm: Algorithm::Es256, .. })));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The string is not the name of a supported algorithm.
    #[error(
        "{0:?} is not an algorithm; accepted are EdDSA ES256 ES384 RS256 RS384 RS512 PS256 PS384 PS512 HS256 HS384 HS512"
    )]
    Algorithm(String),
    /// The key cannot be used with its algorithm.
    #[error("not a usable {algorithm} key: {why}")]
    Unusable {
        /// The intended algorithm.
        algorithm: Algorithm,
        /// Why the key is unusable.
        why: &'static str,
    },
    /// An HMAC secret that is shorter than the hash (RFC 7518 §3.2).
    #[error("an {algorithm} secret must have at least {} bytes, but this one has {length}", algorithm.hash_len())]
    ShortSecret {
        /// The intended algorithm.
        algorithm: Algorithm,
        /// The length of the secret, in bytes.
        length: usize,
    },
    /// An HMAC secret that looks like public data.
    #[error("this is {0}, which can never be an HMAC secret, because anyone who knows it could sign tokens")]
    PublicAsSecret(&'static str),
    /// A `kid` that cannot be written into a token's header.
    #[error("a `kid` must have 1 to 128 visible ASCII characters")]
    BadKid,
    /// The keys contradict each other.
    #[error("{0}")]
    BadSet(String),
    /// The random source failed.
    #[error("the random source failed")]
    Random,
    /// A file or folder that cannot be read, or that other users can read or write.
    #[error("{0}")]
    Refused(String),
    /// A file or folder that could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file or folder.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// A file or folder with unexpected content.
    #[error("{path}: {message}")]
    File {
        /// The file or folder.
        path: String,
        /// The problem, and the remedy.
        message: String,
    },
}

impl From<NoRandomness> for KeyError {
    fn from(_: NoRandomness) -> Self {
        Self::Random
    }
}
