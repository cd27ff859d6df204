//! One request: what is told of it, its panic, CORS, and then the gate around the proxy.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::Either;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use ipnet::IpNet;
use tower::{Layer, Service};

use super::ServerError;
use super::assemble::Assembled;
use super::body::RequestBody;
use super::cors::Cors;
use super::metrics::Metrics;
use super::origin::Origin;
use super::tracked::{Logged, Tracked};
use crate::config::Config;
use crate::log::Answered;
use crate::proxy::{Proxy, ProxyBody};
use rotogate::clock::{SystemTime, TimeSource};
use rotogate::gate::{BufferedForward, Gate, GateBody, GateService, Reason, Verdict};
use rotogate::headers::Peer;
use rotogate::overload::{Held, Holder, Place, Refusal};
use rotogate::reply;

/// The body of every reply.
pub(super) type ReplyBody = GateBody<ProxyBody>;

/// What every request needs.
#[derive(Debug)]
pub(super) struct State {
    service: Cors<GateService<Proxy, BufferedForward>>,
    gate: Gate,
    metrics: Arc<Metrics>,
    time: SystemTime,
    /// For the names of upstreams.
    pub(super) proxy: Proxy,
    /// The header that names a request.
    pub(super) request_id: HeaderName,
}

impl State {
    pub(super) fn new(config: &Config, assembled: &Assembled, metrics: Arc<Metrics>) -> Result<Self, ServerError> {
        let gate = &assembled.gate;
        let inner = gate.layer().rewriting().annotated().forward_buffered().at_edge().layer(assembled.proxy.clone());
        let service = Cors::new(&config.cors, gate.clone(), inner)?;
        // Its clones are made for every request: one that refers to static text counts nothing.
        let request_id: &'static str = Box::leak(config.server.request_id_header.as_str().into());
        Ok(Self {
            service,
            gate: gate.clone(),
            metrics,
            time: SystemTime::new(),
            proxy: assembled.proxy.clone(),
            request_id: HeaderName::from_static(request_id),
        })
    }

    /// The trusted proxies, if the peer is one of them; else none.
    pub(super) fn trusted_by(&self, peer: &Peer) -> &[IpNet] {
        let proxies = self.gate.trusted_proxies();
        let address = peer.address().to_canonical();
        if peer.may_forward() && proxies.iter().any(|network| network.contains(&address)) { proxies } else { &[] }
    }

    /// A place for a request, if there is one.
    pub(super) fn enter(&self, origin: &Origin, headers: &HeaderMap) -> Result<Place, Shed> {
        let of_proxy = || origin.peer.client_of(headers, self.gate.trusted_proxies());
        let holder = origin.holder.or_else(of_proxy);
        self.gate.overload().request(holder).map_err(|refusal| Shed { refusal, holder })
    }
}

/// A request for which there is no place.
#[derive(Debug)]
pub(super) struct Shed {
    refusal: Refusal,
    holder: Option<Holder>,
}

/// An answer to come, and the place that its request holds.
type Answering = Pin<Box<dyn Future<Output = (Response<ReplyBody>, Option<Place>)> + Send>>;

/// Serves one request, or refuses it where there are too many. A panic ends this request alone (requirement A8).
///
/// What becomes of most requests is decided at once, and what is left to wait for is small: a future is moved, so all of
/// its size is copied, several times on its way to the connection.
pub(super) fn serve(
    state: Arc<State>,
    origin: &Arc<Origin>,
    mut request: Request<Incoming>,
    place: Result<Place, Shed>,
) -> impl Future<Output = Result<Response<Held<Logged>>, Infallible>> + use<> {
    let began = state.time.monotonic();
    let received = (!request.body().is_end_stream()).then(Answered::default);
    let tracked = Tracked::new(&state, origin, &mut request, received.as_ref());
    let is_grpc = reply::is_grpc(request.headers());
    let (is_misdirected, request) = origin.is_misdirected(request);
    let answer = tracked.context().enter(|| match place {
        _ if is_misdirected => Either::Right(Box::pin(std::future::ready((misdirected(), place.ok()))) as Answering),
        Ok(place) => Either::Left(answered(&state, origin, request, is_grpc, received, place)),
        Err(shed) => {
            Either::Right(Box::pin(waiting(Arc::clone(&state), Arc::clone(origin), request, is_grpc, received, shed))
                as Answering)
        }
    });
    let answer = tracked.context().scope(answer);
    async move {
        let mut unanswered = Unanswered { state: &state, began, is_answered: false };
        let (mut response, place) = answer.await;
        unanswered.is_answered = true;
        let verdict = response.extensions_mut().remove::<Verdict>();
        if is_grpc && verdict.as_ref().is_some_and(|verdict| verdict.reason == Reason::PANIC) {
            response = reply::grpc_status(reply::GrpcCode::Internal, "internal error").map(GateBody::own);
        }
        let took = state.time.monotonic().saturating_sub(began);
        state.metrics.answered(verdict.as_ref(), Some(response.status()), took);
        let response = tracked.answered(&state, response, verdict.as_ref());
        Ok(response.map(|body| Held::new(body, place)))
    }
}

/// A request for which there was no place: it waits for one if its client was told to, and is refused otherwise.
async fn waiting(
    state: Arc<State>,
    origin: Arc<Origin>,
    request: Request<Incoming>,
    is_grpc: bool,
    received: Option<Answered>,
    Shed { mut refusal, holder }: Shed,
) -> (Response<ReplyBody>, Option<Place>) {
    let overload = state.gate.overload();
    if overload.waiting.out(&origin.told, state.time.monotonic(), holder).await {
        match overload.request(holder) {
            Ok(place) => return answered(&state, &origin, request, is_grpc, received, place).await,
            Err(still) => refusal = still,
        }
    }
    origin.told.at(state.time.monotonic());
    (overloaded(&state.gate, &request, refusal), None)
}

/// What the gate, or an upstream, says to it.
fn answered(
    state: &State,
    origin: &Origin,
    request: Request<Incoming>,
    is_grpc: bool,
    received: Option<Answered>,
    place: Place,
) -> impl Future<Output = (Response<ReplyBody>, Option<Place>)> + use<> {
    // A stream of messages is as slow as what it tells of.
    let mut request = match &received {
        Some(answered) if !is_grpc => RequestBody::paced(request, &state.gate, origin.slowest, answered.clone()),
        received => request.map(|body| RequestBody::incoming(body, &state.gate, received.clone())),
    };
    request.extensions_mut().insert(origin.peer.clone());
    // The service is always ready.
    let called = catch_unwind(AssertUnwindSafe(|| state.service.clone().call(request)));
    async move {
        let response = match called {
            Ok(answer) => guarded(answer).await,
            Err(_) => panicked(),
        };
        if let Some(answered) = received {
            answered.set();
        }
        (response, Some(place))
    }
}

/// The client asks a server that it did not want to speak to when the connection began.
fn misdirected() -> Response<ReplyBody> {
    let detail = "this host is served on a connection of its own";
    let mut reply = reply::problem(StatusCode::MISDIRECTED_REQUEST, Some(detail)).map(GateBody::own);
    Reason::MISDIRECTED.tell();
    reply.extensions_mut().insert(Verdict::new(Reason::MISDIRECTED));
    reply
}

/// There is no place for it.
fn overloaded<B>(gate: &Gate, request: &Request<B>, refusal: Refusal) -> Response<ReplyBody> {
    let (reply, verdict) = gate.overloaded(request, refusal);
    let mut reply = reply.map(GateBody::own);
    reply.extensions_mut().insert(verdict);
    reply
}

/// The answer, or a 500 where making it panicked.
async fn guarded<B>(answer: impl Future<Output = Result<Response<GateBody<B>>, Infallible>>) -> Response<GateBody<B>> {
    match AssertUnwindSafe(answer).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => panicked(),
    }
}

/// What happened is in the log; the caller learns nothing of it.
fn panicked<B>() -> Response<GateBody<B>> {
    let mut reply = reply::problem(StatusCode::INTERNAL_SERVER_ERROR, None).map(GateBody::own);
    reply.extensions_mut().insert(Verdict::new(Reason::PANIC));
    reply
}

/// Counts a request whose client was gone before there was an answer.
struct Unanswered<'a> {
    state: &'a State,
    began: Duration,
    is_answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            let took = self.state.time.monotonic().saturating_sub(self.began);
            self.state.metrics.answered(Some(&Verdict::new(Reason::CLIENT_GONE)), None, took);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header::CONTENT_TYPE;
    use http_body_util::{BodyExt, Full};

    use super::*;

    type Answer = Result<Response<GateBody<Full<Bytes>>>, Infallible>;

    #[tokio::test]
    async fn a8_a_panic_is_a_500_that_tells_nothing() {
        let panicking = async { panic!("a detail that stays here") };
        let response = guarded::<Full<Bytes>>(panicking).await;
        let (parts, body) = response.into_parts();
        assert_eq!(parts.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(parts.headers[CONTENT_TYPE], "application/problem+json");
        assert_eq!(parts.extensions.get::<Verdict>().unwrap().reason, Reason::PANIC);
        let body = body.collect().await.unwrap().to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("detail"), "{body:?}");
    }

    #[tokio::test]
    async fn a8_an_answer_without_a_panic_is_left_as_it_is() {
        let answer = async { Answer::Ok(Response::new(GateBody::own(Bytes::from_static(b"whole").into()))) };
        let response = guarded(answer).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "whole");
    }
}
