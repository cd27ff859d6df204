//! The plain proxy: hyper on both sides and keep-alive connections. It removes no header and has no limit and no
//! timeout. The Rust peers are this proxy with a layer around it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::HeaderValue;
use hyper::service::{HttpService, service_fn};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use super::verifier::{Verifier, bearer};

/// Connections to the upstream.
pub struct Upstream<B> {
    address: SocketAddr,
    connections: Mutex<Vec<SendRequest<B>>>,
}

impl<B> Upstream<B>
where
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    pub fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Self { address, connections: Mutex::default() })
    }

    pub async fn forward(&self, request: Request<B>) -> Result<Response<Incoming>> {
        let mut connection = match self.idle() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let response = connection.send_request(request).await?;
        // The connection is free again when the body was read.
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(response)
    }

    fn idle(&self) -> Option<SendRequest<B>> {
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let ready = connections.iter().rposition(SendRequest::is_ready)?;
        Some(connections.swap_remove(ready))
    }

    async fn connect(&self) -> Result<SendRequest<B>> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Serves HTTP/1.1.
pub async fn serve<S, B>(listener: TcpListener, service: S) -> Result<()>
where
    S: HttpService<Incoming, ResBody = B, Error: Into<Box<dyn std::error::Error + Send + Sync>>, Future: Send>
        + Clone
        + Send
        + 'static,
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service.clone()),
        );
    }
}

/// No check at all.
pub async fn plain(listener: TcpListener, upstream: SocketAddr) -> Result<()> {
    let upstream = Upstream::new(upstream);
    let service = service_fn(move |request: Request<Incoming>| {
        let upstream = Arc::clone(&upstream);
        async move { upstream.forward(request).await }
    });
    serve(listener, service).await
}

/// Verifies the token of each request, and sends its subject in a header.
pub async fn verifying(listener: TcpListener, upstream: SocketAddr, verifier: Verifier) -> Result<()> {
    let (upstream, verifier) = (Upstream::new(upstream), Arc::new(verifier));
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (upstream, verifier) = (Arc::clone(&upstream), Arc::clone(&verifier));
        async move {
            let subject = bearer(&request).and_then(|token| verifier.verify(token)).map(|claims| claims.sub);
            let Some(subject) = subject.and_then(|subject| HeaderValue::try_from(subject).ok()) else {
                let mut refused = Response::new(Either::Right(Empty::<Bytes>::new()));
                *refused.status_mut() = StatusCode::UNAUTHORIZED;
                return Ok::<_, anyhow::Error>(refused);
            };
            request.headers_mut().insert("x-auth-subject", subject);
            Ok(upstream.forward(request).await?.map(Either::Left))
        }
    });
    serve(listener, service).await
}

/// The same as an axum handler, for each axum version.
pub async fn forward<B>(
    upstream: Arc<Upstream<B>>,
    request: Request<B>,
    body: fn(Incoming) -> B,
) -> Result<Response<B>, StatusCode>
where
    B: hyper::body::Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    upstream.forward(request).await.map(|response| response.map(body)).map_err(|_| StatusCode::BAD_GATEWAY)
}
