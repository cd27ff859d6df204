//! The revocations that end an API key: its own revocation, and a not-before that includes API keys.

use super::{Issuer, NotBefore, RevocationList, TokenFacts};
use crate::clock::Timestamp;
use crate::revocation::REPLACED;
use crate::session::VouchedBy;

/// A bound for the id of a key, which has 12 bytes.
const LONGEST_ID: usize = 32;

impl RevocationList {
    /// Was the key revoked, alone or with all earlier keys of its owner or of everyone, or did an issuer that vouched for
    /// one of its makers end everything of that user? `client` is the owner, if a client owns the key.
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
        // As for a session: a notice has whole seconds, so a key of the same second has ended, too.
        let of_voucher = |by: &VouchedBy| self.issuer(&by.issuer)?.subjects.get(&*by.subject, NotBefore::keys);
        let of_vouched = vouchers.iter().filter_map(of_voucher).max();
        let is_before = |made: Timestamp| made <= until || of_vouched.is_some_and(|at| made.as_secs() <= at.as_secs());
        facts.issued_at.is_none_or(is_before) || facts.jti.is_none_or(has_ended)
    }

    /// Was the key replaced since its record was read, and not revoked? Then the record says how long the key lives.
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

    /// Was the key with this id replaced? Every request with a key asks, so the text is put together without an
    /// allocation. A longer id is that of no key, and counts as replaced.
    fn has_replaced(&self, id: &str) -> bool {
        let mut text = [0; LONGEST_ID + REPLACED.len()];
        let Some(text) = text.get_mut(..id.len() + REPLACED.len()) else { return true };
        let (head, tail) = text.split_at_mut(id.len());
        head.copy_from_slice(id.as_bytes());
        tail.copy_from_slice(REPLACED.as_bytes());
        std::str::from_utf8(text).is_ok_and(|jti| self.has_token(jti))
    }
}
