//! Claims as values of identity headers.

use std::borrow::Cow;

use bytes::Bytes;
use http::HeaderValue;

use crate::context::unindexed;

/// Encodes a claim as a header value (T4). Visible ASCII and inner spaces stay. Everything else is percent-encoded, and
/// so is `%`.
pub fn identity_value(claim: &str) -> HeaderValue {
    let mut text = Vec::with_capacity(claim.len());
    encode(claim, &mut text);
    visible(Bytes::from(text))
}

#[derive(Clone, Debug)]
pub(crate) enum IdentityText<'c> {
    Claim(Cow<'c, str>),
    /// Several claims, joined by commas.
    List(&'c [Box<str>]),
}

const USUAL_CLAIM: usize = 24;

/// Makes the [values](identity_value) of several claims in one allocation.
pub(crate) fn identity_values<'c>(claims: impl IntoIterator<Item = IdentityText<'c>>) -> Vec<HeaderValue> {
    let claims = claims.into_iter();
    let mut text = Vec::with_capacity(claims.size_hint().1.unwrap_or_default() * USUAL_CLAIM);
    let ends: Vec<usize> = claims
        .map(|claim| {
            match claim {
                IdentityText::Claim(claim) => encode(&claim, &mut text),
                IdentityText::List(several) => encode_list(several, &mut text),
            }
            text.len()
        })
        .collect();
    // The values stay in memory as long as their token, so free unused capacity.
    let text = Bytes::from(text.into_boxed_slice());
    let begins = std::iter::once(0).chain(ends.iter().copied());
    begins.zip(&ends).map(|(begin, &end)| unindexed(visible(text.slice(begin..end)))).collect()
}

fn encode(claim: &str, out: &mut Vec<u8>) {
    if claim.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%') {
        return out.extend_from_slice(claim.as_bytes());
    }
    let last = claim.len().saturating_sub(1);
    for (at, byte) in claim.bytes().enumerate() {
        let inner_space = byte == b' ' && at != 0 && at != last;
        encode_byte(byte, inner_space || (byte.is_ascii_graphic() && byte != b'%'), out);
    }
}

/// Spaces are encoded, because software that reads lists trims the elements.
fn encode_list(several: &[Box<str>], out: &mut Vec<u8>) {
    for (at, one) in several.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        for byte in one.bytes() {
            encode_byte(byte, byte.is_ascii_graphic() && !matches!(byte, b'%' | b','), out);
        }
    }
}

fn encode_byte(byte: u8, is_plain: bool, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if is_plain {
        out.push(byte);
    } else {
        out.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
    }
}

pub(super) fn visible(encoded: Bytes) -> HeaderValue {
    #[expect(clippy::expect_used, reason = "visible ASCII and spaces are always a header value")]
    HeaderValue::from_maybe_shared(encoded).expect("visible ASCII")
}
