//! The text of API keys: one form, and nothing of a key is left in what is redacted.

use std::sync::LazyLock;

use rotogate::SecretString;
use rotogate_core::api_key::KeyPrefix;
use secrecy::ExposeSecret;

use crate::input::target;

/// Stands for a good key in the corpus.
const PLACEHOLDER: char = '@';

static ACME: LazyLock<(KeyPrefix, SecretString)> = LazyLock::new(|| {
    let prefix = KeyPrefix::new("acme").unwrap();
    let key = prefix.generate().unwrap().1;
    (prefix, key)
});

target!(
    /// Each text with the form of a key has 56 characters, and only the made key equals itself.
    k32_api_key,
    &["@", "acme_k1_", "acme_k1", "acme_k2_", "_", "&", "=", "?", "0", "zz", "\0", " ", "%20", "é"],
    |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let (prefix, key) = (&ACME.0, ACME.1.expose_secret());
        let text = text.replace(PLACEHOLDER, key);
        if let Some(id) = prefix.id_of(&text) {
            assert!(prefix.begins(&text) && text.len() == key.len() && text[8..].starts_with(id), "{text}");
        }
        let redacted = prefix.redacted(&text);
        assert_eq!(redacted.is_some(), text.contains("acme_k1_"), "{text}");
        if let Some(redacted) = redacted {
            assert!(!redacted.contains(&key[20..]), "{redacted}");
        }
    }
);
