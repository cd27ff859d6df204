//! The form of tokens, checked before any key is used (RFC 7515 §7.1).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::super::keyring::{MAX_KID, VerifyingKey};
use crate::bounds::MAX_JOSE_HEADER;
pub use crate::bounds::{MAX_OWN_TOKEN, MAX_TOKEN};
use crate::denial::Denial;
use crate::strict_json;
use crate::strict_json::Members;

pub(super) const TOO_LONG: Denial = Denial::MalformedToken("longer than 24 KiB");
pub(super) const OWN_TOO_LONG: Denial =
    Denial::MalformedToken("longer than 8 KiB, which is allowed only for tokens of other issuers");

pub(super) struct TokenParts<'a> {
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: Vec<u8>,
    pub(super) message: &'a str,
}

impl<'a> TokenParts<'a> {
    pub(super) fn split(token: &'a str) -> Result<Self, Denial> {
        if token.len() > MAX_TOKEN {
            return Err(TOO_LONG);
        }
        let parts = || {
            let (message, signature) = token.rsplit_once('.')?;
            let (header, claims) = message.split_once('.')?;
            (!claims.contains('.')).then_some((header, claims, signature, message))
        };
        let (header, claims, signature, message) =
            parts().ok_or(Denial::MalformedToken("the token does not have three parts with two dots between them"))?;
        Ok(Self { header, claims, signature: decode(signature)?, message })
    }

    /// The signature must also have the right length for the key.
    pub(super) fn is_signed_by(&self, key: &VerifyingKey) -> bool {
        key.verifies(self.message.as_bytes(), &self.signature)
    }
}

/// Headers with critical or unsafe members have already been refused.
pub(super) struct JoseHeader {
    pub(super) algorithm: Box<str>,
    pub(super) kid: Option<Box<str>>,
    pub(super) typ: Option<Box<str>>,
}

/// All tokens from one key have the same header.
const KEPT_HEADERS: usize = 8;

thread_local! {
    static HEADERS: RefCell<VecDeque<(Box<str>, Rc<JoseHeader>)>> = const { RefCell::new(VecDeque::new()) };
}

impl JoseHeader {
    pub(super) fn known(part: &str) -> Result<Rc<Self>, Denial> {
        let kept =
            HEADERS.with_borrow(|kept| kept.iter().find(|(text, _)| **text == *part).map(|(_, it)| Rc::clone(it)));
        kept.map_or_else(|| Self::read(part).map(Rc::new), Ok)
    }

    /// Forged tokens cannot evict a kept header.
    pub(super) fn keep(self: &Rc<Self>, part: &str) {
        HEADERS.with_borrow_mut(|kept| {
            if kept.iter().any(|(_, known)| Rc::ptr_eq(known, self)) {
                return;
            }
            kept.truncate(KEPT_HEADERS - 1);
            kept.push_front((part.into(), Rc::clone(self)));
        });
    }

    pub(super) fn read(part: &str) -> Result<Self, Denial> {
        if part.len() > MAX_JOSE_HEADER.div_ceil(3) * 4 {
            return Err(Denial::MalformedToken("the header is longer than 1 KiB"));
        }
        let bytes = decode(part)?;
        if bytes.len() > MAX_JOSE_HEADER {
            return Err(Denial::MalformedToken("the header is longer than 1 KiB"));
        }
        let header = Members::read(&bytes).map_err(Denial::MalformedToken)?;
        for (name, why) in REFUSED {
            if header.get(name).is_some() {
                return Err(Denial::MalformedToken(why));
            }
        }
        let text = |name: &str, why| match header.get(name) {
            None => Ok(None),
            Some(member) => member.as_text().map(|text| Some(Box::from(text))).ok_or(Denial::MalformedToken(why)),
        };
        let algorithm = text("alg", "`alg` must be a string")?.ok_or(Denial::MalformedToken("`alg` is missing"))?;
        let kid: Option<Box<str>> = text("kid", "`kid` must be a string")?;
        if kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
            return Err(Denial::MalformedToken("`kid` is longer than 128 bytes"));
        }
        Ok(Self { algorithm, kid, typ: text("typ", "`typ` must be a string")? })
    }
}

/// Header members that would provide a key or change the verification. `jku` and `x5u` are ignored, not refused,
/// because some issuers always write them (RFC 8725 §3.10).
const REFUSED: &[(&str, &str)] = &[
    ("crit", "`crit` is not allowed in the header"),
    ("b64", "`b64` is not allowed in the header"),
    ("zip", "`zip` is not allowed in the header"),
    ("enc", "`enc` is not allowed in the header"),
    ("jwk", "`jwk` is not allowed in the header"),
];

/// Decodes base64url. Padding, `+`, `/`, white space and left-over bits are refused (J12).
pub(in crate::token) fn decode(part: &str) -> Result<Vec<u8>, Denial> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Denial::MalformedToken("not base64url"))
}

/// Returns the decoded payload, which is not verified.
///
/// # Errors
/// The token does not have the form of a JWT.
pub fn payload_of(token: &str) -> Result<Vec<u8>, Denial> {
    decode(TokenParts::split(token)?.claims)
}

/// Returns the claims of a token that was already verified.
pub(in crate::token) fn claims_of(token: &str) -> Option<Map<String, Value>> {
    let part = token.split('.').nth(1)?;
    strict_json::object(&decode(part).ok()?).ok()
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl JoseHeader {
        pub(crate) fn is_kept(part: &str) -> bool {
            HEADERS.with_borrow(|kept| kept.len() <= KEPT_HEADERS && kept.iter().any(|(text, _)| **text == *part))
        }
    }
}
