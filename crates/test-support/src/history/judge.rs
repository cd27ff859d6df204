//! The search for an order that explains a history.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write;

use super::session::{Facts, Missing, State, Uses};
use super::{Loss, Moment, Operation, Pair, Reply, Request, Rules, keys};

/// A flaw in a history: the violated rule, and the session's operations.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    pub rule: Rule,
    pub session: usize,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A pair has two sessions or two predecessors, or a key was made twice.
    OnePlace,
    /// A token or a key has two successors.
    OneSuccessor,
    /// A revoked access token or key was accepted for longer than the staleness permits.
    RefusedInTime,
    /// An access token of a live session, or a live key, was rejected.
    AcceptedWhileLive,
    /// No order explains the responses, or an invalid key was replaced.
    OneOrder,
}

/// Checks a history.
///
/// # Errors
/// The first session whose history no order explains.
pub fn judge(history: &[Operation], rules: &Rules) -> Result<(), Verdict> {
    judge_with_losses(history, rules, &[])
}

/// Checks a history like [`judge`], for a store that lost writes.
///
/// # Errors
/// The same as for [`judge`].
pub fn judge_with_losses(history: &[Operation], rules: &Rules, losses: &[Loss]) -> Result<(), Verdict> {
    let mut sessions: BTreeMap<usize, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        sessions.entry(operation.session).or_default().push(*operation);
    }
    let mut places: HashMap<Pair, (usize, Option<Pair>)> = HashMap::new();
    for (session, operations) in sessions {
        let of = Session::new(operations, rules, losses);
        let wrong = |rule: Rule| Verdict { rule, session, text: of.text() };
        let mut successors: HashMap<Pair, Pair> = HashMap::new();
        for operation in &of.operations {
            let (shown, got) = match (operation.request, operation.reply) {
                (Request::LogIn | Request::MakeKey, Reply::Issued(got)) => (None, got),
                (Request::Refresh(shown) | Request::ReplaceKey(shown, _), Reply::Issued(got)) => (Some(shown), got),
                _ => continue,
            };
            // A new key starts a separate session.
            let is_key = matches!(operation.request, Request::ReplaceKey(..));
            if !is_key && *places.entry(got).or_insert((session, shown)) != (session, shown) {
                return Err(wrong(Rule::OnePlace));
            }
            // A pair that nobody used may be replaced. Whether it was is a question of the order.
            if let Some(shown) = shown
                && *successors.entry(shown).or_insert(got) != got
                && (is_key || rules.lost_response_window.is_zero())
            {
                return Err(wrong(Rule::OneSuccessor));
            }
        }
        if of.operations.iter().any(|one| one.request.is_of_key()) {
            keys::judge(&of.operations, rules).map_err(wrong)?;
            continue;
        }
        of.judge_access().map_err(wrong)?;
        of.search().map_err(|text| Verdict { rule: Rule::OneOrder, session, text })?;
    }
    Ok(())
}

struct Session<'a> {
    rules: &'a Rules,
    losses: &'a [Loss],
    operations: Vec<Operation>,
    /// Refreshes and logouts with a response.
    answered: Vec<Operation>,
    /// Refreshes and logouts with an unknown outcome.
    doubts: Vec<Operation>,
    uses: Uses,
}

/// A node of the search: the ordered operations so far, and the resulting session.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Place {
    done: Vec<u64>,
    state: State,
}

impl Place {
    fn has(&self, number: usize) -> bool {
        self.done[number / 64] >> (number % 64) & 1 == 1
    }

    fn with(&self, number: usize, state: State) -> Self {
        let mut done = self.done.clone();
        done[number / 64] |= 1 << (number % 64);
        Self { done, state }
    }
}

impl<'a> Session<'a> {
    fn new(mut operations: Vec<Operation>, rules: &'a Rules, losses: &'a [Loss]) -> Self {
        operations.sort_by_key(|operation| (operation.begin, operation.end));
        let changes = |operation: &&Operation| matches!(operation.request, Request::Refresh(_) | Request::LogOut(_));
        let (doubts, answered) = operations.iter().filter(changes).partition(|one| one.reply == Reply::InDoubt);
        let uses = Uses::in_history(&operations);
        Self { rules, losses, operations, answered, doubts, uses }
    }

    fn facts(&self, operation: &Operation) -> Facts<'_> {
        let is_refused_there = self.is_in_doubt_at(operation.gate, operation.end);
        Facts { rules: self.rules, uses: &self.uses, is_refused_there, missing: self.may_be_missing(operation) }
    }

    /// Returns whether the store may lack the session or its latest changes during this operation.
    fn may_be_missing(&self, operation: &Operation) -> Missing {
        let touched = self.losses.iter().any(|loss| loss.touches(operation));
        // A session that began after the last loss cannot be missing.
        let began = self.operations.first().map_or(Moment::MAX, |first| first.begin);
        let lost = self.losses.iter().any(|loss| began < loss.restored && operation.end > loss.at);
        match (touched, lost) {
            (true, _) => Missing::ForNow,
            (false, true) => Missing::ForGood,
            (false, false) => Missing::No,
        }
    }

    /// Returns whether an uncertain operation may have ended the session at `gate` before `end`.
    fn is_in_doubt_at(&self, gate: usize, end: Moment) -> bool {
        let may_end = |doubt: &Operation| match doubt.request {
            Request::LogOut(_) => true,
            // Only the second use of a token ends the session.
            Request::Refresh(shown) if self.rules.reuse_ends => {
                self.operations.iter().filter(|other| other.request == Request::Refresh(shown)).count() > 1
            }
            _ => false,
        };
        self.doubts.iter().any(|doubt| doubt.gate == gate && doubt.begin < end && may_end(doubt))
    }

    fn judge_access(&self) -> Result<(), Rule> {
        let is_end = |one: &&Operation| match (one.request, one.reply) {
            (Request::LogOut(_), Reply::Accepted) => true,
            // A refresh cannot end a session whose record is missing.
            (Request::Refresh(_), Reply::Refused) => {
                self.rules.reuse_ends
                    && !self.is_in_doubt_at(one.gate, one.end)
                    && self.may_be_missing(one) == Missing::No
            }
            _ => false,
        };
        let acknowledged = self.answered.iter().filter(is_end).map(|one| one.end).min();
        let refused = |one: &&Operation| match one.request {
            Request::Refresh(_) => self.rules.reuse_ends && one.reply == Reply::Refused,
            _ => true,
        };
        let by_answer = self.answered.iter().filter(refused).map(|one| one.begin);
        let perhaps = self.doubts.iter().filter(|doubt| self.is_in_doubt_at(doubt.gate, Moment::MAX));
        let first_end = by_answer.chain(perhaps.map(|doubt| doubt.begin)).min();
        for one in &self.operations {
            let Request::Access(pair) = one.request else { continue };
            let (perhaps, surely) = self.superseded(pair);
            let is_late = |end: Moment| one.begin > end + self.rules.staleness;
            match one.reply {
                Reply::Accepted if acknowledged.is_some_and(is_late) || surely.is_some_and(is_late) => {
                    return Err(Rule::RefusedInTime);
                }
                Reply::Refused if first_end.into_iter().chain(perhaps).min().is_none_or(|begin| begin > one.end) => {
                    return Err(Rule::AcceptedWhileLive);
                }
                Reply::Accepted | Reply::Refused | Reply::InDoubt | Reply::Issued(_) => {}
            }
        }
        Ok(())
    }

    /// Returns when the access token of a pair may have been superseded, and when it surely was.
    fn superseded(&self, pair: Pair) -> (Option<Moment>, Option<Moment>) {
        let issues = |one: &&Operation| one.reply == Reply::Issued(pair);
        let issued = self.operations.iter().filter(issues).map(|one| one.end).min();
        let predecessor = self.operations.iter().filter(issues).find_map(|one| match one.request {
            Request::Refresh(shown) => Some(shown),
            _ => None,
        });
        let (mut perhaps, mut surely): (Option<Moment>, Option<Moment>) = (None, None);
        for one in &self.operations {
            let is_rotated = self.rules.ends_previous && one.request == Request::Refresh(pair);
            // Its predecessor was exchanged for another pair.
            let is_abandoned = !self.rules.lost_response_window.is_zero()
                && predecessor.is_some_and(|shown| one.request == Request::Refresh(shown))
                && one.reply != Reply::Issued(pair);
            if one.reply == Reply::Refused || !(is_rotated || is_abandoned) {
                continue;
            }
            if is_rotated {
                perhaps = earlier(perhaps, one.begin);
            }
            let is_later = is_rotated || issued.is_some_and(|end| end < one.begin);
            if is_later && matches!(one.reply, Reply::Issued(_)) {
                surely = earlier(surely, one.end);
            }
        }
        (self.reissues(pair).fold(perhaps, earlier), surely)
    }

    /// Returns when a pair that nobody used may have been replaced by another than this one. That ends all earlier access
    /// tokens of the session.
    fn reissues(&self, pair: Pair) -> impl Iterator<Item = Moment> {
        let may_exchange = |one: &&Operation| matches!(one.reply, Reply::Issued(_) | Reply::InDoubt);
        let repeats = move |one: &&Operation| {
            let is_other = |other: &Operation| {
                let is_same = other.reply == one.reply && one.reply != Reply::InDoubt;
                other.request == one.request && other.begin <= one.begin && !is_same && *other != **one
            };
            one.reply != Reply::Issued(pair) && self.operations.iter().filter(may_exchange).any(is_other)
        };
        let has_window = !self.rules.lost_response_window.is_zero();
        let refreshes = |one: &&Operation| matches!(one.request, Request::Refresh(_));
        self.operations
            .iter()
            .filter(move |_| has_window)
            .filter(refreshes)
            .filter(may_exchange)
            .filter(repeats)
            .map(|one| one.begin)
    }

    /// Searches for an order.
    fn search(&self) -> Result<(), String> {
        let first = self.operations.iter().find_map(|one| match (one.request, one.reply) {
            (Request::LogIn, Reply::Issued(pair)) => Some(pair),
            _ => None,
        });
        let Some(first) = first else { return Err("no login".to_owned()) };
        let start = Place { done: vec![0; self.answered.len().div_ceil(64)], state: State::new(first) };
        let (mut seen, mut open) = (HashSet::from([start.clone()]), vec![start.clone()]);
        let (mut most, mut longest) = (0, start);
        while let Some(place) = open.pop() {
            let missing: Vec<_> = (0..self.answered.len()).filter(|number| !place.has(*number)).collect();
            let Some(first_end) = missing.iter().map(|number| self.answered[*number].end).min() else { return Ok(()) };
            let number = self.answered.len() - missing.len();
            if number >= most {
                (most, longest) = (number, place.clone());
            }
            let latest = self.answered.iter().enumerate().filter(|(number, _)| place.has(*number));
            let latest = latest.map(|(_, one)| one.begin).max().unwrap_or_default();
            let mut go = |next: Place| {
                if seen.insert(next.clone()) {
                    open.push(next);
                }
            };
            for doubt in self.doubts.iter().filter(|doubt| doubt.begin <= first_end) {
                for state in place.state.perhaps(doubt, self.facts(doubt), latest) {
                    go(Place { done: place.done.clone(), state });
                }
            }
            let mut next = Vec::new();
            for number in missing.into_iter().take_while(|number| self.answered[*number].begin <= first_end) {
                let one = &self.answered[number];
                let states = place.state.after(one, self.facts(one));
                // An operation without an effect fits into every order at this point.
                if states == [place.state.clone()] {
                    next = vec![place.with(number, place.state.clone())];
                    break;
                }
                next.extend(states.into_iter().map(|state| place.with(number, state)));
            }
            // The earliest operation is pushed last, so that the search tries it first.
            next.into_iter().rev().for_each(&mut go);
        }
        let lacks = |one: &Operation| {
            self.answered.iter().position(|other| other == one).is_some_and(|number| !longest.has(number))
        };
        Err(self.lines(|one| if lacks(one) { " <- not explained" } else { "" }))
    }

    fn text(&self) -> String {
        self.lines(|_| "")
    }

    fn lines(&self, note: impl Fn(&Operation) -> &'static str) -> String {
        let mut text = String::new();
        for one in &self.operations {
            let Operation { gate, begin, end, request, reply, .. } = one;
            let note = note(one);
            let _ = writeln!(text, "{begin:>12.6?} to {end:>12.6?}, gate {gate}: {request:?} {reply:?}{note}");
        }
        text
    }
}

fn earlier(one: Option<Moment>, other: Moment) -> Option<Moment> {
    Some(one.map_or(other, |one| one.min(other)))
}
