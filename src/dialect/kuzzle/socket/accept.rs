//! The opening handshake of a WebSocket (RFC 6455 §4.2).

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::dialect::Reply;
use crate::dialect::answer::empty;

/// Returns `None` if the request is not for a WebSocket.
pub(in crate::dialect::kuzzle) fn accept(headers: &HeaderMap) -> Option<Reply> {
    let is_websocket = headers.get(UPGRADE)?.as_bytes().eq_ignore_ascii_case(b"websocket");
    if !is_websocket || headers.get(SEC_WEBSOCKET_VERSION)?.as_bytes() != b"13" {
        return None;
    }
    let key = headers.get(SEC_WEBSOCKET_KEY)?.as_bytes();
    let accept = HeaderValue::try_from(derive_accept_key(key)).ok()?;
    // In a browser or in Node.js, the SDK offers a subprotocol named "null". A browser closes the connection if the
    // server does not choose a subprotocol, so the gate chooses the first offer.
    let offered =
        headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(|list| list.as_bytes().split(|byte| *byte == b',').next());
    let protocol = offered.map(<[u8]>::trim_ascii).filter(|name| !name.is_empty());
    let protocol = protocol.and_then(|name| HeaderValue::from_bytes(name).ok());
    let mut reply = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = reply.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    headers.extend(protocol.map(|name| (SEC_WEBSOCKET_PROTOCOL, name)));
    Some(reply)
}
