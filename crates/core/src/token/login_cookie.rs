//! The cookie of a login in progress at a provider.
//!
//! The cookie contains the sealed state of the login, so the store needs no login state. The sealing key is derived
//! from the refresh secret.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::keyring::RefreshKeys;
use crate::random::{NoRandomness, random};

/// Seals `text` under the current refresh secret, for the cookie with this name.
///
/// ```text
/// base64url( kid 1 ‖ nonce 12 ‖ AES-256-GCM(K_login[kid], nonce, text, aad = kid ‖ name) )
/// ```
///
/// # Errors
/// The system does not return random bytes.
pub fn seal(keys: &RefreshKeys, name: &str, text: &[u8]) -> Result<String, NoRandomness> {
    let id = keys.current();
    let nonce = random::<NONCE_LEN>()?;
    let mut body = Zeroizing::new(Vec::with_capacity(text.len() + AES_256_GCM.tag_len()));
    body.extend_from_slice(text);
    let key = keys.login_key(id).ok_or(NoRandomness)?;
    let sealed = key.seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), aad(id, name), &mut *body);
    sealed.map_err(|_| NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode([&[id], nonce.as_slice(), &body].concat()))
}

/// Returns the content of a cookie that this gate sealed under this name.
pub fn open(keys: &RefreshKeys, name: &str, value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
    let (id, rest) = bytes.split_first()?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
    let mut body = Zeroizing::new(sealed.to_vec());
    let opened = keys.login_key(*id)?.open_in_place(Nonce::from(nonce), aad(*id, name), &mut body);
    let length = opened.ok()?.len();
    body.truncate(length);
    Some(body)
}

fn aad(id: u8, name: &str) -> Aad<Vec<u8>> {
    Aad::from([&[id], name.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::keyring::Keyring;

    #[test]
    fn b29_a_sealed_login_opens_for_its_name_and_under_its_key_alone() {
        let (own, other) = (Keyring::ephemeral().unwrap(), Keyring::ephemeral().unwrap());
        let sealed = seal(own.refresh_keys(), "tx-a", b"secrets").unwrap();
        assert_eq!(open(own.refresh_keys(), "tx-a", sealed.as_bytes()).unwrap().as_slice(), b"secrets");
        assert!(open(own.refresh_keys(), "tx-b", sealed.as_bytes()).is_none());
        assert!(open(other.refresh_keys(), "tx-a", sealed.as_bytes()).is_none());
        assert!(!sealed.contains("secrets") && sealed != seal(own.refresh_keys(), "tx-a", b"secrets").unwrap());
        let bytes = URL_SAFE_NO_PAD.decode(&sealed).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(open(own.refresh_keys(), "tx-a", URL_SAFE_NO_PAD.encode(&changed).as_bytes()).is_none(), "{at}");
            assert!(open(own.refresh_keys(), "tx-a", URL_SAFE_NO_PAD.encode(&bytes[..at]).as_bytes()).is_none());
        }
        for garbage in [&b""[..], b"AAAA", b"=", b"\xff"] {
            assert!(open(own.refresh_keys(), "tx-a", garbage).is_none());
        }
    }
}
