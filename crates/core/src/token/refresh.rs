//! Refresh tokens. The gate does not store them, because it can recompute them.
//!
//! A token is `rg1_`, followed by base64url without padding: key id (1 byte) · session id (16) · generation (varint) ·
//! tag A (16) · tag B (16).
//!
//! Both tags are truncated HMAC-SHA-256. Tag A is made with the server's key over all bytes before it. Forged tokens
//! are refused without access to the store. Tag B is made with the session's secret, and also covers the client id. A
//! token can only be made with both the key file and the store.

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

use super::keyring::{RefreshKeys, truncated};
use super::text::TokenText;
use crate::random::are_equal;
use crate::session::{Generation, SessionId, SessionSecret};

/// The prefix of every refresh token, by which secret scanners find leaked tokens.
pub const PREFIX: &str = "rg1_";

const TAG: usize = 16;
const FIXED: usize = 1 + 16;
/// A 64-bit varint has one to ten bytes.
const MIN_BODY: usize = FIXED + 1 + 2 * TAG;
const MAX_BODY: usize = FIXED + 10 + 2 * TAG;

/// The refresh token of one generation. Each call returns the same token. `client` is the client in the session's
/// record.
///
/// Returns `None` if the key ring does not have the refresh key.
pub fn make(
    keys: &RefreshKeys,
    key_id: u8,
    id: SessionId,
    generation: Generation,
    secret: &SessionSecret,
    client: &str,
) -> Option<TokenText> {
    let mut message = message(key_id, id, generation);
    let tag_a = Zeroizing::new(keys.tag(key_id, &message)?);
    let tag_b = Zeroizing::new(tag_b(&message, secret, client));
    message.extend_from_slice(tag_a.as_slice());
    message.extend_from_slice(tag_b.as_slice());
    let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + MAX_BODY * 4 / 3 + 2));
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(message.get(PREFIX.len()..)?, &mut text);
    Some(TokenText::new(text))
}

/// A refresh token with a valid tag A. Only [`proves`](Authentic::proves) also checks tag B.
pub struct Authentic {
    /// The id of the refresh key that made the token.
    pub key_id: u8,
    /// The session that the token names.
    pub session: SessionId,
    /// The token's generation.
    pub generation: Generation,
    tag_b: [u8; TAG],
}

crate::debug_with!(Authentic { key_id, session, generation });

impl Drop for Authentic {
    fn drop(&mut self) {
        self.tag_b.zeroize();
    }
}

impl Authentic {
    /// Checks in constant time that the token belongs to the session with this secret and client.
    pub fn proves(&self, secret: &SessionSecret, client: &str) -> bool {
        let expected = Zeroizing::new(tag_b(&message(self.key_id, self.session, self.generation), secret, client));
        are_equal(expected.as_slice(), &self.tag_b)
    }
}

/// Parses a refresh token and checks tag A. Returns `None` unless tag A is valid for one of the gate's keys.
pub fn authenticate(keys: &RefreshKeys, token: &str) -> Option<Authentic> {
    let text = token.strip_prefix(PREFIX)?;
    // Four characters encode three bytes.
    if text.len() > MAX_BODY.div_ceil(3) * 4 {
        return None;
    }
    // Strict decoding accepts one encoding per token.
    let body = Zeroizing::new(URL_SAFE_NO_PAD.decode(text).ok()?);
    if !(MIN_BODY..=MAX_BODY).contains(&body.len()) {
        return None;
    }
    let (rest, tag_b) = body.split_last_chunk::<TAG>()?;
    let (signed, tag_a) = rest.split_last_chunk::<TAG>()?;
    let (&key_id, rest) = signed.split_first()?;
    let (id, varint) = rest.split_first_chunk::<16>()?;
    let generation = read_varint(varint).map(Generation::new)?;
    let session = SessionId::from_bytes(*id);
    let expected = Zeroizing::new(keys.tag(key_id, &message(key_id, session, generation))?);
    are_equal(expected.as_slice(), tag_a).then(|| Authentic { key_id, session, generation, tag_b: *tag_b })
}

/// The input of both tags. Varints are self-delimiting.
fn message(key_id: u8, id: SessionId, generation: Generation) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(PREFIX.len() + MAX_BODY));
    out.extend_from_slice(PREFIX.as_bytes());
    out.push(key_id);
    out.extend_from_slice(id.as_bytes());
    let mut number = generation.get();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            out.push(low);
            return out;
        }
        out.push(low | 0x80);
    }
}

fn tag_b(message: &[u8], secret: &SessionSecret, client: &str) -> [u8; TAG] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, secret.expose()));
    context.update(message);
    context.update(client.as_bytes());
    truncated(&context.sign())
}

/// Accepts only the shortest encoding.
fn read_varint(bytes: &[u8]) -> Option<u64> {
    let (&last, _) = bytes.split_last()?;
    if bytes.len() > 1 && last == 0 {
        return None;
    }
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().enumerate() {
        let more = byte & 0x80 != 0;
        if more == (i + 1 == bytes.len()) {
            return None;
        }
        let low = u64::from(byte & 0x7f);
        let shift = u32::try_from(i).ok()?.checked_mul(7)?;
        let part = low.checked_shl(shift)?;
        if part >> shift != low {
            return None;
        }
        value |= part;
    }
    Some(value)
}

#[cfg(test)]
mod tests;
