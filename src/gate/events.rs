//! The reports of other issuers: one entry point for the endpoints to which they push, and for a client that polls.

#[cfg(feature = "program")]
use std::sync::Arc;

#[cfg(feature = "program")]
use super::Gate;
use super::Inner;
#[cfg(feature = "program")]
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::{Denial, EventFlaw};
#[cfg(feature = "program")]
use rotogate_core::engine::StreamWatch;
use rotogate_core::engine::{NoticeResult, Origin};
use rotogate_core::fault::Error;
#[cfg(feature = "program")]
use rotogate_core::token::verify::SentNotice;
use rotogate_core::token::verify::{EventEffect, EventKind, EventProtocol, Reported, StreamNotice};

/// A security event token of another issuer (RFC 8417), as a transmitter delivered it.
#[cfg(feature = "program")]
#[derive(Clone, Copy)]
pub struct DeliveredEvent<'a> {
    /// The name of the issuer that must have signed it.
    pub issuer: &'a str,
    /// The accepted audiences, of which `aud` must name one.
    pub audience: &'a [Box<str>],
    /// The signed text.
    pub token: &'a str,
}

#[cfg(feature = "program")]
impl std::fmt::Debug for DeliveredEvent<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeliveredEvent(…)")
    }
}

/// A good security event, after its effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenEvent {
    /// The `jti` of the event.
    pub id: Box<str>,
    /// The type of the event.
    pub kind: EventKind,
    /// The effect of the event.
    pub result: NoticeResult,
    /// The event's statement about its stream.
    pub stream: Option<StreamNotice>,
}

#[cfg(feature = "program")]
impl Gate {
    /// Executes a security event of another issuer, as the endpoint for pushed events does. Everything is durable when
    /// this returns; only then may the event be acknowledged. A repetition changes nothing.
    ///
    /// # Errors
    /// [`Denial::RefusedEvent`], for good: [`EventFlaw::word`] is the `err` of its `setErrs` (RFC 8936). After any
    /// other error nothing was decided: the event is not acknowledged, and is delivered again.
    pub async fn take_event(&self, event: DeliveredEvent<'_>) -> Result<TakenEvent, Error> {
        let DeliveredEvent { issuer, audience, token } = event;
        let sent = SentNotice { protocol: EventProtocol::SecurityEvents, issuer, audience, token };
        let reported = self.0.checker.verify_notice(sent).map_err(Error::from);
        self.0.take_notice(issuer, EventProtocol::SecurityEvents, reported, &Origin::default()).await
    }

    /// Notes the members of a complex subject that the transmitter of an issuer calls critical
    /// (`critical_subject_members` of its configuration): an event whose subject has a critical member that the gate
    /// cannot judge is discarded. False if there is no issuer of this name.
    pub fn note_critical_members(&self, issuer: &str, members: Vec<Box<str>>) -> bool {
        self.0.checker.note_critical_members(issuer, members)
    }

    /// Sets the observer of event streams, for pushed events and for events of [`Self::take_event`]. Only the first
    /// call has an effect.
    pub fn watch_streams(&self, watch: Arc<dyn StreamWatch>) {
        let _ = self.0.running.stream_watch.set(watch);
    }

    /// The store of records besides sessions, if the gate has one.
    #[cfg(feature = "relay")]
    pub fn records(&self) -> Option<Arc<dyn rotogate_core::store::relay::RelayStore>> {
        self.0.running.records.clone()
    }

    /// The seal of a record under each secret of the keyring, the current secret's first.
    #[cfg(feature = "relay")]
    pub fn record_seals(&self, message: &[u8]) -> Vec<Vec<u8>> {
        let seals = self.0.engine.keyring().refresh_keys().relay_secrets(message);
        seals.iter().map(|seal| seal.as_ref().to_vec()).collect()
    }

    /// The time of the engine, on which all gates of a store agree.
    pub fn engine_time(&self) -> Timestamp {
        self.0.engine.clock().now()
    }
}

impl Inner {
    /// Executes the notice of another issuer, counts it, and records it.
    // Requirements N49–N56, S19 to S23.
    pub(super) async fn take_notice(
        &self,
        issuer: &str,
        protocol: EventProtocol,
        reported: Result<Reported, Error>,
        origin: &Origin,
    ) -> Result<TakenEvent, Error> {
        let taken = match reported {
            Ok(reported) => {
                let (id, kind, effect) = (reported.id.clone(), reported.kind, reported.effect);
                let stream = reported.stream.clone();
                let user = reported.ended.user().map(Box::from);
                let result = match self.hear(issuer, reported.stream.as_ref()).await {
                    Ok(()) => self.engine.take_report(reported).await,
                    Err(error) => Err(error),
                };
                if effect == EventEffect::Refresh && !matches!(result, Ok(result) if result != NoticeResult::Applied) {
                    // The answers of decision points about the user may have changed, too. Such events are rare, so all
                    // answers are forgotten. The tokens are refused here also if the store fails.
                    self.running.decisions.forget_all();
                }
                result.map(|result| (TakenEvent { id, kind, result, stream }, effect, user))
            }
            Err(error) => Err(error),
        };
        let result = taken.as_ref().map(|(taken, ..)| taken.result);
        self.engine.record_notice(issuer, protocol.word(), result, origin);
        let (taken, effect, user): (_, _, Option<Box<str>>) = taken?;
        self.engine.record_event((issuer, user.as_deref()), (taken.kind, effect, &taken.id), taken.result, origin);
        Ok(taken)
    }

    /// Passes on an event's statement about its stream. An event that verifies the stream with a state that the gate
    /// did not request is refused.
    // Requirement S21.
    async fn hear(&self, issuer: &str, notice: Option<&StreamNotice>) -> Result<(), Error> {
        let (Some(watch), Some(notice)) = (self.running.stream_watch.get(), notice) else { return Ok(()) };
        match watch.hears(issuer, notice).await? {
            true => Ok(()),
            false => Err(Denial::RefusedEvent(EventFlaw::State).into()),
        }
    }

    /// Reads a message of another issuer, within the limits on forged tokens.
    pub(super) fn judge_notice<T>(
        &self,
        origin: &Origin,
        read: impl FnOnce() -> Result<T, Denial>,
    ) -> Result<T, Denial> {
        let (address, limits) = (origin.address, self.engine.limits());
        limits.admit_unverified(address)?;
        let read = read();
        match &read {
            Ok(_) => limits.record_valid(address),
            Err(Denial::RefusedEvent(_)) => limits.record_forged(address),
            Err(_) => limits.record_undecided(address),
        }
        read
    }
}
