//! A dialect's request to a relay, and the result of that request.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::SecretString;

use super::RETRY_AFTER;
use crate::relay::provider::{ProviderReply, ProviderRequest};
use crate::relay::seal::{Params, Presenter};
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::ProofFlaw;
use rotogate_core::fault::Fault;

/// The refresh token that the dialect has read, with the request that exchanges it.
#[derive(Default)]
pub struct Presented {
    /// The token.
    pub token: SecretString,
    /// The presenter of the token. The presenter's DPoP key comes from `proof`.
    pub presenter: Presenter,
    /// The DPoP proof of the request, which the relay verifies.
    pub proof: Option<SecretString>,
    /// The parameters that affect the reply.
    pub params: Params,
    /// The request to the provider.
    pub request: ProviderRequest,
    /// The client's address, for the audit log.
    pub address: Option<IpAddr>,
    /// The time until which a reply with a new refresh token is kept, instead of for the grace period. The reply is
    /// kept for less time if [`Relay::settle`] reports that the presenter has stored it.
    ///
    /// [`Relay::settle`]: crate::relay::Relay::settle
    pub keep_until: Option<Timestamp>,
}

rotogate_core::debug_with!(Presented { address });

/// The origin of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This request was sent to the provider.
    Asked,
    /// Another request with the same token was in progress, and its reply is shared.
    Joined,
    /// The reply was stored by an earlier request.
    Replayed,
    /// No token of an earlier reply was used, so the gate exchanged that reply's refresh token.
    Renewed,
}

/// The result of a request, which a dialect writes in the form of its protocol.
#[derive(Debug)]
pub enum RelayAnswer {
    /// The provider's reply, which is passed on.
    Reply(ProviderReply, Source),
    /// The token is not valid for this presenter, or may not be retried. The status is 400, and nothing was sent to the
    /// provider. The string states the reason.
    InvalidGrant(&'static str),
    /// The DPoP proof is invalid. The status is 400, and nothing was sent to the provider.
    InvalidProof(ProofFlaw),
    /// The parameters differ from those of the stored reply. The status is 400, and nothing was sent to the provider.
    InvalidScope,
    /// The token was sent too often, or its sender presented too many invalid tokens. The status is 429.
    TooMany {
        /// The name of the limit.
        limit: &'static str,
        /// The delay before a retry.
        retry_after: Duration,
    },
    /// No reply is available. The status is 503.
    Unavailable {
        /// The delay before a retry.
        retry_after: Duration,
        /// The reason in one word, for logs and metrics.
        reason: &'static str,
    },
}

impl RelayAnswer {
    pub(super) fn unavailable(retry_after: Duration, reason: &'static str) -> Self {
        Self::Unavailable { retry_after: retry_after.max(RETRY_AFTER), reason }
    }

    pub(super) fn failed(fault: &Fault) -> Self {
        Self::unavailable(fault.retry_after(), fault.reason())
    }
}
