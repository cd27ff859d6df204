//! Mints access tokens, and computes fingerprints of tokens for logs.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::claims::MintedClaims;
use super::keyring::SigningKey;
use super::text::TokenText;
use super::verify::names::{is_name, is_subject};
use crate::bounds::MAX_OWN_TOKEN;
use crate::fault::Fault;
use crate::random::process_digest;
use crate::session::Generation;

/// Why a token was not minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// The gate's own verification would refuse this claim.
    #[error("the gate would refuse its own token because of the claim {0}")]
    Claim(&'static str),
    /// The token would exceed 8 KiB, the limit of verification.
    #[error("the token is too long")]
    TooLong,
    /// The cryptographic library failed.
    #[error("the key could not sign")]
    Signing,
}

impl From<MintError> for Fault {
    fn from(error: MintError) -> Self {
        Self::Signing(match error {
            MintError::Claim(claim) => claim,
            MintError::TooLong => "the token is too long",
            MintError::Signing => "the cryptographic library failed",
        })
    }
}

/// Mints an access token. With EdDSA, RSA PKCS #1 and HMAC, equal keys and claims give equal bytes.
///
/// # Errors
/// [`Verifier::verify`](super::verify::Verifier::verify) would refuse a claim, or signing failed.
pub fn mint(key: &SigningKey, claims: &MintedClaims<'_>) -> Result<TokenText, MintError> {
    let holds = |good, claim| if good { Ok(()) } else { Err(MintError::Claim(claim)) };
    holds(!claims.issuer.is_empty(), "iss")?;
    holds(is_subject(claims.subject), "sub")?;
    holds(!claims.audience.is_empty() && claims.audience.iter().all(|a| !a.is_empty()), "aud")?;
    holds(is_name(claims.jti), "jti")?;
    holds(is_name(claims.client), "client_id")?;
    holds(claims.account.is_none_or(is_name), "account")?;
    holds(claims.session.is_none_or(|(_, generation)| generation != Generation::NONE), "gen")?;

    let mut payload = Zeroizing::new(serde_json::to_string(claims).map_err(|_| MintError::Signing)?);
    if claims.style.plain_base64 {
        payload = Zeroizing::new(escaped_for_plain_base64(&payload));
    }
    let token = signed(key, &key.header, &payload)?;
    if token.len() > MAX_OWN_TOKEN { Err(MintError::TooLong) } else { Ok(TokenText::new(token)) }
}

/// The result is a JWS in compact serialisation. `header` is already encoded.
pub(super) fn signed(key: &SigningKey, header: &str, payload: &str) -> Result<Zeroizing<String>, MintError> {
    let mut token = Zeroizing::new(String::with_capacity(header.len() + payload.len() * 4 / 3 + 700));
    token.push_str(header);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(payload.as_bytes(), &mut token);
    let signature = key.sign(token.as_bytes()).ok_or(MintError::Signing)?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// Returns equivalent JSON whose base64url contains neither `-` nor `_`. Among ASCII characters, only `>`, `?`, `~` and
/// DEL can cause `-` or `_`. JSON strings may escape these characters.
fn escaped_for_plain_base64(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if c.is_ascii() && !matches!(c, '>' | '?' | '~' | '\u{7f}') {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

/// The fingerprint of a token for logs, with sixteen characters.
///
/// The fingerprint is specific to this process and does not reveal the token (requirement A6).
pub fn fingerprint(token: &str) -> String {
    let Some(tag) = process_digest(&[token.as_bytes()]) else { return "-".to_owned() };
    URL_SAFE_NO_PAD.encode(tag.get(..12).unwrap_or_default())
}

#[cfg(test)]
mod tests;
