//! One receiver: its events as tokens (CAEP 1.0 §3.1), and the push of these events (RFC 8935).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::access::{Access, Authorizer};
use super::record::digest;
use super::{StreamError, wire};
use rotogate_core::clock::Timestamp;
use rotogate_core::engine::ended::End;
use rotogate_core::http_client::{Allowed, FetchTarget, HttpClient};
use rotogate_core::token::event_key::EventKey;
use rotogate_core::token::verify::strict_object;

const SESSION_REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
const VERIFICATION: &str = "https://schemas.openid.net/secevent/ssf/event-type/verification";
/// The time limit of a push. It is shorter than the lease of the sending gate.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The errors of RFC 8935 §2.4 that concern the event itself, so that a repetition would be refused, too. After other
/// errors, such as an unknown key or a refused token, the event may be accepted later.
const OF_THE_EVENT: [&str; 3] = ["invalid_request", "invalid_issuer", "invalid_audience"];

/// A receiver of events.
#[derive(Clone, Debug)]
pub struct ReceiverSettings {
    /// The name of the receiver in the configuration.
    pub name: Arc<str>,
    /// The URL to which events are pushed.
    pub url: Box<str>,
    /// The `aud` of the events.
    pub audience: Box<str>,
    /// The file with the bearer token for the receiver.
    pub token_file: PathBuf,
    /// The clients about whose sessions the receiver gets events.
    pub clients: Vec<Box<str>>,
}

/// A receiver, and the parts that its requests need.
#[derive(Clone, Debug)]
pub struct ReceiverPlan {
    /// The receiver.
    pub settings: ReceiverSettings,
    /// The key that signs the receiver's events.
    pub key: Arc<EventKey>,
    /// The client for requests to the receiver.
    pub http: HttpClient,
    /// Identifies the configuration. If it changes, the receiver starts again.
    pub fingerprint: String,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// The `iat`, which each attempt repeats: a receiver may end all logins until the later of `iat` and
    /// `event_timestamp`.
    made: Timestamp,
    jti: String,
    txn: String,
    sub_id: Value,
    events: Value,
}

impl Event {
    // Requirement S25: a repetition has the same `jti`.
    pub(crate) fn of_end(end: &End, issuer: &str, settings: &ReceiverSettings, read: Timestamp) -> Self {
        let id = end.session.map(|id| id.to_string()).unwrap_or_default();
        let until = end.until.map(|until| until.as_millis().to_string()).unwrap_or_default();
        let mut sub_id = json!({
            "format": "complex",
            "user": { "format": "iss_sub", "iss": issuer, "sub": end.subject },
        });
        if end.session.is_some() {
            sub_id["session"] = json!({ "format": "opaque", "id": id });
        }
        let at = end.until.unwrap_or(read);
        let event = json!({
            "event_timestamp": at.as_secs(),
            "initiating_entity": end.initiating_entity,
            "reason_admin": { "en": end.reason },
        });
        let parts = ["ended", issuer, &end.subject, &id, &until];
        Self {
            made: at.min(read),
            jti: name(&[&["event", &settings.audience][..], &parts].concat()),
            txn: name(&parts),
            sub_id,
            events: json!({ SESSION_REVOKED: event }),
        }
    }

    fn token(&self, issuer: &str, plan: &ReceiverPlan) -> Result<String, StreamError> {
        let claims = json!({
            "iss": issuer,
            "iat": self.made.as_secs(),
            "jti": self.jti,
            "aud": plan.settings.audience,
            "txn": self.txn,
            "sub_id": self.sub_id,
            "events": self.events,
        });
        plan.key.sign(&claims).ok_or_else(|| StreamError::Access("the key of the receiver cannot sign".to_owned()))
    }
}

fn name(parts: &[&str]) -> String {
    URL_SAFE_NO_PAD.encode(digest(parts).get(..16).unwrap_or_default())
}

/// The receiver's answer to an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Taken,
    /// The receiver will refuse the same event again, for this reason.
    Refused(String),
}

/// Pushes events to one receiver.
pub(crate) struct Pusher {
    plan: ReceiverPlan,
    authorizer: Authorizer,
}

impl Pusher {
    pub(crate) fn new(mut plan: ReceiverPlan) -> Self {
        plan.http = plan.http.with_timeout(TIMEOUT);
        Self { authorizer: Authorizer::new(Access::File(plan.settings.token_file.clone())), plan }
    }

    /// Pushes an event. After an error, the same event may be accepted later.
    pub(crate) async fn push(&mut self, event: &Event, issuer: &str) -> Result<Pushed, StreamError> {
        let target = FetchTarget::parse(&self.plan.settings.url, Allowed::by_operator());
        let target = target.map_err(|why| StreamError::Access(why.to_string()))?;
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/secevent+jwt")),
            (ACCEPT, HeaderValue::from_static("application/json")),
            (AUTHORIZATION, self.authorizer.header(&self.plan.http).await?),
        ]);
        let token = event.token(issuer, &self.plan)?;
        let answer = self.plan.http.send(&target, Method::POST, headers, Bytes::from(token)).await?;
        if answer.status().is_success() {
            return Ok(Pushed::Taken);
        }
        let said = strict_object(answer.body()).unwrap_or_default();
        let word = said.get("err").and_then(Value::as_str).map(wire::shown).unwrap_or_default();
        if answer.status() == StatusCode::BAD_REQUEST && OF_THE_EVENT.contains(&&*word) {
            return Ok(Pushed::Refused(word));
        }
        let why = format!("answered {} {word}", answer.status());
        Err(StreamError::Answer { place: target.to_string(), why: why.trim_end().to_owned() })
    }
}

/// Pushes a verification event (SSF 1.0 §8.1.4.1), for `check --online`. Returns a line about the receiver's answer.
///
/// # Errors
/// The receiver does not accept the event.
pub async fn greet(plan: ReceiverPlan, issuer: &str, now: Timestamp) -> Result<String, StreamError> {
    let id = name(&["verification", &plan.settings.name, &now.as_millis().to_string()]);
    let event = Event {
        made: now,
        jti: id.clone(),
        txn: id,
        sub_id: json!({ "format": "opaque", "id": &*plan.settings.name }),
        events: json!({ VERIFICATION: {} }),
    };
    let place = plan.settings.url.clone();
    match Pusher::new(plan).push(&event, issuer).await? {
        Pushed::Taken => Ok(format!("{place} takes a verification event")),
        Pushed::Refused(why) => Err(StreamError::Answer { place: place.into(), why: format!("answered 400 {why}") }),
    }
}
