//! The gRPC status for each denial and fault.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use rotogate_core::denial::{Class, Denial};
use rotogate_core::fault::Error;

/// A detail names the empty field (`google.rpc.BadRequest`).
pub(in crate::dialect) fn empty_field(name: &'static str) -> Status {
    let details = ErrorDetails::with_bad_request_violation(name, "must not be empty");
    Status::with_error_details(Code::InvalidArgument, format!("{name} is empty"), details)
}

/// The status of a failed call, with the retry delay (`google.rpc.RetryInfo`).
pub(in crate::dialect) fn status(error: &Error) -> Status {
    match error {
        Error::Denied(denial) => denied(*denial),
        Error::Failed(fault) => unavailable(fault.retry_after()),
    }
}

fn denied(denial: Denial) -> Status {
    match denial.class() {
        Class::Request(what) => Status::invalid_argument(what),
        Class::TwoCredentials => Status::invalid_argument("send exactly one credential"),
        Class::Lifetime | Class::Scope | Class::Target | Class::Head { .. } | Class::Tunnel => {
            Status::invalid_argument("the request is malformed")
        }
        Class::NoCredential | Class::UnusableCredential => {
            Status::unauthenticated("send an access token as metadata: `authorization: Bearer <access token>`")
        }
        Class::Login => Status::unauthenticated("wrong email or password"),
        Class::BadToken { .. } | Class::BadProof { .. } => Status::unauthenticated("the access token is invalid"),
        // All invalid tokens get this message, so that it does not reveal the reason.
        Class::BadGrant { .. } => Status::unauthenticated("the refresh token is invalid"),
        Class::Client => Status::unauthenticated("the client is unknown"),
        Class::ClientNotAllowed | Class::GrantType => Status::permission_denied("the client may not make this request"),
        Class::CrossOrigin => Status::permission_denied("the request came from another origin"),
        Class::InsufficientScope => Status::permission_denied("the access token lacks a scope"),
        Class::Forbidden => Status::permission_denied("the access token does not permit this request"),
        Class::NotFound(_) | Class::UnknownHost | Class::WrongMethod => Status::unimplemented("no such method"),
        Class::TooLarge => Status::resource_exhausted("the request is too large"),
        Class::TooManySessions => Status::resource_exhausted("too many sessions"),
        Class::Limited(wait) => later(Code::ResourceExhausted, "too many requests", wait),
        Class::Unavailable(wait) => unavailable(wait),
    }
}

fn unavailable(wait: Duration) -> Status {
    later(Code::Unavailable, "try again later", wait)
}

fn later(code: Code, message: &str, wait: Duration) -> Status {
    Status::with_error_details(code, message, ErrorDetails::with_retry_info(Some(wait)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rotogate_core::fault::Fault;

    #[test]
    fn what_may_be_tried_again_says_when() {
        for (error, code) in [
            (Denial::RateLimited("login_per_address", Duration::from_secs(3)).into(), Code::ResourceExhausted),
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
