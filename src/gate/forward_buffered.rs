//! Whether a request whose body the gate has read can still go to the service behind it.

use std::future::Future;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tower::{Service, ServiceExt};

#[cfg(feature = "kuzzle")]
use super::socket::Dialer;
use crate::dialect::{ConsultResult, Dialect, Reply};
use crate::reply;

/// The longest reply that is read, in bytes.
const MAX_CONSULTED: usize = 1024 * 1024;
/// How long it may take to arrive.
const CONSULTED_WITHIN: Duration = Duration::from_secs(10);

/// See the module. The two there are: [`NoForward`] and [`BufferedForward`].
#[doc(hidden)]
pub trait ForwardBuffered<S, B>: sealed::Sealed + Clone + Send + Sync + 'static
where
    S: Service<Request<B>>,
{
    /// What is kept of the service until the body was read.
    type Kept: Send + 'static;

    /// Keeps it.
    fn keep(service: &S) -> Self::Kept;

    /// Calls the service.
    ///
    /// # Errors
    /// Where it cannot be called.
    fn forward(
        kept: Self::Kept,
        parts: Parts,
        body: Bytes,
    ) -> impl Future<Output = Result<S::Future, NotForwarded>> + Send;

    /// Calls the service without a body, and reads what it says.
    #[doc(hidden)]
    fn consult(kept: Self::Kept, parts: Parts) -> impl Future<Output = ConsultResult> + Send;

    /// What calls the service as often as it likes, with requests of its own.
    #[cfg(feature = "kuzzle")]
    #[doc(hidden)]
    fn dialer(kept: Self::Kept) -> Option<Dialer>;
}

/// Why a call was not forwarded. For the developer of the service behind the gate.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{why}")]
#[doc(hidden)]
pub struct NotForwarded {
    status: StatusCode,
    why: &'static str,
}

impl NotForwarded {
    const NOT_FORWARD_BUFFERED: Self = Self {
        status: StatusCode::NOT_IMPLEMENTED,
        why: "the layer in front of this service passes on no call that came wrapped up; make it with \
              `gate.layer().forward_buffered()`",
    };
    const NEVER_READY: Self = Self {
        status: StatusCode::SERVICE_UNAVAILABLE,
        why: "the service behind the gate is not ready, and never will be",
    };
    #[cfg(feature = "kuzzle")]
    pub(super) const NO_CONNECTION: Self = Self {
        status: StatusCode::NOT_IMPLEMENTED,
        why: "the connection cannot be taken over: make the layer with `gate.layer().forward_buffered()`, in a server of hyper's",
    };

    /// Says so, in the log and in the words of the endpoint's dialect.
    pub(super) fn reply(self, dialect: Option<&dyn Dialect>) -> Reply {
        let Self { status, why } = self;
        tracing::error!(status = status.as_u16(), "{why}");
        let worded = dialect.and_then(|dialect| dialect.failed(status, why));
        worded.unwrap_or_else(|| reply::problem(status, Some(why)))
    }
}

/// It cannot.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct NoForward;

/// It can: the service is cloned, and its body made from bytes. See [`super::GateLayer::forward_buffered`].
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
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
        // The lock is for a service that cannot be shared, only cloned.
        let kept = std::sync::Mutex::new(kept);
        Some(std::sync::Arc::new(move |parts| {
            let service = kept.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
            Box::pin(async move {
                let response = Self::forward(service, parts, Bytes::new()).await.ok()?.await.ok()?;
                Some(response.map(drop))
            })
        }))
    }
}

/// Reads a whole body, if it is not too long.
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

mod sealed {
    /// The two there are, and no others.
    pub trait Sealed {}
    impl Sealed for super::NoForward {}
    impl Sealed for super::BufferedForward {}
}
