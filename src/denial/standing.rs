//! What a denial says about the credential: refused for all time, for this request, or not examined.

use super::Denial;

/// What a denial says about the credential that was presented.
///
/// ```
/// use std::time::Duration;
/// use rotogate::denial::{Denial, Standing};
///
/// // A client discards a credential only if it is refused for all time.
/// let discards = |denial: Denial| denial.standing() == Standing::Dead;
/// assert!(discards(Denial::TokenRevoked));
/// assert!(!discards(Denial::RateLimited("login_per_address", Duration::from_secs(1))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// The credential is refused everywhere here, for all time.
    Dead,
    /// The credential is refused for this request. The gate did not decide more about it.
    Refused,
    /// The gate did not examine the credential. The same request may pass later.
    Undecided,
}

/// Why a credential is not good: a decision. An undecided denial is not a decision and never becomes a `NotGood`.
///
/// ```
/// use std::time::Duration;
/// use rotogate::denial::{Denial, NotGood};
///
/// let expired = NotGood::of(Denial::TokenExpired);
/// assert_eq!(expired.map(NotGood::denial), Ok(Denial::TokenExpired));
/// // A rate limit decides nothing about the credential.
/// let limited = Denial::RateLimited("login_per_address", Duration::from_secs(1));
/// assert_eq!(NotGood::of(limited), Err(limited));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// Requirement R15.
pub struct NotGood(Denial);

impl NotGood {
    /// The decision in a denial.
    ///
    /// # Errors
    /// The denial itself, if it is undecided.
    pub const fn of(denial: Denial) -> Result<Self, Denial> {
        match denial.standing() {
            Standing::Dead | Standing::Refused => Ok(Self(denial)),
            Standing::Undecided => Err(denial),
        }
    }

    /// The rule that refuses the credential.
    pub const fn denial(self) -> Denial {
        self.0
    }
}

impl Denial {
    /// What this denial says about the credential that was presented.
    pub const fn standing(&self) -> Standing {
        match self {
            Self::MalformedToken(_)
            | Self::UnknownIssuer
            | Self::UnknownKey
            | Self::WrongAlgorithm
            | Self::WrongType
            | Self::BadSignature
            | Self::BadClaim(_)
            | Self::TokenExpired
            | Self::TokenRevoked
            | Self::TokenInactive
            | Self::UnknownRefreshToken
            | Self::SessionRevoked(_)
            | Self::SessionExpired(_)
            | Self::Reuse(_) => Standing::Dead,
            Self::BadPath(_)
            | Self::BadHost
            | Self::BadTarget
            | Self::BadFraming
            | Self::Tunnel
            | Self::TargetTooLong
            | Self::TwoCredentials
            | Self::NoRoute
            | Self::UnknownSession
            | Self::TokenTooOld
            | Self::MethodNotAllowed
            | Self::NearMiss
            | Self::EndpointElsewhere
            | Self::UntrustedNeighbour
            | Self::BadFact(_)
            | Self::DisguisedHeader
            | Self::BodyTooLarge
            | Self::MalformedRequest(_)
            | Self::RefusedEvent(_)
            | Self::NoCredential
            | Self::UnusableCredential
            | Self::CrossOrigin
            | Self::UnprovedBinding
            | Self::UnboundToken
            | Self::OtherKey
            | Self::NoCertificate
            | Self::OtherCertificate
            | Self::TokenNotYetValid
            | Self::WrongAudience
            | Self::WrongIssuer
            | Self::InsufficientScope
            | Self::MissingRole
            | Self::RolesOverage
            | Self::InsufficientAuthentication
            | Self::MissingClaim
            | Self::Predicate
            | Self::ClaimsShape
            | Self::OtherClient
            | Self::OtherAccount
            | Self::OtherDialect
            | Self::UnknownHost
            | Self::AmbiguousPath
            | Self::TooManySessions
            | Self::Ahead
            | Self::MismatchedPair
            | Self::RelayRefused(_)
            | Self::BadProof(_)
            | Self::OtherSessionKey
            | Self::OtherSessionCertificate
            | Self::TtlExceeded
            | Self::InvalidScope
            | Self::InvalidTarget
            | Self::WrongPassword
            | Self::NoAccount
            | Self::InvalidClient
            | Self::UnauthorizedClient
            | Self::UnsupportedGrantType => Standing::Refused,
            Self::RateLimited(..)
            | Self::KeysUnavailable(_)
            | Self::ProofsFull(_)
            | Self::ProofsUnavailable(_)
            | Self::IntrospectionUnavailable(_)
            | Self::RevocationsUnavailable(_)
            | Self::AssertionUnavailable(_) => Standing::Undecided,
        }
    }

    /// Is the credential unexamined? Then the same request may pass later.
    pub const fn is_undecided(&self) -> bool {
        matches!(self.standing(), Standing::Undecided)
    }
}
