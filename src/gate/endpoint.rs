//! Our own endpoints: which request is for one, and how it is answered.
//!
//! `dialect reads → engine acts → dialect writes`. What the engine does runs in a task of its own: a client that goes
//! away in the middle of a rotation must not stop it between the store and the revocation list.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use secrecy::{ExposeSecret, SecretString};
use tracing::Instrument;

use super::{Inner, respond};
use crate::client::Client;
use crate::credential::Credential;
use crate::denial::{Denial, Error};
use crate::dialect::{Call, Checked, Command, Dialect, Outcome, Reply, Served};
use crate::revocation::{Effect, Revocation};
use crate::route::path::CanonicalPath;
use crate::session::RevokedBecause;
use crate::session::engine::{Login, OfAccount, Origin, Refresh};
use crate::session::profile::Profile;

/// Where the public keys are.
pub const JWKS_PATH: &str = "/.well-known/jwks.json";
/// How long others may keep them.
const JWKS_MAX_AGE: &str = "public, max-age=300";
/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(10);

/// An endpoint: a dialect at a path, with its rules.
#[derive(Debug)]
pub struct Endpoint {
    dialect: Box<dyn Dialect>,
    path: Option<String>,
    profile: Option<Profile>,
    clients: Option<Vec<Box<str>>>,
    accepts: Vec<Box<str>>,
}

impl Endpoint {
    /// An endpoint of this dialect, at its default path.
    pub fn new(dialect: impl Dialect) -> Self {
        Self::boxed(Box::new(dialect))
    }

    /// The same, for a dialect found by its name.
    pub fn boxed(dialect: Box<dyn Dialect>) -> Self {
        Self { dialect, path: None, profile: None, clients: None, accepts: Vec::new() }
    }

    /// At another path: a `matchit` template.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// With rules of its own; the gate's otherwise.
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = Some(profile);
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
    accepts: Vec<Box<str>>,
    /// Has any of its paths a place for an account?
    names_accounts: bool,
}

/// What a path of ours serves.
#[derive(Clone, Debug)]
enum Entry {
    Operation { endpoint: usize, served: Arc<Served> },
    Jwks,
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
    loose: matchit::Router<()>,
}

/// A request that is for us.
#[derive(Debug)]
pub(super) enum Hit {
    Operation { endpoint: usize, served: Arc<Served>, account: Option<String> },
    Jwks,
    NearMiss,
}

impl Endpoints {
    pub(super) fn new(endpoints: Vec<Endpoint>, profile: &Profile, clients: &[Client]) -> Result<Self, EndpointError> {
        let mut all = Self { ready: Vec::new(), exact: matchit::Router::new(), loose: matchit::Router::new() };
        all.insert("the gate", JWKS_PATH, Entry::Jwks)?;
        for endpoint in endpoints {
            let base = endpoint.path.as_deref().unwrap_or(endpoint.dialect.default_path());
            let index = all.ready.len();
            let mut names_accounts = false;
            for served in endpoint.dialect.serves(base) {
                names_accounts |= served.template.contains("{account}");
                let template = served.template.clone();
                let entry = Entry::Operation { endpoint: index, served: Arc::new(served) };
                all.insert(endpoint.dialect.name(), &template, entry)?;
            }
            let mut accepts = endpoint.accepts;
            accepts.push(endpoint.dialect.name().into());
            let profile = endpoint.profile.unwrap_or_else(|| profile.clone());
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
        self.exact.insert(template, entry).map_err(failed)?;
        // Two templates that differ in case alone are one loose template.
        match self.loose.insert(template.to_ascii_lowercase(), ()) {
            Ok(()) | Err(matchit::InsertError::Conflict { .. }) => Ok(()),
            Err(error) => Err(failed(error)),
        }
    }

    /// Is a request with this path for us? `raw` is the path as it came.
    pub(super) fn find(&self, path: &CanonicalPath, raw: &str) -> Option<Hit> {
        match self.exact.at(path.as_str()) {
            Ok(found) => {
                let account = found.params.get("account").map(str::to_owned);
                Some(match found.value {
                    Entry::Jwks if !path.is_rewritten() => Hit::Jwks,
                    Entry::Operation { endpoint, served }
                        if !path.is_rewritten() || served.spellings.contains(&raw) =>
                    {
                        Hit::Operation { endpoint: *endpoint, served: Arc::clone(served), account }
                    }
                    Entry::Jwks | Entry::Operation { .. } => Hit::NearMiss,
                })
            }
            Err(_) => self.loose.at(&path.loose()).is_ok().then_some(Hit::NearMiss),
        }
    }
}

/// Answers a request to an endpoint. Also says why, for the access log.
pub(super) async fn answer<B>(
    gate: Arc<Inner>,
    hit: (usize, Arc<Served>, Option<String>),
    parts: Parts,
    body: B,
    address: Option<IpAddr>,
) -> (Reply, &'static str)
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (index, served, account) = hit;
    let Some(endpoint) = gate.endpoints.ready.get(index) else {
        return (respond::problem(StatusCode::NOT_FOUND, None), Denial::NoRoute.reason());
    };
    if !served.methods.contains(&parts.method) {
        return (respond::method_not_allowed(served.methods), Denial::MethodNotAllowed.reason());
    }
    let read = read_body(body, gate.max_endpoint_body).await;
    let empty = Bytes::new();
    let call = Call {
        operation: served.operation,
        account: account.as_deref(),
        method: &parts.method,
        headers: &parts.headers,
        query: parts.uri.query(),
        body: read.as_ref().unwrap_or(&empty),
        address,
    };
    let command = match read {
        Ok(_) => endpoint.dialect.read(&call),
        Err(Unread::TooLong) => Err(Denial::BodyTooLarge),
        Err(Unread::TooSlow) => {
            return (respond::problem(StatusCode::REQUEST_TIMEOUT, None), "body_too_slow");
        }
        Err(Unread::Broken) => Err(Denial::MalformedRequest("the body broke off")),
    };
    let outcome = match command {
        Err(denial) => Err(Error::Denied(denial)),
        Ok(command) => {
            let origin = Origin {
                address,
                user_agent: parts.headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).map(shortened),
            };
            let (gate, account) = (Arc::clone(&gate), account.clone());
            let act = async move {
                match gate.endpoints.ready.get(index) {
                    Some(endpoint) => act(&gate, endpoint, command, account.as_deref(), &origin).await,
                    None => Err(Denial::NoRoute.into()),
                }
            };
            match tokio::spawn(act.in_current_span()).await {
                Ok(outcome) => outcome,
                Err(_) => return (respond::problem(StatusCode::INTERNAL_SERVER_ERROR, None), "panic"),
            }
        }
    };
    let reason = match &outcome {
        Ok(_) => "answered",
        Err(Error::Denied(denial)) => denial.reason(),
        Err(Error::Failed(fault)) => {
            tracing::error!(
                target: "rotogate::fault",
                reason = fault.reason(),
                error = ?crate::denial::Chain(fault),
                "a request could not be decided, and was answered 503"
            );
            fault.reason()
        }
    };
    (endpoint.dialect.write(&call, outcome), reason)
}

/// The public keys (RFC 7517 §5).
pub(super) fn jwks(gate: &Inner, method: &Method) -> Reply {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return respond::method_not_allowed(&[Method::GET, Method::HEAD]);
    }
    let keys = gate.engine.keyring().jwks();
    let mut reply = Response::new(serde_json::to_vec(&keys).map(Bytes::from).unwrap_or_default());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(JWKS_MAX_AGE));
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
    let client = gate
        .clients
        .authenticate(command.client(), || gate.engine.limits().client(origin.address, &command.client().id))
        .await?;
    if endpoint.clients.as_ref().is_some_and(|allowed| !allowed.contains(&client.id)) {
        return Err(Denial::UnauthorizedClient.into());
    }
    if command.grant().is_some_and(|grant| !client.may(grant)) {
        return Err(Denial::UnauthorizedClient.into());
    }
    let profile = &client.profile.over(&endpoint.profile);
    match command {
        Command::Login { username, password, scope, access_ttl, .. } => {
            let login = Login {
                client: &client,
                account,
                username: &username,
                password: &password,
                scope,
                access_ttl,
                profile,
                dialect: endpoint.dialect.name(),
                origin,
            };
            issued(gate.engine.login(login).await?)
        }
        Command::ClientToken { scope, .. } => {
            if client.secret_hash.is_none() {
                return Err(Denial::UnauthorizedClient.into());
            }
            issued(gate.engine.client_token(&client, scope.as_ref(), profile, origin)?)
        }
        Command::Refresh { token, scope, access_ttl, .. } => {
            let refresh = Refresh {
                token: &token,
                client: &client,
                account: if endpoint.names_accounts { OfAccount::Only(account) } else { OfAccount::Any },
                scope,
                access_ttl,
                profile,
                accepts: &endpoint.accepts,
                origin,
            };
            issued(gate.engine.refresh(refresh).await?)
        }
        Command::Revoke { token, .. } => revoke(gate, &client, &token, origin).await.map(|()| Outcome::Revoked),
        Command::Check { token, .. } => {
            // RFC 7662 §2.1: whoever asks must be authorised to, or tokens could be fished for.
            if client.secret_hash.is_none() {
                return Err(Denial::UnauthorizedClient.into());
            }
            Ok(Outcome::Checked(check(gate, &token).map(Box::new)))
        }
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
    let Ok(access) = gate.checker.read_only(token.expose_secret()) else { return Ok(()) };
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

/// RFC 7662 for access tokens: refresh tokens are nobody's to ask about but their client's.
fn check(gate: &Inner, token: &SecretString) -> Option<Checked> {
    let verified = gate.checker.check(Credential::new(token.expose_secret()), gate.engine.confirmations()).ok()?;
    let token = verified.token();
    Some(Checked {
        subject: token.subject.clone(),
        client: token.client.clone().unwrap_or_default(),
        scope: token.scope.clone(),
        expires: token.expires,
        issued_at: token.issued_at,
        issuer: (*token.issuer).into(),
        session: token.session.map(|(session, _)| session),
        account: token.account.clone(),
    })
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
