//! The tokens that a command may act on.

use std::sync::Arc;

use super::AccessToken;
use crate::denial::Denial;
use crate::revocation::Target;

/// An access token that this gate minted for its own bearer: the only kind that a command may act on. Only
/// [`AccessToken::own`] makes a value of this type, so that neither another issuer's token (requirement R19) nor a
/// client that acts for a user (D10) can act on our sessions.
#[derive(Clone, Copy, Debug)]
pub struct OwnChecked<'a>(&'a AccessToken);

impl AccessToken {
    /// The token, if this gate issued it and the token has no actor.
    ///
    /// # Errors
    /// [`Denial::WrongIssuer`], [`Denial::DelegatedToken`].
    pub fn own(&self) -> Result<OwnChecked<'_>, Denial> {
        self.of_bearer()?;
        if self.is_ours() { Ok(OwnChecked(self)) } else { Err(Denial::WrongIssuer) }
    }

    /// Refuses a token with which a client acts for its subject.
    ///
    /// # Errors
    /// [`Denial::DelegatedToken`].
    pub fn of_bearer(&self) -> Result<(), Denial> {
        if self.delegation().is_some() { Err(Denial::DelegatedToken) } else { Ok(()) }
    }
}

impl<'a> OwnChecked<'a> {
    /// The claims of the token.
    pub const fn token(self) -> &'a AccessToken {
        self.0
    }

    /// The revocable target: its session, or the token itself if it has none.
    pub fn revocable(self) -> Option<Target> {
        match self.0.session {
            Some((session, _)) => Some(Target::Session(session)),
            None => {
                self.0.jti.as_ref().map(|jti| Target::Token { issuer: Arc::clone(self.0.issuer()), jti: jti.clone() })
            }
        }
    }
}
