use std::time::Duration;

use super::Gate;
use rotogate_core::clock::{ClockState, written};
use rotogate_core::engine::Freshness;

const NOT_HEARD: &str = "no news from the store for longer than the configured staleness";
const RESTORING: &str = "the store has lost writes, so the gate does not mint tokens until the gates have written \
                         back the revocations that they know";

/// Whether the gate can serve requests.
///
/// ```
/// use rotogate::gate::Readiness;
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// # use rotogate::{Gate, client::Client, gate::NewSession, token::Keyring};
/// # let gate = Gate::builder().issuer("https://api.example.com").keys(Keyring::ephemeral()?);
/// # let gate = gate.client(Client::public("web")).build().await?;
/// // `GET /ready`, for an orchestrator.
/// let status = match gate.readiness().await {
///     Readiness::Ready | Readiness::Degraded(_) => http::StatusCode::OK,
///     _ => http::StatusCode::SERVICE_UNAVAILABLE,
/// };
/// assert_eq!(status, 200);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Readiness {
    /// The gate can serve requests.
    Ready,
    /// The gate accepts tokens, but cannot mint tokens, cannot store a revocation yet, or lacks an issuer's keys. The
    /// string explains the reason to an operator.
    Degraded(String),
    /// The gate cannot serve requests. The string explains the reason to an operator.
    NotReady(String),
}

impl Gate {
    /// Checks the clock, the store, and the keys of the trusted issuers.
    pub async fn readiness(&self) -> Readiness {
        let state = self.state().await;
        let issuers = self.0.checker.issuers_without_keys();
        if issuers.is_empty() {
            return state;
        }
        let keys = format!(
            "the signing keys of {} are not known, so requests with tokens of these issuers get 503",
            issuers.join(", ")
        );
        match state {
            Readiness::Ready => Readiness::Degraded(keys),
            Readiness::Degraded(why) => Readiness::Degraded(format!("{why}; {keys}")),
            Readiness::NotReady(why) => Readiness::NotReady(why),
        }
    }

    /// Like [`Self::readiness`], without the keys of the trusted issuers.
    #[doc(hidden)]
    pub async fn own_readiness(&self) -> Readiness {
        self.state().await
    }

    async fn state(&self) -> Readiness {
        match self.0.engine.clock().tick() {
            ClockState::Good => {}
            ClockState::Jumped if self.0.engine.clock().follows_store() => {
                return Readiness::NotReady(
                    "the store's clock jumped more than an hour ahead, so the gate ignores it and does not mint tokens"
                        .into(),
                );
            }
            ClockState::Jumped => {
                return Readiness::NotReady(
                    "the wall clock jumped more than an hour ahead of the monotonic clock, so the gate ignores it \
                     and does not mint tokens"
                        .into(),
                );
            }
            ClockState::Behind => {
                return Readiness::NotReady(
                    "the wall clock is behind the last time in the store, so the gate does not mint tokens until the \
                     wall clock has reached that time"
                        .into(),
                );
            }
            ClockState::Skewed => {
                return Readiness::NotReady(
                    "the wall clock differs from the store's time by more than the leeway, so the gate does not mint \
                     tokens until the two agree"
                        .into(),
                );
            }
        }
        match (self.store_readiness().await, self.0.engine.clock().wall_is_behind()) {
            (Readiness::Ready, Some(by)) => Readiness::Degraded(format!(
                "the wall clock is {} behind the gate's own time. Correct the wall clock, because after a restart \
                 the gate mints no tokens until the wall clock has reached that time",
                written(Duration::from_secs(by.as_secs()))
            )),
            (state, _) => state,
        }
    }

    /// Checks the readiness of the store.
    pub async fn store_readiness(&self) -> Readiness {
        let unpaid = self.0.engine.unpaid();
        let owed = match (unpaid.total, unpaid.lost_at_end) {
            (0, _) => return self.state_of_store().await,
            (total, 0) => {
                format!("the store has not acknowledged {total} revocations; all are in a file beside the store")
            }
            (total, lost) => {
                format!("the store has not acknowledged {total} revocations; the gate loses {lost} of them if it stops")
            }
        };
        match self.state_of_store().await {
            // The gate has saved all unacknowledged revocations beside the store, and writes them to the store later.
            Readiness::Ready if unpaid.lost_at_end == 0 => Readiness::Ready,
            Readiness::Ready => Readiness::Degraded(owed),
            Readiness::Degraded(why) => Readiness::Degraded(format!("{why}; {owed}")),
            Readiness::NotReady(why) => Readiness::NotReady(format!("{why}; {owed}")),
        }
    }

    async fn state_of_store(&self) -> Readiness {
        match self.0.engine.freshness() {
            Freshness::Fresh => {}
            Freshness::Restoring => return Readiness::Degraded(RESTORING.into()),
            Freshness::Degraded => return Readiness::Degraded(NOT_HEARD.into()),
            Freshness::Stale => return Readiness::NotReady(NOT_HEARD.into()),
        }
        if self.0.engine.store().shared().is_some() {
            let unfit = self.0.running.unfit_store.load_full();
            return unfit.map_or(Readiness::Ready, |why| Readiness::NotReady(why.as_str().to_owned()));
        }
        match self.0.engine.store().check().await {
            Ok(()) => Readiness::Ready,
            Err(error) => Readiness::NotReady(error.to_string()),
        }
    }
}
