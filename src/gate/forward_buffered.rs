//! Forwards a request to the service after the gate has read its body.

use std::future::Future;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

use crate::dialect::{ConsultResult, Dialect, Reply};
use rotogate_core::bounds::MAX_CONSULTED;
use rotogate_core::reply;

/// Opens a WebSocket to the service.
#[cfg(feature = "kuzzle")]
pub(super) type Dialer =
    std::sync::Arc<dyn Fn(Parts) -> std::pin::Pin<Box<dyn Future<Output = Option<Response<()>>> + Send>> + Send + Sync>;

/// The time limit for the reply of a service that the gate consults.
const CONSULTED_WITHIN: Duration = Duration::from_secs(10);

/// Forwards a request whose body the gate has already read ([`BufferedForward`]), or refuses to forward it
/// ([`NoForward`]).
pub trait ForwardBuffered<S, B>: Clone + Send + Sync + 'static
where
    S: Service<Request<B>>,
{
    /// A clone of the service, or `()` if requests are not forwarded.
    type Kept: Send + 'static;

    /// Clones the service before the gate reads the body.
    fn keep(service: &S) -> Self::Kept;

    /// Calls the service.
    ///
    /// # Errors
    /// The service cannot be called.
    fn forward(
        kept: Self::Kept,
        parts: Parts,
        body: Bytes,
    ) -> impl Future<Output = Result<S::Future, NotForwarded>> + Send;

    /// Calls the service without a request body, and reads its reply.
    fn consult(kept: Self::Kept, parts: Parts) -> impl Future<Output = ConsultResult> + Send;

    /// Returns a function that can call the service repeatedly.
    #[cfg(feature = "kuzzle")]
    fn dialer(kept: Self::Kept) -> Option<Dialer>;
}

/// The gate is set up incorrectly, so a call was not forwarded.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotForwarded {
    status: StatusCode,
    why: &'static str,
}

impl NotForwarded {
    const NOT_FORWARD_BUFFERED: Self = Self {
        status: StatusCode::NOT_IMPLEMENTED,
        why: "wrapped call not forwarded: the layer in front of this service does not forward buffered bodies; make it \
              with `gate.layer().forward_buffered()`",
    };
    const NEVER_READY: Self = Self {
        status: StatusCode::SERVICE_UNAVAILABLE,
        why: "request not forwarded: the service behind the gate failed in `poll_ready`",
    };
    #[cfg(feature = "kuzzle")]
    pub(super) const NO_CONNECTION: Self = Self {
        status: StatusCode::NOT_IMPLEMENTED,
        why: "WebSocket not served: make the layer with `gate.layer().forward_buffered()`, in a hyper server",
    };

    pub(super) fn reply(self, dialect: Option<&dyn Dialect>) -> Reply {
        let Self { status, why } = self;
        tracing::error!(status = status.as_u16(), "{why}");
        let worded = dialect.and_then(<dyn Dialect>::protocol).and_then(|protocol| protocol.failed(status, why));
        worded.unwrap_or_else(|| reply::problem(status, Some(why)))
    }
}

/// The default: a request whose body the gate has read is not forwarded.
#[derive(Clone, Copy, Debug)]
pub struct NoForward;

/// Forwards a request whose body the gate has read. The layer clones the service, and makes a new body. See
/// [`super::GateLayer::forward_buffered`].
///
/// ```
/// use rotogate::gate::{BufferedForward, GateLayer};
///
/// /// For an endpoint with the dialect `kuzzle`, which also receives calls for the service.
/// fn layer(gate: &rotogate::Gate) -> GateLayer<BufferedForward> {
///     gate.layer().forward_buffered()
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct BufferedForward;

impl<S, B> ForwardBuffered<S, B> for NoForward
where
    S: Service<Request<B>>,
{
    type Kept = ();

    fn keep(_: &S) {}

    async fn forward((): (), _: Parts, _: Bytes) -> Result<S::Future, NotForwarded> {
        Err(NotForwarded::NOT_FORWARD_BUFFERED)
    }

    async fn consult((): (), _: Parts) -> ConsultResult {
        ConsultResult::NoService
    }

    #[cfg(feature = "kuzzle")]
    fn dialer((): ()) -> Option<Dialer> {
        None
    }
}

impl<S, B, R> ForwardBuffered<S, B> for BufferedForward
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: From<Bytes> + Send + 'static,
    R: Body + Send,
{
    type Kept = S;

    fn keep(service: &S) -> S {
        service.clone()
    }

    async fn forward(mut kept: S, parts: Parts, body: Bytes) -> Result<S::Future, NotForwarded> {
        if kept.ready().await.is_err() {
            return Err(NotForwarded::NEVER_READY);
        }
        Ok(kept.call(Request::from_parts(parts, B::from(body))))
    }

    async fn consult(kept: S, parts: Parts) -> ConsultResult {
        let said = async {
            let response = Self::forward(kept, parts, Bytes::new()).await.ok()?.await.ok()?;
            let (head, body) = response.into_parts();
            Some(ConsultResult::Said(head.status, read(body).await?))
        };
        tokio::time::timeout(CONSULTED_WITHIN, said).await.ok().flatten().unwrap_or(ConsultResult::Failed)
    }

    #[cfg(feature = "kuzzle")]
    fn dialer(kept: S) -> Option<Dialer> {
        // The lock supports services that are not `Sync`.
        let kept = parking_lot::Mutex::new(kept);
        Some(std::sync::Arc::new(move |parts| {
            let service = kept.lock().clone();
            Box::pin(async move {
                let response = Self::forward(service, parts, Bytes::new()).await.ok()?.await.ok()?;
                Some(response.map(drop))
            })
        }))
    }
}

/// Fails if the body exceeds [`MAX_CONSULTED`] bytes.
async fn read<R: Body>(body: R) -> Option<Bytes> {
    let mut body = std::pin::pin!(body);
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.ok()?.into_data() {
            if data.remaining() > MAX_CONSULTED - all.len() {
                return None;
            }
            all.put(data);
        }
    }
    Some(all.freeze())
}
