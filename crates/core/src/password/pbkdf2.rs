//! PBKDF2 with HMAC, as in Django, passlib, ASP.NET Core Identity, Spring and Kuzzle.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA1, PBKDF2_HMAC_SHA256, PBKDF2_HMAC_SHA512};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64ct::{Base64Pbkdf2, Encoding};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::BadHash;
use super::scheme::CostClass;

const MAX_ITERATIONS: u32 = 5_000_000;
const TOO_DEAR: BadHash = BadHash("too costly to check: a PBKDF2 hash must have at most 5000000 iterations");
const BROKEN: BadHash = BadHash("damaged: its parts do not form a PBKDF2 hash");

/// The settings of Spring's `Pbkdf2PasswordEncoder`, if they are not the defaults.
#[derive(Clone, Debug, Default)]
pub struct Spring {
    /// The number of iterations. The default is 185 000 for `{pbkdf2}` and 310 000 for `{pbkdf2@SpringSecurity_v5_8}`.
    pub iterations: Option<u32>,
    /// The secret that is appended to each salt. Empty by default.
    pub secret: Option<SecretString>,
}

pub(super) struct Pbkdf2 {
    algorithm: pbkdf2::Algorithm,
    bits: u16,
    iterations: NonZeroU32,
    salt: Box<[u8]>,
    output: Box<[u8]>,
    name: &'static str,
}

impl Pbkdf2 {
    fn new(bits: u16, iterations: u32, salt: &[u8], output: &[u8], name: &'static str) -> Result<Self, BadHash> {
        if iterations > MAX_ITERATIONS {
            return Err(TOO_DEAR);
        }
        let algorithm = match bits {
            160 => PBKDF2_HMAC_SHA1,
            256 => PBKDF2_HMAC_SHA256,
            512 => PBKDF2_HMAC_SHA512,
            _ => return Err(BROKEN),
        };
        let iterations = NonZeroU32::new(iterations).ok_or(BROKEN)?;
        if !(16..=64).contains(&output.len()) || salt.is_empty() {
            return Err(BadHash("damaged: the salt is missing, or the PBKDF2 hash does not have 16 to 64 bytes"));
        }
        let hash = Self { algorithm, bits, iterations, salt: salt.into(), output: output.into(), name };
        match hash.class() {
            CostClass::Pbkdf2 { iterations, .. } if iterations > MAX_ITERATIONS => Err(TOO_DEAR),
            _ => Ok(hash),
        }
    }

    pub(super) fn dummy(bits: u16, iterations: u32) -> Result<Self, BadHash> {
        Self::new(bits, iterations, &[0; 16], vec![0; usize::from(bits / 8)].as_slice(), "pbkdf2")
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn class(&self) -> CostClass {
        // Each block of the output needs all iterations.
        let blocks = self.output.len().div_ceil(usize::from(self.bits / 8));
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        CostClass::Pbkdf2 { bits: self.bits, iterations: self.iterations.get().saturating_mul(blocks) }
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        pbkdf2::verify(self.algorithm, self.iterations, &self.salt, password, &self.output).is_ok()
    }
}

/// Parses a decimal number without signs, blanks or leading zeros.
pub(super) fn number(text: &str) -> Result<u32, BadHash> {
    let is_number = !text.starts_with('0') && text.bytes().all(|c| c.is_ascii_digit());
    match text.parse() {
        Ok(number) if is_number => Ok(number),
        // A cost above `u32::MAX` exceeds the limit in any case.
        Err(_) if is_number && !text.is_empty() => Ok(u32::MAX),
        _ => Err(BROKEN),
    }
}

/// The format is `pbkdf2_sha256$N$salt$hash`. The salt is text, and the hash is base64.
pub(super) fn parse_django(bits: u16, rest: &str) -> Result<Pbkdf2, BadHash> {
    let fields: Vec<&str> = rest.split('$').collect();
    let [iterations, salt, output] = *fields else { return Err(BROKEN) };
    let output = STANDARD.decode(output).map_err(|_| BROKEN)?;
    if output.len() != usize::from(bits / 8) {
        return Err(BROKEN);
    }
    let name = if bits == 160 { "pbkdf2-sha1" } else { "pbkdf2-sha256" };
    Pbkdf2::new(bits, number(iterations)?, salt.as_bytes(), &output, name)
}

/// The format is `$pbkdf2-sha256$N$salt$hash`. The base64 is unpadded, with `.` instead of `+`.
pub(super) fn parse_passlib(bits: u16, rest: &str) -> Result<Pbkdf2, BadHash> {
    let fields: Vec<&str> = rest.split('$').collect();
    let [iterations, salt, output] = *fields else { return Err(BROKEN) };
    let decode = |text| Base64Pbkdf2::decode_vec(text).map_err(|_| BROKEN);
    let output = decode(output)?;
    if output.len() != usize::from(bits / 8) {
        return Err(BROKEN);
    }
    Pbkdf2::new(bits, number(iterations)?, &decode(salt)?, &output, name(bits))
}

fn name(bits: u16) -> &'static str {
    match bits {
        160 => "pbkdf2-sha1",
        256 => "pbkdf2-sha256",
        _ => "pbkdf2-sha512",
    }
}

/// The format is base64 of a version byte and that version's fields. The error is `None` for a string in another
/// format.
pub(super) fn parse_asp_net(text: &str) -> Result<Pbkdf2, Option<BadHash>> {
    let bytes = STANDARD.decode(text).map_err(|_| None)?;
    let part = |from: usize, to: usize| bytes.get(from..to).ok_or(Some(BROKEN));
    let big_endian = |at: usize| part(at, at + 4).map(|b| b.iter().fold(0_u32, |n, byte| n << 8 | u32::from(*byte)));
    match bytes.first() {
        Some(0) if bytes.len() == 49 => Ok(Pbkdf2::new(160, 1000, part(1, 17)?, part(17, 49)?, "asp-net-v2")?),
        Some(1) => {
            let bits = match big_endian(1)? {
                0 => 160,
                1 => 256,
                2 => 512,
                _ => return Err(Some(BROKEN)),
            };
            let length = usize::try_from(big_endian(9)?).ok().filter(|n| (16..=64).contains(n)).ok_or(Some(BROKEN))?;
            Ok(Pbkdf2::new(
                bits,
                big_endian(5)?,
                part(13, 13 + length)?,
                part(13 + length, bytes.len())?,
                "asp-net-v3",
            )?)
        }
        _ => Err(None),
    }
}

/// Salt and hash are in hexadecimal digits.
pub(super) fn parse_spring(encoder: &str, rest: &str, spring: &Spring) -> Result<Pbkdf2, BadHash> {
    let (bits, salt_length, default) = match encoder {
        "pbkdf2" => (160, 8, 185_000),
        "pbkdf2@SpringSecurity_v5_8" => (256, 16, 310_000),
        _ => return Err(BadHash("an unknown Spring encoder")),
    };
    let bytes = unhex(rest).ok_or(BROKEN)?;
    let (salt, output) = bytes.split_at_checked(salt_length).filter(|(_, output)| output.len() == 32).ok_or(BROKEN)?;
    let secret = spring.secret.as_ref().map_or("", |secret| secret.expose_secret());
    let salt = [salt, secret.as_bytes()].concat();
    Pbkdf2::new(bits, spring.iterations.unwrap_or(default), &salt, output, name(bits))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if !text.len().is_multiple_of(2) {
        return None;
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// The password in a user document of Kuzzle's strategy `local` (kuzzle-plugin-auth-passport-local 6).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KuzzlePassword {
    user_password: String,
    user_salt: String,
    algorithm: Option<String>,
    stretching: Option<bool>,
    pepper: Option<bool>,
}

crate::debug_with!(KuzzlePassword { algorithm, stretching, pepper });

impl KuzzlePassword {
    /// The stored hash in passlib's format.
    ///
    /// The plugin stores several blocks of PBKDF2 output. The first block suffices to check the password.
    ///
    /// # Errors
    /// A message with the field and the problem, without the field's value.
    pub fn stored_hash(&self) -> Result<String, &'static str> {
        const ITERATIONS: u32 = 10_000;
        let (Some(algorithm), Some(stretching)) = (&self.algorithm, self.stretching) else {
            return Err(
                "algorithm or stretching is missing, so it is unknown how Kuzzle made this hash. Kuzzle adds both \
                        when this user next logs in there",
            );
        };
        if self.pepper == Some(true) {
            return Err("pepper: expected false, because the pepper is not in the document");
        }
        if !stretching {
            return Err(
                "stretching: expected true, because a hash of a single round is too weak. Set `stretching` to \
                        true in Kuzzle, and let this user log in there once, or leave the user out and add the user \
                        with a new password: rotogate user add",
            );
        }
        let (scheme, block, length) = match algorithm.as_str() {
            "sha1" | "RSA-SHA1" | "sha1WithRSAEncryption" => ("pbkdf2", 20, 40),
            "sha256" | "RSA-SHA256" | "sha256WithRSAEncryption" => ("pbkdf2-sha256", 32, 256),
            "sha512" | "RSA-SHA512" | "sha512WithRSAEncryption" => ("pbkdf2-sha512", 64, 512),
            _ => return Err("algorithm: expected sha1, sha256 or sha512"),
        };
        // The length shows the encoding, because the document does not contain the setting `digest`.
        let decoded = [unhex(&self.user_password), STANDARD.decode(&self.user_password).ok()];
        let output = decoded.into_iter().flatten().find(|output| output.len() == length);
        let output = output.as_ref().and_then(|output| output.get(..block));
        let output =
            output.ok_or("userPassword: expected a Kuzzle hash of the full length, in hexadecimal or base64")?;
        let (salt, output) =
            (Base64Pbkdf2::encode_string(self.user_salt.as_bytes()), Base64Pbkdf2::encode_string(output));
        Ok(format!("${scheme}${ITERATIONS}${salt}${output}"))
    }
}
