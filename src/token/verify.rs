//! Is this an access token that we trust, and what does it say?
//!
//! Size, shape and header come first, because they cost nothing; then issuer and key; then `exp`, `nbf` and `iat`, which
//! can only refuse, and so spare a signature check; then the signature, and only then the other claims. The issuer and the
//! `kid` pick a key; the key has its algorithm. Signatures are checked by a library, and everything around them here,
//! because that library is lenient where a gateway must not be: duplicate members, `crit`, `typ`, claims of the wrong type.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::token::claims::AccessToken;
use crate::token::keyring::KeyPrint;

mod judge;
mod members;
mod rules;
mod shape;
pub(crate) mod strict_json;

use judge::{Moments, Times};
pub use judge::{is_name, is_subject};
use members::{Member, Members};
pub use rules::host_of;
pub use rules::{AllowedScopes, Ignored, IssuerKeys, IssuerRules, MAX_JWKS, OWN, RulesError};
pub use shape::MAX_TOKEN;
pub(crate) use strict_json::{members_of_depth, object_of_depth};

/// Why a token is refused, and what it took to see that: limits count what costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It was seen before its signature was checked.
    Unchecked(Denial),
    /// Its signature does not hold.
    Forged,
    /// Its signature holds, and it is refused all the same.
    Authentic(Denial),
}

impl Refusal {
    pub(crate) const fn into_denial(self) -> Denial {
        match self {
            Self::Unchecked(denial) | Self::Authentic(denial) => denial,
            Self::Forged => Denial::BadSignature,
        }
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Unchecked(denial)
    }
}

/// Verifies access tokens. Immutable: when a key or a rule changes, another one takes its place.
#[derive(Debug)]
pub struct Verifier {
    issuers: Vec<IssuerRules>,
    /// A token of another issuer with a type that is not taken has been reported.
    told: AtomicBool,
}

impl Verifier {
    /// A verifier of these issuers' tokens, and nobody else's.
    ///
    /// # Errors
    /// One issuer twice, more than one that is ours, or a rule out of its bounds.
    pub fn new(issuers: Vec<IssuerRules>) -> Result<Self, RulesError> {
        rules::check(&issuers)?;
        super::keyring::install_provider();
        Ok(Self { issuers, told: AtomicBool::new(false) })
    }

    /// The rules for the tokens of `issuer`.
    pub fn rules(&self, issuer: &str) -> Option<&IssuerRules> {
        self.issuers.iter().find(|rules| &*rules.issuer == issuer)
    }

    /// Verifies a token: everything that it *is*. Audience, scopes and revocation are for the caller to judge.
    ///
    /// # Errors
    /// The rule that refuses it. Never anything of the token itself.
    pub fn verify(&self, token: &str, engine_now: Timestamp, wall_now: Timestamp) -> Result<AccessToken, Denial> {
        self.verify_expired(token, engine_now, wall_now, Duration::ZERO).map_err(Refusal::into_denial)
    }

    /// The same for a token that expired no longer ago than `for_at_most`, another issuer's leeway apart: for protocols that
    /// exchange an expired access token together with its refresh token.
    ///
    /// # Errors
    /// As [`Self::verify`], with what it cost.
    pub(crate) fn verify_expired(
        &self,
        token: &str,
        engine_now: Timestamp,
        wall_now: Timestamp,
        for_at_most: Duration,
    ) -> Result<AccessToken, Refusal> {
        let parts = shape::Parts::split(token)?;
        let header = shape::Header::read(parts.header)?;
        let payload = shape::decode(parts.claims)?;
        let claims = Members::read(&payload).map_err(Denial::MalformedToken)?;
        let Some(Member::Text(issuer)) = claims.get("iss") else {
            return Err(Denial::BadClaim("iss must be a string").into());
        };
        let rules = self.rules(issuer).ok_or(Denial::UnknownIssuer)?;
        let key = rules.keys.find(header.kid.as_deref()).ok_or(Denial::UnknownKey)?;
        if &*header.algorithm != key.algorithm().name() {
            return Err(Denial::WrongAlgorithm.into());
        }
        let signature = &parts.signature;
        let holds = || signature.len() == key.signature_len() && key.verifies(parts.message.as_bytes(), signature);
        if !rules.accepts_typ(header.typ.as_deref()) {
            return Err(self.wrong_type(rules, header.typ.as_deref(), holds));
        }
        // The later of both times for what ends our own tokens: no clock that is behind lets one live on.
        let moments = if rules.ours {
            Moments { expiry: engine_now.max(wall_now), beginning: engine_now }
        } else {
            Moments { expiry: wall_now, beginning: wall_now }
        };
        let times = Times::read(&claims)?;
        times.judge(rules, moments, for_at_most)?;
        if signature.len() != key.signature_len() {
            return Err(Denial::BadSignature.into());
        }
        if !holds() {
            return Err(Refusal::Forged);
        }
        judge::claims(token, &claims, rules, key, times).map_err(Refusal::Authentic)
    }

    /// A token whose type is not taken. Of another issuer's the first one that is genuine is reported, because the rules
    /// may be wrong, and not the token.
    fn wrong_type(&self, rules: &IssuerRules, typ: Option<&str>, holds: impl FnOnce() -> bool) -> Refusal {
        if rules.ours || self.told.load(Ordering::Relaxed) {
            return Denial::WrongType.into();
        }
        if !holds() {
            return Refusal::Forged;
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            // It comes from outside, though its issuer has signed it.
            let typ: String = typ.unwrap_or_default().chars().take(64).flat_map(char::escape_default).collect();
            tracing::warn!(
                issuer = &*rules.issuer,
                typ,
                "a genuine token of this issuer is refused because of its `typ` (empty: it has none). If these are its \
                 access tokens, list the type: `IssuerRules::typ([…])`, or `typ` in `[[issuers]]`. Said once"
            );
        }
        Refusal::Authentic(Denial::WrongType)
    }

    /// The rules for a token's issuer, as it says itself: nothing of it was verified. For refusing it before its signature
    /// costs anything.
    ///
    /// # Errors
    /// It is no token, or of an issuer that is not one of ours.
    pub(crate) fn claimed(&self, token: &str) -> Result<&IssuerRules, Denial> {
        let payload = shape::decode(shape::Parts::split(token)?.claims)?;
        let claims = Members::read(&payload).map_err(Denial::MalformedToken)?;
        let Some(Member::Text(issuer)) = claims.get("iss") else {
            return Err(Denial::BadClaim("iss must be a string"));
        };
        self.rules(issuer).ok_or(Denial::UnknownIssuer)
    }

    /// Is there another issuer than ours?
    pub(crate) fn has_others(&self) -> bool {
        self.issuers.iter().any(|rules| !rules.ours)
    }

    /// Is this key among those of an issuer still, under whatever name?
    pub(crate) fn holds(&self, issuer: &str, key: &KeyPrint) -> bool {
        self.rules(issuer).is_some_and(|rules| rules.keys.holds(key))
    }

    /// Does it judge every token as another does? Keys are told apart by themselves, not by their names alone.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        self.issuers.len() == other.issuers.len() && self.issuers.iter().zip(&other.issuers).all(|(a, b)| a.equals(b))
    }

    /// The issuer that is ours, if there is one.
    pub fn own_issuer(&self) -> Option<&Arc<str>> {
        self.issuers.iter().find(|rules| rules.ours).map(|rules| &rules.issuer)
    }
}

/// What a token says of itself, whether it is true or not: for logs, never for a decision. Each text is cut at
/// 256 bytes.
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
}

/// The longest text that [`Peeked`] keeps, in bytes.
const PEEKED: usize = 256;

/// As much of a text as fits into so many bytes.
pub fn beginning(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// Reads what a token says without verifying any of it; `None` for one that has not the form of a token.
pub(crate) fn peek(token: &str) -> Option<Peeked> {
    let parts = shape::Parts::split(token).ok()?;
    let header = shape::Header::read(parts.header).ok()?;
    let payload = shape::decode(parts.claims).ok()?;
    let claims = Members::read(&payload).ok()?;
    let cut = |text: &str| Box::from(beginning(text, PEEKED));
    let text = |name| match claims.get(name) {
        Some(Member::Text(text)) => Some(cut(text)),
        Some(Member::Number(_) | Member::Array(_) | Member::Other) | None => None,
    };
    Some(Peeked {
        issuer: text("iss"),
        subject: text("sub"),
        client: text("client_id"),
        session: text("sid"),
        token_id: text("jti"),
        kid: header.kid.as_deref().map(cut),
    })
}

/// The claims of a token that was verified.
pub(super) fn claims_of(token: &str) -> Option<serde_json::Map<String, serde_json::Value>> {
    let part = token.split('.').nth(1)?;
    strict_json::object(&shape::decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests;
