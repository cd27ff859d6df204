//! Introspection as a client (RFC 7662): the gate asks an issuer about tokens that it cannot verify itself. This module
//! has the settings of an issuer, and the interface for asking it; the cache of tokens asks and keeps the answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// A way to ask an issuer about a token.
#[async_trait]
pub trait Introspector: fmt::Debug + Send + Sync + 'static {
    /// Asks about a token. Returns the body of a response with status 200.
    ///
    /// # Errors
    /// The issuer gave no such response. The error says nothing about the token.
    async fn introspect(&self, token: &str) -> Result<Bytes, IntrospectionFault>;

    /// Identifies server and client: if two introspectors have the same bytes, the answers to one are valid for the
    /// other.
    fn identity(&self) -> Box<[u8]>;
}

/// Why there is no response. The text has no part of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IntrospectionFault {
    /// One word, for metrics and logs.
    pub cause: &'static str,
    /// A description of the fault.
    pub message: String,
    /// The delay that the server asks for.
    pub retry_after: Option<Duration>,
    /// Whether the delay may be for this caller alone: it came with another status than 503.
    #[doc(hidden)]
    pub of_asker: bool,
}

impl IntrospectionFault {
    /// The cause for a server that refused the gate as its client. Only an operator can repair this.
    pub const CLIENT_REFUSED: &str = "client_refused";
    /// The cause for a response that violates RFC 7662.
    pub const MALFORMED: &str = "malformed";

    /// A fault of this cause.
    pub fn new(cause: &'static str, message: impl fmt::Display) -> Self {
        Self { cause, message: message.to_string(), retry_after: None, of_asker: false }
    }

    /// Can only an operator repair this?
    pub fn needs_operator(&self) -> bool {
        self.cause == Self::CLIENT_REFUSED
    }
}

/// How an issuer's tokens are introspected.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Introspection {
    /// Asks the issuer.
    pub introspector: Arc<dyn Introspector>,
    /// How long a response counts: at most [`MAX_CACHE`](Self::MAX_CACHE), and never beyond the token's `exp`. If zero,
    /// each request asks the issuer.
    pub cache: Duration,
    /// How long a token that is not active is refused without asking again.
    pub negative: Duration,
    /// How much longer a response counts while the issuer does not answer.
    pub stale_if_error: Duration,
    /// Only tokens that begin with this text are introspected. If empty, all tokens that are not JWTs are introspected.
    pub prefix: Box<str>,
    /// Are the issuer's JWTs introspected, too? If the issuer has keys, the JWTs are verified first.
    pub always: bool,
    /// Does a response without `aud` count as naming the issuer's own audience?
    pub audience_optional: bool,
}

impl Introspection {
    /// The default of `cache`.
    pub const CACHE: Duration = Duration::from_secs(30);
    /// The longest `cache`, and the longest `stale_if_error`.
    pub const MAX_CACHE: Duration = Duration::from_secs(300);
    /// The default of `negative`.
    pub const NEGATIVE: Duration = Duration::from_secs(5);
    /// The longest `negative`.
    pub const MAX_NEGATIVE: Duration = Duration::from_secs(60);

    /// Introspection with this introspector and the default settings.
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

    /// Sets how long a response counts.
    #[must_use]
    pub const fn cache(mut self, cache: Duration) -> Self {
        self.cache = cache;
        self
    }

    /// Sets how long a token that is not active is refused without asking again.
    #[must_use]
    pub const fn negative(mut self, negative: Duration) -> Self {
        self.negative = negative;
        self
    }

    /// Sets how much longer a response counts while the issuer does not answer.
    #[must_use]
    pub const fn stale_if_error(mut self, stale_if_error: Duration) -> Self {
        self.stale_if_error = stale_if_error;
        self
    }

    /// Introspects only the tokens that begin with this text.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<Box<str>>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Introspects the issuer's JWTs, too.
    #[must_use]
    pub const fn always(mut self) -> Self {
        self.always = true;
        self
    }

    /// Lets a response without `aud` count for the issuer's own audience.
    #[must_use]
    pub const fn audience_optional(mut self) -> Self {
        self.audience_optional = true;
        self
    }

    /// Why the settings are not valid, if they are not.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        if self.cache > Self::MAX_CACHE || self.stale_if_error > Self::MAX_CACHE {
            return Some("introspection: cache and stale_if_error must be at most 5 min");
        }
        if self.negative > Self::MAX_NEGATIVE {
            return Some("introspection: negative must be at most 1 min");
        }
        if self.prefix.len() > 64 || !self.prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Some("introspection: prefix must be at most 64 visible ASCII characters");
        }
        None
    }

    /// Do both ask the same server, and interpret each response in the same way?
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
