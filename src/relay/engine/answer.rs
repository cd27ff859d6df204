//! A dialect's request to a relay, and its result.

use std::net::IpAddr;
use std::time::Duration;

use secrecy::SecretString;

use super::RETRY_AFTER;
use crate::relay::provider::{ProviderReply, ProviderRequest};
use crate::relay::seal::{Params, Presenter};
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::ProofFlaw;
use rotogate_core::fault::Fault;

/// The refresh token that the dialect has read, and the request that exchanges it.
#[derive(Default)]
pub struct Presented {
    /// The token.
    pub token: SecretString,
    /// The presenter of the token. Its DPoP key comes from `proof`.
    pub presenter: Presenter,
    /// The DPoP proof of the request, which the relay verifies.
    pub proof: Option<SecretString>,
    /// The parameters that the answer depends on.
    pub params: Params,
    /// The request to the provider.
    pub request: ProviderRequest,
    /// The client's address, for the audit trail.
    pub address: Option<IpAddr>,
    /// An answer with a new refresh token is kept until this time instead of for the grace, unless [`Relay::settle`]
    /// reports that the presenter has stored it.
    ///
    /// [`Relay::settle`]: crate::relay::Relay::settle
    pub keep_until: Option<Timestamp>,
}

rotogate_core::debug_with!(Presented { address });

/// The origin of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This request asked the provider.
    Asked,
    /// Another request with the same token asked the provider at the same time.
    Joined,
    /// An earlier request asked.
    Replayed,
}

/// The result of a request, which a dialect writes in its protocol.
#[derive(Debug)]
pub enum RelayAnswer {
    /// The provider's reply, to be passed on.
    Reply(ProviderReply, Source),
    /// The token is not valid for this presenter, or may not be retried: 400. Nothing was sent. The text has the
    /// reason.
    InvalidGrant(&'static str),
    /// The DPoP proof is bad: 400. Nothing was sent.
    InvalidProof(ProofFlaw),
    /// The parameters differ from the parameters of the stored answer: 400. Nothing was sent.
    InvalidScope,
    /// The token was sent too often, or its sender presented too many bad tokens: 429.
    TooMany {
        /// The name of the limit.
        limit: &'static str,
        /// When it may be retried.
        retry_after: Duration,
    },
    /// No answer is available: 503.
    Unavailable {
        /// When to try again.
        retry_after: Duration,
        /// One word, for logs and metrics.
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
