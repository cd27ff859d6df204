//! The gate's own endpoints and their responses.
//!
//! `dialect reads → engine acts → dialect writes`. The engine runs in a separate task. A disconnecting client must not
//! stop the engine between the store write and the update of the revocation list.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response};
use secrecy::SecretString;

use super::Inner;
use super::browser::BrowserEndpoint;
use super::builder::error::BuildError;
use crate::dialect::events::Events;
use crate::dialect::{Dialect, Reply};
use rotogate_core::denial::Denial;
use rotogate_core::reason::Reason;
use rotogate_core::reply;
use rotogate_core::session::profile::ProfileOverride;

mod answer;
mod assertion;
mod authenticate;
mod browser;
mod credential;
mod exchange;
mod execute;
mod foreseen;
pub(in crate::gate) mod grants;
mod handler;
mod read;
mod table;

#[cfg(feature = "kuzzle")]
pub(super) use answer::TakenOver;
pub(super) use answer::{EndpointResponse, answer};
pub(super) use foreseen::{RefreshPlace, foresee};
#[cfg(feature = "kuzzle")]
pub(super) use handler::EndpointHandler;
#[doc(hidden)]
pub use table::envelopes;
pub(super) use table::{CommonRules, Endpoints, Hit, MatchedOperation};

/// The path of the JWK set with the gate's public signing keys.
pub const JWKS_PATH: &str = "/.well-known/jwks.json";
const PUBLIC_MAX_AGE: &str = "public, max-age=300";
/// How long other verifiers may cache the signing keys. The reply has the same `max-age`.
pub const JWKS_MAX_AGE: std::time::Duration = std::time::Duration::from_secs(300);

/// An endpoint: a dialect that is served at a path, with its own rules.
///
/// ```
/// use rotogate::dialect::oauth2::OAuth2;
/// use rotogate::gate::Endpoint;
///
/// // Refreshes sessions that began here, and sessions that the application started.
/// let endpoint = Endpoint::new(OAuth2).path("/oauth/token").accepts("application");
/// let builder = rotogate::Gate::builder().endpoint(endpoint);
/// # let _ = builder;
/// ```
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub(super) dialect: Arc<dyn Dialect>,
    path: Option<String>,
    profile: ProfileOverride,
    clients: Option<Vec<Box<str>>>,
    client: Option<Box<str>>,
    accepts: Vec<Box<str>>,
    pub(super) account: Option<Box<str>>,
    listeners: Vec<Box<str>>,
    relay_config: Option<super::relay::RelayConfig>,
    relay: Option<Arc<super::relay::EndpointRelay>>,
    pub(super) browser: Option<Arc<BrowserEndpoint>>,
}

impl Endpoint {
    /// Serves a [`dialect`](crate::dialect), or your own [`Dialect`](crate::dialect::Dialect), at its default path.
    pub fn new(dialect: impl Dialect) -> Self {
        Self::speaking(Arc::new(dialect))
    }

    /// An endpoint for logout tokens (OpenID Connect Back-Channel Logout 1.0) of the trusted issuer with this name. The
    /// audience of a logout token must be one of these client ids. A logout token ends the sessions that it names.
    ///
    /// ```
    /// use rotogate::gate::Endpoint;
    ///
    /// let logouts = Endpoint::back_channel_logout("corporate", ["my-client"]).path("/logout/corporate");
    /// let builder = rotogate::Gate::builder().endpoint(logouts);
    /// # let _ = builder;
    /// ```
    pub fn back_channel_logout(issuer: &str, audience: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        Self::new(Events::back_channel_logout(issuer, audience))
    }

    /// An endpoint for security events (RFC 8417, RFC 8935, CAEP 1.0) from the trusted issuer with this name. An event
    /// must be for one of these audiences, and ends the sessions that it names. The transmitter authenticates with the
    /// token `bearer`.
    pub fn security_events(
        issuer: &str,
        audience: impl IntoIterator<Item = impl Into<Box<str>>>,
        bearer: SecretString,
    ) -> Self {
        Self::new(Events::security_events(issuer, audience, bearer))
    }

    /// An endpoint for a dialect that was looked up by name.
    #[doc(hidden)]
    pub fn boxed(dialect: Box<dyn Dialect>) -> Self {
        Self::speaking(dialect.into())
    }

    fn speaking(dialect: Arc<dyn Dialect>) -> Self {
        Self {
            dialect,
            path: None,
            profile: ProfileOverride::default(),
            clients: None,
            client: None,
            accepts: Vec::new(),
            account: None,
            listeners: Vec::new(),
            relay_config: None,
            relay: None,
            browser: None,
        }
    }

    /// Serves the endpoint at this path, a `matchit` template, instead of the default path.
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.path = Some(path.into());
        self
    }

    pub(in crate::gate) fn sole_path(all: &[Self], dialect: &str) -> Option<String> {
        let mut paths = Self::paths(all, dialect);
        paths.next().filter(|_| paths.next().is_none()).map(str::to_owned)
    }

    pub(in crate::gate) fn paths<'a>(all: &'a [Self], dialect: &'a str) -> impl Iterator<Item = &'a str> {
        all.iter().filter(move |endpoint| endpoint.dialect.name() == dialect).map(Self::base)
    }

    /// Overrides settings of the dialect's profile, which overrides the gate's profile.
    #[must_use]
    pub fn profile(mut self, profile: ProfileOverride) -> Self {
        self.profile = profile;
        self
    }

    /// Sets the client of the sessions if the protocol does not name one.
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

    /// Restricts the endpoint to listeners with these names ([`Peer::on_listener`](crate::gate::Peer::on_listener)).
    /// Other listeners return 404. By default, every listener serves the endpoint.
    #[must_use]
    pub fn listeners<I>(mut self, names: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Box<str>>,
    {
        self.listeners = names.into_iter().map(Into::into).collect();
        self
    }

    /// Restricts the endpoint to one account. Sessions and tokens of other accounts are unknown here. This setting
    /// cannot be combined with `{account}` in the path.
    #[must_use]
    pub fn account(mut self, account: impl Into<Box<str>>) -> Self {
        self.account = Some(account.into());
        self
    }

    /// Relays requests at this endpoint to a provider.
    #[doc(hidden)]
    #[must_use]
    pub fn relay(mut self, config: super::relay::RelayConfig) -> Self {
        self.relay_config = Some(config);
        self
    }

    pub(super) fn begin_relay(
        &mut self,
        shared: &super::relay::Shared,
    ) -> Result<Option<Arc<super::relay::EndpointRelay>>, BuildError> {
        let Some(config) = self.relay_config.take() else { return Ok(None) };
        self.relay = Some(Arc::new(shared.relay(self.base(), config)?));
        Ok(self.relay.clone())
    }

    pub(super) fn go_on_with(
        &mut self,
        running: &[Arc<super::relay::EndpointRelay>],
    ) -> Result<Option<super::relay::NextRelay>, BuildError> {
        let Some(config) = self.relay_config.take() else { return Ok(None) };
        let found = running.iter().find(|relay| relay.path() == self.base());
        let relay = found.ok_or_else(|| BuildError::NewRelay(self.base().to_owned()))?;
        self.relay = Some(Arc::clone(relay));
        Ok(Some((Arc::clone(relay), config)))
    }

    pub(super) fn base(&self) -> &str {
        self.path.as_deref().unwrap_or_else(|| self.dialect.default_path())
    }

    pub(super) fn named_clients(&self) -> impl Iterator<Item = &str> {
        self.clients.iter().flatten().chain(&self.client).map(AsRef::as_ref)
    }

    /// Also refreshes sessions that began at an endpoint with this dialect.
    #[must_use]
    pub fn accepts(mut self, dialect: impl Into<Box<str>>) -> Self {
        self.accepts.push(dialect.into());
        self
    }
}

/// See RFC 7517 §5.
pub(super) fn jwks(gate: &Inner, method: &Method) -> (Reply, Reason) {
    let keys = gate.engine.keyring().jwks();
    document(method, "application/jwk-set+json", serde_json::to_vec(&keys).unwrap_or_default().into())
}

/// See RFC 8414 §3.2.
pub(super) fn metadata(gate: &Inner, index: usize, method: &Method) -> (Reply, Reason) {
    document(method, "application/json", gate.endpoints.metadata(index))
}

fn document(method: &Method, media: &'static str, body: Bytes) -> (Reply, Reason) {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return (reply::method_not_allowed(&[Method::GET, Method::HEAD]), Denial::MethodNotAllowed.into());
    }
    let mut reply = Response::new(body.into());
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(PUBLIC_MAX_AGE));
    (reply, Reason::ANSWERED)
}
