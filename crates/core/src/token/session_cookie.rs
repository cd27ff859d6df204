//! The cookie of a browser session, the browser's only credential.
//!
//! The value is `rc1_`, followed by base64url without padding: key id (1 byte) · session id (16) · random secret (32) ·
//! tag (16).
//!
//! The tag is a truncated HMAC-SHA-256 with a key of the server. Forged cookies are refused without access to the
//! store. The session's record contains only a keyed digest. The store and the keys are thus not sufficient to make a
//! cookie.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use zeroize::{Zeroize, Zeroizing};

use super::device_cookie;
use super::keyring::RefreshKeys;
use crate::credential;
use crate::denial::Denial;
use crate::random::{NoRandomness, are_equal, random};
use crate::session::{BrowserBinding, SessionId};

/// The name of the cookie. Browsers accept this name only with `Secure`, `Path=/` and no `Domain`.
pub const NAME: &str = "__Host-Http-rg";
/// The name prefix for the [cookies of logins in progress](super::login_cookie).
pub const LOGIN_NAME: &str = "__Host-Http-rg-tx-";
/// The prefix of every value, by which secret scanners find leaked cookies.
pub const PREFIX: &str = "rc1_";
/// The length of every value.
pub const LENGTH: usize = PREFIX.len() + BODY.div_ceil(3) * 4 - 1;

const TAG: usize = 16;
const SECRET: usize = 32;
const FIXED: usize = 1 + 16;
const SIGNED: usize = FIXED + SECRET;
const BODY: usize = SIGNED + TAG;

/// Returns whether the gate removes a cookie of this name from requests to upstreams. Ignores case, as an upstream
/// might.
pub fn is_of_browser(name: &[u8]) -> bool {
    let begin = name.get(..LOGIN_NAME.len());
    name.eq_ignore_ascii_case(NAME.as_bytes())
        || name.eq_ignore_ascii_case(device_cookie::NAME.as_bytes())
        || begin.is_some_and(|begin| begin.eq_ignore_ascii_case(LOGIN_NAME.as_bytes()))
}

/// Finds the session cookie of a request.
///
/// # Errors
/// [`Denial::TwoCredentials`] if the request has two session cookies.
// Requirement B17.
pub fn session_cookie(headers: &HeaderMap) -> Result<Option<&[u8]>, Denial> {
    let mut found = credential::cookies(headers, NAME);
    match (found.next(), found.next()) {
        (found, None) => Ok(found),
        (_, Some(_)) => Err(Denial::TwoCredentials),
    }
}

/// A session cookie with a valid tag. Only [`proves`](Self::proves) also checks the session.
///
/// `Debug` does not show the value, which is zeroised when dropped.
pub struct SessionCookie {
    body: Zeroizing<[u8; BODY]>,
}

crate::debug_with!(SessionCookie { session() });

impl SessionCookie {
    /// Creates a cookie for a session. Returns `None` if the key ring has no current key.
    ///
    /// # Errors
    /// The system does not return random bytes.
    pub fn new(keys: &RefreshKeys, session: SessionId) -> Result<Option<Self>, NoRandomness> {
        let secret = random::<SECRET>()?;
        let mut body = Zeroizing::new([0; BODY]);
        let (signed, tag) = body.split_at_mut(SIGNED);
        let (fixed, rest) = signed.split_at_mut(FIXED);
        if let Some((key, id)) = fixed.split_first_mut() {
            *key = keys.current();
            id.copy_from_slice(session.as_bytes());
        }
        rest.copy_from_slice(secret.as_slice());
        let Some(made) = keys.cookie_tag(keys.current(), signed) else { return Ok(None) };
        tag.copy_from_slice(&made);
        Ok(Some(Self { body }))
    }

    /// Parses a value and checks its tag. Returns `None` unless the tag is valid for one of the gate's keys.
    // Requirement B3.
    pub fn authenticate(keys: &RefreshKeys, value: &str) -> Option<Self> {
        if value.len() != LENGTH {
            return None;
        }
        // Strict decoding accepts one encoding per cookie.
        let mut decoded = URL_SAFE_NO_PAD.decode(value.strip_prefix(PREFIX)?).ok()?;
        let body: Option<[u8; BODY]> = decoded.as_slice().try_into().ok();
        decoded.zeroize();
        let cookie = Self { body: Zeroizing::new(body?) };
        let (signed, tag) = cookie.body.split_at_checked(SIGNED)?;
        let expected = Zeroizing::new(keys.cookie_tag(cookie.key(), signed)?);
        are_equal(expected.as_slice(), tag).then_some(cookie)
    }

    /// The id of the refresh secret that authenticates the cookie.
    pub fn key(&self) -> u8 {
        self.body.first().copied().unwrap_or_default()
    }

    /// The session that the cookie names.
    pub fn session(&self) -> SessionId {
        let id = self.body.get(1..FIXED).and_then(|id| id.try_into().ok());
        SessionId::from_bytes(id.unwrap_or_default())
    }

    /// The secret value of the cookie.
    pub fn value(&self) -> Zeroizing<String> {
        let mut value = Zeroizing::new(String::with_capacity(LENGTH + 1));
        value.push_str(PREFIX);
        URL_SAFE_NO_PAD.encode_string(self.body.as_slice(), &mut value);
        value
    }

    /// Returns the data to store in the session's record, or `None` if the cookie's key was removed.
    pub fn binding(&self, keys: &RefreshKeys) -> Option<BrowserBinding> {
        Some(BrowserBinding { key: self.key(), digest: self.digest(keys)?, at_provider: false, device: None })
    }

    /// Checks in constant time that the cookie belongs to this session.
    // Requirement B4.
    pub fn proves(&self, keys: &RefreshKeys, binding: &BrowserBinding) -> bool {
        self.key() == binding.key && self.digest(keys).is_some_and(|digest| are_equal(&digest, &binding.digest))
    }

    /// The secret that seals the provider's tokens, or `None` if the cookie's key was removed.
    // Requirement B5.
    pub fn vault(&self, keys: &RefreshKeys) -> Option<VaultSecret> {
        let session = self.body.get(1..FIXED)?;
        let id = keys.vault_tag(self.key(), &[b"id", session])?.as_ref().try_into().ok()?;
        let tag = keys.vault_tag(self.key(), &[b"key", self.body.get(1..SIGNED)?])?;
        Some(VaultSecret { id, secret: Zeroizing::new(tag.as_ref().try_into().ok()?) })
    }

    fn digest(&self, keys: &RefreshKeys) -> Option<[u8; 32]> {
        keys.cookie_digest(self.key(), self.body.get(1..SIGNED)?)
    }
}

/// The secret that seals the provider's tokens for a session.
///
/// Without the cookie, the store and the keys are not sufficient to compute the secret. Hidden from `Debug`.
///
/// ```text
/// id     = HMAC(K_vault[kid], "id" ‖ sid)
/// secret = HMAC(K_vault[kid], "key" ‖ sid ‖ secret of the cookie)
/// ```
pub struct VaultSecret {
    /// The id of the vault's row in the store.
    pub id: [u8; 32],
    /// The secret from which the sealing key is derived.
    pub secret: Zeroizing<[u8; 32]>,
}

crate::debug_with!(VaultSecret);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::token::keyring::RefreshSecret;

    fn session(n: u8) -> SessionId {
        SessionId::new(Timestamp::from_secs(1_800_000_000), [n; 10])
    }

    fn secrets(ids: &[u8]) -> Vec<(u8, RefreshSecret)> {
        let secret = |id: u8| RefreshSecret::from_text(URL_SAFE_NO_PAD.encode([id; 32]).as_bytes()).unwrap();
        ids.iter().map(|id| (*id, secret(*id))).collect()
    }

    fn keys(current: u8, ids: &[u8]) -> RefreshKeys {
        RefreshKeys::new(current, &secrets(ids)).unwrap()
    }

    #[test]
    fn b3_a_value_is_a_cookie_only_as_a_key_of_ours_made_it() {
        let keys = keys(1, &[1, 2]);
        let cookie = SessionCookie::new(&keys, session(1)).unwrap().unwrap();
        let value = cookie.value();
        assert_eq!(value.len(), LENGTH);
        let read = SessionCookie::authenticate(&keys, &value).unwrap();
        assert_eq!((read.session(), read.key(), &*read.value()), (session(1), 1, &*value));
        for at in 0..value.len() {
            for other in [b'A', b'b', b'-', b'=', b'.'] {
                let mut forged = value.as_bytes().to_vec();
                if forged[at] != other {
                    forged[at] = other;
                    let forged = String::from_utf8(forged).unwrap();
                    assert!(SessionCookie::authenticate(&keys, &forged).is_none(), "{at}");
                }
            }
        }
        for garbage in ["", "rc1_", &value[..LENGTH - 1], &format!("{}=", &*value), &value[PREFIX.len()..], "null"] {
            assert!(SessionCookie::authenticate(&keys, garbage).is_none(), "{garbage}");
        }
    }

    #[test]
    fn b3_the_last_character_has_one_spelling() {
        let keys = keys(1, &[1]);
        let value = SessionCookie::new(&keys, session(1)).unwrap().unwrap().value();
        let last = |c: char| format!("{}{c}", &value[..LENGTH - 1]);
        let good = ('0'..='z').chain(['-']).filter(|c| SessionCookie::authenticate(&keys, &last(*c)).is_some());
        assert_eq!(good.count(), 1);
    }

    #[test]
    fn b3_a_session_id_spliced_into_another_cookie_is_no_cookie() {
        let keys = keys(1, &[1]);
        let [a, b] = [1, 2].map(|n| SessionCookie::new(&keys, session(n)).unwrap().unwrap());
        let mut body = *a.body;
        body[1..FIXED].copy_from_slice(b.session().as_bytes());
        let spliced = SessionCookie { body: Zeroizing::new(body) };
        assert!(SessionCookie::authenticate(&keys, &spliced.value()).is_none());
    }

    #[test]
    fn b3_a_cookie_of_a_removed_or_foreign_key_is_no_cookie() {
        let cookie = SessionCookie::new(&keys(1, &[1, 2]), session(1)).unwrap().unwrap();
        assert!(SessionCookie::authenticate(&keys(2, &[1, 2]), &cookie.value()).is_some(), "the key is kept");
        assert!(SessionCookie::authenticate(&keys(2, &[2]), &cookie.value()).is_none());
        let foreign = RefreshKeys::new(1, &[(1, RefreshSecret::generate().unwrap())]).unwrap();
        assert!(SessionCookie::authenticate(&foreign, &cookie.value()).is_none());
    }

    #[test]
    fn b4_a_record_names_its_one_cookie_and_holds_nothing_that_is_one() {
        let keys = keys(1, &[1, 2]);
        let make = || SessionCookie::new(&keys, session(1)).unwrap().unwrap();
        let (one, other) = (make(), make());
        let binding = one.binding(&keys).unwrap();
        assert!(one.proves(&keys, &binding) && !other.proves(&keys, &binding));
        assert!(!one.proves(&keys, &BrowserBinding { key: 2, ..binding.clone() }));
        // Without the cookie's secret, an attacker can only make a different cookie.
        let mut body = *other.body;
        body[FIXED..SIGNED].copy_from_slice(&binding.digest);
        let tag = keys.cookie_tag(1, &body[..SIGNED]).unwrap();
        body[SIGNED..].copy_from_slice(&tag);
        let made = SessionCookie { body: Zeroizing::new(body) };
        let read = SessionCookie::authenticate(&keys, &made.value()).unwrap();
        assert!(!read.proves(&keys, &binding));
    }

    #[test]
    fn b5_store_and_keys_make_no_key_of_a_vault() {
        let keys = keys(1, &[1, 2]);
        let make = |n| SessionCookie::new(&keys, session(n)).unwrap().unwrap();
        let cookie = make(1);
        let vault = cookie.vault(&keys).unwrap();
        let again = SessionCookie::authenticate(&keys, &cookie.value()).unwrap().vault(&keys).unwrap();
        assert_eq!((vault.id, &vault.secret), (again.id, &again.secret));
        assert_eq!(format!("{vault:?}"), "VaultSecret(…)");
        let other = make(1).vault(&keys).unwrap();
        assert!(other.id == vault.id && other.secret != vault.secret);
        assert_ne!(make(2).vault(&keys).unwrap().id, vault.id);
        let binding = cookie.binding(&keys).unwrap();
        assert!(binding.digest != *vault.secret && binding.digest != vault.id);
        let foreign = RefreshKeys::new(2, &[(2, RefreshSecret::generate().unwrap())]).unwrap();
        assert!(cookie.vault(&foreign).is_none());
    }

    #[test]
    fn b2_a_cookie_does_not_print() {
        let keys = keys(1, &[1]);
        let cookie = SessionCookie::new(&keys, session(1)).unwrap().unwrap();
        let printed = format!("{cookie:?}");
        assert!(printed.contains(&session(1).to_string()) && !printed.contains(&cookie.value()[30..60]), "{printed}");
    }
}
