//! The revocations that end an API key: its own revocation, and a not-before that includes API keys.

use super::{NotBefore, RevocationList, TokenFacts};
use crate::clock::Timestamp;
use crate::revocation::REPLACED;

impl RevocationList {
    /// Was the key revoked, alone or with all earlier keys of its owner or of everyone? `client` is the owner, if a
    /// client owns the key.
    // Requirement K4.
    pub(super) fn has_key_ended(&self, facts: TokenFacts<'_>) -> bool {
        let of_all = self.global.lock().as_ref().map(NotBefore::keys);
        let issuer = self.issuer(facts.issuer);
        let own = issuer.as_deref().map(|issuer| {
            let of_owner = issuer.subjects.get(facts.subject, NotBefore::keys);
            of_owner.max(facts.client.and_then(|client| issuer.clients.get(client, NotBefore::keys)))
        });
        let until = of_all.max(own.flatten()).unwrap_or(Timestamp::ZERO);
        let is_gone = |jti: &str| issuer.as_deref().is_some_and(|issuer| issuer.tokens.get(jti, |_| ()).is_some());
        let has_ended = |jti: &str| match jti.strip_suffix(REPLACED) {
            Some(id) => is_gone(id),
            None => is_gone(jti) || is_gone(&[jti, REPLACED].concat()),
        };
        facts.issued_at.is_none_or(|made| made <= until) || facts.jti.is_none_or(has_ended)
    }

    /// Was the key replaced since its record was read, and not revoked? Then the record says how long the key lives.
    // Requirement K7.
    #[cfg(feature = "relay")]
    pub(crate) fn is_key_replaced(&self, facts: TokenFacts<'_>) -> bool {
        let issuer = self.issuer(facts.issuer);
        let is_gone = |jti: &str| issuer.as_deref().is_some_and(|issuer| issuer.tokens.get(jti, |_| ()).is_some());
        facts.jti.is_some_and(|jti| !jti.ends_with(REPLACED) && !is_gone(jti) && is_gone(&[jti, REPLACED].concat()))
    }
}
