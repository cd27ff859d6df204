//! A user's own sessions over plain HTTP: a page of an application shows where its user is logged in, and ends sessions
//! that the user does not recognise.
//!
//! | request | result |
//! |---|---|
//! | `GET /sessions` | the live sessions of the caller, the newest first |
//! | `DELETE /sessions/{id}` | ends one session |
//! | `DELETE /sessions?others` | ends all sessions but the caller's current one |
//!
//! The caller is the user of a good access token of this gate, in `Authorization` or in a cookie, or the user of a browser
//! session. Errors are problem documents (RFC 9457). The session of another user gets the same answer as a session that never existed.
//!
//! ```
//! use rotogate::dialect::my_sessions::MySessions;
//! use rotogate::gate::Endpoint;
//!
//! let endpoint = Endpoint::new(MySessions::default()).path("/account/sessions");
//! # let _ = endpoint;
//! ```
// Requirement P55.

use std::borrow::Cow;
use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use secrecy::SecretString;
use serde::Serialize;
use serde_json::json;

#[cfg(feature = "program")]
use super::OwnAccess;
use super::answer::json;
use super::{
    Answer, Call, Command, CommandHandler, Dialect, Outcome, OwnSessionsAction, OwnSessionsRequest, Protocol, Reply,
    ServedPath, Sources,
};
use rotogate_core::credential::{self, ACCESS_COOKIE, Places};
use rotogate_core::denial::Denial;
use rotogate_core::engine::{OwnSession, OwnSessions};
use rotogate_core::fault::Error;
use rotogate_core::reason::Reason;
use rotogate_core::refusal::{ChallengeParams, denied};
use rotogate_core::reply::{self, problem};
#[cfg(feature = "program")]
use rotogate_core::route::RoutePolicy;
use rotogate_core::session::{Scope, SessionId};
use rotogate_core::token::session_cookie::session_cookie;

const ALL: &str = "sessions";
const ONE: &str = "session";

/// The dialect `my-sessions`, with its options.
///
/// ```
/// use std::time::Duration;
/// use rotogate::dialect::my_sessions::MySessions;
/// use rotogate::gate::Endpoint;
///
/// // Whoever ends a session has refreshed its tokens within the last minute.
/// let dialect = MySessions { max_age: Duration::from_secs(60), ..MySessions::default() };
/// let builder = rotogate::Gate::builder().endpoint(Endpoint::new(dialect));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MySessions {
    /// How old an access token may be to end sessions. A refresh gives a new token.
    pub max_age: Duration,
    /// Whether the access token must have the scope [`Self::SCOPE`].
    pub needs_scope: bool,
    /// The cookie in which a browser sends the access token.
    pub cookie: &'static str,
}

impl Default for MySessions {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(600), needs_scope: false, cookie: ACCESS_COOKIE }
    }
}

impl MySessions {
    /// The scope that a caller needs if [`Self::needs_scope`] is set.
    pub const SCOPE: &str = "sessions";

    fn request(&self, call: &Call<'_>) -> Result<OwnSessionsRequest, Denial> {
        let action = match (call.operation, call.method, call.query) {
            (ONE, _, None) => {
                let id = call.param("id").and_then(SessionId::parse);
                OwnSessionsAction::End(id.ok_or(Denial::UnknownSession)?)
            }
            (ALL, &Method::GET, None) => OwnSessionsAction::List,
            (ALL, &Method::DELETE, Some("others" | "others=")) => OwnSessionsAction::EndOthers,
            (ALL, &Method::DELETE, None) => {
                return Err(Denial::MalformedRequest("name a session in the path, or send ?others"));
            }
            _ => return Err(Denial::MalformedRequest("the query has a parameter that is not expected")),
        };
        Ok(OwnSessionsRequest {
            access: presented(call, self.cookie)?,
            scope: self.scope(),
            max_age: self.max_age,
            action,
        })
    }

    fn scope(&self) -> Scope {
        wanted_scope(self.needs_scope, Self::SCOPE)
    }
}

/// The answer of an endpoint for a caller's own things. `scope` is the scope that its callers need.
pub(super) fn answered(done: Result<Reply, Error>, scope: Scope) -> Answer {
    match done {
        Ok(reply) => Answer::Reply(reply, Reason::ANSWERED),
        Err(error) => Answer::Reply(refusal(&error, scope), Reason::from(&error)),
    }
}

/// The reply of such an endpoint outside [`Protocol::answer`]: its dialect has no commands.
pub(super) fn without_commands(outcome: Result<Outcome, Error>, scope: Scope) -> Reply {
    match outcome {
        Err(error) => refusal(&error, scope),
        Ok(_) => problem(StatusCode::INTERNAL_SERVER_ERROR, None),
    }
}

/// The reply to a refused request.
fn refusal(error: &Error, scope: Scope) -> Reply {
    match error {
        Error::Denied(denial) => {
            denied(*denial, &ChallengeParams { scopes: Cow::Owned(scope), ..ChallengeParams::default() })
        }
        Error::Failed(fault) => {
            let what = format!("{fault}; try the same again");
            let mut reply = problem(StatusCode::SERVICE_UNAVAILABLE, Some(&what));
            reply::retry_after(&mut reply, fault.retry_after());
            reply
        }
    }
}

/// The scope that the access token must have.
pub(super) fn wanted_scope(is_wanted: bool, scope: &str) -> Scope {
    Scope::parse(if is_wanted { scope } else { "" }).unwrap_or_default()
}

/// The policy of the callers of such an endpoint.
#[cfg(feature = "program")]
pub(super) fn own_policy(cookie: &'static str, scopes: Scope) -> RoutePolicy {
    RoutePolicy { cookie: Some(cookie.into()), scopes, ..RoutePolicy::default() }.session()
}

/// The access token of a request, or its session cookie.
pub(super) fn presented(call: &Call<'_>, cookie: &'static str) -> Result<SecretString, Denial> {
    let places = Places { query: None, cookies: [Some(cookie), None], dpop: false };
    if let Some(found) = credential::extract_from(call.headers, call.query, places)? {
        return Ok(SecretString::from(found.token.into_owned()));
    }
    let session = session_cookie(call.headers)?.and_then(|value| std::str::from_utf8(value).ok());
    session.map(SecretString::from).ok_or(Denial::NoCredential)
}

impl Dialect for MySessions {
    fn name(&self) -> &'static str {
        super::registry::MY_SESSIONS
    }

    fn default_path(&self) -> &'static str {
        "/sessions"
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        vec![
            ServedPath::new(ALL, base.to_owned(), &[Method::GET, Method::DELETE]),
            ServedPath::new(ONE, format!("{base}/{{id}}"), &[Method::DELETE]),
        ]
    }

    fn sources(&self) -> Sources {
        Sources { query: None, cookie: Some(self.cookie), session: true }
    }

    fn read(&self, _: &Call<'_>) -> Result<Command, Denial> {
        // Not called, because [`Protocol::answer`] reads the request.
        Err(Denial::NoRoute)
    }

    fn write(&self, _: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        without_commands(outcome, self.scope())
    }
}

#[async_trait]
impl Protocol for MySessions {
    #[cfg(feature = "program")]
    fn own_access(&self, call: &Call<'_>) -> Option<OwnAccess> {
        let is_change = *call.method != Method::GET;
        Some(OwnAccess {
            policy: own_policy(self.cookie, self.scope()),
            presented: self.request(call).map(|request| request.access),
            max_age: is_change.then_some(self.max_age),
            max_login_age: None,
        })
    }

    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        let done = match self.request(call) {
            Ok(request) => gate.own_sessions(request).await.map(|done| written(&done)),
            Err(denial) => Err(denial.into()),
        };
        answered(done, self.scope())
    }
}

fn written(done: &OwnSessions) -> Reply {
    match done {
        OwnSessions::Listed(sessions) => {
            json(StatusCode::OK, &List { sessions: sessions.iter().map(OwnSessionEntry::new).collect() })
        }
        OwnSessions::Ended(ended) => json(StatusCode::OK, &json!({ "ended": ended })),
    }
}

#[derive(Serialize)]
struct List<'a> {
    sessions: Vec<OwnSessionEntry<'a>>,
}

/// A session as its user sees it. Times are seconds since 1970, as in a token.
#[derive(Serialize)]
struct OwnSessionEntry<'a> {
    id: String,
    client: &'a str,
    created: u64,
    refreshed: u64,
    expires: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
    current: bool,
}

impl<'a> OwnSessionEntry<'a> {
    fn new(OwnSession { session, is_current }: &'a OwnSession) -> Self {
        Self {
            id: session.id.to_string(),
            client: &session.client,
            created: session.created().as_secs(),
            refreshed: session.issued_at.as_secs(),
            expires: session.expires.as_secs(),
            address: session.address.map(|address| address.to_string()),
            user_agent: session.user_agent.as_deref(),
            current: *is_current,
        }
    }
}
