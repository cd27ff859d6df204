//! Handles one request.

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use ipnet::IpNet;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::body::RequestBody;
use super::cors::{Cors, CorsFuture};
use super::drain::StreamDrain;
use super::request_record::{LoggedBody, RequestRecord};
use super::tally::Tally;
use crate::server::error::KeyFault;
use crate::server::listen::origin::Origin;
use crate::trace::Tracer;
use rotogate::Gate;
use rotogate::gate::{BufferedForward, GateBody, GateLayer, GateService, Reason, Verdict};
use rotogate_config::Config;
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::headers::{Peer, Present};
use rotogate_core::overload::{Holder, PoolPermit, Refusal};
use rotogate_core::reply;
use rotogate_kit::exchange::ExchangeProgress;
use rotogate_proxy::{Proxy, ProxyBody};

pub(crate) fn gate_layer(gate: &Gate) -> GateLayer<BufferedForward> {
    gate.layer().rewriting().annotated().forward_buffered().at_edge()
}

pub(crate) type ReplyBody = GateBody<ProxyBody>;

pub(crate) type Serving = Arc<ArcSwap<RequestState>>;

/// What each request needs. A request keeps the state that was current when it began.
#[derive(Debug)]
pub(crate) struct RequestState {
    service: Cors<GateService<Proxy, BufferedForward>>,
    gate: Gate,
    pub(crate) tally: &'static Tally,
    time: SystemTime,
    /// The proxy, which also knows the names of the upstreams.
    pub(crate) proxy: Proxy,
    pub(crate) request_id: HeaderName,
    pub(crate) drain: StreamDrain,
    pub(crate) tracer: Option<Arc<Tracer>>,
}

impl RequestState {
    pub(crate) fn new(
        config: &Config,
        gate: Gate,
        proxy: Proxy,
        tally: &'static Tally,
        (request_id, drain): (HeaderName, StreamDrain),
    ) -> Result<Self, KeyFault> {
        let inner = gate_layer(&gate).layer(proxy.clone());
        let service = Cors::new(config, gate.clone(), inner)?;
        Ok(Self { service, gate, tally, time: SystemTime::new(), proxy, request_id, drain, tracer: None })
    }

    /// Returns the state for a new configuration, with the same counters, tracer and drain.
    pub(crate) fn replaced_by(&self, config: &Config, gate: Gate, proxy: Proxy) -> Result<Self, KeyFault> {
        let (request_id, drain) = (self.request_id.clone(), self.drain.clone());
        let state = Self::new(config, gate, proxy, self.tally, (request_id, drain))?;
        Ok(state.traced_by(self.tracer.clone()))
    }

    pub(crate) fn traced_by(self, tracer: Option<Arc<Tracer>>) -> Self {
        Self { tracer, ..self }
    }

    pub(crate) fn with_proxy(&self, config: &Config, proxy: Proxy) -> Result<Self, KeyFault> {
        self.replaced_by(config, self.gate.clone(), proxy)
    }

    pub(crate) fn monotonic(&self) -> Duration {
        self.time.monotonic()
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Returns the trusted networks if they contain the peer, or an empty list.
    pub(super) fn trusted_by(&self, peer: &Peer) -> &[IpNet] {
        let proxies = self.gate.trusted_proxies();
        let address = peer.address().to_canonical();
        if peer.may_forward() && proxies.iter().any(|network| network.contains(&address)) { proxies } else { &[] }
    }

    /// # Errors
    /// The gate as a whole, or the client, already has the maximum number of requests in flight.
    pub(crate) fn enter(&self, origin: &Origin, headers: &HeaderMap) -> Result<PoolPermit, Rejection> {
        let of_proxy = || origin.peer.client_of(headers, self.gate.trusted_proxies());
        let holder = origin.holder.or_else(of_proxy);
        self.gate.overload().request(holder).map_err(|refusal| Rejection { refusal, holder })
    }
}

#[derive(Debug)]
pub(crate) struct Rejection {
    refusal: Refusal,
    holder: Option<Holder>,
}

impl Rejection {
    pub(crate) fn refusal(&self) -> Refusal {
        self.refusal
    }
}

type Answered = (Response<ReplyBody>, Option<PoolPermit>);
type ResponseBoxFuture = Pin<Box<dyn Future<Output = Answered> + Send>>;
type ServiceFuture = CorsFuture<<GateService<Proxy, BufferedForward> as Service<Request<RequestBody>>>::Future>;

/// Calls `around` with a function that runs `work` on `input`. Returns `None` if `around` does not finish `work`.
///
/// `enter` and `catch_unwind` copy what a closure captures. This closure captures only references.
fn in_place<I, O>(around: impl FnOnce(&mut dyn FnMut()), input: I, work: impl FnOnce(I) -> O) -> Option<O> {
    let (mut given, mut result) = (Some((input, work)), None);
    around(&mut || result = given.take().map(|(input, work)| work(input)));
    result
}

/// Serves one request, or rejects it under overload. A panic ends only this request (requirement A8).
pub(crate) fn serve(
    state: Arc<RequestState>,
    origin: &Arc<Origin>,
    (mut request, present): (Request<Incoming>, Present),
    permit: Result<PoolPermit, Rejection>,
) -> Served {
    let began = state.time.monotonic();
    let received = (!request.body().is_end_stream()).then(ExchangeProgress::default);
    let record = RequestRecord::new(&state, origin, (&mut request, present), began, received.as_ref());
    let is_grpc = present.content_type && reply::is_grpc(request.headers());
    let is_misdirected = origin.is_misdirected(&request);
    let answer = in_place(
        |run| record.context().clone().enter(run),
        request,
        |request| match permit {
            _ if is_misdirected => PendingAnswer::boxed(std::future::ready((misdirected(), permit.ok()))),
            Ok(permit) => call_service(&state, origin, request, is_grpc, received, permit),
            Err(rejection) => {
                let (state, origin) = (Arc::clone(&state), Arc::clone(origin));
                PendingAnswer::boxed(wait_or_reject(state, origin, request, is_grpc, received, rejection))
            }
        },
    );
    Served { answer, request: Some(ServedRequest { state, record, began, is_grpc }) }
}

pin_project! {
    /// The future that serves a request until its response begins.
    ///
    /// An `async` block would store the awaited future twice, and would be copied several times.
    pub(crate) struct Served {
        // `None` after the response.
        #[pin]
        answer: Option<PendingAnswer>,
        request: Option<ServedRequest>,
    }

    impl PinnedDrop for Served {
        // The future is dropped in the request's context, so that log events name the request. If the record still
        // exists, the client has disconnected.
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            if let Some(ServedRequest { state, record, began, .. }) = this.request {
                record.context().clone().enter(|| this.answer.set(None));
                state.tally.count_abort(state.time.monotonic().saturating_sub(*began));
            }
        }
    }
}

struct ServedRequest {
    state: Arc<RequestState>,
    record: RequestRecord,
    began: Duration,
    is_grpc: bool,
}

impl Future for Served {
    type Output = Result<Response<LoggedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut answered = None;
        if let Some(served) = this.request.as_ref() {
            let enter = |run: &mut dyn FnMut()| served.record.context().clone().enter(run);
            answered = in_place(enter, this.answer.as_mut(), |mut answer| {
                let Poll::Ready(ready) = answer.as_mut().as_pin_mut()?.poll(cx) else { return None };
                answer.set(None);
                Some(ready)
            });
        }
        let (response, permit) = match answered.flatten() {
            Some(answered) => answered,
            None if this.answer.is_some() => return Poll::Pending,
            // The future was polled again after the response.
            None => (panic_response(), None),
        };
        Poll::Ready(Ok(match this.request.take() {
            Some(served) => served.complete(response, permit),
            None => response.map(LoggedBody::unrecorded),
        }))
    }
}

impl ServedRequest {
    fn complete(self, mut response: Response<ReplyBody>, permit: Option<PoolPermit>) -> Response<LoggedBody> {
        let Self { state, record, began, is_grpc } = self;
        let verdict = response.extensions_mut().remove::<Verdict>();
        if is_grpc && verdict.as_ref().is_some_and(|verdict| verdict.reason == Reason::PANIC) {
            response = reply::grpc_status(reply::GrpcCode::Internal, "internal error").map(GateBody::own);
        }
        let now = state.time.monotonic();
        let upstream = response.body().inner_ref().map_or(Duration::ZERO, |body| body.sent().2);
        state.tally.count_answer(verdict.as_ref(), response.status(), now.saturating_sub(began), upstream);
        record.complete(&state, response, (verdict, permit), now)
    }
}

pin_project! {
    #[project = PendingAnswerProjection]
    enum PendingAnswer {
        Called { #[pin] called: ServiceFuture, received: Option<ExchangeProgress>, permit: Option<PoolPermit> },
        Boxed { answer: ResponseBoxFuture },
    }
}

impl PendingAnswer {
    fn boxed(answer: impl Future<Output = Answered> + Send + 'static) -> Self {
        Self::Boxed { answer: Box::pin(answer) }
    }
}

impl Future for PendingAnswer {
    type Output = Answered;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        match self.project() {
            PendingAnswerProjection::Called { called, received, permit } => {
                let response = ready!(poll_caught(called, cx));
                if let Some(progress) = received {
                    progress.set_response_started();
                }
                Poll::Ready((response, permit.take()))
            }
            PendingAnswerProjection::Boxed { answer } => answer.as_mut().poll(cx),
        }
    }
}

/// Waits for a permit if the connection was rejected less than `Retry-After` ago. Otherwise rejects the request.
async fn wait_or_reject(
    state: Arc<RequestState>,
    origin: Arc<Origin>,
    request: Request<Incoming>,
    is_grpc: bool,
    received: Option<ExchangeProgress>,
    Rejection { mut refusal, holder }: Rejection,
) -> Answered {
    let overload = state.gate.overload();
    if overload.delayed_retries.wait_out(&origin.last_rejection, state.time.monotonic(), holder).await {
        match overload.request(holder) {
            Ok(permit) => return call_service(&state, &origin, request, is_grpc, received, permit).await,
            Err(still) => refusal = still,
        }
    }
    origin.last_rejection.record(state.time.monotonic());
    (reject(&state.gate, &request, refusal), None)
}

fn call_service(
    state: &RequestState,
    origin: &Origin,
    request: Request<Incoming>,
    is_grpc: bool,
    received: Option<ExchangeProgress>,
    permit: PoolPermit,
) -> PendingAnswer {
    // gRPC streams may pause, so the minimum rate does not apply.
    let mut request = match &received {
        Some(progress) if !is_grpc => RequestBody::with_min_rate(request, &state.gate, origin, progress.clone()),
        received => request.map(|body| RequestBody::incoming(body, &state.gate, origin, received.clone())),
    };
    request.extensions_mut().insert(origin.peer.clone());
    #[cfg(feature = "failpoints")]
    rotogate_core::failpoint::at_request(request.uri().path());
    // The service is always ready.
    match in_place(caught, request, |request| state.service.call(request)) {
        Some(called) => PendingAnswer::Called { called, received, permit: Some(permit) },
        None => {
            if let Some(progress) = received {
                progress.set_response_started();
            }
            PendingAnswer::boxed(std::future::ready((panic_response(), Some(permit))))
        }
    }
}

fn misdirected() -> Response<ReplyBody> {
    let detail = "this connection does not serve the requested host; open another connection";
    let mut reply = reply::problem(StatusCode::MISDIRECTED_REQUEST, Some(detail)).map(GateBody::own);
    Reason::MISDIRECTED.tell();
    reply.extensions_mut().insert(Verdict::new(Reason::MISDIRECTED));
    reply
}

fn reject<B>(gate: &Gate, request: &Request<B>, refusal: Refusal) -> Response<ReplyBody> {
    let (reply, verdict) = gate.overloaded(request, refusal);
    let mut reply = reply.map(GateBody::own);
    reply.extensions_mut().insert(verdict);
    reply
}

fn caught(run: &mut dyn FnMut()) {
    drop(catch_unwind(AssertUnwindSafe(run)));
}

/// Returns the response, or a 500 after a panic.
///
/// tower-http's `CatchPanic` would box every body, and hide the [`GateBody`] from the access log. `CatchUnwind` of
/// futures-util copies each response twice.
fn poll_caught<B>(
    answer: Pin<&mut impl Future<Output = Result<Response<GateBody<B>>, Infallible>>>,
    cx: &mut Context<'_>,
) -> Poll<Response<GateBody<B>>> {
    match in_place(caught, answer, |answer| answer.poll(cx)) {
        Some(polled) => polled.map(|Ok(response)| response),
        None => Poll::Ready(panic_response()),
    }
}

/// Returns a 500 without details.
pub(super) fn panic_response<B>() -> Response<GateBody<B>> {
    let mut reply = reply::problem(StatusCode::INTERNAL_SERVER_ERROR, None).map(GateBody::own);
    reply.extensions_mut().insert(Verdict::new(Reason::PANIC));
    reply
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::header::CONTENT_TYPE;
    use http_body_util::{BodyExt, Full};

    use super::*;

    type Answer = Result<Response<GateBody<Full<Bytes>>>, Infallible>;

    async fn caught<B>(
        answer: impl Future<Output = Result<Response<GateBody<B>>, Infallible>>,
    ) -> Response<GateBody<B>> {
        let mut answer = std::pin::pin!(answer);
        std::future::poll_fn(|cx| poll_caught(answer.as_mut(), cx)).await
    }

    #[tokio::test]
    async fn a8_a_panic_is_a_500_that_tells_nothing() {
        let panicking = async { panic!("a detail that stays here") };
        let response = caught::<Full<Bytes>>(panicking).await;
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
        let response = caught(answer).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "whole");
    }
}
