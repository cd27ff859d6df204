//! The reverse proxy: takes a request that the gate let through to an upstream and brings back the answer. Bodies are
//! streamed both ways and never gathered; whoever is slow slows the other side down.
//!
//! What it expects: a request whose path is canonical (another is refused here again), with a [`Peer`] in its
//! extensions, from which [`crate::headers::ProtectedNames::strip_untrusted`] took what a client must not set.
//!
//! **Connections** are kept and used again, only once request and response were taken in full. **What is sent twice**:
//! a request of which nothing was written, because the kept connection turned out to be closed, goes out again on
//! another, whatever it is. One that was written when the connection was lost, before any of the response came, goes
//! out again once if it may be repeated: its method is idempotent (RFC 9110 §9.2.2) and it has no body. Everything else
//! is a 502.
//!
//! **Timeouts**: for a connection; for the response head; and for the next frame of either body. The head's time begins
//! anew as long as the upstream takes the request body, a body's as long as the other moves. A stream that keeps moving
//! has no end.
//!
//! **HTTP/2**: an `h2c://` upstream gets each request as a stream of one connection; bodies flow both ways at once, and
//! trailers pass. A failure on the way to a client that speaks gRPC is a gRPC status.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use ipnet::IpNet;

use self::body::{Progress, RequestBody};
use self::upgrade::Wanted;
use self::upstream::Pool;
use crate::gate::respond;
use crate::headers::{self, Peer};
use crate::policy::Permitted;
use crate::route::RoutePolicy;
use crate::route::path::CanonicalPath;

mod body;
mod echo;
mod error;
mod upgrade;
mod upstream;

pub use body::{BodyError, BoxError, ProxyBody};
pub use error::ProxyError;
#[cfg(feature = "kuzzle")]
pub(crate) use upgrade::Dialled;
pub(crate) use upgrade::Seat;
pub use upstream::{BadUpstreamUrl, HttpUrl, Upstream, UpstreamUrl};

/// How often an HTTP/2 connection in use is asked whether it is alive, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// Bounds and trust, for all upstreams.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For a connection to one address. Default 5 s; the name look-up before it falls under `head_timeout`.
    pub connect_timeout: Duration,
    /// From the last progress of the request to the response head. Default 60 s; with a request body the refusal may
    /// take up to twice as long.
    pub head_timeout: Duration,
    /// For the next frame of a body, while the other direction stands still as well. Default 60 s.
    pub idle_timeout: Duration,
    /// How long an unused connection is kept. Default 30 s.
    pub pool_idle: Duration,
    /// How many unused connections are kept for one address. Default 1024.
    pub pool_size: usize,
    /// Whose forwarding headers count. Default: nobody's.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            pool_idle: Duration::from_secs(30),
            pool_size: 1024,
            trusted_proxies: Vec::new(),
        }
    }
}

/// See the module. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    client: Client<HttpConnector, RequestBody>,
    /// The same for upstreams that are spoken to in HTTP/2: one connection for each, shared by all requests.
    h2c: Client<HttpConnector, RequestBody>,
    pools: Vec<Pool>,
    settings: Settings,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("pools", &self.0.pools)
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy to these upstreams; their places in the list are what routes name.
    pub fn new(upstreams: Vec<Upstream>, settings: Settings) -> Self {
        Self::with_connector(upstreams, settings, HttpConnector::new())
    }

    fn with_connector(upstreams: Vec<Upstream>, settings: Settings, mut connector: HttpConnector) -> Self {
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(settings.connect_timeout));
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(settings.pool_idle)
            .pool_max_idle_per_host(settings.pool_size)
            .retry_canceled_requests(true)
            .set_host(false);
        let client = builder.build(connector.clone());
        let h2c = builder
            .http2_only(true)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        let pools = upstreams.into_iter().map(Pool::new).collect();
        Self(Arc::new(Inner { client, h2c, pools, settings }))
    }

    /// The place of the upstream of that name.
    pub fn upstream(&self, name: &str) -> Option<usize> {
        self.0.pools.iter().position(|pool| pool.upstream.name == name)
    }

    /// Sends a request to an upstream. Every failure is a response too, with its [`ProxyError`] in the extensions.
    ///
    /// Dropping the future, or the body of the response before its end, closes the connection to the upstream.
    fn forward<B>(
        &self,
        upstream: usize,
        policy: &RoutePolicy,
        request: Request<B>,
        upgrade: Option<Wanted>,
    ) -> impl Future<Output = Response<ProxyBody>> + Send + 'static + use<B>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let inner = Arc::clone(&self.0);
        let (parts, body) = request.into_parts();
        let is_grpc = respond::is_grpc(&parts.headers);
        let dialect = policy.dialect.clone();
        let body = RequestBody::new(body, policy.max_body, inner.idle_timeout(inner.pools.get(upstream)));
        async move {
            let sent = match body {
                Ok(body) => inner.send(upstream, parts, body, upgrade).await,
                Err(_) => Err(ProxyError::TooLarge),
            };
            sent.unwrap_or_else(|error| match &dialect {
                _ if is_grpc => error.grpc_response(),
                Some(dialect) => error.response_in(dialect),
                None => error.response(),
            })
        }
    }
}

impl Inner {
    async fn send(
        &self,
        upstream: usize,
        parts: Parts,
        body: RequestBody,
        upgrade: Option<Wanted>,
    ) -> Result<Response<ProxyBody>, ProxyError> {
        let Some(pool) = self.pools.get(upstream) else {
            tracing::error!(upstream, "a route names an upstream that is not there");
            return Err(ProxyError::Miswired);
        };
        let url = pool.pick().ok_or(ProxyError::Miswired)?;
        let mut parts = self.prepare(pool, url, parts, &body)?;
        if let Some(upgrade) = &upgrade {
            upgrade.ask(&mut parts.headers);
        }
        match url {
            UpstreamUrl::Echo => echo::answer(&parts, body).await.map_err(|error| match error {
                BodyError::TooLarge => ProxyError::TooLarge,
                BodyError::Idle => ProxyError::ClientIdle,
                BodyError::Broken(_) => ProxyError::ClientBroken,
            }),
            UpstreamUrl::Http(_) => self.exchange(pool, &self.client, parts, body, upgrade).await,
            UpstreamUrl::H2c(_) => self.exchange(pool, &self.h2c, parts, body, None).await,
        }
    }

    /// The head as the upstream is to see it.
    fn prepare(&self, pool: &Pool, url: &UpstreamUrl, parts: Parts, body: &RequestBody) -> Result<Parts, ProxyError> {
        if parts.method == Method::CONNECT {
            return Err(ProxyError::Tunnel);
        }
        let target = parts.uri.path_and_query().ok_or(ProxyError::NotCanonical)?;
        if CanonicalPath::parse(target.path()).map_or(true, |path| path.is_rewritten()) {
            return Err(ProxyError::NotCanonical);
        }
        let Some(peer) = parts.extensions.get::<Peer>().copied() else {
            tracing::error!("a request came without the address of its peer");
            return Err(ProxyError::Miswired);
        };
        let uri = match url {
            UpstreamUrl::Echo => http::Uri::from(target.clone()),
            UpstreamUrl::Http(url) | UpstreamUrl::H2c(url) => url.uri(target).ok_or(ProxyError::NotCanonical)?,
        };
        let mut headers = parts.headers;
        headers::remove_hop_by_hop(&mut headers);
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        let authority = || parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        let host = headers.get(HOST).cloned().or_else(authority);
        headers::forwarded(&mut headers, peer, host.as_ref(), &self.settings.trusted_proxies);
        match (url, host) {
            (UpstreamUrl::Http(url), host) => {
                let kept = host.filter(|_| pool.upstream.preserve_host);
                headers.insert(HOST, kept.unwrap_or_else(|| url.host().clone()));
            }
            (UpstreamUrl::Echo, Some(host)) => drop(headers.insert(HOST, host)),
            (UpstreamUrl::Echo, None) => {}
            // `:authority` says it, from the address (RFC 9113 §8.3.1).
            (UpstreamUrl::H2c(_), _) => drop(headers.remove(HOST)),
        }
        // Whatever the client speaks: a kept connection takes no request that is marked otherwise.
        let version = if matches!(url, UpstreamUrl::H2c(_)) { Version::HTTP_2 } else { Version::HTTP_11 };
        frame(&mut headers, body, version);
        let (mut out, ()) = Request::new(()).into_parts();
        out.method = parts.method;
        out.uri = uri;
        out.headers = headers;
        out.version = version;
        Ok(out)
    }

    async fn exchange(
        &self,
        pool: &Pool,
        client: &Client<HttpConnector, RequestBody>,
        parts: Parts,
        body: RequestBody,
        upgrade: Option<Wanted>,
    ) -> Result<Response<ProxyBody>, ProxyError> {
        let name = pool.upstream.name.as_str();
        let address = parts.uri.authority().cloned();
        let progress = body.progress();
        let repeat = (body.is_end_stream() && parts.method.is_idempotent()).then(|| parts.clone());
        let attempts = async {
            let first = client.request(Request::from_parts(parts, body)).await;
            match (first, repeat) {
                (Err(error), Some(parts)) if error::was_lost(&error) => {
                    tracing::debug!(upstream = name, error = error::describe(&error), "connection lost: sent again");
                    client.request(Request::from_parts(parts, RequestBody::empty())).await
                }
                (outcome, _) => outcome,
            }
        };
        match within(pool.upstream.head_timeout.unwrap_or(self.settings.head_timeout), &progress, attempts).await {
            Some(Ok(response)) => match upgrade {
                Some(upgrade) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    upgrade.switch(response).ok_or(ProxyError::UpstreamBroken)
                }
                _ => self.take(pool, response, progress),
            },
            Some(Err(error)) => {
                let kind = ProxyError::of_client(&error);
                tracing::warn!(
                    upstream = name,
                    address = address.as_ref().map(tracing::field::display),
                    reason = kind.reason(),
                    error = error::describe(&error),
                    "not forwarded"
                );
                Err(kind)
            }
            None => {
                tracing::warn!(
                    upstream = name,
                    address = address.as_ref().map(tracing::field::display),
                    reason = ProxyError::HeadTimeout.reason(),
                    "not forwarded"
                );
                Err(ProxyError::HeadTimeout)
            }
        }
    }

    fn idle_timeout(&self, pool: Option<&Pool>) -> Duration {
        pool.and_then(|pool| pool.upstream.idle_timeout).unwrap_or(self.settings.idle_timeout)
    }

    fn take(
        &self,
        pool: &Pool,
        response: Response<hyper::body::Incoming>,
        exchange: Progress,
    ) -> Result<Response<ProxyBody>, ProxyError> {
        let (mut parts, body) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            tracing::warn!(upstream = pool.upstream.name, "it switched protocols without being asked");
            return Err(ProxyError::UpstreamBroken);
        }
        // A length beside a transfer coding is not the length of anything (RFC 9112 §6.3).
        if parts.headers.contains_key(TRANSFER_ENCODING) {
            parts.headers.remove(CONTENT_LENGTH);
        }
        headers::remove_hop_by_hop(&mut parts.headers);
        parts.extensions = http::Extensions::new();
        parts.version = Version::HTTP_11;
        Ok(Response::from_parts(parts, ProxyBody::upstream(body, self.idle_timeout(Some(pool)), exchange)))
    }
}

/// `None` if nothing moved for so long.
async fn within<F: Future>(limit: Duration, progress: &Progress, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut seen = progress.count();
    loop {
        if let Ok(output) = tokio::time::timeout(limit, future.as_mut()).await {
            return Some(output);
        }
        let now = progress.count();
        if now == seen {
            return None;
        }
        seen = now;
    }
}

/// Says the length of the body as we know it, never as the client wrote it: one framing, and the true one. HTTP/2 frames
/// bodies itself, and has no `Connection` (RFC 9113 §8.2.2).
fn frame(headers: &mut HeaderMap, body: &RequestBody, version: Version) {
    let said = headers.remove(CONTENT_LENGTH).is_some();
    if version == Version::HTTP_2 {
        headers.remove(CONNECTION);
    }
    match body.size_hint().exact() {
        Some(0) if !said => {}
        Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None if version == Version::HTTP_2 => {}
        None => drop(headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
    }
}

/// HTTP/2 may split `Cookie` into several fields, HTTP/1.1 knows one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let (2.., Ok(joined)) = (crumbs.len(), HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))) {
        headers.insert(COOKIE, joined);
    }
}

/// Forwards what a route permitted: a request without a [`Permitted`] in its extensions did not come through the gate.
impl<B> tower::Service<Request<B>> for Proxy
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ProxyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let permitted = request.extensions_mut().remove::<Permitted>();
        let upstream = permitted.as_ref().and_then(|permitted| permitted.route().upstream);
        let (Some(permitted), Some(upstream)) = (permitted, upstream) else {
            tracing::error!("a request came to the proxy that no route sent there");
            return Box::pin(std::future::ready(Ok(ProxyError::Miswired.response())));
        };
        let upgrade = upgrade::wanted(&mut request, &permitted);
        let forwarded = self.forward(upstream, &permitted.route().policy, request, upgrade);
        Box::pin(async move { Ok(forwarded.await) })
    }
}

#[cfg(test)]
mod tests;
