//! Refresh tokens, which are opaque to clients. The gate does not store them, because it can compute each of them
//! again.
//!
//! A token is `rg1_`, followed by these parts in base64url without padding: key id (1 byte) · session id (16) ·
//! generation (varint) · tag A (16) · tag B (16). Both tags are truncated HMAC-SHA-256. Tag A covers the prefix and all
//! parts before it, under a key of the server. A token that was forged without that key is therefore refused before the
//! store is read. Tag B covers the same bytes and the client id in the record, under the session's own secret. Only
//! somebody who has both the key file and the store can make a token.

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::{Zeroize, Zeroizing};

use super::keyring::{RefreshKeys, truncated};
use super::text::TokenText;
use crate::random::are_equal;
use crate::session::{Generation, SessionId, SessionSecret};

/// The prefix of every refresh token. Secret scanners find leaked tokens by it.
pub const PREFIX: &str = "rg1_";

const TAG: usize = 16;
/// The length of the key id and the session id.
const FIXED: usize = 1 + 16;
/// A 64-bit varint has one to ten bytes.
const MIN_BODY: usize = FIXED + 1 + 2 * TAG;
const MAX_BODY: usize = FIXED + 10 + 2 * TAG;

/// Makes the refresh token of one generation. Each call returns the same token. `client` is the client in the session's
/// record. Returns `None` if the key ring does not have the refresh key.
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

/// A refresh token with a valid tag A, which shows that one of the gate's keys made it. Only
/// [`proves`](Authentic::proves) decides whether the token belongs to its session.
pub struct Authentic {
    /// The id of the refresh key that made the token.
    pub key_id: u8,
    /// The session that the token names.
    pub session: SessionId,
    /// The generation that the token was issued for.
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
    /// Returns whether the token was made for the session with this secret and this client. The comparison takes
    /// constant time.
    pub fn proves(&self, secret: &SessionSecret, client: &str) -> bool {
        let expected = Zeroizing::new(tag_b(&message(self.key_id, self.session, self.generation), secret, client));
        are_equal(expected.as_slice(), &self.tag_b)
    }
}

/// Parses a refresh token and checks tag A, without reading a store. Returns `None` unless one of the gate's keys made
/// the token. This refuses garbage, a token that was edited, truncated or extended, and a token whose key was removed.
pub fn authenticate(keys: &RefreshKeys, token: &str) -> Option<Authentic> {
    let text = token.strip_prefix(PREFIX)?;
    // The length is checked before any other work. Four characters encode three bytes.
    if text.len() > MAX_BODY.div_ceil(3) * 4 {
        return None;
    }
    // Decoding is strict. It refuses padding, other alphabets and left-over bits, so each token has only one encoding.
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

/// The input of both tags. The varint is self-delimiting, so the bytes that follow cannot be read as part of it.
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

/// Reads a 64-bit LEB128 number that fills `bytes`. Only the shortest form is accepted.
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
