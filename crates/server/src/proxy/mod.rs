//! The reverse proxy: takes a request that the gate let through to an upstream and brings back the answer. Bodies are
//! streamed both ways and never gathered; whoever is slow slows the other side down.
//!
//! What it expects: a request whose path is canonical (another is refused here again), with a
//! [`Peer`] in its extensions, from which [`rotogate::headers::ProtectedNames::strip_untrusted`] took
//! what a client must not set.
//!
//! **Addresses**: an upstream has several, and a host name is as many as it stands for. Of two that are picked at random
//! the one with fewer requests on their way is taken; one that keeps failing is put aside for a while (see
//! [`Upstream`]), and where all are, all are used.
//!
//! **Connections** are kept and used again, only once request and response were taken in full, and not beyond an age.
//! **What is sent twice**: a request of which nothing was written, because the kept connection turned out to be closed
//! or no connection could be had, goes out again on another or to another address, whatever it is. One that was written
//! when the connection was lost, before any of the response came, goes out again once, to another address if there is
//! one, if it may be repeated: its method is idempotent (RFC 9110 §9.2.2) and it has no body. Everything else is a 502.
//!
//! **Timeouts**: for a connection; for the response head, at each address anew; and for the next frame of either body.
//! The head's time begins anew as long as the upstream takes the request body, a body's as long as the other moves. A
//! stream that keeps moving has no end.
//!
//! **HTTP/2**: an `h2c://` upstream, or an `https://` one that chooses it, gets each request as a stream of one
//! connection; bodies flow both ways at once, and trailers pass. A failure on the way to a client that speaks gRPC is a
//! gRPC status.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use ipnet::IpNet;
use tokio::task::JoinSet;

use self::address::Connecting;
use self::body::RequestBody;
use self::exchange::NotSent;
use self::pool::{Pool, Resolver, Whose};
use self::upgrade::Wanted;
use rotogate::headers::Peer;
use rotogate::policy::Permitted;
use rotogate::reply;
use rotogate::route::RoutePolicy;

mod address;
mod body;
mod dial;
mod echo;
mod error;
mod exchange;
mod health;
mod http1;
mod pool;
mod tls;
mod upgrade;
mod upstream;
mod url;

pub(crate) use body::TooSlow;
pub use body::{BodyError, BoxError, ProxyBody};
pub use error::ProxyError;
pub use tls::{BadTls, UpstreamTls};
pub(crate) use upgrade::Seat;
pub use upstream::{HealthCheck, LONGEST_ASIDE, MAX_REQUESTS_PER_CONNECTION, Reuse, Upstream};
pub use url::{BadUpstreamUrl, HttpUrl, UpstreamUrl};

/// Bounds and trust, for all upstreams.
#[derive(Clone, Debug)]
pub struct Settings {
    /// For a connection to one address, its TLS handshake included, and for the look-up of a name. Default 5 s.
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
    /// The size of the buffers of sockets, in bytes. Default: the system's choice.
    pub socket_buffer: Option<u32>,
    /// Whose forwarding headers count. Default: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// How many threads have connections of their own; each says which [`Lane`](crate::lane::Lane) is its. Default: none has.
    pub lanes: usize,
}

/// An upstream that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the upstream {name:?}")]
pub struct BadUpstream {
    /// Its name.
    pub name: String,
    /// What is wrong.
    #[source]
    pub source: BadTls,
}

/// Why the upstreams stay what they were.
#[derive(Debug, thiserror::Error)]
pub enum NotReplaced {
    /// One that requests are sent to is not among the new ones.
    #[error("the upstream {0:?} is gone, but the running routes lead to it")]
    Gone(String),
    /// One of the new ones cannot be used.
    #[error(transparent)]
    Bad(#[from] BadUpstream),
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
            lanes: 0,
        }
    }
}

/// See the module. Cheap to clone; clones share the connections.
#[derive(Clone)]
pub struct Proxy(Arc<Inner>);

struct Inner {
    pools: ArcSwap<Vec<Arc<Running>>>,
    settings: Settings,
    resolver: Resolver,
}

/// An upstream with what goes on beside its requests, look-ups and checks, until it is dropped.
struct Running {
    pool: Arc<Pool>,
    _tasks: JoinSet<()>,
}

impl Running {
    fn start(upstream: Upstream, settings: &Settings, resolver: &Resolver) -> Result<Arc<Self>, BadUpstream> {
        let connecting = Connecting::new(&upstream, settings)
            .map_err(|source| BadUpstream { name: upstream.name.clone(), source })?;
        let pool = Arc::new(Pool::new(upstream, connecting, Arc::clone(resolver)));
        let mut tasks = JoinSet::new();
        pool.start(&mut tasks);
        Ok(Arc::new(Self { pool, _tasks: tasks }))
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("pools", &self.0.all().iter().map(|running| &running.pool).collect::<Vec<_>>())
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy to these upstreams; their places in the list are what routes name. To be called in a Tokio runtime.
    ///
    /// # Errors
    /// The certificates of an upstream cannot be used.
    pub fn new(upstreams: Vec<Upstream>, settings: Settings) -> Result<Self, BadUpstream> {
        Self::with_resolver(upstreams, settings, &pool::system_resolver())
    }

    fn with_resolver(upstreams: Vec<Upstream>, settings: Settings, resolver: &Resolver) -> Result<Self, BadUpstream> {
        let started = upstreams.into_iter().map(|upstream| Running::start(upstream, &settings, resolver));
        let pools = ArcSwap::from_pointee(started.collect::<Result<_, _>>()?);
        Ok(Self(Arc::new(Inner { pools, settings, resolver: Arc::clone(resolver) })))
    }

    /// Sends to these upstreams from the next request on. Each keeps the place of the running one of its name; those of
    /// other names come after them. One that is the same as before keeps its connections and what is known of its
    /// addresses; requests under way end where they are. To be called in a Tokio runtime.
    ///
    /// # Errors
    /// A running upstream is not among them, or certificates cannot be used. Then nothing has changed.
    pub fn replace(&self, upstreams: Vec<Upstream>) -> Result<(), NotReplaced> {
        let before = self.0.all();
        let (mut known, mut more) = (vec![None; before.len()], Vec::new());
        for upstream in upstreams {
            let place = before.iter().position(|running| running.pool.upstream.name == upstream.name);
            let same = place.and_then(|place| before.get(place)).filter(|running| running.pool.upstream == upstream);
            let running = match same {
                Some(running) => Arc::clone(running),
                None => Running::start(upstream, &self.0.settings, &self.0.resolver)?,
            };
            match place.and_then(|place| known.get_mut(place)) {
                Some(place) => *place = Some(running),
                None => more.push(running),
            }
        }
        let gone = known.iter().zip(before.iter()).find(|(now, _)| now.is_none());
        if let Some((_, running)) = gone {
            return Err(NotReplaced::Gone(running.pool.upstream.name.clone()));
        }
        self.0.pools.store(Arc::new(known.into_iter().flatten().chain(more).collect()));
        Ok(())
    }

    /// Reads the certificates and keys of `https` upstreams again: each whose files are among `changed` begins anew with
    /// them, as by [`Self::replace`].
    ///
    /// # Errors
    /// They cannot be used. Then that upstream goes on with the old ones.
    pub fn reload_certificates(&self, changed: &[PathBuf]) -> Result<(), BadUpstream> {
        let mut now = Vec::clone(&self.0.all());
        for running in &mut now {
            let upstream = &running.pool.upstream;
            if upstream.tls.files().any(|file| changed.iter().any(|changed| changed == file)) {
                *running = Running::start(upstream.clone(), &self.0.settings, &self.0.resolver)?;
            }
        }
        self.0.pools.store(Arc::new(now));
        Ok(())
    }

    /// The place of the upstream of that name.
    pub fn upstream(&self, name: &str) -> Option<usize> {
        self.0.all().iter().position(|running| running.pool.upstream.name == name)
    }

    /// Does something with the name of an upstream.
    pub(crate) fn with_name<T>(&self, upstream: usize, work: impl FnOnce(Option<&str>) -> T) -> T {
        let pools = self.0.pools.load();
        work(pools.get(upstream).map(|running| running.pool.upstream.name.as_str()))
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
        whose: Whose,
    ) -> impl Future<Output = Result<Response<ProxyBody>, Infallible>> + Send + 'static + use<B>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let inner = Arc::clone(&self.0);
        let (parts, body) = request.into_parts();
        let is_grpc = reply::is_grpc(&parts.headers);
        let dialect = policy.dialect.clone();
        let pool = inner.pool(upstream);
        let body = RequestBody::new(body, policy.max_body, inner.idle_timeout(pool.as_deref()));
        async move {
            let sent = match (pool, body) {
                (Some(pool), Ok(body)) => inner.send(&pool, parts, body, upgrade, whose).await,
                (Some(_), Err(_)) => Err(ProxyError::TooLarge.into()),
                (None, _) => {
                    tracing::error!(upstream, "a route names an upstream that is not there");
                    Err(ProxyError::Miswired.into())
                }
            };
            Ok(sent.unwrap_or_else(|NotSent { kind, sent }| {
                let mut response = match &dialect {
                    _ if is_grpc => kind.grpc_response(),
                    Some(dialect) => kind.response_in(dialect),
                    None => kind.response(),
                };
                response.body_mut().sent = sent;
                response
            }))
        }
    }
}

impl Inner {
    fn all(&self) -> Arc<Vec<Arc<Running>>> {
        self.pools.load_full()
    }

    fn pool(&self, upstream: usize) -> Option<Arc<Pool>> {
        self.pools.load().get(upstream).map(|running| Arc::clone(&running.pool))
    }

    fn idle_timeout(&self, pool: Option<&Pool>) -> Duration {
        pool.and_then(|pool| pool.upstream.idle_timeout).unwrap_or(self.settings.idle_timeout)
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
        let peer = request.extensions().get::<Peer>();
        let client = peer.and_then(|peer| peer.client_of(request.headers(), &self.0.settings.trusted_proxies));
        let whose = Whose { caller: permitted.caller().map(|caller| caller.holder()), client };
        Box::pin(self.forward(upstream, &permitted.route().policy, request, upgrade, whose))
    }
}

#[cfg(test)]
mod tests;
