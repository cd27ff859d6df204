//! Access tokens: any number of good ones, and the bad ones that every gateway must refuse.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rotogate::clock::Timestamp;
use rotogate::session::{Generation, Scope, SessionId};
use rotogate_core::token::{Algorithm, Keyring, MintedClaims, SigningKey, mint};

use crate::keys::{AUDIENCE, ISSUER};

/// The lifetime of tokens: longer than any run.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// More than any gateway's leeway.
const LONG_AGO: Duration = Duration::from_secs(3600);

pub const CLIENT: &str = "web";

/// The present, to the second.
pub fn now() -> Timestamp {
    Timestamp::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
}

/// The session of the token with this number, the same for every algorithm.
pub fn session(begun: Timestamp, number: usize) -> SessionId {
    let mut random = [0; 10];
    random[1..9].copy_from_slice(&(number as u64).to_be_bytes());
    // Its last byte picks the shard of the revocation list.
    random[9] = number.to_le_bytes()[0];
    SessionId::new(begun, random)
}

pub fn subject(number: usize) -> String {
    format!("user-{number}")
}

/// Mints tokens of one algorithm.
struct Mint<'a> {
    key: &'a SigningKey,
    audience: [Box<str>; 1],
    scope: Scope,
    begun: Timestamp,
}

impl<'a> Mint<'a> {
    fn new(keyring: &'a Keyring, algorithm: Algorithm, begun: Timestamp) -> Result<Self> {
        let key = keyring.signing_keys().find(|key| key.algorithm() == algorithm).context("a key of the algorithm")?;
        Ok(Self { key, audience: [AUDIENCE.into()], scope: Scope::parse("read write")?, begun })
    }

    fn token(&self, number: usize, expires: Timestamp) -> Result<String> {
        let claims = MintedClaims {
            issuer: ISSUER,
            subject: &subject(number),
            audience: &self.audience,
            expires,
            issued_at: expires.minus(LIFETIME),
            jti: &format!("{number:022}"),
            client: CLIENT,
            scope: &self.scope,
            session: Some((session(self.begun, number), Generation::FIRST)),
            account: None,
            bound_to: None,
            certificate: None,
            vouched_by: None,
            delegation: None,
            own: None,
            style: Default::default(),
        };
        Ok(mint(self.key, &claims)?.expose().to_owned())
    }
}

/// Makes this many tokens, each of another session that began at `begun`. On all processors, because RSA is slow.
pub fn make(keyring: &Keyring, algorithm: Algorithm, begun: Timestamp, number: usize) -> Result<Arc<[String]>> {
    let mint = Mint::new(keyring, algorithm, begun)?;
    let expires = begun.plus(LIFETIME);
    let threads = std::thread::available_parallelism()?.get();
    let part = number.div_ceil(threads).max(1);
    let parts: Vec<Result<Vec<String>>> = std::thread::scope(|scope| {
        let mint = &mint;
        let parts: Vec<_> = (0..number)
            .step_by(part)
            .map(|from| scope.spawn(move || (from..number.min(from + part)).map(|n| mint.token(n, expires)).collect()))
            .collect();
        let panicked = |_| Err(anyhow::anyhow!("a thread that mints panicked"));
        parts.into_iter().map(|part| part.join().unwrap_or_else(panicked)).collect()
    });
    Ok(parts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// Something that must be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// No token.
    None,
    /// One character of the signature was changed.
    Signature,
    /// The claims of one token with the signature of another.
    Claims,
    /// `alg` is `none`, and there is no signature.
    Unsigned,
    /// `alg` is `none`, with the signature of the original token.
    NoAlgorithm,
    /// Expired an hour ago.
    Expired,
}

/// All that must be refused.
pub fn bad(keyring: &Keyring, algorithm: Algorithm, begun: Timestamp) -> Result<Vec<(Bad, Option<String>)>> {
    let mint = Mint::new(keyring, algorithm, begun)?;
    let one = mint.token(0, begun.plus(LIFETIME))?;
    let other = mint.token(1, begun.plus(LIFETIME))?;
    let [head, claims, signature] = parts(&one)?;
    let [_, other_claims, _] = parts(&other)?;
    // Not the last character: some of its bits mean nothing.
    let mut bytes = signature.as_bytes().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] = if bytes[middle] == b'A' { b'B' } else { b'A' };
    // {"typ":"at+jwt","alg":"none"}
    let none = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJub25lIn0";
    Ok(vec![
        (Bad::None, None),
        (Bad::Signature, Some(format!("{head}.{claims}.{}", String::from_utf8(bytes)?))),
        (Bad::Claims, Some(format!("{head}.{other_claims}.{signature}"))),
        (Bad::Unsigned, Some(format!("{none}.{claims}."))),
        (Bad::NoAlgorithm, Some(format!("{none}.{claims}.{signature}"))),
        (Bad::Expired, Some(mint.token(0, begun.minus(LONG_AGO))?)),
    ])
}

fn parts(token: &str) -> Result<[&str; 3]> {
    let parts: Vec<&str> = token.split('.').collect();
    parts.try_into().ok().context("three parts")
}
