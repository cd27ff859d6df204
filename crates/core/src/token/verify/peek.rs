//! The unverified claims of a token, for messages to operators.

use super::shape::{JoseHeader, TokenParts, decode};
use crate::strict_json::{Member, Members};

/// The claims of a token, which are not verified. Use them only for logs, not for decisions. Each string is truncated
/// at 256 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peeked {
    /// `iss`.
    pub issuer: Option<Box<str>>,
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// `client_id`.
    pub client: Option<Box<str>>,
    /// `sid`.
    pub session: Option<Box<str>>,
    /// `jti`.
    pub token_id: Option<Box<str>>,
    /// `kid` of the header.
    pub kid: Option<Box<str>>,
    /// `alg` of the header.
    pub algorithm: Option<Box<str>>,
}

/// The maximum length of a string in [`Peeked`], in bytes.
const MAX_PEEKED_BYTES: usize = 256;

/// The longest prefix of a string that has at most `most` bytes.
pub fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Reads a token's claims without verifying them. Returns `None` if the input does not have the form of a token.
pub fn peek(token: &str) -> Option<Peeked> {
    let parts = TokenParts::split(token).ok()?;
    let header = JoseHeader::read(parts.header).ok()?;
    let payload = decode(parts.claims).ok()?;
    let claims = Members::read(&payload).ok()?;
    let cut = |text: &str| Box::from(beginning(text, MAX_PEEKED_BYTES));
    let text = |name| claims.get(name).and_then(Member::as_text).map(cut);
    Some(Peeked {
        issuer: text("iss"),
        subject: text("sub"),
        client: text("client_id"),
        session: text("sid"),
        token_id: text("jti"),
        kid: header.kid.as_deref().map(cut),
        algorithm: Some(cut(&header.algorithm)),
    })
}
