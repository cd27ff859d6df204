use std::sync::Arc;

use http::request::Parts;

use super::GateLayer;
use super::admit::Admission;

impl<M> GateLayer<M> {
    pub(super) fn owes_exchange(&self, admission: &Admission) -> bool {
        match admission {
            Admission::In(permitted) => permitted.route().exchange.is_some() && self.gate.0.owes_exchange(permitted),
            // For an MCP call, the exchange happens after the body has been checked.
            _ => false,
        }
    }

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
