//! Requests whose upstream gets an exchanged token wait for it, after their permit.

use std::sync::Arc;

use http::request::Parts;

use super::GateLayer;
use super::admit::Admission;

impl<M> GateLayer<M> {
    /// Must the admitted request wait for an exchange?
    pub(super) fn owes_exchange(&self, admission: &Admission) -> bool {
        match admission {
            Admission::In(permitted) => permitted.route().exchange.is_some() && self.gate.0.owes_exchange(permitted),
            // The exchange of a call follows the verdict on its body.
            _ => false,
        }
    }

    /// Waits for the exchange of an admitted request.
    pub(super) async fn exchanged(&self, admission: Admission, parts: &mut Parts) -> Admission {
        let Admission::In(permitted) = &admission else { return admission };
        match self.gate.0.exchanged(permitted, &mut parts.extensions).await {
            Ok(()) => admission,
            Err(denial) => {
                let route = Arc::clone(permitted.route());
                Admission::Refused(denial, Some(route))
            }
        }
    }
}
