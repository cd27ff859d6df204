//! Introspection as a client (RFC 7662): the gate asks an issuer what one of its tokens says, because the token itself
//! does not tell. Here are the settings of an issuer, and the way to ask; the cache of tokens asks and keeps the answers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// The longest response, in bytes.
pub const MAX_RESPONSE: usize = 64 << 10;

/// A way to ask an issuer for a token.
#[async_trait]
pub trait Introspector: fmt::Debug + Send + Sync + 'static {
    /// Asks for a token. Returns the body of a response with status 200.
    ///
    /// # Errors
    /// No such response. It says nothing about the token.
    async fn introspect(&self, token: &str) -> Result<Bytes, IntrospectionFault>;

    /// Two introspectors with the same bytes ask the same server as the same client: what one was told is true for the
    /// other.
    fn identity(&self) -> Box<[u8]>;
}

/// Why there is no response. The text has nothing of the request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct IntrospectionFault {
    /// One word, for metrics and logs.
    pub cause: &'static str,
    /// What happened.
    pub message: String,
    /// When the server wants to be asked again.
    pub retry_after: Option<Duration>,
}

impl IntrospectionFault {
    /// The server refused the gate as its client, which only an operator can mend.
    pub const CLIENT_REFUSED: &str = "client_refused";
    /// The response is not what RFC 7662 says.
    pub const MALFORMED: &str = "malformed";

    /// A fault of this cause.
    pub fn new(cause: &'static str, message: impl fmt::Display) -> Self {
        Self { cause, message: message.to_string(), retry_after: None }
    }

    /// Does only an operator's change mend it?
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
    /// How long a response counts: at most [`MAX_CACHE`](Self::MAX_CACHE), and never beyond the token's `exp`. Zero: each
    /// request asks.
    pub cache: Duration,
    /// How long a token that is not active is refused without another question.
    pub negative: Duration,
    /// How much longer a response counts while the issuer does not answer.
    pub stale_if_error: Duration,
    /// Only tokens that begin with this text are introspected. Empty: all that are not JWTs.
    pub prefix: Box<str>,
    /// Are the issuer's JWTs introspected, too? If it has keys, they verify them first.
    pub always: bool,
    /// Does a response without `aud` count for the issuer's own audience?
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

    /// Introspection by this means, with the default settings.
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

    /// Sets how long a token that is not active is refused without another question.
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

    /// What is wrong with it, if something is.
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

    /// Does it ask the same server, and make the same of each response?
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
