//! Streams by which other issuers report security events, such as revocations (OpenID Shared Signals Framework 1.0).
//! The gate creates a stream at the issuer's transmitter, and fetches its events (RFC 8936) or has them pushed (RFC
//! 8935). It also requests verification events, because a silent stream may be broken.
//!
//! [`Receivers`] are the other direction: this gate pushes events about its ended sessions to them.
//!
//! [`StreamGate::take`] decides the effect of an event, in the same way as for an event that is pushed without a
//! stream.
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
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll};
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

/// The functions of the gate that streams need.
#[async_trait]
pub trait StreamGate: fmt::Debug + Send + Sync + 'static {
    /// Judges a security event token of the issuer with this name, and applies its effect. The effect is durable when
    /// this returns `Ok`.
    async fn take(&self, issuer: &str, audience: &[Box<str>], set: SecretString) -> Result<(), NotTaken>;
    /// Notes the members of complex subjects that the transmitter of this issuer calls critical.
    fn note_critical_members(&self, issuer: &str, members: Vec<Box<str>>);
    /// The records that all gates of the store share.
    fn records(&self) -> Arc<dyn RelayStore>;
    /// The seal of `message` under each secret of the keyring, the current one first.
    fn seals(&self, message: &[u8]) -> Vec<Vec<u8>>;
    /// Whether other gates may use the store.
    fn is_shared(&self) -> bool;
    /// The gate's time, on which all gates of a store agree.
    fn now(&self) -> Timestamp;
}

/// The functions of the gate that receivers need.
#[async_trait]
pub trait ReceiverGate: StreamGate {
    /// The `iss` of the gate.
    fn issuer(&self) -> Arc<str>;
    /// When the data of the store was last adopted. Positions from before are meaningless now.
    fn adopted(&self) -> Timestamp;
    /// The ends of sessions that were written after this position, and the position after the last of them.
    async fn ended_since(&self, after: Cursor) -> Result<(EndedBatch, Cursor), StoreError>;
    /// The next ends in this batch, only for sessions of these clients, and the place to continue.
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
    /// The event is refused, and a repetition would be refused, too.
    Refused(EventFlaw),
    /// There was no decision, so the same event may be accepted later.
    Undecided,
}

/// How events arrive.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The gate fetches the events (RFC 8936).
    Poll,
    /// The transmitter sends the events (RFC 8935) to this URL, with this bearer token.
    Push(String, SecretString),
}

/// A stream of events of one issuer.
#[derive(Clone, Debug)]
pub struct StreamSettings {
    /// The name of the issuer.
    pub issuer: Arc<str>,
    /// The exact `iss` of the issuer.
    pub iss: Box<str>,
    /// The URL of the issuer's transmitter, exactly as the transmitter's metadata has it.
    pub transmitter: Box<str>,
    /// Further hosts that the transmitter's URLs may have, besides its own, with unusual ports.
    pub hosts: Vec<Box<str>>,
    /// The audiences that the stream may have.
    pub audience: Vec<Box<str>>,
    /// The types of events to request.
    pub events: Vec<Box<str>>,
    /// How events arrive.
    pub delivery: Delivery,
    /// How often the gate requests a verification event and the stream's status.
    pub verify_every: Duration,
}

impl StreamSettings {
    /// The facts that identify the record of the stream.
    fn record_parts(&self) -> [&str; 5] {
        ["event stream", &self.issuer, &self.iss, &self.transmitter, self.delivery.method()]
    }
}

/// A stream, and the parts that its requests need.
#[derive(Clone, Debug)]
pub struct StreamPlan {
    /// The stream.
    pub settings: StreamSettings,
    /// How the gate authenticates at the transmitter.
    pub access: Access,
    /// The client for the stream's requests.
    pub http: HttpClient,
    /// Identifies the configuration. If it changes, the stream starts again.
    pub fingerprint: String,
}

/// Why a stream cannot be used at present.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The gate's own file, key or secret cannot be used.
    #[error("{0}")]
    Access(String),
    /// The request got no answer.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The answer was not the expected one.
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

/// The pause after a panic.
const RESTART: Duration = Duration::from_secs(10);

/// Runs a task that never ends, and begins anew after a panic: a bug that one event meets stops no other event. The hook
/// of the program logs the panic.
async fn supervised<F: Future<Output = ()>>(begin: impl Fn() -> F) {
    loop {
        let mut task = pin!(begin());
        let poll = |context: &mut Context<'_>| {
            catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(context))).unwrap_or(Poll::Ready(()))
        };
        poll_fn(poll).await;
        tokio::time::sleep(RESTART).await;
    }
}
