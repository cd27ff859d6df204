//! What is told of a request besides its answer: its id, its line in the access log, and what the log of the application
//! says with each event that it brings on.

use std::pin::Pin;
use std::task::{Context as Polled, Poll};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::metrics;
use super::origin::Origin;
use super::request::{ReplyBody, State};
use crate::log::{self, Answered, Entry, Over, Sent, Tunnel, request_id};
use crate::proxy::ProxyBody;
use rotogate::clock::wall_micros;
use rotogate::context::Context;
use rotogate::gate::Verdict;
use rotogate::headers;
use rotogate::lease::UntilClosed;
use std::sync::Arc;

const PROBLEM: &[u8] = b"application/problem+json";
const EVENTS: &[u8] = b"text/event-stream";
const GRPC_STATUS: &str = "grpc-status";

/// See the module. Dropped before there is an answer, it says that the client was gone.
pub(super) struct Tracked {
    context: Context,
    entry: Option<Entry>,
    /// For what becomes of an upgraded connection.
    tunnel: Option<Tunnel>,
    is_head: bool,
}

impl Tracked {
    /// Names the request, for the upstream too, and begins its line.
    pub(super) fn new<B>(
        state: &State,
        origin: &Origin,
        request: &mut Request<B>,
        received: Option<&Answered>,
    ) -> Self {
        let micros = wall_micros();
        let peer = origin.peer.address();
        let proxies = state.trusted_by(&origin.peer);
        let given = (!proxies.is_empty()).then(|| request_id::trusted(request.headers(), &state.request_id)).flatten();
        let id = given.unwrap_or_else(|| request_id::new(micros));
        let client = if proxies.is_empty() { peer } else { headers::client_ip(request.headers(), peer, proxies) };
        let over = || Over {
            peer: &origin.peer,
            client: (client != peer).then_some(client),
            scheme: origin.peer.scheme(),
            tls: origin.tls,
        };
        let entry = log::access().map(|access| access.begin(request, &id, micros, &over(), received.cloned()));
        let tunnel = (entry.is_some() && request.headers().contains_key(UPGRADE)).then(Tunnel::default);
        if let Some(tunnel) = &tunnel {
            request.extensions_mut().insert(tunnel.clone());
            request.extensions_mut().insert(UntilClosed(Arc::new(tunnel.clone())));
        }
        request.headers_mut().insert(state.request_id.clone(), id.clone());
        let is_head = *request.method() == Method::HEAD;
        Self { context: Context { id, client: Some(client), actor: None }, entry, tunnel, is_head }
    }

    /// What is to be known where the request is worked for.
    pub(super) fn context(&self) -> Context {
        self.context.clone()
    }

    /// There is an answer.
    pub(super) fn answered(
        self,
        state: &State,
        mut response: Response<ReplyBody>,
        verdict: Option<&Verdict>,
    ) -> Response<Logged> {
        let Self { context: Context { id, .. }, entry, tunnel, is_head } = self;
        if response.headers().get(CONTENT_TYPE).is_some_and(|media| media.as_bytes() == PROBLEM)
            && let Some(bytes) = response.body_mut().own_bytes(ProxyBody::own_bytes)
        {
            named(bytes, &id);
        }
        response.headers_mut().insert(state.request_id.clone(), id);
        let Some(mut entry) = entry else { return response.map(|body| Logged { body, entry: None }) };
        let status = response.status();
        let reason = metrics::outcome(verdict);
        let upstream = verdict.and_then(|verdict| verdict.route.as_ref()?.upstream);
        match (upstream, response.body().inner_ref().map(ProxyBody::sent)) {
            (Some(upstream), Some((address, attempts, took))) => state.proxy.with_name(upstream, |upstream| {
                let sent = Sent { upstream, address, attempts, took };
                entry.answered(status, reason, verdict, Some(&sent));
            }),
            (Some(_) | None, _) => entry.answered(status, reason, verdict, None),
        }
        entry.grpc(response.headers().get(GRPC_STATUS));
        if let Some(tunnel) = tunnel.filter(|_| status == StatusCode::SWITCHING_PROTOCOLS) {
            tunnel.begins(entry);
            return response.map(|body| Logged { body, entry: None });
        }
        if response.headers().get(CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(EVENTS)) {
            entry.begins();
        }
        let is_bare = is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if is_bare || response.body().is_end_stream() {
            entry.ends("complete");
        }
        response.map(|body| Logged { body, entry: Some(entry) })
    }
}

/// Puts the id of the request into a problem document (RFC 9457) of ours.
fn named(problem: &mut Bytes, id: &HeaderValue) {
    if let Some(document) = problem.strip_suffix(b"}") {
        *problem = [document, b",\"request_id\":\"", id.as_bytes(), b"\"}"].concat().into();
    }
}

pin_project! {
    /// The body of a reply, with the line that is written when it ends.
    #[derive(Debug)]
    pub(super) struct Logged {
        #[pin]
        body: ReplyBody,
        entry: Option<Entry>,
    }
}

impl Body for Logged {
    type Data = <ReplyBody as Body>::Data;
    type Error = <ReplyBody as Body>::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Polled<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let next = this.body.as_mut().poll_frame(cx);
        let Some(entry) = this.entry else { return next };
        match &next {
            Poll::Pending => {}
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    entry.sends(data.remaining());
                }
                if let Some(trailers) = frame.trailers_ref() {
                    entry.grpc(trailers.get(GRPC_STATUS));
                }
                if this.body.is_end_stream() {
                    entry.ends(this.body.cut().unwrap_or("complete"));
                } else if this.body.size_hint().exact().is_none() {
                    entry.goes_on();
                }
            }
            Poll::Ready(None) => entry.ends(this.body.cut().unwrap_or("complete")),
            Poll::Ready(Some(Err(_))) => entry.ends(this.body.cut().unwrap_or("upstream")),
        }
        next
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
