//! What ends a token that a client exchanged, besides what ends the subject's session.

use super::{RevocationList, TokenFacts};
use crate::clock::Timestamp;
use crate::revocation::ANY_SESSION;

/// What the list needs of a token that a client exchanged.
#[derive(Clone, Copy, Debug)]
pub struct DelegatedFacts<'a> {
    /// The token of another issuer that was exchanged first.
    pub origin: Option<&'a TokenOrigin>,
}

/// The token of another issuer that was exchanged first: a revocation of it ends what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOrigin {
    /// `origin_iat`: when its issuer issued it.
    pub issued_at: Timestamp,
    /// `origin_jti`.
    pub jti: Option<Box<str>>,
}

impl RevocationList {
    /// Was everything of the client revoked after it exchanged a token, or the token of another issuer that it exchanged?
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
