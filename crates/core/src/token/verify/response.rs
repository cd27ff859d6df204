//! Reads the response of an introspection endpoint (RFC 7662 §2.2) by the same rules as the claims of a token.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::time::Duration;

use super::judge::{self, ClaimsSource, Moments, TokenTimes};
use super::name_claim;
use super::rules::IssuerRules;
use crate::bounds::MAX_INTROSPECTION;
use crate::clock::Timestamp;
use crate::denial::Denial;
use crate::strict_json::{Member, Members};
use crate::token::claims::{AccessToken, TokenIssuer};

/// Members that state the kind of a token. Some servers also introspect refresh tokens and ID tokens.
const KINDS: [&str; 2] = ["token_use", "token_type"];
/// The values of [`KINDS`] in responses about tokens that are not access tokens.
const OTHER_KINDS: [&str; 4] = ["refresh_token", "refresh", "id_token", "id"];

/// What a response states about a token.
#[derive(Debug)]
pub enum Told {
    /// The token is active, and its claims are accepted.
    Active(Box<AccessToken>),
    /// The token is not active.
    Inactive,
    /// The token is active, but the rules refuse it.
    Refused(Denial),
}

/// Reads the responses of one issuer.
#[derive(Debug)]
pub struct Responses {
    rules: IssuerRules,
    /// The properties that all tokens of the issuer share.
    of_tokens: Arc<TokenIssuer>,
    /// The kinds of mapped claims for which a refusal has already been logged, with one bit for each kind.
    told_claims: AtomicU8,
}

impl Responses {
    /// Makes a reader with these rules.
    pub fn new(rules: &IssuerRules) -> Self {
        Self { rules: rules.without_keys(), of_tokens: rules.of_tokens(), told_claims: AtomicU8::new(0) }
    }

    /// The rules of the issuer.
    pub(crate) fn rules(&self) -> &IssuerRules {
        &self.rules
    }

    /// Reads the response about `token`.
    ///
    /// # Errors
    /// The input is not a response according to RFC 7662, so the token's state is unknown.
    // Requirement I20.
    pub fn read(&self, token: &str, response: &[u8], now: Timestamp) -> Result<Told, &'static str> {
        if response.len() > MAX_INTROSPECTION {
            return Err("too long");
        }
        let text = std::str::from_utf8(response).map_err(|_| "not UTF-8")?;
        let claims = Members::read(response)?;
        match claims.get("active") {
            Some(Member::Bool(true)) => {}
            Some(Member::Bool(false)) => return Ok(Told::Inactive),
            _ => return Err("`active` must be true or false"),
        }
        Ok(match self.judge(token, &claims, text, now) {
            Ok(token) => Told::Active(Box::new(token)),
            Err(denial) => Told::Refused(denial),
        })
    }

    fn judge(&self, token: &str, claims: &Members<'_>, response: &str, now: Timestamp) -> Result<AccessToken, Denial> {
        let rules = &self.rules;
        match claims.optional("iss") {
            None => {}
            Some(Member::Text(issuer)) if **issuer == *rules.issuer => {}
            Some(_) => return Err(Denial::BadClaim("`iss` is not the issuer that was queried")),
        }
        let mut is_dpop = false;
        for kind in KINDS {
            let Some(said) = claims.optional(kind) else { continue };
            let said = said.as_text().ok_or(Denial::BadClaim("`token_use` and `token_type` must be strings"))?;
            is_dpop |= said.eq_ignore_ascii_case("dpop");
            if OTHER_KINDS.iter().any(|other| said.eq_ignore_ascii_case(other)) {
                return Err(Denial::WrongType);
            }
        }
        let times = TokenTimes::read(claims)?;
        times.judge(rules, Moments { expiry: now, beginning: now }, Duration::ZERO)?;
        let judged =
            judge::claims(token.into(), claims, (rules, &self.of_tokens), ClaimsSource::Response(response), times)
                .map_err(|refused| name_claim(rules, refused, Some(&self.told_claims)))?;
        rules.sessions_seen.note_token(&judged);
        // The response must name the key, because the caller's proof is checked against this key.
        if is_dpop && judged.bound_to().is_none() { Err(Denial::UnprovedBinding) } else { Ok(judged) }
    }
}

/// Returns whether the token has the form of a JWT, which is three parts in base64url (J12). Such a token is verified
/// with keys, unless its issuer's rules specify introspection.
pub fn is_jwt_shaped(token: &str) -> bool {
    let is_part = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let mut parts = token.split('.');
    let [first, second, third, fourth] = std::array::from_fn(|_| parts.next());
    fourth.is_none() && [first, second, third].into_iter().all(|part| part.is_some_and(is_part))
}

/// Returns whether the token can be an opaque token of another issuer. It must consist of the characters in
/// RFC 6750 §2.1, and must not be one of the gate's refresh tokens, which no other server may see.
pub(crate) fn is_opaque(token: &str) -> bool {
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    (1..=super::MAX_TOKEN).contains(&token.len())
        && token.bytes().all(is_character)
        && !token.starts_with(crate::token::refresh::PREFIX)
}

impl IssuerRules {
    /// Returns whether the gate may ask the issuer about this opaque token.
    pub(crate) fn introspects(&self, opaque: &str) -> bool {
        self.introspection.as_ref().is_some_and(|introspection| opaque.starts_with(&*introspection.prefix))
    }
}

/// Finds the issuer that must introspect a token that is not a JWT. Among the issuers that `taken` accepts, it is the
/// issuer with the longest configured prefix with which the token begins. Returns `None` if no prefix matches, or if
/// two issuers have the same prefix.
pub(crate) fn introspecting<'r>(
    issuers: &'r [IssuerRules],
    opaque: &str,
    taken: impl Fn(&IssuerRules) -> bool,
) -> Option<&'r IssuerRules> {
    let prefix = |rules: &IssuerRules| rules.introspection.as_ref().map_or(0, |it| it.prefix.len());
    let mut candidates: Vec<_> = issuers.iter().filter(|rules| rules.introspects(opaque) && taken(rules)).collect();
    candidates.sort_by_key(|rules| prefix(rules));
    match candidates.as_slice() {
        [.., second, first] if prefix(second) == prefix(first) => None,
        [.., first] => Some(first),
        [] => None,
    }
}

#[cfg(test)]
mod tests;
