//! The reverse proxy. The proxy forwards permitted requests and streams bodies in both directions.
//!
//! A request needs a canonical path, and a [`Peer`] in its extensions. Untrusted headers must have been removed with
//! [`rotogate_core::headers::ProtectedNames::strip_untrusted`].
//!
//! **Addresses**: an upstream has one or more addresses, including all addresses of a host name. The proxy picks two at
//! random and chooses the one with fewer requests in flight. An address that keeps failing is ejected for a time (see
//! [`Upstream`]).
//!
//! **Connections** are reused up to a maximum age, once request and response are complete. **Retries**: a request is
//! sent again if no byte was written. If the connection was lost before any byte of the response, an idempotent request
//! without a body is sent again once (RFC 9110 §9.2.2). A request that an HTTP/2 upstream did not process is sent again
//! once, unless more than 16 KiB of its body were sent. A retry prefers another address.
//!
//! **Timeouts** limit connecting, the response head at each address, and the next frame of either body. The
//! response-head timeout restarts while the request body progresses. A body's timeout restarts while either body
//! progresses.
//!
//! **HTTP/2** is used with `h2c://` upstreams, and with `https://` upstreams that negotiate it. Trailers are forwarded.
//! A gRPC client receives failures as a gRPC status.

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
mod reread;
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

/// Settings for all upstreams.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The time limit for connecting to an address, including DNS and TLS. Default 5 s.
    pub connect_timeout: Duration,
    /// The time limit for the response head since the last progress of the request. Default 60 s. For a request with a
    /// body, the actual limit may be up to twice as long.
    pub head_timeout: Duration,
    /// The time limit for the next frame, if neither body makes progress. Default 60 s.
    pub idle_timeout: Duration,
    /// How long an idle connection is kept. Default 30 s.
    pub pool_idle: Duration,
    /// The maximum number of idle connections per address. Default 1024.
    pub pool_size: usize,
    /// The size of socket buffers, in bytes. Default: the system's.
    pub socket_buffer: Option<u32>,
    /// The proxies whose forwarding headers are trusted. Default: none.
    pub trusted_proxies: Vec<IpNet>,
    /// The number of worker threads with their own connections, see [`WorkerId`](rotogate_kit::worker_id::WorkerId).
    /// Default 0.
    pub workers: usize,
}

/// An upstream with invalid settings.
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

/// The proxy with its upstreams. Clones share the connections.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    /// Routes refer to upstreams by index.
    upstreams: Vec<Arc<ActiveUpstream>>,
    settings: Settings,
    resolver: Resolver,
}

struct ActiveUpstream {
    pool: Arc<Pool>,
    _tasks: JoinSet<()>,
}

impl ActiveUpstream {
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
    /// Open connections, including idle ones.
    pub connections: usize,
    /// Addresses that are not ejected.
    pub up: usize,
    /// Addresses ejected after failures.
    pub ejected: usize,
    /// Addresses ejected by health checks.
    pub unhealthy: usize,
    /// Addresses in use whose last attempts failed.
    pub failing: usize,
    /// The addresses.
    pub addresses: Vec<UpstreamAddress>,
}

/// An address of an upstream.
pub struct UpstreamAddress {
    /// Host and port, or the path of a socket.
    pub name: String,
    /// The state: `up`, `failing`, `ejected` or `unhealthy`.
    pub state: &'static str,
    /// Requests in flight.
    pub in_flight: usize,
}

rotogate_core::debug_with!(Proxy, |it| {
    pools: it.0.upstreams.iter().map(|running| &running.pool).collect::<Vec<_>>(),
    settings: it.0.settings
});

impl Proxy {
    /// Creates a proxy for these upstreams. Routes refer to upstreams by index. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// The certificates of an upstream are invalid.
    pub fn new(upstreams: Vec<Upstream>, settings: Settings) -> Result<Self, BadUpstream> {
        Self::with_resolver(upstreams, settings, &pool::system_resolver())
    }

    fn with_resolver(upstreams: Vec<Upstream>, settings: Settings, resolver: &Resolver) -> Result<Self, BadUpstream> {
        let started = upstreams.into_iter().map(|upstream| ActiveUpstream::start(upstream, &settings, resolver, None));
        let upstreams = started.collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner { upstreams, settings, resolver: Arc::clone(resolver) })))
    }

    /// Creates a proxy with other upstreams and trusted proxies. Unchanged upstreams keep their connections and address
    /// states. Changed upstreams keep their counters. Requests in progress keep the old settings. Must be called within
    /// a Tokio runtime.
    ///
    /// # Errors
    /// The certificates of an upstream are invalid.
    pub fn with_upstreams(&self, upstreams: Vec<Upstream>, trusted_proxies: Vec<IpNet>) -> Result<Self, BadUpstream> {
        let go_on = |upstream: Upstream| match self.running(&upstream.name) {
            Some(running) if running.pool.upstream == upstream => Ok(Arc::clone(running)),
            before => self.start(upstream, before.map(AsRef::as_ref)),
        };
        let upstreams = upstreams.into_iter().map(go_on).collect::<Result<_, _>>()?;
        let settings = Settings { trusted_proxies, ..self.0.settings.clone() };
        Ok(Self(Arc::new(Inner { upstreams, settings, resolver: Arc::clone(&self.0.resolver) })))
    }

    /// Creates a proxy that has reread the `changed` files.
    ///
    /// # Errors
    /// A file is invalid.
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

    /// A failure is also returned as a response, with a [`ProxyError`] in its extensions.
    ///
    /// Dropping the future or an incomplete response body closes the connection.
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

/// Forwards requests with a [`Permitted`] in their extensions, and rejects other requests.
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
