//! The reverse proxy: forwards the requests that the gate admits, and streams bodies both ways with back-pressure,
//! without buffering them.
//!
//! The request must have a canonical path (the proxy checks it again) and a [`Peer`] in its extensions. Before,
//! [`rotogate_core::headers::ProtectedNames::strip_untrusted`] must have removed the headers that a client must not
//! set.
//!
//! **Addresses**: an upstream has one or more addresses. If a host name resolves to several addresses, all of them are
//! used. For each request, the proxy picks two random addresses and chooses the one with fewer requests in flight. An
//! address that keeps failing is ejected for a time (see [`Upstream`]). If all addresses are ejected, all are used.
//!
//! **Connections** are reused, but only after request and response were read in full, and not beyond a maximum age.
//! **Retries**: if no byte of a request was written, because a pooled connection was closed or no connection could be
//! opened, the request is sent again on another connection or to another address, whatever its method. If the
//! connection was lost after the request was written, but before any byte of the response, the request is sent again
//! once if it is repeatable: its method is idempotent (RFC 9110 §9.2.2) and it has no body. If an HTTP/2 upstream
//! states that it did not process a request (`REFUSED_STREAM`, `GOAWAY`), the request is sent again once, whatever its
//! method, unless more than 16 KiB of its body were sent. A retry prefers another address. After any other failure the
//! request is not sent again.
//!
//! **Timeouts** exist for connecting, for the response head (separately at each address), and for the next frame of
//! either body. The head's timeout restarts while the upstream reads the request body; a body's timeout restarts while
//! the other body makes progress. A stream that makes progress has no time limit.
//!
//! **HTTP/2**: an `h2c://` upstream, or an `https://` upstream that negotiates HTTP/2, receives each request as a
//! stream of one connection. Bodies are streamed in both directions at the same time, and trailers are forwarded. A
//! gRPC client receives failures as a gRPC status.

use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use ipnet::IpNet;
use tokio::task::JoinSet;

use self::address::Connector;
use self::body::RequestBody;
use self::counts::UpstreamCounts;
use self::exchange::ForwardError;
use self::pool::{Pool, RequestHolders, Resolver};
use self::upgrade::UpgradeRequest;
use rotogate_core::headers::Peer;
use rotogate_core::policy::Permitted;
use rotogate_core::reply;
use rotogate_core::route::{RoutePolicy, UpstreamId};
use rotogate_kit::upstream_tls::BadTls;

mod address;
pub mod authorization;
mod body;
mod counts;
mod dial;
mod echo;
mod error;
mod exchange;
mod head_timeout;
mod health;
mod http1;
mod kept_headers;
mod link;
mod pool;
mod queue;
mod span;
mod upgrade;
mod upstream;
mod url;

pub use body::TooSlow;
pub use body::{BodyError, BoxError, ProxyBody};
pub use counts::{AttemptResult, CODE_CLASSES, Counted};
pub use error::ProxyError;
pub use span::known_method;
pub use upgrade::ConnectionPermit;
pub use upstream::{ExchangeSettings, HealthCheck, MAX_EJECTION, MAX_REQUESTS_PER_CONNECTION, Reuse, Upstream};
pub use url::{BadUpstreamUrl, HttpUrl, UpstreamUrl};

/// Limits and trusted proxies for all upstreams.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The time limit for connecting to one address, including the TLS handshake, and for looking up a host name.
    /// Default 5 s.
    pub connect_timeout: Duration,
    /// The time limit from the last progress of the request to the response head. Default 60 s. If the request has a
    /// body, the timeout may take effect only after twice this time.
    pub head_timeout: Duration,
    /// The time limit for the next frame of a body, if the body in the other direction does not make progress either.
    /// Default 60 s.
    pub idle_timeout: Duration,
    /// How long an idle connection is kept. Default 30 s.
    pub pool_idle: Duration,
    /// How many idle connections are kept for one address. Default 1024.
    pub pool_size: usize,
    /// The size of socket buffers, in bytes. Default: the system's choice.
    pub socket_buffer: Option<u32>,
    /// The proxies whose forwarding headers are trusted. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// The number of worker threads with their own connections. Each such thread enters its
    /// [`WorkerId`](rotogate_kit::worker_id::WorkerId). Default 0.
    pub workers: usize,
}

/// An upstream that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the upstream {name:?}")]
pub struct BadUpstream {
    /// The name of the upstream.
    pub name: String,
    /// The problem.
    #[source]
    pub source: BadTls,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(60),
            pool_idle: Duration::from_secs(30),
            pool_size: 1024,
            socket_buffer: None,
            trusted_proxies: Vec::new(),
            workers: 0,
        }
    }
}

/// The proxy, with the upstreams of one configuration. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    /// Routes refer to the indices of the upstreams.
    upstreams: Vec<Arc<ActiveUpstream>>,
    settings: Settings,
    resolver: Resolver,
}

/// An upstream in use. Its DNS lookups and health checks end when it is dropped.
struct ActiveUpstream {
    pool: Arc<Pool>,
    _tasks: JoinSet<()>,
}

impl ActiveUpstream {
    /// Starts an upstream. `before` is the upstream of the same name that it replaces.
    fn start(
        upstream: Upstream,
        settings: &Settings,
        resolver: &Resolver,
        before: Option<&Self>,
    ) -> Result<Arc<Self>, BadUpstream> {
        let counts = before.map(|before| Arc::clone(&before.pool.counts));
        let counts = counts.unwrap_or_else(|| Arc::new(UpstreamCounts::new(settings.workers)));
        let connecting = Connector::new(&upstream, settings, Arc::clone(&counts))
            .map_err(|source| BadUpstream { name: upstream.name.clone(), source })?;
        let authorization = upstream.authorization_file.as_deref().map(authorization::load).transpose();
        let authorization = authorization.map_err(|message| BadUpstream {
            name: upstream.name.clone(),
            source: BadTls::new("authorization_file", message),
        })?;
        let pool = Arc::new(Pool::new(upstream, connecting, counts, authorization, Arc::clone(resolver)));
        let mut tasks = JoinSet::new();
        pool.start(&mut tasks);
        Ok(Arc::new(Self { pool, _tasks: tasks }))
    }
}

/// The metrics of an upstream.
pub struct UpstreamReport {
    /// The name of the upstream.
    pub name: String,
    /// The counts since the start.
    pub counted: Counted,
    /// Requests in flight.
    pub in_flight: usize,
    /// Open connections, idle ones included.
    pub connections: usize,
    /// Addresses in service.
    pub up: usize,
    /// Addresses that are ejected after failures.
    pub ejected: usize,
    /// Addresses that fail their health checks.
    pub unhealthy: usize,
    /// Addresses in service whose last attempts all failed.
    pub failing: usize,
    /// Each address.
    pub addresses: Vec<UpstreamAddress>,
}

/// An address of an upstream.
pub struct UpstreamAddress {
    /// Host and port, or the path of a socket.
    pub name: String,
    /// `up`, `failing`, `ejected` or `unhealthy`.
    pub state: &'static str,
    /// Requests in flight.
    pub in_flight: usize,
}

rotogate_core::debug_with!(Proxy, |it| {
    pools: it.0.upstreams.iter().map(|running| &running.pool).collect::<Vec<_>>(),
    settings: it.0.settings
});

impl Proxy {
    /// Creates a proxy for these upstreams. Routes refer to their indices. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// The certificates of an upstream cannot be used.
    pub fn new(upstreams: Vec<Upstream>, settings: Settings) -> Result<Self, BadUpstream> {
        Self::with_resolver(upstreams, settings, &pool::system_resolver())
    }

    fn with_resolver(upstreams: Vec<Upstream>, settings: Settings, resolver: &Resolver) -> Result<Self, BadUpstream> {
        let started = upstreams.into_iter().map(|upstream| ActiveUpstream::start(upstream, &settings, resolver, None));
        let upstreams = started.collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner { upstreams, settings, resolver: Arc::clone(resolver) })))
    }

    /// Creates a proxy that replaces this one, with other upstreams and trusted proxies. An unchanged upstream keeps
    /// its connections and the state of its addresses. A changed upstream keeps only its counters. Requests that this
    /// proxy already forwards finish under the settings of this proxy. Must be called in a Tokio runtime.
    ///
    /// # Errors
    /// The certificates of an upstream cannot be used.
    pub fn with_upstreams(&self, upstreams: Vec<Upstream>, trusted_proxies: Vec<IpNet>) -> Result<Self, BadUpstream> {
        let go_on = |upstream: Upstream| match self.running(&upstream.name) {
            Some(running) if running.pool.upstream == upstream => Ok(Arc::clone(running)),
            before => self.start(upstream, before.map(AsRef::as_ref)),
        };
        let upstreams = upstreams.into_iter().map(go_on).collect::<Result<_, _>>()?;
        let settings = Settings { trusted_proxies, ..self.0.settings.clone() };
        Ok(Self(Arc::new(Inner { upstreams, settings, resolver: Arc::clone(&self.0.resolver) })))
    }

    /// Creates a proxy with the same upstreams. Upstreams with a file in `changed` read their files again:
    /// certificates, private keys and credentials.
    ///
    /// # Errors
    /// The files cannot be used.
    pub fn with_files(&self, changed: &[PathBuf]) -> Result<Self, BadUpstream> {
        let go_on = |running: &Arc<ActiveUpstream>| {
            let upstream = &running.pool.upstream;
            if upstream.files().any(|file| changed.iter().any(|changed| changed == file)) {
                self.start(upstream.clone(), Some(running))
            } else {
                Ok(Arc::clone(running))
            }
        };
        let upstreams = self.0.upstreams.iter().map(go_on).collect::<Result<_, _>>()?;
        let (settings, resolver) = (self.0.settings.clone(), Arc::clone(&self.0.resolver));
        Ok(Self(Arc::new(Inner { upstreams, settings, resolver })))
    }

    fn running(&self, name: &str) -> Option<&Arc<ActiveUpstream>> {
        self.0.upstreams.iter().find(|running| running.pool.upstream.name == name)
    }

    fn start(&self, upstream: Upstream, before: Option<&ActiveUpstream>) -> Result<Arc<ActiveUpstream>, BadUpstream> {
        ActiveUpstream::start(upstream, &self.0.settings, &self.0.resolver, before)
    }

    /// The id of the upstream with this name.
    pub fn upstream(&self, name: &str) -> Option<UpstreamId> {
        self.0.upstreams.iter().position(|running| running.pool.upstream.name == name).map(UpstreamId::new)
    }

    /// The metrics of all upstreams.
    pub fn report(&self) -> Vec<UpstreamReport> {
        let report = |running: &Arc<ActiveUpstream>| running.pool.report();
        self.0.upstreams.iter().map(report).collect()
    }

    /// Calls `work` with the name of an upstream.
    pub fn with_name<T>(&self, upstream: UpstreamId, work: impl FnOnce(Option<&str>) -> T) -> T {
        work(self.0.upstreams.get(upstream.position()).map(|running| running.pool.upstream.name.as_str()))
    }

    /// Sends a request to an upstream. A failure is also returned as a response, with a [`ProxyError`] in its
    /// extensions.
    ///
    /// Dropping the future, or the response body before its end, closes the connection to the upstream.
    fn forward<B>(
        &self,
        upstream: UpstreamId,
        policy: &RoutePolicy,
        request: Request<B>,
        upgrade: Option<Box<UpgradeRequest>>,
        holders: RequestHolders,
    ) -> impl Future<Output = Result<Response<ProxyBody>, Infallible>> + Send + 'static + use<B>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let inner = Arc::clone(&self.0);
        let (mut parts, body) = request.into_parts();
        let dialect = policy.dialect.clone();
        let pool = inner.pool(upstream);
        let body = RequestBody::new(body, policy.max_body, inner.idle_timeout(pool.as_deref()));
        let mut prepared = match (pool, body) {
            (Some(pool), Ok(body)) => inner.prepare(&mut parts).map(|outgoing| (pool, body, outgoing)),
            (Some(_), Err(_)) => Err(ProxyError::TooLarge),
            (None, _) => {
                tracing::error!(
                    upstream = upstream.position(),
                    "route names an unknown upstream: a bug in rotogate. Report this line"
                );
                Err(ProxyError::Miswired)
            }
        };
        let is_grpc = match &prepared {
            Ok((_, _, outgoing)) => outgoing.is_grpc,
            Err(_) => reply::is_grpc(&parts.headers),
        };
        async move {
            let sent = match &mut prepared {
                Ok((pool, body, outgoing)) => {
                    let body = std::mem::replace(body, RequestBody::empty());
                    inner.send(pool, outgoing, body, upgrade, holders).await
                }
                Err(kind) => Err((*kind).into()),
            };
            Ok(sent.unwrap_or_else(|ForwardError { kind, sent }| {
                let mut response = match &dialect {
                    _ if is_grpc => kind.grpc_response(),
                    Some(dialect) => kind.response_in(dialect),
                    None => kind.response(),
                };
                response.body_mut().set_sent(sent);
                response
            }))
        }
    }
}

impl Inner {
    fn pool(&self, upstream: UpstreamId) -> Option<Arc<Pool>> {
        self.upstreams.get(upstream.position()).map(|running| Arc::clone(&running.pool))
    }

    fn idle_timeout(&self, pool: Option<&Pool>) -> Duration {
        pool.and_then(|pool| pool.upstream.idle_timeout).unwrap_or(self.settings.idle_timeout)
    }
}

/// Forwards requests that the gate has permitted. A request without a [`Permitted`] in its extensions is rejected.
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
        let failed = |error: ProxyError| Box::pin(std::future::ready(Ok(error.response())));
        let Some(permitted) = permitted else {
            tracing::error!("request reached the proxy without a route: a bug in rotogate. Report this line");
            return failed(ProxyError::Miswired);
        };
        let Some(upstream) = permitted.route().upstream else { return failed(ProxyError::NoUpstream) };
        let upgrade = upgrade::requested_upgrade(&mut request, &permitted);
        let peer = request.extensions().get::<Peer>();
        let client = peer.and_then(|peer| peer.client_of(request.headers(), &self.0.settings.trusted_proxies));
        let holders = RequestHolders { caller: permitted.caller().map(|caller| caller.holder()), client };
        Box::pin(self.forward(upstream, &permitted.route().policy, request, upgrade, holders))
    }
}

#[cfg(test)]
mod tests;
