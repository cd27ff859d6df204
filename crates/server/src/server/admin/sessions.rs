//! The operator's requests about sessions: list, show, revoke.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::State;
use rotogate::clock::Timestamp;
use rotogate::dialect::{Reply, ReplyBody};
use rotogate::directory::User;
use rotogate::fault::{Chain, Error};
use rotogate::gate::Gate;
use rotogate::gate::{Tally, Whose};
use rotogate::reply;
use rotogate::session::{Session, SessionId, Status};
use rotogate::store::Filter;

/// The number of sessions on a page: by default, and at most.
const DEFAULT_PAGE_SESSIONS: usize = 100;
const MAX_PAGE_SESSIONS: usize = 1000;

/// A session as an operator sees it, without its secret. Times are in RFC 3339.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionInfo {
    /// Its id: the `sid` of its tokens.
    pub id: String,
    /// The user that logged in.
    pub subject: String,
    /// The user's account, if any.
    pub account: Option<String>,
    /// The client that received the tokens.
    pub client: String,
    /// The dialect of the login.
    pub dialect: String,
    /// The scope granted at login.
    pub scope: String,
    /// `live`, `expired`, or why it was revoked: `logout`, `reuse`, `other-client`, `operator`, `too-many`,
    /// `user-changed`, `restored`; `not-before` if all sessions of its user, of its client or of everyone were revoked.
    pub status: String,
    /// The time of the login.
    pub created: String,
    /// When the session ends, refreshed or not.
    pub expires: String,
    /// When its latest pair of tokens was issued.
    pub refreshed: String,
    /// The generation of that pair.
    pub generation: u64,
    /// Whether a token of that pair was seen in use.
    pub confirmed: bool,
    /// The client address at login, if kept.
    pub address: Option<String>,
    /// The user agent at login, if kept.
    pub user_agent: Option<String>,
}

#[derive(Serialize)]
struct Page {
    sessions: Vec<SessionInfo>,
    /// The `after` of the next page; `null` at the end.
    next: Option<String>,
}

fn session_info(gate: &Gate, session: &Session) -> SessionInfo {
    let status = match session.status {
        Status::Revoked(because) => because.word(),
        Status::Live => gate.sessions().is_over(session).unwrap_or("live"),
    };
    SessionInfo {
        id: session.id.to_string(),
        subject: session.subject.to_string(),
        account: session.account.as_deref().map(str::to_owned),
        client: session.client.to_string(),
        dialect: session.dialect.to_string(),
        scope: session.scope.to_string(),
        status: status.to_owned(),
        created: rfc3339(session.created()),
        expires: rfc3339(session.expires),
        refreshed: rfc3339(session.issued_at),
        generation: session.current.get(),
        confirmed: session.confirmed,
        address: session.address.map(|address| address.to_string()),
        user_agent: session.user_agent.as_deref().map(str::to_owned),
    }
}

fn rfc3339(moment: Timestamp) -> String {
    let moment = UNIX_EPOCH + Duration::from_secs(moment.as_secs());
    humantime::format_rfc3339_seconds(moment).to_string()
}

/// A query parameter; `Some("")` if it has no value.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

pub(super) async fn list(state: &State, query: Option<&str>) -> Reply {
    let gate = &state.gate;
    let filter = match (parameter(query, "user"), parameter(query, "subject")) {
        (Some(_), Some(_)) => return wrong("at most one of `user` and `subject` is expected"),
        (Some(user), None) => match subject_of(state, &user, parameter(query, "account").as_deref()) {
            Ok(subject) => Filter::Subject(subject),
            Err(NoSubject(status, what)) => return reply::problem(status, Some(&what)),
        },
        (None, subject) => subject.map_or(Filter::All, |subject| Filter::Subject(subject.into())),
    };
    let after = match parameter(query, "after").map(|after| SessionId::parse(&after)) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => return wrong("after: the `next` of the page before is expected"),
    };
    let limit = match parameter(query, "limit").map(|limit| limit.parse()) {
        None => DEFAULT_PAGE_SESSIONS,
        Some(Ok(limit @ 1..=MAX_PAGE_SESSIONS)) => limit,
        Some(_) => return wrong("limit: a number from 1 to 1000 is expected"),
    };
    match gate.sessions().list(filter, after, limit).await {
        Ok(page) => json(&Page {
            sessions: page.sessions.iter().map(|session| session_info(gate, session)).collect(),
            next: page.next.map(|id| id.to_string()),
        }),
        Err(error) => failed(&error),
    }
}

pub(super) async fn show(gate: &Gate, name: &str) -> Reply {
    let Some(id) = SessionId::parse(name) else { return not_there(name) };
    match gate.sessions().get(id).await {
        Ok(Some(session)) => json(&session_info(gate, &session)),
        Ok(None) => not_there(name),
        Err(error) => failed(&error),
    }
}

/// What a revocation ended.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct RevocationReport {
    /// The sessions that it matched, those that had ended before included.
    #[serde(default)]
    pub matched: u64,
    /// The sessions that were live until then.
    pub ended: u64,
    /// Sessions and tokens from before this moment are refused (RFC 3339). Absent for a single session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
}

pub(super) async fn revoke(gate: &Gate, name: &str) -> Reply {
    let Some(id) = SessionId::parse(name) else { return not_there(name) };
    match gate.sessions().end_one(id).await {
        Ok(Some(lived)) => json(&RevocationReport { matched: 1, ended: lived.into(), not_before: None }),
        Ok(None) => not_there(name),
        Err(error) => failed(&error),
    }
}

pub(super) async fn revoke_many(state: &State, query: Option<&str>) -> Reply {
    let given = |name| parameter(query, name).filter(|value| !value.is_empty());
    let names = ["user", "subject", "client", "all"];
    let asked = names.map(|name| parameter(query, name).is_some());
    if asked.iter().filter(|asked| **asked).count() != 1 || parameter(query, "all").is_some_and(|all| !all.is_empty()) {
        return wrong("exactly one of `?user=…`, `?subject=…`, `?client=…` and `?all` is expected");
    }
    let (subject, client) = match (given("user"), given("subject"), given("client")) {
        (Some(user), None, None) => match subject_of(state, &user, given("account").as_deref()) {
            Ok(subject) => (Some(subject), None),
            Err(NoSubject(status, what)) => return reply::problem(status, Some(&what)),
        },
        (None, Some(subject), None) => (Some(subject.into_boxed_str()), None),
        (None, None, Some(client)) => (None, Some(client)),
        _ if parameter(query, "all").is_some() => (None, None),
        _ => return wrong("a name is expected, and is empty"),
    };
    let whose = match (&subject, &client) {
        (Some(subject), _) => Whose::Subject(subject),
        (None, Some(client)) => Whose::Client(client),
        (None, None) => Whose::Everyone,
    };
    if parameter(query, "force").is_none() {
        match unknown(state, whose).await {
            Ok(None) => {}
            Ok(Some(what)) => return reply::problem(StatusCode::NOT_FOUND, Some(&what)),
            Err(error) => return failed(&error),
        }
    }
    match state.gate.sessions().end(whose).await {
        Ok(Tally { matched, ended, not_before }) => {
            json(&RevocationReport { matched, ended, not_before: Some(rfc3339(not_before)) })
        }
        Err(error) => failed(&error),
    }
}

/// The status and the reason why a name has no subject.
struct NoSubject(StatusCode, String);

/// The subject of a user.
fn subject_of(state: &State, user: &str, account: Option<&str>) -> Result<Box<str>, NoSubject> {
    let asked = shown(user);
    let Some(users) = state.users.as_ref().map(|users| users.directory()) else {
        let what = format!("the users are not in a file, so that {asked} is not known by name; use --subject");
        return Err(NoSubject(StatusCode::BAD_REQUEST, what));
    };
    let mut found = users.named(account, user);
    match (found.pop(), found.pop()) {
        (Some(only), None) => Ok(only.subject),
        (Some(one), Some(other)) => {
            let named = |user: &User| user.account.as_deref().unwrap_or("none").to_owned();
            let accounts = [&one, &other].into_iter().chain(&found).map(named).collect::<Vec<_>>().join(", ");
            let what = format!("several accounts have a user {asked}: {accounts}; say which: --account");
            Err(NoSubject(StatusCode::BAD_REQUEST, what))
        }
        (None, _) => {
            let mut what = format!("no user has the name {asked}");
            if let Some(name) = users.name_of(user) {
                let name = shown(&name);
                what.push_str(&format!("; it is the subject of {name}: --user {name} or --subject {asked}"));
            }
            Err(NoSubject(StatusCode::NOT_FOUND, what))
        }
    }
}

/// Why there is nothing to end, and what was probably meant. `None` if users, clients or the store know the target.
async fn unknown(state: &State, whose: Whose<'_>) -> Result<Option<String>, Error> {
    let sessions = state.gate.sessions();
    match whose {
        Whose::Everyone => Ok(None),
        Whose::Subject(subject) => {
            // Another system may have the user: nothing is said to be unknown.
            let Some(users) = state.users.as_ref().map(|users| users.directory()) else { return Ok(None) };
            if users.name_of(subject).is_some() || sessions.has_any(whose).await? {
                return Ok(None);
            }
            let asked = shown(subject);
            let mut what = format!("no user, session or token has the subject {asked}");
            if let [user] = users.named(None, subject).as_slice() {
                what.push_str(&format!("; a user of this name has sub {}: --user {asked}", user.subject));
            }
            Ok(Some(what))
        }
        Whose::Client(client) => {
            if state.gate.has_client(client) || sessions.has_any(whose).await? {
                return Ok(None);
            }
            Ok(Some(format!("no client, session or token has the client_id {}", shown(client))))
        }
        // A kind of target that this program does not know: nothing is said to be unknown.
        _ => Ok(None),
    }
}

/// An operator's input, escaped and cut for an answer.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

pub(super) fn json(value: &impl Serialize) -> Reply {
    let mut reply = Response::new(ReplyBody::from(serde_json::to_vec(value).unwrap_or_default()));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

pub(super) fn done() -> Reply {
    let mut reply = Response::new(ReplyBody::default());
    *reply.status_mut() = StatusCode::NO_CONTENT;
    reply
}

fn not_there(id: &str) -> Reply {
    reply::problem(StatusCode::NOT_FOUND, Some(&format!("there is no session {}", shown(id))))
}

fn wrong(what: &str) -> Reply {
    reply::problem(StatusCode::BAD_REQUEST, Some(what))
}

/// The store failed. The revocation counts on this node already; it is durable once a repetition succeeds.
fn failed(error: &Error) -> Reply {
    if let Error::Failed(fault) = error {
        tracing::error!(error = ?Chain(fault), "admin request failed");
    }
    let mut reply =
        reply::problem(StatusCode::SERVICE_UNAVAILABLE, Some("the store failed; see the log and try again"));
    reply::retry_after(&mut reply, Duration::from_secs(1));
    reply
}
