//! rotogate in a pingora proxy: [`filter`] in `request_filter`, [`check`] in `response_body_filter`.
//!
//! ```
//! use pingora_core::Result;
//! use pingora_proxy::Session;
//! use rotogate::Gate;
//! use rotogate::gate::PermittedRequest;
//!
//! struct Proxied {
//!     gate: Gate,
//! }
//!
//! /// The context of a request.
//! struct Context {
//!     permitted: Option<Box<PermittedRequest>>,
//! }
//!
//! impl Proxied {
//!     /// The body of `ProxyHttp::request_filter`.
//!     async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
//!         context.permitted = rotogate_pingora::filter(&self.gate, session).await?;
//!         Ok(context.permitted.is_none())
//!     }
//! }
//! ```
//!
//! `examples/proxy.rs` is a program. The routes of the gate decide which path needs a token; it answers its own endpoints
//! (refresh, revocation, JWK set, metadata).

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use rotogate::Gate;
use rotogate::gate::{Judgement, Peer, PermittedRequest};

/// Judges a request, and prepares its head for the upstream: without the token, with the gate's headers. `None`: the gate has
/// answered, and `request_filter` returns true. Keep the permitted request in the context of the request: it counts among the
/// concurrent requests of its caller until it is dropped.
///
/// # Errors
/// When the answer cannot be written.
pub async fn filter(gate: &Gate, session: &mut Session) -> Result<Option<Box<PermittedRequest>>> {
    let request = session.req_header();
    // A path that is no UTF-8 text has U+FFFD here, which the gate refuses: the upstream never gets bytes that were not judged.
    let mut head = request.as_owned_parts();
    let address = session.client_addr().and_then(|address| address.as_inet());
    if let Some(address) = address {
        let is_secure = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        head.extensions.insert(Peer::new(address.ip(), is_secure));
    }
    match gate.judge(&head).await {
        Judgement::Permitted(permitted) => {
            apply(&permitted, session)?;
            Ok(Some(permitted))
        }
        Judgement::Refused(reply) => respond(session, reply).await.map(|()| None),
        _ => {
            let reply = answer(gate, head, session).await?;
            respond(session, reply).await.map(|()| None)
        }
    }
}

/// For `response_body_filter`: an error once the caller's session has ended, which breaks the response off. A response that
/// pauses breaks off at its next piece.
///
/// # Errors
/// When the caller may go on no longer.
pub fn check(permitted: &mut PermittedRequest) -> Result<()> {
    let mut context = Context::from_waker(Waker::noop());
    match pin!(permitted.ended()).poll(&mut context) {
        Poll::Ready(reason) => Error::e_explain(
            ErrorType::HTTPStatus(401),
            format!("the response ends with its caller's session: {reason}"),
        ),
        Poll::Pending => Ok(()),
    }
}

/// Makes the request of the session the one that was permitted.
fn apply(permitted: &PermittedRequest, session: &mut Session) -> Result<()> {
    let request = session.req_header_mut();
    for name in permitted.remove() {
        request.remove_header(name);
    }
    for name in permitted.set().keys() {
        request.remove_header(name);
    }
    for (name, value) in permitted.set() {
        request.append_header(name.clone(), value.clone())?;
    }
    // A token in the query is gone.
    if permitted.head().uri != request.uri {
        request.set_uri(permitted.head().uri.clone());
    }
    Ok(())
}

/// The gate reads the body of the request itself, under its own limits of size and time.
async fn answer(gate: &Gate, head: http::request::Parts, session: &mut Session) -> Result<http::Response<Bytes>> {
    let (mut sender, body) = Channel::<Bytes, Box<Error>>::new(1);
    let reading = async {
        while let Some(bytes) = session.as_downstream_mut().read_request_body().await? {
            if sender.send_data(bytes).await.is_err() {
                break;
            }
        }
        drop(sender);
        pingora_core::Result::<()>::Ok(())
    };
    let mut answering = pin!(gate.answer(http::Request::from_parts(head, body)));
    let reply = tokio::select! {
        reply = &mut answering => reply,
        read = reading => {
            read?;
            answering.await
        }
    };
    let (head, body) = reply.into_parts();
    let body = body.collect().await.map_err(|error| Error::because(ErrorType::InternalError, "the answer", error))?;
    Ok(http::Response::from_parts(head, body.to_bytes()))
}

async fn respond(session: &mut Session, reply: http::Response<Bytes>) -> Result<()> {
    let (head, body) = reply.into_parts();
    let mut response = ResponseHeader::build(head.status, Some(head.headers.len() + 1))?;
    for (name, value) in &head.headers {
        response.append_header(name.clone(), value.clone())?;
    }
    if !head.headers.contains_key(http::header::CONTENT_LENGTH) {
        response.insert_header(http::header::CONTENT_LENGTH, body.len())?;
    }
    // A body that nothing has read would be taken for the next request.
    session.set_keepalive(None);
    session.write_response_header(Box::new(response), false).await?;
    session.write_response_body(Some(body), true).await
}
