//! Accepts connections and serves HTTP/1.1 or HTTP/2 on them: by ALPN over TLS, and in clear text by prior knowledge of
//! HTTP/2 (RFC 9113 §3.3).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::Either;
use http::Request;
use http::header::UPGRADE;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::addresses::Addresses;
use super::connection_counts::RejectCause;
use super::h2::{H2Streams, TrackedBody};
use super::listener::{Listener, NewConnection};
use super::min_rate::MinRate;
use super::stream::Stream;
use super::workers::Workers;
use crate::config::ServerConfig;
use crate::lazy_sleep::ConnectionTimer;
use crate::proxy::ConnectionPermit;
use crate::server::serve::authorizer;
use crate::server::serve::request::{self, Serving};

/// The pause after `accept` failed, for example because no file descriptor was left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many streams a client may reset before their requests were read, and how many stream errors it may cause. Beyond
/// that, the connection ends with `ENHANCE_YOUR_CALM`.
const MAX_UNSEEN_RESETS: usize = 20;
const MAX_STREAM_ERRORS: usize = 100;
/// The most bytes of one response that wait in the connection for the client, besides the socket's buffer. A larger
/// buffer is not faster, and a connection may have a hundred of them.
const MAX_UNSENT_BYTES: usize = 64 * 1024;
/// The interval of HTTP/2 pings, and the time for the reply to one.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a new connection may wait for its first request after a stop. Its client could not know that the gate was
/// stopping.
const STOP_GRACE: Duration = Duration::from_millis(500);

/// Why a connection ended early.
type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

/// The bound on the number of connections, and the bounds of each.
#[derive(Debug)]
pub(crate) struct Limits {
    permits: Arc<Semaphore>,
    max: AtomicU32,
    bounds: ArcSwap<Bounds>,
    /// The connections of each network, over all listeners.
    networks: Arc<Addresses>,
}

/// The bounds of one connection, fixed when it begins.
#[derive(Debug)]
pub(crate) struct Bounds {
    head_timeout: Duration,
    idle_timeout: Duration,
    max_head: usize,
    max_streams: u32,
    pub(crate) min_rate: MinRate,
    trusted_proxies: Arc<[IpNet]>,
    pub(crate) networks: Arc<Addresses>,
}

impl Limits {
    pub(crate) fn new(config: &ServerConfig) -> Self {
        let max = max_connections(config);
        let networks = Addresses::of_any_network(max_of_a_network(config));
        Self {
            permits: Arc::new(Semaphore::new(max as usize)),
            max: AtomicU32::new(max),
            bounds: ArcSwap::from_pointee(Bounds::new(config, Arc::clone(&networks))),
            networks,
        }
    }

    /// The bound on connections in force.
    pub(crate) fn max(&self) -> u32 {
        self.max.load(Ordering::Relaxed)
    }

    /// Sets the bounds for connections that begin from now on. If more connections are open than the new bound allows,
    /// further ones wait until enough have ended.
    pub(crate) fn set(&self, config: &ServerConfig) {
        self.bounds.store(Arc::new(Bounds::new(config, Arc::clone(&self.networks))));
        self.networks.set_max(max_of_a_network(config));
        let now = max_connections(config);
        let before = self.max.swap(now, Ordering::Relaxed);
        self.permits.add_permits(now.saturating_sub(before) as usize);
        let too_many = before.saturating_sub(now);
        // Free places are gone at once, those of open connections as they end.
        let free = self.permits.forget_permits(too_many as usize);
        let rest = too_many.saturating_sub(u32::try_from(free).unwrap_or(u32::MAX));
        if rest > 0 {
            let permits = Arc::clone(&self.permits);
            tokio::spawn(async move {
                if let Ok(gathered) = permits.acquire_many(rest).await {
                    gathered.forget();
                }
            });
        }
    }
}

/// The bound on connections, limited to what the semaphore can count.
fn max_connections(config: &ServerConfig) -> u32 {
    u32::try_from(config.max_connections.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

/// The most connections of one network, over all listeners: half of all, or what the configuration grants an address.
/// The bounds of a /48 are wider than that (requirement A28).
fn max_of_a_network(config: &ServerConfig) -> usize {
    let of_address = config.listeners.iter().map(|listener| listener.max_connections_per_address).max();
    config.max_connections.div_ceil(2).max(of_address.unwrap_or_default())
}

impl Bounds {
    fn new(config: &ServerConfig, networks: Arc<Addresses>) -> Self {
        Self {
            networks,
            head_timeout: config.head_timeout,
            idle_timeout: config.idle_timeout,
            max_head: config.max_head,
            max_streams: config.max_requests_per_connection,
            min_rate: MinRate::of(config),
            trusted_proxies: config.trusted_proxies.as_slice().into(),
        }
    }

    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        // hyper's default is 100 header fields. Setting the same bound here would allocate on each request.
        builder.timer(ConnectionTimer::default()).header_read_timeout(self.head_timeout).max_buf_size(self.max_head);
        builder
    }

    fn http2(&self, streams: H2Streams) -> http2::Builder<H2Streams> {
        let mut builder = http2::Builder::new(streams);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_streams)
            .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
            .max_local_error_reset_streams(MAX_STREAM_ERRORS)
            .max_send_buf_size(MAX_UNSENT_BYTES)
            .max_header_list_size(u32::try_from(self.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        builder
    }
}

/// Serves a listener until `stopped`, then waits for its connections to end.
pub(crate) async fn serve(
    listener: Listener,
    serving: Serving,
    limits: Arc<Limits>,
    workers: Arc<Workers>,
    mut stopped: watch::Receiver<bool>,
) {
    let listener = Arc::new(listener);
    loop {
        // The permit comes first: connections that cannot be served yet wait in the system's backlog.
        let permit = tokio::select! {
            permit = Arc::clone(&limits.permits).acquire_owned() => permit,
            () = until_stopped(&mut stopped) => break,
        };
        let Ok(permit) = permit else { break };
        let (stream, peer) = tokio::select! {
            accepted = listener.socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = until_stopped(&mut stopped) => break,
        };
        let _ = stream.set_nodelay(true);
        // Detaches the socket from this thread's runtime.
        let Ok(stream) = stream.into_std() else { continue };
        let (listener, serving, bounds) = (Arc::clone(&listener), Arc::clone(&serving), limits.bounds.load_full());
        let stopped = stopped.clone();
        workers.spawn(async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let ended = serve_connection(listener, stream, peer, serving, &bounds, stopped, permit).await;
            if let Err(error) = ended {
                tracing::debug!(%peer, error = ?rotogate::fault::Chain(&*error), "connection ended early");
            }
        });
    }
    drop(listener);
    // Each connection, upgraded ones included, holds its permit to the end.
    let _ = limits.permits.acquire_many(limits.max.load(Ordering::Relaxed)).await;
}

async fn serve_connection(
    listener: Arc<Listener>,
    stream: TcpStream,
    peer: SocketAddr,
    serving: Serving,
    bounds: &Bounds,
    mut stopped: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) -> Result<(), ConnectionError> {
    let established = tokio::select! {
        // `biased`: a request that has already arrived is answered.
        biased;
        established = tokio::time::timeout(bounds.head_timeout, listener.establish(stream, peer, bounds)) => established,
        () = async { until_stopped(&mut stopped).await; tokio::time::sleep(STOP_GRACE).await } => return Ok(()),
    };
    let established = match established {
        Ok(Ok(established)) => established,
        Ok(Err(error)) => {
            listener.counts().reject(error.cause);
            return Err(error.into());
        }
        Err(elapsed) => {
            listener.counts().reject(RejectCause::HeadTimeout);
            return Err(elapsed.into());
        }
    };
    let open = listener.counts().open(established.is_http2);
    // Otherwise the listening socket would stay open as long as this connection, and connections would queue that no
    // task accepts.
    drop(listener);
    let NewConnection { stream, origin, is_http2, permit: address_permit, until } = established;
    let (origin, permit) = (Arc::new(origin), ConnectionPermit(Arc::new((permit, address_permit, open))));
    let streams = H2Streams::new(bounds.min_rate);
    let of_http2 = is_http2.then(|| streams.clone());
    let asked = Arc::new(AtomicBool::new(false));
    let was_asked = Arc::clone(&asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        was_asked.store(true, Ordering::Relaxed);
        // An upgraded connection keeps the connection's permit until it closes.
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(permit.clone());
        }
        let pending = of_http2.as_ref().map(H2Streams::pending_reply);
        let (state, origin) = (serving.load_full(), Arc::clone(&origin));
        // Outside the future: over HTTP/2 that future is a task of its own, and a request whose task waits to run is in
        // flight too.
        let answer = match origin.questions.clone() {
            Some(questions) => Either::Right(authorizer::answer(state, origin, questions, request)),
            None => {
                let request_permit = state.enter(&origin, request.headers());
                Either::Left(request::serve(state, &origin, request, request_permit))
            }
        };
        answer.map(move |answered| {
            let Ok(response) = answered;
            if let Some(pending) = pending {
                pending.complete();
            }
            Ok::<_, Infallible>(response.map(TrackedBody::new))
        })
    });
    let stream = TokioIo::new(stream);
    // Two builders: hyper's automatic one accepts HTTP/2 where ALPN chose HTTP/1.1.
    if is_http2 {
        // Boxed: until its task runs, a request is copied several times.
        let service = service_fn(move |request| Service::call(&service, request).boxed());
        let connection = bounds.http2(streams.clone()).serve_connection(stream, service);
        drive_http2(connection, &streams, bounds.idle_timeout, (stopped, until)).await
    } else {
        let mut connection = pin!(bounds.http1().serve_connection(stream, service).with_upgrades());
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = until_over(&mut stopped, until) => {}
        }
        if !asked.load(Ordering::Relaxed) && until.is_none_or(|until| Instant::now() < until) {
            tokio::select! {
                ended = connection.as_mut() => return Ok(ended?),
                () = tokio::time::sleep(STOP_GRACE) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }
}

/// Drives an HTTP/2 connection to its end. Sends `GOAWAY` at a stop, at the end of the client's certificate, after
/// `idle_timeout` without requests, and on a flood of resets. Cuts the connection if one of the last two happens again.
async fn drive_http2<S, B>(
    connection: http2::Connection<TokioIo<Stream>, S, H2Streams>,
    streams: &H2Streams,
    idle_timeout: Duration,
    (mut stopped, until): (watch::Receiver<bool>, Option<Instant>),
) -> Result<(), ConnectionError>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Future: Send + 'static,
    S::Error: Into<ConnectionError>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<ConnectionError>,
{
    let mut connection = pin!(connection);
    let (mut is_going_away, mut stopping, mut seen) = (false, false, streams.activity());
    loop {
        let why = tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = until_over(&mut stopped, until), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            () = streams.reset_flood() => "too many resets",
            () = tokio::time::sleep(idle_timeout) => {
                let (before, now) = (seen, streams.activity());
                seen = now;
                if now != before || now.1 {
                    continue;
                }
                "idle timeout"
            }
        };
        if is_going_away {
            return Err(why.into());
        }
        tracing::debug!(why, "HTTP/2 connection sent GOAWAY");
        is_going_away = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// Resolves when a connection may serve no further request: when the gate stops, or its client's certificate has ended
/// (requirement T36).
async fn until_over(stopped: &mut watch::Receiver<bool>, until: Option<Instant>) {
    match until {
        None => until_stopped(stopped).await,
        Some(until) => {
            let _ = tokio::time::timeout_at(until, until_stopped(stopped)).await;
        }
    }
}

/// Resolves when the gate stops.
async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
