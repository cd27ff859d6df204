//! The tokens on which a command may act.

use std::sync::Arc;

use super::AccessToken;
use crate::denial::Denial;
use crate::revocation::Target;

/// The account in the path of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountRule<'a> {
    /// Sessions and tokens of any account.
    Any,
    /// Only sessions and tokens of this account. `None` admits only sessions and tokens without an account.
    Only(Option<&'a str>),
}

impl AccountRule<'_> {
    /// Returns whether sessions of this account are admitted.
    pub fn has(self, account: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Only(named) => named == account,
        }
    }

    /// Returns the token if its account is admitted. A token that a client got for itself is always admitted.
    ///
    /// # Errors
    /// [`Denial::OtherAccount`].
    // Requirement R21.
    pub fn admit(self, token: &AccessToken) -> Result<OfAccount<'_>, Denial> {
        let known = self.has(token.account()) || token.is_clients_own();
        if known { Ok(OfAccount(token)) } else { Err(Denial::OtherAccount) }
    }
}

/// A token whose account was checked. Operations on presented tokens require this type. Only [`AccountRule::admit`]
/// creates this type.
#[derive(Clone, Copy, Debug)]
pub struct OfAccount<'a>(&'a AccessToken);

/// A token that this gate minted for its bearer. Every command requires this type.
///
/// Excludes tokens of other issuers (requirement R19) and of clients that act for a user (D10). Only [`OfAccount::own`]
/// creates this type.
#[derive(Clone, Copy, Debug)]
pub struct OwnChecked<'a>(&'a AccessToken);

impl<'a> OfAccount<'a> {
    /// The claims of the token.
    pub const fn token(self) -> &'a AccessToken {
        self.0
    }

    /// Returns the token if this gate issued it and it does not have an actor.
    ///
    /// # Errors
    /// [`Denial::WrongIssuer`], [`Denial::DelegatedToken`].
    pub fn own(self) -> Result<OwnChecked<'a>, Denial> {
        self.0.of_bearer()?;
        if self.0.is_ours() { Ok(OwnChecked(self.0)) } else { Err(Denial::WrongIssuer) }
    }
}

impl AccessToken {
    /// Refuses a delegated token (RFC 8693).
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

    /// The target to revoke: the token's session, or else the token itself.
    pub fn revocable(self) -> Option<Target> {
        match self.0.session {
            Some((session, _)) => Some(Target::Session(session)),
            None => {
                self.0.jti.as_ref().map(|jti| Target::Token { issuer: Arc::clone(self.0.issuer()), jti: jti.clone() })
            }
        }
    }
}

#[cfg(test)]
mod for_tests {
    use super::*;

    impl AccessToken {
        pub(crate) fn own(&self) -> Result<OwnChecked<'_>, Denial> {
            AccountRule::Any.admit(self)?.own()
        }
    }
}
