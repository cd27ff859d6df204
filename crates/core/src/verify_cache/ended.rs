//! The claims of an unused access token that revocations can match.

use serde::{Deserialize, Serialize};

use super::TokenChecker;
use super::verified::facts;
use crate::clock::Timestamp;
use crate::revocation::list::TokenFacts;

/// Claims by which revocations match a provider's access token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndingClaims {
    issuer: String,
    subject: String,
    sub: Option<String>,
    client: Option<String>,
    issuer_session: Option<String>,
    jti: Option<String>,
    issued_at: Option<Timestamp>,
}

impl TokenChecker {
    /// Returns the claims of a provider's access token that revocations match. Returns `None` if the token's audience
    /// is not the gate.
    pub fn ending_claims(&self, token: &str) -> Option<EndingClaims> {
        let token = self.verify_answer(token).ok()?;
        if token.is_ours() || !token.is_for(&token.issued_by.audience) {
            return None;
        }
        let facts = facts(&token);
        Some(EndingClaims {
            issuer: facts.issuer.to_owned(),
            subject: facts.subject.to_owned(),
            sub: facts.sub.map(str::to_owned),
            client: facts.client.map(str::to_owned),
            issuer_session: facts.issuer_session.map(str::to_owned),
            jti: facts.jti.map(str::to_owned),
            issued_at: facts.issued_at,
        })
    }

    /// Returns whether the token with these claims has been revoked, or its issuer is no longer trusted. Ignores the
    /// token's expiry.
    pub fn has_ended(&self, claims: &EndingClaims) -> bool {
        let is_trusted = self.keys.load().verifier.rules(&claims.issuer).is_some();
        let facts = TokenFacts {
            issuer: &claims.issuer,
            subject: &claims.subject,
            sub: claims.sub.as_deref(),
            client: claims.client.as_deref(),
            session: None,
            issuer_session: claims.issuer_session.as_deref(),
            vouched_by: None,
            jti: claims.jti.as_deref(),
            issued_at: claims.issued_at,
            delegation: None,
            key_vouchers: None,
        };
        let now = self.clock.now();
        !is_trusted || self.revocations.judge(facts, now).refuses(now)
    }
}
