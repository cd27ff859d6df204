//! Sends a request and reads the response.

use std::io::Read;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes};
use flate2::read::MultiGzDecoder;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use hyper::client::conn::http1;
use parking_lot::Mutex;
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use super::connect::{Lookup, System, Watched, connect};
use super::error::{FetchError, FetchErrorKind};
use super::proxy::Proxy;
use super::target::FetchTarget;
use crate::bounds::MAX_ANSWER_HEAD;
use crate::client_tls::{BadTls, Tls};

/// Connections have a maximum age, because the address of a host may change.
const MAX_IDLE: usize = 64;
const MAX_AGE: Duration = Duration::from_secs(60);

#[derive(Default)]
struct IdleConnections(Mutex<Vec<KeptConnection>>);

struct KeptConnection {
    origin: (Option<Scheme>, HeaderValue),
    sender: http1::SendRequest<Full<Bytes>>,
    begun: Instant,
}

impl IdleConnections {
    fn take(&self, target: &FetchTarget) -> Option<KeptConnection> {
        let mut all = self.0.lock();
        all.retain(|kept| !kept.sender.is_closed() && kept.begun.elapsed() < MAX_AGE);
        let place = all.iter().rposition(|kept| kept.origin == origin(target))?;
        Some(all.remove(place))
    }

    fn keep(&self, kept: KeptConnection) {
        let mut all = self.0.lock();
        if all.len() < MAX_IDLE {
            all.push(kept);
        }
    }
}

fn origin(target: &FetchTarget) -> (Option<Scheme>, HeaderValue) {
    (target.uri().scheme().cloned(), target.authority().clone())
}

/// An HTTP client. Clones share the TLS settings and the idle connections.
#[derive(Clone)]
pub struct HttpClient {
    tls: Arc<ClientConfig>,
    lookup: Arc<dyn Lookup>,
    proxy: Option<Proxy>,
    timeout: Duration,
    connect_timeout: Option<Duration>,
    max_size: usize,
    idle: Option<Arc<IdleConnections>>,
}

crate::debug_with!(HttpClient { timeout, max_size });

/// The response to a conditional request.
#[derive(Clone, Debug)]
pub enum Document {
    /// The document is unchanged (304).
    #[non_exhaustive]
    Unchanged {
        /// The headers of the response.
        headers: HeaderMap,
    },
    /// The document (200).
    #[non_exhaustive]
    New {
        /// The headers of the response.
        headers: HeaderMap,
        /// The bytes of the document.
        body: Bytes,
    },
}

/// The value of `Authorization` with a bearer token. Returns `None` if a header cannot contain the token.
pub fn bearer(token: &SecretString) -> Option<HeaderValue> {
    let text = zeroize::Zeroizing::new(format!("Bearer {}", token.expose_secret()));
    let mut value = HeaderValue::from_str(&text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl HttpClient {
    /// Creates a client that trusts the system's certificate authorities. By default, requests are limited to 10 s, and
    /// response bodies to 256 KiB.
    ///
    /// # Errors
    /// The system has no trusted certificate authorities.
    pub fn new() -> Result<Self, BadTls> {
        Self::with_tls(&Tls::default())
    }

    /// Like [`new`](Self::new), with other TLS settings.
    ///
    /// # Errors
    /// A certificate or a key is invalid.
    pub fn with_tls(tls: &Tls) -> Result<Self, BadTls> {
        let tls = tls.config()?;
        let lookup = Arc::new(System);
        Ok(Self {
            tls,
            lookup,
            proxy: None,
            timeout: Duration::from_secs(10),
            connect_timeout: None,
            max_size: 256 << 10,
            idle: None,
        })
    }

    /// Keeps connections open for further requests. A request that fails on a kept connection is sent again. Use this
    /// only for requests that may arrive twice.
    #[must_use]
    pub fn kept_alive(mut self) -> Self {
        self.idle = Some(Arc::default());
        self
    }

    /// Sets the time limit for a whole request.
    #[must_use]
    pub const fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The time limit for a whole request.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets a shorter time limit for name resolution, connecting and TLS.
    #[must_use]
    pub const fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sets the longest accepted body of a response, in bytes.
    #[must_use]
    pub const fn with_max_size(mut self, max_size: usize) -> Self {
        self.max_size = max_size;
        self
    }

    /// Connects to other machines through this proxy.
    #[must_use]
    pub fn with_proxy(mut self, proxy: Option<Proxy>) -> Self {
        self.proxy = proxy;
        self
    }

    /// Resolves names with this resolver instead of the system's.
    #[must_use]
    pub fn with_lookup(mut self, lookup: Arc<dyn Lookup>) -> Self {
        self.lookup = lookup;
        self
    }

    /// Resolves the target's host, for [`Allowed::by_issuer`](super::Allowed::by_issuer).
    ///
    /// # Errors
    /// The name cannot be resolved in time.
    pub async fn addresses(&self, target: &FetchTarget) -> Result<Vec<std::net::IpAddr>, FetchError> {
        if let Some(address) = super::address::literal(target.host()) {
            return Ok(vec![address]);
        }
        let failed = |kind, cause| FetchError::new(kind, target.shown(), cause).with_not_sent(true);
        match tokio::time::timeout(self.timeout, self.lookup.addresses(target.host())).await {
            Ok(found) => found.map_err(|error| failed(FetchErrorKind::Dns, error.to_string())),
            Err(_) => {
                Err(failed(FetchErrorKind::Timeout, format!("the name was not resolved within {:?}", self.timeout)))
            }
        }
    }

    /// Fetches a document. With an `etag`, the result may be [`Document::Unchanged`].
    ///
    /// # Errors
    /// There is no usable response.
    pub async fn get_document(
        &self,
        target: &FetchTarget,
        etag: Option<&HeaderValue>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Document, FetchError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, */*;q=0.1"));
        let given = [(header::IF_NONE_MATCH, etag), (header::AUTHORIZATION, authorization)];
        headers.extend(given.into_iter().filter_map(|(name, value)| Some((name, value?.clone()))));
        let (parts, body) = self.send(target, Method::GET, headers, Bytes::new()).await?.into_parts();
        match parts.status {
            StatusCode::OK => Ok(Document::New { headers: parts.headers, body }),
            StatusCode::NOT_MODIFIED if etag.is_some() => Ok(Document::Unchanged { headers: parts.headers }),
            status => {
                let error = FetchError::new(FetchErrorKind::Status, target.shown(), format!("answered {status}"));
                Err(error.with_status(status))
            }
        }
    }

    /// Sends a request and reads the whole response. The caller must check the status, because only informational
    /// responses and redirects are errors.
    ///
    /// # Errors
    /// No usable response arrived. [`FetchError::not_sent`] returns whether the request can safely be sent again.
    pub async fn send(
        &self,
        target: &FetchTarget,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Bytes>, FetchError> {
        let written = Arc::new(AtomicBool::new(false));
        let exchange = self.exchange(target, request(target, method, headers, body), &written);
        self.within(target, exchange, &written).await
    }

    /// Sets `written` once a byte of the request was sent.
    async fn within<T>(
        &self,
        target: &FetchTarget,
        exchange: impl Future<Output = Result<T, FetchError>>,
        written: &AtomicBool,
    ) -> Result<T, FetchError> {
        let answer = tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            let cause = format!("no complete response within {:?}", self.timeout);
            Err(FetchError::new(FetchErrorKind::Timeout, target.shown(), cause))
        });
        answer.map_err(|error| error.with_not_sent(!written.load(Ordering::Relaxed)))
    }

    /// Like [`send`](Self::send) over HTTP/2, and also returns the trailers, which gRPC needs. Without TLS, the server
    /// must support HTTP/2 with prior knowledge.
    ///
    /// # Errors
    /// The errors of [`send`](Self::send).
    #[cfg(feature = "grpc")]
    pub async fn send_http2(
        &self,
        target: &FetchTarget,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(Response<Bytes>, Option<HeaderMap>), FetchError> {
        let written = Arc::new(AtomicBool::new(false));
        let exchange = self.exchange_http2(target, method, headers, body, &written);
        self.within(target, exchange, &written).await
    }

    #[cfg(feature = "grpc")]
    async fn exchange_http2(
        &self,
        target: &FetchTarget,
        method: Method,
        headers: HeaderMap,
        body: Bytes,
        written: &Arc<AtomicBool>,
    ) -> Result<(Response<Bytes>, Option<HeaderMap>), FetchError> {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let stream = connect(target, self.proxy.as_ref(), Arc::clone(&self.lookup), Arc::new(tls)).await?;
        let stream = Watched::new(stream, Arc::clone(written));
        let failed = |error: hyper::Error| FetchError::new(FetchErrorKind::Http, target.shown(), causes(&error));
        let handshake = hyper::client::conn::http2::Builder::new(hyper_util::rt::TokioExecutor::new())
            .max_header_list_size(u32::try_from(MAX_ANSWER_HEAD).unwrap_or(u32::MAX))
            .handshake(stream);
        let (mut sender, connection) = handshake.await.map_err(failed)?;
        let mut request = request(target, method, headers, body);
        // HTTP/2 carries the host in `:authority`, and has no `Connection` header.
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::CONNECTION);
        *request.uri_mut() = target.uri().clone();
        let answer = async {
            let (parts, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
            let collected = match Limited::new(body, self.max_size).collect().await {
                Ok(collected) => collected,
                Err(error) => {
                    let kind =
                        if error.is::<LengthLimitError>() { FetchErrorKind::TooLarge } else { FetchErrorKind::Http };
                    return Err(FetchError::new(kind, target.shown(), causes(&*error)));
                }
            };
            let trailers = collected.trailers().cloned();
            Ok((Response::from_parts(parts, collected.to_bytes()), trailers))
        };
        drive(connection, answer).await
    }

    async fn exchange(
        &self,
        target: &FetchTarget,
        request: Request<Full<Bytes>>,
        written: &Arc<AtomicBool>,
    ) -> Result<Response<Bytes>, FetchError> {
        if let Some(idle) = &self.idle {
            let mut request = request.clone();
            request.headers_mut().remove(header::CONNECTION);
            while let Some(mut kept) = idle.take(target) {
                if let Ok(response) = kept.sender.send_request(request.clone()).await {
                    written.store(true, Ordering::Relaxed);
                    let answer = self.read(target, response).await?;
                    idle.keep(kept);
                    return Ok(answer);
                }
            }
        }
        let within = self.connect_timeout.unwrap_or(self.timeout);
        let connecting = connect(target, self.proxy.as_ref(), Arc::clone(&self.lookup), Arc::clone(&self.tls));
        let stream = tokio::time::timeout(within, connecting).await.unwrap_or_else(|_| {
            let cause = format!("no connection within {within:?}");
            Err(FetchError::new(FetchErrorKind::Timeout, target.shown(), cause))
        })?;
        let stream = Watched::new(stream, Arc::clone(written));
        let failed = |error: hyper::Error| {
            let kind = if error.is_parse_too_large() { FetchErrorKind::TooLarge } else { FetchErrorKind::Http };
            FetchError::new(kind, target.shown(), causes(&error))
        };
        let (mut sender, connection) =
            http1::Builder::new().max_buf_size(MAX_ANSWER_HEAD).handshake(stream).await.map_err(failed)?;
        let Some(idle) = &self.idle else {
            let answer = async {
                let response = sender.send_request(request).await.map_err(failed)?;
                self.read(target, response).await
            };
            return drive(connection, answer).await;
        };
        let mut request = request;
        request.headers_mut().remove(header::CONNECTION);
        // The connection's task ends when its sender is dropped or when the server closes the connection.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(failed)?;
        let answer = self.read(target, response).await?;
        idle.keep(KeptConnection { origin: origin(target), sender, begun: Instant::now() });
        Ok(answer)
    }

    async fn read(
        &self,
        target: &FetchTarget,
        response: Response<hyper::body::Incoming>,
    ) -> Result<Response<Bytes>, FetchError> {
        let failed = |kind, cause: String| Err(FetchError::new(kind, target.shown(), cause));
        let (parts, body) = response.into_parts();
        let status = parts.status;
        if status.is_informational() {
            return failed(FetchErrorKind::Http, format!("answered {status}, which is not a final status"));
        }
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let location = parts.headers.get(header::LOCATION).and_then(|value| Uri::try_from(value.as_bytes()).ok());
            // Only the host is logged, because the rest may contain secrets.
            let host = location.as_ref().and_then(Uri::host).unwrap_or("the same host");
            return failed(
                FetchErrorKind::Redirect,
                format!("answered with a redirect to {host} ({status}), but redirects are not followed"),
            );
        }
        let Some(coding) = Coding::in_headers(&parts.headers) else {
            let cause = "the response has an unsupported content-encoding; expected gzip or none".to_owned();
            return failed(FetchErrorKind::Encoding, cause);
        };
        let too_large =
            || failed(FetchErrorKind::TooLarge, format!("the response is longer than {} bytes", self.max_size));
        if usize::try_from(body.size_hint().lower()).map_or(true, |length| length > self.max_size) {
            return too_large();
        }
        match Limited::new(body, self.max_size).collect().await {
            Ok(body) => match coding.decode(body.to_bytes(), self.max_size) {
                Ok(body) => Ok(Response::from_parts(parts, without_mark(body))),
                Err(Undecoded::TooLong) => too_large(),
                Err(Undecoded::Broken(error)) => {
                    failed(FetchErrorKind::Encoding, format!("the response is not valid gzip: {error}"))
                }
            },
            Err(error) if error.is::<LengthLimitError>() => too_large(),
            Err(error) => failed(FetchErrorKind::Http, causes(&*error)),
        }
    }
}

/// The coding of a response. Some caches compress responses, although the gate's requests do not accept compression.
#[derive(Clone, Copy)]
enum Coding {
    Identity,
    Gzip,
}

enum Undecoded {
    TooLong,
    Broken(std::io::Error),
}

impl Coding {
    /// Returns `None` for an unsupported coding (RFC 9110 §8.4.1).
    fn in_headers(headers: &HeaderMap) -> Option<Self> {
        let mut coding = Self::Identity;
        for line in headers.get_all(header::CONTENT_ENCODING) {
            for name in line.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                coding = match coding {
                    coding if name.eq_ignore_ascii_case("identity") => coding,
                    Self::Identity if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => {
                        Self::Gzip
                    }
                    Self::Identity | Self::Gzip => return None,
                };
            }
        }
        Some(coding)
    }

    fn decode(self, body: Bytes, max_size: usize) -> Result<Bytes, Undecoded> {
        match self {
            Self::Identity => Ok(body),
            Self::Gzip => {
                let mut decoded = Vec::new();
                let bound = u64::try_from(max_size).unwrap_or(u64::MAX).saturating_add(1);
                let read = MultiGzDecoder::new(&*body).take(bound).read_to_end(&mut decoded);
                read.map_err(Undecoded::Broken)?;
                if decoded.len() > max_size { Err(Undecoded::TooLong) } else { Ok(decoded.into()) }
            }
        }
    }
}

/// Removes a byte order mark, which a JSON parser may ignore (RFC 8259 §8.1).
fn without_mark(mut body: Bytes) -> Bytes {
    if body.starts_with("\u{feff}".as_bytes()) {
        body.advance("\u{feff}".len());
    }
    body
}

fn request(target: &FetchTarget, method: Method, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(target.path().clone());
    *request.headers_mut() = headers;
    let fixed = [
        (header::HOST, target.authority().clone()),
        (header::ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        (header::CONNECTION, HeaderValue::from_static("close")),
        (header::USER_AGENT, HeaderValue::from_static("rotogate")),
    ];
    for (name, value) in fixed {
        request.headers_mut().insert(name, value);
    }
    request
}

fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let all = std::iter::successors(Some(error), |error| error.source());
    all.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
/// Polls the connection and the response together, without an extra task.
async fn drive<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    let driven = async {
        connection.await;
        std::future::pending().await
    };
    let (answer, driven) = (pin!(answer), pin!(driven));
    tokio::select! {
        answer = answer => answer,
        never = driven => never,
    }
}
