//! A session's state in its store, and the effect of each operation.

use std::collections::HashMap;

use super::{Moment, Operation, Pair, Reply, Request, Rules};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// The current pair. `None` if the response with the pair was lost.
    current: Option<Pair>,
    previous: Option<Pair>,
    /// The earliest and the latest time at which `previous` may have been exchanged for the first time.
    rotated: (Moment, Moment),
    /// The same for the current pair, which may replace one that nobody used.
    issued: (Moment, Moment),
    /// The pairs that were replaced because nobody used them.
    abandoned: Vec<Pair>,
    ended: bool,
}

/// Whether acknowledged writes of a session may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    No,
    /// A gate may still write the record back.
    ForNow,
    /// All gates that knew the record have stopped.
    ForGood,
}

/// The uses of a session's access tokens.
#[derive(Default)]
pub(super) struct Uses {
    /// When the first request with the access token of a pair began that a gate did not refuse.
    perhaps: HashMap<Pair, Moment>,
    /// When a client saw that the store knows a use.
    surely: HashMap<Pair, Moment>,
}

impl Uses {
    pub(super) fn in_history(operations: &[Operation]) -> Self {
        let mut uses = Self::default();
        for one in operations {
            let (of, pair, at) = match (one.request, one.reply) {
                (Request::Access(pair), Reply::Accepted | Reply::InDoubt) => (&mut uses.perhaps, pair, one.begin),
                (Request::Confirmed(pair), Reply::Accepted) => (&mut uses.surely, pair, one.end),
                _ => continue,
            };
            let first = of.entry(pair).or_insert(at);
            *first = at.min(*first);
        }
        uses
    }

    fn may_be_known(&self, pair: Option<Pair>, end: Moment) -> bool {
        pair.and_then(|pair| self.perhaps.get(&pair)).is_some_and(|begin| *begin <= end)
    }

    fn is_surely_known(&self, pair: Option<Pair>, begin: Moment) -> bool {
        pair.and_then(|pair| self.surely.get(&pair)).is_some_and(|end| *end < begin)
    }
}

/// What else decides about an operation.
#[derive(Clone, Copy)]
pub(super) struct Facts<'a> {
    pub(super) rules: &'a Rules,
    pub(super) uses: &'a Uses,
    /// An operation with an unknown outcome may have ended the session at this gate.
    pub(super) is_refused_there: bool,
    pub(super) missing: Missing,
}

/// Returns whether less than `length` may have passed since `since`.
fn may_be_open(since: (Moment, Moment), operation: &Operation, length: Moment, rules: &Rules) -> bool {
    operation.begin.saturating_sub(since.1) < length + rules.slack && !length.is_zero()
}

fn is_surely_open(since: (Moment, Moment), operation: &Operation, length: Moment, rules: &Rules) -> bool {
    operation.end.saturating_sub(since.0) + rules.slack < length
}

impl State {
    pub(super) const fn new(first: Pair) -> Self {
        let began = (Moment::ZERO, Moment::MAX);
        Self {
            current: Some(first),
            previous: None,
            rotated: began,
            issued: began,
            abandoned: Vec::new(),
            ended: false,
        }
    }

    fn ended(&self) -> Self {
        Self { ended: true, ..self.clone() }
    }

    /// The state after `shown`, which is current, was exchanged.
    fn rotated(&self, shown: Pair, got: Option<Pair>, when: (Moment, Moment)) -> Self {
        Self { current: got, previous: Some(shown), rotated: when, issued: when, ..self.clone() }
    }

    /// The state after the predecessor of a pair that nobody used was exchanged again.
    fn reissued(&self, got: Option<Pair>, when: (Moment, Moment)) -> Self {
        let mut abandoned = self.abandoned.clone();
        abandoned.extend(self.current);
        Self { current: got, issued: when, abandoned, ..self.clone() }
    }

    /// Returns whether a gate may replace the current pair, because its response may have been lost.
    fn may_be_reissued(&self, shown: Pair, operation: &Operation, facts: Facts<'_>) -> bool {
        let Facts { rules, uses, .. } = facts;
        self.previous == Some(shown)
            && !is_surely_open(self.issued, operation, rules.grace, rules)
            && may_be_open(self.rotated, operation, rules.lost_response_window, rules)
            && !uses.is_surely_known(self.current, operation.begin)
    }

    /// Returns whether a gate may take this token for a copy.
    fn may_be_reuse(&self, shown: Pair, operation: &Operation, facts: Facts<'_>) -> bool {
        let Facts { rules, uses, .. } = facts;
        if self.previous == Some(shown) {
            let is_open = is_surely_open(self.rotated, operation, rules.lost_response_window, rules)
                && !uses.may_be_known(self.current, operation.end);
            return !is_open && !is_surely_open(self.issued, operation, rules.grace, rules);
        }
        self.current != Some(shown)
    }

    /// Returns the states in which the session may be after a response. The list is empty if the gate must not send
    /// this response.
    pub(super) fn after(&self, operation: &Operation, facts: Facts<'_>) -> Vec<Self> {
        let Facts { rules, .. } = facts;
        match (operation.request, operation.reply) {
            (Request::Refresh(_), Reply::Issued(_)) if self.ended => Vec::new(),
            (Request::Refresh(shown), Reply::Issued(got)) => {
                let when = (operation.begin, operation.end);
                let is_new = got != shown && self.previous != Some(got) && !self.abandoned.contains(&got);
                if !is_new {
                    return Vec::new();
                }
                if self.current == Some(shown) {
                    return vec![self.rotated(shown, Some(got), when)];
                }
                let mut states = Vec::new();
                let is_repeated = self.current.is_none_or(|current| current == got);
                if self.previous == Some(shown)
                    && is_repeated
                    && may_be_open(self.issued, operation, rules.grace, rules)
                {
                    let before = |(begin, end): (Moment, Moment)| (begin, end.min(operation.end));
                    let (rotated, issued) = (before(self.rotated), before(self.issued));
                    states.push(Self { current: Some(got), rotated, issued, ..self.clone() });
                }
                if self.current != Some(got) && self.may_be_reissued(shown, operation, facts) {
                    states.push(self.reissued(Some(got), when));
                }
                states
            }
            (Request::Refresh(shown), Reply::Refused) => self.after_refusal(shown, operation, facts),
            (Request::LogOut(_), Reply::Accepted) => vec![self.ended()],
            (Request::LogOut(_), Reply::Refused) if self.ended => vec![self.clone()],
            (Request::LogOut(shown), Reply::Refused) => {
                let is_unknown = facts.is_refused_there || facts.missing != Missing::No;
                let is_superseded = rules.ends_previous && self.current != Some(shown);
                let unchanged = (is_unknown || is_superseded).then(|| self.clone());
                // Kuzzle's protocol names the session by its access token. A gate that did not know the outcome of a
                // logout refuses the token when the logout is tried again.
                let ended = (rules.ends_previous || is_unknown).then(|| self.ended());
                unchanged.into_iter().chain(ended).collect()
            }
            _ => Vec::new(),
        }
    }

    fn after_refusal(&self, shown: Pair, operation: &Operation, facts: Facts<'_>) -> Vec<Self> {
        let Facts { rules, is_refused_there, missing, .. } = facts;
        if self.ended {
            return vec![self.clone()];
        }
        let is_reuse =
            self.may_be_reuse(shown, operation, facts) && operation.end.saturating_sub(operation.begin) < rules.held;
        let mut states = Vec::new();
        if is_reuse {
            states.push(if rules.reuse_ends { self.ended() } else { self.clone() });
        }
        if is_refused_there || missing == Missing::ForNow {
            states.push(self.clone());
        }
        if missing != Missing::No && !(is_reuse && rules.reuse_ends) {
            states.push(self.ended());
        }
        states
    }

    /// Returns the states after an uncertain operation that changes something. `latest` is when the last operation
    /// began.
    pub(super) fn perhaps(&self, doubt: &Operation, facts: Facts<'_>, latest: Moment) -> Vec<Self> {
        let Facts { rules, .. } = facts;
        match doubt.request {
            Request::Refresh(_) | Request::LogOut(_) if self.ended => Vec::new(),
            Request::LogOut(_) => vec![self.ended()],
            // A delayed swap still succeeds if the session has not changed.
            Request::Refresh(shown) if self.current == Some(shown) => {
                vec![self.rotated(shown, None, (doubt.begin, Moment::MAX))]
            }
            Request::Refresh(shown) => {
                let until = Operation { end: doubt.end + rules.held, ..*doubt };
                let mut states = Vec::new();
                if self.current.is_some() && self.may_be_reissued(shown, doubt, facts) {
                    states.push(self.reissued(None, (doubt.begin, Moment::MAX)));
                }
                if rules.reuse_ends && latest <= until.end && self.may_be_reuse(shown, &until, facts) {
                    states.push(self.ended());
                }
                states
            }
            _ => Vec::new(),
        }
    }
}
