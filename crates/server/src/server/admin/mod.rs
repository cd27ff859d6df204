//! The admin listener (requirement O1): health, metrics, and the operator's requests, which need the admin token.
//!
//! A request whose `Host` is not an IP address, `localhost` or one of `admin.hosts` gets 421. Otherwise a web page
//! could rebind its name to this address and read metrics through a browser on this machine (requirement O25). At most
//! 64 connections are open; more wait in the system's backlog.
//!
//! | request | token | answer |
//! |---|---|---|
//! | `GET /livez` | no | 200 while the process runs |
//! | `GET /readyz` | no | 200, or 503 with the reason |
//! | `GET /metrics` | no, on loopback; else yes | metrics, in OpenMetrics or Prometheus' text format, as `Accept` says |
//! | `GET /v1/status` | yes | version, process id and addresses |
//! | `GET /v1/issuers` | yes | the issuers whose keys are fetched: state, keys, last failure, refused keys |
//! | `POST /v1/issuers/{name}/refresh` | yes | fetches the keys now; 502 with the cause if that brings none |
//! | `POST /v1/issuers/{name}/drop` | yes | drops the keys, kept ones included: its tokens get 503 until the next refresh or start |
//! | `POST /v1/explain` | yes | a question in JSON: what becomes of a request, and why |
//! | `POST /store/backup` | yes | a consistent copy of the store, as `application/octet-stream` |
//! | `POST /store/copy`, `/store/switch` | yes | copies to `[store.next]`, or makes it the store in charge: a line of JSON for each step; 409 without `[store.next]` |
//! | `GET /sessions?user=&account=&subject=&after=&limit=` | yes | a page of sessions, the oldest first |
//! | `GET /sessions/{id}` | yes | one session |
//! | `POST /sessions/{id}/revoke` | yes | once its end is durable, `{"ended": 1}`; 0 if it had ended |
//! | `POST /users/reload` | yes | 204 once the users file was read again and the revocations that this causes are durable; 409 if the file is broken |
//! | `POST /revocations?user=&account=`, `?subject=`, `?client=`, `?all` | yes | the same for every session of a user, a client, or everyone: `matched` and `ended` are numbers of sessions. 404 if users, clients and store know no such target, unless `&force` is given |

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::TryStreamExt;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::io::ReaderStream;

use crate::config::Config;
use crate::log::request_id;
use crate::server::issuers::RemoteIssuers;
use crate::server::metrics::Metrics;
use crate::server::request::Serving;
use crate::server::users::{LiveUsers, ReloadError};
use rotogate::clock::wall_micros;
use rotogate::context::Context;
use rotogate::credential;
use rotogate::dialect::Reply;
use rotogate::gate::{Gate, Readiness};
use rotogate::reply;
use rotogate::route::authority;
use rotogate::store::moving::MovingStore;
use rotogate::store::redb::RedbStore;

mod explain;
mod issuers;
mod moving;
mod sessions;
mod token;

pub(crate) use explain::{ExplainReport, ExplainedRule, Place};
pub(crate) use moving::{Done, Line};
pub use sessions::{RevocationReport, SessionInfo};
pub use token::AdminToken;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The bound on connections: enough for some scrapers, probes and commands. A local process cannot exhaust the gate's
/// file descriptors here.
const MAX_CONNECTIONS: usize = 64;

/// What the admin listener needs.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) gate: Gate,
    /// What is in force.
    pub(crate) config: Arc<ArcSwap<Config>>,
    /// What serves requests by it.
    pub(crate) serving: Serving,
    pub(crate) token: Arc<AdminToken>,
    pub(crate) store: Option<RedbStore>,
    /// If there is a store to move to.
    pub(crate) moving: Option<MovingStore>,
    /// `None`: another system has the users.
    pub(crate) users: Option<Arc<LiveUsers>>,
    /// The issuers whose keys are fetched.
    pub(crate) issuers: RemoteIssuers,
    /// Every address of this gate, the admin listener's included.
    pub(crate) listening: Vec<SocketAddr>,
    pub(crate) metrics: Arc<Metrics>,
    /// Further host names of this listener, in lower case.
    pub(crate) hosts: Vec<String>,
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Serves until its task is aborted, which is after the gate has drained: readiness fails by then.
pub(crate) async fn serve(listener: TcpListener, state: Arc<State>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The permit comes first: connections that cannot be served yet wait in the system's backlog, without a file
        // descriptor of this process.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "admin connection not accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                // Log events that this request causes name the operator.
                let id = request_id::new(wall_micros());
                let context = Context { id, client: Some(peer.ip()), actor: Some("admin-token") };
                context.scope(answer(Arc::clone(&state), peer, request))
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(std::time::Duration::from_secs(10))
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = connection {
                tracing::debug!(%error, "admin connection ended early");
            }
            drop(permit);
        });
    }
}

async fn answer(state: Arc<State>, peer: SocketAddr, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let host = authority::check(&parts).map(|authority| is_own_host(authority.host(), &state.hosts));
    let request = Request::from_parts(parts, ());
    let (path, method) = (request.uri().path(), request.method());
    let known = Endpoint::at(path);
    let is_probe = known.is_some_and(Endpoint::is_probe);
    // Health checks of load balancers speak HTTP/1.0. A browser, whose DNS may be rebound, always sends a Host.
    let needs_no_host = is_probe && request.version() == Version::HTTP_10 && !request.headers().contains_key(HOST);
    let response = match known {
        _ if host.is_err() && !needs_no_host => {
            own(reply::problem(StatusCode::BAD_REQUEST, Some("Host is missing or malformed")))
        }
        _ if host == Ok(false) => own(reply::problem(StatusCode::MISDIRECTED_REQUEST, Some(MISDIRECTED_DETAIL))),
        None => own(reply::problem(StatusCode::NOT_FOUND, None)),
        Some(known) if !known.methods().contains(method) => own(reply::method_not_allowed(known.methods())),
        Some(Endpoint::Live) => plain(StatusCode::OK, "alive\n"),
        Some(Endpoint::Ready) => ready(&state).await,
        Some(Endpoint::Metrics) if peer.ip().is_loopback() || authorised(&state, &request) => {
            metrics(&state, request.headers()).await
        }
        Some(_) if !authorised(&state, &request) => own(unauthorised()),
        // Answered above if it is allowed.
        Some(Endpoint::Metrics) => own(unauthorised()),
        Some(Endpoint::Status) => own(sessions::json(&Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            listeners: &state.listening,
        })),
        Some(Endpoint::Backup) => backup(&state).await,
        Some(Endpoint::StoreCopy) => moving::run(&state, moving::Job::Copy),
        Some(Endpoint::StoreSwitch) => moving::run(&state, moving::Job::Switch),
        Some(Endpoint::Explain) => own(explain::answer(&state, request.headers(), body).await),
        Some(Endpoint::Issuers) => own(issuers::list(&state)),
        Some(Endpoint::IssuerRefresh(name)) => own(issuers::refresh(&state, name).await),
        Some(Endpoint::IssuerDrop(name)) => own(issuers::drop_keys(&state, name).await),
        Some(Endpoint::Sessions) => own(sessions::list(&state, request.uri().query()).await),
        Some(Endpoint::Session(id)) => own(sessions::show(&state.gate, id).await),
        Some(Endpoint::SessionRevoke(id)) => own(sessions::revoke(&state.gate, id).await),
        Some(Endpoint::UsersReload) => own(reload_users(&state).await),
        Some(Endpoint::Revocations) => own(sessions::revoke_many(&state, request.uri().query()).await),
    };
    let status = response.status().as_u16();
    // Several times a second, from each that asks.
    if is_probe {
        tracing::debug!(target: "rotogate::admin", %method, path, status);
    } else {
        tracing::info!(target: "rotogate::admin", %method, path, status);
    }
    Ok(response)
}

const MISDIRECTED_DETAIL: &str = "use an IP address or localhost, or add this name to admin.hosts";

/// Whether `host` is safe from DNS rebinding: an IP address, `localhost`, or a configured name.
fn is_own_host(host: &str, hosts: &[String]) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || hosts.iter().any(|known| known.eq_ignore_ascii_case(host))
}

#[derive(serde::Serialize)]
struct Status<'a> {
    version: &'a str,
    pid: u32,
    listeners: &'a [SocketAddr],
}

/// The endpoints of this listener.
#[derive(Clone, Copy)]
enum Endpoint<'a> {
    Live,
    Ready,
    Metrics,
    Status,
    Backup,
    StoreCopy,
    StoreSwitch,
    Sessions,
    Session(&'a str),
    SessionRevoke(&'a str),
    UsersReload,
    Revocations,
    Explain,
    Issuers,
    IssuerRefresh(&'a str),
    IssuerDrop(&'a str),
}

impl<'a> Endpoint<'a> {
    /// Is it for health checks, which anyone who reaches this listener may do?
    fn is_probe(self) -> bool {
        matches!(self, Self::Live | Self::Ready)
    }

    fn at(path: &'a str) -> Option<Self> {
        Some(match path {
            "/livez" => Self::Live,
            "/readyz" => Self::Ready,
            "/metrics" => Self::Metrics,
            "/v1/status" => Self::Status,
            "/store/backup" => Self::Backup,
            "/store/copy" => Self::StoreCopy,
            "/store/switch" => Self::StoreSwitch,
            "/sessions" => Self::Sessions,
            "/users/reload" => Self::UsersReload,
            "/revocations" => Self::Revocations,
            "/v1/explain" => Self::Explain,
            "/v1/issuers" => Self::Issuers,
            _ => {
                if let Some(issuer) = path.strip_prefix("/v1/issuers/") {
                    let of = |ending| issuer.strip_suffix(ending).filter(|name| !name.is_empty());
                    return of("/refresh").map(Self::IssuerRefresh).or_else(|| of("/drop").map(Self::IssuerDrop));
                }
                let id = path.strip_prefix("/sessions/")?;
                id.strip_suffix("/revoke").map_or(Self::Session(id), Self::SessionRevoke)
            }
        })
    }

    const fn methods(self) -> &'static [Method] {
        match self {
            Self::Live
            | Self::Ready
            | Self::Metrics
            | Self::Status
            | Self::Sessions
            | Self::Session(_)
            | Self::Issuers => &[Method::GET, Method::HEAD],
            Self::Backup
            | Self::StoreCopy
            | Self::StoreSwitch
            | Self::SessionRevoke(_)
            | Self::UsersReload
            | Self::Revocations
            | Self::Explain
            | Self::IssuerRefresh(_)
            | Self::IssuerDrop(_) => &[Method::POST],
        }
    }
}

async fn ready(state: &State) -> Response<Body> {
    if *state.stopping.borrow() {
        return plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n");
    }
    let states = state.issuers.states();
    let ready = match state.gate.readiness().await {
        Readiness::Ready => "ready\n".to_owned(),
        Readiness::Degraded(why) => format!("degraded: {why}\n"),
        Readiness::NotReady(why) => {
            return plain(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {why}\n"));
        }
        _ => return plain(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
    };
    match state.issuers.missing() {
        None => plain(StatusCode::OK, &format!("{ready}{states}")),
        Some(issuer) => {
            let why = format!("not ready: issuer {issuer} has no keys yet\n{states}");
            plain(StatusCode::SERVICE_UNAVAILABLE, &why)
        }
    }
}

async fn metrics(state: &State, headers: &HeaderMap) -> Response<Body> {
    const OPEN: &str = "application/openmetrics-text";
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let is_open = accepted.flat_map(|value| value.split(',')).any(|media| media.trim().starts_with(OPEN));
    let is_ready = !*state.stopping.borrow()
        && state.issuers.missing().is_none()
        && matches!(state.gate.readiness().await, Readiness::Ready | Readiness::Degraded(_));
    let is_store_up = matches!(state.gate.store_readiness().await, Readiness::Ready | Readiness::Degraded(_));
    let mut response = plain(StatusCode::OK, &state.metrics.text(is_ready, is_store_up, is_open));
    let media = match is_open {
        true => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        false => "text/plain; version=0.0.4; charset=utf-8",
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

fn authorised(state: &State, request: &Request<()>) -> bool {
    matches!(
        credential::extract(request.headers(), None),
        Ok(Some(presented)) if state.token.is(presented.token())
    )
}

fn unauthorised() -> Reply {
    let mut reply = reply::problem(
        StatusCode::UNAUTHORIZED,
        Some("send the token of admin.token_file as `Authorization: Bearer …`"),
    );
    reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    reply
}

/// Reads the users file now. A command that changed the file waits for this.
async fn reload_users(state: &State) -> Reply {
    let Some(users) = &state.users else {
        return reply::problem(StatusCode::CONFLICT, Some("the users are not in a file (directory.kind)"));
    };
    match users.reload().await {
        Ok(()) => sessions::done(),
        Err(error @ ReloadError::Broken(_)) => reply::problem(StatusCode::CONFLICT, Some(&error.to_string())),
        Err(error @ ReloadError::NotDurable) => {
            let mut reply = reply::problem(StatusCode::SERVICE_UNAVAILABLE, Some(&error.to_string()));
            reply::retry_after(&mut reply, std::time::Duration::from_secs(5));
            reply
        }
    }
}

/// Copies the store into a file beside it and streams that file, which is unlinked by then.
async fn backup(state: &State) -> Response<Body> {
    let Some(store) = &state.store else {
        return own(reply::problem(StatusCode::CONFLICT, Some("a memory store has nothing to back up")));
    };
    match copy(store).await {
        Ok(file) => {
            let frames = ReaderStream::with_capacity(file, 64 * 1024).map_ok(Frame::data);
            let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            tracing::info!(target: "rotogate::audit", event = "store_backup", "store copied");
            response
        }
        Err(error) => {
            tracing::error!(%error, "store backup failed");
            own(reply::problem(StatusCode::INTERNAL_SERVER_ERROR, Some("the store could not be copied; see the log")))
        }
    }
}

async fn copy(store: &RedbStore) -> Result<tokio::fs::File, Box<dyn std::error::Error + Send + Sync>> {
    let name = format!(".backup-{}", uuid::Uuid::new_v4());
    let path = store.path().parent().unwrap_or(Path::new(".")).join(name);
    store.backup_to(&path).await?;
    let file = tokio::fs::File::open(&path).await;
    tokio::fs::remove_file(&path).await?;
    Ok(file?)
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

fn own(reply: Reply) -> Response<Body> {
    reply.map(|body| full(body.data))
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}
