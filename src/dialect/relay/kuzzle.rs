//! Kuzzle's `auth:refreshToken`, in front of a Kuzzle server. See [`super::super::kuzzle`].

use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::relay::oauth::MAX_BODY;
use crate::relay::{Presented, ProviderReply, ProviderRequest};
use rotogate_core::strict_json::object_of_depth;

#[cfg(feature = "http-client")]
mod provider;

#[cfg(feature = "http-client")]
pub use provider::KuzzleProvider;

const REFRESH: &str = "refreshToken";
const LOGOUT: &str = "logout";
/// The maximum nesting depth of a body.
const MAX_DEPTH: usize = 16;

/// Returns a presented token, with the request that exchanges it.
pub(in crate::dialect) fn presented(token: &SecretString, expires_in: Option<&Value>) -> Presented {
    let mut call = json!({ "controller": "auth", "action": REFRESH });
    if let (Some(call), Some(expires_in)) = (call.as_object_mut(), expires_in) {
        call.insert("expiresIn".to_owned(), expires_in.clone());
    }
    Presented { token: token.clone(), request: request(call, token), ..Presented::default() }
}

fn request(mut call: Value, token: &SecretString) -> ProviderRequest {
    if let Some(call) = call.as_object_mut() {
        call.insert("jwt".to_owned(), token.expose_secret().into());
    }
    let body = Zeroizing::new(call.to_string().into_bytes());
    ProviderRequest { call: REFRESH, headers: HeaderMap::new(), body }
}

/// Returns the call that logs a token out.
pub(in crate::dialect) fn logout(token: &SecretString, everywhere: bool) -> ProviderRequest {
    let mut call = json!({ "controller": "auth", "action": LOGOUT });
    if let (true, Some(call)) = (everywhere, call.as_object_mut()) {
        call.insert("global".to_owned(), true.into());
    }
    ProviderRequest { call: LOGOUT, ..request(call, token) }
}

fn object(reply: &ProviderReply) -> Option<Map<String, Value>> {
    (reply.body.len() <= MAX_BODY).then(|| object_of_depth(&reply.body, MAX_DEPTH).ok()).flatten()
}

/// Returns the result of a successful call, with the new token.
pub(in crate::dialect) fn new_tokens(reply: &ProviderReply) -> Option<Map<String, Value>> {
    let Value::Object(result) = object(reply).filter(|_| reply.status == 200)?.remove("result")? else { return None };
    result.get("jwt").and_then(Value::as_str).is_some_and(|token| !token.is_empty()).then_some(result)
}

/// Returns the error of a refused call.
pub(in crate::dialect) fn server_error(reply: &ProviderReply) -> Option<Value> {
    object(reply)?.remove("error").filter(Value::is_object)
}
