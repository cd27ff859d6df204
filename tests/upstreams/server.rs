//! Upstreams that answer with the received request, in clear or over TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::{SinkExt, StreamExt};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::grpc::upstream as rpc;
use support::pki::{Pair, Pki};

type Body = tonic::body::Body;

/// An upstream, which ends when this value is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<State>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
pub(crate) struct State {
    /// The number of requests, except for `/healthz`.
    requests: AtomicUsize,
    connections: AtomicUsize,
    unwell: AtomicBool,
}

impl State {
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Sets the answer of `/healthz`.
    pub(crate) fn is_well(&self, well: bool) {
        self.unwell.store(!well, Ordering::SeqCst);
    }
}

/// The record of a connection.
#[derive(Clone, Default)]
struct Line {
    alpn: String,
    sni: String,
    client_cert: bool,
}

impl Server {
    pub(crate) async fn plain() -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), None)
    }

    /// Starts at the address of another server.
    pub(crate) async fn plain_at(address: SocketAddr, well: bool) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let server = Self::on(socket.listen(64).unwrap(), None);
        server.state.is_well(well);
        server
    }

    pub(crate) async fn secure(pair: &Pair, alpn: &[&str]) -> Self {
        Self::with_tls(pair, alpn, None).await
    }

    /// Clients must have a certificate of this authority.
    pub(crate) async fn mutual(pair: &Pair, clients: &Pki) -> Self {
        Self::with_tls(pair, &["h2", "http/1.1"], Some(clients)).await
    }

    async fn with_tls(pair: &Pair, alpn: &[&str], clients: Option<&Pki>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(clients.root_pem().as_bytes()).unwrap()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let (cert, key) = pair.der();
        let mut config = builder.with_single_cert(vec![cert], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), Some(TlsAcceptor::from(Arc::new(config))))
    }

    fn on(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let (address, state) = (listener.local_addr().unwrap(), Arc::<State>::default());
        let shared = Arc::clone(&state);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                state.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(async move {
                    let Some(tls) = tls else { return serve(stream, Line::default(), state).await };
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let line = Line {
                        alpn: String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned(),
                        sni: session.server_name().unwrap_or_default().to_owned(),
                        client_cert: session.peer_certificates().is_some(),
                    };
                    serve(stream, line, state).await;
                });
            }
        });
        Self { address, state, _tasks: tasks }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, line: Line, state: Arc<State>) {
    let is_h2 = line.alpn == "h2";
    let service = service_fn(move |request| {
        let answer = answer(request, line.clone(), Arc::clone(&state));
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let stream = TokioIo::new(stream);
    if is_h2 {
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await;
    } else {
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(stream, service);
        let _ = connection.with_upgrades().await;
    }
}

async fn answer(request: Request<Incoming>, line: Line, state: Arc<State>) -> Response<Body> {
    if request.uri().path() == "/healthz" {
        let well = !state.unwell.load(Ordering::SeqCst);
        let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        return Response::builder().status(status).body(Body::empty()).unwrap();
    }
    state.requests.fetch_add(1, Ordering::SeqCst);
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    if header("content-type").is_some_and(|kind| kind.starts_with("application/grpc")) {
        return rpc::answer(request).await;
    }
    if header("upgrade").is_some() {
        return socket(request, line);
    }
    let mut said = Response::new(());
    let headers = said.headers_mut();
    for (name, value) in [
        ("x-alpn", line.alpn.clone()),
        ("x-sni", line.sni.clone()),
        ("x-client-cert", line.client_cert.to_string()),
        ("x-version", format!("{:?}", request.version())),
        ("x-host", header("host").unwrap_or_default()),
        ("x-authority", request.uri().authority().map(ToString::to_string).unwrap_or_default()),
        ("x-te", header("te").unwrap_or_default()),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    said.map(|()| Body::new(http_body_util::Full::new(body)))
}

/// A WebSocket that sends each text back, with a description of its connection. The answer to an object has its
/// `requestId`.
fn socket(mut request: Request<Incoming>, line: Line) -> Response<Body> {
    let accept = derive_accept_key(request.headers()["sec-websocket-key"].as_bytes());
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgraded.await else { return };
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text().map(str::to_owned) else { continue };
            if !message.is_text() {
                continue;
            }
            let answer = match serde_json::from_str::<serde_json::Value>(&text) {
                Ok(asked) => serde_json::json!({ "requestId": asked["requestId"], "result": line.alpn }).to_string(),
                Err(_) => format!("{text} over {} to {}", line.alpn, line.sni),
            };
            if socket.send(answer.into()).await.is_err() {
                return;
            }
        }
    });
    Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", accept)
        .body(Body::empty())
        .unwrap()
}
