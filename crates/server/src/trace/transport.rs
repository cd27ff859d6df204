//! Connections to a collector, with the gate's own TLS settings.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use http::header::{HOST, HeaderMap, HeaderValue};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request as GrpcRequest, Status};

use super::Credentials;
use rotogate_kit::upstream_tls::server_name;

const MAX_ANSWER: usize = 256 << 10;

type CollectorStream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Connects to the collector. Ignores the request's URI.
#[derive(Clone)]
pub(super) struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Connector {
    /// `alpn` is the only protocol to negotiate.
    fn new(endpoint: &Uri, credentials: &Credentials, alpn: &[u8]) -> Result<Self, String> {
        let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let tls = match &credentials.tls {
            None => None,
            Some(config) => {
                let mut config = config.clone();
                config.alpn_protocols = vec![alpn.to_vec()];
                Some((TlsConnector::from(Arc::new(config)), server_name(&host)?))
            }
        };
        let port = endpoint.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
        Ok(Self { host, port, tls })
    }

    async fn connect(self) -> io::Result<CollectorStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match self.tls {
            None => Either::Left(stream),
            Some((connector, name)) => Either::Right(Box::new(connector.connect(name, stream).await?)),
        })
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<CollectorStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<CollectorStream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connecting = self.clone().connect();
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}

/// Sends batches over HTTP/1.1. Each batch gets a new connection, because there is at most one batch per second.
pub(super) struct OtlpHttp {
    connector: Connector,
    headers: HeaderMap,
}

rotogate_core::debug_with!(OtlpHttp);

impl OtlpHttp {
    pub(super) fn new(endpoint: &Uri, credentials: &Credentials) -> Result<Self, String> {
        Ok(Self {
            connector: Connector::new(endpoint, credentials, b"http/1.1")?,
            headers: credentials.headers.clone(),
        })
    }
}

#[async_trait]
impl HttpClient for OtlpHttp {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = request.map(Full::new);
        let authority = request.uri().authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(authority)?;
        let path = request.uri().path().parse()?;
        *request.uri_mut() = path;
        request.headers_mut().insert(HOST, host);
        // These headers take precedence over OTEL_EXPORTER_OTLP_HEADERS.
        for (name, value) in &self.headers {
            request.headers_mut().insert(name, value.clone());
        }
        let stream = TokioIo::new(self.connector.clone().connect().await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
        let answer = async {
            let (parts, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?;
            Ok(Response::from_parts(parts, body.to_bytes()))
        };
        // This future drives the connection, and closes it when dropped.
        let driven = async {
            let _ = connection.await;
            std::future::pending().await
        };
        tokio::select! {
            answer = answer => answer,
            never = driven => never,
        }
    }
}

/// Returns a channel that connects at its first use, and again after a lost connection. Needs a Tokio runtime.
pub(super) fn channel(endpoint: &Uri, credentials: &Credentials) -> Result<Channel, String> {
    let connector = Connector::new(endpoint, credentials, b"h2")?;
    // The scheme is http, because the connector already provides TLS.
    let authority = endpoint.authority().map_or("", |authority| authority.as_str());
    let plain = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| error.to_string())?;
    Ok(plain.origin(endpoint.clone()).connect_with_connector_lazy(connector))
}

pub(super) fn with_headers(
    headers: HeaderMap,
) -> impl FnMut(GrpcRequest<()>) -> Result<GrpcRequest<()>, Status> + Clone + Send + Sync + 'static {
    move |mut call| {
        let mut all = std::mem::take(call.metadata_mut()).into_headers();
        for (name, value) in &headers {
            all.insert(name, value.clone());
        }
        *call.metadata_mut() = MetadataMap::from_headers(all);
        Ok(call)
    }
}
