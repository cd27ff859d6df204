//! The reply to come, from the service, an endpoint or the gate itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::Verdict;
use crate::dialect::Reply;
use crate::gate::body::GateBody;
use crate::gate::respond;
use crate::gate::watched::Caller;

/// What a request to an endpoint turned into.
pub(super) enum Turned<F> {
    /// A reply.
    Reply(Box<(Reply, Option<Verdict>)>),
    /// A request that the service answers.
    In { future: F, verdict: Option<Verdict> },
}

impl<F> Turned<F> {
    pub(super) fn reply(reply: Reply, verdict: Option<Verdict>) -> Self {
        Self::Reply(Box::new((reply, verdict)))
    }
}

pin_project! {
    /// The reply to come.
    pub struct ResponseFuture<F> {
        #[pin]
        pub(super) kind: Kind<F>,
    }
}

pin_project! {
    #[project = KindProjection]
    pub(super) enum Kind<F> {
        Inner { #[pin] future: F, verdict: Option<Verdict>, caller: Option<Caller> },
        Endpoint { answer: Pin<Box<dyn Future<Output = Turned<F>> + Send>> },
        Own { reply: Option<(Reply, Option<Verdict>)> },
    }
}

impl<F> std::fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

impl<F> ResponseFuture<F> {
    pub(in crate::gate) fn own(reply: Reply, verdict: Option<Verdict>) -> Self {
        Self { kind: Kind::Own { reply: Some((reply, verdict)) } }
    }

    pub(in crate::gate) fn inner(future: F) -> Self {
        Self { kind: Kind::Inner { future, verdict: None, caller: None } }
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
    R: Body,
{
    type Output = Result<Response<GateBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut kind = self.project().kind;
        if let KindProjection::Endpoint { answer } = kind.as_mut().project() {
            let next = match ready!(answer.as_mut().poll(cx)) {
                Turned::Reply(reply) => Kind::Own { reply: Some(*reply) },
                Turned::In { future, verdict } => Kind::Inner { future, verdict, caller: None },
            };
            kind.set(next);
        }
        let (mut response, verdict) = match kind.project() {
            KindProjection::Inner { future, verdict, caller } => {
                let response = ready!(future.poll(cx))?;
                let is_grpc = respond::is_grpc(response.headers());
                let watch = caller.take().and_then(|caller| caller.watch(&response.body().size_hint(), is_grpc));
                (response.map(|body| GateBody::inner(body, watch)), verdict.take())
            }
            // It has just turned into one of the others.
            KindProjection::Endpoint { .. } => return Poll::Pending,
            // Polled again after it was ready: forbidden to callers, and no reason to panic.
            KindProjection::Own { reply } => match reply.take() {
                Some((reply, verdict)) => (reply.map(GateBody::own), verdict),
                None => return Poll::Pending,
            },
        };
        if let Some(verdict) = verdict {
            response.extensions_mut().insert(verdict);
        }
        Poll::Ready(Ok(response))
    }
}
