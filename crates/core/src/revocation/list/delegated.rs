//! The revocations that apply to a delegated token. Revocations of the subject's session apply too, but are checked
//! elsewhere.

use super::{RevocationList, TokenFacts};
use crate::clock::Timestamp;
use crate::revocation::ANY_SESSION;

/// The properties of a delegated token that the list needs.
#[derive(Clone, Copy, Debug)]
pub struct DelegatedFacts<'a> {
    /// The exchanged token of another issuer.
    pub origin: Option<&'a TokenOrigin>,
    /// The client of the exchanged token, if the gate issued that token.
    pub client: Option<&'a str>,
}

/// Another issuer's token that was exchanged at the gate. Revoking it also revokes the delegated tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrigin {
    /// When the token was issued (`origin_iat`).
    pub issued_at: Timestamp,
    /// The token's `jti` (`origin_jti`).
    pub jti: Option<Box<str>>,
}

impl RevocationList {
    /// Returns whether the tokens of the acting client, or the exchanged token, were revoked.
    // Requirements D5 and D8.
    pub(super) fn has_delegate_ended(&self, facts: TokenFacts<'_>, delegation: DelegatedFacts<'_>) -> bool {
        let (_, of_client) = Self::own_not_befores(self.issuer(facts.issuer).as_deref(), "", facts.client);
        if of_client.is_some_and(|at| facts.issued_at.is_none_or(|minted| minted <= at)) {
            return true;
        }
        let (Some(by), Some(origin)) = (facts.vouched_by, delegation.origin) else { return false };
        let of_any = self.not_before_of(&by.issuer, ANY_SESSION, &by.subject);
        let is_gone = |jti: &str| self.issuer(&by.issuer).is_some_and(|i| i.tokens.get(jti, |_| ()).is_some());
        of_any.is_some_and(|at| origin.issued_at.as_secs() <= at.as_secs())
            || origin.jti.as_deref().is_some_and(is_gone)
    }
}
