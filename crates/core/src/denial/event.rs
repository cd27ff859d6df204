//! The flaws of a notice of another issuer.

/// The flaw of a logout token or a security event, as its sender learns it (RFC 8935 §2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventFlaw {
    /// The request violates the protocol.
    Request(&'static str),
    /// No key of the issuer signed the token.
    Key,
    /// The token is from another issuer than the endpoint's issuer.
    Issuer,
    /// The token is for another audience.
    Audience,
    /// The sender did not authenticate.
    Authentication,
    /// The sender's proof, a JWT, is bad.
    Credential(&'static str),
    /// The directory has no such user.
    UnknownUser,
    /// The directory has several such users.
    SeveralUsers,
}

impl EventFlaw {
    /// The error code.
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

    /// The flaw in words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Request(what) | Self::Credential(what) => what,
            Self::Key => "no key of the issuer signed it",
            Self::Issuer => "it is from another issuer",
            Self::Audience => "it is for another audience",
            Self::Authentication => "the sender's token is not good",
            Self::UnknownUser => "the directory has no such user, or the gate does not know its name there",
            Self::SeveralUsers => "the directory has several such users",
        }
    }
}
