//! The gate for a server that is not a tower service. The server calls [`Gate::judge`] with the head of each request.
//! Internally, the layer performs steps 1 to 8 around a service that only keeps the prepared request.

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

/// The decision of [`Gate::judge`] on a request.
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

/// A request that the gate permits. It counts as a concurrent request of its caller until it is dropped, so keep it
/// until the reply is complete.
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
    /// The caller. `None` for a request without a token on a route that does not require one.
    pub fn identity(&self) -> Option<Identity> {
        Identity::from_extensions(&self.head.extensions)
    }

    /// The head of the request for the service. It contains the gate's own headers, but no headers that imitate them.
    /// It contains the token only if the route forwards the token. A token in the query is also removed from the URI. A
    /// [`require`](Gate::require) judges this head without verifying the token again.
    pub const fn head(&self) -> &Parts {
        &self.head
    }

    /// The headers to remove from the request before you set the headers of [`set`](Self::set).
    pub fn remove(&self) -> &[HeaderName] {
        &self.remove
    }

    /// The headers to set in the request. They replace headers with the same name.
    pub const fn set(&self) -> &HeaderMap {
        &self.set
    }

    /// The headers to add to the reply.
    pub const fn reply_headers(&self) -> &HeaderMap {
        &self.reply
    }

    /// Waits until the token has expired or was revoked, or the gate closes its connections, and returns the reason.
    /// The server must then end a stream or a WebSocket. The token is checked every second. Without a caller, the
    /// method waits forever. It needs a tokio runtime with a timer.
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

/// The head of the request that the layer has prepared.
#[derive(Debug)]
struct PreparedHead(Box<Parts>);

/// A body that is never read. Its length is unknown, so the layer treats it as a long reply that ends with the caller's
/// session.
impl Body for PreparedHead {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }
}

/// The service behind the layer, which replies with the request head that it received.
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
    /// Judges a request by its head, with the routes of [`Gate::layer`]. This is meant for a server that is not a tower
    /// service. The head must have the whole path, `Host` (or an authority, over HTTP/2), and the
    /// [`Peer`](crate::gate::Peer) in its extensions, because limits by address need it. The body is not available, so
    /// tokens in bodies are never read, and a Model Context Protocol call is refused with
    /// [`CallFlaw::NoBody`](crate::denial::CallFlaw::NoBody), unless
    /// [`Mcp::headers_alone`](crate::route::Mcp::headers_alone) is set.
    ///
    /// A WebSocket or a stream of the service must end with its caller's session, so also await
    /// [`PermittedRequest::ended`].
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

    /// Responds to a request for one of the gate's own endpoints: refresh, revocation, keys, metadata. Any other
    /// request gets 404.
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
    /// Returns whether an endpoint responds to the request.
    fn is_for_endpoint(&self, head: &Parts) -> bool {
        let raw = head.uri.path();
        let hit =
            CanonicalPath::parse(raw).ok().and_then(|path| self.at_endpoint(head, &path, raw, EndpointMatch::Serve));
        matches!(hit, Some(Admission::Endpoint(hit)) if !matches!(hit, Hit::NearMiss(_)))
    }
}

impl RequireLayer {
    /// Judges a request by its head, like [`Gate::judge`]. If the head comes from a [`PermittedRequest`], only the
    /// conditions of this `require()` are judged. In this case, keep both permits until the reply is complete.
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
