//! The entries of the list. They are small, because the list may have a million of them.

use super::{Effect, Generation, REVOKED, Timestamp};

/// The entry of a session: the generation from which its tokens are accepted. The plain form takes 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum SessionEntry {
    /// The minimum applies now.
    Plain {
        minimum: Generation,
        /// The end of the entry in milliseconds. Only the lower six bytes are kept, which suffice for nine thousand
        /// years.
        until: [u8; 6],
    },
    /// The minimum takes effect later, or the entry has no end.
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
                // Revoking a session takes effect at once, and an earlier minimum is already in effect.
                if highest == REVOKED || effective_from == Timestamp::ZERO || before >= minimum {
                    Self::plain(highest, until)
                } else {
                    Self::Scheduled(Box::new(Scheduled { minimum, effective_from, before, until }))
                }
            }
            // These effects do not fit a session, so refusing everything is the safe choice.
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

    /// Returns true if the entry now refuses anything that it did not refuse before.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let before = self.effect();
        *self = Self::new(before.merge(other.effect()), self.until().max(other.until()));
        self.effect() != before
    }

    /// The minimum, even if it has not taken effect yet.
    pub(super) fn highest(&self) -> Generation {
        match self {
            Self::Plain { minimum, .. } => *minimum,
            Self::Scheduled(scheduled) => scheduled.minimum,
        }
    }

    /// The time from which a token of this generation is refused.
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

    /// Simplifies the entry once its minimum has taken effect.
    pub(super) fn settle(&mut self, now: Timestamp) {
        if let Self::Scheduled(scheduled) = self
            && scheduled.effective_from <= now
        {
            *self = Self::plain(scheduled.minimum, scheduled.until);
        }
    }
}

/// The entry of a subject, of a client or of everyone. It refuses everything that began at or before the entry's
/// moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotBefore {
    at: Timestamp,
    /// The moment for API keys, or [`Timestamp::ZERO`] if the entry does not end API keys.
    keys: Timestamp,
    until: Timestamp,
}

impl NotBefore {
    pub(super) fn new(effect: Effect, until: Timestamp) -> Self {
        let (at, keys) = match effect {
            Effect::NotBefore(at) => (at, Timestamp::ZERO),
            Effect::NotBeforeWithKeys { sessions, keys } => (sessions, keys),
            // These effects do not fit a subject, a client or all, so refusing everything is the safe choice.
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

    /// Returns whether this entry refuses everything that `other` refuses, for at least as long.
    pub(super) fn covers(&self, other: &Self) -> bool {
        other.at <= self.at && other.keys <= self.keys && other.until <= self.until
    }

    /// Returns true if the entry now refuses anything that it did not refuse before.
    pub(super) fn merge(&mut self, other: &Self) -> bool {
        let later = other.at > self.at || other.keys > self.keys;
        self.at = self.at.max(other.at);
        self.keys = self.keys.max(other.keys);
        self.until = self.until.max(other.until);
        later
    }
}
