//! A hand-written verifier: jsonwebtoken with all its checks on.

use std::fs;
use std::path::Path;

use anyhow::Result;
use jsonwebtoken::{DecodingKey, Validation};
use rotogate_core::token::algorithm::{Algorithm, Family};
use serde::Deserialize;

use crate::keys;

/// In seconds; as rotogate has it.
pub const LEEWAY: u64 = 30;

#[derive(Clone, Deserialize)]
pub struct Claims {
    pub sub: String,
    pub exp: u64,
}

pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    pub fn new((algorithm, folder): (Algorithm, &Path)) -> Result<Self> {
        let key = match algorithm.family() {
            Family::Hmac => DecodingKey::from_secret(keys::secret().as_bytes()),
            Family::Rsa => DecodingKey::from_rsa_pem(&fs::read(keys::public_pem(folder, algorithm))?)?,
            Family::Ecdsa => DecodingKey::from_ec_pem(&fs::read(keys::public_pem(folder, algorithm))?)?,
            Family::Edwards => DecodingKey::from_ed_pem(&fs::read(keys::public_pem(folder, algorithm))?)?,
        };
        let mut validation = Validation::new(algorithm.name().parse()?);
        validation.set_issuer(&[keys::ISSUER]);
        validation.set_audience(&[keys::AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.leeway = LEEWAY;
        Ok(Self { key, validation })
    }

    pub fn verify(&self, token: &str) -> Option<Claims> {
        jsonwebtoken::decode(token, &self.key, &self.validation).ok().map(|token| token.claims)
    }
}

/// The token of `Authorization: Bearer`.
pub fn bearer<B>(request: &hyper::Request<B>) -> Option<&str> {
    request.headers().get(hyper::header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}
