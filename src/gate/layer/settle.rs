//! Between steps 7 and 8: a permitted request pays what it owes, in the order of [`Due`].
//!
//! After each wait the caller is checked again, because the token may have been revoked while the request waited. Checks
//! that passed are not repeated.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;

use super::GateLayer;
use super::admit::{Admission, Settlement};
use super::debt::OwedCheck;
use crate::gate::Inner;
use crate::gate::limits::CallLimits;
use rotogate_core::denial::{Denial, NotGood};
use rotogate_core::limit::callers::Unmet;
use rotogate_core::policy::{Due, Owing, Permit, Settled, Undecided};
use rotogate_core::route::{Auth, RoutePolicy};
use rotogate_core::verify_cache::Verified;

/// The refusal of a request whose debt cannot be paid where the request is judged.
pub(in crate::gate) const UNPAID: Denial = Denial::ProofsUnavailable(Duration::from_secs(1));

/// A permit, and the caller of a request whose audience a `require()` decides. Such a permit has no caller.
pub(in crate::gate) type Judging = (Permit<Owing>, Option<Box<Undecided>>);

pub(in crate::gate) enum Judged {
    Pass(Permit<Settled>, Option<Box<Undecided>>),
    Refuse(Denial),
    /// The request has to wait, or its body has to be read.
    Owe(Judging),
}

fn takes_bad_for_none(policy: &RoutePolicy) -> bool {
    policy.auth == Auth::Optional && policy.ignores_bad_credential
}

fn caller_of<'a>(permit: &'a Permit<Owing>, undecided: Option<&'a Undecided>) -> Option<&'a Arc<Verified>> {
    undecided.map_or_else(|| permit.caller(), |undecided| Some(undecided.caller()))
}

impl Inner {
    /// Pays what needs no wait.
    // Requirements K18 and K20.
    #[inline]
    pub(in crate::gate) fn settle_now(self: &Arc<Self>, (permit, undecided): Judging, parts: &mut Parts) -> Judged {
        match permit.settled() {
            Ok(settled) => Judged::Pass(settled, undecided),
            Err(permit) => self.pay_now((permit, undecided), parts),
        }
    }

    fn pay_now(self: &Arc<Self>, (mut permit, undecided): Judging, parts: &mut Parts) -> Judged {
        let must_wait = permit.owes(Due::Proof)
            || permit.owes(Due::Body)
            || (permit.owes(Due::Exchange) && self.owes_exchange(&permit));
        if must_wait {
            return Judged::Owe((permit, undecided));
        }
        if permit.owes(Due::Count) {
            let caller = caller_of(&permit, undecided.as_deref());
            let policy = &permit.route().policy;
            let rules = self.limits_of_call(policy, parts);
            match self.count(parts, caller, policy, &rules) {
                Ok(quota) => permit = permit.counted(quota),
                Err(Unmet::Pending(_)) => return Judged::Owe((permit, undecided)),
                Err(Unmet::Refused(name, wait)) => {
                    let denial = self.exceeded(parts, caller, (name, wait));
                    Self::note_exceeded(parts, caller);
                    return Judged::Refuse(denial);
                }
            }
        }
        // Only now: if the count must wait, the exchanged token may expire meanwhile, and is then due again.
        match permit.exchanged().settled() {
            Ok(settled) => Judged::Pass(settled, undecided),
            Err(permit) => Judged::Owe((permit, undecided)),
        }
    }

    /// Pays the proof of a request whose call is judged afterwards. A route that ignores invalid tokens goes on without
    /// a caller.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub(in crate::gate) async fn proved(&self, permit: Permit<Owing>) -> Result<Permit<Owing>, Denial> {
        self.paid_proof((permit, None), true).await.map(|(permit, _)| permit)
    }

    async fn paid_proof(&self, (mut permit, undecided): Judging, is_lenient: bool) -> Result<Judging, Denial> {
        let Some(name) = permit.take_owed_proof() else { return Ok((permit, undecided)) };
        match self.count_proof(name).await {
            Ok(()) => self.judged_again((permit.proof_recorded(), undecided), Ok(()), is_lenient),
            Err(denial) => self.judged_again((permit, undecided), Err(denial), is_lenient),
        }
    }

    /// Pays everything, in order. Stops before the body, which only the layer can read. For a call in an envelope,
    /// `rules` are the limits of its own rules. These were judged with the caller, so the request is refused if the
    /// caller becomes invalid, even on a route that ignores invalid tokens.
    pub(in crate::gate) async fn settle(
        self: &Arc<Self>,
        judging: Judging,
        rules: Option<&CallLimits>,
        parts: &mut Parts,
    ) -> Judged {
        match self.paid(judging, rules, parts).await {
            Ok((permit, undecided)) => match permit.settled() {
                Ok(settled) => Judged::Pass(settled, undecided),
                Err(permit) => Judged::Owe((permit, undecided)),
            },
            Err(denial) => Judged::Refuse(denial),
        }
    }

    async fn paid(
        self: &Arc<Self>,
        judging: Judging,
        rules: Option<&CallLimits>,
        parts: &mut Parts,
    ) -> Result<Judging, Denial> {
        let is_lenient = rules.is_none();
        let (mut permit, mut undecided) = self.paid_proof(judging, is_lenient).await?;
        if permit.owes(Due::Body) {
            return Ok((permit, undecided));
        }
        if permit.owes(Due::Count) {
            let caller = caller_of(&permit, undecided.as_deref());
            let policy = &permit.route().policy;
            let of_call = if rules.is_none() { self.limits_of_call(policy, parts) } else { CallLimits::new() };
            match self.count_waiting(parts, caller, policy, rules.unwrap_or(&of_call)).await {
                Ok(quota) => permit = permit.counted(quota),
                Err(denial) => {
                    Self::note_exceeded(parts, caller);
                    return Err(denial);
                }
            }
        }
        (permit, undecided) = self.judged_again((permit, undecided), Ok(()), is_lenient)?;
        if permit.owes(Due::Exchange) {
            self.exchanged(&permit, &mut parts.extensions).await?;
            (permit, undecided) = self.judged_again((permit.exchanged(), undecided), Ok(()), is_lenient)?;
        }
        Ok((permit, undecided))
    }

    /// Checks the caller after a wait whose end was `paid`.
    ///
    /// # Errors
    /// The reason for the refusal. A route that ignores invalid tokens, and has no call rules, goes on without a caller.
    // Requirements S28 and D15.
    fn judged_again(
        &self,
        (permit, undecided): Judging,
        paid: Result<(), Denial>,
        is_lenient: bool,
    ) -> Result<Judging, Denial> {
        let judged = paid.and_then(|()| match caller_of(&permit, undecided.as_deref()) {
            Some(caller) => self.checker.check_known(Arc::clone(caller), &mut ()).map(drop),
            None => Ok(()),
        });
        let Err(denial) = judged else { return Ok((permit, undecided)) };
        let policy = &permit.route().policy;
        if is_lenient && takes_bad_for_none(policy) && self.mcp(policy).is_none() {
            return NotGood::from_denial(denial).map(|_| (permit.without_caller(), None));
        }
        Err(denial)
    }
}

impl<M> GateLayer<M> {
    /// Decides on a request that need not wait.
    ///
    /// # Errors
    /// Returns the admission of a request that must wait: see [`Self::settled`].
    #[inline]
    pub(super) fn settled_now(&self, admission: Admission, parts: &mut Parts) -> Result<Settlement, Admission> {
        let (permit, undecided) = match admission {
            Admission::In(permit) => (permit, None),
            Admission::Undecided(undecided, permit) => (permit, Some(undecided)),
            Admission::Owes(check) => return Err(Admission::Owes(check)),
            Admission::Endpoint(hit) => return Ok(Settlement::Endpoint(hit)),
            Admission::Refused(denial, route) => return Ok(Settlement::Refused(denial, route)),
            Admission::WrongMethod(reply) => return Ok(Settlement::WrongMethod(reply)),
        };
        if permit.owes(Due::Body) && !permit.owes(Due::Proof) {
            return Ok(Settlement::Body(permit));
        }
        match permit.settled() {
            Ok(permit) => Ok(Settlement::passed(permit, undecided)),
            Err(permit) => {
                let route = Arc::clone(permit.route());
                match self.gate.0.settle_now((permit, undecided), parts) {
                    Judged::Pass(permit, undecided) => Ok(Settlement::passed(permit, undecided)),
                    Judged::Refuse(denial) => Ok(Settlement::Refused(denial, Some(route))),
                    Judged::Owe((permit, None)) => Err(Admission::In(permit)),
                    Judged::Owe((permit, Some(undecided))) => Err(Admission::Undecided(undecided, permit)),
                }
            }
        }
    }

    /// Pays what the request owes, and decides.
    pub(in crate::gate) async fn settled(&self, admission: Admission, parts: &mut Parts) -> Settlement {
        match self.settled_now(admission, parts) {
            Ok(decision) => decision,
            Err(admission) => self.awaited(admission, parts).await,
        }
    }

    /// Waits for what [`settled_now`](Self::settled_now) could not pay, and decides.
    pub(super) async fn awaited(&self, admission: Admission, parts: &mut Parts) -> Settlement {
        let admission = match admission {
            owing @ Admission::Owes(_) => match self.settled_now(self.resumed(owing, parts).await, parts) {
                Ok(decision) => return decision,
                Err(admission) => admission,
            },
            admission => admission,
        };
        let (permit, undecided) = match admission {
            Admission::In(permit) => (permit, None),
            Admission::Undecided(undecided, permit) => (permit, Some(undecided)),
            Admission::Owes(check) => return Settlement::Refused(check.debt.denial(), Some(check.route)),
            Admission::Endpoint(hit) => return Settlement::Endpoint(hit),
            Admission::Refused(denial, route) => return Settlement::Refused(denial, route),
            Admission::WrongMethod(reply) => return Settlement::WrongMethod(reply),
        };
        let route = Arc::clone(permit.route());
        match Box::pin(self.gate.0.settle((permit, undecided), None, parts)).await {
            Judged::Pass(permit, undecided) => Settlement::passed(permit, undecided),
            Judged::Refuse(denial) => Settlement::Refused(denial, Some(route)),
            Judged::Owe((permit, _)) if permit.owes(Due::Body) => Settlement::Body(permit),
            Judged::Owe(_) => Settlement::Refused(UNPAID, Some(route)),
        }
    }

    /// Waits for what step 6 owes, and goes on from there. The result owes no check.
    pub(in crate::gate) async fn resumed(&self, admission: Admission, parts: &Parts) -> Admission {
        let Admission::Owes(check) = admission else { return admission };
        let OwedCheck { debt, route, path } = *check;
        // Boxing keeps the future small for requests that do not wait.
        let receipt = Box::pin(debt.paid()).await;
        self.permitted(parts, &route, path.as_deref(), Some(&receipt), &mut ())
    }
}
