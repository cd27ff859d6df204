//! The relays of endpoints. A relay connects an endpoint with its provider, and with the gate's tokens and revocations.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::Inner;
use super::builder::error::BuildError;
use crate::dialect::RelayRequest;
use crate::relay::{
    EndTokens, Presented, Provider, ProviderReply, Relay, RelayAnswer, RelayParts, RelayRules, RelaySettings, Sealer,
    Source,
};
use rotogate_core::counters::Counters;
use rotogate_core::denial::{Denial, NotGood};
use rotogate_core::engine::{Engine, HeldUp, Origin};
use rotogate_core::fault::{Error, Fault, StoreError};
use rotogate_core::revocation::{Effect, Revocation, Target};
use rotogate_core::session::RevokedBecause;
use rotogate_core::session::confirm::TokenDigest;
use rotogate_core::store::rows::RowStore;
use rotogate_core::token::keyring::Keyring;
use rotogate_core::token::{AccessToken, MAX_SESSIONLESS_LIFETIME};
use rotogate_core::verify_cache::TokenChecker;

/// How long a client waits for the issuer's response about its new access token.
const LEARNED_WITHIN: Duration = Duration::from_secs(2);
/// The longest client id that is written to the log.
const MAX_SHOWN: usize = 128;

/// The provider behind an endpoint, and the rules of its relay.
#[derive(Clone)]
pub struct RelayConfig {
    /// The rules of the relay.
    pub rules: RelayRules,
    /// The provider.
    pub provider: Arc<dyn Provider>,
    /// The provider's token URL or issuer. The keys of the relay's records are derived from this value.
    pub place: String,
    /// Whether the provider's access tokens come from an issuer that the gate trusts.
    pub known_issuer: bool,
}

rotogate_core::debug_with!(RelayConfig { rules, place });

impl RelayConfig {
    fn settings(&self, path: &str, keyring: &Keyring) -> RelaySettings {
        RelaySettings {
            sealer: Sealer::new(keyring, path, &self.place),
            rules: self.rules,
            provider: Arc::clone(&self.provider),
        }
    }
}

/// The results of an exchange, as the metrics name them.
pub(super) const RESULTS: [&str; 7] =
    ["granted", "refused", "replayed", "joined", "not_sent", "unavailable", "renewed"];

/// Returns the index of a result in [`RESULTS`].
fn result(answer: &RelayAnswer) -> usize {
    match answer {
        RelayAnswer::Reply(_, Source::Replayed) => 2,
        RelayAnswer::Reply(reply, Source::Asked) => usize::from(reply.status != 200),
        RelayAnswer::Reply(_, Source::Joined) => 3,
        RelayAnswer::InvalidGrant(_)
        | RelayAnswer::InvalidProof(_)
        | RelayAnswer::InvalidScope
        | RelayAnswer::TooMany { .. } => 4,
        RelayAnswer::Unavailable { .. } => 5,
        RelayAnswer::Reply(_, Source::Renewed) => 6,
    }
}

/// The relay of an endpoint.
pub(super) struct EndpointRelay {
    exchanges: Counters<{ RESULTS.len() }>,
    path: String,
    config: arc_swap::ArcSwap<RelayConfig>,
    #[cfg(feature = "browser-oidc")]
    store: Arc<dyn RowStore>,
    relay: Relay,
}

rotogate_core::debug_with!(EndpointRelay { path });

/// The state that the relays of a gate share.
pub(super) struct Shared {
    pub(super) store: Option<Arc<dyn RowStore>>,
    pub(super) engine: Arc<Engine>,
    pub(super) checker: Arc<TokenChecker>,
    pub(super) time: Arc<dyn rotogate_core::clock::TimeSource>,
    pub(super) proofs_in_store: bool,
}

impl Shared {
    /// Creates the relay at this path.
    pub(super) fn relay(&self, path: &str, config: RelayConfig) -> Result<EndpointRelay, BuildError> {
        let store = self.store.clone().ok_or(BuildError::NoRowStore)?;
        let end_tokens = TokenEnder { engine: Arc::clone(&self.engine), checker: Arc::clone(&self.checker) };
        let relay = Relay::new(RelayParts {
            endpoint: path.to_owned(),
            settings: config.settings(path, &self.engine.keyring()),
            store: Arc::clone(&store),
            is_alone: self.engine.store().shared().is_none(),
            counts_proofs: self.proofs_in_store.then(|| Arc::clone(self.engine.store())),
            limits: Arc::clone(self.engine.limits()),
            end_tokens: Arc::new(end_tokens),
            clock: Arc::clone(self.engine.clock()),
            time: Arc::clone(&self.time),
        })?;
        let relay = EndpointRelay {
            path: path.to_owned(),
            config: arc_swap::ArcSwap::from_pointee(config),
            #[cfg(feature = "browser-oidc")]
            store,
            relay,
            exchanges: Counters::default(),
        };
        relay.note_uses(&self.engine);
        Ok(relay)
    }
}

/// A running relay, and the provider and rules that will replace its current ones.
pub(super) type NextRelay = (Arc<EndpointRelay>, RelayConfig);

impl EndpointRelay {
    /// Replaces the provider and the rules.
    pub(super) fn replace(&self, config: RelayConfig, engine: &Engine) {
        self.relay.replace(config.settings(&self.path, &engine.keyring()));
        self.note_uses(engine);
        self.config.store(Arc::new(config));
    }

    /// Tells the engine to note the uses of tokens, if this relay needs these notes.
    fn note_uses(&self, engine: &Engine) {
        if self.relay.keeps_until_used() {
            engine.confirmations().note_uses();
        }
    }

    /// Replaces the keys.
    pub(super) fn set_keyring(&self, keyring: &Keyring) {
        self.relay.replace(self.config.load().settings(&self.path, keyring));
    }

    /// Returns the number of exchanges with each result in [`RESULTS`].
    pub(super) fn exchanges(&self) -> [u64; RESULTS.len()] {
        self.exchanges.sums()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Returns the store of the vaults of browser sessions.
    #[cfg(feature = "browser-oidc")]
    pub(super) fn store(&self) -> &dyn RowStore {
        &*self.store
    }

    /// Returns the number of messages of this kind that were skipped since the last one, if a message may be logged
    /// now.
    #[cfg(feature = "browser-oidc")]
    pub(super) fn is_due(&self, kind: &'static str) -> Option<u64> {
        self.relay.is_due(kind)
    }

    /// Exchanges the refresh token in a browser session's vault.
    #[cfg(feature = "browser-oidc")]
    pub(super) async fn exchange(&self, presented: Presented) -> RelayAnswer {
        let answer = self.relay.exchange(presented).await;
        self.exchanges.add(result(&answer), 1);
        answer
    }

    /// Records that the response for a vault's refresh token has been stored in the vault.
    #[cfg(feature = "browser-oidc")]
    pub(super) async fn settle(&self, presented: Presented) -> Result<(), StoreError> {
        self.relay.settle(presented).await
    }

    /// Records that these tokens were used at this gate.
    pub(super) async fn record_uses(&self, tokens: &[TokenDigest]) -> Result<(), StoreError> {
        self.relay.record_uses(tokens).await
    }

    /// Returns how many responses are kept until their tokens are used, and how many could not be kept because of a
    /// bound.
    pub(super) fn kept(&self) -> (usize, u64) {
        self.relay.kept_replies()
    }

    /// Updates the number of kept responses.
    pub(super) async fn count_again(&self) -> Result<(), StoreError> {
        self.relay.count_again().await
    }

    /// Returns whether the relay has reached its limit on kept responses. It then keeps further responses only for the
    /// grace period.
    pub(super) fn keeps_the_maximum(&self) -> bool {
        self.relay.keeps_the_maximum()
    }

    /// Resolves once no exchange is running.
    pub(super) async fn idle(&self) {
        self.relay.idle().await;
    }

    /// Relays a request, and returns the provider's response.
    pub(super) async fn answer(
        &self,
        gate: &Inner,
        request: RelayRequest,
        origin: &Origin,
    ) -> Result<ProviderReply, Error> {
        gate.engine.limits().refresh(origin.address).inspect_err(|denial| {
            gate.engine.tell_held_up(&(*denial).into(), origin, HeldUp::default);
        })?;
        match request {
            RelayRequest::Exchange(presented) => {
                judged(gate, &presented.token)?;
                let client = shortened(&presented.presenter.client);
                let token = presented.token.clone();
                let presented = Presented { address: origin.address, ..presented };
                let answer = self.relay.exchange(presented).await;
                self.exchanges.add(result(&answer), 1);
                // The new token may have been issued after a revocation that came meanwhile.
                judged(gate, &token)?;
                let (reply, source) = reply(answer)?;
                self.audit(gate, &client, &reply, source, origin);
                Ok(reply)
            }
            RelayRequest::Revoke(presented) => {
                let client = shortened(&presented.presenter.client);
                let presented = Presented { address: origin.address, ..presented };
                let (reply, _) = reply(self.relay.revoke(presented).await)?;
                tracing::info!(
                    target: "rotogate::audit",
                    event = "relay_revoked",
                    rotogate.endpoint = self.path,
                    rotogate.client.id = client,
                    client.address = origin.address.map(tracing::field::display),
                    outcome = outcome(&reply),
                    "revocation forwarded to the provider",
                );
                Ok(reply)
            }
            RelayRequest::Pass(request) => Ok(reply(self.relay.pass(&request, origin.address).await)?.0),
        }
    }

    /// Returns the response that a refresh with this token would get from the relay's store, or whose tokens it would
    /// exchange.
    pub(super) async fn stored(
        &self,
        gate: &Inner,
        presented: Presented,
        origin: &Origin,
    ) -> Result<Option<ProviderReply>, Error> {
        gate.engine.limits().refresh(origin.address)?;
        judged(gate, &presented.token)?;
        match self.relay.stored(presented).await {
            Ok(stored) => Ok(stored),
            Err(answer) => Ok(Some(reply(answer)?.0)),
        }
    }

    fn audit(&self, gate: &Inner, client: &str, reply: &ProviderReply, source: Source, origin: &Origin) {
        let token = self.relay.access_token(reply);
        let read = token.as_ref().map(|token| gate.checker.verify_answer(token));
        let verified = read.as_ref().and_then(|read| read.as_ref().ok());
        if let Some(Err(denial)) = &read
            && self.config.load().known_issuer
            && let Some(others) = self.relay.is_due("answer_not_good")
        {
            tracing::warn!(
                others,
                endpoint = self.path,
                reason = denial.reason(),
                detail = denial.detail(),
                "relay: the provider issued an access token that does not meet the rules of its `[[issuers]]` entry, \
                 so this gate would refuse the token. `rotogate token inspect` shows the rule"
            );
        }
        tracing::info!(
            target: "rotogate::audit",
            event = "relay_exchanged",
            rotogate.endpoint = self.path,
            rotogate.issuer = verified.map(|token| &**token.issuer()),
            user.id = verified.map(|token| &*token.subject),
            rotogate.client.id = client,
            client.address = origin.address.map(tracing::field::display),
            outcome = outcome(reply),
            replay = source == Source::Replayed,
            renewed = source == Source::Renewed,
            verified = verified.is_some(),
            "refresh token relayed",
        );
    }
}

/// Refuses a token that was revoked here, if it is also an access token. Otherwise its new token, which is issued after the
/// revocation, would be accepted.
fn judged(gate: &Inner, token: &SecretString) -> Result<(), Denial> {
    let token = token.expose_secret();
    if gate.checker.is_revoked_by_its_claims(token) { Err(Denial::TokenRevoked) } else { Ok(()) }
}

fn outcome(reply: &ProviderReply) -> &'static str {
    if reply.status == 200 { "granted" } else { "refused" }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

/// Converts a relay's response into an outcome of the gate.
fn reply(answer: RelayAnswer) -> Result<(ProviderReply, Source), Error> {
    Err(match answer {
        RelayAnswer::Reply(reply, source) => return Ok((reply, source)),
        RelayAnswer::InvalidGrant(why) => Denial::RelayRefused(why).into(),
        RelayAnswer::InvalidProof(flaw) => Denial::BadProof(flaw).into(),
        RelayAnswer::InvalidScope => Denial::InvalidScope.into(),
        RelayAnswer::TooMany { limit, retry_after } => {
            Denial::RateLimited(limit, retry_after.max(Duration::from_secs(1))).into()
        }
        RelayAnswer::Unavailable { retry_after, reason } => Error::Failed(Fault::Provider { reason, retry_after }),
    })
}

/// Revokes access tokens of other issuers that the gate trusts.
#[derive(Debug)]
struct TokenEnder {
    engine: Arc<Engine>,
    checker: Arc<TokenChecker>,
}

impl TokenEnder {
    /// Makes the revocation entry for an access token. If the token names a session of the provider, the entry covers
    /// this session's tokens up to this token. If it names no session and a client presented it, the entry covers only
    /// this token. Otherwise, the entry covers all tokens of the subject up to this token. The subject's other sessions
    /// then have to refresh once.
    // Requirement I68.
    fn entry(&self, token: &AccessToken, presented: bool) -> Revocation {
        let now = self.engine.clock().now();
        let moment = token.issued_at.map_or(now, |issued_at| issued_at.min(now));
        let until = token.expires.max(moment.plus(MAX_SESSIONLESS_LIFETIME)).plus(token.leeway());
        let issuer = Arc::clone(token.issuer());
        let (target, effect) = match (token.issuer_session(), &token.jti) {
            (Some(sid), _) => (Target::session_of(&issuer, sid), Effect::NotBefore(moment)),
            (None, Some(jti)) if presented => (Target::Token { issuer, jti: jti.clone() }, Effect::Gone),
            (None, _) => (Target::Subject { issuer, subject: token.token_subject().into() }, Effect::NotBefore(moment)),
        };
        Revocation { target, effect, until }
    }
}

#[async_trait]
impl EndTokens for TokenEnder {
    fn claims(&self, access_token: &str) -> Option<Vec<u8>> {
        self.checker.ending_claims(access_token).and_then(|claims| postcard::to_stdvec(&claims).ok())
    }

    async fn learn(&self, access_token: &str) {
        // Without a response in time, the reply is kept only for the grace period.
        let _ = tokio::time::timeout(LEARNED_WITHIN, self.checker.learn(access_token)).await;
    }

    fn is_ended(&self, claims: &[u8]) -> bool {
        // Claims from another version of this program cannot be decoded, and count as ended.
        postcard::from_bytes(claims).map_or(true, |claims| self.checker.has_ended(&claims))
    }

    // Requirement I68.
    async fn end(&self, access_token: &str, presented: bool) -> Result<(), StoreError> {
        if self.checker.describes_itself(access_token) {
            // The server that issued the token has ended it. An entry for the subject would end the user's other sessions.
            return Ok(());
        }
        let token = match self.checker.verify_answer(access_token).map_err(NotGood::from_denial) {
            Ok(token) => token,
            // The gate does not accept the token anyway, so it does not have to be revoked here.
            Err(Ok(_)) => return Ok(()),
            Err(Err(undecided)) => {
                return Err(StoreError::caused_by("the access token to revoke could not be verified", undecided));
            }
        };
        // The provider cannot revoke the gate's own tokens. The revocation of a token for another service does not
        // affect tokens for this gate.
        if token.is_ours() || (presented && !token.is_for(&token.issued_by.audience)) {
            return Ok(());
        }
        match self.engine.revoke(self.entry(&token, presented), RevokedBecause::Logout).await {
            Ok(_) => Ok(()),
            Err(Error::Failed(Fault::Store(error))) => Err(error),
            Err(error) => Err(StoreError::caused_by("the access token could not be revoked", error)),
        }
    }
}
