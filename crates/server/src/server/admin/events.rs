//! The operator's view of the audit trail: its last lines, and those that come.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, ToSchema};

use super::problem::{Code, Problem, Refusal};
use super::{Answer, ok};
use crate::log::recent;

/// The number of lines: by default.
const DEFAULT_LINES: usize = 100;
const EVENT_STREAM: &str = "text/event-stream";

/// Which lines to list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// With this `event.action`.
    pub(super) action: Option<String>,
    /// About this subject.
    pub(super) subject: Option<String>,
    /// About this session.
    pub(super) session: Option<String>,
    /// Caused by the holder of the token of this name.
    pub(super) actor: Option<String>,
    /// The most lines.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    pub(super) limit: Option<String>,
}

/// Lines of the audit trail.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    /// The newest last, each with the fields of docs/logs.md.
    #[schema(value_type = Vec<Object>)]
    pub(super) events: Vec<Value>,
}

/// What lines are asked for.
#[derive(Clone, Default)]
struct Filter {
    action: Option<String>,
    subject: Option<String>,
    session: Option<String>,
    actor: Option<String>,
}

impl Filter {
    /// The line as JSON, if it is asked for.
    fn pick(&self, line: &str) -> Option<Value> {
        let line: Value = serde_json::from_str(line).ok()?;
        let field = |name: &str| line.get(name).and_then(Value::as_str);
        let is = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|asked| field(name) == Some(asked));
        // A revocation names its target by kind.
        let is_about = |asked: &Option<String>, name: &str, kind: &str| {
            is(asked, name) || (field("kind") == Some(kind) && is(asked, "of"))
        };
        let is_picked = is(&self.action, "event.action")
            && is(&self.actor, "rotogate.actor")
            && is_about(&self.subject, "user.id", "subject")
            && is_about(&self.session, "session.id", "session");
        is_picked.then_some(line)
    }
}

/// What is known about a session.
pub(super) fn of_session(id: &str) -> Vec<Value> {
    let filter = Filter { session: Some(id.to_owned()), ..Filter::default() };
    recent::follow().0.iter().filter_map(|line| filter.pick(line)).collect()
}

/// The last lines of the audit trail, of 1000 that are in memory. With `Accept: text/event-stream` those, and each further
/// one when it is written.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "list_events",
    tag = "events",
    params(EventsQuery),
    responses(
        (status = 200, description = "the lines", content((Events = "application/json"), (String = "text/event-stream"))),
        (status = "4XX", description = "refused", body = Problem, content_type = "application/problem+json"),
    ),
    security(("token" = ["viewer"]))
)]
pub(super) fn list(headers: &HeaderMap, query: EventsQuery) -> Answer {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    match accepted.any(|value| value.contains(EVENT_STREAM)) {
        true => follow(query),
        false => Ok(ok(&Events { events: kept(query)?.0 })),
    }
}

/// The last lines that are asked for, the newest last, and those that come.
pub(super) fn kept(query: EventsQuery) -> Result<(Vec<Value>, Coming), Refusal> {
    let EventsQuery { action, subject, session, actor, limit } = query;
    let limit = match limit.map(|limit| limit.parse()) {
        None => DEFAULT_LINES,
        Some(Ok(limit @ 1..=recent::KEPT_LINES)) => limit,
        Some(_) => return Err(Refusal::new(Code::InvalidParameter, "limit: a number from 1 to 1000 is expected")),
    };
    let filter = Filter { action, subject, session, actor };
    let (kept, coming) = recent::follow();
    let mut picked: Vec<_> = kept.iter().rev().filter_map(|line| filter.pick(line)).take(limit).collect();
    picked.reverse();
    Ok((picked, Coming { lines: coming, filter }))
}

/// Lines that are not written yet.
pub(super) struct Coming {
    lines: Receiver<Arc<str>>,
    filter: Filter,
}

/// The last lines that are asked for, and each further one when it is written.
pub(super) fn follow(query: EventsQuery) -> Answer {
    let (picked, Coming { lines, filter }) = kept(query)?;
    let following = stream::unfold((lines, filter), |(mut coming, filter)| async move {
        loop {
            match coming.recv().await {
                Ok(line) => {
                    if let Some(picked) = filter.pick(&line) {
                        return Some((picked, (coming, filter)));
                    }
                }
                // A follower that was too slow misses lines; their numbers show it.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    let lines = stream::iter(picked).chain(following);
    let frames = lines.map(|line| Ok::<_, Infallible>(Frame::data(Bytes::from(format!("data: {line}\n\n")))));
    let body = StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_about_the_session_or_subject_that_it_names() {
        let line = r#"{"event.action":"revocation","kind":"session","of":"s-1","rotogate.actor":"ada"}"#;
        let picked = |filter: Filter| filter.pick(line).is_some();
        let some = |text: &str| Some(text.to_owned());
        assert!(picked(Filter::default()));
        assert!(picked(Filter { session: some("s-1"), actor: some("ada"), ..Filter::default() }));
        assert!(!picked(Filter { session: some("s-2"), ..Filter::default() }));
        assert!(!picked(Filter { subject: some("s-1"), ..Filter::default() }), "a session is no subject");
        assert!(!picked(Filter { action: some("session.start"), ..Filter::default() }));
        assert!(!picked(Filter { actor: some("bob"), ..Filter::default() }));
        let line = r#"{"event.action":"session.start","user.id":"u-1","session.id":"s-1"}"#;
        let of_subject = Filter { subject: some("u-1"), session: some("s-1"), ..Filter::default() };
        assert!(of_subject.pick(line).is_some());
    }
}
