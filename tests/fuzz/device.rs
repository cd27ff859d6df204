//! The headers of Device Bound Session Credentials, and the cookie of a device: what a stranger can send.

use std::sync::{Arc, LazyLock};

use rotogate::session::SessionId;
use rotogate_core::clock::Timestamp;
use rotogate_core::dpop::device::{read_registration, sent_text};
use rotogate_core::token::device_cookie;
use rotogate_core::token::keyring::Keyring;
use support::device::Device;

use crate::input::target;

/// Stands for a good proof, or a good cookie, in the corpus.
const PLACEHOLDER: char = '@';
const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

static KEYS: LazyLock<Arc<Keyring>> = LazyLock::new(|| Arc::new(Keyring::ephemeral().unwrap()));
static PROOF: LazyLock<String> = LazyLock::new(|| Device::default().registration("challenge"));

fn session() -> SessionId {
    SessionId::new(NOW, [7; 10])
}

target!(
    /// A header is one text without its quotes, and only the one good proof registers.
    device_header,
    &["@", "\"@\"", "\"", "\\", ";id=\"x\"", ",", ".", " ", "eyJ", "\0", "\t"],
    |input| {
        let whole = String::from_utf8_lossy(input).replace(PLACEHOLDER, &PROOF);
        let Some(text) = sent_text(whole.as_bytes()) else { return };
        assert!(whole.contains(text) && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\,;".contains(&byte)));
        assert_eq!(sent_text(text.as_bytes()), Some(text), "it has one reading");
        if let Ok(read) = read_registration(text) {
            assert_eq!((text, &*read.challenge), (PROOF.as_str(), "challenge"));
        }
    }
);

target!(
    /// Only a made cookie proves a device, in exactly its spelling.
    device_cookie,
    &["@", "rd1_", "rc1_", "=", "_", "-", "A", "AA", "+", "\0", "\n"],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let (keys, key) = (KEYS.refresh_keys(), KEYS.refresh_keys().current());
        let ours = device_cookie::make(keys, key, session(), NOW).unwrap();
        let text = text.replace(PLACEHOLDER, &ours);
        let expiry = device_cookie::expiry(keys, key, session(), text.as_bytes());
        assert_eq!(expiry, (text == *ours).then_some(NOW), "a second spelling, or one that we did not make");
        assert_eq!(device_cookie::challenged_at(keys, key, session(), &text), None);
    }
);
