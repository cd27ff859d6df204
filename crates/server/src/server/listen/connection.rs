//! Accepts and serves connections. ALPN selects the HTTP version over TLS. Without TLS, HTTP/2 needs prior knowledge
//! (RFC 9113 §3.3).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{HttpService, Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::conditions::ConnectionConditions;
use super::connection_counts::RejectCause;
use super::gather::{GatheredStream, poll_gathered};
use super::h2::{H2Streams, TrackedBody};
use super::limits::{Bounds, Limits};
use super::listener::{Listener, NewConnection};
use super::once_woken::OnceWoken;
use super::origin::Origin;
use super::stream::Stream;
use super::unread::what_is_wrong;
use super::workers::Workers;
use rotogate_core::headers::Present;
use rotogate_kit::lazy_sleep::ConnectionTimer;
use rotogate_proxy::ConnectionPermit;

/// The pause after a failed `accept`, for example without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The maximum number of early stream resets or stream errors by a client. Beyond this number, the connection ends with
/// `ENHANCE_YOUR_CALM`.
const MAX_UNSEEN_RESETS: usize = 20;
const MAX_STREAM_ERRORS: usize = 100;
/// The maximum buffered bytes per response. A connection may have a hundred such buffers.
const MAX_UNSENT_BYTES: usize = 64 * 1024;
/// The interval of HTTP/2 pings, and the time limit for a reply.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a new connection may wait for its first request while the gate stops.
const STOP_GRACE: Duration = Duration::from_millis(500);

pub(crate) type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

pub(crate) trait RequestHandler: Clone + Send + 'static {
    type Body: Body<Data: Send, Error: Into<ConnectionError>> + Send + 'static;
    type Reply: Future<Output = Result<Response<Self::Body>, Infallible>> + Send + 'static;

    fn handle(&self, origin: &Arc<Origin>, request: Request<Incoming>, present: Present) -> Self::Reply;

    /// Records a request head that hyper rejected.
    fn unread(&self, origin: &Origin, status: StatusCode, what: &'static str);
}

fn http1_builder(bounds: &Bounds) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper's default is 100 header fields. A custom limit would cost an allocation for each request.
    builder.timer(ConnectionTimer::default()).header_read_timeout(bounds.head_timeout).max_buf_size(bounds.max_head);
    builder
}

fn http2_builder(bounds: &Bounds, streams: H2Streams) -> http2::Builder<H2Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(bounds.max_streams)
        .max_pending_accept_reset_streams(MAX_UNSEEN_RESETS)
        .max_local_error_reset_streams(MAX_STREAM_ERRORS)
        .max_send_buf_size(MAX_UNSENT_BYTES)
        .max_header_list_size(u32::try_from(bounds.max_head).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

pub(crate) async fn serve(
    listener: Listener,
    handler: impl RequestHandler,
    limits: Arc<Limits>,
    workers: Arc<Workers>,
    mut stopped: watch::Receiver<bool>,
) {
    let listener = Arc::new(listener);
    loop {
        // The permit is taken before a connection is accepted. Further connections wait in the backlog.
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
        // Detaches the socket from this thread's runtime, because a worker serves it.
        let Ok(stream) = stream.into_std() else { continue };
        let (listener, handler, bounds) = (Arc::clone(&listener), handler.clone(), limits.bounds());
        let stopped = stopped.clone();
        workers.spawn(async move {
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let ended = serve_connection(listener, (stream, peer), handler, bounds, stopped, permit).await;
            if let Err(error) = ended {
                tracing::debug!(%peer, error = ?rotogate_core::fault::Chain(&*error), "connection ended early");
            }
        });
    }
    drop(listener);
    // Connections keep their permits until they end, even if upgraded.
    let _ = limits.permits.acquire_many(limits.max()).await;
}

async fn serve_connection(
    listener: Arc<Listener>,
    (stream, peer): (TcpStream, SocketAddr),
    handler: impl RequestHandler,
    bounds: watch::Receiver<Arc<Bounds>>,
    mut stopped: watch::Receiver<bool>,
    permit: OwnedSemaphorePermit,
) -> Result<(), ConnectionError> {
    // The connection keeps its initial limits.
    let (replaced, bounds) = (bounds.clone(), bounds.borrow().clone());
    let open = listener.counts().accept();
    let established = tokio::select! {
        // `biased` polls the connection first, so that a request that has already arrived is handled.
        biased;
        established = establish(&listener, stream, peer, &bounds) => established?,
        () = async { until_stopped(&mut stopped).await; tokio::time::sleep(STOP_GRACE).await } => return Ok(()),
    };
    let open = open.established(established.is_http2);
    // The listening socket would otherwise stay open although no task accepts from it.
    drop(listener);
    let NewConnection { stream, mut origin, is_http2, permit: address_permit, mut conditions, carried_by } =
        established;
    if let Some(proxy) = carried_by {
        conditions.add_proxy(proxy, replaced);
    }
    origin.owed = Arc::clone(stream.owed());
    let (origin, permit) = (Arc::new(origin), ConnectionPermit(Arc::new((permit, address_permit, open))));
    let streams = H2Streams::new(bounds.min_rate);
    let of_http2 = is_http2.then(|| streams.clone());
    let (handler_of_unread, origin_of_unread) = (handler.clone(), Arc::clone(&origin));
    let asked = Arc::new(AtomicBool::new(false));
    let was_asked = Arc::clone(&asked);
    let service = service_fn(move |mut request: Request<Incoming>| {
        was_asked.store(true, Ordering::Relaxed);
        // An upgraded connection keeps its permit.
        let present = Present::in_headers(request.headers());
        if present.upgrade {
            request.extensions_mut().insert(permit.clone());
        }
        let pending = of_http2.as_ref().map(H2Streams::pending_reply);
        // `handle` is called outside the future, because an HTTP/2 request must count as in flight before its task
        // runs.
        let is_bare = pending.is_some() && request.method() == Method::HEAD;
        let owed = pending.is_none().then(|| {
            origin.owed.begin(request.body().is_end_stream());
            Arc::clone(&origin.owed)
        });
        handler.handle(&origin, request, present).map(move |answered| {
            let Ok(response) = answered;
            if let Some(pending) = pending {
                pending.complete();
            }
            Ok::<_, Infallible>(response.map(|body| TrackedBody::new(body, owed, is_bare)))
        })
    });
    // hyper's automatic builder would accept HTTP/2 where ALPN chose HTTP/1.1.
    if is_http2 {
        // The future is boxed, because a request is copied several times until its task runs.
        let service = service_fn(move |request| Service::call(&service, request).boxed());
        let stream = TokioIo::new(GatheredStream::new(stream, streams.clone()));
        let connection = http2_builder(&bounds, streams.clone()).serve_connection(stream, service);
        drive_http2(connection, &streams, bounds.idle_timeout, (stopped, conditions)).await
    } else {
        let connection = http1_builder(&bounds).serve_connection(TokioIo::new(stream), service).with_upgrades();
        let ended = drive_http1(connection, &asked, (stopped, conditions)).await;
        let refused = ended.as_ref().err().and_then(|error| error.downcast_ref());
        if let Some((status, what)) = refused.and_then(what_is_wrong) {
            handler_of_unread.unread(&origin_of_unread, status, what);
        }
        ended
    }
}

/// Sets up a connection within `head_timeout`, or counts it as rejected.
async fn establish(
    listener: &Listener,
    stream: TcpStream,
    peer: SocketAddr,
    bounds: &Bounds,
) -> Result<NewConnection, ConnectionError> {
    match tokio::time::timeout(bounds.head_timeout, listener.establish(stream, peer, bounds)).await {
        Ok(Ok(established)) => Ok(established),
        Ok(Err(error)) => {
            listener.counts().reject(error.cause);
            Err(error.into())
        }
        Err(elapsed) => {
            listener.counts().reject(RejectCause::HeadTimeout);
            Err(elapsed.into())
        }
    }
}

/// Drives an HTTP/1.1 connection. When the gate stops, a new connection still gets a short time for its first request.
async fn drive_http1<S, B>(
    connection: http1::UpgradeableConnection<TokioIo<Stream>, S>,
    asked: &AtomicBool,
    (mut stopped, mut conditions): (watch::Receiver<bool>, ConnectionConditions),
) -> Result<(), ConnectionError>
where
    S: HttpService<Incoming, ResBody = B, Error: Into<ConnectionError>>,
    B: Body<Error: Into<ConnectionError>> + 'static,
{
    let mut connection = pin!(connection);
    let is_stop = tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        is_stop = OnceWoken::new(until_over(&mut stopped, &mut conditions)) => is_stop,
    };
    if is_stop && !asked.load(Ordering::Relaxed) {
        tokio::select! {
            // `biased` polls the connection first, so that a request that has already arrived is handled.
            biased;
            ended = connection.as_mut() => return Ok(ended?),
            () = tokio::time::sleep(STOP_GRACE) => {}
        }
    }
    connection.as_mut().graceful_shutdown();
    Ok(connection.await?)
}

/// Drives an HTTP/2 connection, and decides when to send `GOAWAY`.
async fn drive_http2<S, B>(
    connection: http2::Connection<TokioIo<GatheredStream<Stream>>, S, H2Streams>,
    streams: &H2Streams,
    idle_timeout: Duration,
    (mut stopped, mut conditions): (watch::Receiver<bool>, ConnectionConditions),
) -> Result<(), ConnectionError>
where
    S: HttpService<Incoming, ResBody = B, Future: Send + 'static, Error: Into<ConnectionError>>,
    B: Body<Data: Send, Error: Into<ConnectionError>> + Send + 'static,
{
    let mut connection = pin!(connection);
    let (mut is_going_away, mut stopping, mut seen) = (false, false, streams.activity());
    loop {
        let why = tokio::select! {
            ended = poll_gathered(connection.as_mut(), streams) => return Ok(ended?),
            _ = until_over(&mut stopped, &mut conditions), if !stopping => {
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
        tracing::debug!(why, "the gate sent GOAWAY on an HTTP/2 connection");
        is_going_away = true;
        connection.as_mut().graceful_shutdown();
    }
}

/// Resolves when the connection must not serve further requests. Returns true if the gate stops, and false otherwise.
async fn until_over(stopped: &mut watch::Receiver<bool>, conditions: &mut ConnectionConditions) -> bool {
    tokio::select! {
        () = until_stopped(stopped) => true,
        () = conditions.ended() => false,
    }
}

async fn until_stopped(stopped: &mut watch::Receiver<bool>) {
    // A dropped sender also means that the gate stops.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}
