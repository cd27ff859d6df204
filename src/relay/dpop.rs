//! DPoP proofs (RFC 9449 §4.3). The provider verifies a proof that it gets; the relay verifies one because an answer may
//! be given again, and then no provider sees the proof.

use std::time::Duration;

use jsonwebtoken::jwk::ThumbprintHash;
use jsonwebtoken::{DecodingKey, Validation};
use serde::Deserialize;

use crate::clock::Timestamp;
use crate::token::Algorithm;
use crate::token::algorithm::Family;
use crate::token::keyring::VerifyingKey;

/// The longest proof, in bytes. An RSA key of 8192 bits and its signature fit.
const MAX_PROOF: usize = 8 << 10;
/// The longest `jti`, in bytes.
const MAX_JTI: usize = 256;
/// How far a proof's `iat` may be from our time.
const WINDOW: Duration = Duration::from_secs(60);
/// How many proofs are remembered.
const MAX_SEEN: u64 = 100_000;

/// The proofs that were seen.
pub(super) struct Proofs {
    seen: moka::sync::Cache<(String, Box<str>), ()>,
}

impl Default for Proofs {
    fn default() -> Self {
        // Longer than a proof is good, at either end of the window.
        let seen = moka::sync::Cache::builder().max_capacity(MAX_SEEN).time_to_live(4 * WINDOW).build();
        Self { seen }
    }
}

#[derive(Deserialize)]
struct Claims {
    jti: Box<str>,
    htm: Box<str>,
    htu: Box<str>,
    iat: u64,
}

impl Proofs {
    /// The thumbprint of the key of a good proof for a POST to `url`, which was not seen before.
    pub(super) fn check(&self, proof: &str, url: &str, now: Timestamp) -> Result<String, &'static str> {
        let (jkt, claims) = verify(proof)?;
        if &*claims.htm != "POST" {
            return Err("htm is another method");
        }
        let without_query = claims.htu.split(['?', '#']).next().unwrap_or_default();
        if without_query != url {
            return Err("htu is not the URL of the provider's token endpoint");
        }
        let issued_at = Timestamp::from_secs(claims.iat);
        if issued_at.since(now).max(now.since(issued_at)) > WINDOW {
            return Err("iat is too far from now");
        }
        if claims.jti.is_empty() || claims.jti.len() > MAX_JTI {
            return Err("jti is empty or too long");
        }
        let is_new = self.seen.entry((jkt.clone(), claims.jti)).or_insert(()).is_fresh();
        if is_new { Ok(jkt) } else { Err("the proof was used before") }
    }
}

/// The thumbprint of the key in the proof's header, and the claims that it signed.
fn verify(proof: &str) -> Result<(String, Claims), &'static str> {
    const MALFORMED: &str = "not a proof";
    if proof.len() > MAX_PROOF {
        return Err("the proof is too long");
    }
    let header = jsonwebtoken::decode_header(proof).map_err(|_| MALFORMED)?;
    if header.typ.as_deref() != Some("dpop+jwt") {
        return Err("typ is not dpop+jwt");
    }
    let signed_by = Algorithm::ALL.into_iter().find(|algorithm| algorithm.jwt() == header.alg);
    let algorithm = signed_by.filter(|algorithm| algorithm.family() != Family::Hmac).ok_or("alg is not accepted")?;
    let jwk = header.jwk.ok_or("the key is missing")?;
    // Refuses weak keys, and keys of another kind than the algorithm takes.
    VerifyingKey::from_jwk(&jwk, algorithm).map_err(|_| "the key cannot be used")?;
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "the key cannot be used")?;
    let mut rules = Validation::new(header.alg);
    rules.required_spec_claims.clear();
    (rules.validate_exp, rules.validate_nbf, rules.validate_aud) = (false, false, false);
    let claims = jsonwebtoken::decode::<Claims>(proof, &key, &rules).map_err(|_| "signature or claims are not good")?;
    let jkt = jwk.thumbprint(ThumbprintHash::SHA256).map_err(|_| "the key cannot be used")?;
    Ok((jkt, claims.claims))
}

#[cfg(test)]
mod tests;
