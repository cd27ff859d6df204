//! Counts a request against the limits of its route, between steps 7 and 8.

use std::sync::Arc;

use http::request::Parts;

use super::GateLayer;
use super::admit::Admission;
use crate::gate::Inner;
use rotogate_core::limit::Unmet;
use rotogate_core::policy::{Permitted, QuotaFields};
use rotogate_core::verify_cache::Verified;

pub(in crate::gate) enum Counted {
    Done(Admission),
    Waits(Admission),
}

impl Admission {
    /// An MCP call is counted later, when its body is checked.
    fn to_count(&self) -> Option<(&Permitted, Option<&Arc<Verified>>)> {
        match self {
            Self::In(permitted) => Some((permitted, permitted.caller())),
            Self::Undecided(undecided, permitted) => Some((permitted, Some(undecided.caller()))),
            Self::Call(_) | Self::Endpoint(_) | Self::Refused(..) | Self::WrongMethod(_) => None,
        }
    }

    fn counted(self, quota: Option<Box<QuotaFields>>) -> Self {
        match self {
            Self::In(permitted) => Self::In(permitted.counted(quota)),
            Self::Undecided(undecided, permitted) => Self::Undecided(undecided, permitted.counted(quota)),
            other => other,
        }
    }
}

impl<M> GateLayer<M> {
    pub(super) fn owes_count(&self, admission: &Admission) -> bool {
        admission.to_count().is_some_and(|(permitted, _)| self.gate.0.owes_count(permitted))
    }

    // Requirements K18 and K20.
    pub(super) fn count_now(&self, admission: Admission, parts: &mut Parts) -> Counted {
        let gate = &self.gate.0;
        let Some((permitted, caller)) = admission.to_count() else { return Counted::Done(admission) };
        let policy = &permitted.route().policy;
        let rules = gate.limits_of_call(policy, parts);
        match gate.count(parts, caller, policy, &rules) {
            Ok(quota) => Counted::Done(admission.counted(quota)),
            Err(Unmet::Pending(_)) => Counted::Waits(admission),
            Err(Unmet::Refused(name, wait)) => {
                let denial = gate.exceeded(parts, caller, (name, wait));
                Inner::note_exceeded(parts, caller);
                Counted::Done(Admission::Refused(denial, Some(Arc::clone(permitted.route()))))
            }
        }
    }

    pub(super) async fn count(&self, admission: Admission, parts: &mut Parts) -> Admission {
        if !self.owes_count(&admission) {
            return admission;
        }
        let gate = &self.gate.0;
        let Some((permitted, caller)) = admission.to_count() else { return admission };
        let policy = &permitted.route().policy;
        let rules = gate.limits_of_call(policy, parts);
        match gate.count_waiting(parts, caller, policy, &rules).await {
            Ok(quota) => admission.counted(quota),
            Err(denial) => {
                Inner::note_exceeded(parts, caller);
                Admission::Refused(denial, Some(Arc::clone(permitted.route())))
            }
        }
    }
}
