//! The entries of the list, which are small because there may be a million of them.

use super::{Effect, Generation, REVOKED, Timestamp};

/// The plain form of an entry takes 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionEntry {
    Plain {
        minimum: Generation,
        /// Six bytes of milliseconds suffice for nine thousand years.
        until: [u8; 6],
    },
    Scheduled(Box<Scheduled>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Scheduled {
    minimum: Generation,
    effective_from: Timestamp,
    before: Generation,
    until: Timestamp,
}

impl SessionEntry {
    pub(super) fn new(effect: Effect, until: Timestamp) -> Self {
        let gone = Self::plain(REVOKED, until);
        match effect {
            Effect::Minimum { minimum, effective_from, before } => {
                let highest = minimum.max(before);
                // No schedule is necessary for a revocation, or for a minimum that is already in effect.
                if highest == REVOKED || effective_from == Timestamp::ZERO || before >= minimum {
                    Self::plain(highest, until)
                } else {
                    Self::Scheduled(Box::new(Scheduled { minimum, effective_from, before, until }))
                }
            }
            // Impossible for a session, so revoke the whole session.
            Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. } | Effect::Gone => gone,
        }
    }

    fn plain(minimum: Generation, until: Timestamp) -> Self {
        match until.as_millis().to_be_bytes() {
            [0, 0, a, b, c, d, e, f] => Self::Plain { minimum, until: [a, b, c, d, e, f] },
            _ => Self::Scheduled(Box::new(Scheduled {
                minimum,
                effective_from: Timestamp::ZERO,
                before: minimum,
                until,
            })),
        }
    }

    pub(super) fn until(&self) -> Timestamp {
        match self {
            Self::Plain { until: [a, b, c, d, e, f], .. } => {
                Timestamp::from_millis(u64::from_be_bytes([0, 0, *a, *b, *c, *d, *e, *f]))
            }
            Self::Scheduled(scheduled) => scheduled.until,
        }
    }

    pub(super) fn effect(&self) -> Effect {
        match self {
            Self::Plain { minimum, .. } => {
                Effect::Minimum { minimum: *minimum, effective_from: Timestamp::ZERO, before: Generation::NONE }
            }
            Self::Scheduled(scheduled) => {
                let Scheduled { minimum, effective_from, before, .. } = **scheduled;
                Effect::Minimum { minimum, effective_from, before }
            }
        }
    }

    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let before = self.effect();
        *self = Self::new(before.merge(other.effect()), self.until().max(other.until()));
        self.effect() != before
    }

    /// The highest minimum generation, even if it has not taken effect yet.
    pub(super) fn highest(&self) -> Generation {
        match self {
            Self::Plain { minimum, .. } => *minimum,
            Self::Scheduled(scheduled) => scheduled.minimum,
        }
    }

    pub(super) fn refuse_from(&self, generation: Generation) -> Timestamp {
        let minimum = self.highest();
        if generation >= minimum && minimum != REVOKED {
            return Timestamp::MAX;
        }
        match self {
            Self::Scheduled(scheduled) if generation >= scheduled.before => scheduled.effective_from,
            Self::Scheduled(_) | Self::Plain { .. } => Timestamp::ZERO,
        }
    }

    pub(super) fn settle(&mut self, now: Timestamp) {
        if let Self::Scheduled(scheduled) = self
            && scheduled.effective_from <= now
        {
            *self = Self::plain(scheduled.minimum, scheduled.until);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotBefore {
    at: Timestamp,
    /// [`Timestamp::ZERO`] means that the entry does not revoke API keys.
    keys: Timestamp,
    until: Timestamp,
}

impl NotBefore {
    pub(super) fn new(effect: Effect, until: Timestamp) -> Self {
        let (at, keys) = match effect {
            Effect::NotBefore(at) => (at, Timestamp::ZERO),
            Effect::NotBeforeWithKeys { sessions, keys } => (sessions, keys),
            // Impossible for this kind of entry. Refuse all tokens, to be safe.
            Effect::Minimum { .. } | Effect::Gone => (Timestamp::MAX, Timestamp::MAX),
        };
        Self { at, keys, until }
    }

    pub(super) fn at(&self) -> Timestamp {
        self.at
    }

    pub(super) fn keys(&self) -> Timestamp {
        self.keys
    }

    pub(super) fn effect(&self) -> Effect {
        match self.keys {
            Timestamp::ZERO => Effect::NotBefore(self.at),
            keys => Effect::NotBeforeWithKeys { sessions: self.at, keys },
        }
    }

    pub(super) fn until(&self) -> Timestamp {
        self.until
    }

    pub(super) fn covers(&self, other: &Self) -> bool {
        other.at <= self.at && other.keys <= self.keys && other.until <= self.until
    }

    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let later = other.at > self.at || other.keys > self.keys;
        self.at = self.at.max(other.at);
        self.keys = self.keys.max(other.keys);
        self.until = self.until.max(other.until);
        later
    }
}
