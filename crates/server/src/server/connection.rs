//! Accepting connections, and speaking HTTP/1.1 or HTTP/2 on them: over TLS as ALPN says, in clear HTTP/2 with prior
//! knowledge (RFC 9113 §3.3).

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::Request;
use http::header::UPGRADE;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ipnet::IpNet;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::listener::{Established, Listener};
use super::pace::Slowest;
use super::request::{self, State};
use super::stream::Stream;
use super::streams::{Delivered, Streams};
use super::workers::Workers;
use crate::config::ServerConfig;
use crate::proxy::Seat;

/// How long to wait when the system has no file descriptor left, or the like.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many streams a client may reset before we saw their requests, and how many errors of its own it may make, before
/// the connection ends with `ENHANCE_YOUR_CALM`.
const MAX_UNSEEN_RESETS: usize = 20;
const MAX_STREAM_ERRORS: usize = 100;
/// How much of one reply waits for its client in the connection, besides what the system keeps. What is read in larger
/// pieces is not read faster, and there may be a hundred of them.
const MAX_UNSENT: usize = 64 * 1024;
/// How often an HTTP/2 connection is asked whether it is alive, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a connection that was just accepted has at a stop for its first request to come: its client had no word that
/// nobody would answer.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// Why a connection ended before its end.
type Ended = Box<dyn std::error::Error + Send + Sync>;

/// How many connections there may be, and what bounds each.
#[derive(Debug)]
pub(super) struct Limits {
    places: Arc<Semaphore>,
    most: AtomicU32,
    bounds: ArcSwap<Bounds>,
}

/// What bounds a connection, from its beginning to its end.
#[derive(Debug)]
pub(super) struct Bounds {
    head_timeout: Duration,
    idle_timeout: Duration,
    max_head: usize,
    max_streams: u32,
    pub(super) slowest: Slowest,
    trusted_proxies: Arc<[IpNet]>,
}

impl Limits {
    pub(super) fn new(config: &ServerConfig) -> Self {
        let most = places(config);
        Self {
            places: Arc::new(Semaphore::new(most as usize)),
            most: AtomicU32::new(most),
            bounds: ArcSwap::from_pointee(Bounds::new(config)),
        }
    }

    /// Other bounds for connections that begin from now on. Where there are more than there may be now, new ones wait
    /// until enough have ended.
    pub(super) fn set(&self, config: &ServerConfig) {
        self.bounds.store(Arc::new(Bounds::new(config)));
        let now = places(config);
        let before = self.most.swap(now, Ordering::Relaxed);
        self.places.add_permits(now.saturating_sub(before) as usize);
        let too_many = before.saturating_sub(now);
        if too_many > 0 {
            let places = Arc::clone(&self.places);
            tokio::spawn(async move {
                if let Ok(gathered) = places.acquire_many(too_many).await {
                    gathered.forget();
                }
            });
        }
    }
}

/// How many connections that is, as tokio counts.
fn places(config: &ServerConfig) -> u32 {
    u32::try_from(config.max_connections.min(Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX)
}

impl Bounds {
    fn new(config: &ServerConfig) -> Self {
        Self {
            head_timeout: config.head_timeout,
            idle_timeout: config.idle_timeout,
            max_head: config.max_head,
            max_streams: config.max_requests_per_connection,
            slowest: Slowest::of(config),
            trusted_proxies: config.trusted_proxies.as_slice().into(),
        }
    }

    pub(super) fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        // The bound of 100 fields is the library's own; said here again it would take its room from the heap each time.
        builder.timer(TokioTimer::new()).header_read_timeout(self.head_timeout).max_buf_size(self.max_head);
        builder
    }

    fn http2(&self, streams: Streams) -> http2::Builder<Streams> {
        let mut builder = http2::Builder::new(streams);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.max_streams)
            .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
            .max_local_error_reset_streams(MAX_STREAM_ERRORS)
            .max_send_buf_size(MAX_UNSENT)
            .max_header_list_size(u32::try_from(self.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_TIMEOUT);
        builder
    }
}

/// Serves a listener until `stopped`, then waits for what runs.
pub(super) async fn serve(
    listener: Listener,
    state: Arc<State>,
    limits: Arc<Limits>,
    workers: Arc<Workers>,
    mut stopped: watch::Receiver<bool>,
) {
    let listener = Arc::new(listener);
    loop {
        // The permit first: what cannot be served yet waits in the system's queue.
        let permit = tokio::select! {
            permit = Arc::clone(&limits.places).acquire_owned() => permit,
            () = stop(&mut stopped) => break,
        };
        let Ok(permit) = permit else { break };
        let (stream, peer) = tokio::select! {
            accepted = listener.socket.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop(&mut stopped) => break,
        };
        let _ = stream.set_nodelay(true);
        // It has nothing to do with this thread any more.
        let Ok(stream) = stream.into_std() else { continue };
        let (listener, state, bounds) = (Arc::clone(&listener), Arc::clone(&state), limits.bounds.load_full());
        let stopped = stopped.clone();
        workers.spawn(async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let ended = speak(listener, stream, peer, state, &bounds, stopped, permit).await;
            if let Err(error) = ended {
                tracing::debug!(%peer, error = ?rotogate::fault::Chain(&*error), "a connection ended early");
            }
        });
    }
    drop(listener);
    // Each connection holds its place to the end, also when it was upgraded.
    let _ = limits.places.acquire_many(limits.most.load(Ordering::Relaxed)).await;
}

async fn speak(
    listener: Arc<Listener>,
    stream: TcpStream,
    peer: SocketAddr,
    state: Arc<State>,
    bounds: &Bounds,
    mut stopped: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) -> Result<(), Ended> {
    let established = tokio::select! {
        // The first: a request that is there already is answered.
        biased;
        established = tokio::time::timeout(bounds.head_timeout, listener.establish(stream, peer, bounds)) => established??,
        () = async { stop(&mut stopped).await; tokio::time::sleep(LAST_MOMENT).await } => return Ok(()),
    };
    // Held on to, the socket would stay open as long as the connection, and take others that nobody serves.
    drop(listener);
    let Established { stream, origin, is_http2, place } = established;
    let (origin, seat) = (Arc::new(origin), Seat(Arc::new((permit, place))));
    let streams = Streams::new(bounds.slowest);
    let of_http2 = is_http2.then(|| streams.clone());
    let asked = Arc::new(AtomicBool::new(false));
    let was_asked = Arc::clone(&asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        was_asked.store(true, Ordering::Relaxed);
        // Who upgrades keeps the place of the connection for as long as that lasts.
        if request.headers().contains_key(UPGRADE) {
            request.extensions_mut().insert(seat.clone());
        }
        let unanswered = of_http2.as_ref().map(Streams::unanswered);
        let (state, origin) = (Arc::clone(&state), Arc::clone(&origin));
        // Not in the future: over HTTP/2 that is a task of its own, and one that waits for its turn is under way, too.
        let place = state.enter(&origin, request.headers());
        async move {
            let Ok(response) = request::serve(state, &origin, request, place).await;
            if let Some(unanswered) = unanswered {
                unanswered.answered();
            }
            Ok::<_, Infallible>(response.map(Delivered::new))
        }
    });
    let stream = TokioIo::new(stream);
    // Each by its own builder: one that looks for itself takes the bytes of HTTP/2 where ALPN said HTTP/1.1.
    if is_http2 {
        let connection = bounds.http2(streams.clone()).serve_connection(stream, service);
        watched(connection, &streams, bounds.idle_timeout, stopped).await
    } else {
        let mut connection = pin!(bounds.http1().serve_connection(stream, service).with_upgrades());
        tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = stop(&mut stopped) => {}
        }
        if !asked.load(Ordering::Relaxed) {
            tokio::select! {
                ended = connection.as_mut() => return Ok(ended?),
                () = tokio::time::sleep(LAST_MOMENT) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        Ok(connection.await?)
    }
}

/// Drives an HTTP/2 connection to its end. It is told to go (`GOAWAY`) at a stop, when nothing was asked on it for the
/// idle timeout, and when its client floods it; and cut if that does not help.
async fn watched<S, B>(
    connection: http2::Connection<TokioIo<Stream>, S, Streams>,
    streams: &Streams,
    idle_timeout: Duration,
    mut stopped: watch::Receiver<bool>,
) -> Result<(), Ended>
where
    S: HttpService<Incoming, ResBody = B>,
    S::Future: Send + 'static,
    S::Error: Into<Ended>,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Ended>,
{
    let mut connection = pin!(connection);
    let (mut told_to_go, mut stopping, mut seen) = (false, false, streams.seen());
    loop {
        let why = tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            () = stop(&mut stopped), if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
                continue;
            }
            () = streams.flooded() => "too many requests were reset",
            () = tokio::time::sleep(idle_timeout) => {
                let (before, now) = (seen, streams.seen());
                seen = now;
                if now != before || now.1 {
                    continue;
                }
                "nothing was asked for too long"
            }
        };
        if told_to_go {
            return Err(why.into());
        }
        tracing::debug!(why, "an HTTP/2 connection is told to go");
        told_to_go = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// Ends when the gate is told to stop.
async fn stop(stopped: &mut watch::Receiver<bool>) {
    // An error says that nobody is left to tell: that is a stop, too.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
