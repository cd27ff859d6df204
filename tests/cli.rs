//! Every command of the real binary, the mistakes of a new user, and the operator's side.

mod admin;
mod api_keys;
mod broken;
mod check;
mod client;
mod command_line;
mod emergency;
mod explain;
mod explain_hints;
mod files;
mod keys;
mod limits;
mod mistakes;
mod owners;
mod remedies;
mod service;
mod session;
mod store;
mod token;
mod truth;
mod user;
#[cfg(feature = "sql")]
mod user_database;

use http::StatusCode;
use support::Answer;

/// 400 `invalid_grant`.
#[track_caller]
fn assert_invalid_grant(answer: &Answer) {
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"), "{answer:?}");
}
