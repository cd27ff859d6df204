//! Forwarding of bodies with back-pressure. Only the current frame is buffered.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::Sleep;

use super::address::Address;
use super::http1::ConnectionGuard;
use super::pool::InFlightSlot;

/// Any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The body is longer than the route allows.
    #[error("the body is longer than the route allows")]
    TooLarge,
    /// No frame came within the idle timeout.
    #[error("the body stalled")]
    Idle,
    /// The body's connection failed.
    #[error("the body ended early")]
    Broken(#[source] BoxError),
}

/// The error for a request body below the minimum rate.
#[derive(Debug, thiserror::Error)]
#[error("the request body arrives too slowly")]
pub struct TooSlow;

/// The idle timer of a body. Progress in the other direction also restarts the timer, because a gRPC client may only
/// receive.
#[derive(Debug)]
struct IdleTimer {
    limit: Duration,
    running: Option<Pin<Box<Sleep>>>,
    exchange: Progress,
    seen: u64,
}

impl IdleTimer {
    fn new(limit: Duration, exchange: Progress) -> Self {
        Self { limit, running: None, exchange, seen: 0 }
    }

    fn stop(&mut self) {
        self.running = None;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        loop {
            if self.running.is_none() {
                self.seen = self.exchange.count();
            }
            let running = self.running.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
            std::task::ready!(running.as_mut().poll(cx));
            if self.exchange.count() == self.seen {
                return Poll::Ready(());
            }
            self.running = None;
        }
    }
}

/// The state is boxed, because most requests have no body and requests are moved often.
pub(super) struct RequestBody(Option<Box<Forwarding>>);

struct Forwarding {
    inner: UnsyncBoxBody<Bytes, BoxError>,
    allowance: Option<u64>,
    idle: IdleTimer,
    progress: Progress,
    /// Frames that an earlier attempt has already sent. The next attempt sends these frames again, before any others.
    again: VecDeque<Bytes>,
    is_over: bool,
}

/// Counts the frames that the upstream has received or sent. `None` if the request has no body.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Option<Arc<MovedFrames>>);

#[derive(Debug, Default)]
struct MovedFrames {
    frames: AtomicU64,
    /// Whether the upstream waits for a frame from the client.
    awaits_client: AtomicBool,
}

impl Progress {
    pub(super) fn counted() -> Self {
        Self(Some(Arc::default()))
    }

    pub(super) fn advance(&self) {
        if let Some(counted) = &self.0 {
            counted.awaits_client.store(false, Ordering::Relaxed);
            counted.frames.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn await_client(&self) {
        if let Some(counted) = &self.0 {
            counted.awaits_client.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether the upstream waits for a frame from the client.
    pub(super) fn awaits_client(&self) -> bool {
        self.0.as_ref().is_some_and(|counted| counted.awaits_client.load(Ordering::Relaxed))
    }

    pub(super) fn count(&self) -> u64 {
        self.0.as_ref().map_or(0, |counted| counted.frames.load(Ordering::Relaxed))
    }
}

impl RequestBody {
    /// Rejects a body whose declared length exceeds `max`.
    pub(super) fn new<B>(body: B, max: Option<u64>, idle: Duration) -> Result<Self, BodyError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if max.is_some_and(|max| body.size_hint().lower() > max) {
            return Err(BodyError::TooLarge);
        }
        Ok(if body.is_end_stream() {
            Self::empty()
        } else {
            let (inner, progress) = (body.map_err(Into::into).boxed_unsync(), Progress::counted());
            let idle = IdleTimer::new(idle, progress.clone());
            let (again, is_over) = (VecDeque::new(), false);
            Self(Some(Box::new(Forwarding { inner, allowance: max, idle, progress, again, is_over })))
        })
    }

    pub(super) const fn empty() -> Self {
        Self(None)
    }

    pub(super) fn progress(&self) -> Progress {
        self.0.as_ref().map(|body| body.progress.clone()).unwrap_or_default()
    }
}

impl Forwarding {
    fn allow(&mut self, frame: &Frame<Bytes>) -> bool {
        let length = frame.data_ref().map_or(0, |data| data.len() as u64);
        match &mut self.allowance {
            None => true,
            Some(left) => left.checked_sub(length).map(|rest| *left = rest).is_some(),
        }
    }
}

impl RequestBody {
    /// Returns a body to send, and a handle that can recover the body until `most` bytes were sent.
    pub(super) fn lend(self, most: usize) -> (LentBody, BodyReturn) {
        let loan = (!self.is_end_stream()).then(|| {
            Arc::new(Mutex::new(Loan { body: Some(self), sent: VecDeque::new(), room: Some(most), is_over: false }))
        });
        (LentBody(loan.clone()), BodyReturn(loan))
    }
}

struct Loan {
    body: Option<RequestBody>,
    /// Sent frames that another attempt may need.
    sent: VecDeque<Bytes>,
    room: Option<usize>,
    is_over: bool,
}

/// A handle to recover the body for a retry. `None` stands for an empty body.
pub(super) struct BodyReturn(Option<Arc<Mutex<Loan>>>);

impl BodyReturn {
    /// Takes the body back, together with its sent frames. An attempt that still sends the body gets an error.
    pub(super) fn take(self) -> Option<RequestBody> {
        let Some(loan) = self.0 else { return Some(RequestBody::empty()) };
        let mut loan = loan.lock();
        loan.room?;
        let mut body = loan.body.take()?;
        if let Some(body) = &mut body.0 {
            (body.again, body.is_over) = (std::mem::take(&mut loan.sent), loan.is_over);
        }
        Some(body)
    }
}

pub(super) struct LentBody(Option<Arc<Mutex<Loan>>>);

impl LentBody {
    pub(super) const fn none() -> Self {
        Self(None)
    }
}

impl Body for LentBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(loan) = &self.0 else { return Poll::Ready(None) };
        let loan = &mut *loan.lock();
        let Some(body) = &mut loan.body else {
            return Poll::Ready(Some(Err(BodyError::Broken("the request is sent again".into()))));
        };
        let next = std::task::ready!(Pin::new(body).poll_frame(cx));
        let data = match &next {
            Some(Ok(frame)) => frame.data_ref(),
            Some(Err(_)) => None,
            None => {
                loan.is_over = true;
                return Poll::Ready(None);
            }
        };
        loan.room = loan.room.zip(data).and_then(|(room, data)| room.checked_sub(data.len()));
        match (data, loan.room) {
            (Some(data), Some(_)) => loan.sent.push_back(data.clone()),
            _ => loan.sent = VecDeque::new(),
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|loan| loan.lock().body.as_ref().is_some_and(Body::is_end_stream))
    }

    fn size_hint(&self) -> SizeHint {
        let empty = SizeHint::with_exact(0);
        self.0.as_ref().map_or(empty, |loan| loan.lock().body.as_ref().map_or_else(SizeHint::new, Body::size_hint))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(this) = self.0.as_deref_mut() else {
            return Poll::Ready(None);
        };
        if let Some(data) = this.again.pop_front() {
            this.progress.advance();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if this.is_over {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = Pin::new(&mut this.inner).poll_frame(cx) else {
            this.progress.await_client();
            return this.idle.poll(cx).map(|()| Some(Err(BodyError::Idle)));
        };
        this.idle.stop();
        this.progress.advance();
        Poll::Ready(match next {
            Some(Ok(frame)) if this.allow(&frame) => Some(Ok(frame)),
            Some(Ok(_)) => Some(Err(BodyError::TooLarge)),
            Some(Err(error)) if error.is::<TooSlow>() => Some(Err(BodyError::Idle)),
            Some(Err(error)) => Some(Err(BodyError::Broken(error))),
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.again.is_empty() && (body.is_over || body.inner.is_end_stream()))
    }

    fn size_hint(&self) -> SizeHint {
        let Some(body) = &self.0 else { return SizeHint::with_exact(0) };
        let mut hint = if body.is_over { SizeHint::with_exact(0) } else { body.inner.size_hint() };
        if !body.again.is_empty() {
            let again = body.again.iter().map(|data| data.len() as u64).sum::<u64>();
            hint = hint.exact().map_or_else(SizeHint::new, |rest| SizeHint::with_exact(rest + again));
        }
        hint
    }
}

/// A response body. The state is boxed, because a response is moved often.
#[derive(Debug)]
pub struct ProxyBody(Kind);

#[derive(Clone, Debug, Default)]
pub(super) struct ForwardInfo {
    /// The address that was tried last, unless the [`UpstreamBody`] contains it.
    pub(super) address: Option<Arc<Address>>,
    pub(super) attempts: u8,
    pub(super) took: Duration,
}

#[derive(Debug)]
enum Kind {
    Own { bytes: Option<Bytes>, sent: Option<Box<ForwardInfo>> },
    Upstream(Box<UpstreamBody>),
}

#[derive(Debug)]
struct UpstreamBody {
    body: Incoming,
    /// Whether the body has an explicit end, such as `END_STREAM`.
    knows_end: bool,
    idle: IdleTimer,
    sent: ForwardInfo,
    under_way: Option<(InFlightSlot, Option<ConnectionGuard>)>,
}

#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) progress: Progress,
    pub(super) in_flight: InFlightSlot,
    pub(super) in_use: Option<ConnectionGuard>,
}

impl ProxyBody {
    /// Creates a body from the proxy itself.
    pub fn full(text: impl Into<Bytes>) -> Self {
        let bytes = text.into();
        Self(Kind::Own { bytes: (!bytes.is_empty()).then_some(bytes), sent: None })
    }

    pub(super) fn upstream(
        (body, version): (Incoming, Version),
        idle: Duration,
        sent: ForwardInfo,
        exchange: Exchange,
    ) -> Self {
        let Exchange { progress, in_flight, in_use } = exchange;
        let (idle, under_way) = (IdleTimer::new(idle, progress), Some((in_flight, in_use)));
        let knows_end = version == Version::HTTP_2;
        Self(Kind::Upstream(Box::new(UpstreamBody { body, knows_end, idle, sent, under_way })))
    }

    pub(super) fn set_sent(&mut self, info: ForwardInfo) {
        match &mut self.0 {
            Kind::Own { sent, .. } => *sent = Some(Box::new(info)),
            Kind::Upstream(upstream) => upstream.sent = info,
        }
    }

    /// The address, the number of attempts, and the time until the response head arrived.
    pub fn sent(&self) -> (Option<&str>, u8, Duration) {
        let (address, sent) = match &self.0 {
            Kind::Own { sent: None, .. } => return (None, 0, Duration::ZERO),
            Kind::Own { sent: Some(sent), .. } => (sent.address.as_deref(), &**sent),
            Kind::Upstream(upstream) => {
                let under_way = upstream.under_way.as_ref().map(|(in_flight, _)| &*in_flight.address);
                (under_way.or(upstream.sent.address.as_deref()), &upstream.sent)
            }
        };
        (address.map(Address::name), sent.attempts, sent.took)
    }

    /// Returns the whole body if the proxy itself created it.
    pub fn own_bytes(&mut self) -> Option<&mut Bytes> {
        match &mut self.0 {
            Kind::Own { bytes, .. } => bytes.as_mut(),
            Kind::Upstream(_) => None,
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Own { bytes, .. } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Upstream(upstream) => {
                let UpstreamBody { body, knows_end, idle, under_way, .. } = &mut **upstream;
                let Poll::Ready(next) = Pin::new(&mut *body).poll_frame(cx) else {
                    return idle.poll(cx).map(|()| Some(Err(BodyError::Idle)));
                };
                idle.stop();
                idle.exchange.advance();
                if !matches!(next, Some(Ok(_))) {
                    *under_way = None;
                }
                if next.is_none() && *knows_end && !body.is_end_stream() {
                    // hyper accepts `RST_STREAM(NO_ERROR)` as the end of a body, but only `END_STREAM` marks the end
                    // (RFC 9113 §8.1).
                    return Poll::Ready(Some(Err(BodyError::Broken("the stream was reset before its end".into()))));
                }
                Poll::Ready(next.map(|frame| frame.map_err(|error| BodyError::Broken(error.into()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Own { bytes, .. } => bytes.is_none(),
            Kind::Upstream(upstream) => upstream.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Own { bytes, .. } => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Kind::Upstream(upstream) => upstream.body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_request_is_idle_only_when_the_response_does_not_move_either() {
        let silent = StreamBody::new(stream::pending::<Result<Frame<Bytes>, BoxError>>());
        let mut body = RequestBody::new(silent, None, Duration::from_secs(60)).unwrap();
        let response = body.progress();
        tokio::spawn(async move {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(40)).await;
                response.advance();
            }
        });
        let began = tokio::time::Instant::now();
        assert!(matches!(body.frame().await, Some(Err(BodyError::Idle))));
        assert!(began.elapsed() > Duration::from_secs(400), "{:?}", began.elapsed());
    }
}
