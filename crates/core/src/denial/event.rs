//! Flaws of notices from other issuers: logout tokens, security events and revocation requests.

/// The flaw of a logout token or a security event (RFC 8935 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventFlaw {
    /// The request violates the protocol.
    Request(&'static str),
    /// The token was not signed with a key of the issuer.
    Key,
    /// The token comes from another issuer.
    Issuer,
    /// The token is for another audience.
    Audience,
    /// The sender did not authenticate.
    Authentication,
    /// The JWT with which the sender authenticates is invalid.
    Credential(&'static str),
    /// The directory does not have this user.
    UnknownUser,
    /// The directory has several users with this name.
    SeveralUsers,
}

impl EventFlaw {
    /// The error code in the response.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Request(_) => "invalid_request",
            Self::Key => "invalid_key",
            Self::Issuer => "invalid_issuer",
            Self::Audience => "invalid_audience",
            Self::Authentication | Self::Credential(_) => "authentication_failed",
            Self::UnknownUser => "unknown_user",
            Self::SeveralUsers => "several_users",
        }
    }

    /// A description of the flaw.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Request(what) | Self::Credential(what) => what,
            Self::Key => "it was not signed with a key of the issuer",
            Self::Issuer => "it is from another issuer",
            Self::Audience => "it is for another audience",
            Self::Authentication => "the sender's token is not valid",
            Self::UnknownUser => {
                "the directory does not have this user, or the gate does not know the user's name in the directory"
            }
            Self::SeveralUsers => "the directory has several users who match",
        }
    }
}
