//! Exchanges a caller's token for a token of the upstream. The methods are RFC 8693, Entra's on-behalf-of flow, and
//! ID-JAG. This module defines the interface to a provider. The gate caches the responses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::random::parts_digest;

/// A way to exchange tokens at a provider.
#[async_trait]
pub trait TokenExchanger: fmt::Debug + Send + Sync + 'static {
    /// Tries once to exchange a token.
    ///
    /// # Errors
    /// The provider did not return a token. The error does not reveal the caller's token.
    async fn exchange(&self, token: &str) -> Result<ExchangedToken, ExchangeFault>;

    /// Bytes that identify the provider, the client and the request. Exchangers with the same bytes share cached
    /// responses.
    fn identity(&self) -> Box<[u8]>;
}

/// The protocol for the exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExchangeForm {
    /// Token exchange by RFC 8693.
    #[default]
    Rfc8693,
    /// Entra's on-behalf-of flow (RFC 7523 §2.1, with `requested_token_use`).
    Entra,
    /// A request for an identity assertion (ID-JAG) in exchange for a session's ID token.
    IdJag,
    /// The use of an identity assertion at its authorization server (RFC 7523 §2.1).
    JwtBearer,
}

/// A token for an upstream, which is zeroised when it is dropped.
pub struct ExchangedToken {
    /// The token.
    pub token: Zeroizing<String>,
    /// The token's lifetime, if the provider states it.
    pub expires_in: Option<Duration>,
}

crate::debug_with!(ExchangedToken);

/// Why there is no token for the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeFault {
    /// The user needs a stronger login. The field is the challenge (`WWW-Authenticate`).
    StepUp(Box<str>),
    /// The provider refuses the user or the token.
    Refused,
    /// The provider refuses the gate. Only an operator can fix this.
    Ours(Box<str>),
    /// The provider rejects the exchange request for this token.
    NotGranted(Box<str>),
    /// The provider is unavailable. The fields are the requested delay and the reason.
    Unavailable(Option<Duration>, Box<str>),
    /// The provider requests this delay, perhaps only for this caller. Contains the reason.
    TooMany(Duration, Box<str>),
}

impl ExchangeFault {
    /// The fault's name in metrics and logs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::StepUp(_) => "step_up",
            Self::Refused => "refused",
            Self::Ours(_) | Self::NotGranted(_) => "client_refused",
            Self::Unavailable(..) | Self::TooMany(..) => "unavailable",
        }
    }
}

/// The token exchange for a route's upstream.
#[derive(Clone, Debug)]
pub struct UpstreamExchange {
    /// The provider's name, for metrics.
    pub provider: Arc<str>,
    /// The upstream.
    pub upstream: Arc<str>,
    /// The name of the issuer whose tokens are exchanged.
    pub issuer: Arc<str>,
    /// The maximum time for which a token is cached.
    pub max_age: Duration,
    /// The exchanger that queries the provider.
    pub exchanger: Arc<dyn TokenExchanger>,
    /// Whether the session's ID token is exchanged instead of the caller's token.
    pub takes_id_token: bool,
    tag: [u8; 32],
}

impl UpstreamExchange {
    /// Creates an exchange for tokens of `issuer`.
    pub fn new(
        [provider, upstream, issuer]: [Arc<str>; 3],
        max_age: Duration,
        exchanger: Arc<dyn TokenExchanger>,
    ) -> Self {
        let tag = parts_digest(&[&exchanger.identity(), upstream.as_bytes()]);
        Self { provider, upstream, issuer, max_age, exchanger, takes_id_token: false, tag }
    }

    /// Exchanges the ID tokens of sessions instead of the callers' tokens.
    #[must_use]
    pub fn of_id_tokens(self) -> Self {
        Self { takes_id_token: true, ..self }
    }

    /// A digest of the exchange's settings, for the cache.
    pub const fn tag(&self) -> &[u8; 32] {
        &self.tag
    }

    /// The assumed lifetime of a token if the provider does not state it.
    pub const UNKNOWN_LIFETIME: Duration = Duration::from_secs(60);
    /// The remaining lifetime below which a token is no longer used.
    pub const MARGIN: Duration = Duration::from_secs(10);

    /// How long a token is cached.
    // Requirement D14.
    pub fn kept_for(&self, expires_in: Option<Duration>) -> Duration {
        let lasts = expires_in.map_or(Self::UNKNOWN_LIFETIME, |lasts| lasts.saturating_sub(Self::MARGIN));
        lasts.min(self.max_age)
    }
}

impl PartialEq for UpstreamExchange {
    fn eq(&self, other: &Self) -> bool {
        let Self { provider, upstream, issuer, max_age, exchanger: _, takes_id_token, tag } = self;
        (provider, upstream, issuer, max_age, takes_id_token, tag)
            == (&other.provider, &other.upstream, &other.issuer, &other.max_age, &other.takes_id_token, &other.tag)
    }
}

impl Eq for UpstreamExchange {}
