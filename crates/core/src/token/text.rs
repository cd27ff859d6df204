//! The string form of issued tokens.

use zeroize::Zeroizing;

/// An issued access or refresh token. Hidden from `Debug`, and zeroised when dropped.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// let tokens = gate.sessions().start(NewSession::new("ada", "web")).await?;
/// assert_eq!(format!("{:?}", tokens.access_token), "TokenText(…)", "logs do not show it");
/// let header = format!("Bearer {}", tokens.access_token.expose());
/// # assert!(header.starts_with("Bearer ey"));
/// let refresh_token = tokens.refresh_token.ok_or("a login has one")?;
/// assert!(refresh_token.expose().starts_with("rg1_"), "for scanners of leaked secrets");
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone)]
pub struct TokenText(Zeroizing<String>);

impl TokenText {
    pub(super) const fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// The token as a string, to be sent only to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

crate::debug_with!(TokenText);

#[cfg(any(test, feature = "test-util"))]
mod for_tests {
    use super::*;

    impl TokenText {
        pub(crate) fn for_test(text: &str) -> Self {
            Self(Zeroizing::new(text.to_owned()))
        }
    }
}
