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
use rotogate_core::store::rows::RowStore;

/// The maximum grace period. Within the grace period, a token that is presented again is not sent to the provider.
pub const MAX_GRACE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The policy for a client's retry after an attempt without a complete reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterUnknown {
    /// The token is sent once more. The provider accepts the token if it has not processed the first attempt, or if it
    /// has its own grace period.
    #[default]
    TryOnce,
    /// The token is sent again, at most once in this interval. Use this only for tokens that the gate itself stores,
    /// because nobody else can present them.
    Every(Duration),
    /// The token is refused. Use this for a provider that ends all logins of a user if a token is presented twice.
    Refuse,
}

/// The rules of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRules {
    /// The time during which a reply is repeated. It is limited to [`MAX_GRACE`] and to half of the access token's
    /// lifetime.
    pub grace: Duration,
    /// The time limit for the provider.
    pub timeout: Duration,
    /// The policy for a retry after an attempt without a complete reply.
    pub after_unknown: AfterUnknown,
    /// How long a reply is kept after the exchange if no token of it is used. It has no effect if it is not longer than
    /// `grace`.
    pub lost_response_window: Duration,
}

impl Default for RelayRules {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(30),
            timeout: Duration::from_secs(30),
            after_unknown: AfterUnknown::default(),
            lost_response_window: DAY,
        }
    }
}

/// The gate's view of a provider's access tokens.
#[async_trait]
pub trait EndTokens: fmt::Debug + Send + Sync + 'static {
    /// Returns encoded claims of a reply's access token, for [`Self::is_ended`]. Returns `None` if the gate would not
    /// see a use of the token. The reply is then kept only for the grace period.
    fn claims(&self, access_token: &str) -> Option<Vec<u8>>;

    /// Asks the issuer about a new access token that only the issuer can read. [`Self::claims`] then knows the token.
    async fn learn(&self, access_token: &str);

    /// Returns whether a token with these [claims](Self::claims) was revoked.
    fn is_ended(&self, claims: &[u8]) -> bool;

    /// Adds the token to the revocation list. The relay calls this method before it removes the record of the refresh
    /// token. If `presented` is true, a client presented the token, which may belong to another service.
    async fn end(&self, access_token: &str, presented: bool) -> Result<(), StoreError>;
}

/// The part of a relay that can be replaced while the relay runs. An exchange keeps the settings with which it
/// started.
pub struct RelaySettings {
    /// Derives the keys of the relay's records.
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
    pub store: Arc<dyn RowStore>,
    /// Whether only this process writes to the store. If so, all exchanges of earlier processes have ended.
    pub is_alone: bool,
    /// The store in which used proofs are counted for all gates, or `None` if each gate counts them separately.
    pub counts_proofs: Option<Arc<dyn Store>>,
    /// The limits that count refused tokens.
    pub limits: Arc<Limits>,
    /// Revokes the access tokens of revoked replies.
    pub end_tokens: Arc<dyn EndTokens>,
    /// Engine time.
    pub clock: Arc<EngineClock>,
    /// The clock that the limits use.
    pub time: Arc<dyn TimeSource>,
}

impl RelaySettings {
    pub(super) fn bounded(mut self) -> Self {
        self.rules.grace = self.rules.grace.min(MAX_GRACE);
        self
    }
}
