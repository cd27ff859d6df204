//! The record of a stream or of a receiver, in the store that all gates share. It names the gate that serves the
//! stream, and has the state that all gates must know. The keyring seals it. Another gate takes over when the lease of
//! the serving gate ends.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{StreamError, StreamGate};
use rotogate_core::clock::Timestamp;
use rotogate_core::random::are_equal;
use rotogate_core::store::StoreError;
use rotogate_core::store::relay::{RelayId, RelayInserted, RelayRecord, RelayState, RelaySwapped};

/// How long a gate keeps the stream without renewing its lease.
// Requirement S18.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
/// How often the serving gate renews its lease, and other gates check the lease.
pub(crate) const RENEW: Duration = Duration::from_secs(4);
/// How long the record of a stream that no gate serves is kept.
const KEPT_FOR: Duration = Duration::from_secs(30 * 86_400);
/// The length of a seal.
const SEAL: usize = 32;
/// How often a change is repeated that conflicts with another gate's change.
const TRIES: usize = 5;

/// The state of a stream, which all gates share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// The id of the stream at the transmitter.
    pub(crate) stream_id: Option<String>,
    /// The `state` of the expected verification event, and the time of its request.
    pub(crate) asked: Option<(String, Timestamp)>,
    /// When a verification event was last requested or last arrived.
    pub(crate) verified: Timestamp,
    /// Whether the last requested verification event arrived.
    pub(crate) is_verified: bool,
    /// Whether the transmitter reports the stream as paused or disabled.
    pub(crate) is_paused: bool,
}

impl Known {
    /// Whether events can be expected to arrive.
    pub(crate) const fn is_alive(&self) -> bool {
        self.is_verified && !self.is_paused
    }
}

/// A digest of these parts, for use as an id.
pub(crate) fn digest(parts: &[&str]) -> [u8; 32] {
    digest_of(parts.iter().map(|part| part.as_bytes()))
}

fn digest_of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut id = [0; 32];
    id.copy_from_slice(context.finish().as_ref());
    id
}

/// The record of one stream or receiver, with its shared state.
#[derive(Clone, Debug)]
pub(crate) struct StreamRecord<K = Known> {
    gate: Arc<dyn StreamGate>,
    id: RelayId,
    run: [u8; 16],
    known: PhantomData<fn() -> K>,
}

impl<K: Clone + Default + Serialize + DeserializeOwned> StreamRecord<K> {
    /// `run` identifies this run of the program, and `parts` the stream or receiver.
    pub(crate) fn new(gate: Arc<dyn StreamGate>, parts: &[&str], run: [u8; 16]) -> Self {
        Self { gate, id: RelayId(digest(parts)), run, known: PhantomData }
    }

    /// A further record beside this one.
    pub(crate) fn beside<O>(&self, name: &str) -> StreamRecord<O> {
        let id = RelayId(digest_of([&self.id.0[..], name.as_bytes()]));
        StreamRecord { gate: Arc::clone(&self.gate), id, run: self.run, known: PhantomData }
    }

    /// The content of the record, if a gate of this keyring wrote it.
    pub(crate) async fn read(&self) -> Result<Option<K>, StoreError> {
        Ok(self.load().await?.and_then(|(_, known)| known))
    }

    /// Writes the record, whatever its old content, unless another gate has taken the stream of `holder`. The old content
    /// is read before the holder, so a gate that stood still replaces no record of the gate that took over.
    pub(crate) async fn write<O>(&self, known: &K, holder: &StreamRecord<O>) -> Result<bool, StoreError>
    where
        O: Clone + Default + Serialize + DeserializeOwned,
    {
        let old = self.load().await?.map(|(record, _)| record);
        if !holder.load().await?.is_some_and(|(record, known)| known.is_some() && record.owner == self.run) {
            return Ok(false);
        }
        let attempt = old.as_ref().map_or(1, |old| old.attempt.wrapping_add(1));
        self.put(old.as_ref(), self.sealed(known, self.run, self.gate.now(), attempt)?).await
    }

    /// Removes the record.
    pub(crate) async fn forget(&self) -> Result<(), StoreError> {
        self.gate.records().remove_relay(self.id, None).await.map(drop)
    }

    /// The record, if it exists, and its content, if a gate of this keyring wrote it.
    async fn load(&self) -> Result<Option<(RelayRecord, Option<K>)>, StoreError> {
        let record = self.gate.records().load_relay(self.id).await?.filter(|record| record.until > self.gate.now());
        Ok(record.map(|record| {
            let known = self.open(&record);
            if known.is_none() {
                tracing::error!("the record of an event stream has no good seal: no gate of this keyring wrote it");
            }
            (record, known)
        }))
    }

    fn open(&self, record: &RelayRecord) -> Option<K> {
        let (seal, text) = record.sealed.split_at_checked(SEAL)?;
        let is_good = self.gate.seals(&self.message(record, text)).iter().any(|good| are_equal(good, seal));
        if is_good { serde_json::from_slice(text).ok() } else { None }
    }

    /// The sealed message. It includes every field on which a gate decides.
    fn message(&self, record: &RelayRecord, text: &[u8]) -> Vec<u8> {
        let lease = record.lease.as_millis().to_be_bytes();
        [b"event stream", &self.id.0[..], &record.owner, &lease, &record.attempt.to_be_bytes(), text].concat()
    }

    fn sealed(&self, known: &K, owner: [u8; 16], lease: Timestamp, attempt: u32) -> Result<RelayRecord, StoreError> {
        let failed = || StoreError::new("the record of an event stream cannot be sealed");
        let now = self.gate.now();
        let until = now.plus(KEPT_FOR);
        let (state, params) = (RelayState::Done, [0; 32]);
        let mut record = RelayRecord { state, attempt, owner, since: now, lease, until, params, sealed: Vec::new() };
        let text = serde_json::to_vec(known).map_err(|_| failed())?;
        let seal = self.gate.seals(&self.message(&record, &text)).into_iter().next().ok_or_else(failed)?;
        record.sealed = [seal, text].concat();
        Ok(record)
    }

    /// Replaces the record that was read. Returns false if another gate has changed it meanwhile.
    async fn put(&self, old: Option<&RelayRecord>, new: RelayRecord) -> Result<bool, StoreError> {
        let records = self.gate.records();
        Ok(match old {
            None => matches!(records.insert_relay(self.id, new, self.gate.now()).await?, RelayInserted::Inserted),
            Some(old) => {
                matches!(records.swap_relay(self.id, old.version(), new).await?, RelaySwapped::Swapped)
            }
        })
    }

    /// Takes or keeps the stream, unless another gate has it. Returns the shared state, and whether this gate has the
    /// stream.
    pub(crate) async fn hold(&self) -> Result<(K, bool), StreamError> {
        self.hold_as(false).await
    }

    /// Keeps the stream, unless another gate has taken it meanwhile. The lease may have ended.
    pub(crate) async fn renew(&self) -> Result<bool, StreamError> {
        Ok(self.hold_as(true).await?.1)
    }

    async fn hold_as(&self, is_renewal: bool) -> Result<(K, bool), StreamError> {
        let now = self.gate.now();
        let found = self.load().await?;
        let known = found.as_ref().and_then(|(_, known)| known.clone());
        if let (Some((record, _)), Some(known)) = (&found, &known) {
            let is_own = record.owner == self.run;
            // If one gate alone uses the store, no other gate can take over, so the lease need not be renewed.
            let is_held = is_own && (!self.gate.is_shared() || record.lease > now.plus(LEASE - RENEW));
            let is_anothers = !is_own && (is_renewal || (self.gate.is_shared() && record.lease > now));
            if is_held || is_anothers {
                return Ok((known.clone(), is_held));
            }
        }
        let known = known.unwrap_or_default();
        let old = found.as_ref().map(|(record, _)| record);
        let attempt = old.map_or(1, |old| old.attempt.wrapping_add(1));
        let new = self.sealed(&known, self.run, now.plus(LEASE), attempt)?;
        let is_held = self.put(old, new).await?;
        Ok((known, is_held))
    }

    /// Lets another gate take the stream at once.
    pub(crate) async fn release(&self) -> Result<(), StreamError> {
        if let Some((record, Some(known))) = self.load().await?
            && record.owner == self.run
        {
            let new = self.sealed(&known, self.run, self.gate.now(), record.attempt.wrapping_add(1))?;
            self.put(Some(&record), new).await?;
        }
        Ok(())
    }

    /// Changes the shared state, whichever gate has the stream. `change` returns whether it changed anything. It may be
    /// called again with the state that another gate wrote.
    pub(crate) async fn change(&self, change: impl Fn(&mut K) -> bool) -> Result<Option<K>, StoreError> {
        self.change_as(None, change).await
    }

    /// Changes the shared state. Returns false if another gate has taken the stream.
    pub(crate) async fn change_own(&self, change: impl Fn(&mut K) -> bool) -> Result<bool, StoreError> {
        Ok(self.change_as(Some(self.run), change).await?.is_some())
    }

    async fn change_as(
        &self,
        owner: Option<[u8; 16]>,
        change: impl Fn(&mut K) -> bool,
    ) -> Result<Option<K>, StoreError> {
        for _ in 0..TRIES {
            let Some((record, Some(mut known))) = self.load().await? else { return Ok(None) };
            if owner.is_some_and(|owner| record.owner != owner) {
                return Ok(None);
            }
            if !change(&mut known) {
                return Ok(Some(known));
            }
            let new = self.sealed(&known, record.owner, record.lease, record.attempt.wrapping_add(1))?;
            if self.put(Some(&record), new).await? {
                return Ok(Some(known));
            }
        }
        Err(StoreError::new("the record of an event stream is changed all the time"))
    }
}
