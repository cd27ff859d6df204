//! Introspection (RFC 7662): the gate asks an issuer about tokens that it cannot verify itself. The token cache sends
//! the queries and caches the responses.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A way to query an issuer about a token.
#[async_trait]
pub trait Introspector: fmt::Debug + Send + Sync + 'static {
    /// Queries the issuer about a token, and returns the response's body.
    ///
    /// # Errors
    /// The response is missing, or its status is not 200. The error does not reveal the token.
    async fn introspect(&self, token: &str) -> Result<Bytes, IntrospectionFault>;

    /// Returns whether the issuer's tokens can look like this one.
    fn covers(&self, token: &str) -> bool {
        let _ = token;
        true
    }

    /// Returns the response that a token describes itself by, if it does. The signature is not verified, so the response
    /// is only for a token that its issuer has just issued, or to refuse a token.
    fn described(&self, token: &str) -> Option<Bytes> {
        let _ = token;
        None
    }

    /// Identifies the server and the client. Introspectors with the same identity get the same responses.
    fn identity(&self) -> Box<[u8]>;
}

/// The reason for a missing response. The message does not reveal the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IntrospectionFault {
    /// The name of the cause in metrics and logs.
    pub cause: &'static str,
    /// A description of the fault.
    pub message: String,
    /// The delay that the server requests before a retry.
    pub retry_after: Option<Duration>,
    /// Whether the delay may apply only to this caller.
    #[doc(hidden)]
    pub of_asker: bool,
}

impl IntrospectionFault {
    /// The cause if the server rejected the gate's own client credentials.
    pub const CLIENT_REFUSED: &str = "client_refused";
    /// The response violated RFC 7662.
    pub const MALFORMED: &str = "malformed";

    /// Creates a fault with this cause.
    pub fn new(cause: &'static str, message: impl fmt::Display) -> Self {
        Self { cause, message: message.to_string(), retry_after: None, of_asker: false }
    }

    /// Returns whether only an operator can fix this fault.
    pub fn needs_operator(&self) -> bool {
        self.cause == Self::CLIENT_REFUSED
    }
}

/// How an issuer's tokens are introspected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Introspection {
    /// The introspector that queries the issuer.
    pub introspector: Arc<dyn Introspector>,
    /// How long a response is cached, at most until the token's `exp`. With zero, each request queries the issuer.
    pub cache: Duration,
    /// How long an inactive token is refused before the issuer is queried again.
    pub negative: Duration,
    /// How much longer a response is used if the issuer does not respond.
    pub stale_if_error: Duration,
    /// The prefix of the introspected tokens. If empty, all tokens that are not JWTs are introspected.
    pub prefix: Box<str>,
    /// Whether the issuer's JWTs are also introspected. If the issuer has keys, the JWTs are verified first.
    pub always: bool,
    /// Whether a response may omit `aud`.
    pub audience_optional: bool,
}

impl Introspection {
    pub(crate) fn covers(&self, token: &str) -> bool {
        token.starts_with(&*self.prefix) && self.introspector.covers(token)
    }

    /// The default of `cache`.
    pub const CACHE: Duration = Duration::from_secs(30);
    /// The maximum value of `cache`, and also of `stale_if_error`.
    pub const MAX_CACHE: Duration = Duration::from_secs(300);
    /// The default of `negative`.
    pub const NEGATIVE: Duration = Duration::from_secs(5);
    /// The maximum of `negative`.
    pub const MAX_NEGATIVE: Duration = Duration::from_secs(60);

    /// Creates settings with this introspector and defaults.
    pub fn by(introspector: impl Introspector) -> Self {
        Self {
            introspector: Arc::new(introspector),
            cache: Self::CACHE,
            negative: Self::NEGATIVE,
            stale_if_error: Duration::ZERO,
            prefix: "".into(),
            always: false,
            audience_optional: false,
        }
    }

    /// Sets how long a response is cached.
    #[must_use]
    pub const fn cache(mut self, cache: Duration) -> Self {
        self.cache = cache;
        self
    }

    /// Sets how long an inactive token is refused before the issuer is queried again.
    #[must_use]
    pub const fn negative(mut self, negative: Duration) -> Self {
        self.negative = negative;
        self
    }

    /// Sets how much longer a response is used if the issuer does not respond.
    #[must_use]
    pub const fn stale_if_error(mut self, stale_if_error: Duration) -> Self {
        self.stale_if_error = stale_if_error;
        self
    }

    /// Introspects only tokens with this prefix.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Also introspects the issuer's JWTs.
    #[must_use]
    pub const fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// Accepts a response without `aud`.
    #[must_use]
    pub const fn audience_optional(mut self) -> Self {
        self.audience_optional = true;
        self
    }

    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.cache > Self::MAX_CACHE || self.stale_if_error > Self::MAX_CACHE {
            return Some("introspection: `cache` and `stale_if_error` must be at most 5 min");
        }
        if self.negative > Self::MAX_NEGATIVE {
            return Some("introspection: `negative` must be at most 1 min");
        }
        if self.prefix.len() > 64 || !self.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some("introspection: `prefix` must have at most 64 visible ASCII characters");
        }
        None
    }

    pub(crate) fn equals(&self, other: &Self) -> bool {
        let Self { introspector, cache, negative, stale_if_error, prefix, always, audience_optional } = self;
        (cache, negative, stale_if_error, prefix, always, audience_optional)
            == (
                &other.cache,
                &other.negative,
                &other.stale_if_error,
                &other.prefix,
                &other.always,
                &other.audience_optional,
            )
            && introspector.identity() == other.introspector.identity()
    }
}
