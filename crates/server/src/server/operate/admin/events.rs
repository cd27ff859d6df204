//! The last lines of the audit log, and new lines as they are written.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::header::ACCEPT;
use http::{HeaderMap, Response};
use http_body::Frame;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::{IntoParams, ToSchema};

use super::problem::Refusal;
use super::{AdminResult, AdminState, Body, ok, page_size, reply};
use crate::log::recent;
use rotogate_core::clock::Timestamp;
use rotogate_core::credential;
use rotogate_core::session::{Session, SessionId};

const EVENT_STREAM: &str = "text/event-stream";

/// The parameters that select lines.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct EventsQuery {
    /// Only lines with this `event.action`.
    pub(super) action: Option<String>,
    /// Only lines about this subject.
    pub(super) subject: Option<String>,
    /// Only lines about this session.
    pub(super) session: Option<String>,
    /// Only lines with this `rotogate.actor`, such as the name of an admin token.
    pub(super) actor: Option<String>,
    /// The maximum number of lines.
    #[param(value_type = Option<u16>, minimum = 1, maximum = 1000)]
    pub(super) limit: Option<String>,
}

/// Lines of the audit log.
#[derive(Serialize, ToSchema)]
pub(super) struct Events {
    /// The lines, the newest last, each with the fields of docs/logs.md.
    #[schema(value_type = Vec<Object>)]
    pub(super) events: Vec<Value>,
}

#[derive(Clone, Default)]
struct Filter {
    action: Option<String>,
    subject: Option<String>,
    session: Option<String>,
    actor: Option<String>,
    /// Recognizes revocations that end `session` together with other sessions. `None` if the session is not in the
    /// store.
    with_others: Option<WithOthers>,
}

/// The session's properties that decide whether a broad revocation ends the session.
#[derive(Clone)]
struct WithOthers {
    issuer: String,
    subject: String,
    client: String,
    created: Timestamp,
}

impl WithOthers {
    fn new(issuer: &str, session: &Session) -> Self {
        Self {
            issuer: issuer.to_owned(),
            subject: session.subject.to_string(),
            client: session.client.to_string(),
            created: session.created(),
        }
    }

    /// Returns whether this line revokes all sessions of the user, the client or everyone. Compares times, because a
    /// delayed revocation has a second, later line.
    // Requirements O34, O47.
    fn is_ended_by(&self, line: &Value) -> bool {
        let field = |name: &str| line.get(name).and_then(Value::as_str);
        let of = |name: &str| field("of") == Some(name) && field("rotogate.issuer") == Some(&self.issuer);
        let is_named = match field("kind") {
            Some("global") => true,
            Some("subject") => of(&self.subject),
            Some("client") => of(&self.client),
            Some(_) | None => false,
        };
        let not_before = field("not_before").and_then(|text| humantime::parse_rfc3339(text).ok());
        let not_before =
            not_before.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map(|since| Timestamp::ZERO.plus(since));
        is_named
            && field("event.action") == Some("revocation")
            && not_before.is_some_and(|not_before| self.created <= not_before)
    }
}

impl Filter {
    /// Returns the matching lines, in order. Of a session's revocations, only the first and its confirmation are
    /// included.
    fn pick_all<'a>(&self, lines: impl Iterator<Item = &'a Arc<str>>) -> Vec<Value> {
        let (mut is_over, mut owed) = (false, None);
        let one = |line: &Arc<str>| {
            let line = self.pick(line)?;
            if self.session.is_none() || line["event.action"] != "revocation" {
                return Some(line);
            }
            let named = (line["kind"].clone(), line["of"].clone());
            let is_first = !std::mem::replace(&mut is_over, true);
            let is_second = line["owed"].is_null() && owed.take_if(|owed| *owed == named).is_some();
            if is_first && !line["owed"].is_null() {
                owed = Some(named);
            }
            (is_first || is_second).then_some(line)
        };
        lines.filter_map(one).collect()
    }

    fn pick(&self, line: &str) -> Option<Value> {
        let line: Value = serde_json::from_str(line).ok()?;
        let field = |name: &str| line.get(name).and_then(Value::as_str);
        let is = |asked: &Option<String>, name: &str| asked.as_deref().is_none_or(|asked| field(name) == Some(asked));
        // A revocation names its target by `kind` and `of`.
        let is_about = |asked: &Option<String>, name: &str, kind: &str| {
            is(asked, name) || (field("kind") == Some(kind) && is(asked, "of"))
        };
        let is_picked = is(&self.action, "event.action")
            && is(&self.actor, "rotogate.actor")
            && is_about(&self.subject, "user.id", "subject")
            && (is_about(&self.session, "session.id", "session")
                || self.with_others.as_ref().is_some_and(|others| others.is_ended_by(&line)));
        is_picked.then_some(line)
    }
}

pub(super) fn of_session(issuer: &str, session: &Session) -> Vec<Value> {
    let with_others = Some(WithOthers::new(issuer, session));
    let filter = Filter { session: Some(session.id.to_string()), with_others, ..Filter::default() };
    filter.pick_all(recent::follow().0.iter())
}

/// Returns the actor that ended the session, and the actor's role.
pub(super) fn ended_by(history: &[Value]) -> Option<String> {
    let line = history.iter().find(|line| line["event.action"] == "revocation")?;
    let actor = line["rotogate.actor"].as_str()?;
    Some(match line["rotogate.actor.role"].as_str() {
        Some(role) => format!("{actor} ({role})"),
        None => actor.to_owned(),
    })
}

/// Lists the last lines of the audit log, of which 1000 are in memory. With `Accept: text/event-stream`, the response
/// also streams new lines as they are written.
#[utoipa::path(
    get, path = "/v1/events", operation_id = "list_events", tag = "events",
    params(EventsQuery),
    responses((status = 200, description = "the lines", content((Events = "application/json"), (String = "text/event-stream"))))
)]
pub(super) async fn list(state: &Arc<AdminState>, headers: &HeaderMap, query: EventsQuery) -> AdminResult {
    let mut accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    match accepted.any(|value| value.contains(EVENT_STREAM)) {
        true => {
            let following = event_stream(lines(state, query).await?.map(|line| line.to_string()));
            Ok(following.map(|lines| while_in_force(state, headers, lines)))
        }
        false => Ok(ok(&Events { events: kept(state, query).await?.0 })),
    }
}

/// Ends a stream when the admin token of its request is replaced (requirement A29).
fn while_in_force(state: &Arc<AdminState>, headers: &HeaderMap, lines: Body) -> Body {
    let presented = credential::extract(headers, None).ok().flatten();
    let token = presented.and_then(|presented| state.tokens.entry(presented.token()));
    let token = token.map(|(_, token)| Arc::downgrade(&token));
    let state = Arc::clone(state);
    let is_in_force = move |_: &_| std::future::ready(token.as_ref().is_some_and(|token| state.tokens.has(token)));
    StreamBody::new(BodyStream::new(lines).take_while(is_in_force)).boxed_unsync()
}

pub(super) async fn kept(state: &AdminState, query: EventsQuery) -> Result<(Vec<Value>, Coming), Refusal> {
    let EventsQuery { action, subject, session, actor, limit } = query;
    let limit = page_size(limit, recent::KEPT_LINES)?;
    // Without the session's record, only lines that name the session can be found.
    let with_others = match session.as_deref().and_then(SessionId::parse) {
        Some(id) => state.gate.sessions().get(id).await.ok().flatten(),
        None => None,
    };
    let with_others = with_others.map(|session| WithOthers::new(&state.config.load().issuer.url, &session));
    let filter = Filter { action, subject, session, actor, with_others };
    let (kept, coming) = recent::follow();
    let mut picked = filter.pick_all(kept.iter());
    drop(picked.drain(..picked.len().saturating_sub(limit)));
    Ok((picked, Coming { lines: coming, filter }))
}

pub(super) struct Coming {
    lines: Receiver<Arc<str>>,
    filter: Filter,
}

pub(super) async fn lines(
    state: &AdminState,
    query: EventsQuery,
) -> Result<impl Stream<Item = Value> + use<>, Refusal> {
    let (picked, Coming { lines, filter }) = kept(state, query).await?;
    let following = stream::unfold((lines, filter), |(mut coming, filter)| async move {
        loop {
            match coming.recv().await {
                Ok(line) => {
                    if let Some(picked) = filter.pick(&line) {
                        return Some((picked, (coming, filter)));
                    }
                }
                // A slow client sees a gap in the line numbers.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    });
    Ok(stream::iter(picked).chain(following))
}

pub(super) fn event_stream(texts: impl Stream<Item = String> + Send + 'static) -> Response<Body> {
    let message = |text: String| {
        let lines = text.lines().map(|line| format!("data: {line}\n"));
        Bytes::from(lines.chain(["\n".to_owned()]).collect::<String>())
    };
    let frames = texts.map(move |text| Ok::<_, Infallible>(Frame::data(message(text))));
    reply(EVENT_STREAM, StreamBody::new(frames).map_err(|never| match never {}).boxed_unsync())
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

    #[test]
    fn o34_o47_what_revokes_all_sessions_of_a_user_is_about_those_that_began_before_once() {
        let of = |created: u64| WithOthers {
            issuer: "https://gate.test".to_owned(),
            subject: "u-1".to_owned(),
            client: "web".to_owned(),
            created: Timestamp::from_secs(created),
        };
        // Each line was logged after its revocation.
        let line = |second: u64, rest: &str| -> Arc<str> {
            let rest = rest.replace('\'', "\"");
            let before = format!(r#""not_before":"1970-01-01T00:00:{second:02}.000Z""#);
            format!(r#"{{"timestamp":"1970-01-01T00:00:50Z","event.action":"revocation",{before},{rest}}}"#).into()
        };
        let filter =
            |created| Filter { session: Some("s-1".to_owned()), with_others: Some(of(created)), ..Filter::default() };
        let own = "'rotogate.issuer':'https://gate.test'";
        for (rest, is_its_end) in [
            ("'kind':'global'".to_owned(), true),
            (format!("'kind':'subject','of':'u-1',{own}"), true),
            (format!("'kind':'client','of':'web',{own}"), true),
            (format!("'kind':'subject','of':'u-2',{own}"), false),
            ("'kind':'subject','of':'u-1','rotogate.issuer':'https://idp.test'".to_owned(), false),
            (format!("'kind':'token','of':'u-1',{own}"), false),
        ] {
            assert_eq!(filter(10).pick(&line(20, &rest)).is_some(), is_its_end, "{rest}");
            assert_eq!(filter(20).pick(&line(20, &rest)).is_some(), is_its_end, "at that moment: {rest}");
            assert!(filter(21).pick(&line(20, &rest)).is_none(), "it began later: {rest}");
        }
        let all =
            [line(20, "'kind':'global','rotogate.actor':'ada'"), line(25, "'kind':'global','rotogate.actor':'bob'")];
        let picked = filter(10).pick_all(all.iter());
        assert_eq!((picked.len(), ended_by(&picked).as_deref()), (1, Some("ada")), "it ended once");
        assert_eq!(Filter::default().pick_all(all.iter()).len(), 2, "both are events");
        let owed = [
            line(20, "'kind':'global','owed':'memory','rotogate.actor':'ada'"),
            line(25, "'kind':'client','of':'web','rotogate.issuer':'https://gate.test','rotogate.actor':'bob'"),
            line(20, "'kind':'global','rotogate.actor':'system'"),
            line(30, "'kind':'global','rotogate.actor':'eve'"),
        ];
        let picked = filter(10).pick_all(owed.iter());
        let actors: Vec<_> = picked.iter().map(|line| line["rotogate.actor"].as_str().unwrap()).collect();
        assert_eq!(actors, ["ada", "system"], "the second line of its end is about it, too");
        assert_eq!(ended_by(&picked).as_deref(), Some("ada"));
        assert!(filter(22).pick_all(owed[2..3].iter()).is_empty(), "the session began between the two lines");
    }
}
