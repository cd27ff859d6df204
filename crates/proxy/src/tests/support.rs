//! Upstreams for tests: real sockets, and peers that behave as badly as a test needs.

use rotogate_core::route::{RoutePolicy, UpstreamId};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::pool::RequestHolders;
use crate::{Proxy, ProxyBody, Settings, Upstream};
use rotogate_core::headers::Peer;

/// The size of the socket buffers in tests that count bytes in flight.
const SOCKET_BUFFER: usize = 64 * 1024;

/// An upstream that passes each connection to `serve`, with its number from 0.
pub(super) async fn raw<F, S>(serve: S) -> SocketAddr
where
    S: Fn(usize, TcpStream) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    // The size is fixed, because otherwise the kernel grows the buffers to tens of megabytes, and a test cannot find
    // out where the bytes are.
    socket.set_recv_buffer_size(SOCKET_BUFFER as u32).unwrap();
    socket.set_send_buffer_size(SOCKET_BUFFER as u32).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(64).unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(number, stream));
        }
    });
    address
}

/// An upstream that answers HTTP requests with `answer`.
pub(super) async fn http<A, F, B>(answer: A) -> SocketAddr
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    raw(move |_, stream| {
        let answer = answer.clone();
        async move {
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, std::convert::Infallible>(answered.await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await
}

/// The proxy itself, as a server in front of its first upstream.
pub(super) async fn serve(proxy: Proxy) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, peer) = listener.accept().await.unwrap();
            let proxy = proxy.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer::new(peer.ip(), false));
                proxy.forward(UpstreamId::new(0), &RoutePolicy::default(), request, None, RequestHolders::default())
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

/// Reads to the end of a head.
pub(super) async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

/// Answers with an empty 200.
pub(super) async fn answer_empty(stream: &mut TcpStream) {
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
}

pub(super) fn proxy(address: SocketAddr) -> Proxy {
    proxy_with(&[&format!("http://{address}")], Settings::default())
}

/// A proxy whose sockets buffer little, so that buffered bytes are in the proxy.
pub(super) fn proxy_with_small_sockets(address: SocketAddr) -> Proxy {
    let settings = Settings { socket_buffer: Some(SOCKET_BUFFER as u32), ..Settings::default() };
    proxy_with(&[&format!("http://{address}")], settings)
}

pub(super) fn proxy_with(urls: &[&str], settings: Settings) -> Proxy {
    Proxy::new(vec![upstream(urls)], settings).unwrap()
}

/// An upstream with the defaults, except for the host.
pub(super) fn upstream(urls: &[&str]) -> Upstream {
    let urls = urls.iter().map(|url| url.parse().unwrap()).collect();
    Upstream { preserve_host: true, ..Upstream::new("app", urls) }
}

pub(super) fn request<B>(
    method: Method,
    target: &str,
    headers: &[(&'static str, &'static str)],
    body: B,
) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().unwrap();
    request.headers_mut().insert("host", "api.test".parse().unwrap());
    for (name, value) in headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    request.extensions_mut().insert(Peer::new("192.0.2.7".parse().unwrap(), true));
    request
}

pub(super) fn get(target: &str, headers: &[(&'static str, &'static str)]) -> Request<Empty<Bytes>> {
    request(Method::GET, target, headers, Empty::new())
}

pub(super) async fn forward<B>(proxy: &Proxy, request: Request<B>) -> Response<ProxyBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<crate::BoxError>,
{
    let Ok(response) =
        proxy.forward(UpstreamId::new(0), &RoutePolicy::default(), request, None, RequestHolders::default()).await;
    response
}

pub(super) async fn text(response: Response<ProxyBody>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The request heads that an upstream received.
pub(super) type Seen = Arc<std::sync::Mutex<Vec<(Method, String, HeaderMap)>>>;

/// An upstream that records the heads and sends the bodies back.
pub(super) async fn mirror() -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let note = Arc::clone(&seen);
    let address = http(move |request: Request<Incoming>| {
        let note = Arc::clone(&note);
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            note.lock().unwrap().push((parts.method, parts.uri.to_string(), parts.headers));
            Response::new(Full::new(body))
        }
    })
    .await;
    (address, seen)
}
