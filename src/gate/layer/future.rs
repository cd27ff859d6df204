//! The response future: the reply of the service, of an endpoint, or of the gate.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::dialect::Reply;
use crate::dialect::browser::reader::ReaderHeaders;
use crate::gate::body::GateBody;
use crate::gate::browser::given::note_own;
use crate::gate::in_flight::InFlightSlot;
use crate::gate::notice::SetupNotice;
use crate::gate::reply_guard::{ReplyGuard, is_short};
use crate::gate::verdict::Verdict;
use crate::gate::{Inner, limits, respond};
use rotogate_core::denial::Denial;
use rotogate_core::policy::{Permitted, Undecided};
use rotogate_core::reason::Reason;
use rotogate_core::{dpop, reply};

pub(super) enum EndpointOutcome<F> {
    /// The endpoint replies.
    Reply(Box<(Reply, Option<Verdict>)>),
    /// The service replies.
    In { future: F, passed: Option<PassedRequest>, annotate: bool },
    /// The decision was delayed.
    Admitted(Box<ResponseFuture<F>>),
}

pub(super) struct PassedRequest {
    pub(super) gate: Arc<Inner>,
    pub(super) permitted: Permitted,
    pub(super) counted: Option<InFlightSlot>,
    /// Whether a long reply is cut off when the caller's session ends.
    pub(super) is_guarded: bool,
    /// Set if a `require()` in the service decides on the token's audience.
    pub(super) undecided: Option<Box<Undecided>>,
    /// For the page that a person reads if the proxy fails. Only at the edge, and on a route for browser sessions.
    pub(super) reader: Option<ReaderHeaders>,
}

impl<F> EndpointOutcome<F> {
    pub(super) fn reply(reply: Reply, verdict: Option<Verdict>) -> Self {
        Self::Reply(Box::new((reply, verdict)))
    }
}

impl PassedRequest {
    fn is_by_session(&self) -> bool {
        let undecided = self.undecided.as_ref().map(|undecided| undecided.caller());
        self.permitted.caller().or(undecided).is_some_and(|caller| caller.session_cookie().is_some())
    }

    /// The guard is boxed because few replies have a guard, but every reply is moved several times.
    fn guard<R: Body>(&self, response: &Response<R>) -> Option<Box<ReplyGuard>> {
        if !self.is_guarded || is_short(&response.body().size_hint()) {
            return None;
        }
        let undecided = self.undecided.as_ref().map(|undecided| undecided.caller());
        let caller = Arc::clone(self.permitted.caller().or(undecided)?);
        let is_grpc = reply::is_grpc(response.headers());
        Some(Box::new(ReplyGuard::new(Arc::clone(&self.gate), caller, &self.permitted, is_grpc)))
    }

    /// Replaces a 401 from an upstream that did not accept the exchanged token. With the 401, the client would discard
    /// its own valid token.
    // Requirement D12.
    fn unauthorized(&self, status: StatusCode) -> Option<(Reply, Reason)> {
        let exchange = self.permitted.route().exchange.as_ref().filter(|_| status == StatusCode::UNAUTHORIZED)?;
        self.gate.running.exchanges.drop_entry(exchange, self.permitted.caller()?);
        let reason = Reason::UPSTREAM_UNAUTHORIZED;
        reason.tell();
        Some((reply::problem(StatusCode::BAD_GATEWAY, Some("upstream_unauthorized")), reason))
    }

    fn unjudged(&self, said: &HeaderMap) -> Option<(Reply, Reason)> {
        if self.undecided.as_ref().is_none_or(|undecided| undecided.is_decided()) {
            return None;
        }
        if self.gate.running.notices.first(SetupNotice::Unjudged) {
            tracing::error!(
                "reply dropped: a handler behind `gate.layer().deferring_audience()` replied to a request with a \
                 token for another audience. Put the handler behind `gate.require()`, or let the handler take an \
                 `Identity`. Logged once"
            );
        }
        let denial = Denial::WrongAudience;
        let reason = Reason::from(denial);
        reason.tell();
        let is_grpc = reply::is_grpc(said);
        let reply = if is_grpc {
            respond::denied_grpc(denial)
        } else {
            respond::denied(denial, &respond::ChallengeParams::default())
        };
        Some((reply, reason))
    }
}

pin_project! {
    #[project = ResponseFutureProjection]
    /// The response future.
    ///
    /// ```
    /// use rotogate::gate::ResponseFuture;
    /// use tower::{Layer, Service};
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
    /// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let gate = gate.client(Client::public("web")).build().await?;
    /// # use {bytes::Bytes, http::{Request, Response}, http_body_util::Full, std::convert::Infallible};
    /// # async fn handler(_: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, Infallible> {
    /// #     Ok(Response::default())
    /// # }
    /// # let request = Request::get("/").header("host", "api.example.com").body(Full::<Bytes>::default())?;
    /// let mut service = gate.layer().layer(tower::service_fn(handler));
    /// let future: ResponseFuture<_> = service.call(request);
    /// assert_eq!(future.await?.status(), 401);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub struct ResponseFuture<F> {
        #[pin]
        kind: FutureKind<F>,
        // Whether the request is a `HEAD`, so that the gate's own reply must not have a body.
        is_bare: bool,
    }
}

pin_project! {
    #[project = FutureKindProjection]
    pub(super) enum FutureKind<F> {
        Inner { #[pin] future: F, passed: Option<PassedRequest>, annotate: bool },
        Endpoint { answer: Pin<Box<dyn Future<Output = EndpointOutcome<F>> + Send>> },
        // The reply is boxed because it is larger than the other states, and the future is moved several times.
        Own { reply: Option<Box<(Reply, Option<Verdict>)>> },
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<F> ResponseFuture<F> {
    pub(in crate::gate) fn own(reply: Reply, verdict: Option<Verdict>) -> Self {
        Self::new(FutureKind::Own { reply: Some(Box::new((reply, verdict))) })
    }

    pub(super) fn new(kind: FutureKind<F>) -> Self {
        Self { kind, is_bare: false }
    }

    // Requirement T47.
    pub(in crate::gate) fn to(self, method: &Method) -> Self {
        Self { is_bare: *method == Method::HEAD, ..self }
    }

    pub(in crate::gate) fn later<T>(
        wait: impl Future<Output = T> + Send + 'static,
        answer: impl FnOnce(T) -> Self + Send + 'static,
    ) -> Self {
        let answer = Box::pin(async { EndpointOutcome::Admitted(Box::new(answer(wait.await))) });
        Self::new(FutureKind::Endpoint { answer })
    }

    pub(in crate::gate) fn inner(future: F) -> Self {
        Self::new(FutureKind::Inner { future, passed: None, annotate: false })
    }

    pub(in crate::gate) fn required(future: F, gate: &Arc<Inner>, permitted: Permitted) -> Self {
        let gate = Arc::clone(gate);
        let passed = PassedRequest { gate, permitted, counted: None, is_guarded: false, undecided: None, reader: None };
        Self::new(FutureKind::Inner { future, passed: Some(passed), annotate: false })
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<GateBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let ResponseFutureProjection { mut kind, is_bare } = self.project();
        loop {
            let next = match kind.as_mut().project() {
                FutureKindProjection::Inner { future, passed, annotate } => {
                    let response = ready!(future.poll(cx))?;
                    return Poll::Ready(Ok(answered(response, passed.take(), *annotate, *is_bare)));
                }
                FutureKindProjection::Own { reply } => {
                    #[expect(clippy::expect_used, reason = "a future is not polled after its end")]
                    let (mut reply, verdict) = *reply.take().expect("polled once");
                    note_own(&mut reply);
                    return Poll::Ready(Ok(annotated(own(reply, *is_bare), verdict)));
                }
                FutureKindProjection::Endpoint { answer } => match ready!(answer.as_mut().poll(cx)) {
                    EndpointOutcome::Reply(reply) => FutureKind::Own { reply: Some(reply) },
                    EndpointOutcome::In { future, passed, annotate } => FutureKind::Inner { future, passed, annotate },
                    EndpointOutcome::Admitted(answer) => {
                        *is_bare |= answer.is_bare;
                        answer.kind
                    }
                },
            };
            kind.set(next);
        }
    }
}

fn answered<R: Body>(
    mut response: Response<R>,
    mut passed: Option<PassedRequest>,
    annotate: bool,
    is_bare: bool,
) -> Response<GateBody<R>> {
    let mut counted = passed.as_mut().and_then(|passed| passed.counted.take());
    if let Some(counted) = &mut counted {
        counted.answered();
    }
    if let Some((reply, reason)) = passed.as_ref().and_then(|passed| passed.unjudged(response.headers())) {
        let verdict = passed.filter(|_| annotate);
        let verdict = verdict.map(|passed| Verdict { reason, ..Verdict::passed(passed.permitted.into_parts()) });
        return annotated(own(reply, is_bare), verdict);
    }
    if let Some((reply, reason)) = passed.as_ref().and_then(|passed| passed.unauthorized(response.status())) {
        let verdict = passed.filter(|_| annotate).map(|passed| {
            let reader = passed.reader.and_then(|headers| headers.reader());
            Verdict { reason, reader, ..Verdict::passed(passed.permitted.into_parts()) }
        });
        return annotated(own(reply, is_bare), verdict);
    }
    let renewed = passed.as_ref().filter(|passed| passed.permitted.renews_nonce());
    if let Some(nonce) = renewed.and_then(|passed| passed.gate.dpop_nonce()) {
        response.headers_mut().insert(dpop::NONCE.clone(), nonce);
    }
    if let Some(fields) = passed.as_ref().and_then(|passed| passed.permitted.quota()) {
        limits::add(response.headers_mut(), fields);
    }
    if let Some(passed) = &passed {
        passed.gate.strip_cookies(&mut response);
    }
    if let Some(passed) = passed.as_ref().filter(|passed| passed.is_by_session()) {
        passed.gate.adapt_reply(response.headers_mut());
    }
    if let Some(passed) = passed.as_ref().filter(|passed| passed.permitted.clears_session()) {
        passed.gate.adapt_reply(response.headers_mut());
        passed.gate.append_clearing(response.headers_mut());
    }
    let guard = passed.as_ref().and_then(|passed| passed.guard(&response));
    let verdict = passed.filter(|_| annotate).map(|passed| {
        let reader = passed.reader;
        let verdict = Verdict::passed(passed.permitted.into_parts());
        // A `require()` behind the gate, an extractor, or the proxy may have set a more specific reason.
        match response.extensions_mut().remove::<Reason>() {
            Some(reason) => Verdict { reason, reader: reader.and_then(|headers| headers.reader()), ..verdict },
            None => verdict,
        }
    });
    annotated(response.map(|body| GateBody::inner(body, guard, counted)), verdict)
}

/// The reply to a `HEAD` does not have a body, because hyper drops the body only over HTTP/1.1 (RFC 9110 §9.3.2).
fn own<R>(mut reply: Reply, is_bare: bool) -> Response<GateBody<R>> {
    if is_bare {
        let body = std::mem::take(reply.body_mut());
        if body.stream.is_none() && !body.data.is_empty() {
            reply.headers_mut().entry(CONTENT_LENGTH).or_insert(body.data.len().into());
        }
    }
    reply.map(GateBody::own)
}

fn annotated<B>(mut response: Response<B>, verdict: Option<Verdict>) -> Response<B> {
    if let Some(verdict) = verdict {
        response.extensions_mut().insert(verdict);
    }
    response
}
