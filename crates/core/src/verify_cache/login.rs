//! The check of an ID token, which is never cached: a login is answered once.

use super::TokenChecker;
use crate::denial::Denial;
use crate::token::verify::{ProvedLogin, SentIdToken};

impl TokenChecker {
    /// The user of a login at a provider. An ID token whose key is not known waits for one fetch of the keys.
    ///
    /// # Errors
    /// [`Denial::ProviderLogin`]; [`Denial::KeysUnavailable`].
    pub async fn proved_login(&self, sent: SentIdToken<'_>) -> Result<ProvedLogin, Denial> {
        let judge = || self.keys.load().verifier.proved_login(sent, self.clock.now(), self.clock.wall());
        match judge() {
            Err(Denial::KeysUnavailable(_)) => {}
            judged => return judged,
        }
        if let Some(wait) = self.awaited(sent.token) {
            wait.ended().await;
        }
        judge()
    }
}
