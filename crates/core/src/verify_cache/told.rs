//! Verifies messages from other issuers: notices, and requests to revoke a user's sessions and tokens. The module also
//! looks up the names and keys of issuers.

use std::net::IpAddr;
use std::sync::Arc;

use super::TokenChecker;
use crate::denial::Denial;
use crate::limit::{Limits, Vain};
use crate::token::live_keys::LiveKeys;
use crate::token::verify::{AskedRevocation, MAX_TRIED, Reported, SentGlobalRevocation, SentNotice, peek};

impl TokenChecker {
    /// Verifies another issuer's notice, and returns what it reports.
    ///
    /// # Errors
    /// [`Denial::RefusedEvent`], [`Denial::KeysUnavailable`].
    pub fn verify_notice(&self, notice: SentNotice<'_>) -> Result<Reported, Denial> {
        self.keys.load().verifier.reported(notice, self.clock.now(), self.clock.wall())
    }

    /// Verifies a request of another issuer to end all sessions and tokens of a user.
    ///
    /// # Errors
    /// The errors of [`Self::verify_notice`].
    pub fn verify_global_revocation(&self, sent: SentGlobalRevocation<'_>) -> Result<AskedRevocation, Denial> {
        self.keys.load().verifier.asked_revocation(sent, self.clock.now(), self.clock.wall())
    }

    /// The short name of an issuer.
    pub fn name_of(&self, issuer: &str) -> Option<Arc<str>> {
        self.keys.load().verifier.rules(issuer).map(|rules| Arc::clone(&rules.name))
    }

    /// Describes what a refused token contains, and what the rules require.
    pub fn refused_in_words(&self, token: &str, denial: Denial) -> Option<String> {
        self.keys.load().verifier.refused_in_words(token, denial, self.clock.now())
    }

    /// The keys of the issuer with this name. `None` for the gate's own issuer and for an unknown name.
    pub fn keys_of(&self, name: &str) -> Option<Arc<LiveKeys>> {
        self.keys.load().verifier.named(name)?.keys.live().map(Arc::clone)
    }
}

impl Limits {
    /// Counts the result for a notice or an assertion. After a key change, messages may arrive before the gate has the
    /// new key. Their failures therefore first count only toward the overall limit.
    pub fn record_read<T>(&self, address: Option<IpAddr>, text: &str, read: &Result<T, Denial>) {
        let vain = match read {
            Ok(_) => return self.record_valid(address),
            Err(Denial::RefusedEvent(_) | Denial::GrantAssertion(_) | Denial::ClientAssertion(_)) => Vain::Forged,
            Err(_) => Vain::Undecided,
        };
        // Without `kid`, several keys of the issuer may have been tried.
        let names_key = peek(text).is_some_and(|peeked| peeked.kid.is_some());
        let tried = if names_key { 1 } else { MAX_TRIED };
        self.record(vain, address, Vain::cost(text, tried));
    }
}
