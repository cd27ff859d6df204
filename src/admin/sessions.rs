//! Sessions, to be seen and ended by an operator.

use std::time::{Duration, UNIX_EPOCH};

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::denial::{Chain, Error};
use crate::dialect::{Reply, ReplyBody};
use crate::gate::{Gate, respond};
use crate::session::{RevokedBecause, Session, SessionId, Status};
use crate::store::Filter;

/// How many sessions a page has, and how many it may have.
const PAGE: usize = 100;
const MOST: usize = 1000;

/// A session as an operator sees it: everything but its secret. Times are RFC 3339.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// Its id: the `sid` of its tokens.
    pub id: String,
    /// Who logged in.
    pub subject: String,
    /// The account, where there is one.
    pub account: Option<String>,
    /// The client that its tokens were issued to.
    pub client: String,
    /// The dialect in which it began.
    pub dialect: String,
    /// The scope granted at login.
    pub scope: String,
    /// `live`, `expired`, or why it was revoked: `logout`, `reuse`, `other-client`, `operator`, `too-many`; `not-before`
    /// where all sessions of its user, its client or everyone were.
    pub status: String,
    /// When it began.
    pub created: String,
    /// When it ends, whatever is refreshed.
    pub expires: String,
    /// When its last pair of tokens was issued.
    pub refreshed: String,
    /// The generation of that pair.
    pub generation: u64,
    /// Has anyone used that pair?
    pub confirmed: bool,
    /// The address at login, where it is kept.
    pub address: Option<String>,
    /// The user agent at login, where it is kept.
    pub user_agent: Option<String>,
}

#[derive(Serialize)]
struct Page {
    sessions: Vec<Listed>,
    /// To be sent as `after`; `null` at the end.
    next: Option<String>,
}

fn listed(gate: &Gate, session: &Session) -> Listed {
    let status = match session.status {
        Status::Revoked(RevokedBecause::Logout) => "logout",
        Status::Revoked(RevokedBecause::Reuse) => "reuse",
        Status::Revoked(RevokedBecause::OtherClient) => "other-client",
        Status::Revoked(RevokedBecause::Operator) => "operator",
        Status::Revoked(RevokedBecause::TooMany) => "too-many",
        Status::Live => gate.sessions().is_over(session).unwrap_or("live"),
    };
    Listed {
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
        generation: session.current,
        confirmed: session.confirmed,
        address: session.address.map(|address| address.to_string()),
        user_agent: session.user_agent.as_deref().map(str::to_owned),
    }
}

fn rfc3339(moment: Timestamp) -> String {
    let moment = UNIX_EPOCH + Duration::from_secs(moment.as_secs());
    humantime::format_rfc3339_seconds(moment).to_string()
}

/// A parameter of the query; `Some("")` where it has no value.
fn parameter(query: Option<&str>, name: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

pub(super) async fn list(gate: &Gate, query: Option<&str>) -> Reply {
    let filter = parameter(query, "subject").map_or(Filter::All, |subject| Filter::Subject(subject.into()));
    let after = match parameter(query, "after").map(|after| SessionId::parse(&after)) {
        None => None,
        Some(Some(id)) => Some(id),
        Some(None) => return wrong("after: the `next` of the page before is expected"),
    };
    let limit = match parameter(query, "limit").map(|limit| limit.parse()) {
        None => PAGE,
        Some(Ok(limit @ 1..=MOST)) => limit,
        Some(_) => return wrong("limit: a number from 1 to 1000 is expected"),
    };
    match gate.sessions().list(filter, after, limit).await {
        Ok(page) => json(&Page {
            sessions: page.sessions.iter().map(|session| listed(gate, session)).collect(),
            next: page.next.map(|id| id.to_string()),
        }),
        Err(error) => failed(&error),
    }
}

pub(super) async fn show(gate: &Gate, id: &str) -> Reply {
    let Some(id) = SessionId::parse(id) else { return not_there() };
    match gate.sessions().get(id).await {
        Ok(Some(session)) => json(&listed(gate, &session)),
        Ok(None) => not_there(),
        Err(error) => failed(&error),
    }
}

pub(super) async fn revoke(gate: &Gate, id: &str) -> Reply {
    let Some(id) = SessionId::parse(id) else { return not_there() };
    match gate.sessions().revoke(id).await {
        Ok(true) => done(),
        Ok(false) => not_there(),
        Err(error) => failed(&error),
    }
}

pub(super) async fn revoke_many(gate: &Gate, query: Option<&str>) -> Reply {
    let sessions = gate.sessions();
    let asked = ["subject", "client", "all"].map(|name| parameter(query, name));
    let revoked = match asked {
        [Some(subject), None, None] if !subject.is_empty() => sessions.revoke_subject(&subject).await,
        [None, Some(client), None] if !client.is_empty() => sessions.revoke_client(&client).await,
        [None, None, Some(all)] if all.is_empty() => sessions.revoke_all().await,
        _ => return wrong("exactly one of `?subject=…`, `?client=…` and `?all` is expected"),
    };
    match revoked {
        Ok(()) => done(),
        Err(error) => failed(&error),
    }
}

fn json(value: &impl Serialize) -> Reply {
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

fn not_there() -> Reply {
    respond::problem(StatusCode::NOT_FOUND, Some("there is no session of this id"))
}

fn wrong(what: &str) -> Reply {
    respond::problem(StatusCode::BAD_REQUEST, Some(what))
}

/// The store failed: a revocation holds on this node all the same, and is durable once a repeat says so.
fn failed(error: &Error) -> Reply {
    if let Error::Failed(fault) = error {
        tracing::error!(error = ?Chain(fault), "an operator's request could not be carried out");
    }
    let mut reply = respond::problem(StatusCode::SERVICE_UNAVAILABLE, Some("the store failed; see the log, try again"));
    respond::retry_after(&mut reply, Duration::from_secs(1));
    reply
}
