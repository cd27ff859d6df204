//! A user's own sessions over plain HTTP, for a page of an application. The page shows where the user is logged in, and
//! ends sessions that the user does not recognise.
//!
//! | request | result |
//! |---|---|
//! | `GET /sessions` | lists the caller's live sessions, newest first |
//! | `DELETE /sessions/{id}` | ends one session |
//! | `DELETE /sessions?others` | ends all of the caller's sessions except the current one |
//!
//! The caller must have a valid access token of this gate, in `Authorization` or in a cookie, or a browser session.
//! Errors are problem documents (RFC 9457). Another user's session gets the same response as an unknown one.
//!
//! ```
//! use rotogate::dialect::my_sessions::MySessions;
//! use rotogate::gate::Endpoint;
//!
//! let endpoint = Endpoint::new(MySessions::default()).path("/account/sessions");
//! # let _ = endpoint;
//! ```
// Requirement P55.

use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::answer::json;
use super::own_resource::{OwnResource, OwnRules};
use super::{Call, CommandHandler, OwnSessionsAction, OwnSessionsRequest, Reply, ServedPath};
use rotogate_core::credential::ACCESS_COOKIE;
use rotogate_core::denial::Denial;
use rotogate_core::engine::{OwnSession, OwnSessions};
use rotogate_core::fault::Error;
use rotogate_core::session::SessionId;

/// The name of this dialect.
pub(crate) const NAME: &str = "my-sessions";
const ALL: &str = "sessions";
const ONE: &str = "session";

/// The dialect `my-sessions`, with its options.
///
/// ```
/// use std::time::Duration;
/// use rotogate::dialect::my_sessions::MySessions;
/// use rotogate::gate::Endpoint;
///
/// // A caller can end sessions only with a token that was refreshed within the last minute.
/// let dialect = MySessions { max_age: Duration::from_secs(60), ..MySessions::default() };
/// let builder = rotogate::Gate::builder().endpoint(Endpoint::new(dialect));
/// # let _ = builder;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MySessions {
    /// The maximum age of an access token with which a user ends sessions. A refresh issues a newer token.
    pub max_age: Duration,
    /// Whether the access token must have the scope [`Self::SCOPE`].
    pub needs_scope: bool,
    /// The cookie with a browser's access token.
    pub cookie: &'static str,
}

impl Default for MySessions {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(600), needs_scope: false, cookie: ACCESS_COOKIE }
    }
}

impl MySessions {
    /// The scope that [`Self::needs_scope`] requires.
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
                return Err(Denial::MalformedRequest("add a session id to the path, or send the query ?others"));
            }
            _ => return Err(Denial::MalformedRequest("the query has an unexpected parameter")),
        };
        let rules = self.rules();
        let access = rules.presented(call)?;
        Ok(OwnSessionsRequest { access, scope: rules.scope, max_age: rules.max_age, action })
    }
}

#[async_trait]
impl OwnResource for MySessions {
    const NAME: &str = NAME;
    const PATH: &str = "/sessions";

    fn paths(base: &str) -> Vec<ServedPath> {
        vec![
            ServedPath::new(ALL, base.to_owned(), &[Method::GET, Method::DELETE]),
            ServedPath::new(ONE, format!("{base}/{{id}}"), &[Method::DELETE]),
        ]
    }

    fn rules(&self) -> OwnRules {
        OwnRules::new(self.cookie, self.needs_scope.then_some(Self::SCOPE), self.max_age)
    }

    fn presented(&self, call: &Call<'_>) -> Result<secrecy::SecretString, Denial> {
        self.request(call).map(|request| request.access)
    }

    async fn execute(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Result<Reply, Error> {
        Ok(written(&gate.own_sessions(self.request(call)?).await?))
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

/// Times are seconds since 1970.
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
