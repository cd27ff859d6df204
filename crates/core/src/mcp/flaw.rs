//! The JSON-RPC errors for invalid calls. After any other 400, clients try an older version's handshake.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use serde::Serialize;

use super::MessageId;
use crate::denial::CallFlaw;
use crate::reply::Reply;

const fn status(flaw: CallFlaw) -> StatusCode {
    match flaw {
        CallFlaw::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        CallFlaw::NoBody => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    }
}

const fn error(flaw: CallFlaw) -> (i32, &'static str) {
    match flaw {
        CallFlaw::HeaderMismatch(_) => (-32020, "Header mismatch"),
        CallFlaw::UnsupportedVersion => (-32022, "Unsupported protocol version"),
        CallFlaw::NotJson => (-32700, "Parse error"),
        CallFlaw::NotOneMessage(_) | CallFlaw::MediaType | CallFlaw::NoBody => (-32600, "Invalid request"),
    }
}

#[derive(Serialize)]
struct ErrorReply<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a MessageId>,
    error: RpcError<'a>,
}

#[derive(Serialize)]
struct RpcError<'a> {
    code: i32,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Versions<'a>>,
}

#[derive(Serialize)]
struct Versions<'a> {
    supported: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    requested: Option<&'a str>,
}

/// The response to an invalid call. If the message's id is unknown, the response has no id.
// Requirement M1.
pub fn reply(flaw: CallFlaw, id: Option<&MessageId>, supported: &[String], requested: Option<&str>) -> Reply {
    let (code, name) = error(flaw);
    let data = (flaw == CallFlaw::UnsupportedVersion).then_some(Versions { supported, requested });
    let message = if data.is_some() { name.to_owned() } else { format!("{name}: {}", flaw.what()) };
    let body = ErrorReply { jsonrpc: "2.0", id, error: RpcError { code, message, data } };
    let mut reply = Reply::new(serde_json::to_vec(&body).unwrap_or_default().into());
    *reply.status_mut() = status(flaw);
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}
