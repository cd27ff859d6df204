//! Operations on sessions.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::newest::{FIRST_WINDOW, newest_before};
use super::problem::{Code, Refusal};
use super::revocations::{RevocationReport, subject_of};
use super::{AdminState, events, page_size, rfc3339, shown};
use rotogate::Gate;
use rotogate::gate::Sessions;
use rotogate_core::claim::OwnClaims;
use rotogate_core::clock::Timestamp;
use rotogate_core::session::{RevokedBecause, Session, SessionId, Status};
use rotogate_core::store::Filter;

const MAX_PAGE_SESSIONS: usize = 1000;
/// How many sessions are read for one page. If few of them match the filter, the page is short.
const MAX_READ_SESSIONS: usize = 20_000;
/// How many sessions are read at once, at first. Most filters match most sessions.
const READ_AT_ONCE: usize = 100;
/// How many sessions are read at once in newest-first order.
const NEWEST_AT_ONCE: usize = 250;

/// A session as an operator sees it, without its secret. Times are in RFC 3339.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SessionInfo {
    /// The session's id, which is the `sid` of its tokens.
    pub(crate) id: String,
    /// The `sub` of the user who logged in.
    pub(crate) subject: String,
    /// The name of the user, if the users file contains the user.
    pub(crate) user: Option<String>,
    /// The name that the admin page shows: `user`, a name among the session's claims, or a readable subject.
    #[serde(skip)]
    pub(super) name: Option<String>,
    /// The user's account, if any.
    pub(crate) account: Option<String>,
    /// The client that received the tokens.
    pub(crate) client: String,
    /// The dialect of the login.
    pub(crate) dialect: String,
    /// The scope granted at login.
    pub(crate) scope: String,
    /// `live`, `expired`, or the reason of the revocation: `logout`, `reuse`, `other-client`, `operator`, `too-many`,
    /// `user-changed`, `restored`, `issuer-logout`, or `not-before` if all sessions of its user, of its client or of
    /// everyone were revoked.
    pub(crate) status: String,
    /// The time of the login.
    pub(crate) created: String,
    /// The time when the session ends, even if it is refreshed.
    pub(crate) expires: String,
    /// The time when the latest pair of tokens was issued.
    pub(crate) refreshed: String,
    /// The generation of the latest pair of tokens.
    pub(crate) generation: u64,
    /// Whether a token of the latest pair was used. This is not recorded for the first pair, because it does not
    /// replace another pair.
    pub(crate) confirmed: bool,
    /// Whether a browser's session is bound to the browser's device. `null` if the session does not belong to a
    /// browser.
    pub(crate) device_bound: Option<bool>,
    /// The client address at the login, if it was stored.
    pub(crate) address: Option<String>,
    /// The user agent at the login, if it was stored.
    pub(crate) user_agent: Option<String>,
}

/// A session and its history.
#[derive(Serialize, ToSchema)]
pub(super) struct SessionDetail {
    #[serde(flatten)]
    pub(super) session: SessionInfo,
    /// The lines about the session among the last 1000 lines of the audit log, including those that show who ended the
    /// session.
    #[schema(value_type = Vec<Object>)]
    pub(super) history: Vec<Value>,
    /// The actor that ended the session, if the lines of `history` name the actor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ended_by: Option<String>,
}

/// The parameters that select sessions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionsQuery {
    /// Only sessions of the user with this name in the users file.
    pub(super) user: Option<String>,
    /// Only sessions of this account. With `user`, the user's account. An empty value means no account.
    pub(super) account: Option<String>,
    /// Only sessions of this subject.
    pub(super) subject: Option<String>,
    /// Only sessions of this client.
    pub(super) client: Option<String>,
    /// Only sessions that began at an endpoint with this dialect.
    pub(super) dialect: Option<String>,
    /// Only sessions with this status: `live`, `ended`, or a reason as in `status` of the response.
    pub(super) status: Option<String>,
    /// Only sessions that began at or after this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub(super) since: Option<String>,
    /// Only sessions that began before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    pub(super) until: Option<String>,
    /// `oldest` or `newest` first; by default `oldest`.
    pub(super) order: Option<String>,
    /// The `next` of the previous page, with the same order.
    pub(super) cursor: Option<String>,
    /// The maximum number of sessions on the page.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    pub(super) limit: Option<String>,
}

/// A page of sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    /// The sessions, with the oldest first unless `order` is `newest`.
    pub(super) sessions: Vec<SessionInfo>,
    /// The `cursor` of the next page. `null` at the end. A page may have fewer sessions than requested, or none, even
    /// if there is a next page.
    pub(super) next: Option<String>,
}

#[derive(Clone, Copy)]
enum AskedStatus {
    Live,
    Ended,
    Because(&'static str),
}

pub(super) fn reasons() -> impl Iterator<Item = &'static str> {
    ["expired", "not-before"].into_iter().chain(RevokedBecause::ALL.into_iter().map(RevokedBecause::word))
}

impl AskedStatus {
    fn parse(text: &str) -> Option<Self> {
        let mut reasons = reasons();
        match text {
            "live" => Some(Self::Live),
            "ended" => Some(Self::Ended),
            _ => reasons.find(|reason| *reason == text).map(Self::Because),
        }
    }

    fn is(self, status: &str) -> bool {
        match self {
            Self::Live => status == "live",
            Self::Ended => status != "live",
            Self::Because(reason) => status == reason,
        }
    }
}

fn status_of(gate: &Gate, session: &Session) -> &'static str {
    match session.status {
        Status::Revoked(because) => because.word(),
        Status::Live => gate.sessions().is_over(session).unwrap_or("live"),
    }
}

/// Returns the name of a user of the users file.
pub(super) fn name_of(state: &AdminState, subject: &str) -> Option<String> {
    state.users.as_ref()?.directory().user_of(subject).map(|(_, name)| name)
}

/// Returns the name that the user's directory or issuer gave to the session.
fn name_in(claims: &OwnClaims) -> Option<String> {
    ["preferred_username", "name", "email"].into_iter().find_map(|claim| claims.get(claim)?.as_str().map(str::to_owned))
}

/// Returns a subject that a person can tell from another, which a UUID is not.
fn readable(subject: &str) -> Option<String> {
    Uuid::try_parse(subject).is_err().then(|| subject.to_owned())
}

fn session_info(state: &AdminState, session: &Session) -> SessionInfo {
    let user = name_of(state, &session.subject);
    SessionInfo {
        id: session.id.to_string(),
        subject: session.subject.to_string(),
        name: user.clone().or_else(|| name_in(&session.claims)).or_else(|| readable(&session.subject)),
        user,
        account: session.account.as_deref().map(str::to_owned),
        client: session.client.to_string(),
        dialect: session.dialect.to_string(),
        scope: session.scope.to_string(),
        status: status_of(&state.gate, session).to_owned(),
        created: rfc3339(session.created()),
        expires: rfc3339(session.expires),
        refreshed: rfc3339(session.issued_at),
        generation: session.current.get(),
        confirmed: session.confirmed,
        device_bound: session.browser.as_ref().map(|browser| browser.device.is_some()),
        address: session.address.map(|address| address.to_string()),
        user_agent: session.user_agent.as_deref().map(str::to_owned),
    }
}

/// Lists the sessions in pages, with the oldest first. A session that was created before the request for the first page
/// is on exactly one page, even if other sessions begin or end meanwhile.
#[utoipa::path(
    get, path = "/v1/sessions", operation_id = "list_sessions", tag = "sessions",
    params(SessionsQuery), responses((status = 200, description = "done", body = Page))
)]
pub(super) async fn list(state: &AdminState, query: SessionsQuery) -> Result<Page, Refusal> {
    let SessionsQuery { user, account, subject, client, dialect, status, since, until, order, cursor, limit } = query;
    let gate = &state.gate;
    let (filter, account) = match (user, subject) {
        (Some(_), Some(_)) => return Err(wrong("at most one of `user` and `subject` is expected")),
        // A session from before a move to another account has the earlier account.
        (Some(user), None) => (Filter::Subject(subject_of(state, &user, account.as_deref())?), None),
        (None, Some(subject)) => (Filter::Subject(subject.into()), account),
        (None, None) => (Filter::All, account),
    };
    let status = asked_status(status.as_deref())?;
    let (since, until) = (moment("since", since.as_deref())?, moment("until", until.as_deref())?);
    let mut after = match cursor.map(|cursor| SessionId::parse(&cursor)) {
        Some(None) => return Err(wrong("cursor: expected the value of `next` from the previous page")),
        cursor => cursor.flatten(),
    };
    let is_newest_first = asked_order(order.as_deref())?;
    // Ids are in the order of their creation times.
    let before_since = since.map(|since| SessionId::new(since, [0; 10]));
    if !is_newest_first {
        after = after.max(before_since);
    }
    let limit = page_size(limit, MAX_PAGE_SESSIONS)?;
    let is_asked_for = |session: &Session| {
        account.as_deref().is_none_or(|account| session.account.as_deref().unwrap_or_default() == account)
            && client.as_deref().is_none_or(|client| *session.client == *client)
            && dialect.as_deref().is_none_or(|dialect| *session.dialect == *dialect)
            && since.is_none_or(|since| session.created() >= since)
            && until.is_none_or(|until| session.created() < until)
            && status.is_none_or(|status| status.is(status_of(gate, session)))
    };
    let is_filtered = account.is_some() || client.is_some() || dialect.is_some() || status.is_some();
    let mut at_once = if is_filtered { limit.max(READ_AT_ONCE) } else { limit };
    let sessions = gate.sessions();
    let (mut found, mut read, mut window) = (Vec::new(), 0, FIRST_WINDOW);
    loop {
        let page = match is_newest_first {
            true => newest_before(&sessions, &filter, after, at_once.min(NEWEST_AT_ONCE), &mut window).await,
            false => sessions.list(filter.clone(), after, at_once).await,
        };
        let page = page.map_err(Refusal::of_store)?;
        let last = page.sessions.last().map(|session| session.id);
        for session in &page.sessions {
            // The session is outside the requested period.
            let is_end = match is_newest_first {
                true => since.is_some_and(|since| session.created() < since),
                false => until.is_some_and(|until| session.created() >= until),
            };
            if is_end {
                return Ok(Page { sessions: found, next: None });
            }
            if !is_asked_for(session) {
                continue;
            }
            found.push(session_info(state, session));
            if found.len() == limit {
                let is_end = page.next.is_none() && last == Some(session.id);
                let next = (!is_end).then(|| session.id.to_string());
                return Ok(Page { sessions: found, next });
            }
        }
        read += page.sessions.len();
        match page.next {
            Some(next) if read < MAX_READ_SESSIONS => (after, at_once) = (Some(next), MAX_PAGE_SESSIONS),
            next => return Ok(Page { sessions: found, next: next.map(|id| id.to_string()) }),
        }
    }
}

fn asked_status(text: Option<&str>) -> Result<Option<AskedStatus>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    AskedStatus::parse(text).map(Some).ok_or_else(|| {
        let known = RevokedBecause::ALL.map(RevokedBecause::word).join(", ");
        wrong(format!("status: expected live, ended, expired, not-before, {known}, found {}", shown(text)))
    })
}

fn asked_order(text: Option<&str>) -> Result<bool, Refusal> {
    match text {
        None | Some("oldest") => Ok(false),
        Some("newest") => Ok(true),
        Some(text) => Err(wrong(format!("order: expected oldest or newest, found {}", shown(text)))),
    }
}

fn moment(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Refusal> {
    let Some(text) = text else { return Ok(None) };
    let parsed = humantime::parse_rfc3339_weak(text).ok();
    let since = parsed.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    match since {
        Some(since) => Ok(Some(Timestamp::ZERO.plus(since))),
        None => Err(wrong(format!("{name}: expected a time such as 2026-11-22T10:00:00Z, found {}", shown(text)))),
    }
}

/// Shows one session.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", operation_id = "show_session", tag = "sessions",
    params(("id" = String, Path, description = "the id of the session: the `sid` of its tokens")),
    responses((status = 200, description = "done", body = SessionDetail))
)]
pub(super) async fn show(state: &AdminState, name: &str) -> Result<SessionDetail, Refusal> {
    let gate = &state.gate;
    let id = SessionId::parse(name).ok_or_else(|| unknown(name))?;
    let session = gate.sessions().get(id).await.map_err(Refusal::of_store)?;
    let session = session.ok_or_else(|| unknown(name))?;
    let history = events::of_session(&state.config.load().issuer.url, &session);
    let session = session_info(state, &session);
    let is_revoked = !matches!(&*session.status, "live" | "expired");
    Ok(SessionDetail { session, ended_by: is_revoked.then(|| events::ended_by(&history)).flatten(), history })
}

/// Ends a session. Its tokens are refused from the next request on. The response is sent when the end is durable.
/// `ended` is 0 if the session had already ended.
#[utoipa::path(
    post, path = "/v1/sessions/{id}/revoke", operation_id = "revoke_session", tag = "sessions",
    params(("id" = String, Path, description = "the id of the session: the `sid` of its tokens")),
    responses((status = 200, description = "done", body = RevocationReport))
)]
pub(super) async fn revoke(gate: &Gate, name: &str) -> Result<RevocationReport, Refusal> {
    let id = SessionId::parse(name).ok_or_else(|| unknown(name))?;
    let sessions = gate.sessions();
    // The session is revoked even if its record cannot be read.
    let was_live = match sessions.get(id).await {
        Ok(Some(session)) => is_live(&sessions, &session),
        Ok(None) | Err(_) => true,
    };
    if !sessions.revoke(id).await.map_err(Refusal::of_revocation)? {
        return Err(if sessions.are_shared() { lost(name) } else { unknown(name) });
    }
    Ok(RevocationReport::of_one(was_live))
}

pub(super) fn is_live(sessions: &Sessions, session: &Session) -> bool {
    session.status == Status::Live && sessions.is_over(session).is_none()
}

fn unknown(id: &str) -> Refusal {
    Refusal::new(Code::UnknownSession, format!("there is no session {}", shown(id)))
}

fn lost(id: &str) -> Refusal {
    let what = format!(
        "the store does not contain the session {0}. It is revoked anyway, so that no gate writes it back",
        shown(id)
    );
    Refusal::new(Code::UnknownSession, what)
}

fn wrong(what: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidParameter, what)
}
