//! Distinguishes the tokens on which a command may act.

use std::sync::Arc;

use super::AccessToken;
use crate::denial::Denial;
use crate::revocation::Target;

/// The account that a request names in its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountRule<'a> {
    /// The endpoint serves every account, so its path does not contain an account.
    Any,
    /// Only sessions and tokens of this account. `None` admits only those without an account, because the path does not
    /// name an account.
    Only(Option<&'a str>),
}

impl AccountRule<'_> {
    /// Returns whether the rule admits sessions of this account.
    pub fn has(self, account: Option<&str>) -> bool {
        match self {
            Self::Any => true,
            Self::Only(named) => named == account,
        }
    }

    /// Returns the token if the rule admits its account. A token that a client got for itself has no account, and is
    /// admitted.
    ///
    /// # Errors
    /// [`Denial::OtherAccount`].
    // Requirement R21.
    pub fn admit(self, token: &AccessToken) -> Result<OfAccount<'_>, Denial> {
        let known = self.has(token.account()) || token.is_clients_own();
        if known { Ok(OfAccount(token)) } else { Err(Denial::OtherAccount) }
    }
}

/// An access token of an account that an endpoint serves. Only [`AccountRule::admit`] makes a value of this type. Every
/// operation on a presented token requires such a value, so no endpoint can skip the check of the account.
#[derive(Clone, Copy, Debug)]
pub struct OfAccount<'a>(&'a AccessToken);

/// An access token that this gate minted for its bearer. A command may act only on such a token. Only
/// [`OfAccount::own`] makes a value of this type, so neither another issuer's token (requirement R19) nor a client that
/// acts for a user (D10) can act on the gate's sessions.
#[derive(Clone, Copy, Debug)]
pub struct OwnChecked<'a>(&'a AccessToken);

impl<'a> OfAccount<'a> {
    /// The claims of the token.
    pub const fn token(self) -> &'a AccessToken {
        self.0
    }

    /// Returns the token if this gate issued it and it has no actor.
    ///
    /// # Errors
    /// [`Denial::WrongIssuer`], [`Denial::DelegatedToken`].
    pub fn own(self) -> Result<OwnChecked<'a>, Denial> {
        self.0.of_bearer()?;
        if self.0.is_ours() { Ok(OwnChecked(self.0)) } else { Err(Denial::WrongIssuer) }
    }
}

impl AccessToken {
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

    /// The target to revoke: the token's session, or the token itself if it has no session.
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
