//! Phrases that the descriptions of several rules share.

use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use rotogate_core::clock::Timestamp;
use rotogate_core::denial::Denial;
use rotogate_core::route::Credentials;
use rotogate_core::token::claims::AccessToken;

/// Describes the token's bindings, which were already checked.
pub(super) fn bindings_of(token: &AccessToken) -> String {
    let key = token.bound_to().map(|key| format!("the request proves possession of the key {key}"));
    let certificate =
        token.certificate().map(|certificate| format!("the connection has the certificate {certificate}"));
    let bindings: Vec<String> = key.into_iter().chain(certificate).collect();
    match bindings.is_empty() {
        true => "the token is not bound to a key or a certificate".to_owned(),
        false => bindings.join(", "),
    }
}

pub(super) fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

pub(super) fn two(denial: Denial, headers: &HeaderMap) -> String {
    let number = headers.get_all(AUTHORIZATION).iter().count();
    match (denial, number) {
        (Denial::TwoCredentials, 2..) => format!("{number} Authorization headers"),
        (Denial::TwoCredentials, _) => "the request has two credentials, in different places".to_owned(),
        (Denial::UnusableCredential, 1) => {
            "the Authorization header does not contain exactly one bearer token".to_owned()
        }
        (Denial::UnusableCredential, _) => {
            "the request has a token in the query, or in a cookie that is not text".to_owned()
        }
        (denial, _) => denial.to_string(),
    }
}

/// Describes how far the clock is from the `exp`, `nbf` or `iat` that caused the denial.
pub(super) fn time_of(token: Option<&AccessToken>, denial: Denial, wall: Timestamp) -> String {
    match (denial, token) {
        (Denial::TokenExpired, Some(token)) => format!(" {} ago", shown(wall.since(token.expires))),
        (Denial::TokenNotYetValid, Some(token)) => match token.not_before().max(token.issued_at) {
            Some(from) => format!(": in {}", shown(from.since(wall))),
            None => String::new(),
        },
        _ => String::new(),
    }
}

pub(super) fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

pub(super) fn taken(credentials: Credentials) -> String {
    let Credentials { token, session, key } = credentials;
    let all = [(token, "token"), (session, "session"), (key, "key")];
    all.into_iter().filter(|(is_taken, _)| *is_taken).map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}
