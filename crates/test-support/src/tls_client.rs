use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Answer;
use crate::pki::{Pair, Pki};

#[derive(Clone)]
pub struct Client {
    pub config: ClientConfig,
}

impl Client {
    /// Makes a client that trusts the authority and offers these ALPN protocols.
    pub fn new(pki: &Pki, protocols: &[&str]) -> Self {
        Self::with(pki, protocols, None)
    }

    pub fn with(pki: &Pki, protocols: &[&str], pair: Option<&Pair>) -> Self {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let builder = builder.with_root_certificates(pki.roots());
        let mut config = match pair {
            None => builder.with_no_client_auth(),
            Some(pair) => {
                let (cert, key) = pair.der();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { config }
    }

    /// Connects to the server with this name. If the name is an IP address, the client sends no server name (SNI).
    pub async fn connect(&self, to: SocketAddr, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        self.connect_over(TcpStream::connect(to).await?, name).await
    }

    /// Connects over a stream on which bytes were already sent.
    pub async fn connect_over(&self, stream: TcpStream, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(self.config.clone())).connect(name, stream).await
    }

    pub async fn open(&self, to: SocketAddr, name: &str) -> std::io::Result<Connection> {
        Ok(Connection::over(self.connect(to, name).await?).await)
    }
}

/// Returns why a connection was refused. In TLS 1.3, the refusal may arrive only with the first read.
pub async fn refusal(connected: std::io::Result<TlsStream<TcpStream>>) -> String {
    use tokio::io::AsyncReadExt;
    match connected {
        Err(error) => error.to_string(),
        Ok(mut stream) => match stream.read(&mut [0; 1]).await {
            Err(error) => error.to_string(),
            Ok(read) => panic!("not refused: {read} bytes came"),
        },
    }
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

pub struct Connection {
    sender: Sender,
    /// The server's certificate, which is empty without TLS.
    pub certificate: CertificateDer<'static>,
}

impl Connection {
    pub async fn over(stream: TlsStream<TcpStream>) -> Self {
        let (_, session) = stream.get_ref();
        let certificate = session.peer_certificates().unwrap()[0].clone().into_owned();
        let is_http2 = session.alpn_protocol() == Some(b"h2");
        let stream = TokioIo::new(stream);
        let sender = if is_http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = http1::handshake(stream).await.unwrap();
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        Self { sender, certificate }
    }

    pub async fn h1(to: SocketAddr) -> Self {
        Self::h1_over(TcpStream::connect(to).await.unwrap()).await
    }

    /// Opens an HTTP/1.1 connection over a stream on which bytes were already sent.
    pub async fn h1_over(stream: TcpStream) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender: Sender::Http1(sender), certificate: Vec::new().into() }
    }

    pub async fn h2c(to: SocketAddr) -> Self {
        let stream = TokioIo::new(TcpStream::connect(to).await.unwrap());
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        Self { sender: Sender::Http2(sender), certificate: Vec::new().into() }
    }

    pub fn is_http2(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }

    pub async fn get(&mut self, host: &str, path: &str) -> hyper::Result<Answer> {
        let request = match &self.sender {
            Sender::Http1(_) => Request::get(path).header("host", host),
            Sender::Http2(_) => Request::get(format!("https://{host}{path}")),
        };
        let response = self.send(request.body(Full::default()).unwrap()).await?;
        let (parts, body) = response.into_parts();
        Ok(Answer { status: parts.status, headers: parts.headers, body: body.collect().await?.to_bytes() })
    }
}
