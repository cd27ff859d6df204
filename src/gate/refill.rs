//! Whether a request whose body the gate has read can still go to the service behind it.

use std::future::Future;

use bytes::Bytes;
use http::request::Parts;
use http::{Request, StatusCode};
use tower::{Service, ServiceExt};

use super::respond;
use crate::dialect::Reply;

/// See the module. The two there are: [`NoRefill`] and [`Refilling`].
pub trait Refill<S, B>: sealed::Sealed + Clone + Send + Sync + 'static
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
    /// A reply, where it cannot be called.
    fn forward(kept: Self::Kept, parts: Parts, body: Bytes) -> impl Future<Output = Result<S::Future, Reply>> + Send;
}

/// It cannot.
#[derive(Clone, Copy, Debug)]
pub struct NoRefill;

/// It can: the service is cloned, and its body made from bytes. See [`super::GateLayer::refilling`].
#[derive(Clone, Copy, Debug)]
pub struct Refilling;

impl<S, B> Refill<S, B> for NoRefill
where
    S: Service<Request<B>>,
{
    type Kept = ();

    fn keep(_: &S) {}

    async fn forward((): (), _: Parts, _: Bytes) -> Result<S::Future, Reply> {
        tracing::error!("a call that an endpoint passes on was refused: the layer is not `refilling()`");
        Err(respond::problem(StatusCode::NOT_IMPLEMENTED, None))
    }
}

impl<S, B> Refill<S, B> for Refilling
where
    S: Service<Request<B>> + Clone + Send + 'static,
    B: From<Bytes> + Send + 'static,
{
    type Kept = S;

    fn keep(service: &S) -> S {
        service.clone()
    }

    async fn forward(mut kept: S, parts: Parts, body: Bytes) -> Result<S::Future, Reply> {
        if kept.ready().await.is_err() {
            tracing::error!("a call was not passed on: the service behind the gate is not ready, and never will be");
            return Err(respond::problem(StatusCode::SERVICE_UNAVAILABLE, None));
        }
        Ok(kept.call(Request::from_parts(parts, B::from(body))))
    }
}

mod sealed {
    /// The two there are, and no others.
    pub trait Sealed {}
    impl Sealed for super::NoRefill {}
    impl Sealed for super::Refilling {}
}
