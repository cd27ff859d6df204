//! The table of denials: the word in logs and metrics, the standing, and the class of replies.

use http::StatusCode;

use super::{Class, Denial, ProofFlaw, Standing};
use crate::session::rotation::SessionEnd;

const UNPROVED: Class = Class::BadToken { expired: false, is_proved: Some(false) };
const PROVED: Class = Class::BadToken { expired: false, is_proved: Some(true) };
const EXPIRED: Class = Class::BadToken { expired: true, is_proved: Some(true) };
const BAD_GRANT: Class = Class::BadGrant { expired: false };
const EXPIRED_GRANT: Class = Class::BadGrant { expired: true };

const fn head(status: StatusCode, detail: Option<&'static str>, summary: &'static str) -> Class {
    Class::Head { status, detail, summary, closes: false }
}

const fn bad_request(detail: &'static str, summary: &'static str) -> Class {
    head(StatusCode::BAD_REQUEST, Some(detail), summary)
}

const fn unframed() -> Class {
    Class::Head {
        status: StatusCode::BAD_REQUEST,
        detail: Some("the body must have one length, or be chunked"),
        summary: "the body is framed twice",
        closes: true,
    }
}

/// Makes a method of each column. A denial without a row does not compile.
macro_rules! table {
    ($($denial:pat => $word:expr, $standing:ident, $class:expr;)*) => {
        impl Denial {
            /// The word for log lines and metrics, from a fixed set.
            #[expect(unused_variables, reason = "for the class")]
            pub const fn reason(&self) -> &'static str {
                match self { $($denial => $word,)* }
            }

            /// The meaning of this denial for the presented credential.
            #[expect(unused_variables, reason = "for the class")]
            pub(crate) const fn standing(&self) -> Standing {
                match self { $($denial => Standing::$standing,)* }
            }

            /// The class, which decides what a reply may reveal.
            pub const fn class(&self) -> Class {
                match self { $($denial => $class,)* }
            }
        }
    };
}

table! {
    // The request itself.
    Self::BadPath(error) => "bad_path", Refused, bad_request(error.what(), "the path is malformed");
    Self::BadHost => "bad_host", Refused,
        bad_request("Host is missing, repeated, malformed or contradictory", "Host is missing or malformed");
    Self::BadTarget => "bad_target", Refused,
        bad_request("the request target must be in origin form", "the request target is malformed");
    Self::BadFraming => "bad_framing", Refused, unframed();
    Self::Tunnel => "tunnel", Refused, Class::Tunnel;
    Self::TargetTooLong => "target_too_long", Refused,
        head(StatusCode::URI_TOO_LONG, None, "the request target is too long");
    Self::TwoCredentials => "two_credentials", Refused, Class::TwoCredentials;
    Self::UnknownHost => "unknown_host", Refused, Class::UnknownHost;
    Self::NoRoute => "no_route", Refused, Class::NotFound(None);
    Self::UnknownSession => "unknown_session", Refused, Class::NotFound(Some("you have no such session"));
    Self::UnknownApiKey => "unknown_api_key", Refused, Class::NotFound(Some("you have no such key"));
    Self::AmbiguousPath => "ambiguous_path", Refused,
        Class::NotFound(Some("ambiguous_path: the path can be read in two ways"));
    Self::MethodNotAllowed => "method_not_allowed", Refused, Class::WrongMethod;
    Self::NearMiss => "near_miss", Refused, Class::NotFound(None);
    Self::EndpointElsewhere => "endpoint_elsewhere", Refused,
        Class::NotFound(Some("an endpoint of the gate: send it to a public listener"));
    Self::UntrustedNeighbour => "untrusted_neighbour", Refused,
        head(StatusCode::FORBIDDEN, Some("the peer is not a trusted proxy of this listener"), "the peer may not ask");
    Self::BadFact(what) => "bad_fact", Refused, bad_request(what, "a fact is malformed");
    Self::DisguisedHeader => "disguised_header", Refused,
        bad_request("a header imitates one that only the gate sets", "a header is not allowed");
    Self::BodyTooLarge => "body_too_large", Refused, Class::TooLarge;
    Self::MalformedRequest(what) => "malformed_request", Refused, Class::Request(what);
    Self::RefusedEvent(flaw) => "refused_event", Refused, Class::Request(flaw.what());
    Self::ProviderLogin(flaw) => "provider_login", Refused, Class::Request(flaw.what());
    Self::BadCall(flaw) => "bad_call", Refused, Class::Request(flaw.what());
    // The bearer token on a data route.
    Self::NoCredential => "no_credential", Refused, Class::NoCredential;
    Self::UnusableCredential => "unusable_credential", Refused, Class::UnusableCredential;
    Self::CrossOrigin => "cross_origin", Refused, Class::CrossOrigin;
    Self::MalformedToken(_) => "malformed_token", Dead, Class::BadToken { expired: false, is_proved: None };
    Self::UnknownIssuer => "unknown_issuer", Dead, UNPROVED;
    Self::UnknownKey => "unknown_key", Dead, UNPROVED;
    Self::WrongAlgorithm => "wrong_algorithm", Dead, UNPROVED;
    Self::WrongType => "wrong_type", Dead, UNPROVED;
    Self::BadSignature => "bad_signature", Dead, UNPROVED;
    Self::BadClaim(_) => "bad_claim", Dead, UNPROVED;
    Self::UnprovedBinding => "unproved_binding", Refused, PROVED;
    Self::UnboundToken => "unbound_token", Refused, PROVED;
    Self::OtherKey => "other_key", Refused, PROVED;
    Self::NoCertificate => "no_certificate", Refused, PROVED;
    Self::OtherCertificate => "other_certificate", Refused, PROVED;
    Self::DelegatedToken => "delegated_token", Refused, PROVED;
    Self::NotExchangeable(_) => "not_exchangeable", Refused, PROVED;
    Self::ExchangeRefused => "exchange_refused", Refused, Class::Forbidden;
    Self::ExchangeClaims => "exchange_claims", Refused, PROVED;
    Self::ExchangeUnavailable(wait) => "exchange_unavailable", Undecided, Class::Unavailable(*wait);
    Self::TokenExpired => "token_expired", Dead, EXPIRED;
    Self::TokenTooOld => "token_too_old", Refused, EXPIRED;
    Self::TokenNotYetValid => "token_not_yet_valid", Refused, PROVED;
    Self::TokenRevoked => "token_revoked", Dead, PROVED;
    Self::KeysUnavailable(wait) => "keys_unavailable", Undecided, Class::Unavailable(*wait);
    Self::TokenInactive => "token_inactive", Dead, UNPROVED;
    Self::IntrospectionUnavailable(wait) => "introspection_unavailable", Undecided, Class::Unavailable(*wait);
    Self::RevocationsUnavailable(wait) => "revocations_unavailable", Undecided, Class::Unavailable(*wait);
    Self::AssertionUnavailable(wait) => "assertion_unavailable", Undecided, Class::Unavailable(*wait);
    Self::WrongAudience => "wrong_audience", Refused, PROVED;
    // Most tokens of a wrong issuer are refused before the signature is verified.
    Self::WrongIssuer => "wrong_issuer", Refused, UNPROVED;
    Self::InsufficientScope => "insufficient_scope", Refused, Class::InsufficientScope;
    Self::MissingRole => "missing_role", Refused, Class::Forbidden;
    Self::RolesOverage => "roles_overage", Refused, Class::Forbidden;
    Self::Condition => "condition", Refused, Class::Forbidden;
    Self::DecisionDenied => "decision_denied", Refused, Class::Forbidden;
    Self::DecisionStepUp => "decision_step_up", Refused, PROVED;
    Self::StepUpContradiction => "step_up_contradiction", Refused, Class::Forbidden;
    Self::DecisionUnavailable(wait) => "decision_unavailable", Undecided, Class::Unavailable(*wait);
    Self::InsufficientAuthentication => "insufficient_authentication", Refused, PROVED;
    Self::MissingClaim => "missing_claim", Refused, Class::Forbidden;
    Self::Predicate => "predicate", Refused, Class::Forbidden;
    Self::ClaimsShape => "claims_shape", Refused, Class::Forbidden;
    // The cookie of a browser session.
    Self::UnknownSessionCookie => "unknown_session_cookie", Dead, Class::NoCredential;
    Self::ApiKeyRefused(_) => "api_key_refused", Dead, UNPROVED;
    Self::ApiKeyUnavailable(wait) => "api_key_unavailable", Undecided, Class::Unavailable(*wait);
    Self::SessionOver(_) => "session_over", Dead, Class::NoCredential;
    Self::SessionNotRenewed => "session_not_renewed", Undecided, Class::NoCredential;
    Self::SessionUnavailable(wait) => "session_unavailable", Undecided, Class::Unavailable(*wait);
    Self::ProviderTokenOver => "provider_token_over", Refused, Class::NoCredential;
    Self::DeviceProofMissing => "device_proof_missing", Refused, Class::NoCredential;
    Self::DeviceRefused(_) => "device_refused", Refused, Class::Forbidden;
    // A refresh credential.
    Self::UnknownRefreshToken => "unknown_refresh_token", Dead, BAD_GRANT;
    Self::OtherClient => "other_client", Refused, BAD_GRANT;
    Self::OtherAccount => "other_account", Refused, BAD_GRANT;
    Self::OtherDialect => "other_dialect", Refused, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::Record) => "session_revoked", Dead, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::List) => "session_revoked_by_list", Dead, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::UserInactive) => "user_inactive", Dead, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::BeforeValidFrom) => "session_before_valid_from", Dead, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::NotBefore) => "session_not_before", Dead, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::Elsewhere) => "session_ended_elsewhere", Dead, BAD_GRANT;
    Self::SessionExpired => "session_expired", Dead, EXPIRED_GRANT;
    Self::SessionIdle => "session_idle", Dead, EXPIRED_GRANT;
    Self::Ahead => "ahead_of_store", Refused, BAD_GRANT;
    Self::Reuse { .. } => "reuse", Dead, BAD_GRANT;
    Self::MismatchedPair => "mismatched_pair", Refused, BAD_GRANT;
    Self::RelayRefused(_) => "relay_refused", Refused, BAD_GRANT;
    Self::BadProof(flaw) => flaw.reason(), Refused, Class::BadProof { needs_nonce: matches!(flaw, ProofFlaw::Nonce) };
    Self::ProofsFull(wait) => "proofs_full", Undecided, Class::Unavailable(*wait);
    Self::ProofsUnavailable(wait) => "proofs_unavailable", Undecided, Class::Unavailable(*wait);
    Self::OtherSessionKey => "other_session_key", Refused, BAD_GRANT;
    Self::OtherSessionCertificate => "other_session_certificate", Refused, BAD_GRANT;
    Self::TtlExceeded => "ttl_exceeded", Refused, Class::Lifetime;
    Self::InvalidScope => "invalid_scope", Refused, Class::Scope;
    Self::InvalidTarget => "invalid_target", Refused, Class::Target;
    // A login or a client.
    Self::WrongPassword => "wrong_password", Refused, Class::Login;
    Self::NoAccount => "no_account", Refused, Class::Login;
    Self::InvalidClient => "invalid_client", Refused, Class::Client;
    Self::ClientAssertion(_) => "client_assertion", Refused, Class::Client;
    Self::GrantAssertion(_) => "grant_assertion", Refused, BAD_GRANT;
    Self::UnauthorizedClient => "unauthorized_client", Refused, Class::ClientNotAllowed;
    Self::UnsupportedGrantType => "unsupported_grant_type", Refused, Class::GrantType;
    Self::TooManySessions => "too_many_sessions", Refused, Class::TooManySessions;
    Self::RateLimited(_, wait) => "too_many_requests", Undecided, Class::Limited(*wait);
    Self::QuotaExceeded(_, wait) => "quota_exceeded", Undecided, Class::Limited(*wait);
}
