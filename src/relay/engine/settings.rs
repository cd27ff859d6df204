//! The parts and the rules of a relay.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::relay::provider::Provider;
use crate::relay::seal::Sealer;
use rotogate_core::clock::{EngineClock, TimeSource};
use rotogate_core::fault::StoreError;
use rotogate_core::limit::Limits;
use rotogate_core::store::Store;
use rotogate_core::store::relay::RelayStore;

/// The longest grace. Within the grace, the provider does not see a repeated token.
pub const MAX_GRACE: Duration = Duration::from_secs(60);

/// The answer to a client's retry after an attempt without a complete reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterUnknown {
    /// The token is sent once more. It succeeds if the provider did not process it before, or has a grace window of its
    /// own.
    #[default]
    TryOnce,
    /// The token is sent again, at most once in this time. For a token that the gate itself keeps, nobody else presents.
    Every(Duration),
    /// The token is refused. Meant for providers that end all logins of a user when a token is presented twice.
    Refuse,
}

/// The rules of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRules {
    /// How long an answer is repeated. At most [`MAX_GRACE`], and half of the access token's life.
    pub grace: Duration,
    /// The time limit for the provider.
    pub timeout: Duration,
    /// The answer to a retry after an attempt without a complete reply.
    pub after_unknown: AfterUnknown,
}

impl Default for RelayRules {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            after_unknown: AfterUnknown::default(),
        }
    }
}

/// Revokes an access token at the gate, before the record of its refresh token is removed.
#[async_trait]
pub trait EndTokens: fmt::Debug + Send + Sync + 'static {
    /// Adds the token to the revocation list. A `presented` token comes from a client, not from a record, and may be of
    /// another service.
    async fn end(&self, access_token: &str, presented: bool) -> Result<(), StoreError>;
}

/// The part of a relay that can be replaced while it runs. An exchange keeps the settings that it began with.
pub struct RelaySettings {
    /// The keys of its records.
    pub sealer: Sealer,
    /// The rules of the relay.
    pub rules: RelayRules,
    /// The provider.
    pub provider: Arc<dyn Provider>,
}

/// The parts of a relay.
pub struct RelayParts {
    /// The endpoint's name, for logs.
    pub endpoint: String,
    /// Keys, rules and provider.
    pub settings: RelaySettings,
    /// The records.
    pub store: Arc<dyn RelayStore>,
    /// Whether no other process writes to the store, so that the exchanges of other runs of the program have ended.
    pub is_alone: bool,
    /// The store in which proofs are counted, if gates share it; `None` if each gate counts for itself.
    pub counts_proofs: Option<Arc<dyn Store>>,
    /// The limits of refused tokens.
    pub limits: Arc<Limits>,
    /// Ends the tokens of a revoked answer.
    pub end_tokens: Arc<dyn EndTokens>,
    /// Engine time.
    pub clock: Arc<EngineClock>,
    /// The clock of the limits.
    pub time: Arc<dyn TimeSource>,
}

impl RelaySettings {
    pub(super) fn bounded(mut self) -> Self {
        self.rules.grace = self.rules.grace.min(MAX_GRACE);
        self
    }
}
