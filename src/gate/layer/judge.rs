//! The gate for a server that is not a tower service. The server calls [`Gate::judge`] with each request head.

use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::UPGRADE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{Empty, Full};
use tower::{Layer, Service, ServiceExt};

use super::admit::{Admission, EndpointMatch};
use super::{GateBody, GateLayer, LayerOptions};
use crate::gate::endpoint::Hit;
use crate::gate::identity::Identity;
use crate::gate::in_flight::InFlightSlot;
use crate::gate::reply_guard::ReplyGuard;
use crate::gate::{Gate, RequireLayer, upgrade};
use rotogate_core::policy::Permitted;
use rotogate_core::route::path::CanonicalPath;

/// The decision of [`Gate::judge`].
///
/// ```
/// use rotogate::Gate;
/// use rotogate::gate::Judgement;
///
/// /// In the middleware of any server.
/// async fn subject(gate: &Gate, head: &http::request::Parts) -> Result<Option<String>, http::StatusCode> {
///     match gate.judge(head).await {
///         Judgement::Permitted(permitted) => Ok(permitted.identity().map(|caller| caller.subject().to_owned())),
///         Judgement::Refused(reply) => Err(reply.status()),
///         // Pass the whole request to `gate.answer(…)`.
///         _ => Err(http::StatusCode::NOT_IMPLEMENTED),
///     }
/// }
/// # let _ = subject;
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Judgement {
    /// Serve the request, with the head of [`PermittedRequest`].
    Permitted(Box<PermittedRequest>),
    /// Send this reply, and do not serve the request.
    Refused(Response<Bytes>),
    /// The path is one of the gate's own endpoints: pass the request to [`Gate::answer`].
    Endpoint,
}

/// A request that the gate permits. Keep this value until the reply is complete, because the request counts as
/// concurrent until then.
///
/// ```
/// use http::HeaderMap;
/// use rotogate::gate::PermittedRequest;
///
/// /// The request headers that the handler may see.
/// fn apply(permitted: &PermittedRequest, headers: &mut HeaderMap) {
///     permitted.remove().iter().for_each(|name| drop(headers.remove(name)));
///     permitted.set().keys().for_each(|name| drop(headers.remove(name)));
///     permitted.set().iter().for_each(|(name, value)| drop(headers.append(name.clone(), value.clone())));
/// }
/// # let _ = apply;
/// ```
#[derive(Debug)]
pub struct PermittedRequest {
    head: Parts,
    remove: Vec<HeaderName>,
    set: HeaderMap,
    reply: HeaderMap,
    guard: Option<Box<ReplyGuard>>,
    _counted: Option<InFlightSlot>,
}

impl PermittedRequest {
    /// The caller. `None` if the request has no token and its route does not require one.
    pub fn identity(&self) -> Option<Identity> {
        Identity::from_extensions(&self.head.extensions)
    }

    /// The request head for the service, with the gate's own headers. The head contains the token only if the route
    /// forwards the token. A [`require`](Gate::require) does not verify the token again.
    pub const fn head(&self) -> &Parts {
        &self.head
    }

    /// The headers to remove from the request, before you apply [`set`](Self::set).
    pub fn remove(&self) -> &[HeaderName] {
        &self.remove
    }

    /// The headers to set in the request, in place of headers with the same name.
    pub const fn set(&self) -> &HeaderMap {
        &self.set
    }

    /// The headers to add to the reply.
    pub const fn reply_headers(&self) -> &HeaderMap {
        &self.reply
    }

    /// Waits until the server must end a stream or WebSocket, and returns the reason: the token has expired or
    /// was revoked, or the gate closes its connections. The token is checked every second. Without a caller, the method
    /// never returns. It needs a tokio runtime with a timer.
    pub async fn ended(&mut self) -> &'static str {
        poll_fn(|cx| match &mut self.guard {
            Some(guard) => match guard.poll_expired(cx, true) {
                Some(_) => Poll::Ready(guard.cut().unwrap_or("ended")),
                None => Poll::Pending,
            },
            None => Poll::Pending,
        })
        .await
    }
}

#[derive(Debug)]
struct PreparedHead(Box<Parts>);

/// This body is never read. Because its length is unknown, the layer treats it as a long response.
impl Body for PreparedHead {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

#[derive(Clone, Copy, Debug)]
struct KeepHead;

impl Service<Request<Empty<Bytes>>> for KeepHead {
    type Response = Response<PreparedHead>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Empty<Bytes>>) -> Self::Future {
        ready(Ok(Response::new(PreparedHead(Box::new(request.into_parts().0)))))
    }
}

async fn judged_by<L>(layer: &L, given: &Parts) -> Judgement
where
    L: Layer<KeepHead>,
    L::Service: Service<Request<Empty<Bytes>>, Response = Response<GateBody<PreparedHead>>, Error = Infallible>,
{
    let request = Request::from_parts(given.clone(), Empty::new());
    let response = match layer.layer(KeepHead).oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    let (said, mut body) = response.into_parts();
    let own = body.own_bytes(|_| None).map(std::mem::take).unwrap_or_default();
    let Some((PreparedHead(head), guard, counted)) = body.into_inner() else {
        return Judgement::Refused(Response::from_parts(said, own));
    };
    let mut head = *head;
    let may_upgrade = |head: &Parts| head.extensions.get::<Permitted>().is_some_and(|it| it.route().policy.upgrade);
    if head.headers.contains_key(UPGRADE) && !may_upgrade(&head) {
        upgrade::refuse(&mut head);
    }
    let remove = given.headers.keys().filter(|name| !head.headers.contains_key(*name)).cloned().collect();
    let is_changed = |name: &&HeaderName| !given.headers.get_all(*name).iter().eq(head.headers.get_all(*name));
    let changed = head.headers.keys().filter(is_changed);
    let set = changed.flat_map(|name| head.headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
    let set = set.fold(HeaderMap::new(), |mut set, (name, value)| {
        set.append(name, value);
        set
    });
    let reply = said.headers;
    Judgement::Permitted(Box::new(PermittedRequest { remove, set, head, reply, guard, _counted: counted }))
}

impl Gate {
    /// Like [`Gate::layer`], for a server that is not a tower service: decides on a request by its head. The head must
    /// have the whole path and `Host` (or an authority, over HTTP/2). For limits by address, the head's extensions must
    /// contain the [`Peer`](crate::gate::Peer). The gate does not see the body, so it does not read tokens in bodies.
    /// It refuses calls of the Model Context Protocol with [`CallFlaw::NoBody`](crate::denial::CallFlaw::NoBody),
    /// unless [`Mcp::headers_alone`](crate::route::Mcp::headers_alone) is set.
    ///
    /// Also await [`PermittedRequest::ended`] for a WebSocket or stream, because it must end with its caller's session.
    ///
    /// ```
    /// use rotogate::gate::Judgement;
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
    /// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
    /// # let gate = gate.client(Client::public("web")).build().await?;
    /// let (head, _) = http::Request::get("/orders").header("host", "api.example.com").body(())?.into_parts();
    /// match gate.judge(&head).await {
    ///     Judgement::Refused(reply) => assert_eq!(reply.status(), 401, "it has no token"),
    ///     other => panic!("{other:?}"),
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub async fn judge(&self, head: &Parts) -> Judgement {
        // A server that is not a tower service performs upgrades itself.
        let layer = GateLayer {
            options: LayerOptions { edge: true, head_alone: true, ..LayerOptions::default() },
            ..GateLayer::new(self.clone())
        };
        if layer.is_for_endpoint(head) { Judgement::Endpoint } else { judged_by(&layer, head).await }
    }

    /// Responds to a request for an endpoint of the gate. Any other request gets 404.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<GateBody<Full<Bytes>>>
    where
        B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        let nothing = tower::service_fn(async |_: Request<B>| {
            let mut reply = Response::new(Full::default());
            *reply.status_mut() = StatusCode::NOT_FOUND;
            Ok::<_, Infallible>(reply)
        });
        match self.layer().layer(nothing).oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

impl<M> GateLayer<M> {
    fn is_for_endpoint(&self, head: &Parts) -> bool {
        let raw = head.uri.path();
        let hit =
            CanonicalPath::parse(raw).ok().and_then(|path| self.at_endpoint(head, &path, raw, EndpointMatch::Serve));
        matches!(hit, Some(Admission::Endpoint(hit)) if !matches!(hit, Hit::NearMiss(_)))
    }
}

impl RequireLayer {
    /// Decides on a request by its head, like [`Gate::judge`]. A head from a [`PermittedRequest`] must meet only the
    /// conditions of this `require()`. If you call both methods, keep both [`PermittedRequest`]s until the reply is
    /// complete.
    ///
    /// ```
    /// use rotogate::Gate;
    /// use rotogate::gate::{Judgement, PermittedRequest};
    ///
    /// async fn is_admin(gate: &Gate, permitted: &PermittedRequest) -> bool {
    ///     matches!(gate.require().role("admin").judge(permitted.head()).await, Judgement::Permitted(_))
    /// }
    /// # let _ = is_admin;
    /// ```
    pub async fn judge(&self, head: &Parts) -> Judgement {
        judged_by(self, head).await
    }
}
