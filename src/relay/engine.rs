//! The steps of an exchange, independent of the wire format: read the record (`look`), share an exchange in progress
//! (`flight`), claim the token, send it to the provider and store the reply (`ask`), and reply to the client
//! (`answer`).
//!
//! The intent to send a token is durable before the token is sent. The provider's reply is durable before the
//! client gets it. If a token was sent but no complete reply arrived, its state is *unknown*, and the relay never
//! sends it again on its own initiative.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::dpop::{GoodProof, Proofs, TRY_AGAIN};
use super::provider::{Meaning, ProviderReply, ProviderRequest, SendError};
use super::record::{EXCHANGES, RelayRecord};
use super::seal::NotSealed;
pub use rotogate_core::bounds::MAX_RELAYED_TOKEN as MAX_TOKEN;
use rotogate_core::clock::EngineClock;
use rotogate_core::counters::SeldomByKind;
use rotogate_core::denial::{Denial, ProofFlaw};
use rotogate_core::dpop::memory::NotRecorded;
use rotogate_core::fault::{Chain, Error, Fault, StoreError};
use rotogate_core::flight::Flights;
use rotogate_core::limit::{Buckets, Limits, Rate};
use rotogate_core::network::Holder;
use rotogate_core::overload::{Bound, Pool, PoolPermit};
use rotogate_core::random::{NoRandomness, random};
use rotogate_core::session::confirm::TokenDigest;
use rotogate_core::store::Store;
use rotogate_core::store::rows::{RowInserted, RowKey, RowStore, RowSwapped, RowVersion};

mod answer;
mod ask;
mod flight;
mod kept;
mod look;
mod revoke;
mod settings;

pub use answer::{Presented, RelayAnswer, Source};
use flight::{Finished, Next, Presentation, Sending, UnderWay};
use kept::KeptRows;
use look::Known;
pub use settings::{AfterUnknown, EndTokens, MAX_GRACE, RelayParts, RelayRules, RelaySettings};

/// The lease of an attempt lasts this much longer than the timeout, to leave time for writes to the store.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// How long a client waits before a retry, unless the provider's reply states a delay.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The maximum delay that a provider may demand from clients.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// The maximum number of times that one request reads a record that other requests keep changing.
const MAX_ROUNDS: usize = 4;
/// The maximum rate at which the same token may be sent to the provider.
const SENDS: Rate = Rate::new(10, Duration::from_secs(2));
const SEND_BUCKET_BITS: u32 = 14;
/// The number of kept replies that [`Relay::count_again`] looks up.
const COUNTED_AT_ONCE: usize = 4096;

/// The relay of one endpoint.
#[derive(Debug)]
pub struct Relay {
    core: Arc<Core>,
}

struct Core {
    endpoint: String,
    settings: ArcSwap<RelaySettings>,
    store: Arc<dyn RowStore>,
    limits: Arc<Limits>,
    end_tokens: Arc<dyn EndTokens>,
    clock: Arc<EngineClock>,
    /// The id of this process in its records.
    owner: [u8; 16],
    is_alone: bool,
    /// The exchanges in progress.
    flights: Flights<RowKey, Arc<Finished>>,
    /// The number of tasks that exchange or revoke a token.
    under_way: watch::Sender<usize>,
    /// The permits of these tasks.
    places: Pool,
    proofs: Proofs,
    counts_proofs: Option<Arc<dyn Store>>,
    sends: Buckets,
    kept: KeptRows,
    /// Limits the log messages that requests can cause: each kind is logged at most once a minute.
    seldom: SeldomByKind,
}

rotogate_core::debug_with!(Core { endpoint });

impl Relay {
    /// Makes a relay from these parts.
    ///
    /// # Errors
    /// The random source fails.
    pub fn new(parts: RelayParts) -> Result<Self, NoRandomness> {
        let RelayParts { endpoint, settings, store, is_alone, counts_proofs, limits, end_tokens, clock, time } = parts;
        let settings = ArcSwap::from_pointee(settings.bounded());
        let owner = *random::<16>()?;
        let (flights, sends) = (Flights::default(), Buckets::new(SEND_BUCKET_BITS, SENDS, time));
        let (under_way, proofs) = (watch::Sender::new(0), Proofs::new());
        let core = Core {
            endpoint,
            settings,
            store,
            limits,
            end_tokens,
            clock,
            owner,
            is_alone,
            flights,
            under_way,
            places: Pool::new(PLACES),
            proofs,
            counts_proofs,
            sends,
            kept: KeptRows::default(),
            seldom: SeldomByKind::default(),
        };
        Ok(Self { core: Arc::new(core) })
    }

    /// Returns how many messages of this kind were skipped since the last one, if this message may be logged.
    /// Otherwise returns `None`.
    pub(crate) fn is_due(&self, kind: &'static str) -> Option<u64> {
        self.core.is_due(kind)
    }

    /// Replaces the settings for new exchanges. The records remain.
    pub fn replace(&self, settings: RelaySettings) {
        self.core.settings.store(Arc::new(settings.bounded()));
    }

    /// Waits until no exchange and no revocation is in progress. The process waits for this before it ends.
    pub async fn idle(&self) {
        let mut under_way = self.core.under_way.subscribe();
        // The sender exists as long as this relay, so the wait cannot fail.
        let _ = under_way.wait_for(|tasks| *tasks == 0).await;
    }

    /// Returns the access token of a reply.
    pub fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        self.core.settings.load().provider.access_token(reply)
    }

    /// Forwards a request that is not a refresh. Does not store anything.
    pub async fn pass(&self, request: &ProviderRequest, address: Option<IpAddr>) -> RelayAnswer {
        let core = &self.core;
        let place = match core.admit(address) {
            Ok(place) => place,
            Err(answer) => return answer,
        };
        let settings = core.settings.load_full();
        let _task = UnderWay::new(core, place);
        let sent = tokio::time::timeout(settings.rules.timeout, settings.provider.send(request)).await;
        let reply = match sent {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                if let Some(others) = core.is_due("no_answer") {
                    tracing::warn!(endpoint = core.endpoint, %error, others, "relay: the provider did not respond");
                }
                let is_unsent = matches!(error, SendError::NotSent(_));
                let reason = if is_unsent { "provider_unreachable" } else { "provider_failed" };
                return RelayAnswer::unavailable(RETRY_AFTER, reason);
            }
            Err(_) => return RelayAnswer::unavailable(RETRY_AFTER, "provider_failed"),
        };
        match settings.provider.read("", &reply) {
            Meaning::Granted { .. } => core.limits.record_valid(address),
            Meaning::Dead => core.limits.record_forged(address),
            Meaning::Refused => core.limits.record_refused(address),
            Meaning::Again => {}
            Meaning::Busy => {
                let retry_after = reply.retry_after.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER);
                return RelayAnswer::unavailable(retry_after, "provider_busy");
            }
            Meaning::Unclear => {
                if let Some(others) = core.is_due("provider_failed") {
                    tracing::warn!(
                        endpoint = core.endpoint,
                        status = reply.status,
                        others,
                        "relay: the provider returned a response that the gate cannot use"
                    );
                }
                return RelayAnswer::unavailable(RETRY_AFTER, "provider_failed");
            }
        }
        RelayAnswer::Reply(reply, Source::Asked)
    }

    /// Handles a refresh token. The call to the provider runs in its own task, so that it is not cancelled if the
    /// client disconnects.
    pub async fn exchange(&self, mut presented: Presented) -> RelayAnswer {
        let proof = match presented.proof.as_ref().map(|proof| self.core.proved(proof)).transpose() {
            Ok(proof) => proof,
            Err(flaw) => return RelayAnswer::InvalidProof(flaw),
        };
        if let Some(proof) = &proof {
            presented.presenter.jkt = Some(proof.jkt.clone());
        }
        let presentation = match self.core.presentation(presented) {
            Ok(Some(presentation)) => presentation,
            Ok(None) => return RelayAnswer::InvalidGrant(NO_TOKEN),
            Err(NotSealed) => return RelayAnswer::failed(&NOT_SEALED),
        };
        let answer = self.answer(&presentation).await;
        match &proof {
            // The proof is marked as used last, and only if the reply contains tokens. Otherwise a client without a
            // valid token could fill the memory of proofs.
            Some(proof) if self.core.has_tokens(&presentation, &answer) => self.core.prove_once(proof, answer).await,
            Some(_) | None => answer,
        }
    }

    async fn answer(&self, presentation: &Arc<Presentation>) -> RelayAnswer {
        let mut was_pending = false;
        for _ in 0..MAX_ROUNDS {
            let known = match self.core.known(presentation).await {
                Ok(known) => known,
                Err(error) => return self.core.store_failed(error),
            };
            let next = match known {
                Known::Answer(answer) => return answer,
                Known::Ask(before) => match self.core.admit(presentation.presented.address) {
                    Ok(place) => Next::Ask(Sending::Exchange(before), place),
                    Err(answer) => return answer,
                },
                Known::Renew(kept) => match self.core.admit(presentation.presented.address) {
                    Ok(place) => Next::Ask(Sending::Renewal(kept), place),
                    Err(answer) => return answer,
                },
                // Either the attempt belongs to another process, or the exchange has just ended in this process and its
                // outcome is already in the store.
                Known::Pending(left) if was_pending => Next::Orphaned(left),
                Known::Pending(_) => Next::MaybeOurs,
            };
            was_pending = !matches!(next, Next::Ask(..));
            if let Some(answer) = self.core.join(presentation, next).await {
                return answer;
            }
        }
        RelayAnswer::failed(&Fault::Contention)
    }

    /// Forwards a revocation in its own task. If the provider accepts, the relay revokes the access token of the stored
    /// reply, and removes the record. The reply is then never replayed.
    pub async fn revoke(&self, presented: Presented) -> RelayAnswer {
        let presentation = match self.core.presentation(presented) {
            Ok(Some(presentation)) => presentation,
            Ok(None) => return RelayAnswer::InvalidGrant(NO_TOKEN),
            Err(NotSealed) => return RelayAnswer::failed(&NOT_SEALED),
        };
        let place = match self.core.place(presentation.presented.address) {
            Ok(place) => place,
            Err(answer) => return answer,
        };
        let task = UnderWay::new(&self.core, place);
        let revoked = tokio::spawn(async move { task.core.revoke(&presentation).await }).await;
        revoked.unwrap_or_else(|_| RelayAnswer::unavailable(RETRY_AFTER, "relay_aborted"))
    }

    /// Returns the reply that a refresh with this token would get from the store, or whose refresh token it would
    /// exchange. A token without such a reply counts as used.
    ///
    /// # Errors
    /// The answer of a refresh, while the state of the token is unknown.
    pub async fn stored(&self, presented: Presented) -> Result<Option<ProviderReply>, RelayAnswer> {
        match self.core.presentation(presented) {
            Ok(Some(presentation)) => self.core.stored(&presentation).await,
            Ok(None) | Err(NotSealed) => Ok(None),
        }
    }

    /// Records that the presenter has stored the reply for this token. The reply is then kept only for the grace
    /// period: see [`Presented::keep_until`].
    ///
    /// # Errors
    /// The store fails.
    pub async fn settle(&self, presented: Presented) -> Result<(), StoreError> {
        match self.core.presentation(presented) {
            Ok(Some(presentation)) => self.core.settle(&presentation).await,
            Ok(None) | Err(NotSealed) => Ok(()),
        }
    }

    /// Records that these tokens were used at this gate. A client that uses a token has received the reply with this
    /// token, so the reply is no longer kept.
    ///
    /// # Errors
    /// The store fails. The same tokens may be passed again.
    pub async fn record_uses(&self, tokens: &[TokenDigest]) -> Result<(), StoreError> {
        let settings = self.core.settings.load_full();
        for token in tokens {
            self.core.used(&settings, token).await?;
        }
        Ok(())
    }

    /// Returns whether replies are kept until their tokens are used.
    pub fn keeps_until_used(&self) -> bool {
        !self.core.settings.load().rules.lost_response_window.is_zero()
    }

    /// Returns how many replies of this process are kept until their tokens are used, and how many could not be kept
    /// because of a bound.
    pub fn kept_replies(&self) -> (usize, u64) {
        (self.core.kept.len(), self.core.kept.dropped.load(Ordering::Relaxed))
    }

    /// Updates the number of kept replies, if other gates remove replies as well.
    ///
    /// # Errors
    /// The store fails.
    pub async fn count_again(&self) -> Result<(), StoreError> {
        if self.core.is_alone { Ok(()) } else { self.core.count_again(COUNTED_AT_ONCE).await }
    }

    /// Returns whether the limit on the number of kept replies, or on their bytes, is reached.
    pub fn keeps_the_maximum(&self) -> bool {
        self.core.kept.is_full()
    }

    /// Removes the records that have expired.
    ///
    /// # Errors
    /// The store fails.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        self.core.store.sweep_rows(EXCHANGES, self.core.clock.now()).await
    }
}

const NOT_SEALED: Fault = Fault::Signing("the provider's reply could not be encrypted for the store");
/// The maximum number of concurrent exchanges and revocations at one endpoint, in total and for one address. Each
/// exchange or revocation uses a connection, and continues even if its client disconnects.
// Requirement A30.
const PLACES: Bound = Bound { all: 256, each: 32 };
const NO_TOKEN: &str = "not a refresh token";

impl Core {
    /// Checks that a DPoP proof is valid and has not been used before.
    fn proved(&self, proof: &SecretString) -> Result<GoodProof, ProofFlaw> {
        // As long as the URL is unknown, a proof cannot match it.
        let url = self.settings.load().provider.proof_url().ok_or(ProofFlaw::Url)?;
        self.proofs.check(proof.expose_secret(), &url, self.clock.now())
    }

    /// Returns whether a reply contains tokens.
    fn has_tokens(&self, presentation: &Presentation, answer: &RelayAnswer) -> bool {
        matches!(answer, RelayAnswer::Reply(reply, _) if self.is_granted(presentation, reply))
    }

    fn is_granted(&self, presentation: &Presentation, reply: &ProviderReply) -> bool {
        let token = presentation.presented.token.expose_secret();
        matches!(presentation.settings.provider.read(token, reply), Meaning::Granted { .. })
    }

    /// Returns the reply, if the proof of the request has not been used before.
    async fn prove_once(&self, proof: &GoodProof, answer: RelayAnswer) -> RelayAnswer {
        match self.proofs.use_once(proof, self.clock.now()) {
            Ok(()) => {}
            Err(NotRecorded::Seen) => return RelayAnswer::InvalidProof(ProofFlaw::Replayed),
            Err(NotRecorded::KeyIsFull) => {
                return RelayAnswer::TooMany { limit: "proofs_per_key", retry_after: TRY_AGAIN };
            }
            Err(NotRecorded::Full) => return RelayAnswer::unavailable(TRY_AGAIN, "proofs_full"),
        }
        let Some(shared) = self.counts_proofs.as_ref().and_then(|store| store.shared()) else { return answer };
        match self.proofs.use_in_store(proof, shared).await {
            Ok(()) => answer,
            Err(Error::Denied(_)) => RelayAnswer::InvalidProof(ProofFlaw::Replayed),
            Err(Error::Failed(fault)) => {
                tracing::error!(
                    endpoint = self.endpoint,
                    error = ?Chain(&fault),
                    "relay: the store could not record that a DPoP proof was used, so the request was refused"
                );
                RelayAnswer::unavailable(fault.retry_after(), "proofs_unavailable")
            }
        }
    }

    /// Gets a permit for a request of this sender to the provider.
    fn place(&self, address: Option<IpAddr>) -> Result<PoolPermit, RelayAnswer> {
        let place = self.places.enter(address.map(Holder::address));
        place.map_err(|_| RelayAnswer::unavailable(RETRY_AFTER, "relay_saturated"))
    }

    /// Gets a permit, if the limits allow this address to send another token.
    fn admit(&self, address: Option<IpAddr>) -> Result<PoolPermit, RelayAnswer> {
        let place = self.place(address)?;
        self.limits.admit_unverified(address).map_err(|denial| match denial {
            Denial::RateLimited(limit, retry_after) => RelayAnswer::TooMany { limit, retry_after },
            _ => RelayAnswer::unavailable(RETRY_AFTER, denial.reason()),
        })?;
        Ok(place)
    }

    /// Loads the record of a token, even if it has expired.
    async fn record(&self, id: RowKey) -> Result<Option<RelayRecord>, StoreError> {
        self.store.load_row(EXCHANGES, id).await?.as_ref().map(RelayRecord::read).transpose()
    }

    /// Stores the record of a token. Returns false if the token has a record.
    async fn insert_record(&self, id: RowKey, record: &RelayRecord) -> Result<bool, StoreError> {
        let inserted = self.store.insert_row(EXCHANGES, id, record.row()?, record.since).await?;
        Ok(inserted == RowInserted::Inserted)
    }

    /// Replaces the record of a token. Returns false if the record has another version, or was removed.
    async fn replace_record(&self, id: RowKey, old: RowVersion, new: &RelayRecord) -> Result<bool, StoreError> {
        let swapped = self.store.swap_row(EXCHANGES, id, old, new.row()?, new.since).await?;
        Ok(swapped == RowSwapped::Swapped)
    }

    /// Removes the record of a token, if it has this version. Without a version, removes any record.
    async fn remove_record(&self, id: RowKey, version: Option<RowVersion>) -> Result<bool, StoreError> {
        self.store.remove_row(EXCHANGES, id, version).await
    }

    fn is_due(&self, kind: &'static str) -> Option<u64> {
        self.seldom.is_due(kind, self.clock.source().monotonic())
    }

    fn store_failed(&self, error: StoreError) -> RelayAnswer {
        if let Some(others) = self.is_due("store_failed") {
            tracing::error!(endpoint = self.endpoint, error = ?Chain(&error), others, "relay: the store failed");
        }
        RelayAnswer::failed(&Fault::Store(error))
    }
}

#[cfg(test)]
mod tests;
