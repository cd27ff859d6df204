//! The program's only source of random bytes, and its only comparison in constant time.

use std::sync::LazyLock;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest, hmac};
use zeroize::Zeroizing;

/// The operating system did not provide random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system returned no random bytes")]
pub struct NoRandomness;

impl From<NoRandomness> for std::io::Error {
    fn from(error: NoRandomness) -> Self {
        Self::other(error)
    }
}

/// Random bytes that are zeroised on drop.
///
/// # Errors
/// The system did not provide random bytes.
pub fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, NoRandomness> {
    let mut bytes = Zeroizing::new([0; N]);
    aws_lc_rs::rand::fill(bytes.as_mut_slice()).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// A keyed digest of these parts, which reveals nothing about them. The key exists only in this process.
///
/// Each part is preceded by its length, so different parts have different digests. Returns `None` if the system does
/// not provide random bytes.
pub fn process_digest(parts: &[&[u8]]) -> Option<[u8; 32]> {
    static KEY: LazyLock<Option<hmac::Key>> =
        LazyLock::new(|| Some(hmac::Key::new(hmac::HMAC_SHA256, random::<32>().ok()?.as_slice())));
    let mut tag = hmac::Context::with_key(KEY.as_ref()?);
    for part in parts {
        tag.update(&(part.len() as u64).to_be_bytes());
        tag.update(part);
    }
    tag.sign().as_ref().try_into().ok()
}

/// The SHA-256 of these parts. Each part is preceded by its length, so different parts have different digests.
pub fn parts_digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().first_chunk().copied().unwrap_or_default()
}

/// A random pause of at most `most`, so that gates do not all reconnect at once.
pub fn jittered(most: Duration) -> Duration {
    let part = random::<2>().map_or(u16::MAX, |bytes| u16::from_be_bytes(*bytes));
    most.mul_f64(f64::from(part) / f64::from(u16::MAX))
}

/// Compares two values, in constant time if they have the same length.
pub fn are_equal(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}
