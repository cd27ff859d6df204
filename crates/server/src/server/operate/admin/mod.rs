//! The admin listener (requirement O1): health checks, metrics and the operators' API (`/v1`). docs/admin.md and
//! docs/openapi.json describe the API.
//!
//! A `Host` other than an IP address, `localhost` or `admin.hosts` gets 421, against DNS rebinding (requirement O25).
//! The module `seats` limits the connections.
//!
//! A second listener, `admin.probes`, serves only health checks, without a token (requirement P54).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::metrics::Metrics;
use super::reload::{InForce, Reloader};
use crate::log::{self, request_id};
use crate::server::build::admin_tokens::AdminTokens;
use crate::server::listen::min_rate::MinRate;
use crate::server::listen::stream::Socket;
use operations::Operation;
use problem::{Code, Refusal};
use rotogate_config::AdminRole;
use rotogate_core::clock::{Timestamp, wall_micros};
use rotogate_core::context::Context;
use rotogate_core::limit::Failures;
use rotogate_core::trace::Trace;
use seats::{Seat, Seats};

mod api_keys;
mod configuration;
mod events;
mod explain;
mod guard;
pub(crate) mod health;
mod history;
mod issuers;
pub(crate) mod keys;
mod newest;
mod openapi;
mod operations;
mod page;
mod problem;
mod refused;
mod revocations;
mod routes;
mod seats;
mod sessions;
mod state;
mod status;
mod store;
mod thread;
mod traffic;
pub(crate) mod users;

pub(crate) use api_keys::{
    ApiKeyInfo, ApiKeyRequest, KeysPage, LeakAnswer, LeakReport, NewKeyAnswer, RotateKeyRequest,
};
pub(crate) use configuration::{ConfigInfo, ConfigValue, KEPT, ReloadResult, ValueSource};
pub(crate) use explain::{ExplainReport, ExplainedRule, Place, TokenKind};
pub(crate) use guard::failures;
pub(crate) use history::History;
pub(crate) use page::SignIns;
pub(crate) use revocations::{RevocationReport, RevocationRequest};
pub(crate) use sessions::SessionInfo;
pub(crate) use status::Status;
pub(crate) use thread::AdminThread;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;
type AdminResult = Result<Response<Body>, Refusal>;

const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const LIFETIME: Duration = Duration::from_secs(600);
const MAX_BODY: usize = 64 << 10;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries on a page, if the query does not set `limit`.
const DEFAULT_PAGE: usize = 100;
/// `Retry-After` for changes that are refused because the audit log fails.
const AUDIT_RETRY: Duration = Duration::from_secs(5);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Debug)]
pub(crate) struct AdminState {
    pub(crate) tokens: Arc<AdminTokens>,
    pub(crate) failures: Failures,
    pub(crate) sign_ins: SignIns,
    pub(crate) history: History,
    pub(crate) reloader: Reloader,
    pub(crate) began: Timestamp,
    pub(crate) listening: Vec<SocketAddr>,
    pub(crate) metrics: Metrics,
    pub(crate) stopping: watch::Receiver<bool>,
    /// Locked while a new key waits until it may sign, so that no other key changes.
    pub(crate) rotating: Arc<tokio::sync::Mutex<()>>,
}

impl Deref for AdminState {
    type Target = InForce;

    fn deref(&self) -> &InForce {
        self.metrics.sources()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Operators,
    Probes,
}

/// Serves until the task is aborted after the drain, so that readiness checks can fail during the drain.
pub(crate) async fn serve(listener: TcpListener, side: Side, state: Arc<AdminState>) {
    let seats = Arc::new(Seats::default());
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(seat) = seats.take(peer.ip()) else { continue };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let stream = Socket::new(stream, MinRate::new(&state.config.load().server));
            let of_requests = Arc::clone(&seat);
            let service = service_fn(move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Arc::clone(&of_requests));
                let id = request_id::new(wall_micros());
                let context = Context::new(id, peer.ip(), Trace::None);
                context.scope(answer(Arc::clone(&state), side, peer, request))
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).half_close(true);
            let connection = builder.serve_connection(TokioIo::new(stream), service);
            if let Err(error) = within_its_life(connection, &seat).await {
                tracing::debug!(%error, "admin connection ended early");
            }
        });
    }
}

async fn within_its_life<I, S>(connection: http1::Connection<TokioIo<I>, S>, seat: &Seat) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: HttpService<Incoming, ResBody = Body, Error = Infallible>,
{
    let (mut connection, mut left) = (pin!(connection), pin!(seat.left()));
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = left.as_mut() => return Ok(()),
        () = tokio::time::sleep(LIFETIME) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection => ended,
        () = left => Ok(()),
    }
}

async fn answer(
    state: Arc<AdminState>,
    side: Side,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let (path, method) = (parts.uri.path().to_owned(), parts.method.clone());
    let is_probe = operations::at(&path).is_some_and(|(rows, _)| rows.iter().any(|row| row.operation.is_probe()));
    let answered = match side {
        Side::Operators => handle(&state, peer, &parts, body, is_probe).await,
        Side::Probes => probe(&state, &parts).await,
    };
    let mut response = answered.unwrap_or_else(Refusal::into_response);
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if let Some(context) = Context::current() {
        headers.insert(REQUEST_ID, context.id().clone());
    }
    let status = response.status().as_u16();
    // Probes are too frequent for the info level.
    if is_probe {
        tracing::debug!(target: "rotogate::admin", %method, path, status);
    } else {
        let path = log::without_secrets(&path);
        tracing::info!(target: "rotogate::admin", %method, path, status);
    }
    Ok(response)
}

/// Serves only health checks. Any `Host` is accepted, because an orchestrator may use an unknown address.
async fn probe(state: &AdminState, parts: &Parts) -> AdminResult {
    let found = operations::at(parts.uri.path());
    let row = found.and_then(|(rows, _)| rows.iter().find(|row| row.operation.is_probe()));
    match row {
        None => Err(Refusal::new(Code::NotFound, "this listener serves only `/livez` and `/readyz`")),
        Some(row) if !row.serves(&parts.method) => Err(Refusal::method_not_allowed(operations::methods(&[row]))),
        Some(row) if row.operation == Operation::Live => Ok(health::live()),
        // The reason names parts of the gate, so only the admin listener shows it.
        Some(_) => Ok(match health::readiness(state).await.0 {
            true => plain(StatusCode::OK, "ready\n"),
            false => plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
        }),
    }
}

async fn handle(
    state: &Arc<AdminState>,
    peer: SocketAddr,
    parts: &Parts,
    body: Incoming,
    is_probe: bool,
) -> AdminResult {
    // Load balancers send HTTP/1.0 health checks without `Host`. A browser always sends `Host`, also under
    // DNS rebinding.
    let needs_no_host = is_probe && parts.version == Version::HTTP_10 && !parts.headers.contains_key(HOST);
    if !needs_no_host {
        guard::host(parts, &state.config.load().admin.hosts)?;
    }
    let path = parts.uri.path();
    if page::is_at(path) {
        return Ok(page::answer(state, peer, parts, body).await);
    }
    let Some((rows, parameter)) = operations::at(path) else {
        return Err(Refusal::new(
            Code::NotFound,
            "the admin listener does not have this path; `/v1/openapi.json` lists all paths",
        ));
    };
    let Some(row) = rows.iter().find(|row| row.serves(&parts.method)) else {
        return Err(Refusal::method_not_allowed(operations::methods(rows)));
    };
    guard::origin(parts)?;
    let holder = guard::access(state, row.access, peer.ip(), parts)?;
    if row.needs_audit_log() {
        may_change()?;
    }
    let role = holder.map_or(AdminRole::Viewer, |holder| holder.role);
    let work = operate(state, (row.operation, role), parameter, parts, body);
    let answer = match (holder, Context::current()) {
        // Log lines about this request name the operator.
        (Some(holder), Some(context)) => context.acted_by(holder.actor.clone()).scope(work).await,
        (None, _) | (_, None) => work.await,
    };
    if row.is_change() {
        log::flush_audit().await;
    }
    answer
}

// Requirement P42.
fn may_change() -> Result<(), Refusal> {
    if !log::audit_is_failing().load(Ordering::SeqCst) {
        return Ok(());
    }
    let what = "the audit log cannot be written, so changes are refused (`audit_log.on_failure`)";
    Err(Refusal::new(Code::AuditLogFailed, what).retry_after(AUDIT_RETRY))
}

async fn operate(
    state: &Arc<AdminState>,
    (operation, role): (Operation, AdminRole),
    parameter: &str,
    parts: &Parts,
    body: Incoming,
) -> AdminResult {
    let takes_parameters = matches!(
        operation,
        Operation::Sessions
            | Operation::Revocations
            | Operation::Events
            | Operation::Backup
            | Operation::ApiKeys
            | Operation::Users
            | Operation::Refused
            | Operation::ReloadConfig
    );
    if !takes_parameters && !operation.is_probe() && operation != Operation::Metrics {
        let NoParameters {} = query(parts)?;
    }
    match operation {
        Operation::Live => Ok(health::live()),
        Operation::Ready => Ok(health::ready(state).await),
        Operation::Metrics => Ok(health::metrics(state, &parts.headers).await),
        Operation::OpenApi => Ok(openapi::document()),
        Operation::Status => Ok(ok(&status::show(state).await)),
        Operation::Sessions => answered(sessions::list(state, query(parts)?).await),
        Operation::Session => answered(sessions::show(state, parameter).await),
        Operation::RevokeSession => answered(sessions::revoke(&state.gate, parameter).await),
        Operation::Revocations => answered(revocations::list(state, query(parts)?).await),
        Operation::Revoke => answered(revocations::revoke(state, json(parts, body).await?).await),
        Operation::Keys => Ok(ok(&keys::list(state))),
        Operation::RotateKeys => keys::rotate(state, json(parts, body).await?).await,
        Operation::PromoteKey => answered(keys::promote(state, parameter, json(parts, body).await?).await),
        Operation::RetireKey => answered(keys::retire(state, parameter, json(parts, body).await?).await),
        Operation::Routes => Ok(ok(&traffic::routes(state))),
        Operation::Upstreams => Ok(ok(&traffic::upstreams(state))),
        Operation::Issuers => Ok(ok(&issuers::list(state))),
        Operation::RefreshIssuer => answered(issuers::refresh(state, parameter).await),
        Operation::DropIssuerKeys => answered(issuers::drop_keys(state, parameter).await),
        Operation::Config => Ok(ok(&configuration::show(state))),
        Operation::CheckConfig => Ok(ok(&configuration::check(state).await)),
        Operation::ReloadConfig => answered(configuration::reload(state, query(parts)?).await),
        Operation::Users => answered(users::list(state, query(parts)?)),
        Operation::AddUser => answered(users::add(state, json(parts, body).await?).await),
        Operation::SetPassword => answered(users::set_password(state, json(parts, body).await?).await),
        Operation::EnableUser => users::enable(state, json(parts, body).await?).await,
        Operation::ReloadUsers => users::reload(state).await,
        Operation::DisableUser => users::disable(state, json(parts, body).await?).await,
        Operation::Backup => store::backup(state, query(parts)?).await,
        Operation::Refused => answered(refused::list(state, role, query(parts)?)),
        Operation::Events => events::list(state, &parts.headers, query(parts)?).await,
        Operation::Explain => answered(explain::answer(state, &whole_body(parts, body).await?).await),
        Operation::ApiKeys => answered(api_keys::list(state, query(parts)?).await),
        Operation::CreateApiKey => answered(api_keys::create(state, json(parts, body).await?).await),
        Operation::RotateApiKey => answered(api_keys::rotate(state, parameter, json(parts, body).await?).await),
        Operation::RevokeApiKey => answered(api_keys::revoke(state, parameter).await),
        Operation::LeakedApiKeys => answered(api_keys::leaked(state, json(parts, body).await?).await),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoParameters {}

fn query<T: DeserializeOwned>(parts: &Parts) -> Result<T, Refusal> {
    serde_urlencoded::from_str(parts.uri.query().unwrap_or_default())
        .map_err(|error| Refusal::new(Code::InvalidParameter, error.to_string()))
}

async fn json<T: DeserializeOwned>(parts: &Parts, body: Incoming) -> Result<T, Refusal> {
    let bytes = whole_body(parts, body).await?;
    serde_json::from_slice(&bytes).map_err(|error| Refusal::new(Code::InvalidBody, error.to_string()))
}

const JSON: &str = "application/json";

async fn whole_body(parts: &Parts, body: Incoming) -> Result<Bytes, Refusal> {
    body_of(JSON, parts, body).await
}

async fn body_of(expected: &str, parts: &Parts, body: Incoming) -> Result<Bytes, Refusal> {
    let media = parts.headers.get(CONTENT_TYPE).and_then(|media| media.to_str().ok()).unwrap_or_default();
    if !media.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(expected) {
        return Err(Refusal::new(Code::UnsupportedMediaType, format!("expected content-type: {expected}")));
    }
    let whole = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    match whole {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::new(Code::BodyTooLong, "the body has more than 64 KiB"))
        }
        Ok(Err(_)) | Err(_) => Err(Refusal::new(Code::InvalidBody, "the complete body did not arrive in time")),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = reply("text/plain; charset=utf-8", full(text.to_owned()));
    *response.status_mut() = status;
    response
}

fn ok(value: &impl Serialize) -> Response<Body> {
    reply(JSON, full(serde_json::to_vec(value).unwrap_or_default()))
}

fn answered(done: Result<impl Serialize, Refusal>) -> AdminResult {
    done.map(|value| ok(&value))
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

fn reply(media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// Returns the requested page size, or the default of 100.
fn page_size(limit: Option<String>, most: usize) -> Result<usize, Refusal> {
    match limit.map(|limit| limit.parse()) {
        None => Ok(DEFAULT_PAGE),
        Some(Ok(limit)) if (1..=most).contains(&limit) => Ok(limit),
        Some(_) => Err(Refusal::new(Code::InvalidParameter, format!("limit: a number from 1 to {most} is expected"))),
    }
}

fn rfc3339(moment: Timestamp) -> String {
    let moment = std::time::UNIX_EPOCH + Duration::from_secs(moment.as_secs());
    humantime::format_rfc3339_seconds(moment).to_string()
}

fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a33_a_connection_that_asks_without_end_is_closed_after_its_life() {
        let seat = Arc::new(Seats::default()).take([127, 0, 0, 1].into()).unwrap();
        let (mut peer, served) = duplex(4096);
        let service = service_fn(async |_: Request<Incoming>| Ok::<_, Infallible>(health::live()));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).half_close(true);
        let connection = builder.serve_connection(TokioIo::new(served), service);
        let begun = Instant::now();
        let asking = async {
            // The pause is shorter than `HEAD_TIMEOUT`, so the gate does not close the connection.
            while peer.write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok()
                && peer.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0)
            {
                tokio::time::sleep(HEAD_TIMEOUT / 2).await;
                assert!(begun.elapsed() < LIFETIME * 2, "it has no end");
            }
            begun.elapsed()
        };
        let (ended, lasted) = tokio::join!(within_its_life(connection, &seat), asking);
        ended.unwrap();
        assert!((LIFETIME..LIFETIME + HEAD_TIMEOUT).contains(&lasted), "{lasted:?}");
    }
}
