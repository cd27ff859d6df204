//! Reading of a token's claims without verification.

use super::shape::{JoseHeader, TokenParts, decode};
use crate::strict_json::{Member, Members};

/// The unverified claims of a token, for logs only. Strings are truncated to 256 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peeked {
    /// The issuer (`iss`).
    pub issuer: Option<Box<str>>,
    /// The subject (`sub`).
    pub subject: Option<Box<str>>,
    /// The client (`client_id`).
    pub client: Option<Box<str>>,
    /// The session (`sid`).
    pub session: Option<Box<str>>,
    /// The token's id (`jti`).
    pub token_id: Option<Box<str>>,
    /// The key id in the header (`kid`).
    pub kid: Option<Box<str>>,
    /// The algorithm in the header (`alg`).
    pub algorithm: Option<Box<str>>,
}

const MAX_PEEKED_BYTES: usize = 256;

/// Returns the longest prefix with at most `most` bytes.
pub fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Reads the claims without verifying the token. Returns `None` if the string is not a token.
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
