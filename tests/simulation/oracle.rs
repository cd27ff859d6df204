//! The promises, and the observations that are checked against them.

use std::collections::HashMap;

use rotogate::clock::Timestamp;
use rotogate::session::{Generation, Session, SessionId};
use rotogate_core::revocation::{Effect, Revocation};

/// The rules of every commit, whatever its cause. Proof 1 of the rotation table, on the disk.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// When each generation was issued.
    issued: HashMap<(SessionId, Generation), Timestamp>,
    /// When each generation was first exchanged.
    exchanged: HashMap<(SessionId, Generation), Timestamp>,
    pub(crate) broken: Option<String>,
}

impl Commits {
    pub(crate) fn swapped(&mut self, old: &Session, new: &Session, revocation: Option<&Revocation>) {
        let id = new.id;
        if new.current == old.current {
            // A replay that made a new access token.
            if (new.previous, new.rotated_at) != (old.previous, old.rotated_at) {
                self.breaks("R3: a replay moved the predecessor");
            }
            return;
        }
        self.issued.insert((id, new.current), new.issued_at);
        self.exchanged.entry((id, new.previous)).or_insert(new.rotated_at);
        if new.current <= old.current {
            self.breaks("R1: a generation is issued a second time");
        }
        if new.previous == old.current {
            return;
        }
        if new.previous != old.previous {
            self.breaks("R1: a second successor of an old generation");
        } else if old.confirmed {
            self.breaks("R1: a generation that was seen in use is abandoned");
        } else {
            let ends = revocation.is_some_and(|entry| match entry.effect {
                Effect::Minimum { minimum, effective_from, .. } => {
                    minimum == new.current && effective_from <= new.issued_at
                }
                Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. } | Effect::Gone => false,
            });
            if !ends {
                self.breaks("R3: access tokens of an abandoned generation live on");
            }
        }
    }

    pub(crate) fn issued(&self, id: SessionId, generation: Generation) -> Option<Timestamp> {
        self.issued.get(&(id, generation)).copied()
    }

    pub(crate) fn exchanged(&self, id: SessionId, generation: Generation) -> Option<Timestamp> {
        self.exchanged.get(&(id, generation)).copied()
    }

    fn breaks(&mut self, what: &str) {
        self.broken.get_or_insert_with(|| what.to_owned());
    }
}
