use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::{ExchangeAnswer, ExchangeRefusal, TRY_AGAIN, UNAVAILABLE};
use crate::gate::Inner;
use rotogate_core::clock::Timestamp;
use rotogate_core::denial::Denial;
use rotogate_core::exchange::{ExchangeFault, ExchangedToken, UpstreamExchange};
use rotogate_core::pause::{MAX_PAUSE, ServiceAnswer, ServicePauses};
use rotogate_core::verify_cache::Verified;

pub(super) const REFUSED_FOR: Duration = Duration::from_secs(5);

/// The pauses that providers request. If the exchange has a second step at the upstream's authorization server, a pause
/// applies only to this upstream.
#[derive(Default)]
pub(super) struct ProviderPauses(HashMap<PausedAt, Arc<ServicePauses>>);

type PausedAt = (Arc<str>, Option<Arc<str>>);

impl ProviderPauses {
    pub(super) fn of_exchange(&mut self, exchange: &UpstreamExchange) -> Arc<ServicePauses> {
        let upstream = exchange.takes_id_token.then(|| Arc::clone(&exchange.upstream));
        Arc::clone(self.0.entry((Arc::clone(&exchange.provider), upstream)).or_default())
    }
}

impl Inner {
    pub(super) fn refused_exchange(
        &self,
        exchange: &UpstreamExchange,
        fault: ExchangeFault,
        now: Timestamp,
    ) -> (ExchangeAnswer, Duration) {
        match fault {
            ExchangeFault::Refused => (Err(Denial::ExchangeRefused.into()), REFUSED_FOR),
            ExchangeFault::StepUp(challenge) => {
                let challenge = HeaderValue::from_str(&challenge).ok();
                (Err(ExchangeRefusal { denial: Denial::ExchangeClaims, challenge }), REFUSED_FOR)
            }
            ExchangeFault::Ours(why) => {
                tracing::error!(
                    provider = &*exchange.provider,
                    upstream = &*exchange.upstream,
                    why = &*why,
                    "the provider refuses the gate's token exchange, so no request reaches this upstream. Compare \
                     `client` of [[providers]] with the client's entry at the provider"
                );
                let mut state = self.running.exchanges.state.lock();
                state.quiet.insert(Arc::clone(&exchange.upstream), now.plus(TRY_AGAIN));
                (Err(UNAVAILABLE.into()), Duration::ZERO)
            }
            // The reason may concern only this token, so other tokens are still exchanged.
            ExchangeFault::NotGranted(why) => {
                if self.running.exchanges.state.lock().not_granted.is_due(self.engine.clock().source().monotonic()) {
                    tracing::error!(
                        provider = &*exchange.provider,
                        upstream = &*exchange.upstream,
                        why = &*why,
                        "the provider does not grant this audience or scope for a token. Compare `exchange` of the \
                         upstream with the client's entry at the provider. Logged once a minute"
                    );
                }
                (Err(UNAVAILABLE.into()), REFUSED_FOR)
            }
            ExchangeFault::Unavailable(wait, why) => Self::undecided_exchange(exchange, wait, &why),
            ExchangeFault::TooMany(wait, why) => Self::undecided_exchange(exchange, Some(wait), &why),
        }
    }

    fn undecided_exchange(
        exchange: &UpstreamExchange,
        wait: Option<Duration>,
        why: &str,
    ) -> (ExchangeAnswer, Duration) {
        tracing::warn!(
            provider = &*exchange.provider,
            why,
            "token exchange failed because the provider did not respond"
        );
        let wait = wait.map(|wait| wait.clamp(TRY_AGAIN, MAX_PAUSE));
        (Err(Denial::ExchangeUnavailable(wait.unwrap_or(TRY_AGAIN)).into()), wait.unwrap_or_default())
    }

    /// Uses the caller's token, or the ID token of the caller's session.
    pub(super) async fn ask_provider(
        &self,
        exchange: &UpstreamExchange,
        caller: &Verified,
        pauses: &ServicePauses,
    ) -> Result<ExchangedToken, ExchangeFault> {
        if !exchange.takes_id_token {
            return self.ask_exchanger(exchange, caller, pauses, caller.token().expose()).await;
        }
        #[cfg(feature = "browser-oidc")]
        if let (Some(vaults), Some(cookie)) =
            (self.vaults(), caller.session_cookie().and_then(|value| self.engine.session_cookie(value)))
        {
            let kept = vaults.id_token(&cookie).await;
            let kept =
                kept.map_err(|fault| ExchangeFault::Unavailable(Some(fault.retry_after()), fault.to_string().into()))?;
            let token = kept.ok_or(ExchangeFault::Refused)?;
            return self.ask_exchanger(exchange, caller, pauses, &token).await;
        }
        Err(ExchangeFault::Refused)
    }

    /// Sends the request, and records the pause that the provider requests.
    async fn ask_exchanger(
        &self,
        exchange: &UpstreamExchange,
        caller: &Verified,
        pauses: &ServicePauses,
        token: &str,
    ) -> Result<ExchangedToken, ExchangeFault> {
        let asked = exchange.exchanger.exchange(token).await;
        let said = match &asked {
            Err(ExchangeFault::Unavailable(wait, _)) => ServiceAnswer::fault(*wait, false),
            Err(ExchangeFault::TooMany(wait, _)) => ServiceAnswer::BusyForAsker(*wait),
            // The exchanger may have refused the token without a request to the provider.
            Err(ExchangeFault::Refused) => ServiceAnswer::Failed,
            Ok(_) | Err(ExchangeFault::StepUp(_) | ExchangeFault::Ours(_) | ExchangeFault::NotGranted(_)) => {
                ServiceAnswer::Answered
            }
        };
        pauses.note(caller.holder(), said, self.engine.clock().source().monotonic());
        asked
    }
}
