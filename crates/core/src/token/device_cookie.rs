//! The short-lived cookie of a session's device, and the challenges that the device signs (Device Bound Session
//! Credentials).
//!
//! The gate stores neither cookies nor challenges. Each contains an HMAC tag that the gate verifies.
//!
//! ```text
//! cookie    = rd1_ + base64url( kid 1 ‖ sid 16 ‖ expiry 8 ‖ HMAC(K_device[kid], 1 ‖ kid ‖ sid ‖ expiry)[..16] )
//! challenge = base64url( time 8 ‖ HMAC(K_device[kid], 2 ‖ sid ‖ time)[..16] )
//! ```

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::keyring::RefreshKeys;
use crate::clock::Timestamp;
use crate::random::are_equal;
use crate::session::SessionId;

/// The name of the cookie. Chromium does not bind cookies whose names begin with `__Host-Http-`.
pub const NAME: &str = "__Host-rg-d";
/// The prefix of every value, by which secret scanners find leaked values.
pub const PREFIX: &str = "rd1_";
/// The length of every value.
pub const LENGTH: usize = PREFIX.len() + BODY.div_ceil(3) * 4 - 1;

const TAG: usize = 16;
const TIME: usize = 8;
const SIGNED: usize = 1 + 16 + TIME;
const BODY: usize = SIGNED + TAG;
/// These prefixes ensure that a cookie and a challenge never have the same tag.
const OF_COOKIE: &[u8] = &[1];
const OF_CHALLENGE: &[u8] = &[2];

/// Creates a session's device cookie. `key` is the key id from the session's cookie.
///
/// Returns `None` if the key ring no longer has that key.
pub fn make(keys: &RefreshKeys, key: u8, session: SessionId, expires: Timestamp) -> Option<Zeroizing<String>> {
    let mut body = Zeroizing::new([&[key], session.as_bytes().as_slice(), &time_of(expires)].concat());
    let tag = keys.device_tag(key, &[OF_COOKIE, &body])?;
    body.extend_from_slice(&tag);
    let mut value = Zeroizing::new(String::with_capacity(LENGTH));
    value.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(body.as_slice(), &mut value);
    Some(value)
}

/// The expiry of this session's device cookie, or `None` for any other value.
// Requirement B48.
pub fn expiry(keys: &RefreshKeys, key: u8, session: SessionId, value: &[u8]) -> Option<Timestamp> {
    // Strict decoding accepts one encoding per cookie.
    let body = URL_SAFE_NO_PAD.decode(value.strip_prefix(PREFIX.as_bytes())?).ok()?;
    let (signed, tag) = body.split_at_checked(SIGNED)?;
    let expected = keys.device_tag(key, &[OF_COOKIE, signed])?;
    let (begin, time) = signed.split_last_chunk::<TIME>()?;
    let is_its = are_equal(&expected, tag) && begin.split_first() == Some((&key, session.as_bytes().as_slice()));
    is_its.then(|| Timestamp::from_millis(u64::from_be_bytes(*time)))
}

/// Creates a challenge for the browser of a session.
pub fn challenge(keys: &RefreshKeys, key: u8, session: SessionId, now: Timestamp) -> Option<String> {
    let time = time_of(now);
    let tag = keys.device_tag(key, &[OF_CHALLENGE, session.as_bytes(), &time])?;
    Some(URL_SAFE_NO_PAD.encode([time.as_slice(), &tag].concat()))
}

/// When this session's challenge was issued, or `None` if it is invalid.
// Requirement B49.
pub fn challenged_at(keys: &RefreshKeys, key: u8, session: SessionId, text: &str) -> Option<Timestamp> {
    let body = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (time, tag) = body.split_first_chunk::<TIME>()?;
    let expected = keys.device_tag(key, &[OF_CHALLENGE, session.as_bytes(), time])?;
    are_equal(&expected, tag).then(|| Timestamp::from_millis(u64::from_be_bytes(*time)))
}

fn time_of(time: Timestamp) -> [u8; TIME] {
    time.as_millis().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::keyring::RefreshSecret;

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn keys() -> RefreshKeys {
        let secret = |id: u8| (id, RefreshSecret::from_text(URL_SAFE_NO_PAD.encode([id; 32]).as_bytes()).unwrap());
        RefreshKeys::new(1, &[secret(1), secret(2)]).unwrap()
    }

    fn session(n: u8) -> SessionId {
        SessionId::new(NOW, [n; 10])
    }

    #[test]
    fn b48_a_device_cookie_is_of_one_session_one_key_and_one_spelling() {
        let keys = keys();
        let value = make(&keys, 1, session(1), NOW).unwrap();
        assert_eq!(value.len(), LENGTH);
        assert_eq!(expiry(&keys, 1, session(1), value.as_bytes()), Some(NOW));
        assert_eq!(expiry(&keys, 1, session(2), value.as_bytes()), None);
        assert_eq!(expiry(&keys, 2, session(1), value.as_bytes()), None);
        assert_eq!(make(&keys, 3, session(1), NOW), None);
        for at in 0..value.len() {
            for other in [b'A', b'b', b'-', b'='] {
                let mut forged = value.as_bytes().to_vec();
                if forged[at] != other {
                    forged[at] = other;
                    assert_eq!(expiry(&keys, 1, session(1), &forged), None, "{at}");
                }
            }
        }
        for garbage in [&b""[..], b"rd1_", b"rc1_", &value.as_bytes()[..LENGTH - 1], b"\xff"] {
            assert_eq!(expiry(&keys, 1, session(1), garbage), None);
        }
    }

    #[test]
    fn b49_a_challenge_is_of_one_session_and_no_cookie() {
        let keys = keys();
        let text = challenge(&keys, 1, session(1), NOW).unwrap();
        assert_eq!(challenged_at(&keys, 1, session(1), &text), Some(NOW));
        assert_eq!(challenged_at(&keys, 1, session(2), &text), None);
        assert_eq!(challenged_at(&keys, 2, session(1), &text), None);
        let later = challenge(&keys, 1, session(1), Timestamp::from_secs(1_800_000_001)).unwrap();
        assert_eq!(challenged_at(&keys, 1, session(1), &format!("{}{}", &later[..11], &text[11..])), None);
        for garbage in ["", "AAAA", &text[..31], &format!("{text}A"), "null"] {
            assert_eq!(challenged_at(&keys, 1, session(1), garbage), None, "{garbage}");
        }
        assert_eq!(expiry(&keys, 1, session(1), format!("{PREFIX}{text}").as_bytes()), None);
    }
}
