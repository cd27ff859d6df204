//! The envelope protocol. `PUT {"token","refreshToken"}` exchanges both tokens, and every reply has four fields.
//! See [`super::super::envelope`].

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method};
use secrecy::SecretString;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::super::{Call, RelayRequest, Reply, envelope};
use super::{RelayDialect, passed_on};
use crate::relay::oauth::MAX_BODY;
use crate::relay::{Presented, Presenter, ProviderReply, ProviderRequest};
use rotogate_core::denial::Denial;
use rotogate_core::strict_json::object_of_depth;

#[cfg(feature = "http-client")]
mod provider;

#[cfg(feature = "http-client")]
pub use provider::EnvelopeProvider;

/// The name that logins have in the list of grants.
pub const PASSWORD: &str = "password";
const LOGIN: &str = "POST";
const REFRESH: &str = "PUT";
/// The maximum nesting depth of a body.
const MAX_DEPTH: usize = 16;

pub(super) fn read(dialect: &RelayDialect, call: &Call<'_>) -> Result<RelayRequest, Denial> {
    let mut body = envelope::members(call)?;
    let sent = |call: &'static str, body: Map<String, Value>| ProviderRequest {
        call,
        headers: HeaderMap::new(),
        // The body is serialised again from its parsed form, so that the gate and the provider cannot parse it
        // differently.
        body: Zeroizing::new(Value::Object(body).to_string().into_bytes()),
    };
    if *call.method == Method::POST {
        if !dialect.serves_grant(PASSWORD) {
            return Err(Denial::UnsupportedGrantType);
        }
        return Ok(RelayRequest::Pass(sent(LOGIN, body)));
    }
    let mut mandatory = |name| envelope::mandatory(&mut body, name);
    let (access, refresh) = (mandatory("token")?, mandatory("refreshToken")?);
    let request = sent(REFRESH, pair(&access, &refresh));
    // The stored reply can be decrypted only by a presenter of both tokens.
    let presenter = Presenter { credential: Some(SecretString::from(access)), ..Presenter::default() };
    Ok(RelayRequest::Exchange(Presented { token: refresh.into(), presenter, request, ..Presented::default() }))
}

/// Returns the members of a request that exchanges these tokens.
fn pair(access: &str, refresh: &str) -> Map<String, Value> {
    let pair = [("token", access), ("refreshToken", refresh)];
    pair.into_iter().map(|(name, text)| (name.to_owned(), Value::from(text))).collect()
}

/// Writes the provider's reply to the client. The reply has the protocol's JSON format.
pub(super) fn reply(reply: &ProviderReply) -> Reply {
    let mut written = passed_on(reply);
    written.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    written
}

/// Returns whether a reply contains new tokens.
pub(super) fn is_granted(reply: &ProviderReply) -> bool {
    tokens(reply).is_some()
}

fn object(reply: &ProviderReply) -> Option<Map<String, Value>> {
    (reply.body.len() <= MAX_BODY).then(|| object_of_depth(&reply.body, MAX_DEPTH).ok()).flatten()
}

/// Returns the access token and the refresh token of a successful reply.
fn tokens(reply: &ProviderReply) -> Option<(Zeroizing<String>, Zeroizing<String>)> {
    let object = object(reply)?;
    let content = object.get("content")?.as_array()?;
    let [one] = content.as_slice() else { return None };
    let text = |name: &str| one.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
    Some((Zeroizing::new(text("token")?), Zeroizing::new(text("refreshToken").unwrap_or_default())))
}
