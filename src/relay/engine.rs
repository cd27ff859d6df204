//! The steps of an exchange: look, claim, ask, keep, answer. They know no wire format.
//!
//! The intent to send a token is durable before the token is sent, and the answer before it is given. A token that was
//! sent without a whole reply is *unknown*: the relay itself never sends it again.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::dpop::Proofs;
use super::provider::{Meaning, Provider, ProviderReply, ProviderRequest, SendError};
use super::seal::{NotSealed, Params, Presenter, RelayKeys, Sealer};
use crate::clock::{EngineClock, TimeSource, Timestamp};
use crate::denial::Denial;
use crate::fault::{Chain, Fault, StoreError};
use crate::limit::{Buckets, Limits, Rate};
use crate::random::{NoRandomness, random};
use crate::store::relay::{RelayId, RelayInserted, RelayRecord, RelayState, RelayStore, RelaySwapped};

/// The longest grace: within it the provider does not see a token presented twice.
pub const MAX_GRACE: Duration = Duration::from_secs(60);
/// The longest refresh token, in bytes.
pub const MAX_TOKEN: usize = 8 << 10;
/// The grace of an answer without a new refresh token: the token goes on working at the provider.
const GRACE_WITHOUT_ROTATION: Duration = Duration::from_secs(10);
/// A lease is longer than the timeout by this, for the writes of the store.
const LEASE_MARGIN: Duration = Duration::from_secs(5);
/// When to try again after an attempt without a reply, or where the provider does not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest time that a provider may ask clients to wait.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// How often one request looks again after others changed the record.
const MAX_ROUNDS: usize = 4;
/// How often one token may be sent.
const SENDS: Rate = Rate::new(10, Duration::from_secs(2));
const SEND_BUCKET_BITS: u32 = 14;

/// What a client's retry gets after an attempt without a whole reply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterUnknown {
    /// The token is sent once more. It succeeds if the provider did not process it before, or has a window of its own.
    #[default]
    TryOnce,
    /// A refusal: where the provider ends all that a user has when a token comes twice.
    Refuse,
}

/// The rules of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayRules {
    /// How long an answer is given again. At most [`MAX_GRACE`], and half of the access token's life.
    pub grace: Duration,
    /// How long the provider may take.
    pub timeout: Duration,
    /// See [`AfterUnknown`].
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

/// A refresh token as a dialect read it, and the request that exchanges it.
pub struct Presented {
    /// The token.
    pub token: SecretString,
    /// Its presenter. Its DPoP key comes from `proof`.
    pub presenter: Presenter,
    /// The DPoP proof of the request, which the relay verifies.
    pub proof: Option<SecretString>,
    /// What the answer depends on.
    pub params: Params,
    /// What is sent.
    pub request: ProviderRequest,
    /// The client's address, for the audit trail.
    pub address: Option<IpAddr>,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// This request asked the provider.
    Asked,
    /// Another request with the same token asked at the same time.
    Joined,
    /// An earlier request asked.
    Replayed,
}

/// What a dialect puts into its words.
#[derive(Debug)]
pub enum Answer {
    /// The provider's reply, to be passed on.
    Reply(ProviderReply, Source),
    /// The token is not good for this presenter, or may not be tried again: 400. Nothing was sent. The text says why.
    InvalidGrant(&'static str),
    /// The DPoP proof is not good: 400. Nothing was sent. The text says why.
    InvalidProof(&'static str),
    /// The parameters differ from those of the answer that there is: 400. Nothing was sent.
    InvalidScope,
    /// The token was sent too often, or its sender presented too many bad ones: 429.
    TooMany {
        /// When it may be tried again.
        retry_after: Duration,
    },
    /// There is no answer: 503.
    Unavailable {
        /// When to try again.
        retry_after: Duration,
        /// One word, for logs and metrics.
        reason: &'static str,
    },
}

impl Answer {
    fn unavailable(retry_after: Duration, reason: &'static str) -> Self {
        Self::Unavailable { retry_after: retry_after.max(RETRY_AFTER), reason }
    }

    fn failed(fault: &Fault) -> Self {
        Self::unavailable(fault.retry_after(), fault.reason())
    }
}

/// Ends what an access token stands for, before its refresh token's record is removed.
#[async_trait]
pub trait EndTokens: fmt::Debug + Send + Sync + 'static {
    /// Enters it into the revocation list.
    async fn end(&self, access_token: &str) -> Result<(), StoreError>;
}

/// The part of a relay that can be replaced while it runs. An exchange keeps to the settings that it began with.
pub struct RelaySettings {
    /// The keys of its records.
    pub sealer: Sealer,
    /// Its rules.
    pub rules: RelayRules,
    /// The provider.
    pub provider: Arc<dyn Provider>,
}

/// What a relay is made of.
pub struct RelayParts {
    /// The endpoint's name, for logs.
    pub endpoint: String,
    /// Keys, rules and provider.
    pub settings: RelaySettings,
    /// The records.
    pub store: Arc<dyn RelayStore>,
    /// The limits of refused tokens.
    pub limits: Arc<Limits>,
    /// What ends the tokens of a revoked answer.
    pub end_tokens: Arc<dyn EndTokens>,
    /// Engine time.
    pub clock: Arc<EngineClock>,
    /// The clock of the limits.
    pub time: Arc<dyn TimeSource>,
}

/// The relay of one endpoint.
#[derive(Debug)]
pub struct Relay {
    core: Arc<Core>,
}

struct Core {
    endpoint: String,
    settings: ArcSwap<RelaySettings>,
    store: Arc<dyn RelayStore>,
    limits: Arc<Limits>,
    end_tokens: Arc<dyn EndTokens>,
    clock: Arc<EngineClock>,
    /// This run of the program.
    owner: [u8; 16],
    /// The exchanges under way, each with its outcome to come.
    flights: DashMap<RelayId, watch::Receiver<Option<Arc<Landed>>>>,
    /// How many tasks exchange or revoke.
    under_way: watch::Sender<usize>,
    proofs: Proofs,
    sends: Buckets,
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A presentation with its keys.
struct Flown {
    presented: Presented,
    settings: Arc<RelaySettings>,
    /// The first is the current refresh key's.
    keys: Vec<RelayKeys>,
}

impl Flown {
    fn current(&self) -> Result<&RelayKeys, NotSealed> {
        self.keys.first().ok_or(NotSealed)
    }
}

/// How an exchange ended, with the presentation that it was made for.
struct Landed {
    flown: Arc<Flown>,
    end: End,
}

enum End {
    Reply(ProviderReply),
    Unavailable(Duration, &'static str),
    TooMany(Duration),
    /// The record had changed before anything was sent.
    Again,
}

/// A record that is replaced by the intent to send, and the place of its keys.
struct Before {
    place: usize,
    record: RelayRecord,
}

/// What the store says of a token.
enum Known {
    Answer(Answer),
    /// An attempt is under way, if one of this process is.
    Pending(Duration),
    /// It may be sent.
    Ask(Option<Before>),
}

/// A pending attempt.
#[derive(Clone, Copy)]
enum Pending {
    /// Perhaps of this process.
    Perhaps,
    /// Its answer can come for this long, and not to this process.
    Orphaned(Duration),
}

impl Relay {
    /// A relay of these parts.
    ///
    /// # Errors
    /// The random source fails.
    pub fn new(parts: RelayParts) -> Result<Self, NoRandomness> {
        let RelayParts { endpoint, settings, store, limits, end_tokens, clock, time } = parts;
        let settings = ArcSwap::from_pointee(settings.bounded());
        let owner = *random::<16>()?;
        let (flights, sends) = (DashMap::new(), Buckets::new(SEND_BUCKET_BITS, SENDS, time));
        let (under_way, proofs) = (watch::Sender::new(0), Proofs::default());
        let core =
            Core { endpoint, settings, store, limits, end_tokens, clock, owner, flights, under_way, proofs, sends };
        Ok(Self { core: Arc::new(core) })
    }

    /// Goes on with these settings. The records stay.
    pub fn replace(&self, settings: RelaySettings) {
        self.core.settings.store(Arc::new(settings.bounded()));
    }

    /// Resolves once no exchange and no revocation is under way: before the process ends.
    pub async fn idle(&self) {
        let mut under_way = self.core.under_way.subscribe();
        // The sender lives as long as this relay.
        let _ = under_way.wait_for(|tasks| *tasks == 0).await;
    }

    /// The access token of an answer.
    pub fn access_token(&self, reply: &ProviderReply) -> Option<Zeroizing<String>> {
        self.core.settings.load().provider.access_token(reply)
    }

    /// Sends a request that is no refresh, and keeps nothing of it.
    pub async fn pass(&self, request: &ProviderRequest, address: Option<IpAddr>) -> Answer {
        let core = &self.core;
        if let Err(answer) = core.admit(address) {
            return answer;
        }
        let settings = core.settings.load_full();
        let _task = UnderWay::new(core);
        let sent = tokio::time::timeout(settings.rules.timeout, settings.provider.send(request)).await;
        let reply = match sent {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                tracing::warn!(endpoint = core.endpoint, %error, "relay: the provider did not answer");
                let is_unsent = matches!(error, SendError::NotSent(_));
                let reason = if is_unsent { "provider_unreachable" } else { "provider_failed" };
                return Answer::unavailable(RETRY_AFTER, reason);
            }
            Err(_) => return Answer::unavailable(RETRY_AFTER, "provider_failed"),
        };
        match settings.provider.read("", &reply) {
            Meaning::Granted { .. } => core.limits.record_valid(address),
            Meaning::Dead => core.limits.record_forged(address),
            Meaning::Refused => {}
            Meaning::Busy => {
                let retry_after = reply.retry_after.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER);
                return Answer::unavailable(retry_after, "provider_busy");
            }
            Meaning::Unclear => {
                tracing::warn!(endpoint = core.endpoint, status = reply.status, "relay: the provider failed");
                return Answer::unavailable(RETRY_AFTER, "provider_failed");
            }
        }
        Answer::Reply(reply, Source::Asked)
    }

    /// Answers a refresh token. The provider's call is a task of its own: a caller that stops waiting cancels nothing.
    pub async fn exchange(&self, mut presented: Presented) -> Answer {
        if let Some(proof) = &presented.proof {
            match self.core.proved(proof) {
                Ok(jkt) => presented.presenter.jkt = Some(jkt),
                Err(why) => return Answer::InvalidProof(why),
            }
        }
        let flown = match self.core.flown(presented) {
            Ok(Some(flown)) => flown,
            Ok(None) => return Answer::InvalidGrant(NO_TOKEN),
            Err(NotSealed) => return Answer::failed(&NOT_SEALED),
        };
        let mut was_pending = false;
        for _ in 0..MAX_ROUNDS {
            let known = match self.core.known(&flown).await {
                Ok(known) => known,
                Err(error) => return self.core.store_failed(error),
            };
            let (before, pending) = match known {
                Known::Answer(answer) => return answer,
                Known::Ask(before) => match self.core.admit(flown.presented.address) {
                    Ok(()) => (before, None),
                    Err(answer) => return answer,
                },
                // Of another run of the program, unless the exchange ended a moment ago: then the store has the outcome.
                Known::Pending(left) => {
                    (None, Some(if was_pending { Pending::Orphaned(left) } else { Pending::Perhaps }))
                }
            };
            was_pending = pending.is_some();
            if let Some(answer) = self.core.join(&flown, before, pending).await {
                return answer;
            }
        }
        Answer::failed(&Fault::Contention)
    }

    /// Passes a revocation on, as a task of its own; then ends the access token of the token's answer and removes the
    /// record, so that nothing of it is given again.
    pub async fn revoke(&self, presented: Presented) -> Answer {
        let flown = match self.core.flown(presented) {
            Ok(Some(flown)) => flown,
            Ok(None) => return Answer::InvalidGrant(NO_TOKEN),
            Err(NotSealed) => return Answer::failed(&NOT_SEALED),
        };
        let task = UnderWay::new(&self.core);
        let revoked = tokio::spawn(async move { task.core.revoke(&flown).await }).await;
        revoked.unwrap_or_else(|_| Answer::unavailable(RETRY_AFTER, "relay_aborted"))
    }

    /// Removes the records that have ended.
    ///
    /// # Errors
    /// The store fails.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        self.core.store.sweep_relay(self.core.clock.now()).await
    }
}

const NOT_SEALED: Fault = Fault::Signing("an answer could not be sealed");
/// How many exchanges of one endpoint are under way, with or without a client that waits. Each has a connection.
const MAX_UNDER_WAY: usize = 256;
/// Header, payload, signature.
const JWS_PARTS: usize = 3;
const NO_TOKEN: &str = "not a refresh token";

impl RelaySettings {
    fn bounded(mut self) -> Self {
        self.rules.grace = self.rules.grace.min(MAX_GRACE);
        self
    }
}

impl Core {
    /// The key of a good DPoP proof.
    fn proved(&self, proof: &SecretString) -> Result<String, &'static str> {
        let url = self.settings.load().provider.proof_url().ok_or("the provider's URL is not known")?;
        self.proofs.check(proof.expose_secret(), &url, self.clock.now())
    }

    /// May a token of this sender go to the provider?
    fn admit(&self, address: Option<IpAddr>) -> Result<(), Answer> {
        if *self.under_way.borrow() >= MAX_UNDER_WAY {
            return Err(Answer::unavailable(RETRY_AFTER, "relay_saturated"));
        }
        self.limits.admit_unverified(address).map_err(|denial| {
            let retry_after = if let Denial::TooManyRequests(wait) = denial { wait } else { RETRY_AFTER };
            Answer::TooMany { retry_after }
        })
    }

    fn flown(&self, presented: Presented) -> Result<Option<Arc<Flown>>, NotSealed> {
        let length = presented.token.expose_secret().len();
        if length == 0 || length > MAX_TOKEN {
            return Ok(None);
        }
        let settings = self.settings.load_full();
        let keys = settings.sealer.keys(&presented.token, &presented.presenter)?;
        Ok(Some(Arc::new(Flown { presented, settings, keys })))
    }

    fn store_failed(&self, error: StoreError) -> Answer {
        tracing::error!(endpoint = self.endpoint, error = ?Chain(&error), "relay: the store failed");
        Answer::failed(&Fault::Store(error))
    }

    /// What the store says of a token.
    async fn known(&self, flown: &Flown) -> Result<Known, StoreError> {
        for (place, keys) in flown.keys.iter().enumerate() {
            if let Some(record) = self.store.load_relay(keys.id()).await? {
                let now = self.clock.now();
                if record.until > now {
                    return Ok(self.judge(flown, place, keys, record, now));
                }
            }
        }
        Ok(Known::Ask(None))
    }

    fn judge(&self, flown: &Flown, place: usize, keys: &RelayKeys, record: RelayRecord, now: Timestamp) -> Known {
        let opened = keys.open(&record);
        match record.state {
            RelayState::Done => {
                let Some(reply) = opened.as_deref().and_then(|bytes| ProviderReply::decode(bytes)) else {
                    // The provider knew the client that it answered, so this one is another.
                    self.audit_refused(flown, "another client, credential or key");
                    return Known::Answer(Answer::InvalidGrant("of another client, credential or key"));
                };
                if keys.params(&flown.presented.params) != record.params {
                    self.audit_refused(flown, "other parameters");
                    return Known::Answer(Answer::InvalidScope);
                }
                let reply = flown.settings.provider.aged(reply, now.since(record.since));
                Known::Answer(Answer::Reply(reply, Source::Replayed))
            }
            RelayState::Dead => match opened.as_deref().and_then(|bytes| ProviderReply::decode(bytes)) {
                Some(reply) => Known::Answer(Answer::Reply(reply, Source::Replayed)),
                // Said to another client, perhaps because it was another: only the provider knows about this one.
                None => Known::Ask(Some(Before { place, record })),
            },
            RelayState::Pending if record.lease > now => Known::Pending(record.lease.since(now)),
            // An attempt whose owner is gone is unknown once nothing can come of it any more.
            RelayState::Pending | RelayState::Unknown => {
                let is_same = opened.is_some() && keys.params(&flown.presented.params) == record.params;
                match flown.settings.rules.after_unknown {
                    // Nothing was decided on this presenter.
                    _ if !is_same => Known::Answer(Answer::unavailable(record.until.since(now), "relay_unknown")),
                    AfterUnknown::Refuse => Known::Answer(Answer::InvalidGrant("sent before, without a whole reply")),
                    AfterUnknown::TryOnce if record.attempt == 1 => Known::Ask(Some(Before { place, record })),
                    AfterUnknown::TryOnce => {
                        Known::Answer(Answer::unavailable(record.until.since(now), "relay_unknown"))
                    }
                }
            }
        }
    }

    /// Waits for the exchange under way, or begins one. `None`: what there is must be read again.
    async fn join(
        self: &Arc<Self>,
        flown: &Arc<Flown>,
        before: Option<Before>,
        pending: Option<Pending>,
    ) -> Option<Answer> {
        let Ok(current) = flown.current() else { return Some(Answer::failed(&NOT_SEALED)) };
        let id = current.id();
        let (mut landed, leads) = match (self.flights.entry(id), pending) {
            (Entry::Occupied(flight), _) => (flight.get().clone(), false),
            (Entry::Vacant(_), Some(Pending::Perhaps)) => return None,
            (Entry::Vacant(_), Some(Pending::Orphaned(left))) => {
                return Some(Answer::unavailable(left, "relay_pending"));
            }
            (Entry::Vacant(place), None) => {
                let (lands, landed) = watch::channel(None);
                place.insert(landed.clone());
                let flight = Flight { task: UnderWay::new(self), id, lands };
                tokio::spawn(flight.fly(Arc::clone(flown), before));
                (landed, true)
            }
        };
        // The lead waits for the writes of the store, too.
        let timeout = flown.settings.rules.timeout;
        let patience = if leads { timeout + 2 * LEASE_MARGIN } else { timeout };
        let landed = match tokio::time::timeout(patience, landed.wait_for(Option::is_some)).await {
            Ok(Ok(landed)) => landed.clone()?,
            // The task was aborted. Its record says how far it came.
            Ok(Err(_)) => return Some(Answer::unavailable(RETRY_AFTER, "relay_aborted")),
            Err(_) => return Some(Answer::unavailable(RETRY_AFTER, "relay_pending")),
        };
        // What another presenter, or the same with other parameters, got is for that one alone.
        let is_same = leads
            || landed.flown.current().is_ok_and(|other| other.is_same(current))
                && landed.flown.presented.params == flown.presented.params;
        if !is_same {
            return None;
        }
        let source = if leads { Source::Asked } else { Source::Joined };
        Some(match &landed.end {
            End::Reply(reply) => Answer::Reply(reply.clone(), source),
            End::Unavailable(retry_after, reason) => Answer::unavailable(*retry_after, reason),
            End::TooMany(retry_after) => Answer::TooMany { retry_after: *retry_after },
            End::Again => return None,
        })
    }

    /// Claims the token, asks the provider once, and keeps what came back.
    async fn ask(&self, flown: &Flown, before: Option<Before>) -> Result<End, NotSealed> {
        let keys = match &before {
            Some(before) => flown.keys.get(before.place).ok_or(NotSealed)?,
            None => flown.current()?,
        };
        let RelaySettings { rules, provider, sealer: _ } = &*flown.settings;
        if let Err(wait) = self.sends.take(keys.id()) {
            return Ok(End::TooMany(wait));
        }
        let now = self.clock.now();
        let before = before.map(|before| before.record);
        // A refusal that was said to another presenter is no attempt of this one.
        let unknown = before.as_ref().filter(|record| record.state != RelayState::Dead);
        let lease = now.plus(rules.timeout).plus(LEASE_MARGIN);
        let intent = RelayRecord {
            state: RelayState::Pending,
            attempt: unknown.map_or(1, |record| record.attempt.saturating_add(1)),
            owner: self.owner,
            since: now,
            lease,
            until: lease.plus(rules.grace),
            params: keys.params(&flown.presented.params),
            sealed: Vec::new(),
        };
        let intent = keys.seal(intent, &[])?;
        let claimed = match &before {
            Some(old) => {
                let swapped = self.store.swap_relay(keys.id(), old.version(), intent.clone()).await;
                swapped.map(|swapped| swapped == RelaySwapped::Swapped)
            }
            None => {
                let inserted = self.store.insert_relay(keys.id(), intent.clone(), now).await;
                inserted.map(|inserted| inserted == RelayInserted::Inserted)
            }
        };
        match claimed {
            Ok(true) => {}
            Ok(false) => return Ok(End::Again),
            Err(error) => {
                let fault = Fault::Store(error);
                tracing::error!(endpoint = self.endpoint, error = ?Chain(&fault), "relay: nothing sent");
                return Ok(End::Unavailable(fault.retry_after(), fault.reason()));
            }
        }
        // The intent is durable. From here on the token counts as sent.
        let token = &flown.presented.token;
        let sent = tokio::time::timeout(rules.timeout, provider.send(&flown.presented.request)).await;
        let reply = match sent {
            Ok(Ok(reply)) => reply,
            Ok(Err(SendError::NotSent(why))) => {
                tracing::warn!(endpoint = self.endpoint, why, "relay: the provider was not reached");
                self.undo(keys, &intent, unknown).await;
                return Ok(End::Unavailable(RETRY_AFTER, "provider_unreachable"));
            }
            Ok(Err(SendError::Lost(why))) => return Ok(self.unknown(rules, keys, &intent, &why).await),
            Err(_) => return Ok(self.unknown(rules, keys, &intent, "timed out").await),
        };
        let address = flown.presented.address;
        Ok(match provider.read(token.expose_secret(), &reply) {
            Meaning::Granted { rotates, lifetime } => {
                self.limits.record_valid(address);
                let mut grace = lifetime.map_or(rules.grace, |lifetime| rules.grace.min(lifetime / 2));
                if !rotates {
                    grace = grace.min(GRACE_WITHOUT_ROTATION);
                }
                self.keep(keys, &intent, RelayState::Done, &reply, grace).await;
                End::Reply(reply)
            }
            Meaning::Dead => {
                self.limits.record_forged(address);
                self.keep(keys, &intent, RelayState::Dead, &reply, rules.grace).await;
                End::Reply(reply)
            }
            Meaning::Refused => {
                self.undo(keys, &intent, unknown).await;
                End::Reply(reply)
            }
            Meaning::Busy => {
                self.undo(keys, &intent, unknown).await;
                End::Unavailable(reply.retry_after.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER), "provider_busy")
            }
            Meaning::Unclear => self.unknown(rules, keys, &intent, &format!("status {}", reply.status)).await,
        })
    }

    /// Replaces the intent by an answer. If that fails, the answer is given all the same: the tokens exist.
    async fn keep(
        &self,
        keys: &RelayKeys,
        intent: &RelayRecord,
        state: RelayState,
        reply: &ProviderReply,
        grace: Duration,
    ) {
        let now = self.clock.now();
        let record = RelayRecord { state, since: now, until: now.plus(grace), ..intent.clone() };
        let sealed = reply.encode().ok_or(NotSealed).and_then(|bytes| keys.seal(record, &bytes));
        match sealed {
            Ok(record) if grace > Duration::ZERO => self.swap(keys, intent, record).await,
            Ok(_) => self.remove(keys, intent).await,
            Err(error) => {
                tracing::error!(endpoint = self.endpoint, %error, "relay: an answer is given, and cannot be given again");
            }
        }
    }

    /// The provider may have rotated: keeps that, for as long as an answer would have been kept.
    async fn unknown(&self, rules: &RelayRules, keys: &RelayKeys, intent: &RelayRecord, why: &str) -> End {
        tracing::warn!(
            endpoint = self.endpoint,
            why,
            attempt = intent.attempt,
            "relay: no answer to a token that was sent"
        );
        let now = self.clock.now();
        let until = now.plus(rules.grace);
        let record = RelayRecord { state: RelayState::Unknown, since: now, until, ..intent.clone() };
        if let Ok(record) = keys.seal(record, &[]) {
            self.swap(keys, intent, record).await;
        }
        End::Unavailable(RETRY_AFTER, "relay_unknown")
    }

    /// Nothing was rotated by this attempt: what was known before it is known again.
    async fn undo(&self, keys: &RelayKeys, intent: &RelayRecord, unknown: Option<&RelayRecord>) {
        let Some(unknown) = unknown else { return self.remove(keys, intent).await };
        let (attempt, until) = (unknown.attempt, unknown.until);
        let record =
            RelayRecord { state: RelayState::Unknown, attempt, since: self.clock.now(), until, ..intent.clone() };
        if let Ok(record) = keys.seal(record, &[]) {
            self.swap(keys, intent, record).await;
        }
    }

    async fn swap(&self, keys: &RelayKeys, intent: &RelayRecord, record: RelayRecord) {
        match self.store.swap_relay(keys.id(), intent.version(), record).await {
            Ok(RelaySwapped::Swapped) => {}
            // A revocation removed it meanwhile.
            Ok(RelaySwapped::Changed(_)) => tracing::debug!(endpoint = self.endpoint, "relay: the record is gone"),
            Err(error) => {
                tracing::error!(endpoint = self.endpoint, error = ?Chain(&error), "relay: an outcome could not be kept");
            }
        }
    }

    async fn remove(&self, keys: &RelayKeys, intent: &RelayRecord) {
        if let Err(error) = self.store.remove_relay(keys.id(), Some(intent.version())).await {
            tracing::error!(endpoint = self.endpoint, error = ?Chain(&error), "relay: a record could not be removed");
        }
    }

    async fn revoke(&self, flown: &Flown) -> Answer {
        let RelaySettings { rules, provider, sealer: _ } = &*flown.settings;
        let sent = tokio::time::timeout(rules.timeout, provider.revoke(&flown.presented.request)).await;
        let (accepted, reply) = match sent {
            Ok(Ok(sent)) => sent,
            // A client repeats it, which changes nothing more.
            Ok(Err(error)) => {
                tracing::warn!(endpoint = self.endpoint, %error, "relay: a revocation was not passed on");
                return Answer::unavailable(RETRY_AFTER, "provider_unreachable");
            }
            Err(_) => return Answer::unavailable(RETRY_AFTER, "provider_unreachable"),
        };
        if accepted && let Err(error) = self.forget(flown).await {
            return self.store_failed(error);
        }
        if !accepted && reply.status >= 500 {
            return Answer::unavailable(reply.retry_after.unwrap_or(RETRY_AFTER).min(MAX_RETRY_AFTER), "provider_busy");
        }
        Answer::Reply(reply, Source::Asked)
    }

    async fn forget(&self, flown: &Flown) -> Result<(), StoreError> {
        // The presented token may be an access token itself.
        let presented = flown.presented.token.expose_secret();
        if presented.split('.').count() == JWS_PARTS {
            self.end_tokens.end(presented).await?;
        }
        for keys in &flown.keys {
            let Some(record) = self.store.load_relay(keys.id()).await? else { continue };
            let reply = (record.state == RelayState::Done).then(|| keys.open(&record)).flatten();
            let reply = reply.as_deref().and_then(|bytes| ProviderReply::decode(bytes));
            if let Some(token) = reply.and_then(|reply| flown.settings.provider.access_token(&reply)) {
                self.end_tokens.end(&token).await?;
            }
            self.store.remove_relay(keys.id(), None).await?;
        }
        Ok(())
    }

    fn audit_refused(&self, flown: &Flown, why: &'static str) {
        tracing::warn!(
            target: "rotogate::audit",
            event = "relay_refused",
            rotogate.endpoint = self.endpoint,
            client.address = flown.presented.address.map(tracing::field::display),
            why,
            "relay refused",
        );
    }
}

/// A task that [`Relay::idle`] waits for.
struct UnderWay {
    core: Arc<Core>,
}

impl UnderWay {
    fn new(core: &Arc<Core>) -> Self {
        core.under_way.send_modify(|tasks| *tasks += 1);
        Self { core: Arc::clone(core) }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.core.under_way.send_modify(|tasks| *tasks -= 1);
    }
}

/// An exchange under way. Dropped, it is no longer: also if its task panics.
struct Flight {
    task: UnderWay,
    id: RelayId,
    lands: watch::Sender<Option<Arc<Landed>>>,
}

impl Flight {
    async fn fly(self, flown: Arc<Flown>, before: Option<Before>) {
        let end = self.task.core.ask(&flown, before).await;
        let end = end.unwrap_or(End::Unavailable(NOT_SEALED.retry_after(), NOT_SEALED.reason()));
        self.lands.send_replace(Some(Arc::new(Landed { flown, end })));
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.task.core.flights.remove(&self.id);
    }
}

#[cfg(test)]
mod tests;
