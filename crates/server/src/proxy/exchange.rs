//! One request and its answer: the head as the upstream is to see it, the attempts, and the head that comes back.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::address::Address;
use super::body::{BodyError, Exchange, Lent, Progress, ProxyBody, RequestBody, Sent};
use super::dial::Holding;
use super::error::ProxyError;
use super::http1::InUse;
use super::pool::{Pool, Whose};
use super::upgrade::Wanted;
use super::url::UpstreamUrl;
use super::{Inner, echo};
use rotogate::headers::{self, Peer};
use rotogate::reply;
use rotogate::route::path::CanonicalPath;

/// At so many addresses a request is tried before it fails, whatever was wrong with them.
const MOST_ADDRESSES: usize = 3;

/// A request as far as it does not depend on the address.
#[derive(Clone)]
struct Asked {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    /// What the client called us.
    host: Option<HeaderValue>,
}

/// Why an attempt was not answered.
struct Failure {
    kind: ProxyError,
    /// Nothing of the request was written.
    unsent: bool,
    /// The connection was lost before anything of the response came.
    lost: bool,
    what: String,
}

/// A request that was not answered.
pub(super) struct NotSent {
    pub(super) kind: ProxyError,
    pub(super) sent: Sent,
}

impl From<ProxyError> for NotSent {
    fn from(kind: ProxyError) -> Self {
        Self { kind, sent: Sent::default() }
    }
}

impl Inner {
    pub(super) async fn send(
        &self,
        pool: &Arc<Pool>,
        parts: Parts,
        body: RequestBody,
        upgrade: Option<Wanted>,
        whose: Whose,
    ) -> Result<Response<ProxyBody>, NotSent> {
        let (asked, room) = self.prepare(parts)?;
        let begun = Instant::now();
        let mut sent = Sent::default();
        let answered = self.attempts(pool, asked, body, upgrade, whose, &mut sent).await;
        sent.took = begun.elapsed();
        match answered {
            Ok(mut response) => {
                response.body_mut().sent = sent;
                if response.extensions().is_empty() {
                    *response.extensions_mut() = room;
                }
                Ok(response)
            }
            Err(kind) => {
                // What failed at an address was said there.
                if kind == ProxyError::Overloaded {
                    tracing::warn!(
                        upstream = pool.upstream.name,
                        reason = kind.reason(),
                        detail = kind.detail(),
                        "not forwarded"
                    );
                }
                Err(NotSent { kind, sent })
            }
        }
    }

    /// Sends it, and again where the rules of the module allow that.
    async fn attempts(
        &self,
        pool: &Arc<Pool>,
        asked: Asked,
        mut body: RequestBody,
        upgrade: Option<Wanted>,
        whose: Whose,
        told: &mut Sent,
    ) -> Result<Response<ProxyBody>, ProxyError> {
        let mut repeatable = body.is_end_stream() && asked.method.is_idempotent();
        let mut tried: Vec<Arc<Address>> = Vec::new();
        let Some(mut in_flight) = pool.enter(&tried, whose).await? else {
            tracing::error!(upstream = pool.upstream.name, "an upstream has no address");
            return Err(ProxyError::Miswired);
        };
        // Where it cannot be sent twice, nothing is kept of it.
        let kept = (repeatable || pool.all().len() > 1).then(|| asked.clone());
        let mut asked = asked;
        loop {
            let address = Arc::clone(&in_flight.address);
            told.attempts = told.attempts.saturating_add(1);
            let (method, progress) = (asked.method.clone(), body.progress());
            let head = head_for(&address.url, asked, &body, pool.upstream.preserve_host, upgrade.as_ref())?;
            if address.url == UpstreamUrl::Echo {
                return Box::pin(echo::answer(&head, body)).await.map_err(|error| match error {
                    BodyError::TooLarge => ProxyError::TooLarge,
                    BodyError::Idle => ProxyError::ClientIdle,
                    BodyError::Broken(_) => ProxyError::ClientBroken,
                });
            }
            let (lent, back) = body.lend();
            let sent = self.attempt(pool, &address, Request::from_parts(head, lent), &progress, upgrade.is_some());
            let failure = match sent.await {
                Ok((response, in_use)) => {
                    address.succeeded();
                    return self.take(pool, response, Exchange { progress, in_flight, in_use }, upgrade);
                }
                Err(failure) => failure,
            };
            if failure.kind.blames_address() {
                in_flight.failed(failure.kind.reason());
            }
            drop(in_flight);
            tried.push(Arc::clone(&address));
            told.address = Some(Arc::clone(&address));
            let again = if tried.len() >= MOST_ADDRESSES {
                None
            } else if failure.unsent {
                // Dropped with the attempt, and so here by now.
                match back.take() {
                    Some(body) => pool.enter(&tried, whose).await.unwrap_or_default().map(|next| (next, body)),
                    None => None,
                }
            } else if failure.lost && repeatable {
                repeatable = false;
                // Better at another address; but a connection that died while idle says little of the one.
                let next = match pool.enter(&tried, whose).await {
                    Ok(None) => pool.enter(&[], whose).await.unwrap_or_default(),
                    next => next.unwrap_or_default(),
                };
                next.map(|next| (next, RequestBody::empty()))
            } else {
                None
            };
            let name = pool.upstream.name.as_str();
            let Some(((next, same), again)) = again.and_then(|again| Some((again, kept.clone()?))) else {
                let (reason, detail) = (failure.kind.reason(), failure.kind.detail());
                tracing::warn!(upstream = name, %address, %method, reason, detail, error = failure.what, "not forwarded");
                return Err(failure.kind);
            };
            tracing::debug!(upstream = name, %address, next = %next.address, error = failure.what, "sent again");
            (in_flight, body, asked) = (next, same, again);
        }
    }

    async fn attempt(
        &self,
        pool: &Pool,
        address: &Address,
        request: Request<Lent>,
        progress: &Progress,
        upgrade: bool,
    ) -> Result<(Response<Incoming>, Option<InUse>), Failure> {
        let Some(clients) = address.clients() else {
            let what = format!("{address} has a name that no certificate can have");
            return Err(Failure { kind: ProxyError::Unreachable, unsent: true, lost: false, what });
        };
        let limit = pool.upstream.head_timeout.unwrap_or(self.settings.head_timeout);
        match within(limit, progress, clients.send(request, upgrade)).await {
            Some(Ok(response)) => Ok(response),
            Some(Err(error)) => Err(Failure {
                kind: error.kind(),
                unsent: error.unsent,
                lost: error.was_lost(),
                what: error.to_string(),
            }),
            None => Err(Failure {
                kind: ProxyError::HeadTimeout,
                unsent: false,
                lost: false,
                what: "no head in time".to_owned(),
            }),
        }
    }

    /// The request as the upstream is to see it, and extensions that are empty, but have room: whoever answers the
    /// client has something to put there.
    fn prepare(&self, mut parts: Parts) -> Result<(Asked, Extensions), ProxyError> {
        if parts.method == Method::CONNECT {
            return Err(ProxyError::Tunnel);
        }
        let target = parts.uri.path_and_query().ok_or(ProxyError::NotCanonical)?.clone();
        if CanonicalPath::parse(target.path()).map_or(true, |path| path.is_rewritten()) {
            return Err(ProxyError::NotCanonical);
        }
        let Some(peer) = parts.extensions.get::<Peer>() else {
            tracing::error!("a request came without the address of its peer");
            return Err(ProxyError::Miswired);
        };
        let mut headers = parts.headers;
        headers::remove_hop_by_hop(&mut headers);
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        let authority = || parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        let host = headers.get(HOST).cloned().or_else(authority);
        headers::forwarded(&mut headers, peer, host.as_ref(), &self.settings.trusted_proxies);
        parts.extensions.clear();
        Ok((Asked { method: parts.method, target, headers, host }, parts.extensions))
    }

    fn take(
        &self,
        pool: &Arc<Pool>,
        response: Response<Incoming>,
        exchange: Exchange,
        upgrade: Option<Wanted>,
    ) -> Result<Response<ProxyBody>, ProxyError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                tracing::warn!(upstream = pool.upstream.name, "it switched protocols without being asked");
                return Err(ProxyError::UpstreamProtocol);
            };
            let Exchange { in_flight, in_use, .. } = exchange;
            let ours = in_use.and_then(InUse::upgraded);
            if let Some(connection) = ours.as_ref().or_else(|| response.extensions().get::<Holding>()) {
                connection.hold(in_flight);
            }
            return upgrade.switch(response).ok_or(ProxyError::UpstreamProtocol);
        }
        let (mut parts, body) = response.into_parts();
        // A length beside a transfer coding is not the length of anything (RFC 9112 §6.3).
        if parts.headers.contains_key(TRANSFER_ENCODING) {
            parts.headers.remove(CONTENT_LENGTH);
        }
        headers::remove_hop_by_hop(&mut parts.headers);
        parts.extensions = http::Extensions::new();
        parts.version = Version::HTTP_11;
        let idle = self.idle_timeout(Some(pool));
        Ok(Response::from_parts(parts, ProxyBody::upstream(body, idle, exchange)))
    }
}

/// The head as one address is to see it.
fn head_for(
    url: &UpstreamUrl,
    asked: Asked,
    body: &RequestBody,
    preserve_host: bool,
    upgrade: Option<&Wanted>,
) -> Result<Parts, ProxyError> {
    let Asked { method, target, mut headers, host } = asked;
    let uri = url.uri(&target).ok_or(ProxyError::NotCanonical)?;
    let host = match url {
        UpstreamUrl::Echo => host,
        UpstreamUrl::Http(url) => Some(host.filter(|_| preserve_host).unwrap_or_else(|| url.host().clone())),
        // The client puts in the address's own, as the version of HTTP wants it.
        UpstreamUrl::Https(_) => host.filter(|_| preserve_host),
        // `:authority` says it, from the address (RFC 9113 §8.3.1).
        UpstreamUrl::H2c(_) => None,
    };
    match host {
        Some(host) => drop(headers.insert(HOST, host)),
        None => drop(headers.remove(HOST)),
    }
    // Whatever the client speaks: a kept connection takes no request that is marked otherwise.
    let version = if matches!(url, UpstreamUrl::H2c(_)) { Version::HTTP_2 } else { Version::HTTP_11 };
    frame(&mut headers, body, version);
    if matches!(url, UpstreamUrl::Https(_)) {
        // Not known before there is a connection: HTTP/2 has no `Connection`, and the HTTP library would take out what
        // it names. gRPC is nothing without its trailers, and HTTP/1.1 asks for none then.
        headers.remove(CONNECTION);
        if !reply::is_grpc(&headers) {
            headers.remove(TE);
        }
    }
    if let (Some(upgrade), UpstreamUrl::Http(_) | UpstreamUrl::Https(_)) = (upgrade, url) {
        upgrade.ask(&mut headers);
    }
    let (mut out, ()) = Request::new(()).into_parts();
    out.method = method;
    out.uri = uri;
    out.headers = headers;
    out.version = version;
    Ok(out)
}

/// `None` if nothing moved for so long.
pub(super) async fn within<F: Future>(limit: Duration, progress: &Progress, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut seen = progress.count();
    loop {
        if let Ok(output) = tokio::time::timeout(limit, future.as_mut()).await {
            return Some(output);
        }
        let now = progress.count();
        if now == seen {
            return None;
        }
        seen = now;
    }
}

/// Says the length of the body as we know it, never as the client wrote it: one framing, and the true one. HTTP/2 frames
/// bodies itself, and has no `Connection` (RFC 9113 §8.2.2).
fn frame(headers: &mut HeaderMap, body: &RequestBody, version: Version) {
    let said = headers.remove(CONTENT_LENGTH).is_some();
    if version == Version::HTTP_2 {
        headers.remove(CONNECTION);
    }
    match body.size_hint().exact() {
        Some(0) if !said => {}
        Some(length) => drop(headers.insert(CONTENT_LENGTH, HeaderValue::from(length))),
        None if version == Version::HTTP_2 => {}
        None => drop(headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))),
    }
}

/// HTTP/2 may split `Cookie` into several fields, HTTP/1.1 knows one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let (2.., Ok(joined)) = (crumbs.len(), HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))) {
        headers.insert(COOKIE, joined);
    }
}
