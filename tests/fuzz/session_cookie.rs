//! Session cookies: one spelling each, and only what a key of this gate made is one.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rotogate::session::SessionId;
use rotogate_core::clock::Timestamp;
use rotogate_core::token::SessionCookie;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::session_cookie::PREFIX;

use crate::input::target;

/// Stands for a good cookie in the corpus …
const PLACEHOLDER: char = '@';
/// … and this for one without its last character, which holds bits that mean nothing.
const SHORTENED: char = '~';

static KEYS: LazyLock<Arc<Keyring>> = LazyLock::new(|| Arc::new(Keyring::ephemeral().unwrap()));
static COOKIE: LazyLock<SessionCookie> = LazyLock::new(|| {
    let session = SessionId::new(Timestamp::from_secs(1), [7; 10]);
    SessionCookie::new(KEYS.refresh_keys(), session).unwrap().unwrap()
});

target!(
    /// Only the made cookie is authentic, in exactly its spelling.
    session_cookie,
    &["@", "~", "rc1_", "rg1_", "=", "_", "-", "A", "AA", "AAA", "+", "/", "\0", "\n", " "],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let (keys, ours) = (KEYS.refresh_keys(), COOKIE.value());
        let text = text.replace(PLACEHOLDER, &ours).replace(SHORTENED, &ours[..ours.len() - 1]);
        let Some(read) = SessionCookie::authenticate(keys, &text) else {
            assert_ne!(text, *ours);
            return;
        };
        assert_eq!(text, *ours, "a second spelling of a cookie, or one that we did not make");
        assert_eq!(read.session(), COOKIE.session());
        assert!(read.proves(keys, &COOKIE.binding(keys).unwrap()));
    }
);

target!(
    /// With any bit changed, what was made is no cookie.
    session_cookie_edited,
    &["\u{7f}\u{7f}", "\0\0"],
    |input| {
        let mut at = [0; 2];
        let length = input.len().min(at.len());
        at[..length].copy_from_slice(&input[..length]);
        let mut edited = URL_SAFE_NO_PAD.decode(COOKIE.value().strip_prefix(PREFIX).unwrap()).unwrap();
        let bit = usize::from(u16::from_be_bytes(at)) % (edited.len() * 8);
        edited[bit / 8] ^= 1 << (bit % 8);
        let edited = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(edited));
        assert!(SessionCookie::authenticate(KEYS.refresh_keys(), &edited).is_none(), "{bit}");
    }
);
