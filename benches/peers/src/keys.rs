//! The keys that all gateways verify with, in the formats that they read: made once a run, in a folder.
//!
//! The folder is rotogate's own keyring, with a key for each algorithm; beside it lie the public keys in PEM, the HMAC
//! secret as text, and the JWK set.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rotogate_core::token::algorithm::{Algorithm, Family};
use rotogate_core::token::keyring::{KeyState, Keyring};

use crate::tls;

/// Issuer and audience of every token of the bench.
pub const ISSUER: &str = "https://auth.example.com";
pub const AUDIENCE: &str = "api";

/// The HMAC secret: its bytes, which are text because HAProxy takes them from its configuration.
const SECRET: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00123456789abcdeffedcba9876543210";
/// The same in base64url, as rotogate imports it.
const SECRET_TEXT: &str = "MGYxZTJkM2M0YjVhNjk3ODg3OTZhNWI0YzNkMmUxZjAwMTIzNDU2Nzg5YWJjZGVmZmVkY2JhOTg3NjU0MzIxMA";

/// The algorithms of the bench.
pub const ALGORITHMS: [Algorithm; 4] = [Algorithm::Hs256, Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

/// The folder of the keyring.
pub fn keyring(folder: &Path) -> PathBuf {
    folder.join("keys")
}

pub fn public_pem(folder: &Path, algorithm: Algorithm) -> PathBuf {
    folder.join(format!("{algorithm}.pem"))
}

pub fn jwks(folder: &Path) -> PathBuf {
    folder.join("jwks.json")
}

/// The HMAC secret, for contenders that take it as text.
pub const fn secret() -> &'static str {
    SECRET
}

/// Makes the keyring and its exports. Access tokens issued on a refresh are signed with EdDSA, the default.
pub fn make(folder: &Path) -> Result<Keyring> {
    let dir = keyring(folder);
    Keyring::create(&dir, Algorithm::EdDsa)?;
    for algorithm in [Algorithm::Rs256, Algorithm::Es256] {
        Keyring::add(&dir, algorithm, KeyState::Verifying)?;
    }
    let secret = folder.join("secret");
    private(&secret)?.write_all(SECRET_TEXT.as_bytes())?;
    Keyring::import(&dir, &secret, Algorithm::Hs256, KeyState::Verifying)?;
    let keyring = Keyring::load(&dir)?;
    for key in keyring.signing_keys().filter(|key| key.algorithm().family() != Family::Hmac) {
        // As the keyring names them: a file that begins with a hyphen would be an option to other programs.
        let name = if key.kid().starts_with('-') { "key" } else { "" };
        let pem = dir.join(format!("{name}{}.pem", key.kid()));
        let pem = fs::read_to_string(&pem).with_context(|| format!("a key of the keyring, {}", pem.display()))?;
        fs::write(public_pem(folder, key.algorithm()), rcgen::KeyPair::from_pem(&pem)?.public_key_pem())?;
    }
    tls::make(folder)?;
    fs::write(jwks(folder), keyring.jwks().to_string())?;
    Ok(keyring)
}

pub fn private(path: &Path) -> Result<fs::File> {
    Ok(OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?)
}
