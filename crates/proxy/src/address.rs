//! One address of an upstream: its connections, its load, and whether it is in service.
//!
//! An address is **ejected** after [`Upstream::max_failures`] consecutive failures. An attempt fails if the connection
//! or the TLS handshake fails, if the connection breaks or carries something other than HTTP before the response head,
//! or if the head does not arrive in time. A response with a 5xx status is not a failure, because otherwise one faulty
//! page would eject every address. After a time the address is readmitted. Its first failure then ejects it again, for
//! twice as long. If health checks are configured, successful checks readmit the address instead.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::capture_connection;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::ClientConfig;
use tokio_rustls::TlsConnector;

use super::Settings;
use super::body::LentBody;
use super::counts::UpstreamCounts;
use super::dial::{ConnectionHold, Dial};
use super::error::SendError;
use super::head_timeout::HeadTimeout;
use super::http1::{ConnectionGuard, Connections};
use super::upstream::{MAX_EJECTION, Upstream};
use super::url::UpstreamUrl;
use rotogate_core::bounds::{MAX_UPSTREAM_FIELDS, MAX_UPSTREAM_HEAD};
use rotogate_kit::upstream_tls::{BadTls, server_name};
use rotogate_kit::worker_id::WorkerId;

/// The interval of HTTP/2 pings on a connection in use, and the time limit for the reply to a ping.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// The receive windows over HTTP/2, for a stream and for the connection. The connection's window is never smaller than
/// the sum of the windows of its streams. Otherwise a few clients that do not read would stall all others on the
/// connection.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// How much of one request body is buffered in an HTTP/2 connection.
const MAX_UNSENT_BYTES: usize = 64 * 1024;

/// A pool of connections.
type Requests = legacy::Client<Dial, LentBody>;

/// One address of an upstream.
pub(super) struct Address {
    pub(super) url: UpstreamUrl,
    /// The socket address; `None` for `echo:`.
    pub(super) to: Option<SocketAddr>,
    /// The name of the address in logs.
    name: Box<str>,
    clients: Option<ArcSwap<Clients>>,
    in_flight: AtomicUsize,
    ejected: AtomicBool,
    /// Consecutive failures, and consecutive ejections.
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Consecutive successful or failed health checks.
    good_checks: AtomicU32,
    bad_checks: AtomicU32,
}

/// How a request uses its connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionUse {
    /// The connection may be reused for other requests.
    Shared,
    /// The connection changes its protocol. It is not reused, even if the upstream refuses the upgrade, because the
    /// request may have a credential that authenticates the whole connection.
    Upgrade,
    /// The request's credential may authenticate all later requests on the connection, so other requests must not use
    /// it.
    Authenticate,
}

/// The connections to an address, for each worker.
pub(super) struct Clients(Box<[Client]>);

/// The connections of one worker thread.
enum Client {
    /// HTTP/1.1 in clear text, without negotiation.
    Http1(Connections),
    /// Connections that negotiate their HTTP version, or one HTTP/2 connection for all requests.
    Negotiated(Box<NegotiatedClient>),
}

struct NegotiatedClient {
    requests: Requests,
    /// The connections for upgrades. They negotiate only HTTP/1.1, because HTTP/2 has no upgrades (RFC 9113 §8.6).
    upgrades: Requests,
    /// The number of requests after which an HTTP/1.1 connection is closed. `None` if all connections are HTTP/2.
    requests_each: Option<NonZeroU32>,
}

impl NegotiatedClient {
    async fn send(
        &self,
        mut request: Request<LentBody>,
        using: ConnectionUse,
    ) -> Result<Response<Incoming>, legacy::Error> {
        let client = if using == ConnectionUse::Upgrade { &self.upgrades } else { &self.requests };
        let Some(most) = self.requests_each else { return client.request(request).await };
        let connection = capture_connection(&mut request);
        let response = client.request(request).await?;
        if response.version() < Version::HTTP_2
            && let Some(holding) = response.extensions().get::<ConnectionHold>()
            && (holding.count_response() >= most.get() || using != ConnectionUse::Shared)
            && let Some(connected) = connection.connection_metadata().as_ref()
        {
            // hyper does not reuse a poisoned connection. The response can still be read to its end.
            connected.poison();
        }
        Ok(response)
    }
}

impl Clients {
    /// Sends the request. It is passed by reference, so that it is not copied into each nested future. Returns the
    /// response head and, for clear-text HTTP/1.1, a guard of the connection.
    ///
    /// # Errors
    /// Fails with `None` if the response head timed out.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<LentBody>>,
        using: ConnectionUse,
        timeout: HeadTimeout<'_>,
    ) -> Result<(Response<Incoming>, Option<ConnectionGuard>), Option<SendError>> {
        match WorkerId::current(&self.0)
            .ok_or_else(|| SendError::unconnected("the worker that sends the request has no connections"))?
        {
            Client::Http1(connections) => {
                connections.send(request, using, timeout).await.map(|(response, in_use)| (response, Some(in_use)))
            }
            // Boxed because it is large. Unboxed, it would enlarge the future of every request.
            Client::Negotiated(any) => {
                let request = request.take().ok_or_else(SendError::nothing)?;
                let sent = Box::pin(timeout.within(any.send(request, using))).await;
                Ok((sent.ok_or(None)?.map_err(SendError::from)?, None))
            }
        }
    }
}

/// Opens the connections of an upstream.
pub(super) struct Connector {
    dial: Dial,
    tls: Option<TlsParts>,
    pool_idle: Duration,
    /// The number of connections of each worker.
    pool_size: usize,
    workers: usize,
    requests_each: NonZeroU32,
}

struct TlsParts {
    any: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    name: Option<String>,
}

impl Connector {
    pub(super) fn new(upstream: &Upstream, settings: &Settings, counts: Arc<UpstreamCounts>) -> Result<Self, BadTls> {
        let tls = if upstream.urls.iter().any(|url| matches!(url, UpstreamUrl::Https(_))) {
            let mut http1 = upstream.tls.load()?;
            http1.alpn_protocols = vec![b"http/1.1".to_vec()];
            let mut any = http1.clone();
            // HTTP/2 is not used with `preserve_host`: `:authority` would have to be the client's host, and hyper
            // pools connections by authority.
            if !upstream.preserve_host {
                any.alpn_protocols.insert(0, b"h2".to_vec());
            }
            Some(TlsParts { any: Arc::new(any), http1: Arc::new(http1), name: upstream.tls.server_name.clone() })
        } else {
            None
        };
        let dial = Dial {
            to: ([0, 0, 0, 0], 0).into(),
            timeout: upstream.connect_timeout.unwrap_or(settings.connect_timeout),
            socket_buffer: settings.socket_buffer,
            tls: None,
            counts,
        };
        let workers = settings.workers;
        let pool_size = settings.pool_size.div_ceil(workers.max(1));
        let requests_each = upstream.requests_per_connection();
        Ok(Self { dial, tls, pool_idle: settings.pool_idle, pool_size, workers, requests_each })
    }

    /// The timeout of a connection attempt, and of the name lookup before it.
    pub(super) fn timeout(&self) -> Duration {
        self.dial.timeout
    }

    /// The connections to one address; `None` if the configured server name cannot occur in a certificate.
    fn clients(&self, url: &UpstreamUrl, to: SocketAddr) -> Option<Clients> {
        WorkerId::per_worker(self.workers, || self.client(url, to)).into_iter().collect::<Option<_>>().map(Clients)
    }

    fn client(&self, url: &UpstreamUrl, to: SocketAddr) -> Option<Client> {
        let mut builder = legacy::Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.pool_idle)
            .pool_max_idle_per_host(self.pool_size)
            .retry_canceled_requests(true)
            .timer(TokioTimer::new())
            .http1_max_buf_size(MAX_UPSTREAM_HEAD)
            .http1_max_headers(MAX_UPSTREAM_FIELDS)
            .http1_allow_spaces_after_header_name_in_responses(true)
            .http1_allow_obsolete_multiline_headers_in_responses(true)
            .http2_max_header_list_size(MAX_UPSTREAM_HEAD as u32)
            .http2_max_send_buf_size(MAX_UNSENT_BYTES)
            .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
            .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .set_host(false);
        let dial = Dial { to, ..self.dial.clone() };
        match url {
            UpstreamUrl::Echo => None,
            UpstreamUrl::Http(_) => {
                let mut http1 = http1::Builder::new();
                http1
                    .max_buf_size(MAX_UPSTREAM_HEAD)
                    .max_headers(MAX_UPSTREAM_FIELDS)
                    .allow_spaces_after_header_name_in_responses(true)
                    .allow_obsolete_multiline_headers_in_responses(true);
                let (keep_for, most) = (self.pool_idle, self.pool_size);
                Some(Client::Http1(Connections::new(dial, http1, keep_for, most, self.requests_each)))
            }
            UpstreamUrl::H2c(_) => {
                let requests: Requests = builder.http2_only(true).build(dial);
                Some(Client::Negotiated(Box::new(NegotiatedClient {
                    upgrades: requests.clone(),
                    requests,
                    requests_each: None,
                })))
            }
            UpstreamUrl::Https(url) => {
                let tls = self.tls.as_ref()?;
                let name = server_name(tls.name.as_deref().unwrap_or(url.name())).ok()?;
                let with = |config: &Arc<ClientConfig>| Some((TlsConnector::from(Arc::clone(config)), name.clone()));
                // The HTTP version is only known once the connection is open, so hyper sets `Host`.
                builder.set_host(true);
                let requests = builder.build(Dial { tls: with(&tls.any), ..dial.clone() });
                let upgrades = builder.build(Dial { tls: with(&tls.http1), ..dial });
                Some(Client::Negotiated(Box::new(NegotiatedClient {
                    requests,
                    upgrades,
                    requests_each: Some(self.requests_each),
                })))
            }
        }
    }
}

impl Address {
    pub(super) fn new(url: UpstreamUrl, to: Option<SocketAddr>, connecting: &Connector) -> Self {
        let clients = to.and_then(|to| connecting.clients(&url, to)).map(ArcSwap::from_pointee);
        let name = name(&url, to).into();
        Self {
            url,
            to,
            name,
            clients,
            in_flight: AtomicUsize::new(0),
            ejected: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            good_checks: AtomicU32::new(0),
            bad_checks: AtomicU32::new(0),
        }
    }

    /// The name of the address in logs.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn clients(&self) -> Option<Arc<Clients>> {
        self.clients.as_ref().map(ArcSwap::load_full)
    }

    /// Replaces the connections by new ones. Each old connection closes after its current request.
    pub(super) fn renew(&self, connecting: &Connector) {
        if let (Some(clients), Some(to)) = (&self.clients, self.to)
            && let Some(new) = connecting.clients(&self.url, to)
        {
            clients.store(Arc::new(new));
        }
    }

    /// The number of requests in flight at this address. Uses sequentially consistent ordering, like [`Self::enter`]
    /// and [`Self::leave`].
    pub(super) fn load(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts one more request, unless `most` requests are already in flight. Uses sequentially consistent ordering,
    /// like [`Self::leave`], because the queue relies on it.
    pub(super) fn enter(&self, most: usize) -> bool {
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < most).then_some(n + 1)).is_ok()
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// The number of consecutive failed health checks.
    pub(super) fn bad_checks(&self) -> u32 {
        self.bad_checks.load(Ordering::Relaxed)
    }

    /// Whether at least [`Upstream::max_failures`] attempts in a row failed. Call this only for an address that is in
    /// service.
    // Requirement O30.
    pub(super) fn is_failing(&self, upstream: &Upstream) -> bool {
        let failures = self.failures.load(Ordering::Relaxed);
        failures >= upstream.max_failures || self.ejections.load(Ordering::Relaxed) > 0
    }

    /// Records a response. Returns whether the address was failing until then, see [`Self::is_failing`].
    pub(super) fn record_success(&self, upstream: &Upstream) -> bool {
        // Usually both counters are zero. Then they are not written, which avoids contention between threads.
        let (failures, ejections) = (self.failures.load(Ordering::Relaxed), self.ejections.load(Ordering::Relaxed));
        if failures == 0 && ejections == 0 {
            return false;
        }
        self.failures.store(0, Ordering::Relaxed);
        if ejections != 0 && !self.is_ejected() {
            self.ejections.store(0, Ordering::Relaxed);
        }
        failures >= upstream.max_failures && !self.is_ejected()
    }

    /// Counts a failure. Does not eject the address, because it is the only address of its upstream.
    pub(super) fn record_failure_alone(&self) {
        // The counter must not wrap around to zero.
        let _ = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |failures| failures.checked_add(1));
    }

    /// Counts a failure. If the failure ejects the address, returns the time until its readmission. If the upstream has
    /// health checks, they readmit the address instead.
    pub(super) fn record_failure(&self, upstream: &Upstream) -> Option<Duration> {
        self.record_failure_alone();
        if self.failures.load(Ordering::Relaxed) < upstream.max_failures || self.ejected.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.good_checks.store(0, Ordering::Relaxed);
        let before = self.ejections.fetch_add(1, Ordering::Relaxed).min(16);
        Some(upstream.eject_for.saturating_mul(1 << before).min(MAX_EJECTION.max(upstream.eject_for)))
    }

    /// Readmits the address. The next failure ejects it again. Returns whether the address was ejected before.
    pub(super) fn readmit(&self, upstream: &Upstream) -> bool {
        self.failures.store(upstream.max_failures.saturating_sub(1), Ordering::Relaxed);
        self.ejected.swap(false, Ordering::Relaxed)
    }

    /// Counts a successful health check. Returns whether the check readmits the address.
    pub(super) fn record_good_check(&self, healthy_after: u32) -> bool {
        self.bad_checks.store(0, Ordering::Relaxed);
        let good = self.good_checks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let is_back = good >= healthy_after && self.ejected.swap(false, Ordering::Relaxed);
        if is_back {
            self.failures.store(0, Ordering::Relaxed);
            self.ejections.store(0, Ordering::Relaxed);
        }
        is_back
    }

    /// Counts a failed health check. Returns whether the check ejects the address.
    pub(super) fn record_bad_check(&self, unhealthy_after: u32) -> bool {
        self.good_checks.store(0, Ordering::Relaxed);
        let bad = self.bad_checks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        bad >= unhealthy_after && !self.ejected.swap(true, Ordering::Relaxed)
    }
}

/// The name of an address in logs.
fn name(url: &UpstreamUrl, to: Option<SocketAddr>) -> String {
    match (url.address(), to) {
        // The IP address is shown as well, because a host name can have several.
        (Some(url), Some(to)) if url.ip().is_none() => format!("{} ({to})", url.authority()),
        (Some(url), Some(_)) => url.authority().to_string(),
        (None, _) | (_, None) => "echo:".to_owned(),
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

rotogate_core::debug_with!(Address, |it, f| write!(f, "{it}"));
