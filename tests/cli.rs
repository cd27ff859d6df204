//! Every command of the real binary, the mistakes of a new user, and the operator's side.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod support;

#[path = "cli/admin.rs"]
mod admin;
#[path = "cli/check.rs"]
mod check;
#[path = "cli/client.rs"]
mod client;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/keys.rs"]
mod keys;
#[path = "cli/mistakes.rs"]
mod mistakes;
#[path = "cli/owners.rs"]
mod owners;
#[path = "cli/service.rs"]
mod service;
#[path = "cli/session.rs"]
mod session;
#[path = "cli/store.rs"]
mod store;
#[path = "cli/token.rs"]
mod token;
#[path = "cli/user.rs"]
mod user;

use http::StatusCode;
use serde_json::Value;
use support::{Answer, Gate, Place, Ran};

impl Place {
    /// A command that must succeed.
    fn done(&self, arguments: &[&str], input: &str) -> Ran {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran
    }

    /// The same with `--json`.
    fn json(&self, arguments: &[&str], input: &str) -> Value {
        let arguments = [arguments, &["--json"]].concat();
        serde_json::from_str(&self.done(&arguments, input).stdout).unwrap()
    }

    /// A command that must fail with exit code 1, and what it says.
    fn fails(&self, arguments: &[&str], input: &str) -> String {
        let ran = self.run(arguments, input);
        assert_eq!(ran.code, Some(1), "{arguments:?}: {ran:?}");
        assert_eq!(ran.stdout, "", "errors go to standard error");
        ran.stderr
    }
}

impl Gate {
    async fn log_in(&self, username: &str, password: &str) -> Answer {
        self.token(&[("grant_type", "password"), ("username", username), ("password", password)]).await
    }

    /// Waits until the access token is refused, and sees that it is refused as RFC 6750 says.
    async fn until_refused(&self, access: &str) {
        support::until("the access token is refused", async || {
            self.get("/", access).await.status == StatusCode::UNAUTHORIZED
        })
        .await;
        let answer = self.get("/", access).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert!(answer.headers["www-authenticate"].to_str().unwrap().contains("invalid_token"), "{answer:?}");
    }
}

/// 400 `invalid_grant`.
#[track_caller]
fn assert_invalid_grant(answer: &Answer) {
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"), "{answer:?}");
}
