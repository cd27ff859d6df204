//! One address of an upstream.
//!
//! An address is **ejected** after [`Upstream::max_failures`] consecutive failures: a failed connection or handshake,
//! or a missing or invalid response head. A 5xx status is not a failure, because one faulty page would eject every
//! address. The address is readmitted after a time, or by successful health checks. If a readmitted address fails
//! again, it is ejected for twice as long.

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

/// The interval of HTTP/2 pings, and the time limit for a reply.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// HTTP/2 receive windows. The connection's window is large enough for all its streams. Otherwise, clients that do not
/// read could stall the connection.
const STREAM_WINDOW_BYTES: u32 = 128 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// The maximum buffered part of one HTTP/2 request body.
const MAX_UNSENT_BYTES: usize = 64 * 1024;

type Requests = legacy::Client<Dial, LentBody>;

pub(super) struct Address {
    pub(super) url: UpstreamUrl,
    /// The socket address, or `None` for `echo:`.
    pub(super) to: Option<SocketAddr>,
    name: Box<str>,
    clients: Option<ArcSwap<Clients>>,
    in_flight: AtomicUsize,
    ejected: AtomicBool,
    failures: AtomicU32,
    ejections: AtomicU32,
    good_checks: AtomicU32,
    bad_checks: AtomicU32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionUse {
    Shared,
    /// The connection changes its protocol. The request's credential may authenticate the connection, so the connection
    /// is never reused.
    Upgrade,
    /// The request's credential may authenticate the whole connection, so the connection must not be reused.
    Authenticate,
}

pub(super) struct Clients(Box<[Client]>);

enum Client {
    Http1(Connections),
    /// HTTP/2 without TLS, or a negotiated HTTP version.
    Negotiated(Box<NegotiatedClient>),
}

struct NegotiatedClient {
    requests: Requests,
    /// Connections for upgrades, which need HTTP/1.1 (RFC 9113 §8.6).
    upgrades: Requests,
    /// The number of requests before an HTTP/1.1 connection is closed. `None` for HTTP/2.
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
            // hyper does not reuse a poisoned connection, but its response can still be read.
            connected.poison();
        }
        Ok(response)
    }
}

impl Clients {
    /// Sends the request. The request is passed by reference, because captured values are copied into each nested
    /// future.
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
            .ok_or_else(|| SendError::unconnected("this thread has no pool of connections to the upstream"))?
        {
            Client::Http1(connections) => {
                connections.send(request, using, timeout).await.map(|(response, in_use)| (response, Some(in_use)))
            }
            // Unboxed, this future would enlarge the future of every request.
            Client::Negotiated(any) => {
                let request = request.take().ok_or_else(SendError::nothing)?;
                let sent = Box::pin(timeout.within(any.send(request, using))).await;
                Ok((sent.ok_or(None)?.map_err(SendError::from)?, None))
            }
        }
    }
}

pub(super) struct Connector {
    dial: Dial,
    tls: Option<TlsParts>,
    pool_idle: Duration,
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
            // With `preserve_host`, `:authority` would be the client's host, but hyper pools connections by authority.
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

    pub(super) fn timeout(&self) -> Duration {
        self.dial.timeout
    }

    /// Returns `None` if the configured server name cannot be in a certificate.
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
                // The HTTP version is unknown until the connection is open, so hyper sets `Host`.
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

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn clients(&self) -> Option<Arc<Clients>> {
        self.clients.as_ref().map(ArcSwap::load_full)
    }

    /// Replaces the connections. Each old connection closes after the current request.
    pub(super) fn renew(&self, connecting: &Connector) {
        if let (Some(clients), Some(to)) = (&self.clients, self.to)
            && let Some(new) = connecting.clients(&self.url, to)
        {
            clients.store(Arc::new(new));
        }
    }

    /// Uses sequentially consistent ordering, like [`Self::enter`] and [`Self::leave`].
    pub(super) fn load(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts a request, unless `most` requests are in flight. The queue relies on the sequentially consistent
    /// ordering.
    pub(super) fn enter(&self, most: usize) -> bool {
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < most).then_some(n + 1)).is_ok()
    }

    pub(super) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    pub(super) fn bad_checks(&self) -> u32 {
        self.bad_checks.load(Ordering::Relaxed)
    }

    /// Returns whether at least [`Upstream::max_failures`] attempts in a row failed. The result is only valid for an
    /// address that is not ejected.
    // Requirement O30.
    pub(super) fn is_failing(&self, upstream: &Upstream) -> bool {
        let failures = self.failures.load(Ordering::Relaxed);
        failures >= upstream.max_failures || self.ejections.load(Ordering::Relaxed) > 0
    }

    /// Returns whether the address was failing before.
    pub(super) fn record_success(&self, upstream: &Upstream) -> bool {
        // The counters are usually zero. Skipping the write avoids contention between threads.
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

    pub(super) fn record_failure_alone(&self) {
        // The counter must not wrap around to zero.
        let _ = self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |failures| failures.checked_add(1));
    }

    /// Counts a failure. Returns the duration of the ejection that this failure causes.
    pub(super) fn record_failure(&self, upstream: &Upstream) -> Option<Duration> {
        self.record_failure_alone();
        if self.failures.load(Ordering::Relaxed) < upstream.max_failures || self.ejected.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.good_checks.store(0, Ordering::Relaxed);
        let before = self.ejections.fetch_add(1, Ordering::Relaxed).min(16);
        Some(upstream.eject_for.saturating_mul(1 << before).min(MAX_EJECTION.max(upstream.eject_for)))
    }

    /// The next failure ejects the address again. Returns whether the address was ejected before.
    pub(super) fn readmit(&self, upstream: &Upstream) -> bool {
        self.failures.store(upstream.max_failures.saturating_sub(1), Ordering::Relaxed);
        self.ejected.swap(false, Ordering::Relaxed)
    }

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

    pub(super) fn record_bad_check(&self, unhealthy_after: u32) -> bool {
        self.good_checks.store(0, Ordering::Relaxed);
        let bad = self.bad_checks.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        bad >= unhealthy_after && !self.ejected.swap(true, Ordering::Relaxed)
    }
}

fn name(url: &UpstreamUrl, to: Option<SocketAddr>) -> String {
    match (url.address(), to) {
        // A host name can have several addresses, so show the IP address.
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
