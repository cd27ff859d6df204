//! Forwarding of one request.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, HOST, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::address::{Address, ConnectionUse};
use super::body::{BodyError, BodyReturn, Exchange, ForwardInfo, LentBody, ProxyBody, RequestBody};
use super::counts::{Attempt, AttemptResult};
use super::dial::ConnectionHold;
use super::error::{ProxyError, SendError};
use super::head_timeout::HeadTimeout;
use super::http1::ConnectionGuard;
use super::kept_headers::KeptHeaders;
use super::pool::{InFlightSlot, Pool, RequestHolders};
use super::span::AttemptSpan;
use super::upgrade::UpgradeRequest;
use super::url::UpstreamUrl;
use super::{Inner, echo};
use rotogate_core::bounds::MAX_KEPT_BODY;
use rotogate_core::headers::{self, Peer};
use rotogate_core::reply;
use rotogate_core::route::path::CanonicalPath;

const MAX_ADDRESSES_TRIED: usize = 3;

struct RequestTemplate {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    host: Option<HeaderValue>,
    has_length: bool,
    /// How a request without upgrade uses its connection.
    using: ConnectionUse,
}

pub(super) struct Outgoing {
    template: RequestTemplate,
    /// An empty extension map, whose allocation the response reuses.
    room: Extensions,
    pub(super) is_grpc: bool,
}

struct AttemptError {
    kind: ProxyError,
    unsent: bool,
    lost: bool,
    refused: bool,
    what: String,
}

/// Which failures allow a retry of a partly written request.
struct Repeatable {
    /// The connection was lost. A retry requires an idempotent request without a body.
    lost: bool,
    /// An HTTP/2 upstream refused the request. An upgrade is never sent over HTTP/2.
    refused: bool,
}

impl From<Option<SendError>> for AttemptError {
    fn from(error: Option<SendError>) -> Self {
        let Some(error) = error else { return Self::late() };
        let (unsent, lost, refused) = (error.unsent, error.was_lost(), error.was_refused());
        Self { kind: error.kind(), unsent, lost, refused, what: error.to_string() }
    }
}

impl AttemptError {
    fn late() -> Self {
        let what = "no response head arrived in time".to_owned();
        Self { kind: ProxyError::HeadTimeout, unsent: false, lost: false, refused: false, what }
    }

    fn nameless(address: &Address) -> Self {
        let what = format!("the host in {address} is not a valid server name for TLS");
        Self { kind: ProxyError::Unreachable, unsent: true, lost: false, refused: false, what }
    }
}

pub(super) struct ForwardError {
    pub(super) kind: ProxyError,
    pub(super) sent: ForwardInfo,
}

impl From<ProxyError> for ForwardError {
    fn from(kind: ProxyError) -> Self {
        Self { kind, sent: ForwardInfo::default() }
    }
}

impl Inner {
    /// Sends a prepared request, with retries.
    ///
    /// Large values are passed by reference, and rare futures are boxed. Otherwise, each nested future would contain a
    /// copy of the values.
    pub(super) async fn send(
        &self,
        pool: &Arc<Pool>,
        outgoing: &mut Outgoing,
        mut body: RequestBody,
        upgrade: Option<Box<UpgradeRequest>>,
        holders: RequestHolders,
    ) -> Result<Response<ProxyBody>, ForwardError> {
        let Outgoing { template, room, .. } = outgoing;
        let begun = Instant::now();
        let mut info = ForwardInfo::default();
        let is_bare = body.is_end_stream() && template.method.is_idempotent();
        let mut repeatable = Repeatable { lost: is_bare, refused: upgrade.is_none() };
        let (mut tried, mut attempt_begun) = (Vec::<Arc<Address>>::new(), begun);
        let kind = 'failed: {
            let mut in_flight = match first_place(pool, pool.enter(&tried, holders).await) {
                Ok(in_flight) => in_flight,
                Err(kind) => break 'failed kind,
            };
            // The headers are copied only if a retry is possible.
            let may_be_refused = repeatable.refused && in_flight.address.url.may_be_http2();
            let is_kept = repeatable.lost || may_be_refused || pool.all().len() > 1;
            let kept = is_kept.then(|| KeptHeaders::new(&template.headers));
            loop {
                let address = Arc::clone(&in_flight.address);
                info.attempts = info.attempts.saturating_add(1);
                if address.url == UpstreamUrl::Echo {
                    return Box::pin(answer_by_echo(pool, &address, template, body, info, begun)).await;
                }
                let (method, progress) = (template.method.clone(), body.progress());
                let (lent, back) = body.lend(if address.url.may_be_http2() { MAX_KEPT_BODY } else { 0 });
                let attempt = (upgrade.as_deref(), info.attempts);
                let (mut request, using, span) = match request_for(pool, &address, template, lent, attempt) {
                    Ok(prepared) => prepared,
                    Err(kind) => break 'failed kind,
                };
                let counted = Attempt::begin(&pool.counts);
                let sent = match address.clients() {
                    Some(clients) => {
                        let limit = pool.upstream.head_timeout.unwrap_or(self.settings.head_timeout);
                        let head_timeout = HeadTimeout { limit, progress: &progress };
                        // Pinning in place avoids a copy of the future.
                        let sending = pin!(clients.send(&mut request, using, head_timeout));
                        sending.await.map_err(AttemptError::from)
                    }
                    None => Err(AttemptError::nameless(&address)),
                };
                drop(request); // An unsent request returns its body.
                counted.end();
                let failure = match sent {
                    Ok((response, in_use)) => {
                        span.answered(response.status());
                        info.took = begun.elapsed();
                        let took = if info.attempts == 1 { info.took } else { attempt_begun.elapsed() };
                        record_answer(pool, &address, response.status(), took);
                        let exchange = Exchange { progress, in_flight, in_use };
                        match self.finish(pool, response, (&mut info, room), exchange, upgrade) {
                            Ok(response) => return Ok(response),
                            Err(kind) => break 'failed kind,
                        }
                    }
                    Err(failure) => failure,
                };
                record_failure(pool, in_flight, span, &failure);
                tried.push(Arc::clone(&address));
                info.address = Some(Arc::clone(&address));
                let again = Box::pin(next_attempt(pool, &tried, holders, &failure, back, &mut repeatable)).await;
                let Some(((next, same), headers)) = again.zip(kept.as_ref().and_then(KeptHeaders::headers)) else {
                    log_failure(pool, &address, &method, &failure);
                    break 'failed failure.kind;
                };
                record_repeat(pool, &address, &next.address, &failure);
                (template.method, template.headers) = (method, headers);
                (in_flight, body, attempt_begun) = (next, same, Instant::now());
            }
        };
        info.took = begun.elapsed();
        record_unforwarded(pool, kind, info.attempts);
        Err(ForwardError { kind, sent: info })
    }

    /// Builds the request for the upstream. An error leaves `parts` unchanged.
    pub(super) fn prepare(&self, parts: &mut Parts) -> Result<Outgoing, ProxyError> {
        if parts.method == Method::CONNECT {
            return Err(ProxyError::Tunnel);
        }
        let target = parts.uri.path_and_query().ok_or(ProxyError::NotCanonical)?.clone();
        if CanonicalPath::parse(target.path()).map_or(true, |path| path.is_rewritten()) {
            return Err(ProxyError::NotCanonical);
        }
        let Some(peer) = parts.extensions.get::<Peer>() else {
            tracing::error!("request without peer address: a bug in rotogate. Report this line");
            return Err(ProxyError::Miswired);
        };
        let mut headers = std::mem::take(&mut parts.headers);
        let seen = headers::remove_hop_by_hop(&mut headers);
        let is_grpc = seen.has_media_type && reply::is_grpc(&headers);
        let authenticates = seen.has_credential && authenticates_connection(&headers);
        let using = if authenticates { ConnectionUse::Authenticate } else { ConnectionUse::Shared };
        if parts.version == Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        let authority = || parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
        let host = headers.get(HOST).cloned().or_else(authority);
        headers::forwarded(&mut headers, peer, host.as_ref(), &self.settings.trusted_proxies);
        let mut room = std::mem::take(&mut parts.extensions);
        room.clear();
        let method = std::mem::take(&mut parts.method);
        let has_length = seen.has_length;
        let template = RequestTemplate { method, target, headers, host, has_length, using };
        Ok(Outgoing { template, room, is_grpc })
    }

    /// Builds the client's response, and empties `info` and `room`.
    fn finish(
        &self,
        pool: &Arc<Pool>,
        mut response: Response<Incoming>,
        (info, room): (&mut ForwardInfo, &mut Extensions),
        exchange: Exchange,
        upgrade: Option<Box<UpgradeRequest>>,
    ) -> Result<Response<ProxyBody>, ProxyError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                if let Some(others) = pool.is_due("switched_unasked") {
                    tracing::warn!(upstream = pool.upstream.name, others, "upstream sent an unexpected status 101");
                }
                return Err(ProxyError::UpstreamProtocol);
            };
            let Exchange { in_flight, in_use, .. } = exchange;
            let ours = in_use.and_then(ConnectionGuard::upgraded);
            if let Some(connection) = ours.as_ref().or_else(|| response.extensions().get::<ConnectionHold>()) {
                connection.hold(in_flight);
            }
            let mut switched = upgrade.switch(response).ok_or(ProxyError::UpstreamProtocol)?;
            switched.body_mut().set_sent(std::mem::take(info));
            if switched.extensions().is_empty() {
                *switched.extensions_mut() = std::mem::take(room);
            }
            return Ok(switched);
        }
        let seen = headers::remove_hop_by_hop(response.headers_mut());
        if seen.had_other_coding {
            return Err(ProxyError::UpstreamProtocol);
        }
        // With `Transfer-Encoding`, `Content-Length` is meaningless (RFC 9112 §6.3).
        if seen.had_coding {
            response.headers_mut().remove(CONTENT_LENGTH);
        } else if seen.has_length {
            unite_lengths(response.headers_mut())?;
        }
        *response.extensions_mut() = std::mem::take(room);
        let version = std::mem::replace(response.version_mut(), Version::HTTP_11);
        let idle = self.idle_timeout(Some(pool));
        Ok(response.map(|body| ProxyBody::upstream((body, version), idle, std::mem::take(info), exchange)))
    }
}

/// Returns whether the credential may apply to the whole connection, as with NTLM (RFC 4559 §6).
fn authenticates_connection(headers: &HeaderMap) -> bool {
    let scheme =
        |value: &HeaderValue| value.as_bytes().split(|byte| *byte == b' ').next().map(<[u8]>::to_ascii_lowercase);
    headers.get_all(AUTHORIZATION).iter().filter_map(scheme).any(|scheme| matches!(&*scheme, b"ntlm" | b"negotiate"))
}

/// Merges repeated equal values of `Content-Length` (RFC 9110 §8.6).
fn unite_lengths(headers: &mut HeaderMap) -> Result<(), ProxyError> {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    if matches!((lines.next(), lines.next()), (Some(line), None) if is_number(line.as_bytes())) {
        return Ok(());
    }
    let lines = headers.get_all(CONTENT_LENGTH).into_iter();
    let mut members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let first = members.next().filter(|first| is_number(first) && members.all(|other| other == *first));
    let one = first.and_then(|first| HeaderValue::from_bytes(first).ok()).ok_or(ProxyError::UpstreamProtocol)?;
    headers.insert(CONTENT_LENGTH, one);
    Ok(())
}

fn first_place(pool: &Pool, entered: Result<Option<InFlightSlot>, ProxyError>) -> Result<InFlightSlot, ProxyError> {
    entered?.ok_or_else(|| {
        tracing::error!(upstream = pool.upstream.name, "no address was chosen: a bug in rotogate. Report this line");
        ProxyError::Miswired
    })
}

async fn answer_by_echo(
    pool: &Pool,
    address: &Address,
    template: &mut RequestTemplate,
    body: RequestBody,
    mut info: ForwardInfo,
    begun: Instant,
) -> Result<Response<ProxyBody>, ForwardError> {
    let head = match head_for(&address.url, template, &body, pool, None) {
        Ok(head) => head,
        Err(kind) => return Err(ForwardError { kind, sent: info }),
    };
    let answered = echo::answer(head, body).await;
    info.took = begun.elapsed();
    match answered {
        Ok(mut response) => {
            pool.counts.answered(response.status(), info.took);
            response.body_mut().set_sent(info);
            Ok(response)
        }
        Err(error) => Err(ForwardError { kind: of_body(&error), sent: info }),
    }
}

fn record_answer(pool: &Pool, address: &Arc<Address>, status: StatusCode, took: Duration) {
    if address.record_success(&pool.upstream) {
        pool.log_recovery(address);
    }
    pool.counts.answered(status, took);
}

fn record_failure(pool: &Pool, in_flight: InFlightSlot, span: AttemptSpan, failure: &AttemptError) {
    let kind = failure.kind;
    span.failed(kind);
    if let Some(result) = AttemptResult::from_error(kind) {
        pool.counts.failed(result);
    }
    if kind.blames_address() && !failure.refused {
        in_flight.record_failure(kind.reason());
    }
    drop(in_flight);
}

fn record_repeat(pool: &Pool, address: &Address, next: &Address, failure: &AttemptError) {
    let (name, error) = (pool.upstream.name.as_str(), &failure.what);
    tracing::debug!(upstream = name, %address, %next, error, "request sent again");
    pool.counts.retried();
}

fn log_failure(pool: &Pool, address: &Address, method: &Method, failure: &AttemptError) {
    let (reason, detail, error) = (failure.kind.reason(), failure.kind.detail(), &failure.what);
    if let Some(others) = pool.is_due(reason) {
        let name = pool.upstream.name.as_str();
        tracing::warn!(upstream = name, %address, %method, reason, detail, error, others, "request not forwarded");
    }
}

fn record_unforwarded(pool: &Pool, kind: ProxyError, attempts: u8) {
    if attempts == 0
        && let Some(result) = AttemptResult::from_error(kind)
    {
        pool.counts.failed(result);
    }
    // All other failures were already logged with their address.
    if kind == ProxyError::Overloaded
        && let Some(others) = pool.is_due(kind.reason())
    {
        let (reason, detail) = (kind.reason(), kind.detail());
        tracing::warn!(upstream = pool.upstream.name, reason, detail, others, "request not forwarded");
    }
}

/// Returns a slot and the body, or `None` if the request cannot be repeated.
async fn next_attempt(
    pool: &Arc<Pool>,
    tried: &[Arc<Address>],
    holders: RequestHolders,
    failure: &AttemptError,
    back: BodyReturn,
    repeatable: &mut Repeatable,
) -> Option<(InFlightSlot, RequestBody)> {
    if tried.len() >= MAX_ADDRESSES_TRIED {
        return None;
    }
    if failure.unsent {
        let body = back.take()?;
        return pool.enter(tried, holders).await.unwrap_or_default().map(|next| (next, body));
    }
    if !(failure.lost && repeatable.lost || failure.refused && repeatable.refused) {
        return None;
    }
    *repeatable = Repeatable { lost: false, refused: false };
    let body = back.take()?;
    // Prefers another address. The same address may still work if only an idle connection broke.
    let next = match pool.enter(tried, holders).await {
        Ok(None) => pool.enter(&[], holders).await.unwrap_or_default(),
        next => next.unwrap_or_default(),
    };
    next.map(|next| (next, body))
}

const fn of_body(error: &BodyError) -> ProxyError {
    match error {
        BodyError::TooLarge => ProxyError::TooLarge,
        BodyError::Idle => ProxyError::ClientIdle,
        BodyError::Broken(_) => ProxyError::ClientBroken,
    }
}

/// This function is separate, because its large intermediate values would enlarge the caller's future.
fn request_for(
    pool: &Pool,
    address: &Address,
    template: &mut RequestTemplate,
    body: LentBody,
    (upgrade, attempt): (Option<&UpgradeRequest>, u8),
) -> Result<(Option<Request<LentBody>>, ConnectionUse, AttemptSpan), ProxyError> {
    let mut head = head_for(&address.url, template, &body, pool, upgrade)?;
    let span = AttemptSpan::begin(&mut head, &pool.upstream.name, address, attempt);
    let using = if upgrade.is_some() { ConnectionUse::Upgrade } else { template.using };
    Ok((Some(Request::from_parts(head, body)), using, span))
}

fn head_for(
    url: &UpstreamUrl,
    template: &mut RequestTemplate,
    body: &impl Body,
    pool: &Pool,
    upgrade: Option<&UpgradeRequest>,
) -> Result<Parts, ProxyError> {
    let preserve_host = pool.upstream.preserve_host;
    let uri = url.uri(&template.target).ok_or(ProxyError::NotCanonical)?;
    let RequestTemplate { method, headers, host, has_length, .. } = template;
    let (method, mut headers) = (std::mem::take(method), std::mem::take(headers));
    let preserved = host.as_ref().filter(|_| preserve_host);
    let host = match url {
        UpstreamUrl::Echo => host.clone(),
        UpstreamUrl::Http(url) => Some(preserved.unwrap_or_else(|| url.host()).clone()),
        // For `None`, hyper uses the address's own host.
        UpstreamUrl::Https(_) => preserved.cloned(),
        // In HTTP/2, `:authority` contains the address's own host (RFC 9113 §8.3.1).
        UpstreamUrl::H2c(_) => None,
    };
    match host {
        Some(host) => drop(headers.insert(HOST, host)),
        None => drop(headers.remove(HOST)),
    }
    if let Some(own) = &pool.authorization {
        // The gate's credential replaces the credential of the caller. Identity headers name the caller.
        headers.insert(AUTHORIZATION, own.clone());
    }
    // A pooled connection accepts only its own HTTP version.
    let version = if matches!(url, UpstreamUrl::H2c(_)) { Version::HTTP_2 } else { Version::HTTP_11 };
    frame(&mut headers, *has_length, body, version);
    if matches!(url, UpstreamUrl::Https(_)) {
        // The HTTP version is still unknown. HTTP/2 has no `Connection` header, and gRPC needs trailers.
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

/// Sets the actual body length, so that the request has exactly one framing. HTTP/2 has its own framing (RFC 9113
/// §8.2.2).
fn frame(headers: &mut HeaderMap, has_length: bool, body: &impl Body, version: Version) {
    let said = has_length && headers.remove(CONTENT_LENGTH).is_some();
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

/// Only HTTP/2 may split `Cookie` (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let (2.., Ok(joined)) = (crumbs.len(), HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))) {
        headers.insert(COOKIE, joined);
    }
}
