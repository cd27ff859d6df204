//! The revocations that end a delegated token, besides the revocations of the subject's session.

use super::{RevocationList, TokenFacts};
use crate::clock::Timestamp;
use crate::revocation::ANY_SESSION;

/// The facts about a delegated token that the list needs.
#[derive(Clone, Copy, Debug)]
pub struct DelegatedFacts<'a> {
    /// The token of another issuer from which the delegated token derives.
    pub origin: Option<&'a TokenOrigin>,
    /// The client of our own token from which the delegated token derives.
    pub client: Option<&'a str>,
}

/// The token of another issuer from which a delegated token derives. Its revocation also ends the delegated tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrigin {
    /// When the issuer issued the token (`origin_iat`).
    pub issued_at: Timestamp,
    /// The `jti` of the token (`origin_jti`).
    pub jti: Option<Box<str>>,
}

impl RevocationList {
    /// Returns whether all tokens of the client were revoked after the exchange, or the exchanged token of another
    /// issuer was revoked.
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
