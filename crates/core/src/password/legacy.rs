//! Weak schemes, accepted only if the operator lists them: phpass, and SHA-256 and SHA-512 of crypt(3).

use base64ct::{Base64ShaCrypt, Encoding};
use md5::{Digest, Md5};
use sha_crypt::PasswordVerifier;

use super::BadHash;
use super::pbkdf2::number;
use super::scheme::CostClass;
use crate::random::are_equal;

const MAX_ROUNDS: u32 = 1_000_000;
const TOO_DEAR: BadHash = BadHash("too costly to check: a hash of this scheme must have at most 1000000 rounds");

pub(super) struct Phpass {
    rounds: u32,
    salt: [u8; 8],
    output: [u8; 16],
}

/// `rest` has a digit for the logarithm of the rounds, eight characters of salt, and the hash.
pub(super) fn parse_phpass(rest: &str) -> Result<Phpass, BadHash> {
    const BROKEN: BadHash = BadHash("damaged: its parts do not form a phpass hash");
    let (head, output) = rest.split_at_checked(9).ok_or(BROKEN)?;
    let (log, salt) = head.split_at_checked(1).ok_or(BROKEN)?;
    let digits = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let log = digits.find(log).and_then(|log| u32::try_from(log).ok()).ok_or(BROKEN)?;
    let rounds = 1_u32.checked_shl(log).filter(|rounds| *rounds <= MAX_ROUNDS).ok_or(TOO_DEAR)?;
    let output = Base64ShaCrypt::decode_vec(output).ok().and_then(|output| output.try_into().ok()).ok_or(BROKEN)?;
    if log < 7 {
        return Err(BROKEN);
    }
    Ok(Phpass { rounds, salt: salt.as_bytes().try_into().map_err(|_| BROKEN)?, output })
}

impl Phpass {
    pub(super) fn dummy(rounds: u32) -> Self {
        Self { rounds, salt: [0; 8], output: [0; 16] }
    }

    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut digest = Md5::new().chain_update(self.salt).chain_update(password).finalize();
        for _ in 0..self.rounds {
            digest = Md5::new().chain_update(digest).chain_update(password).finalize();
        }
        are_equal(&self.output, &digest)
    }
}

pub(super) struct ShaCrypt {
    bits: u16,
    rounds: u32,
    text: Box<str>,
}

/// The format is `$5$rounds=…$salt$hash` or `$6$rounds=…$salt$hash`. The default is 5000 rounds.
pub(super) fn parse_sha_crypt(bits: u16, text: &str, rest: &str) -> Result<ShaCrypt, BadHash> {
    const BROKEN: BadHash = BadHash("damaged: its parts do not form a hash of crypt(3)");
    let mut fields: Vec<&str> = rest.split('$').collect();
    let rounds = match fields.first().and_then(|first| first.strip_prefix("rounds=")) {
        Some(rounds) => {
            fields.remove(0);
            number(rounds)?
        }
        None => 5000,
    };
    match rounds {
        1000..=MAX_ROUNDS => {}
        0..1000 => return Err(BROKEN),
        _ => return Err(TOO_DEAR),
    }
    let [salt, output] = *fields else { return Err(BROKEN) };
    let is_text = |text: &str| text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'/'));
    let length = if bits == 256 { 43 } else { 86 };
    if !(1..=16).contains(&salt.len()) || output.len() != length || !is_text(salt) || !is_text(output) {
        return Err(BROKEN);
    }
    Ok(ShaCrypt { bits, rounds, text: text.into() })
}

impl ShaCrypt {
    pub(super) fn dummy(bits: u16, rounds: u32) -> Result<Self, BadHash> {
        let (id, length) = if bits == 256 { (5, 43) } else { (6, 86) };
        let rest = format!("rounds={rounds}$................${}", ".".repeat(length));
        parse_sha_crypt(bits, &format!("${id}${rest}"), &rest)
    }

    pub(super) fn name(&self) -> &'static str {
        if self.bits == 256 { "sha256-crypt" } else { "sha512-crypt" }
    }

    pub(super) fn class(&self) -> CostClass {
        CostClass::ShaCrypt { bits: self.bits, rounds: self.rounds }
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        sha_crypt::ShaCrypt::default().verify_password(password, &*self.text).is_ok()
    }
}
