//! The revocations that end an API key: its own revocation, and a not-before that includes API keys.

use super::{NotBefore, RevocationList, TokenFacts};
use crate::clock::Timestamp;

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
        facts.issued_at.is_none_or(|made| made <= until) || facts.jti.is_none_or(is_gone)
    }
}
