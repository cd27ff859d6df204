//! The name, standing, rule and class of each denial.

use http::StatusCode;

use super::{Class, Denial, ProofFlaw, Standing};
use crate::rule::Rule;
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
        detail: Some("the body must either have exactly one length or be chunked"),
        summary: "the headers contradict each other about the length of the body",
        closes: true,
    }
}

/// Generates a method for each column of the table. Every denial needs a row.
macro_rules! table {
    ($($denial:pat => $word:expr, $standing:ident, $rule:ident, $class:expr;)*) => {
        impl Denial {
            /// The denial's name in log lines and metrics.
            #[expect(unused_variables, reason = "for the class")]
            pub const fn reason(&self) -> &'static str {
                match self { $($denial => $word,)* }
            }

            #[expect(unused_variables, reason = "for the class")]
            pub(crate) const fn standing(&self) -> Standing {
                match self { $($denial => Standing::$standing,)* }
            }

            /// The rule that produces this denial.
            #[doc(hidden)]
            #[expect(unused_variables, reason = "for the class")]
            pub const fn rule(&self) -> Rule {
                match self { $($denial => Rule::$rule,)* }
            }

            /// What a response may reveal.
            pub const fn class(&self) -> Class {
                match self { $($denial => $class,)* }
            }
        }
    };
}

table! {
    // The request itself.
    Self::BadPath(error) => "bad_path", Refused, Path, bad_request(error.what(), "the path is malformed");
    Self::BadHost => "bad_host", Refused, Request,
        bad_request("Host is missing, repeated, malformed or contradictory", "Host is missing or malformed");
    Self::BadTarget => "bad_target", Refused, Request,
        bad_request("the request target must be in origin form", "the request target is malformed");
    Self::BadQuery => "bad_query", Refused, Request,
        bad_request("the query has a byte that must be percent-encoded (RFC 3986 section 2.1)", "the query is malformed");
    Self::BadFraming => "bad_framing", Refused, Request, unframed();
    Self::Tunnel => "tunnel", Refused, Request, Class::Tunnel;
    Self::TargetTooLong => "target_too_long", Refused, Request,
        head(StatusCode::URI_TOO_LONG, None, "the request target is too long");
    Self::TwoCredentials => "two_credentials", Refused, Credential, Class::TwoCredentials;
    Self::UnknownHost => "unknown_host", Refused, Request, Class::UnknownHost;
    Self::NoRoute => "no_route", Refused, Route, Class::NotFound(None);
    Self::UnknownSession => "unknown_session", Refused, Route,
        Class::NotFound(Some("you have no session with this id"));
    Self::UnknownApiKey => "unknown_api_key", Refused, Route,
        Class::NotFound(Some("you have no API key with this id"));
    Self::AmbiguousPath => "ambiguous_path", Refused, Route,
        Class::NotFound(Some("ambiguous_path: the path can be read in two ways"));
    Self::MethodNotAllowed => "method_not_allowed", Refused, Route, Class::WrongMethod;
    Self::NearMiss => "near_miss", Refused, Route, Class::NotFound(None);
    Self::EndpointElsewhere => "endpoint_elsewhere", Refused, Route,
        Class::NotFound(Some("this is an endpoint of the gate; send the request to a public listener"));
    Self::UntrustedNeighbour => "untrusted_neighbour", Refused, Request,
        head(StatusCode::FORBIDDEN, Some("the peer is not a trusted proxy of this listener"), "the peer is untrusted");
    Self::BadFact(what) => "bad_fact", Refused, Request,
        bad_request(what, "the proxy's description of the request is incomplete or malformed");
    Self::DisguisedHeader => "disguised_header", Refused, Request,
        bad_request("a header name resembles that of a header that only the gate may set", "a header is not allowed");
    Self::BodyTooLarge => "body_too_large", Refused, Route, Class::TooLarge;
    Self::MalformedRequest(what) => "malformed_request", Refused, Route, Class::Request(what);
    Self::RefusedEvent(flaw) => "refused_event", Refused, Route, Class::Request(flaw.what());
    Self::ProviderLogin(flaw) => "provider_login", Refused, Credential, Class::Request(flaw.what());
    Self::BadCall(flaw) => "bad_call", Refused, Route, Class::Request(flaw.what());
    // The bearer token on a data route.
    Self::NoCredential => "no_credential", Refused, Credential, Class::NoCredential;
    Self::UnusableCredential => "unusable_credential", Refused, Credential, Class::UnusableCredential;
    Self::CrossOrigin => "cross_origin", Refused, Origin, Class::CrossOrigin;
    Self::NoCsrfHeader => "csrf_header_missing", Refused, Origin, Class::CrossOrigin;
    Self::MalformedToken(_) => "malformed_token", Dead, Credential, Class::BadToken { expired: false, is_proved: None };
    Self::UnknownIssuer => "unknown_issuer", Dead, Key, UNPROVED;
    Self::UnknownKey => "unknown_key", Dead, Key, UNPROVED;
    Self::TooManyKeys => "too_many_keys", Dead, Key, UNPROVED;
    Self::WrongAlgorithm => "wrong_algorithm", Dead, Key, UNPROVED;
    Self::WrongType => "wrong_type", Dead, Claims, UNPROVED;
    Self::BadSignature => "bad_signature", Dead, Signature, UNPROVED;
    Self::BadClaim(_) => "bad_claim", Dead, Claims, UNPROVED;
    Self::UnprovedBinding => "unproved_binding", Refused, Proof, PROVED;
    Self::UnboundToken => "unbound_token", Refused, Proof, PROVED;
    Self::OtherKey => "other_key", Refused, Proof, PROVED;
    Self::NoCertificate => "no_certificate", Refused, Proof, PROVED;
    Self::OtherCertificate => "other_certificate", Refused, Proof, PROVED;
    Self::DelegatedToken => "delegated_token", Refused, Claims, PROVED;
    Self::NotExchangeable(_) => "not_exchangeable", Refused, Claims, PROVED;
    Self::ExchangeRefused => "exchange_refused", Refused, Issuer, Class::Forbidden;
    Self::ExchangeClaims => "exchange_claims", Refused, Issuer, PROVED;
    Self::ExchangeUnavailable(wait) => "exchange_unavailable", Undecided, Issuer, Class::Unavailable(*wait);
    Self::TokenExpired => "token_expired", Dead, Claims, EXPIRED;
    Self::TokenTooOld => "token_too_old", Refused, Claims, EXPIRED;
    Self::TokenNotYetValid => "token_not_yet_valid", Refused, Claims, PROVED;
    Self::TokenRevoked => "token_revoked", Dead, Revocation, PROVED;
    Self::KeysUnavailable(wait) => "keys_unavailable", Undecided, Key, Class::Unavailable(*wait);
    Self::TokenInactive => "token_inactive", Dead, Signature, UNPROVED;
    Self::IntrospectionUnavailable(wait) => "introspection_unavailable", Undecided, Signature, Class::Unavailable(*wait);
    Self::RevocationsUnavailable(wait) => "revocations_unavailable", Undecided, Revocation, Class::Unavailable(*wait);
    Self::AssertionUnavailable(wait) => "assertion_unavailable", Undecided, Key, Class::Unavailable(*wait);
    Self::WrongAudience => "wrong_audience", Refused, Audience, PROVED;
    // The signature is usually unverified.
    Self::WrongIssuer => "wrong_issuer", Refused, Issuer, UNPROVED;
    Self::InsufficientScope => "insufficient_scope", Refused, Scope, Class::InsufficientScope;
    Self::MissingRole => "missing_role", Refused, Role, Class::Forbidden;
    Self::RolesOverage => "roles_overage", Refused, Role, Class::Forbidden;
    Self::Condition => "condition", Refused, Condition, Class::Forbidden;
    Self::InsufficientAuthentication => "insufficient_authentication", Refused, StepUp, PROVED;
    Self::MissingClaim => "missing_claim", Refused, Role, Class::Forbidden;
    Self::Predicate => "predicate", Refused, Role, Class::Forbidden;
    Self::ClaimsShape => "claims_shape", Refused, Role, Class::Forbidden;
    // The cookie of a browser session.
    Self::UnknownSessionCookie => "unknown_session_cookie", Dead, Credential, Class::NoCredential;
    Self::ApiKeyRefused(_) => "api_key_refused", Dead, Credential, UNPROVED;
    Self::ApiKeyUnavailable(wait) => "api_key_unavailable", Undecided, Revocation, Class::Unavailable(*wait);
    Self::SessionOver(_) => "session_over", Dead, Revocation, Class::NoCredential;
    Self::SessionNotRenewed => "session_not_renewed", Undecided, Revocation, Class::NoCredential;
    Self::SessionUnavailable(wait) => "session_unavailable", Undecided, Revocation, Class::Unavailable(*wait);
    Self::ProviderTokenOver => "provider_token_over", Refused, Revocation, Class::NoCredential;
    Self::DeviceProofMissing => "device_proof_missing", Refused, Proof, Class::NoCredential;
    Self::DeviceRefused(_) => "device_refused", Refused, Proof, Class::Forbidden;
    // A refresh credential.
    Self::UnknownRefreshToken => "unknown_refresh_token", Dead, Credential, BAD_GRANT;
    Self::OtherClient => "other_client", Refused, Session, BAD_GRANT;
    Self::OtherAccount => "other_account", Refused, Session, BAD_GRANT;
    Self::OtherDialect => "other_dialect", Refused, Session, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::Record) => "session_revoked", Dead, Rotation, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::List) => "session_revoked_by_list", Dead, Rotation, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::UserInactive) => "user_inactive", Dead, Rotation, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::BeforeValidFrom) => "session_before_valid_from", Dead, Rotation, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::NotBefore) => "session_not_before", Dead, Rotation, BAD_GRANT;
    Self::SessionRevoked(SessionEnd::Elsewhere) => "session_ended_elsewhere", Dead, Rotation, BAD_GRANT;
    Self::SessionExpired => "session_expired", Dead, Rotation, EXPIRED_GRANT;
    Self::SessionIdle => "session_idle", Dead, Rotation, EXPIRED_GRANT;
    Self::Ahead => "ahead_of_store", Refused, Rotation, BAD_GRANT;
    Self::Reuse { .. } => "reuse", Dead, Rotation, BAD_GRANT;
    Self::MismatchedPair => "mismatched_pair", Refused, Credential, BAD_GRANT;
    Self::RelayRefused(_) => "relay_refused", Refused, Rotation, BAD_GRANT;
    Self::BadProof(flaw) => flaw.reason(), Refused, Proof, Class::BadProof { needs_nonce: matches!(flaw, ProofFlaw::Nonce) };
    Self::ProofsFull(wait) => "proofs_full", Undecided, Proof, Class::Unavailable(*wait);
    Self::ProofsUnavailable(wait) => "proofs_unavailable", Undecided, Proof, Class::Unavailable(*wait);
    Self::OtherSessionKey => "other_session_key", Refused, Proof, BAD_GRANT;
    Self::OtherSessionCertificate => "other_session_certificate", Refused, Proof, BAD_GRANT;
    Self::TtlExceeded => "ttl_exceeded", Refused, Session, Class::Lifetime;
    Self::InvalidScope => "invalid_scope", Refused, Scope, Class::Scope;
    Self::InvalidTarget => "invalid_target", Refused, Scope, Class::Target;
    // A login or a client.
    Self::WrongPassword => "wrong_password", Refused, Credential, Class::Login;
    Self::NoAccount => "no_account", Refused, Credential, Class::Login;
    Self::InvalidClient => "invalid_client", Refused, Credential, Class::Client;
    Self::ClientAssertion(_) => "client_assertion", Refused, Credential, Class::Client;
    Self::GrantAssertion(_) => "grant_assertion", Refused, Credential, BAD_GRANT;
    Self::UnauthorizedClient => "unauthorized_client", Refused, Session, Class::ClientNotAllowed;
    Self::UnsupportedGrantType => "unsupported_grant_type", Refused, Session, Class::GrantType;
    Self::TooManySessions => "too_many_sessions", Refused, Session, Class::TooManySessions;
    Self::RateLimited(_, wait) => "too_many_requests", Undecided, Limit, Class::Limited(*wait);
    Self::QuotaExceeded(_, wait) => "quota_exceeded", Undecided, Quota, Class::Limited(*wait);
}
