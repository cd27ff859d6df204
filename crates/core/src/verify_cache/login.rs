//! Checks of ID tokens and assertions, which are used only once and therefore never cached.

use super::{IdentityField, TokenChecker};
use crate::denial::Denial;
use crate::token::verify::{ProvedGrant, ProvedLogin, SentGrant, SentIdToken};

impl TokenChecker {
    /// Returns the user of a login at a provider. If the key of the ID token is not known, the check waits for one
    /// fetch of the keys.
    ///
    /// # Errors
    /// [`Denial::ProviderLogin`]; [`Denial::KeysUnavailable`].
    pub async fn proved_login(&self, sent: SentIdToken<'_>) -> Result<ProvedLogin, Denial> {
        let judge = || {
            let keys = self.keys.load();
            let claims = keys.shared.identity.headers.iter().filter_map(|(_, field)| match field {
                IdentityField::Claim(name) => Some(name.clone()),
                _ => None,
            });
            keys.verifier.proved_login(sent, &claims.collect::<Vec<_>>(), self.clock.now(), self.clock.wall())
        };
        match judge() {
            Err(Denial::KeysUnavailable(_)) => {}
            judged => return judged,
        }
        if let Some(wait) = self.awaited(sent.token) {
            wait.ended().await;
        }
        judge()
    }

    /// Verifies an assertion that is presented as a grant.
    ///
    /// # Errors
    /// [`Denial::GrantAssertion`]; [`Denial::KeysUnavailable`].
    pub fn proved_grant(&self, sent: SentGrant<'_>) -> Result<ProvedGrant, Denial> {
        self.keys.load().verifier.proved_grant(sent, self.clock.now(), self.clock.wall())
    }
}
