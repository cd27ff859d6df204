//! The interface to a provider, independent of the wire format. It sends requests and interprets the replies.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A request to the provider, in the provider's format, which the relay does not interpret. `Debug` omits the
/// content.
#[derive(Default)]
pub struct ProviderRequest {
    /// The called method or procedure, if the format has several.
    pub call: &'static str,
    /// The header fields, such as `authorization` and `dpop`.
    pub headers: HeaderMap,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

rotogate_core::debug_with!(ProviderRequest);

/// A complete reply of the provider. `Debug` omits the content.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProviderReply {
    /// The status.
    pub status: u16,
    /// The delay before a retry, if the reply names one.
    pub retry_after: Option<Duration>,
    /// `WWW-Authenticate`.
    pub challenge: Option<String>,
    /// `DPoP-Nonce` (RFC 9449).
    pub dpop_nonce: Option<String>,
    /// The body.
    pub body: Zeroizing<Vec<u8>>,
}

rotogate_core::debug_with!(ProviderReply { status });

/// The part of a reply that a record stores.
#[derive(Serialize, Deserialize)]
struct StoredReply<'a> {
    status: u16,
    #[serde(borrow)]
    challenge: Option<&'a str>,
    #[serde(borrow)]
    dpop_nonce: Option<&'a str>,
    #[serde(borrow)]
    body: &'a [u8],
}

impl ProviderReply {
    /// Makes the reply of a provider that asked clients to wait. `left` is the remaining delay.
    #[cfg(feature = "browser-oidc")]
    pub(crate) fn busy(left: Duration) -> Self {
        Self { status: 503, retry_after: Some(left), challenge: None, dpop_nonce: None, body: Zeroizing::default() }
    }

    /// Returns the plaintext that is sealed.
    pub(super) fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let kept = StoredReply {
            status: self.status,
            challenge: self.challenge.as_deref(),
            dpop_nonce: self.dpop_nonce.as_deref(),
            body: &self.body,
        };
        postcard::to_stdvec(&kept).ok().map(Zeroizing::new)
    }

    /// Decodes the plaintext from [`encode`](Self::encode).
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let StoredReply { status, challenge, dpop_nonce, body } = postcard::from_bytes(bytes).ok()?;
        Some(Self {
            status,
            retry_after: None,
            challenge: challenge.map(str::to_owned),
            dpop_nonce: dpop_nonce.map(str::to_owned),
            body: Zeroizing::new(body.to_vec()),
        })
    }
}

/// The header with a nonce for DPoP proofs (RFC 9449 §8).
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// The reason why no complete reply arrived. The text is for the log and does not contain any part of the request.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The provider did not process any byte of the request, because the name resolution, the connection, the TLS
    /// handshake or the stream failed.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The provider may have processed the request.
    #[error("no complete reply: {0}")]
    Lost(String),
}

/// The meaning of a complete reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The reply contains new tokens.
    Granted {
        /// Whether the reply contains a new refresh token.
        rotates: bool,
        /// The lifetime of the access token, if the reply has it.
        lifetime: Option<Duration>,
    },
    /// The refresh token is invalid.
    Dead,
    /// Another part of the request is invalid. The token was not rotated.
    Refused,
    /// The client must repeat the request in the way that the reply demands. The token was not rotated.
    Again,
    /// The provider did not process the request. The token was not rotated.
    Busy,
    /// The reply has none of these meanings. The provider may have rotated the token.
    Unclear,
}

/// The exchange of a kept reply's refresh token. `Debug` omits the content.
pub struct Renewal {
    /// The refresh token.
    pub token: SecretString,
    /// The credential that the format sends with the token, if it changes with each pair.
    pub credential: Option<SecretString>,
    /// The request.
    pub request: ProviderRequest,
}

rotogate_core::debug_with!(Renewal);

/// A provider with one wire format. It sends each request exactly once, and neither this type nor its connections retry
/// a request.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// Returns the URL that a client's DPoP proof must name (RFC 9449 §4.2). Returns `None` if the URL is unknown, or
    /// if the format does not support proofs.
    fn proof_url(&self) -> Option<String> {
        None
    }

    /// Sends a request to exchange a refresh token. The relay limits the time for the reply.
    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError>;

    /// Returns the meaning of the reply to the exchange of `token`.
    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning;

    /// Shortens all lifetimes in a stored reply by `passed`, the time since the reply was stored.
    fn aged(&self, reply: ProviderReply, passed: Duration) -> ProviderReply;

    /// Returns the access token of a reply with tokens.
    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>>;

    /// Returns the refresh token of a reply, and the request that exchanges this token for the same sender. Returns
    /// `None` if the format does not support such an exchange.
    fn renewal(&self, _request: &ProviderRequest, _reply: &ProviderReply) -> Option<Renewal> {
        None
    }

    /// Sends a request to revoke a token. The result contains true if the provider accepted the revocation.
    async fn revoke(&self, request: &ProviderRequest) -> Result<(bool, ProviderReply), SendError>;
}
