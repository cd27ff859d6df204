//! A session's state in its store, and the effect of each operation.

use super::{Moment, Operation, Pair, Reply, Request, Rules};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// The current pair. `None` if the response with the pair was lost.
    current: Option<Pair>,
    previous: Option<Pair>,
    /// The earliest and the latest time at which the current pair may have been issued.
    rotated: (Moment, Moment),
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

impl State {
    pub(super) const fn new(first: Pair) -> Self {
        Self { current: Some(first), previous: None, rotated: (Moment::ZERO, Moment::MAX), ended: false }
    }

    fn may_be_in_grace(&self, operation: &Operation, rules: &Rules) -> bool {
        operation.begin.saturating_sub(self.rotated.1) < rules.grace + rules.slack && !rules.grace.is_zero()
    }

    fn is_surely_in_grace(&self, operation: &Operation, rules: &Rules) -> bool {
        operation.end.saturating_sub(self.rotated.0) + rules.slack < rules.grace
    }

    /// Returns the states in which the session may be after a response. The list is empty if the gate must not send
    /// this response. `is_refused_there` means that an operation with an unknown outcome may have ended the session at
    /// this gate.
    pub(super) fn after(
        &self,
        operation: &Operation,
        rules: &Rules,
        is_refused_there: bool,
        missing: Missing,
    ) -> Vec<Self> {
        match (operation.request, operation.reply) {
            (Request::Refresh(_), Reply::Issued(_)) if self.ended => Vec::new(),
            (Request::Refresh(shown), Reply::Issued(got)) if self.current == Some(shown) => {
                if got == shown || self.previous == Some(got) {
                    return Vec::new();
                }
                let rotated = (operation.begin, operation.end);
                vec![Self { current: Some(got), previous: Some(shown), rotated, ended: false }]
            }
            (Request::Refresh(shown), Reply::Issued(got)) => {
                let is_the_same = self.current.is_none_or(|current| current == got);
                if self.previous != Some(shown) || !is_the_same || !self.may_be_in_grace(operation, rules) {
                    return Vec::new();
                }
                let rotated = (self.rotated.0, self.rotated.1.min(operation.end));
                vec![Self { current: Some(got), rotated, ..self.clone() }]
            }
            (Request::Refresh(shown), Reply::Refused) => {
                if self.ended {
                    return vec![self.clone()];
                }
                let is_reuse = self.current != Some(shown)
                    && !(self.previous == Some(shown) && self.is_surely_in_grace(operation, rules))
                    && operation.end.saturating_sub(operation.begin) < rules.held;
                let mut states = Vec::new();
                if is_reuse {
                    states.push(Self { ended: true, ..self.clone() });
                }
                if is_refused_there || missing == Missing::ForNow {
                    states.push(self.clone());
                }
                if missing != Missing::No && !is_reuse {
                    states.push(Self { ended: true, ..self.clone() });
                }
                states
            }
            (Request::LogOut(_), Reply::Accepted) => vec![Self { ended: true, ..self.clone() }],
            _ => Vec::new(),
        }
    }

    /// Returns the state after an uncertain operation, or `None` if the operation changes nothing. `latest` is when the
    /// last operation began.
    pub(super) fn perhaps(&self, doubt: &Operation, rules: &Rules, latest: Moment) -> Option<Self> {
        let ended = || Self { ended: true, ..self.clone() };
        match doubt.request {
            Request::Refresh(_) | Request::LogOut(_) if self.ended => None,
            Request::LogOut(_) => Some(ended()),
            // A delayed swap still succeeds if the session has not changed.
            Request::Refresh(shown) if self.current == Some(shown) => {
                Some(Self { current: None, previous: Some(shown), rotated: (doubt.begin, Moment::MAX), ended: false })
            }
            Request::Refresh(shown) => {
                let until = Operation { end: doubt.end + rules.held, ..*doubt };
                let in_grace = self.previous == Some(shown) && self.is_surely_in_grace(&until, rules);
                (latest <= until.end && !in_grace).then(ended)
            }
            _ => None,
        }
    }
}
