//! The format of an API key: `acme_k1_`, 12 characters of id, 30 of secret and 6 of CRC-32, in base62. A secret scanner
//! can find keys with `\bacme_k1_[0-9A-Za-z]{48}\b`. The CRC detects a mistyped key without reading the store.

use std::fmt;

use secrecy::SecretString;
use zeroize::Zeroizing;

use crate::random::{NoRandomness, random};

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const MARK: &str = "_k1_";
const ID: usize = 12;
/// The length of the id (71 bits) plus the secret (178 bits), in characters.
const BODY: usize = ID + 30;
/// Six characters are enough, because 62⁶ is more than 2³².
const CHECK: usize = 6;

/// The prefix of all API keys of a gate.
///
/// ```
/// use rotogate::gate::KeyPrefix;
///
/// assert!(KeyPrefix::new("acme").is_some() && KeyPrefix::new("Acme Inc.").is_none());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPrefix(Box<str>);

impl Default for KeyPrefix {
    fn default() -> Self {
        Self(format!("rotogate{MARK}").into())
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl KeyPrefix {
    /// Creates a prefix from its name. Returns `None` unless the name consists of 2 to 12 characters from a-z and 0-9.
    pub fn new(name: &str) -> Option<Self> {
        let is_name =
            (2..=12).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        is_name.then(|| Self(format!("{name}{MARK}").into()))
    }

    /// The name in the prefix.
    pub fn name(&self) -> &str {
        self.0.strip_suffix(MARK).unwrap_or_default()
    }

    /// Returns whether a string starts with the prefix.
    pub fn begins(&self, text: &str) -> bool {
        text.starts_with(&*self.0)
    }

    /// The id of an API key, or `None` if the string is not an API key.
    // Requirement K1.
    pub fn id_of<'a>(&self, text: &'a str) -> Option<&'a str> {
        let rest = text.strip_prefix(&*self.0)?;
        let is_form = rest.len() == BODY + CHECK && rest.bytes().all(|b| b.is_ascii_alphanumeric());
        let (body, check) = rest.split_at_checked(BODY).filter(|_| is_form)?;
        let whole = text.get(..text.len() - CHECK)?;
        (checksum(whole.as_bytes()) == *check.as_bytes()).then(|| body.get(..ID))?
    }

    /// Generates an API key with its id.
    ///
    /// # Errors
    /// The system does not provide random bytes.
    #[doc(hidden)]
    pub fn generate(&self) -> Result<(Box<str>, SecretString), NoRandomness> {
        let mut text = Zeroizing::new(String::with_capacity(self.0.len() + BODY + CHECK));
        text.push_str(&self.0);
        while text.len() < self.0.len() + BODY {
            // 248 is four times 62, so each character is equally likely.
            let [byte] = *random::<1>()?;
            if byte < 248 {
                text.extend(ALPHABET.get(usize::from(byte % 62)).map(|b| char::from(*b)));
            }
        }
        let check = checksum(text.as_bytes());
        text.extend(check.map(char::from));
        let id = text.get(self.0.len()..self.0.len() + ID).unwrap_or_default();
        Ok((id.into(), SecretString::from(text.as_str())))
    }

    /// Replaces the secret part of each API key by `…`.
    pub fn redacted(&self, text: &str) -> Option<String> {
        let mut parts = text.split(&*self.0);
        let mut out = parts.next()?.to_owned();
        let mut is_changed = false;
        for part in parts {
            let end = part.bytes().position(|b| !b.is_ascii_alphanumeric()).unwrap_or(part.len());
            let kept = end.min(ID);
            out.push_str(&self.0);
            out.push_str(part.get(..kept).unwrap_or_default());
            out.push('…');
            out.push_str(part.get(end..).unwrap_or_default());
            is_changed = true;
        }
        is_changed.then_some(out)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECK] {
    const TABLE: [u32; 16] = table();
    let step =
        |crc: u32, nibble: u8| TABLE.get(((crc ^ u32::from(nibble)) & 15) as usize).map_or(0, |t| t ^ (crc >> 4));
    let mut rest = !bytes.iter().fold(!0_u32, |crc, byte| step(step(crc, *byte), byte >> 4));
    let mut digits = [b'0'; CHECK];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET.get((rest % 62) as usize).copied().unwrap_or(b'0');
        rest /= 62;
    }
    digits
}

const fn table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut at = 0;
    while at < 16 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 4 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl KeyPrefix {
        pub(crate) fn guessed(&self, id: &str) -> String {
            let whole = format!("{}{id}{}", self.0, "0".repeat(BODY - ID));
            let check = String::from_utf8_lossy(&checksum(whole.as_bytes())).into_owned();
            whole + &check
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn k1_a_key_has_one_form_and_any_changed_character_is_known_without_the_store() {
        let acme = KeyPrefix::new("acme").unwrap();
        let (id, key) = acme.generate().unwrap();
        let key = key.expose_secret();
        assert_eq!((key.len(), acme.id_of(key)), (8 + 48, Some(&*id)));
        assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'), "a double click selects it: {key}");
        for at in 0..key.len() {
            let mut changed = key.as_bytes().to_vec();
            changed[at] = if changed[at] == b'x' { b'y' } else { b'x' };
            assert_eq!(acme.id_of(std::str::from_utf8(&changed).unwrap()), None, "{at}");
        }
        for other in [&key[..key.len() - 1], &format!("{key}0"), &format!(" {key}"), "", "acme_k1_"] {
            assert_eq!(acme.id_of(other), None, "{other}");
        }
        let umlaut = format!("acme_k1_{}ä", "a".repeat(46));
        assert_eq!(acme.id_of(&umlaut), None);
        assert_ne!(acme.generate().unwrap().0, id);
        for bad in ["a", "Acme", "ac_me", "thirteenchars", ""] {
            assert_eq!(KeyPrefix::new(bad), None, "{bad}");
        }
        assert_eq!(checksum(b"123456789"), *b"3jZRME", "0xcbf43926, the check value of CRC-32");
    }

    #[test]
    fn k2_a_key_in_a_text_is_redacted_by_its_prefix_whatever_follows() {
        let acme = KeyPrefix::new("acme").unwrap();
        let (id, key) = acme.generate().unwrap();
        let target = format!("/x?a={}&b=acme_k1_cut&c={}", key.expose_secret(), key.expose_secret());
        let redacted = acme.redacted(&target).unwrap();
        assert_eq!(redacted, format!("/x?a=acme_k1_{id}…&b=acme_k1_cut…&c=acme_k1_{id}…"));
        assert_eq!(acme.redacted("/x?a=acme_k2_"), None);
    }
}
