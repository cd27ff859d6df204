//! Exchanges under way. Requests with the same token share one.

use std::sync::Arc;
use std::time::Duration;

use dashmap::mapref::entry::Entry;
use secrecy::ExposeSecret;
use tokio::sync::watch;

use super::look::Before;
use super::{Answer, Core, LEASE_MARGIN, MAX_TOKEN, NOT_SEALED, Presented, RETRY_AFTER, RelaySettings, Source};
use crate::relay::provider::ProviderReply;
use crate::relay::seal::{NotSealed, RelayKeys};
use crate::store::relay::RelayId;

/// A pending attempt.
#[derive(Clone, Copy)]
pub(super) enum Pending {
    /// Perhaps of this process.
    Perhaps,
    /// Its answer can come for this long, and not to this process.
    Orphaned(Duration),
}

/// A presentation with its keys.
pub(super) struct Flown {
    pub(super) presented: Presented,
    pub(super) settings: Arc<RelaySettings>,
    /// The first is the current refresh key's.
    pub(super) keys: Vec<RelayKeys>,
}

impl Flown {
    pub(super) fn current(&self) -> Result<&RelayKeys, NotSealed> {
        self.keys.first().ok_or(NotSealed)
    }
}

/// How an exchange ended, with the presentation that it was made for.
pub(super) struct Landed {
    flown: Arc<Flown>,
    end: End,
}

pub(super) enum End {
    Reply(ProviderReply),
    Unavailable(Duration, &'static str),
    TooMany(Duration),
    /// The record had changed before anything was sent.
    Again,
}

/// A task that [`Relay::idle`] waits for.
pub(super) struct UnderWay {
    pub(super) core: Arc<Core>,
}

impl UnderWay {
    pub(super) fn new(core: &Arc<Core>) -> Self {
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

impl Core {
    pub(super) fn flown(&self, presented: Presented) -> Result<Option<Arc<Flown>>, NotSealed> {
        let length = presented.token.expose_secret().len();
        if length == 0 || length > MAX_TOKEN {
            return Ok(None);
        }
        let settings = self.settings.load_full();
        let keys = settings.sealer.keys(&presented.token, &presented.presenter)?;
        Ok(Some(Arc::new(Flown { presented, settings, keys })))
    }

    /// Waits for the exchange under way, or begins one. `None`: what there is must be read again.
    pub(super) async fn join(
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
}
