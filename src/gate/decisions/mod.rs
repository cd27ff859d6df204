//! Decisions of decision points (AuthZEN), after all local rules: the caller is judged for the request before an answer
//! is requested or looked up, so that a revocation always wins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use http::{Extensions, HeaderValue};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::Inner;
use super::exchange::ClaimsChallenge;
use rotogate_core::clock::Timestamp;
use rotogate_core::counters::ResultCounts;
use rotogate_core::decision::{DecisionPointRules, PolicyDecision, question};
use rotogate_core::denial::Denial;
use rotogate_core::flight::{Flight, Flights};
use rotogate_core::overload::{Bound, Pool};
use rotogate_core::pause::{MAX_PAUSE, ServiceAnswer, ServicePauses};
use rotogate_core::policy::{OwedDecision, Permitted};
use rotogate_core::random::process_digest;
use rotogate_core::route::{DecisionSubject, Route};

mod streams;

/// The most questions in flight to one decision point, and for one caller while other callers ask.
const IN_FLIGHT: Bound = Bound { all: 64, each: 16 };
/// The most requests that wait for one decision point, and of one caller while other callers wait.
const WAITING: Bound = Bound { all: 256, each: 16 };
/// The most answers that are kept. If the memory is full, a request whose answer is not kept asks the decision point.
const MAX_KEPT: usize = 1 << 16;
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// The delay before a retry if the decision point names no delay.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The key of an answer, which differs for different decision points, accounts at them and questions.
type QuestionKey = [u8; 32];

/// A decision, or when to ask again.
type DecisionAnswer = Result<PolicyDecision, Duration>;

/// A decision point in force, with its bulkhead.
#[derive(Debug)]
pub(super) struct ReadyPoint {
    pub(super) rules: DecisionPointRules,
    identity: Box<[u8]>,
    in_flight: Pool,
    waiting: Pool,
    /// The pauses that the decision point asks for.
    pauses: Arc<ServicePauses>,
}

impl ReadyPoint {
    pub(super) fn new(rules: DecisionPointRules) -> Self {
        let identity = rules.point.identity();
        Self { rules, identity, in_flight: Pool::new(IN_FLIGHT), waiting: Pool::new(WAITING), pauses: Arc::default() }
    }

    /// The key of a question.
    fn key(&self, question: &[u8]) -> Option<QuestionKey> {
        process_digest(&[&self.identity, question])
    }
}

/// The answers, and the questions in flight.
#[derive(Default)]
pub(super) struct Decisions {
    state: Mutex<DecisionState>,
    /// The questions in flight, each with `forgotten` at its begin.
    flights: Flights<(QuestionKey, u64), DecisionAnswer>,
    pub(super) results: ResultCounts,
}

#[derive(Default)]
struct DecisionState {
    kept: HashMap<QuestionKey, KeptDecision>,
    /// The number of times that answers were forgotten: an answer to an earlier question is not kept, and is for those alone
    /// who waited for it before.
    forgotten: u64,
    /// The moment from which a full memory may be swept again.
    next_sweep: Timestamp,
}

struct KeptDecision {
    decision: PolicyDecision,
    until: Timestamp,
}

impl std::fmt::Debug for Decisions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decisions(…)")
    }
}

const UNAVAILABLE: Denial = Denial::DecisionUnavailable(TRY_AGAIN);

impl Decisions {
    fn find(&self, key: &QuestionKey, now: Timestamp) -> Option<PolicyDecision> {
        let state = self.state.lock();
        state.kept.get(key).filter(|kept| now < kept.until).map(|kept| kept.decision.clone())
    }

    /// Forgets all answers.
    pub(super) fn forget_all(&self) {
        let mut state = self.state.lock();
        state.forgotten += 1;
        state.kept.clear();
    }

    /// Keeps an answer, unless something was forgotten since its question.
    // Requirement K28.
    fn keep(&self, key: QuestionKey, kept: KeptDecision, forgotten: u64, now: Timestamp) {
        let mut state = self.state.lock();
        if state.forgotten != forgotten || now >= kept.until {
            return;
        }
        // A sweep reads all answers under the lock, so a full memory must not cause one for each answer.
        if state.kept.len() >= MAX_KEPT && now >= state.next_sweep {
            state.kept.retain(|_, kept| now < kept.until);
            state.next_sweep = now.plus(SWEEP_EVERY);
        }
        if state.kept.len() < MAX_KEPT {
            state.kept.insert(key, kept);
        }
    }
}

impl Inner {
    /// The permit of a request whose route asks a decision point. A kept refusal refuses; without a kept permit, the permit
    /// owes the decision.
    ///
    /// # Errors
    /// The refusal.
    // Requirement K29.
    pub(in crate::gate) fn owing_decision(
        &self,
        route: &Route,
        about: DecisionSubject<'_>,
        permitted: Permitted,
    ) -> Result<Permitted, Denial> {
        let (Some(rule), Some(caller)) = (&route.policy.decision, permitted.caller()) else { return Ok(permitted) };
        let question = question(rule, route, caller.token(), about).ok_or(UNAVAILABLE)?;
        let point = self.decision_point(&rule.point).ok_or(UNAVAILABLE)?;
        let key = point.key(&question).ok_or(UNAVAILABLE)?;
        let owed = OwedDecision { rule: Arc::clone(rule), caller: Arc::clone(caller), question: question.into() };
        let kept = self.running.decisions.find(&key, self.engine.clock().now());
        if let Some(kept) = &kept {
            self.running.decisions.results.count(&point.rules.name, kept_word(kept));
        }
        match kept {
            Some(PolicyDecision::Permit) => Ok(permitted.with_decision(owed)),
            Some(PolicyDecision::Deny) => Err(Denial::DecisionDenied),
            // The code that makes the reply writes the challenge.
            Some(PolicyDecision::StepUp(_)) | None => Ok(permitted.owing_decision(owed)),
        }
    }

    pub(super) fn decision_point(&self, name: &str) -> Option<&ReadyPoint> {
        self.decision_points.iter().find(|point| *point.rules.name == *name)
    }

    /// Asks for the decisions that a permitted request still needs. The caller is judged again after each wait, also after
    /// those for a body and for limits, which precede.
    ///
    /// # Errors
    /// The refusal.
    // Requirements K27, K29, S28 and D15.
    pub(in crate::gate) async fn decided(
        self: &Arc<Self>,
        mut permitted: Permitted,
        extensions: &mut Extensions,
    ) -> Result<Permitted, Denial> {
        let owed = permitted.take_owed_decisions();
        if let (true, Some(caller)) = (owed.is_empty(), permitted.caller()) {
            self.checker.check_known(Arc::clone(caller), &mut ())?;
        }
        for one in owed {
            let answer = self.decide(&one, true).await;
            // A revocation meanwhile wins over any answer.
            self.checker.check_known(Arc::clone(&one.caller), &mut ())?;
            match answer {
                Ok(PolicyDecision::Permit) => permitted = permitted.with_decision(one),
                Ok(PolicyDecision::Deny) => return Err(Denial::DecisionDenied),
                Ok(PolicyDecision::StepUp(acr)) => {
                    return Err(asked_to_step_up(&one, &permitted, &acr, extensions));
                }
                Err(wait) => return Err(Denial::DecisionUnavailable(wait)),
            }
        }
        Ok(permitted)
    }

    /// Obtains the decisions for a call (MCP) whose body has been judged.
    ///
    /// # Errors
    /// The refusal.
    pub(in crate::gate) async fn decided_call(
        self: &Arc<Self>,
        parts: &mut Parts,
        permitted: Permitted,
    ) -> Result<Permitted, Denial> {
        let permitted = self.owing_decisions_of_call(parts, permitted)?;
        self.decided(permitted, &mut parts.extensions).await
    }

    /// Counts the proof of a permitted request, and obtains the decisions that the permit owes.
    ///
    /// # Errors
    /// The refusal.
    pub(in crate::gate) async fn completed(
        self: &Arc<Self>,
        permitted: Permitted,
        extensions: &mut Extensions,
    ) -> Result<Permitted, Denial> {
        let permitted = self.count_proof(permitted).await?;
        self.decided(permitted, extensions).await
    }

    /// The answer to a question about a caller who was judged: a kept answer, or the answer to a question that is asked
    /// now.
    async fn decide(self: &Arc<Self>, owed: &OwedDecision, from_kept: bool) -> DecisionAnswer {
        let point = self.decision_point(&owed.rule.point).ok_or(TRY_AGAIN)?;
        let key = point.key(&owed.question).ok_or(TRY_AGAIN)?;
        let decisions = &self.running.decisions;
        if from_kept && let Some(kept) = decisions.find(&key, self.engine.clock().now()) {
            return Ok(kept);
        }
        let waits = point.waiting.enter(Some(owed.caller.holder())).ok();
        let flight = waits.as_ref().map_or(Err(TRY_AGAIN), |_| self.decision_flight(point, key, owed));
        let flight = flight.inspect_err(|_| decisions.results.count(&point.rules.name, "busy"))?;
        flight.outcome().await.unwrap_or(Err(TRY_AGAIN))
    }

    /// The flight of a question.
    ///
    /// # Errors
    /// When to ask again: too many questions are in flight, or the decision point asked for a pause.
    fn decision_flight(
        self: &Arc<Self>,
        point: &ReadyPoint,
        key: QuestionKey,
        owed: &OwedDecision,
    ) -> Result<Flight<DecisionAnswer>, Duration> {
        let decisions = &self.running.decisions;
        let forgotten = decisions.state.lock().forgotten;
        decisions.flights.join((key, forgotten), &Handle::current(), || {
            let (holder, time) = (owed.caller.holder(), self.engine.clock().source());
            let place = point.in_flight.enter(Some(holder)).map_err(|_| TRY_AGAIN)?;
            point.pauses.admit(holder, time.monotonic())?;
            let (gate, rules, question) = (Arc::clone(self), point.rules.clone(), Arc::clone(&owed.question));
            let pauses = Arc::clone(&point.pauses);
            Ok(async move {
                let _place = place;
                let (answer, said) = gate.ask_point(&rules, &question).await;
                pauses.note(holder, said, gate.engine.clock().source().monotonic());
                if let Ok(decision) = &answer {
                    let now = gate.engine.clock().now();
                    let kept = KeptDecision { decision: decision.clone(), until: now.plus(rules.kept_for(decision)) };
                    gate.running.decisions.keep(key, kept, forgotten, now);
                }
                answer
            })
        })
    }

    async fn ask_point(&self, rules: &DecisionPointRules, question: &[u8]) -> (DecisionAnswer, ServiceAnswer) {
        let id = uuid::Uuid::new_v4().to_string();
        let asked = rules.point.decide(question, &id).await;
        let decisions = &self.running.decisions;
        match asked {
            Ok(decision) => {
                decisions.results.count(&rules.name, decision.word());
                (Ok(decision), ServiceAnswer::Answered)
            }
            Err(fault) => {
                decisions.results.count(&rules.name, "unavailable");
                tracing::warn!(
                    point = &*rules.name,
                    http.request.id = id,
                    why = %fault,
                    "no decision: the decision point did not decide"
                );
                let wait = fault.retry_after.map_or(TRY_AGAIN, |wait| wait.clamp(TRY_AGAIN, MAX_PAUSE));
                (Err(wait), ServiceAnswer::fault(fault.retry_after, fault.of_asker))
            }
        }
    }
}

/// The refusal of a caller whom the decision point asks for another login. A login that the route or a rule of the call
/// does not accept is never asked for: the rule would ask for its own again, without end.
// Requirement B36.
fn asked_to_step_up(owed: &OwedDecision, permitted: &Permitted, asked: &str, extensions: &mut Extensions) -> Denial {
    let acr = match permitted.accepted_acr(asked) {
        Ok(acr) => acr,
        Err(rule) => {
            let accepted = rule.policy.step_up.as_ref().map(|step_up| step_up.acr.join(" ")).unwrap_or_default();
            tracing::warn!(
                point = &*owed.rule.point,
                route = %rule.id,
                asked,
                accepted,
                "no login meets both step_up of the route and its decision point"
            );
            return Denial::StepUpContradiction;
        }
    };
    let challenge = format!("Bearer error=\"insufficient_user_authentication\", acr_values=\"{acr}\"");
    if let Ok(challenge) = HeaderValue::try_from(challenge) {
        // Another login gives no more to a caller who has the wanted `acr`.
        let has_it = owed.caller.token().acr().is_some_and(|has| acr.split(' ').any(|acr| acr == has));
        extensions.insert(ClaimsChallenge { challenge, acr_values: (!has_it).then_some(acr) });
    }
    Denial::DecisionStepUp
}

const fn kept_word(decision: &PolicyDecision) -> &'static str {
    match decision {
        PolicyDecision::Permit => "kept_permit",
        PolicyDecision::Deny => "kept_deny",
        PolicyDecision::StepUp(_) => "kept_step_up",
    }
}

#[cfg(feature = "program")]
#[cfg(test)]
mod tests;
