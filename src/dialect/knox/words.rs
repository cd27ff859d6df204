//! The status of each refusal and fault.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::denial::Denial;
use crate::fault::Error;

/// A mandatory field that is empty, with the detail that says which (`google.rpc.BadRequest`).
pub(super) fn empty_field(name: &'static str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(name, "must not be empty");
    Status::with_error_details(Code::InvalidArgument, format!("{name} is empty"), details)
}

/// The status for why nothing came of a call. What may be tried again says when (`google.rpc.RetryInfo`).
pub(super) fn status(error: &Error) -> Status {
    match error {
        Error::Denied(denial) => denied(*denial),
        Error::Failed(fault) => later(Code::Unavailable, "try again later", fault.retry_after()),
    }
}

fn denied(denial: Denial) -> Status {
    match denial {
        Denial::MalformedRequest(what) => Status::invalid_argument(what),
        Denial::TwoCredentials => Status::invalid_argument("send exactly one credential"),
        Denial::TtlExceeded
        | Denial::InvalidScope
        | Denial::BadPath(_)
        | Denial::BadHost
        | Denial::BadTarget
        | Denial::BadFraming
        | Denial::Tunnel
        | Denial::TargetTooLong => Status::invalid_argument("the request is malformed"),
        Denial::NoCredential | Denial::UnusableCredential => {
            Status::unauthenticated("send the metadata authorization: Bearer <access token>")
        }
        Denial::WrongPassword => Status::unauthenticated("wrong email or password"),
        Denial::MalformedToken(_)
        | Denial::UnknownIssuer
        | Denial::UnknownKey
        | Denial::WrongAlgorithm
        | Denial::WrongType
        | Denial::BadSignature
        | Denial::BadClaim(_)
        | Denial::UnprovedBinding
        | Denial::TokenExpired
        | Denial::TokenNotYetValid
        | Denial::TokenRevoked
        | Denial::WrongAudience
        | Denial::WrongIssuer => Status::unauthenticated("the access token is invalid"),
        // One word for all: a caller never learns more than that it is not good.
        Denial::UnknownRefreshToken
        | Denial::OtherClient
        | Denial::OtherAccount
        | Denial::OtherDialect
        | Denial::SessionRevoked(_)
        | Denial::SessionExpired(_)
        | Denial::Ahead
        | Denial::Reuse(_)
        | Denial::MismatchedPair => Status::unauthenticated("the refresh token is invalid"),
        Denial::InvalidClient => Status::unauthenticated("the client is unknown"),
        Denial::UnauthorizedClient | Denial::UnsupportedGrantType => {
            Status::permission_denied("the client may not do this")
        }
        Denial::CrossOrigin => Status::permission_denied("the request came from another origin"),
        Denial::InsufficientScope => Status::permission_denied("the access token lacks a scope"),
        Denial::NoRoute | Denial::AmbiguousPath | Denial::UnknownHost | Denial::NearMiss | Denial::MethodNotAllowed => {
            Status::unimplemented("no such method")
        }
        Denial::BodyTooLarge => Status::resource_exhausted("the request is too large"),
        Denial::TooManySessions => Status::resource_exhausted("too many sessions"),
        Denial::TooManyRequests(wait) => later(Code::ResourceExhausted, "too many requests", wait),
    }
}

fn later(code: Code, message: &str, wait: Duration) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(wait)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Fault;

    #[test]
    fn what_may_be_tried_again_says_when() {
        for (error, code) in [
            (Denial::TooManyRequests(Duration::from_secs(3)).into(), Code::ResourceExhausted),
            (Error::Failed(Fault::Contention), Code::Unavailable),
        ] {
            let status = status(&error);
            assert_eq!(status.code(), code);
            assert!(status.get_details_retry_info().and_then(|retry| retry.retry_delay).is_some());
        }
    }

    #[test]
    fn an_empty_field_is_named() {
        let status = empty_field("refresh_token");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.get_details_bad_request().unwrap().field_violations[0].field, "refresh_token");
    }
}
