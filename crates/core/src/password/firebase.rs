//! The scrypt variant of Firebase Authentication (github.com/firebase/scrypt). scrypt derives a key from the password.
//! The hash is the project's signer key, encrypted with the derived key.

use std::sync::Arc;

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::BadHash;
use super::pbkdf2::number;
use super::scheme::CostClass;
use super::scrypt::ScryptCost;
use crate::random::are_equal;

const MAX_MEM_COST: u32 = 15;
const BROKEN: BadHash =
    BadHash("damaged; expected $firebase-scrypt$m=…,r=…$salt$hash, as `rotogate user import` writes it");
/// Exports use the URL-safe or the standard alphabet, with or without padding.
const URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The "Password hash parameters" from a project's console, which `Debug` does not show.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters(Arc<ParametersInner>);

#[derive(PartialEq, Eq)]
struct ParametersInner {
    signer_key: Zeroizing<Vec<u8>>,
    salt_separator: Vec<u8>,
    rounds: u32,
    mem_cost: u32,
}

crate::debug_with!(Parameters);

#[derive(Deserialize)]
struct File {
    base64_signer_key: SecretString,
    base64_salt_separator: String,
    rounds: u32,
    mem_cost: u32,
}

impl Parameters {
    /// Parses JSON with `base64_signer_key`, `base64_salt_separator`, `rounds` and `mem_cost`.
    ///
    /// # Errors
    /// A message with the problem, without the signer key.
    pub fn from_json(json: &str) -> Result<Self, String> {
        // The message from serde may repeat a secret value.
        let file: File = serde_json::from_str(json).map_err(|error| {
            format!(
                "{}:{}: expected JSON with the strings `base64_signer_key` and `base64_salt_separator` and the numbers \
                 `rounds` and `mem_cost`",
                error.line(),
                error.column()
            )
        })?;
        let signer_key = decode(file.base64_signer_key.expose_secret())
            .map(Zeroizing::new)
            .filter(|key| (16..=64).contains(&key.len()));
        let signer_key = signer_key.ok_or("base64_signer_key: expected base64 of 16 to 64 bytes")?;
        let salt_separator = decode(&file.base64_salt_separator).ok_or("base64_salt_separator: expected base64")?;
        cost(file.mem_cost, file.rounds).map_err(|error| error.to_string())?;
        Ok(Self(Arc::new(ParametersInner { signer_key, salt_separator, rounds: file.rounds, mem_cost: file.mem_cost })))
    }

    /// The stored hash for an exported account. `None` if `salt` or `hash` is not base64.
    pub fn hash_of(&self, salt: &str, hash: &str) -> Option<String> {
        let (salt, hash) = (STANDARD.encode(decode(salt)?), STANDARD.encode(decode(hash)?));
        Some(format!("$firebase-scrypt$m={},r={}${salt}${hash}", self.0.mem_cost, self.0.rounds))
    }
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL.decode(text.replace('+', "-").replace('/', "_")).ok()
}

fn cost(mem_cost: u32, rounds: u32) -> Result<ScryptCost, BadHash> {
    if mem_cost > MAX_MEM_COST {
        return Err(BadHash("too costly to check: the `mem_cost` of a Firebase hash must be at most 15"));
    }
    ScryptCost::new(mem_cost, rounds, 1)
}

pub(super) struct Firebase {
    parameters: Parameters,
    cost: ScryptCost,
    salt: Box<[u8]>,
    output: Box<[u8]>,
}

pub(super) fn parse(rest: &str, parameters: Option<&Parameters>) -> Result<Firebase, BadHash> {
    let fields: Vec<&str> = rest.split('$').collect();
    let [params, salt, output] = *fields else { return Err(BROKEN) };
    let (mem_cost, rounds) = params.strip_prefix("m=").and_then(|params| params.split_once(",r=")).ok_or(BROKEN)?;
    let cost = cost(number(mem_cost)?, number(rounds)?)?;
    let parameters = parameters.ok_or(BadHash(
        "a Firebase hash, but its project's parameters are missing; set `hash_parameters` in [directory] to their file",
    ))?;
    let decode = |text| STANDARD.decode(text).map_err(|_| BROKEN);
    let (salt, output) = (decode(salt)?, decode(output)?);
    if output.len() != parameters.0.signer_key.len() {
        return Err(BadHash("not as long as the signer key of its Firebase project"));
    }
    let salt = [salt.as_slice(), &parameters.0.salt_separator].concat();
    Ok(Firebase { parameters: parameters.clone(), cost, salt: salt.into(), output: output.into() })
}

impl Firebase {
    pub(super) fn class(&self) -> CostClass {
        self.cost.class()
    }

    pub(super) fn matches(&self, password: &[u8]) -> bool {
        let mut key = Zeroizing::new([0; 32]);
        let mut text = self.parameters.0.signer_key.clone();
        self.cost.run(password, &self.salt, key.as_mut_slice())
            && encrypt(key.as_slice(), &mut text).is_some()
            && are_equal(&self.output, &text)
    }
}

/// The counter of AES-CTR starts at zero, because each key is used only once.
fn encrypt(key: &[u8], text: &mut [u8]) -> Option<()> {
    let key = EncryptingKey::ctr(UnboundCipherKey::new(&AES_256, key).ok()?).ok()?;
    key.less_safe_encrypt(text, EncryptionContext::Iv128(FixedLength::from([0; 16]))).ok().map(|_| ())
}
