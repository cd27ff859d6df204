//! Determines the meaning of a token endpoint's reply (RFC 6749 §5).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::provider::{Meaning, ProviderReply, ProviderRequest, Renewal};
pub use rotogate_core::bounds::MAX_PROVIDER_ANSWER as MAX_BODY;
use rotogate_core::oauth_error::OAuthError;
use rotogate_core::strict_json::object_of_depth;

/// The maximum nesting depth of a body. Members other than the tokens may contain objects or arrays.
const MAX_DEPTH: usize = 16;
const REFRESH_TOKEN: &str = "refresh_token";

/// Implements [`Provider::read`](super::provider::Provider::read).
pub fn read(token: &str, reply: &ProviderReply) -> Meaning {
    match reply.status {
        200 => granted(token, reply),
        // These statuses mean that the provider has not processed the request.
        429 | 501 | 503 => Meaning::Busy,
        400..=499 => match error(reply).as_deref().map(OAuthError::read) {
            Some(OAuthError::Grant) => Meaning::Dead,
            Some(OAuthError::User | OAuthError::Client | OAuthError::Request) => Meaning::Refused,
            Some(OAuthError::Step) => Meaning::Again,
            Some(OAuthError::Busy) => Meaning::Busy,
            // Either the provider reports an internal error, or the body is not an error reply of a token endpoint.
            Some(OAuthError::Server) | None => Meaning::Unclear,
        },
        // With 500, the provider may have failed after the rotation. 502 and 504 come from an intermediary, which
        // does not know the outcome.
        _ => Meaning::Unclear,
    }
}

/// Implements [`Provider::aged`](super::provider::Provider::aged). Only the bytes of `expires_in` are changed.
pub fn aged(mut reply: ProviderReply, passed: Duration) -> ProviderReply {
    if passed.as_secs() > 0
        && let Some((from, to, old, quoted)) = expires_in(&reply.body)
        && let (Some(head), Some(tail)) = (reply.body.get(..from), reply.body.get(to..))
    {
        let left = old.saturating_sub(passed.as_secs());
        let left = if quoted { format!("\"{left}\"") } else { left.to_string() };
        reply.body = Zeroizing::new([head, left.as_bytes(), tail].concat());
    }
    reply
}

/// Implements [`Provider::access_token`](super::provider::Provider::access_token).
pub fn access_token(reply: &ProviderReply) -> Option<Zeroizing<String>> {
    member(reply, "access_token").map(Zeroizing::new)
}

/// Implements [`Provider::renewal`](super::provider::Provider::renewal).
pub fn renewal(request: &ProviderRequest, reply: &ProviderReply) -> Option<Renewal> {
    let token = SecretString::from(member(reply, REFRESH_TOKEN).filter(|token| !token.is_empty())?);
    let mut body = form_urlencoded::Serializer::new(String::new());
    for (name, value) in form_urlencoded::parse(&request.body) {
        let value = if name == REFRESH_TOKEN { token.expose_secret().into() } else { value };
        body.append_pair(&name, &value);
    }
    let body = Zeroizing::new(body.finish().into_bytes());
    let request = ProviderRequest { call: request.call, headers: request.headers.clone(), body };
    Some(Renewal { token, credential: None, request })
}

/// Returns the error code of a refusal.
pub fn error(reply: &ProviderReply) -> Option<String> {
    let error = (400..500).contains(&reply.status).then(|| member(reply, "error")).flatten();
    error.filter(|word| !word.is_empty())
}

/// Returns the reply with the usual status for its meaning. GitHub and Slack send refusals with status 200, and some
/// providers send tokens with status 201.
pub fn with_usual_status(mut reply: ProviderReply) -> ProviderReply {
    if (200..300).contains(&reply.status) {
        let has = |name| member(&reply, name).is_some_and(|text| !text.is_empty());
        reply.status = match (has("access_token"), has("error")) {
            (true, _) => 200,
            (false, true) => 400,
            (false, false) => reply.status,
        };
    }
    reply
}

fn granted(token: &str, reply: &ProviderReply) -> Meaning {
    let Some(object) = object(reply) else { return Meaning::Unclear };
    if text(&object, "access_token").is_none_or(str::is_empty) {
        return Meaning::Unclear;
    }
    let lifetime = expires_in(&reply.body).map(|(_, _, seconds, _)| Duration::from_secs(seconds));
    let rotates = text(&object, REFRESH_TOKEN).is_some_and(|new| !new.is_empty() && new != token);
    Meaning::Granted { rotates, lifetime }
}

/// Returns the body, if it is a single JSON object of acceptable size without repeated members.
fn object(reply: &ProviderReply) -> Option<Map<String, Value>> {
    (reply.body.len() <= MAX_BODY).then(|| object_of_depth(&reply.body, MAX_DEPTH).ok()).flatten()
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

fn member(reply: &ProviderReply, name: &str) -> Option<String> {
    text(&object(reply)?, name).map(str::to_owned)
}

/// Returns the start and end of the value of `expires_in`, its whole seconds, and whether the value is a string. Some
/// providers write a string.
fn expires_in(body: &[u8]) -> Option<(usize, usize, u64, bool)> {
    let members: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_slice(body).ok()?;
    let raw = members.get("expires_in")?.get();
    let from = (raw.as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
    let bare = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let number: f64 = bare.unwrap_or(raw).parse().ok()?;
    let whole = number.is_finite() && (0.0..=9e15).contains(&number);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked in the line before")]
    whole.then_some((from, from + raw.len(), number as u64, bare.is_some()))
}

#[cfg(test)]
mod tests;
