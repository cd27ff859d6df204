//! The words of a denial, for log lines and metrics.

use std::fmt;

use super::{Denial, ProofFlaw};
use crate::session::rotation::{Lifetime, SessionEnd};

impl Denial {
    /// The word for log lines and metrics, from a fixed set.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::BadPath(_) => "bad_path",
            Self::BadHost => "bad_host",
            Self::BadTarget => "bad_target",
            Self::BadFraming => "bad_framing",
            Self::Tunnel => "tunnel",
            Self::TargetTooLong => "target_too_long",
            Self::TwoCredentials => "two_credentials",
            Self::UnknownHost => "unknown_host",
            Self::NoRoute => "no_route",
            Self::UnknownSession => "unknown_session",
            Self::AmbiguousPath => "ambiguous_path",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::NearMiss => "near_miss",
            Self::EndpointElsewhere => "endpoint_elsewhere",
            Self::UntrustedNeighbour => "untrusted_neighbour",
            Self::BadFact(_) => "bad_fact",
            Self::DisguisedHeader => "disguised_header",
            Self::BodyTooLarge => "body_too_large",
            Self::MalformedRequest(_) => "malformed_request",
            Self::RefusedEvent(_) => "refused_event",
            Self::NoCredential => "no_credential",
            Self::UnusableCredential => "unusable_credential",
            Self::CrossOrigin => "cross_origin",
            Self::MalformedToken(_) => "malformed_token",
            Self::UnknownIssuer => "unknown_issuer",
            Self::UnknownKey => "unknown_key",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::WrongType => "wrong_type",
            Self::BadSignature => "bad_signature",
            Self::BadClaim(_) => "bad_claim",
            Self::UnprovedBinding => "unproved_binding",
            Self::UnboundToken => "unbound_token",
            Self::OtherKey => "other_key",
            Self::NoCertificate => "no_certificate",
            Self::OtherCertificate => "other_certificate",
            Self::TokenExpired => "token_expired",
            Self::TokenTooOld => "token_too_old",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenRevoked => "token_revoked",
            Self::KeysUnavailable(_) => "keys_unavailable",
            Self::TokenInactive => "token_inactive",
            Self::IntrospectionUnavailable(_) => "introspection_unavailable",
            Self::RevocationsUnavailable(_) => "revocations_unavailable",
            Self::AssertionUnavailable(_) => "assertion_unavailable",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::InsufficientScope => "insufficient_scope",
            Self::MissingRole => "missing_role",
            Self::RolesOverage => "roles_overage",
            Self::InsufficientAuthentication => "insufficient_authentication",
            Self::MissingClaim => "missing_claim",
            Self::Predicate => "predicate",
            Self::ClaimsShape => "claims_shape",
            Self::UnknownRefreshToken => "unknown_refresh_token",
            Self::OtherClient => "other_client",
            Self::OtherAccount => "other_account",
            Self::OtherDialect => "other_dialect",
            Self::SessionRevoked(SessionEnd::Record) => "session_revoked",
            Self::SessionRevoked(SessionEnd::List) => "session_revoked_by_list",
            Self::SessionRevoked(SessionEnd::UserInactive) => "user_inactive",
            Self::SessionRevoked(SessionEnd::BeforeValidFrom) => "session_before_valid_from",
            Self::SessionRevoked(SessionEnd::NotBefore) => "session_not_before",
            Self::SessionRevoked(SessionEnd::Elsewhere) => "session_ended_elsewhere",
            Self::SessionExpired(Lifetime::Session) => "session_expired",
            Self::SessionExpired(Lifetime::Idle) => "session_idle",
            Self::Ahead => "ahead_of_store",
            Self::Reuse(_) => "reuse",
            Self::MismatchedPair => "mismatched_pair",
            Self::RelayRefused(_) => "relay_refused",
            Self::BadProof(flaw) => flaw.reason(),
            Self::ProofsFull(_) => "proofs_full",
            Self::ProofsUnavailable(_) => "proofs_unavailable",
            Self::OtherSessionKey => "other_session_key",
            Self::OtherSessionCertificate => "other_session_certificate",
            Self::TtlExceeded => "ttl_exceeded",
            Self::InvalidScope => "invalid_scope",
            Self::InvalidTarget => "invalid_target",
            Self::WrongPassword => "wrong_password",
            Self::NoAccount => "no_account",
            Self::InvalidClient => "invalid_client",
            Self::UnauthorizedClient => "unauthorized_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::TooManySessions => "too_many_sessions",
            Self::RateLimited(..) => "too_many_requests",
        }
    }

    /// What is wrong with the form of a request or token, for the variants that say so: a fixed text.
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self::RefusedEvent(flaw) => Some(flaw.what()),
            Self::MalformedRequest(what)
            | Self::MalformedToken(what)
            | Self::BadClaim(what)
            | Self::BadFact(what)
            | Self::RelayRefused(what)
            | Self::RateLimited(what, _)
            | Self::BadProof(ProofFlaw::Malformed(what)) => Some(what),
            Self::BadPath(error) => Some(error.what()),
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
