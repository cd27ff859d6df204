//! The shared part of the endpoints for a caller's own sessions and API keys.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http::Method;
use http::StatusCode;
use secrecy::SecretString;

use super::OwnAccess;
use super::{Answer, Call, CommandHandler, Dialect, Outcome, Protocol, Reply, ServedPath, Sources};
use rotogate_core::credential::{self, Places};
use rotogate_core::denial::Denial;
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::refusal::{ChallengeParams, denied};
use rotogate_core::reply::{self, problem};
use rotogate_core::route::RoutePolicy;
use rotogate_core::session::Scope;
use rotogate_core::token::session_cookie::session_cookie;

/// An endpoint for the caller's own sessions or API keys. The caller has a valid access token of this gate, or a
/// browser session.
#[async_trait]
pub trait OwnResource: fmt::Debug + Any + Send + Sync {
    /// The dialect's name.
    const NAME: &'static str;
    /// The default path.
    const PATH: &'static str;

    /// Returns the operations of an endpoint whose path is `base`.
    fn paths(base: &str) -> Vec<ServedPath>;

    /// Returns what the endpoint requires of a caller.
    fn rules(&self) -> OwnRules;

    /// Returns the credential in the head of a request.
    ///
    /// # Errors
    /// The endpoint does not allow this head.
    fn presented(&self, call: &Call<'_>) -> Result<SecretString, Denial>;

    /// Returns how long ago the user may have logged in, for a change with a session cookie.
    fn max_login_age(&self) -> Option<Duration> {
        None
    }

    /// Executes a request.
    ///
    /// # Errors
    /// The request is denied, or a fault prevents the decision.
    async fn execute(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Result<Reply, Error>;
}

/// What an endpoint requires of the users who manage their own sessions or API keys.
pub struct OwnRules {
    /// The cookie with a browser's access token.
    pub cookie: &'static str,
    /// The required scope of the access token.
    pub scope: Scope,
    /// The maximum age of an access token in a request that changes something.
    pub max_age: Duration,
}

impl OwnRules {
    pub(super) fn new(cookie: &'static str, scope: Option<&str>, max_age: Duration) -> Self {
        Self { cookie, scope: Scope::parse(scope.unwrap_or_default()).unwrap_or_default(), max_age }
    }

    pub(super) fn presented(&self, call: &Call<'_>) -> Result<SecretString, Denial> {
        let places = Places { query: None, cookies: [Some(self.cookie), None], dpop: false };
        if let Some(found) = credential::extract_from(call.headers, call.query, places)? {
            return Ok(SecretString::from(found.token.into_owned()));
        }
        let session = session_cookie(call.headers)?.and_then(|value| std::str::from_utf8(value).ok());
        session.map(SecretString::from).ok_or(Denial::NoCredential)
    }

    fn refusal(self, error: &Error) -> Reply {
        match error {
            Error::Denied(denial) => {
                denied(*denial, &ChallengeParams { scopes: Cow::Owned(self.scope), ..ChallengeParams::default() })
            }
            Error::Failed(fault) => {
                let what = format!("{fault}; repeat the request");
                let mut reply = problem(StatusCode::SERVICE_UNAVAILABLE, Some(&what));
                reply::retry_after(&mut reply, fault.retry_after());
                reply
            }
        }
    }
}

impl<T: OwnResource> Dialect for T {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn default_path(&self) -> &'static str {
        Self::PATH
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        Self::paths(base)
    }

    fn sources(&self) -> Sources {
        Sources { query: None, cookie: Some(self.rules().cookie), session: true }
    }

    fn write(&self, _: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        match outcome {
            Err(error) => self.rules().refusal(&error),
            Ok(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, None),
        }
    }
}

#[async_trait]
impl<T: OwnResource> Protocol for T {
    fn own_access(&self, call: &Call<'_>) -> Option<OwnAccess> {
        let (OwnRules { cookie, scope, max_age }, is_change) = (self.rules(), *call.method != Method::GET);
        Some(OwnAccess {
            policy: RoutePolicy { cookie: Some(cookie.into()), scopes: scope, ..RoutePolicy::default() }.session(),
            presented: self.presented(call),
            max_age: is_change.then_some(max_age),
            max_login_age: self.max_login_age().filter(|_| is_change),
        })
    }

    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        match self.execute(call, gate).await {
            Ok(reply) => Answer::Reply(reply, Reason::ANSWERED),
            Err(error) => Answer::Reply(self.rules().refusal(&error), Reason::from(&error)),
        }
    }
}
