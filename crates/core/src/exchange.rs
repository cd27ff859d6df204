//! Token exchange for an upstream. The caller's token from another issuer is exchanged for a token of the upstream (RFC
//! 8693, Entra's on-behalf-of flow, or an ID-JAG). This module defines the interface to a provider. The gate caches the
//! responses.

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
    /// The provider did not return a token for the upstream. The error does not contain anything about the caller's
    /// token.
    async fn exchange(&self, token: &str) -> Result<ExchangedToken, ExchangeFault>;

    /// Bytes that identify the provider, the client and the request. If two exchangers return equal bytes, the provider
    /// sends them equal responses.
    fn identity(&self) -> Box<[u8]>;
}

/// The protocol for the exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExchangeForm {
    /// Token exchange by RFC 8693.
    #[default]
    Rfc8693,
    /// Entra's on-behalf-of flow: an assertion (RFC 7523 §2.1) with `requested_token_use`.
    Entra,
    /// A request for an identity assertion (ID-JAG) for another authorization server, in exchange for the ID token of a
    /// session.
    IdJag,
    /// The use of an identity assertion as a grant (RFC 7523 §2.1) at the authorization server for which the assertion
    /// was issued.
    JwtBearer,
}

/// A token for an upstream. Zeroised when dropped.
pub struct ExchangedToken {
    /// The token.
    pub token: Zeroizing<String>,
    /// The token's lifetime, if the provider states it.
    pub expires_in: Option<Duration>,
}

crate::debug_with!(ExchangedToken);

/// The reason for which there is no token for the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExchangeFault {
    /// A stronger login of the user is required. Contains the value of a challenge (`WWW-Authenticate`).
    StepUp(Box<str>),
    /// The provider refuses this user, or this token.
    Refused,
    /// The provider refuses the gate. Only an operator can fix this.
    Ours(Box<str>),
    /// The provider does not grant what the gate requests with this token.
    NotGranted(Box<str>),
    /// The provider did not decide. Contains the delay that the provider requests, and the reason.
    Unavailable(Option<Duration>, Box<str>),
    /// The provider did not decide, and requests this delay. The delay may apply only to this caller, because the
    /// response did not have the status 503. Also contains the reason.
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
    /// The maximum time for which a token for the upstream is cached.
    pub max_age: Duration,
    /// The exchanger that queries the provider.
    pub exchanger: Arc<dyn TokenExchanger>,
    /// Whether the ID token of the caller's session is exchanged instead of the caller's token.
    pub takes_id_token: bool,
    tag: [u8; 32],
}

impl UpstreamExchange {
    /// Creates an exchange. `provider` exchanges the tokens of `issuer` for tokens of `upstream`, which are cached for
    /// at most `max_age`.
    pub fn new(
        [provider, upstream, issuer]: [Arc<str>; 3],
        max_age: Duration,
        exchanger: Arc<dyn TokenExchanger>,
    ) -> Self {
        let tag = parts_digest(&[&exchanger.identity(), upstream.as_bytes()]);
        Self { provider, upstream, issuer, max_age, exchanger, takes_id_token: false, tag }
    }

    /// The same exchange for the ID tokens of sessions.
    #[must_use]
    pub fn of_id_tokens(self) -> Self {
        Self { takes_id_token: true, ..self }
    }

    /// A digest that distinguishes the cached responses of this exchange from those of other exchanges. It does not
    /// change when equal settings are reloaded.
    pub const fn tag(&self) -> &[u8; 32] {
        &self.tag
    }

    /// The assumed lifetime of a token if the provider does not state it.
    pub const UNKNOWN_LIFETIME: Duration = Duration::from_secs(60);
    /// The minimum remaining lifetime with which a token is still used.
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
