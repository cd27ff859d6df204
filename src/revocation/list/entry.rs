//! What the list keeps of one target. Small: there may be a million of them.

use super::{Effect, GONE, Generation, Timestamp};

/// Of a session: from which generation on its tokens are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionEntry {
    minimum: Generation,
    until: Timestamp,
    /// Only where the minimum takes effect later.
    schedule: Option<Box<Schedule>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Schedule {
    effective_from: Timestamp,
    before: Generation,
}

impl SessionEntry {
    pub(super) fn new(effect: Effect, until: Timestamp) -> Self {
        let mut entry = Self { minimum: GONE, until, schedule: None };
        entry.set(effect);
        entry
    }

    pub(super) fn until(&self) -> Timestamp {
        self.until
    }

    fn set(&mut self, effect: Effect) {
        (self.minimum, self.schedule) = match effect {
            Effect::Minimum { minimum, effective_from, before } => {
                let highest = minimum.max(before);
                // A gone session is gone at once, and a minimum of old is in effect.
                if highest == GONE || effective_from == Timestamp::ZERO || before >= minimum {
                    (highest, None)
                } else {
                    (minimum, Some(Box::new(Schedule { effective_from, before })))
                }
            }
            // These do not fit a session: refusing is the safe reading.
            Effect::NotBefore(_) | Effect::Gone => (GONE, None),
        };
    }

    fn effect(&self) -> Effect {
        let Schedule { effective_from, before } =
            self.schedule.as_deref().copied().unwrap_or(Schedule { effective_from: Timestamp::ZERO, before: 0 });
        Effect::Minimum { minimum: self.minimum, effective_from, before }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.set(self.effect().merge(other.effect()));
        self.until = self.until.max(other.until);
    }

    /// The minimum, in effect yet or not.
    pub(super) fn highest(&self) -> Generation {
        self.minimum
    }

    /// From when on a token of this generation is refused.
    pub(super) fn refuse_from(&self, generation: Generation) -> Timestamp {
        if generation >= self.minimum && self.minimum != GONE {
            return Timestamp::MAX;
        }
        match self.schedule.as_deref() {
            Some(schedule) if generation >= schedule.before => schedule.effective_from,
            Some(_) | None => Timestamp::ZERO,
        }
    }

    /// Forgets a schedule that has run out.
    pub(super) fn settle(&mut self, now: Timestamp) {
        if self.schedule.as_deref().is_some_and(|schedule| schedule.effective_from <= now) {
            self.schedule = None;
        }
    }
}

/// Of a subject, a client or all: what began at this moment or before it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotBefore {
    at: Timestamp,
    until: Timestamp,
}

impl NotBefore {
    pub(super) fn new(effect: Effect, until: Timestamp) -> Self {
        let at = match effect {
            Effect::NotBefore(at) => at,
            // These fit neither a subject nor a client nor all: refusing is the safe reading.
            Effect::Minimum { .. } | Effect::Gone => Timestamp::MAX,
        };
        Self { at, until }
    }

    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    pub(super) fn until(&self) -> Timestamp {
        self.until
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.at = self.at.max(other.at);
        self.until = self.until.max(other.until);
    }
}
