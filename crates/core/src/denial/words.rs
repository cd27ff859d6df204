//! The descriptions of denials, for log lines.

use std::fmt;

use super::{Denial, ProofFlaw};

impl Denial {
    /// The description, if the denial contains one.
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self::RefusedEvent(flaw) => Some(flaw.what()),
            Self::ProviderLogin(flaw) => Some(flaw.what()),
            Self::BadCall(flaw) => Some(flaw.what()),
            Self::MalformedRequest(what)
            | Self::MalformedToken(what)
            | Self::BadClaim(what)
            | Self::NotExchangeable(what)
            | Self::BadFact(what)
            | Self::SessionOver(what)
            | Self::ApiKeyRefused(what)
            | Self::DeviceRefused(what)
            | Self::RelayRefused(what)
            | Self::ClientAssertion(what)
            | Self::GrantAssertion(what)
            | Self::RateLimited(what, _)
            | Self::QuotaExceeded(what, _)
            | Self::BadProof(ProofFlaw::Malformed(what)) => Some(what),
            Self::BadPath(error) => Some(error.what()),
            Self::InvalidClient => Some("the client is not registered, or it failed to authenticate"),
            _ => None,
        }
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())?;
        self.detail().map_or(Ok(()), |detail| write!(f, ": {detail}"))
    }
}

impl std::error::Error for Denial {}
