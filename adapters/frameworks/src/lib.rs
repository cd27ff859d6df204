//! The common code of this package's programs, for servers with the types of http 1: the gate judges a head, and the reply
//! keeps the permit.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use rotogate::gate::{Peer, PermittedRequest};

/// The head of a request as the gate judges it. `peer` is the other end of the connection, without TLS.
pub fn head(method: &Method, uri: &Uri, version: Version, headers: &HeaderMap, peer: Option<IpAddr>) -> Parts {
    let mut head = http::Request::new(()).into_parts().0;
    head.method = method.clone();
    head.uri = uri.clone();
    head.version = version;
    head.headers = headers.clone();
    if let Some(address) = peer {
        // Without it there are no limits by address.
        head.extensions.insert(Peer::new(address, false));
    }
    head
}

/// Makes the headers of a request those that the gate permitted.
pub fn apply(permitted: &PermittedRequest, headers: &mut HeaderMap) {
    permitted.remove().iter().for_each(|name| drop(headers.remove(name)));
    permitted.set().keys().for_each(|name| drop(headers.remove(name)));
    append(permitted.set(), headers);
}

/// Appends headers to others.
pub fn append(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        to.append(name.clone(), value.clone());
    }
}

pin_project_lite::pin_project! {
    /// The body of a reply. The request counts among those of its caller until the body is dropped, and a body of unknown
    /// length breaks off when the caller's session ends.
    pub struct Guarded<B> {
        #[pin]
        body: B,
        permitted: Box<PermittedRequest>,
    }
}

impl<B> Guarded<B> {
    /// A body with the permit of its request.
    pub fn new(body: B, permitted: Box<PermittedRequest>) -> Self {
        Self { body, permitted }
    }
}

impl<B: Body<Data = Bytes>> Body for Guarded<B>
where
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let this = self.project();
        if this.body.size_hint().exact().is_none()
            && let Poll::Ready(reason) = pin!(this.permitted.ended()).poll(cx)
        {
            let broken = format!("the reply ended with its caller's session: {reason}");
            return Poll::Ready(Some(Err(io::Error::other(broken))));
        }
        this.body.poll_frame(cx).map_err(io::Error::other)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
