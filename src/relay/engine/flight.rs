//! Exchanges in progress. Requests with the same token share one exchange.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::runtime::Handle;

use super::kept::{Kept, Renewed};
use super::look::Before;
use super::{Core, LEASE_MARGIN, MAX_TOKEN, NOT_SEALED, Presented, RETRY_AFTER, RelayAnswer, RelaySettings, Source};
use crate::relay::provider::ProviderReply;
use crate::relay::seal::{NotSealed, RelayKeys};
use rotogate_core::overload::PoolPermit;

/// The next step for a token whose exchange is not in progress in this process.
pub(super) enum Next {
    /// Send the token to the provider, with this permit.
    Ask(Sending, PoolPermit),
    /// A pending attempt is recorded in the store. It may belong to this process.
    MaybeOurs,
    /// The pending attempt belongs to another process. Its outcome may still arrive within this time.
    Orphaned(Duration),
}

/// What a flight sends to the provider.
pub(super) enum Sending {
    /// The presented token. A record of an earlier attempt is replaced.
    Exchange(Option<Before>),
    /// The refresh token of the kept reply, instead of the presented token.
    Renewal(Kept),
}

/// A presented token with its keys.
pub(super) struct Presentation {
    pub(super) presented: Presented,
    pub(super) settings: Arc<RelaySettings>,
    /// The keys of the token's record: one for each refresh key of the keyring, the current one first.
    pub(super) keys: Vec<RelayKeys>,
    /// Set if no client presented the token: the kept reply that contains the token.
    pub(super) renews: Option<Renewed>,
}

impl Presentation {
    pub(super) fn current(&self) -> Result<&RelayKeys, NotSealed> {
        self.keys.first().ok_or(NotSealed)
    }
}

/// The outcome of an exchange, and the presented token that started it.
pub(super) struct Finished {
    presentation: Arc<Presentation>,
    end: End,
}

pub(super) enum End {
    Reply(ProviderReply),
    /// The provider's reply to the refresh token of a kept reply.
    Renewed(ProviderReply),
    InvalidGrant(&'static str),
    Unavailable(Duration, &'static str),
    TooMany(Duration),
    /// The record changed before anything was sent, so it must be read again.
    Again,
}

/// A task for which [`Relay::idle`] waits, with its permit.
pub(super) struct UnderWay {
    pub(super) core: Arc<Core>,
    _place: PoolPermit,
}

impl UnderWay {
    pub(super) fn new(core: &Arc<Core>, place: PoolPermit) -> Self {
        core.under_way.send_modify(|tasks| *tasks += 1);
        Self { core: Arc::clone(core), _place: place }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.core.under_way.send_modify(|tasks| *tasks -= 1);
    }
}

impl Core {
    pub(super) fn presentation(&self, presented: Presented) -> Result<Option<Arc<Presentation>>, NotSealed> {
        let length = presented.token.expose_secret().len();
        if length == 0 || length > MAX_TOKEN {
            return Ok(None);
        }
        let settings = self.settings.load_full();
        let keys = settings.sealer.keys(&presented.token, &presented.presenter)?;
        Ok(Some(Arc::new(Presentation { presented, settings, keys, renews: None })))
    }

    /// Waits for the exchange in progress, or starts an exchange with its own permit. Returns `None` if the record
    /// must be read again.
    pub(super) async fn join(self: &Arc<Self>, presentation: &Arc<Presentation>, next: Next) -> Option<RelayAnswer> {
        let Ok(current) = presentation.current() else { return Some(RelayAnswer::failed(&NOT_SEALED)) };
        let id = current.id();
        let mut leads = false;
        let flight = self.flights.join(id, &Handle::current(), || match next {
            Next::MaybeOurs => Err(None),
            Next::Orphaned(left) => Err(Some(RelayAnswer::unavailable(left, "relay_pending"))),
            Next::Ask(attempt, place) => {
                leads = true;
                let (task, presentation) = (UnderWay::new(self, place), Arc::clone(presentation));
                Ok(async move {
                    let end = task.core.attempt(&presentation, attempt).await;
                    let end = end.unwrap_or(End::Unavailable(NOT_SEALED.retry_after(), NOT_SEALED.reason()));
                    Arc::new(Finished { presentation, end })
                })
            }
        });
        let flight = match flight {
            Ok(flight) => flight,
            Err(answer) => return answer,
        };
        // The request that started the exchange waits longer, because it also waits for writes to the store.
        let timeout = presentation.settings.rules.timeout;
        let patience = if leads { timeout + 2 * LEASE_MARGIN } else { timeout };
        let finished = match tokio::time::timeout(patience, flight.outcome()).await {
            Ok(Some(finished)) => finished,
            // The task was aborted. The record in the store shows how far the exchange progressed.
            Ok(None) => return Some(RelayAnswer::unavailable(RETRY_AFTER, "relay_aborted")),
            Err(_) => return Some(RelayAnswer::unavailable(RETRY_AFTER, "relay_pending")),
        };
        // A reply is never shared with another presenter, or with a request that has other parameters.
        let is_same = leads
            || finished.presentation.current().is_ok_and(|other| other.is_same(current))
                && finished.presentation.presented.params == presentation.presented.params;
        if !is_same {
            return None;
        }
        let source = if leads { Source::Asked } else { Source::Joined };
        Some(match &finished.end {
            End::Reply(reply) => RelayAnswer::Reply(reply.clone(), source),
            End::Renewed(reply) if leads => RelayAnswer::Reply(reply.clone(), Source::Renewed),
            End::Renewed(reply) => RelayAnswer::Reply(reply.clone(), source),
            End::InvalidGrant(why) => RelayAnswer::InvalidGrant(why),
            End::Unavailable(retry_after, reason) => RelayAnswer::unavailable(*retry_after, reason),
            End::TooMany(retry_after) => RelayAnswer::TooMany { limit: "relay_per_token", retry_after: *retry_after },
            End::Again => return None,
        })
    }
}
