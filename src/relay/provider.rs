//! The interface to a provider, independent of the wire format: a way to send a request, and a way to read the reply.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// A request to the provider, in the provider's format, which the relay does not read. Does not print its content.
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

/// A whole reply of the provider. Does not print its content.
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
    /// The reply of a provider that asked for a pause, of which this is left.
    #[cfg(feature = "browser-oidc")]
    pub(crate) fn busy(left: Duration) -> Self {
        Self { status: 503, retry_after: Some(left), challenge: None, dpop_nonce: None, body: Zeroizing::default() }
    }

    /// The plaintext to seal.
    pub(super) fn encode(&self) -> Option<Zeroizing<Vec<u8>>> {
        let kept = StoredReply {
            status: self.status,
            challenge: self.challenge.as_deref(),
            dpop_nonce: self.dpop_nonce.as_deref(),
            body: &self.body,
        };
        postcard::to_stdvec(&kept).ok().map(Zeroizing::new)
    }

    /// Decodes the output of [`encode`](Self::encode).
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

/// RFC 9449 §8.
pub const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Why no complete reply arrived. The text is for the log and contains no part of the request.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The provider processed no byte of the request: the name, the connection, TLS or the stream failed.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The provider may have processed the request.
    #[error("no whole reply: {0}")]
    Lost(String),
}

/// The meaning of a whole reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// New tokens.
    Granted {
        /// Whether the reply contains a new refresh token.
        rotates: bool,
        /// The lifetime of the access token, if the reply has it.
        lifetime: Option<Duration>,
    },
    /// The refresh token is bad.
    Dead,
    /// Another part of the request is bad. Nothing was rotated.
    Refused,
    /// The client must repeat the request as the reply demands, as a step of the protocol. Nothing was rotated.
    Again,
    /// The provider did not process the request. Nothing was rotated.
    Busy,
    /// Any other reply, after which the provider may have rotated the token.
    Unclear,
}

/// A provider, with one wire format. It sends each request once: neither the provider nor a connection repeats a
/// request.
#[async_trait]
pub trait Provider: fmt::Debug + Send + Sync + 'static {
    /// The URL that a DPoP proof of an exchange is for (RFC 9449 §4.2), if it is known and the format has proofs.
    fn proof_url(&self) -> Option<String> {
        None
    }

    /// Sends a request to exchange a refresh token. The relay bounds the time.
    async fn send(&self, request: &ProviderRequest) -> Result<ProviderReply, SendError>;

    /// The meaning of the reply to the exchange of `token`.
    fn read(&self, token: &str, reply: &ProviderReply) -> Meaning;

    /// The reply for a replay after the time `passed`: its lifetimes are shortened by this time.
    fn aged(&self, reply: ProviderReply, passed: Duration) -> ProviderReply;

    /// The access token of a reply with tokens.
    fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>>;

    /// Sends a request to revoke a token. True in `Ok` if the provider accepted it.
    async fn revoke(&self, request: &ProviderRequest) -> Result<(bool, ProviderReply), SendError>;
}
