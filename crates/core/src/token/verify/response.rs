//! Reading of introspection responses (RFC 7662 §2.2).

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

/// Members that state a token's kind. Some servers also introspect refresh tokens and ID tokens.
const KINDS: [&str; 2] = ["token_use", "token_type"];
const OTHER_KINDS: [&str; 4] = ["refresh_token", "refresh", "id_token", "id"];

/// The result of an introspection.
#[derive(Debug)]
pub enum Told {
    /// The token is active and accepted.
    Active(Box<AccessToken>),
    /// The token is not active.
    Inactive,
    /// The token is active, but the rules refuse it.
    Refused(Denial),
}

/// Reads introspection responses of one issuer.
#[derive(Debug)]
pub struct Responses {
    rules: IssuerRules,
    of_tokens: Arc<TokenIssuer>,
    /// Marks the kinds of claims whose refusal was logged.
    told_claims: AtomicU8,
}

impl Responses {
    /// Creates a reader with these rules.
    pub fn new(rules: &IssuerRules) -> Self {
        Self { rules: rules.without_keys(), of_tokens: rules.of_tokens(), told_claims: AtomicU8::new(0) }
    }

    pub(crate) fn rules(&self) -> &IssuerRules {
        &self.rules
    }

    /// Reads the response for `token`.
    ///
    /// # Errors
    /// The input is not an introspection response (RFC 7662).
    // Requirement I20.
    pub fn read(&self, token: &str, response: &[u8], now: Timestamp) -> Result<Told, &'static str> {
        if response.len() > MAX_INTROSPECTION {
            return Err("too long");
        }
        let told = self.told(token, response, now, Some(&self.told_claims))?;
        if let Told::Active(token) = &told {
            self.rules.sessions_seen.note_token(token);
        }
        Ok(told)
    }

    /// Reads claims that nobody has verified, so nothing is noted or logged.
    ///
    /// # Errors
    /// The same as for [`Self::read`].
    pub(crate) fn read_unverified(&self, token: &str, claims: &[u8], now: Timestamp) -> Result<Told, &'static str> {
        self.told(token, claims, now, None)
    }

    fn told(
        &self,
        token: &str,
        response: &[u8],
        now: Timestamp,
        logged: Option<&AtomicU8>,
    ) -> Result<Told, &'static str> {
        let text = std::str::from_utf8(response).map_err(|_| "not UTF-8")?;
        let claims = Members::read(response)?;
        match claims.get("active") {
            Some(Member::Bool(true)) => {}
            Some(Member::Bool(false)) => return Ok(Told::Inactive),
            _ => return Err("`active` must be true or false"),
        }
        Ok(match self.judge(token, &claims, text, now, logged) {
            Ok(token) => Told::Active(Box::new(token)),
            Err(denial) => Told::Refused(denial),
        })
    }

    fn judge(
        &self,
        token: &str,
        claims: &Members<'_>,
        response: &str,
        now: Timestamp,
        logged: Option<&AtomicU8>,
    ) -> Result<AccessToken, Denial> {
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
                .map_err(|refused| name_claim(rules, refused, logged))?;
        // Without a key in the response, the caller's DPoP proof could not be checked.
        if is_dpop && judged.bound_to().is_none() { Err(Denial::UnprovedBinding) } else { Ok(judged) }
    }
}

/// Returns whether the token has the form of a JWT: three parts in base64url (J12).
pub fn is_jwt_shaped(token: &str) -> bool {
    let is_part = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    let mut parts = token.split('.');
    let [first, second, third, fourth] = std::array::from_fn(|_| parts.next());
    fourth.is_none() && [first, second, third].into_iter().all(|part| part.is_some_and(is_part))
}

/// Returns whether the token may be an opaque token of another issuer (RFC 6750 §2.1). The gate's refresh tokens are
/// excluded, because no other server may see them.
pub(crate) fn is_opaque(token: &str) -> bool {
    let is_character = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    (1..=super::MAX_TOKEN).contains(&token.len())
        && token.bytes().all(is_character)
        && !token.starts_with(crate::token::refresh::PREFIX)
}

impl IssuerRules {
    pub(crate) fn introspects(&self, opaque: &str) -> bool {
        self.introspection.as_ref().is_some_and(|introspection| introspection.covers(opaque))
    }
}

/// Returns whether the token has the prefix of an issuer's opaque tokens. The rest of such a token may have the form of a
/// JWT, as in Kuzzle. A JWT itself begins with `e`, because its header is a JSON object.
pub(crate) fn has_prefix(issuers: &[IssuerRules], token: &str) -> bool {
    !token.starts_with('e')
        && issuers
            .iter()
            .any(|rules| rules.introspection.as_ref().is_some_and(|it| !it.prefix.is_empty() && it.covers(token)))
}

/// Finds the issuer that introspects this opaque token: the one with the longest matching prefix. Returns `None` if two
/// issuers have the same prefix.
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
