//! How a `require()` decides on a request that may have to wait.

use http::request::Parts;

use super::RequireLayer;
use crate::gate::layer::{Debt, Judged, UNPAID, Unpermitted};
use rotogate_core::denial::Denial;
use rotogate_core::policy::{Owing, Permit};

pub(super) struct Considered {
    pub(super) permit: Permit<Owing>,
    pub(super) is_known: bool,
    pub(super) has_caller: bool,
}

impl RequireLayer {
    /// Decides on a request that need not wait.
    ///
    /// # Errors
    /// What the request owes.
    pub(super) fn decided_now(
        &self,
        considered: Result<Option<Considered>, Unpermitted>,
        parts: &mut Parts,
    ) -> Result<Result<(), Denial>, Result<Considered, Box<Debt>>> {
        match considered {
            Ok(None) => Ok(Ok(())),
            Ok(Some(Considered { permit, is_known, has_caller })) => {
                match self.gate.0.settle_now((permit, None), parts) {
                    Judged::Pass(permit, _) => Ok(self.admit(parts, permit, (is_known, has_caller))),
                    Judged::Refuse(denial) => Ok(Err(denial)),
                    Judged::Owe((permit, _)) => Err(Ok(Considered { permit, is_known, has_caller })),
                }
            }
            Err(Unpermitted::Refused(denial)) => Ok(Err(denial)),
            Err(Unpermitted::Owes(debt)) => Err(Err(debt)),
        }
    }

    pub(super) async fn decided(&self, owing: Result<Considered, Box<Debt>>, parts: &mut Parts) -> Result<(), Denial> {
        let considered = match owing {
            Ok(considered) => considered,
            Err(debt) => {
                let receipt = debt.paid().await;
                let considered = self.consider(parts, Some(&receipt));
                let considered = considered.map_err(|refused| receipt.refusal(refused.denial()))?;
                let Some(considered) = considered else { return Ok(()) };
                considered
            }
        };
        let Considered { permit, is_known, has_caller } = considered;
        match self.gate.0.settle((permit, None), None, parts).await {
            Judged::Pass(permit, _) => self.admit(parts, permit, (is_known, has_caller)),
            Judged::Refuse(denial) => Err(denial),
            Judged::Owe(_) => Err(UNPAID),
        }
    }
}
