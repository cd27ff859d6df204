//! The revocations that end an API key: its own, and each not-before for API keys.

use super::{Issuer, NotBefore, RevocationList, TokenFacts};
use crate::clock::Timestamp;
use crate::revocation::REPLACED;
use crate::session::VouchedBy;

/// An API key's id has 12 bytes.
const LONGEST_ID: usize = 32;

impl RevocationList {
    /// A key can be revoked by itself, or by a not-before for its owner, its creator or everyone.
    // Requirement K4.
    pub(super) fn has_key_ended(&self, facts: TokenFacts<'_>, vouchers: &[VouchedBy]) -> bool {
        let of_all = self.global.lock().as_ref().map(NotBefore::keys);
        let issuer = self.issuer(facts.issuer);
        let own = issuer.as_deref().map(|issuer| {
            let of_owner = issuer.subjects.get(facts.subject, NotBefore::keys);
            of_owner.max(facts.client.and_then(|client| issuer.clients.get(client, NotBefore::keys)))
        });
        let until = of_all.max(own.flatten()).unwrap_or(Timestamp::ZERO);
        let has_ended = |jti: &str| {
            issuer.as_deref().is_some_and(|issuer| match jti.strip_suffix(REPLACED) {
                Some(id) => issuer.has_token(id),
                None => issuer.has_token(jti) || issuer.has_replaced(jti),
            })
        };
        // Notices have a resolution of one second, so they also revoke keys from the same second.
        let of_voucher = |by: &VouchedBy| self.issuer(&by.issuer)?.subjects.get(&*by.subject, NotBefore::keys);
        let of_vouched = vouchers.iter().filter_map(of_voucher).max();
        let is_before = |made: Timestamp| made <= until || of_vouched.is_some_and(|at| made.as_secs() <= at.as_secs());
        facts.issued_at.is_none_or(is_before) || facts.jti.is_none_or(has_ended)
    }

    /// Returns whether the key was replaced. The record of a replaced key contains its expiry.
    // Requirement K7.
    pub(crate) fn is_key_replaced(&self, facts: TokenFacts<'_>) -> bool {
        let Some((issuer, jti)) = self.issuer(facts.issuer).zip(facts.jti) else { return false };
        !jti.ends_with(REPLACED) && !issuer.has_token(jti) && issuer.has_replaced(jti)
    }
}

impl Issuer {
    fn has_token(&self, jti: &str) -> bool {
        self.tokens.get(jti, |_| ()).is_some()
    }

    /// This runs for every request with an API key, so it does not allocate. An id that is too long is invalid.
    fn has_replaced(&self, id: &str) -> bool {
        let mut text = [0; LONGEST_ID + REPLACED.len()];
        let Some(text) = text.get_mut(..id.len() + REPLACED.len()) else { return true };
        let (head, tail) = text.split_at_mut(id.len());
        head.copy_from_slice(id.as_bytes());
        tail.copy_from_slice(REPLACED.as_bytes());
        std::str::from_utf8(text).is_ok_and(|jti| self.has_token(jti))
    }
}
