//! The answer to a request for a status list (draft-ietf-oauth-status-list §8).

use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};

use crate::dialect::Reply;
use crate::gate::Inner;
use rotogate_core::denial::Denial;
use rotogate_core::overload::TRY_AGAIN;
use rotogate_core::reason::Reason;
use rotogate_core::reply;

/// The list with this number.
///
/// # Errors
/// There is no such list, or the lists are out of date.
// Requirements S1, S6.
pub(in crate::gate) fn status_list(gate: &Inner, number: u32, parts: &Parts) -> Result<(Reply, Reason), Denial> {
    let lists = gate.engine.status_lists().ok_or(Denial::NoRoute)?;
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Ok((reply::method_not_allowed(&[Method::GET, Method::HEAD]), Denial::MethodNotAllowed.into()));
    }
    let names_time = |query: &str| query.split('&').any(|part| part.split('=').next() == Some("time"));
    if parts.uri.query().is_some_and(names_time) {
        let why = "lists of another time are not kept";
        return Ok((open(reply::problem(StatusCode::NOT_IMPLEMENTED, Some(why))), Reason::ANSWERED));
    }
    let found = lists.published(number, gate.engine.clock().now());
    let list = found.map_err(|_| Denial::RevocationsUnavailable(TRY_AGAIN))?.ok_or(Denial::NoRoute)?;
    let known = parts.headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(|tag| tag.trim().trim_start_matches("W/"));
    let is_known = known.any(|tag| tag == "*" || tag.as_bytes() == list.etag.as_bytes());
    let mut reply = Response::new(if is_known { Default::default() } else { list.text.clone().into() });
    if is_known {
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/statuslist+jwt"));
    }
    let max_age = format!("public, max-age={}", lists.settings().ttl.as_secs());
    reply.headers_mut().extend(HeaderValue::try_from(max_age).ok().map(|value| (CACHE_CONTROL, value)));
    reply.headers_mut().insert(ETAG, list.etag.clone());
    Ok((open(reply), Reason::ANSWERED))
}

/// Allows scripts of every page to read the reply, because lists are public.
fn open(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    reply
}
