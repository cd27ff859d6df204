//! Another issuer's notices about sessions: OpenID Connect back-channel logout 1.0, and CAEP 1.0 `session-revoked` as a
//! security event token (RFC 8417, RFC 8935). The gate verifies the token, and ends the sessions.

use async_trait::async_trait;
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderValue, Method, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::answer::{self, empty, reason};
use super::oauth2::form;
use super::{Answer, Call, CommandHandler, Dialect, Outcome, Protocol, Reply, ServedPath, said_media};
use rotogate_core::bounds::MAX_NOTICE;
use rotogate_core::denial::{Class, Denial, EventFlaw};
use rotogate_core::fault::Error;
use rotogate_core::random::are_equal;
use rotogate_core::reply;
use rotogate_core::token::verify::EventProtocol;

/// An unverified notice from another issuer.
#[derive(Debug)]
pub struct Notice {
    /// The protocol of the notice.
    pub protocol: EventProtocol,
    /// The name of the issuer whose endpoint received the notice.
    pub issuer: Box<str>,
    /// The accepted audiences, one of which `aud` must name.
    pub audience: Box<[Box<str>]>,
    /// Whether the sender has authenticated itself.
    pub is_authenticated: bool,
    /// The signed token, or the reason why there is no token.
    pub token: Result<SecretString, &'static str>,
}

/// An endpoint for one issuer's notices.
#[derive(Debug)]
pub struct Events {
    protocol: EventProtocol,
    issuer: Box<str>,
    audience: Box<[Box<str>]>,
    bearer: Option<SecretString>,
}

impl Events {
    /// Accepts logout tokens of this issuer, for any of these client ids.
    pub fn back_channel_logout(issuer: &str, audience: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        let audience = audience.into_iter().map(Into::into).collect();
        Self { protocol: EventProtocol::BackChannelLogout, issuer: issuer.into(), audience, bearer: None }
    }

    /// Accepts security events of this issuer, for any of these audiences, if the transmitter sends this token.
    pub fn security_events(
        issuer: &str,
        audience: impl IntoIterator<Item = impl Into<Box<str>>>,
        bearer: SecretString,
    ) -> Self {
        let audience = audience.into_iter().map(Into::into).collect();
        Self { protocol: EventProtocol::SecurityEvents, issuer: issuer.into(), audience, bearer: Some(bearer) }
    }

    /// Reads a request.
    ///
    /// # Errors
    /// The request is too long, or has a fault for which the protocol has no error.
    pub fn notice(&self, call: &Call<'_>) -> Result<Notice, Denial> {
        if call.body.len() > MAX_NOTICE {
            return Err(Denial::BodyTooLarge);
        }
        let token = match self.token(call) {
            Ok(token) => Ok(token),
            // An unreadable request is handled like an invalid notice.
            Err(Denial::MalformedRequest(what)) => Err(what),
            Err(denial) => return Err(denial),
        };
        Ok(Notice {
            protocol: self.protocol,
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            is_authenticated: self.has_token(call),
            token,
        })
    }

    fn token(&self, call: &Call<'_>) -> Result<SecretString, Denial> {
        match self.protocol {
            EventProtocol::BackChannelLogout => {
                let token = form::read_with(call, &[])?.secret("logout_token");
                token.ok_or(Denial::MalformedRequest("logout_token is missing"))
            }
            EventProtocol::SecurityEvents => {
                if !said_media(call.headers, "application/secevent+jwt") {
                    return Err(Denial::MalformedRequest("the body must be application/secevent+jwt"));
                }
                let text =
                    std::str::from_utf8(call.body).map_err(|_| Denial::MalformedRequest("the body is not a token"))?;
                Ok(SecretString::from(text.trim_ascii().to_owned()))
            }
        }
    }

    fn has_token(&self, call: &Call<'_>) -> bool {
        let Some(bearer) = &self.bearer else { return true };
        let mut values = call.headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return false };
        let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else { return false };
        scheme.eq_ignore_ascii_case(b"bearer ") && are_equal(token, bearer.expose_secret().as_bytes())
    }
}

impl Dialect for Events {
    fn name(&self) -> &'static str {
        match self.protocol {
            EventProtocol::BackChannelLogout => "back-channel-logout",
            EventProtocol::SecurityEvents => "security-events",
        }
    }

    fn default_path(&self) -> &'static str {
        "/events"
    }

    fn serves(&self, base: &str) -> Vec<ServedPath> {
        vec![ServedPath::new("event", base.to_owned(), &[Method::POST])]
    }

    fn write(&self, _: &Call<'_>, outcome: Result<Outcome, Error>) -> Reply {
        let events = self.protocol == EventProtocol::SecurityEvents;
        let mut answer = match outcome {
            Ok(_) => empty(if events { StatusCode::ACCEPTED } else { StatusCode::OK }),
            Err(Error::Denied(denial)) => match denial.class() {
                Class::TooLarge => reply::problem(StatusCode::PAYLOAD_TOO_LARGE, None),
                Class::Limited(wait) => limited(wait),
                Class::Unavailable(wait) => unavailable(wait),
                _ if events => {
                    let flaw = match denial {
                        Denial::RefusedEvent(flaw) => flaw,
                        Denial::MalformedRequest(what) => EventFlaw::Request(what),
                        _ => EventFlaw::Request("the request is malformed"),
                    };
                    let said = json!({ "err": flaw.word(), "description": flaw.what() });
                    answer::json(StatusCode::BAD_REQUEST, &said)
                }
                _ => answer::json(StatusCode::BAD_REQUEST, &json!({ "error": "invalid_request" })),
            },
            Err(Error::Failed(_)) => unavailable(std::time::Duration::from_secs(1)),
        };
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer
    }
}

#[async_trait]
impl Protocol for Events {
    async fn answer(&self, call: &Call<'_>, gate: &dyn CommandHandler) -> Answer {
        let outcome = match self.notice(call) {
            Ok(notice) => gate.end_elsewhere(notice).await.map(|()| Outcome::Revoked),
            Err(denial) => Err(denial.into()),
        };
        let reason = reason(&outcome);
        Answer::Reply(self.write(call, outcome), reason)
    }
}

pub(super) fn limited(wait: std::time::Duration) -> Reply {
    let mut answer = reply::problem(StatusCode::TOO_MANY_REQUESTS, None);
    reply::retry_after(&mut answer, wait);
    answer
}

/// The gate could not decide.
pub(super) fn unavailable(wait: std::time::Duration) -> Reply {
    let detail = Some("the gate could not decide about the request; send the request again");
    let mut answer = reply::problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    reply::retry_after(&mut answer, wait);
    answer
}
