//! Revocation beyond the gate: the streams by which other issuers report security events (OpenID Shared Signals
//! Framework 1.0). The gate creates a stream at the issuer's transmitter, fetches its events (RFC 8936) or has them
//! pushed (RFC 8935), and asks for verification events: a stream that is silent may be broken.
//!
//! [`Receivers`] are the other direction: they hear by push of the sessions that end at this gate.
//!
//! What an event means is judged by [`StreamGate::take`], the same way as for an event that is pushed without a stream.
//!
//! This crate has no promise of compatibility: an application depends on `rotogate`.

mod access;
mod outbox;
mod receiver;
mod receivers;
mod record;
mod stream;
mod streams;
mod transmitter;

pub mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::SecretString;

use rotogate_core::clock::Timestamp;
use rotogate_core::denial::EventFlaw;
use rotogate_core::engine::ended::{End, EndPlace, EndedBatch};
use rotogate_core::http_client::{FetchError, HttpClient};
use rotogate_core::store::relay::RelayStore;
use rotogate_core::store::{Cursor, StoreError};

pub use access::{Access, ClientSource, TokenUrl};
pub use receiver::{ReceiverPlan, ReceiverSettings, greet};
pub use receivers::{ReceiverFigures, Receivers};
pub use streams::Streams;
pub use transmitter::inspect;

/// The gate, as far as streams need it.
#[async_trait]
pub trait StreamGate: fmt::Debug + Send + Sync + 'static {
    /// Judges a security event token of the issuer with this name, and puts its effect in force. The effect is durable
    /// when this returns `Ok`.
    async fn take(&self, issuer: &str, audience: &[Box<str>], set: SecretString) -> Result<(), NotTaken>;
    /// Notes the members of complex subjects that the transmitter of this issuer calls critical.
    fn note_critical_members(&self, issuer: &str, members: Vec<Box<str>>);
    /// The records that all gates of the store share.
    fn records(&self) -> Arc<dyn RelayStore>;
    /// The seal of `message` under each secret of the keyring, the current one first.
    fn seals(&self, message: &[u8]) -> Vec<Vec<u8>>;
    /// Whether other gates may use the store.
    fn is_shared(&self) -> bool;
    /// The gate's time, which all gates of a store agree on.
    fn now(&self) -> Timestamp;
}

/// The gate, as far as its receivers need it.
#[async_trait]
pub trait ReceiverGate: StreamGate {
    /// The `iss` of the gate.
    fn issuer(&self) -> Arc<str>;
    /// When the data of the store was adopted last: positions of before mean nothing now.
    fn adopted(&self) -> Timestamp;
    /// The ends that were written after this position, and the position of their end.
    async fn ended_since(&self, after: Cursor) -> Result<(EndedBatch, Cursor), StoreError>;
    /// The next of these ends, of sessions of these clients alone, and where to go on.
    async fn next_ends(
        &self,
        batch: &EndedBatch,
        clients: &[Box<str>],
        place: EndPlace,
    ) -> Result<(Vec<End>, Option<EndPlace>), StoreError>;
}

/// Why an event has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// It is refused, and will be refused again.
    Refused(EventFlaw),
    /// Nothing was decided: the same event may be taken later.
    Undecided,
}

/// How events come.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The gate fetches them (RFC 8936).
    Poll,
    /// The transmitter sends them (RFC 8935) to this URL, with this bearer token.
    Push(String, SecretString),
}

/// A stream of events of one issuer.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// The name of the issuer.
    pub issuer: Arc<str>,
    /// Its `iss`, exactly.
    pub iss: Box<str>,
    /// The URL of its transmitter, exactly as the transmitter's metadata has it.
    pub transmitter: Box<str>,
    /// The hosts besides the transmitter's that its URLs may have, with their ports if these are unusual.
    pub hosts: Vec<Box<str>>,
    /// The audiences that the stream may have.
    pub audience: Vec<Box<str>>,
    /// The types of the events to ask for.
    pub events: Vec<Box<str>>,
    /// How events come.
    pub delivery: Delivery,
    /// How often a verification event is asked for, and the stream's status.
    pub verify_every: Duration,
}

impl StreamSettings {
    /// What the record of the stream is of.
    fn record_parts(&self) -> [&str; 5] {
        ["event stream", &self.issuer, &self.iss, &self.transmitter, self.delivery.method()]
    }
}

/// A stream, and what its requests need.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// The stream.
    pub settings: StreamSettings,
    /// How the gate authenticates at the transmitter.
    pub access: Access,
    /// What sends its requests.
    pub http: HttpClient,
    /// The same text only for the same configuration: a stream whose plan has another one begins anew.
    pub fingerprint: String,
}

/// Why a stream cannot be used just now.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The gate's own file, key or secret cannot be used.
    #[error("{0}")]
    Access(String),
    /// No answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// An answer that is not what was asked for.
    #[error("{place}: {why}")]
    Answer {
        /// The endpoint.
        place: String,
        /// The problem.
        why: String,
    },
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An event could not be judged.
    #[error("an event was not decided; it is not acknowledged")]
    Undecided,
}
