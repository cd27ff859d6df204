//! Our own endpoints: which request is for one, and how it is answered.
//!
//! `dialect reads → engine acts → dialect writes`. What the engine does runs in a task of its own: a client that goes
//! away in the middle of a rotation must not stop it between the store and the revocation list.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use secrecy::{ExposeSecret, SecretString};
use tracing::Instrument;

use super::metadata::{self, Metadata};
use super::paced::Paced;
use super::{Inner, respond};
use crate::client::{Client, Grant, Presented};
use crate::credential::{self, Credential};
use crate::denial::{Denial, Error, Fault};
use crate::dialect::{
    Acting, Answer, Call, Checked, Command, Consult, Dialect, Forward, Outcome, RefreshCredential, Reply, Served,
};
use crate::revocation::{Effect, Revocation};
use crate::route::RoutePolicy;
use crate::route::path::CanonicalPath;
use crate::session::RevokedBecause;
use crate::session::engine::{Exchange, Login, OfAccount, Origin, Refresh};
use crate::session::profile::{Profile, ProfileOverride};
use crate::token::claims::{AccessToken, TokenStyle};

/// Where the public keys are.
pub const JWKS_PATH: &str = "/.well-known/jwks.json";
/// How long others may keep keys and metadata.
const PUBLIC_MAX_AGE: &str = "public, max-age=300";
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);
/// How long one that is answered while it comes may stand still.
const STREAM_IDLE: Duration = Duration::from_secs(60);

/// An endpoint: a dialect at a path, with its rules.
#[derive(Debug)]
pub struct Endpoint {
    dialect: Box<dyn Dialect>,
    path: Option<String>,
    profile: ProfileOverride,
    clients: Option<Vec<Box<str>>>,
    client: Option<Box<str>>,
    accepts: Vec<Box<str>>,
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
        }
    }

    /// At another path: a `matchit` template.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// With rules that differ from the dialect's, which differ from the gate's.
    #[must_use]
    pub fn profile(mut self, profile: ProfileOverride) -> Self {
        self.profile = profile;
        self
    }

    /// Under this client, where the protocol names none.
    #[must_use]
    pub fn client(mut self, client: impl Into<Box<str>>) -> Self {
        self.client = Some(client.into());
        self
    }

    /// For these clients alone.
    #[must_use]
    pub fn clients(mut self, clients: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        self.clients = Some(clients.into_iter().map(Into::into).collect());
        self
    }

    /// Takes sessions begun in this dialect, too.
    #[must_use]
    pub fn accepts(mut self, dialect: impl Into<Box<str>>) -> Self {
        self.accepts.push(dialect.into());
        self
    }
}

/// An endpoint, ready to serve.
#[derive(Debug)]
struct Ready {
    dialect: Box<dyn Dialect>,
    profile: Profile,
    clients: Option<Vec<Box<str>>>,
    client: Option<Box<str>>,
    accepts: Vec<Box<str>>,
    /// Has any of its paths a place for an account?
    names_accounts: bool,
}

/// What a path of ours serves.
#[derive(Clone, Debug)]
enum Entry {
    Operation { endpoint: usize, served: Arc<Served> },
    Jwks,
    Metadata,
}

impl Entry {
    fn endpoint(&self) -> Option<usize> {
        match self {
            Self::Operation { endpoint, .. } => Some(*endpoint),
            Self::Jwks | Self::Metadata => None,
        }
    }
}

/// Two endpoints, or one and a template, that do not fit together.
#[derive(Debug, thiserror::Error)]
#[error("endpoint {dialect} at {path}: {problem}")]
pub struct EndpointError {
    dialect: String,
    path: String,
    problem: String,
}

/// All endpoints, by path.
#[derive(Debug)]
pub(super) struct Endpoints {
    ready: Vec<Ready>,
    exact: matchit::Router<Entry>,
    /// The same templates in lower case, to find spellings that come close.
    loose: matchit::Router<Option<usize>>,
    metadata: Bytes,
}

/// An operation that a request is for.
#[derive(Debug)]
pub(super) struct Operation {
    endpoint: usize,
    served: Arc<Served>,
    params: Vec<(String, String)>,
}

/// A request that is for us.
#[derive(Debug)]
pub(super) enum Hit {
    Operation(Operation),
    Jwks,
    Metadata,
    /// Of a path of this endpoint; of one of the gate's own, if there is none.
    NearMiss(Option<usize>),
}

impl Endpoints {
    /// What the clients of each dialect need of an access token.
    pub(super) fn styles(endpoints: &[Endpoint]) -> Vec<(Box<str>, TokenStyle)> {
        endpoints.iter().map(|endpoint| (endpoint.dialect.name().into(), endpoint.dialect.token_style())).collect()
    }

    pub(super) fn new(
        endpoints: Vec<Endpoint>,
        profile: &Profile,
        clients: &[Client],
        issuer: &str,
        public_url: &str,
    ) -> Result<Self, EndpointError> {
        let mut all = Self {
            ready: Vec::new(),
            exact: matchit::Router::new(),
            loose: matchit::Router::new(),
            metadata: Bytes::new(),
        };
        all.insert("the gate", JWKS_PATH, Entry::Jwks)?;
        for endpoint in endpoints {
            let base = endpoint.path.unwrap_or_else(|| endpoint.dialect.default_path().to_owned());
            let base = base.as_str();
            let index = all.ready.len();
            let mut names_accounts = false;
            for served in endpoint.dialect.serves(base) {
                names_accounts |= served.template.contains("{account}");
                let template = served.template.clone();
                let entry = Entry::Operation { endpoint: index, served: Arc::new(served) };
                all.insert(endpoint.dialect.name(), &template, entry)?;
            }
            // Of several, the first is what a client finds by metadata alone.
            if all.metadata.is_empty()
                && let Some(paths) = endpoint.dialect.oauth(base)
            {
                for path in metadata::paths(issuer) {
                    all.insert("the gate", &path, Entry::Metadata)?;
                }
                let served = |client: &&Client| endpoint.clients.as_ref().is_none_or(|ids| ids.contains(&client.id));
                let metadata = Metadata::new(issuer, public_url, &paths, clients.iter().filter(served));
                all.metadata = metadata.to_bytes();
            }
            let mut accepts = endpoint.accepts;
            accepts.push(endpoint.dialect.name().into());
            let profile = endpoint.profile.over(&endpoint.dialect.profile().over(profile));
            // Rules that do not hold together are found here, not at a client's refresh.
            let of_clients = clients.iter().map(|client| client.profile.over(&profile));
            let mut all_rules = std::iter::once(profile.clone()).chain(of_clients);
            if let Some(problem) = all_rules.find_map(|rules| rules.problems().into_iter().next()) {
                return Err(EndpointError {
                    dialect: endpoint.dialect.name().to_owned(),
                    path: base.to_owned(),
                    problem: problem.to_string(),
                });
            }
            all.ready.push(Ready {
                client: endpoint.client.or_else(|| endpoint.dialect.client().map(Into::into)),
                dialect: endpoint.dialect,
                profile,
                clients: endpoint.clients,
                accepts,
                names_accounts,
            });
        }
        Ok(all)
    }

    fn insert(&mut self, dialect: &str, template: &str, entry: Entry) -> Result<(), EndpointError> {
        let failed = |error: matchit::InsertError| EndpointError {
            dialect: dialect.to_owned(),
            path: template.to_owned(),
            problem: error.to_string(),
        };
        let endpoint = entry.endpoint();
        self.exact.insert(template, entry).map_err(failed)?;
        // Two templates that differ in case alone are one loose template.
        match self.loose.insert(template.to_ascii_lowercase(), endpoint) {
            Ok(()) | Err(matchit::InsertError::Conflict { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Is an operation for upgrades alone?
    pub(super) fn upgrades(&self, operation: &Operation) -> bool {
        let endpoint = self.ready.get(operation.endpoint);
        endpoint.is_some_and(|endpoint| endpoint.dialect.upgrades(operation.served.operation))
    }

    /// The dialect of an endpoint.
    pub(super) fn dialect(&self, endpoint: usize) -> Option<&dyn Dialect> {
        self.ready.get(endpoint).map(|endpoint| endpoint.dialect.as_ref())
    }

    /// The dialect that knows a request's sender as a client of its own, wherever the request went.
    pub(super) fn dialect_of_client(&self, headers: &HeaderMap) -> Option<&dyn Dialect> {
        self.ready.iter().map(|endpoint| endpoint.dialect.as_ref()).find(|dialect| dialect.knows(headers))
    }

    /// Is a request with this path for us? `raw` is the path as it came.
    pub(super) fn find(&self, path: &CanonicalPath, raw: &str) -> Option<Hit> {
        match self.exact.at(path.as_str()) {
            Ok(found) => {
                let account = found.params.get("account").unwrap_or_default();
                let spelt = |spelling: &&str| spelling.replace("{account}", account) == raw;
                Some(match found.value {
                    Entry::Jwks if !path.is_rewritten() => Hit::Jwks,
                    Entry::Metadata if !path.is_rewritten() => Hit::Metadata,
                    Entry::Operation { endpoint, served }
                        if !path.is_rewritten() || served.spellings.iter().any(spelt) =>
                    {
                        let params = found.params.iter();
                        let params = params.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                        Hit::Operation(Operation { endpoint: *endpoint, served: Arc::clone(served), params })
                    }
                    Entry::Jwks | Entry::Metadata | Entry::Operation { .. } => Hit::NearMiss(found.value.endpoint()),
                })
            }
            Err(_) => self.loose.at(&path.loose()).ok().map(|found| Hit::NearMiss(*found.value)),
        }
    }
}

/// What an endpoint makes of a request.
pub(super) enum Answered {
    /// A reply, and why, for the access log.
    Reply(Reply, &'static str),
    /// The service is to be asked the same, and the dialect then makes the reply.
    Consult(Box<Parts>, Consult),
    /// The request is to be decided like one that is not ours, with another body.
    Forward(Box<Parts>, Forward),
    /// The connection is to be the dialect's.
    #[cfg(feature = "kuzzle")]
    Upgrade(Box<TakenOver>),
}

/// What is known of a connection that a dialect takes over.
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
) -> Answered
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Operation { endpoint: index, served, params } = operation;
    let Some(endpoint) = gate.endpoints.ready.get(index) else {
        return Answered::Reply(respond::problem(StatusCode::NOT_FOUND, None), Denial::NoRoute.reason());
    };
    if !served.methods.contains(&parts.method) {
        let plain = respond::method_not_allowed(served.methods);
        let denial = Denial::MethodNotAllowed;
        return Answered::Reply(
            respond::worded(Some(&*endpoint.dialect), &parts.headers, denial, plain),
            denial.reason(),
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
        };
        let body = body.map_frame(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
        let body = Paced::new(body.map_err(Into::into).boxed_unsync(), STREAM_IDLE);
        let (reply, reason) = endpoint.dialect.stream(&call, body.boxed_unsync()).await;
        return Answered::Reply(reply, reason);
    }
    let own_bound = endpoint.dialect.max_body(served.operation);
    let read = read_body(body, own_bound.map_or(gate.max_endpoint_body, |own| own.max(gate.max_endpoint_body))).await;
    let call = Call {
        operation: served.operation,
        params: &params,
        method: &parts.method,
        headers: &parts.headers,
        path: parts.uri.path(),
        query: parts.uri.query(),
        body: read.as_ref().unwrap_or(&empty),
        address,
    };
    let unread = match &read {
        Ok(_) => None,
        Err(Unread::TooLong) => Some(Denial::BodyTooLarge),
        Err(Unread::TooSlow) if respond::is_grpc(&parts.headers) => {
            return Answered::Reply(respond::grpc_status("4", "the request came too slowly"), "body_too_slow");
        }
        Err(Unread::TooSlow) => {
            let status = StatusCode::REQUEST_TIMEOUT;
            let reply = endpoint.dialect.failed(status).unwrap_or_else(|| respond::problem(status, None));
            return Answered::Reply(reply, "body_too_slow");
        }
        Err(Unread::Broken) => Some(Denial::MalformedRequest("the body broke off")),
    };
    if let Some(denial) = unread {
        return Answered::Reply(endpoint.dialect.write(&call, Err(denial.into())), denial.reason());
    }
    // A browser sends a cookie unasked: what may change something must come from a page that may (requirement T18).
    let cookie = endpoint.dialect.sources().cookie;
    let by_cookie = cookie.is_some_and(|name| credential::cookies(&parts.headers, name).next().is_some());
    if by_cookie && !gate.origins.admit(&parts, &RoutePolicy::default()) {
        let denial = Denial::CrossOrigin;
        return Answered::Reply(endpoint.dialect.write(&call, Err(denial.into())), denial.reason());
    }
    let origin = Origin {
        address,
        user_agent: parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).map(shortened),
    };
    let desk = Desk { gate: &gate, endpoint: index, account: call.account(), origin };
    match endpoint.dialect.answer(&call, &desk).await {
        Answer::Reply(reply, reason) => Answered::Reply(reply, reason),
        Answer::Consult(consult) => Answered::Consult(Box::new(parts), consult),
        Answer::Forward(forward) => Answered::Forward(Box::new(parts), forward),
        #[cfg(feature = "kuzzle")]
        Answer::Upgrade(upgrade) => {
            let (sources, origin) = (endpoint.dialect.sources(), desk.origin);
            Answered::Upgrade(Box::new(TakenOver { endpoint: index, head: parts, sources, origin, upgrade }))
        }
    }
}

/// Where commands are handed in.
pub(super) struct Desk<'a> {
    pub(super) gate: &'a Arc<Inner>,
    pub(super) endpoint: usize,
    pub(super) account: Option<&'a str>,
    pub(super) origin: Origin,
}

#[async_trait]
impl Acting for Desk<'_> {
    async fn act(&self, command: Command) -> Result<Outcome, Error> {
        let (gate, index) = (Arc::clone(self.gate), self.endpoint);
        let (account, origin) = (self.account.map(str::to_owned), self.origin.clone());
        let act = async move {
            match gate.endpoints.ready.get(index) {
                Some(endpoint) => act(&gate, endpoint, command, account.as_deref(), &origin).await,
                None => Err(Denial::NoRoute.into()),
            }
        };
        let outcome = match tokio::spawn(act.in_current_span()).await {
            Ok(outcome) => outcome,
            // Goes on in the task of the request, which answers 500.
            Err(panicked) => match panicked.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Fault::Busy.into()),
            },
        };
        if let Err(Error::Failed(fault)) = &outcome {
            tracing::error!(
                target: "rotogate::fault",
                reason = fault.reason(),
                error = ?crate::denial::Chain(fault),
                "a request could not be decided, and was told to come again"
            );
        }
        outcome
    }
}

/// The public keys (RFC 7517 §5).
pub(super) fn jwks(gate: &Inner, method: &Method) -> Reply {
    let keys = gate.engine.keyring().jwks();
    document(method, "application/jwk-set+json", serde_json::to_vec(&keys).unwrap_or_default().into())
}

/// What there is, for clients that are told nothing but the issuer (RFC 8414 §3.2).
pub(super) fn metadata(gate: &Inner, method: &Method) -> Reply {
    document(method, "application/json", gate.endpoints.metadata.clone())
}

fn document(method: &Method, media: &'static str, body: Bytes) -> Reply {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return respond::method_not_allowed(&[Method::GET, Method::HEAD]);
    }
    let mut reply = Response::new(body.into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(PUBLIC_MAX_AGE));
    reply
}

/// Carries a command out.
async fn act(
    gate: &Inner,
    endpoint: &Ready,
    command: Command,
    account: Option<&str>,
    origin: &Origin,
) -> Result<Outcome, Error> {
    let at = At { gate, endpoint, origin };
    match command {
        Command::Login { client, username, password, scope, access_ttl } => {
            let client = at.client(client, Some(Grant::Password)).await?;
            let login = Login {
                client: &client,
                account,
                username: &username,
                password: &password,
                scope,
                access_ttl,
                profile: &client.profile.over(&endpoint.profile),
                dialect: endpoint.dialect.name(),
                origin,
            };
            issued(gate.engine.login(login).await?)
        }
        Command::ClientToken { client, scope } => {
            let client = at.client(Some(client), Some(Grant::ClientCredentials)).await?;
            if client.secret_hash.is_none() {
                return Err(Denial::UnauthorizedClient.into());
            }
            let profile = client.profile.over(&endpoint.profile);
            issued(gate.engine.client_token(&client, scope.as_ref(), &profile, origin)?)
        }
        Command::Refresh { client, credential, scope, access_ttl } => {
            let client = at.client(client, Some(Grant::RefreshToken)).await?;
            let (token, access) = read_credential(gate, credential)?;
            let credential = match (&token, &access) {
                (Some(token), Some(access)) => Exchange::Pair(token, access),
                (Some(token), None) => Exchange::Refresh(token),
                (None, Some(access)) => Exchange::Access(access),
                (None, None) => return Err(Denial::UnknownRefreshToken.into()),
            };
            let refresh = Refresh {
                credential,
                client: &client,
                account: if endpoint.names_accounts { OfAccount::Only(account) } else { OfAccount::Any },
                scope,
                access_ttl,
                profile: &client.profile.over(&endpoint.profile),
                accepts: &endpoint.accepts,
                origin,
            };
            issued(gate.engine.refresh(refresh).await?)
        }
        Command::Revoke { client, token } => {
            let client = at.client(client, None).await?;
            revoke(gate, &client, &token, origin).await.map(|()| Outcome::Revoked)
        }
        Command::Logout { access, everywhere } => at.log_out(&access, everywhere).await.map(|()| Outcome::Revoked),
        Command::Introspect { client, token } => {
            let client = at.client(Some(client), None).await?;
            // RFC 7662 §2.1: whoever asks must be authorised to, or tokens could be fished for.
            if client.secret_hash.is_none() {
                return Err(Denial::UnauthorizedClient.into());
            }
            Ok(Outcome::Checked(at.check(&token).map(Box::new)))
        }
        Command::Check { access, superseded_in_grace } => {
            let mut checked = at.check(&access);
            if superseded_in_grace && checked.as_ref().is_err_and(|denial| *denial == Denial::TokenRevoked) {
                checked = at.check_superseded(&access).await?;
            }
            let mut checked = match checked {
                Ok(checked) => checked,
                Err(denial) => return Ok(Outcome::Checked(Err(denial))),
            };
            // Another issuer's subject is nobody in our directory, whatever its name.
            if *checked.issuer == **gate.engine.issuer() {
                checked.user = gate.engine.user(&checked.subject).await?;
            }
            Ok(Outcome::Checked(Ok(Box::new(checked))))
        }
    }
}

/// What was presented, verified as far as it can be without the session's record.
fn read_credential(
    gate: &Inner,
    credential: RefreshCredential,
) -> Result<(Option<SecretString>, Option<AccessToken>), Denial> {
    let read = |access: &SecretString, expired_for_at_most| {
        let access = gate.checker.read_only(access.expose_secret(), expired_for_at_most)?;
        if access.ours { Ok(access) } else { Err(Denial::UnknownRefreshToken) }
    };
    match credential {
        RefreshCredential::Refresh(token) => Ok((Some(token), None)),
        RefreshCredential::Access(access) => Ok((None, Some(read(&access, Duration::ZERO)?))),
        RefreshCredential::Pair { access, refresh, expired_for_at_most } => {
            Ok((Some(refresh), Some(read(&access, expired_for_at_most)?)))
        }
    }
}

/// One request at an endpoint.
struct At<'a> {
    gate: &'a Inner,
    endpoint: &'a Ready,
    origin: &'a Origin,
}

impl At<'_> {
    /// The client that asks, if it is known, proved itself, and may use this endpoint and grant.
    async fn client(&self, presented: Option<Presented>, grant: Option<Grant>) -> Result<Arc<Client>, Error> {
        let client = match presented {
            Some(presented) => {
                let count = || self.gate.engine.limits().client(self.origin.address, &presented.id);
                self.gate.clients.authenticate(&presented, count).await?
            }
            // The protocol names none: the endpoint's own, which is public.
            None => {
                let id = self.endpoint.client.as_ref().ok_or(Denial::InvalidClient)?;
                let own = || Arc::new(Client { id: id.clone(), ..Client::public("") });
                self.gate.clients.get(id).filter(|client| client.secret_hash.is_none()).unwrap_or_else(own)
            }
        };
        if self.endpoint.clients.as_ref().is_some_and(|allowed| !allowed.contains(&client.id)) {
            return Err(Denial::UnauthorizedClient.into());
        }
        if grant.is_some_and(|grant| !client.may(grant)) {
            return Err(Denial::UnauthorizedClient.into());
        }
        Ok(client)
    }

    /// What an access token is now.
    fn check(&self, token: &SecretString) -> Result<Checked, Denial> {
        let credential = Credential::new(token.expose_secret());
        let verified = self.gate.checker.check(credential, self.gate.engine.confirmations())?;
        Ok(checked(verified.token()))
    }

    /// A token that its own rotation revoked, as long as it may be exchanged for the same successor again.
    async fn check_superseded(&self, token: &SecretString) -> Result<Result<Checked, Denial>, Error> {
        let access = match self.gate.checker.read_only(token.expose_secret(), Duration::ZERO) {
            Ok(access) => access,
            Err(denial) => return Ok(Err(denial)),
        };
        let in_grace = self.gate.engine.may_be_replayed(&access, &self.endpoint.profile).await?;
        Ok(if in_grace { Ok(checked(&access)) } else { Err(Denial::TokenRevoked) })
    }

    async fn log_out(&self, access: &SecretString, everywhere: bool) -> Result<(), Error> {
        let checked = self.check(access)?;
        let engine = &self.gate.engine;
        if everywhere {
            engine.revoke_subject(&checked.subject, RevokedBecause::Logout).await?;
        }
        match checked.session {
            Some(session) => match engine.store().load(session).await? {
                Some(session) => engine.log_out(&session, &checked.client, self.origin).await,
                None => Ok(()),
            },
            None => Err(Denial::UnusableCredential.into()),
        }
    }
}

fn checked(token: &AccessToken) -> Checked {
    Checked {
        subject: token.subject.clone(),
        client: token.client.clone().unwrap_or_default(),
        scope: token.scope.clone(),
        expires: token.expires,
        issued_at: token.issued_at,
        issuer: (*token.issuer).into(),
        session: token.session.map(|(session, _)| session),
        account: token.account.clone(),
        user: None,
    }
}

fn issued(issued: crate::session::engine::Issued) -> Result<Outcome, Error> {
    Ok(Outcome::Issued(Box::new(issued)))
}

/// RFC 7009: what the token belongs to ends, whichever kind of token it is. One that nobody knows needs no revoking.
async fn revoke(gate: &Inner, client: &Client, token: &SecretString, origin: &Origin) -> Result<(), Error> {
    let engine = &gate.engine;
    if engine.revoke_refresh_token(token.expose_secret(), &client.id, origin).await? {
        return Ok(());
    }
    let Ok(access) = gate.checker.read_only(token.expose_secret(), Duration::ZERO) else { return Ok(()) };
    if !access.ours {
        return Ok(());
    }
    if access.client.as_deref() != Some(client.id.as_ref()) {
        return Err(Denial::OtherClient.into());
    }
    if let Some((session, _)) = access.session
        && let Some(session) = engine.store().load(session).await?
    {
        return engine.log_out(&session, &client.id, origin).await;
    }
    let Some(target) = crate::verified::revocable(&access) else { return Ok(()) };
    let effect = match &target {
        crate::revocation::Target::Session(_) => Effect::SESSION_GONE,
        _ => Effect::Gone,
    };
    let until = access.expires.plus(gate.leeway);
    engine.revoke(Revocation { target, effect, until }, RevokedBecause::Logout).await
}

/// Why a body was not read.
enum Unread {
    TooLong,
    TooSlow,
    Broken,
}

async fn read_body<B>(body: B, limit: usize) -> Result<Bytes, Unread>
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match tokio::time::timeout(BODY_TIME, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLong),
        Ok(Err(_)) => Err(Unread::Broken),
        Err(_) => Err(Unread::TooSlow),
    }
}

/// A user agent, as far as it is worth keeping.
fn shortened(agent: &str) -> Box<str> {
    agent.chars().take(256).collect::<String>().into()
}
