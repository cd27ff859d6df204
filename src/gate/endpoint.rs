//! The gate's own endpoints: how they are found, and how they answer.
//!
//! `dialect reads → engine acts → dialect writes`. The engine runs in a separate task: a client that disconnects in the
//! middle of a rotation must not stop it between the store and the revocation list.

use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, SET_COOKIE, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use tracing::Instrument;

use super::overloaded::overloaded;
use super::possession::{PresentedProof, certificate_of};
use super::stall_timeout::StallTimeout;
use super::{Inner, Recipient, Who, respond};
use crate::context::{Context, inherited};
use crate::credential;
use crate::denial::Denial;
use crate::dialect::{
    Answer, Call, Command, CommandHandler, Consult, Dialect, Forward, Outcome, OwnSessionsRequest, Reply,
};
use crate::dpop;
use crate::engine::{Arrival, HeldUp, HeldUpNote, Origin, OwnSessions};
use crate::fault::{Error, Fault};
use crate::overload::{PoolPermit, Refusal};
use crate::reason::Reason;
use crate::reply;
use crate::route::RoutePolicy;
use crate::session::profile::ProfileOverride;
use crate::thumbprint::CertificateThumbprint;

mod execute;
mod read;
mod table;

use read::{Reading, Unread};

pub use table::EndpointError;
pub use table::envelopes;
pub(super) use table::{Endpoints, Hit, Operation};

/// The path of the JWK set, the public keys.
#[doc(hidden)]
pub const JWKS_PATH: &str = "/.well-known/jwks.json";
/// How long caches may keep the JWK set and the metadata.
const PUBLIC_MAX_AGE: &str = "public, max-age=300";
/// The same: for how long other verifiers may keep the published keys.
#[doc(hidden)]
pub const JWKS_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(300);
/// The time limit for the body of a streamed request, whatever arrives meanwhile.
const STREAMED_BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// An endpoint: a dialect at a path, with its rules.
///
/// ```
/// use rotogate::dialect::oauth2::OAuth2;
/// use rotogate::gate::Endpoint;
///
/// // Refreshes the sessions that began here, and those that the application started.
/// let endpoint = Endpoint::new(OAuth2).path("/oauth/token").accepts("application");
/// let builder = rotogate::Gate::builder().endpoint(endpoint);
/// # let _ = builder;
/// ```
#[derive(Debug)]
pub struct Endpoint {
    dialect: Box<dyn Dialect>,
    path: Option<String>,
    profile: ProfileOverride,
    clients: Option<Vec<Box<str>>>,
    client: Option<Box<str>>,
    accepts: Vec<Box<str>>,
    account: Option<Box<str>>,
    listeners: Vec<Box<str>>,
    #[cfg(feature = "relay")]
    relay_config: Option<super::relay::RelayConfig>,
    #[cfg(feature = "relay")]
    relay: Option<Arc<super::relay::EndpointRelay>>,
}

impl Endpoint {
    /// An endpoint of this dialect, at its default path.
    pub fn new(dialect: impl Dialect) -> Self {
        Self::boxed(Box::new(dialect))
    }

    /// The same, for a dialect found by its name.
    pub fn boxed(dialect: Box<dyn Dialect>) -> Self {
        Self {
            dialect,
            path: None,
            profile: ProfileOverride::default(),
            clients: None,
            client: None,
            accepts: Vec::new(),
            account: None,
            listeners: Vec::new(),
            #[cfg(feature = "relay")]
            relay_config: None,
            #[cfg(feature = "relay")]
            relay: None,
        }
    }

    /// Serves another path than the dialect's default: a `matchit` template.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Overrides keys of the dialect's profile, which overrides keys of the gate's.
    #[must_use]
    pub fn profile(mut self, profile: ProfileOverride) -> Self {
        self.profile = profile;
        self
    }

    /// The client of the sessions, if the protocol names none.
    #[must_use]
    pub fn client(mut self, client: impl Into<Box<str>>) -> Self {
        self.client = Some(client.into());
        self
    }

    /// Restricts the endpoint to these clients.
    #[must_use]
    pub fn clients(mut self, clients: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.clients = Some(clients.into_iter().map(Into::into).collect());
        self
    }

    /// Binds the endpoint to listeners, by the names in [`Peer::on_listener`](crate::gate::Peer::on_listener). On others its
    /// paths are 404. Without names, all serve it.
    #[must_use]
    pub fn listeners<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Box<str>>,
    {
        self.listeners = names.into_iter().map(Into::into).collect();
        self
    }

    /// Binds the endpoint to one account: users log in to it, and sessions and tokens of other accounts are unknown
    /// here. It excludes `{account}` in the path.
    #[must_use]
    pub fn account(mut self, account: impl Into<Box<str>>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Passes requests of this endpoint on to a provider.
    #[cfg(feature = "relay")]
    #[doc(hidden)]
    #[must_use]
    pub fn relay(mut self, config: super::relay::RelayConfig) -> Self {
        self.relay_config = Some(config);
        self
    }

    /// Makes the relay, if the endpoint has one.
    #[cfg(feature = "relay")]
    pub(super) fn begin_relay(
        &mut self,
        shared: &super::relay::Shared,
    ) -> Result<Option<Arc<super::relay::EndpointRelay>>, super::BuildError> {
        let Some(config) = self.relay_config.take() else { return Ok(None) };
        self.relay = Some(Arc::new(shared.relay(self.base(), config)?));
        Ok(self.relay.clone())
    }

    /// Takes the running relay of its path, if the endpoint has one.
    #[cfg(feature = "relay")]
    pub(super) fn go_on_with(&mut self, running: &[Arc<super::relay::EndpointRelay>]) -> Result<(), super::BuildError> {
        if self.relay_config.take().is_none() {
            return Ok(());
        }
        let found = running.iter().find(|relay| relay.path() == self.base());
        self.relay = Some(Arc::clone(found.ok_or_else(|| super::BuildError::NewRelay(self.base().to_owned()))?));
        Ok(())
    }

    /// The path below which it serves.
    fn base(&self) -> &str {
        self.path.as_deref().unwrap_or_else(|| self.dialect.default_path())
    }

    /// The clients that the endpoint names.
    pub(super) fn named_clients(&self) -> impl Iterator<Item = &str> {
        self.clients.iter().flatten().chain(&self.client).map(AsRef::as_ref)
    }

    /// Also refreshes sessions that began in this dialect.
    #[must_use]
    pub fn accepts(mut self, dialect: impl Into<Box<str>>) -> Self {
        self.accepts.push(dialect.into());
        self
    }
}

/// The response of an endpoint to a request.
pub(super) enum EndpointResponse {
    /// A reply, with its reason and recipient for the access log.
    Reply(Reply, Reason, Option<Who>),
    /// The service gets the same request, and the dialect makes the reply from the service's.
    Consult(Box<Parts>, Consult),
    /// The request, with another body, is decided by its route like any other. The permit is for the buffered body.
    Forward(Box<Parts>, Forward, Option<PoolPermit>),
    /// The dialect takes over the connection.
    #[cfg(feature = "kuzzle")]
    Upgrade(Box<TakenOver>),
}

impl EndpointResponse {
    fn reply(reply: Reply, reason: impl Into<Reason>) -> Self {
        Self::Reply(reply, reason.into(), None)
    }
}

/// A connection that a dialect takes over.
#[cfg(feature = "kuzzle")]
pub(super) struct TakenOver {
    pub(super) endpoint: usize,
    pub(super) head: Parts,
    pub(super) sources: crate::dialect::Sources,
    pub(super) origin: Origin,
    pub(super) upgrade: crate::dialect::Upgrade,
}

/// Answers a request to an endpoint.
pub(super) async fn answer<B>(
    gate: Arc<Inner>,
    operation: Operation,
    parts: Parts,
    body: B,
    address: Option<IpAddr>,
) -> EndpointResponse
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let arrived = gate.engine.arrival();
    let Operation { endpoint: index, served, params } = operation;
    let Some(endpoint) = gate.endpoints.get(index) else {
        return EndpointResponse::reply(reply::problem(StatusCode::NOT_FOUND, None), Denial::NoRoute);
    };
    if !served.methods.contains(&parts.method) {
        let plain = reply::method_not_allowed(served.methods);
        let denial = Denial::MethodNotAllowed;
        return EndpointResponse::reply(
            respond::worded(Some(&*endpoint.dialect), &parts.headers, denial, &plain).unwrap_or(plain),
            denial,
        );
    }
    let empty = Bytes::new();
    if endpoint.dialect.is_streamed(served.operation) {
        let call = Call {
            operation: served.operation,
            params: &params,
            method: &parts.method,
            headers: &parts.headers,
            path: parts.uri.path(),
            query: parts.uri.query(),
            body: &empty,
            address,
            from_own_origin: false,
        };
        let body = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
        let Ok(place) = gate.running.overload.streams.enter(gate.holder(&parts)) else {
            let refusal = Refusal::Streams;
            let reply = overloaded(refusal, Some(&*endpoint.dialect), &parts.headers);
            return EndpointResponse::reply(reply, Reason::shed(refusal));
        };
        let body = StallTimeout::new(body.map_err(Into::into).boxed_unsync(), STREAMED_BODY_TIMEOUT);
        let (reply, reason) = endpoint.dialect.stream(&call, body.boxed_unsync()).await;
        return EndpointResponse::reply(reply.map(|body| body.holding(place)), reason);
    }
    let reading = Reading { gate: &gate, dialect: &*endpoint.dialect, operation: served.operation, parts: &parts };
    let (read, room) = match reading.read(body).await {
        Ok((read, room)) => (Ok(read), room),
        Err(unread) => (Err(unread), None),
    };
    let call = Call {
        operation: served.operation,
        params: &params,
        method: &parts.method,
        headers: &parts.headers,
        path: parts.uri.path(),
        query: parts.uri.query(),
        body: read.as_ref().unwrap_or(&empty),
        address,
        from_own_origin: gate.origins.asked(&parts.headers),
    };
    let unread = match &read {
        Ok(_) => None,
        Err(Unread::TooLong) => Some(Denial::BodyTooLarge),
        Err(Unread::Undecided(denial)) => Some(*denial),
        Err(Unread::TooSlow) if reply::is_grpc(&parts.headers) => {
            return EndpointResponse::reply(
                reply::grpc_status(reply::GrpcCode::DeadlineExceeded, "the request came too slowly"),
                Reason::BODY_TOO_SLOW,
            );
        }
        Err(Unread::TooSlow) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            let reply = endpoint
                .dialect
                .failed(status, "the body came too slowly")
                .unwrap_or_else(|| reply::problem(status, None));
            return EndpointResponse::reply(reply, Reason::BODY_TOO_SLOW);
        }
        Err(Unread::Broken) => Some(Denial::MalformedRequest("the body broke off")),
        Err(Unread::Shed(refusal)) => {
            let reply = overloaded(*refusal, Some(&*endpoint.dialect), &parts.headers);
            return EndpointResponse::reply(reply, Reason::shed(*refusal));
        }
    };
    if let Some(denial) = unread {
        gate.tell_limited(&denial, || address);
        return EndpointResponse::reply(endpoint.dialect.write(&call, Err(denial.into())), denial);
    }
    // A browser adds cookies to any site's requests, so a change by cookie must come from an allowed page (requirement
    // T18).
    let cookie = endpoint.dialect.sources().cookie;
    let by_cookie = cookie.is_some_and(|name| credential::cookies(&parts.headers, name).next().is_some());
    if by_cookie && !gate.origins.admit(&parts, &RoutePolicy::default()) {
        let denial = Denial::CrossOrigin;
        return EndpointResponse::reply(endpoint.dialect.write(&call, Err(denial.into())), denial);
    }
    let origin = Origin {
        address,
        user_agent: parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).map(shortened),
        held_up: HeldUpNote::open(),
    };
    let is_oauth = endpoint.dialect.oauth("").is_some();
    let handler = EndpointHandler {
        gate: &gate,
        endpoint: index,
        account: call.account(),
        origin,
        arrived,
        // Only a token endpoint of OAuth says in its protocol what a proof or a certificate causes.
        proof: is_oauth.then(|| gate.presented_proof(&parts)).flatten().map(Arc::new),
        certificate: is_oauth.then(|| certificate_of(&parts)).flatten(),
        recipient: OnceLock::new(),
    };
    match endpoint.dialect.answer(&call, &handler).await {
        // Each dialect checks this before it acts. This is the second line of defence (requirement T25).
        Answer::Reply(reply, _)
            if reply.headers().contains_key(SET_COOKIE) && (!call.from_own_origin || call.method.is_safe()) =>
        {
            tracing::error!(
                dialect = endpoint.dialect.name(),
                "reply dropped: it sets a cookie without proof of origin"
            );
            let denial = Denial::CrossOrigin;
            let reply = endpoint.dialect.write(&call, Err(denial.into()));
            EndpointResponse::Reply(reply, denial.into(), handler.recipient.into_inner())
        }
        Answer::Reply(mut reply, reason) => {
            // A client that proves its key goes on with the latest nonce.
            if handler.proof.is_some()
                && let Some(nonce) = gate.dpop_nonce()
            {
                reply.headers_mut().insert(dpop::NONCE.clone(), nonce);
            }
            EndpointResponse::Reply(reply, reason, handler.recipient.into_inner())
        }
        Answer::Consult(consult) => EndpointResponse::Consult(Box::new(parts), consult),
        Answer::Forward(forward) => EndpointResponse::Forward(Box::new(parts), forward, room),
        #[cfg(feature = "kuzzle")]
        Answer::Upgrade(upgrade) => {
            let (sources, origin) = (endpoint.dialect.sources(), handler.origin);
            EndpointResponse::Upgrade(Box::new(TakenOver { endpoint: index, head: parts, sources, origin, upgrade }))
        }
    }
}

/// Executes the commands of one request.
pub(super) struct EndpointHandler<'a> {
    pub(super) gate: &'a Arc<Inner>,
    pub(super) endpoint: usize,
    pub(super) account: Option<&'a str>,
    pub(super) origin: Origin,
    /// When the request was read.
    pub(super) arrived: Arrival,
    /// The proof of a key that came with it.
    pub(super) proof: Option<Arc<PresentedProof>>,
    /// The client certificate of its connection.
    pub(super) certificate: Option<CertificateThumbprint>,
    /// The recipient of issued tokens, or whose attempt was held up, for the access log.
    pub(super) recipient: OnceLock<Who>,
}

#[async_trait]
impl CommandHandler for EndpointHandler<'_> {
    async fn execute(&self, command: Command) -> Result<Outcome, Error> {
        let (gate, index) = (Arc::clone(self.gate), self.endpoint);
        let (account, origin, arrived) = (self.account.map(str::to_owned), self.origin.clone(), self.arrived);
        let (proof, certificate) = (self.proof.clone(), self.certificate);
        let executing = async move {
            match gate.endpoints.get(index) {
                Some(endpoint) => {
                    let presented = execute::Presented { proof: proof.as_deref(), certificate };
                    execute::execute(&gate, endpoint, command, account.as_deref(), &origin, arrived, presented).await
                }
                None => Err(Denial::NoRoute.into()),
            }
        };
        let outcome = to_its_end(executing).await;
        if let Ok(Outcome::Issued(issued)) = &outcome {
            let recipient = Recipient { subject: issued.subject.clone(), session: issued.session };
            let _ = self.recipient.set(Who::Issued(Box::new(recipient)));
        }
        self.tell(&outcome);
        outcome
    }

    async fn own_sessions(&self, request: OwnSessionsRequest) -> Result<OwnSessions, Error> {
        let (gate, index) = (Arc::clone(self.gate), self.endpoint);
        let (account, origin) = (self.account.map(str::to_owned), self.origin.clone());
        let executing = async move {
            match gate.endpoints.get(index) {
                Some(endpoint) => execute::own_sessions(&gate, endpoint, &request, account.as_deref(), &origin).await,
                None => Err(Denial::NoRoute.into()),
            }
        };
        let outcome = to_its_end(executing).await;
        self.tell(&outcome);
        outcome
    }

    #[cfg(feature = "relay")]
    async fn relay(&self, request: crate::dialect::RelayRequest) -> Result<crate::relay::ProviderReply, Error> {
        let (gate, index, origin) = (Arc::clone(self.gate), self.endpoint, self.origin.clone());
        let executing = async move {
            match gate.endpoints.get(index).and_then(|endpoint| endpoint.relay.as_ref()) {
                Some(relay) => relay.answer(&gate, request, &origin).await,
                None => Err(Denial::NoRoute.into()),
            }
        };
        let outcome = to_its_end(executing).await;
        self.tell(&outcome);
        outcome
    }
}

impl EndpointHandler<'_> {
    /// Tells the logs of a fault, and of whose attempt a limit refused.
    fn tell<T>(&self, outcome: &Result<T, Error>) {
        self.gate.running.faults.tell(outcome, || self.gate.engine.clock().source().monotonic());
        let Err(error) = outcome else { return };
        self.gate.engine.tell_held_up(error, &self.origin, HeldUp::default);
        if let Some(held_up) = self.origin.held_up.get() {
            let _ = self.recipient.set(Who::HeldUp(Box::new(held_up.clone())));
        }
    }
}

/// Runs work of the engine in a separate task, to its end: a client that disconnects must not stop it between the store
/// and the revocation list.
pub(super) async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    match tokio::spawn(inherited(Context::current(), work.in_current_span())).await {
        Ok(done) => done,
        // Resumes the panic in the task of the request, which answers 500.
        Err(panicked) => match panicked.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Fault::Busy.into()),
        },
    }
}

/// The public keys (RFC 7517 §5).
pub(super) fn jwks(gate: &Inner, method: &Method) -> (Reply, Reason) {
    let keys = gate.engine.keyring().jwks();
    document(method, "application/jwk-set+json", serde_json::to_vec(&keys).unwrap_or_default().into())
}

/// The authorization server metadata (RFC 8414 §3.2).
pub(super) fn metadata(gate: &Inner, index: usize, method: &Method) -> (Reply, Reason) {
    document(method, "application/json", gate.endpoints.metadata(index))
}

fn document(method: &Method, media: &'static str, body: Bytes) -> (Reply, Reason) {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let reason = Reason::from(Denial::MethodNotAllowed);
        reason.tell();
        return (reply::method_not_allowed(&[Method::GET, Method::HEAD]), reason);
    }
    let mut reply = Response::new(body.into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(PUBLIC_MAX_AGE));
    (reply, Reason::ANSWERED)
}

/// A user agent, cut at 256 characters.
fn shortened(agent: &str) -> Box<str> {
    agent.chars().take(256).collect::<String>().into()
}
