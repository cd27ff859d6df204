//! A model of the gate and its store around the table.

use rotogate::clock::Timestamp;
use rotogate_core::revocation::Effect;
use rotogate_core::session::{Generation, rotation};

use super::table::{Outcome, REVOKED, Record, Table};

/// The surroundings of the table, and the fault to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    /// No generation past this one is issued.
    pub(crate) generations: u8,
    /// How often the store may lose its last writes.
    pub(crate) rollbacks: u8,
    /// Fault: the last entry of the list counts, whatever the earlier entries say.
    pub(crate) list_replaces: bool,
    /// Fault: a store may lose a revocation that was acknowledged, and no node remembers it.
    pub(crate) forgets_revocations: bool,
    /// Fault: a node whose list was lost with the store's writes claims to hold all revocations.
    pub(crate) claims_unbroken: bool,
    /// Fault: as above, from the session's next change on.
    pub(crate) heals_by_next_change: bool,
    /// Fault: a node that kept its list does not put it back into the store.
    pub(crate) puts_nothing_back: bool,
    /// Fault: a confirmation is recorded for the generation that is current at that time.
    pub(crate) confirms_any: bool,
}

impl Around {
    pub(crate) const fn sound(generations: u8, rollbacks: u8) -> Self {
        Self {
            generations,
            rollbacks,
            list_replaces: false,
            forgets_revocations: false,
            claims_unbroken: false,
            heals_by_next_change: false,
            puts_nothing_back: false,
            confirms_any: false,
        }
    }
}

/// One node and its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gate {
    /// The store: the record, and the minimum in its revocations.
    pub(crate) record: Record,
    minimum: u8,
    /// The state that remains when the store loses its last writes.
    kept: Record,
    kept_minimum: u8,
    /// The node's list.
    pub(crate) list: u8,
    /// The entry of a rotation that is committed and not yet in the list; 0 without one.
    pub(crate) late: u8,
    unbroken: bool,
    /// The generation whose confirmation is queued; 0 without one.
    queued: u8,
    /// The session's end was acknowledged.
    pub(crate) acknowledged: bool,
    rollbacks: u8,
}

impl Gate {
    pub(crate) fn new(around: &Around) -> Self {
        Self {
            record: Record::FIRST,
            minimum: 0,
            kept: Record::FIRST,
            kept_minimum: 0,
            list: 0,
            late: 0,
            unbroken: true,
            queued: 0,
            acknowledged: false,
            rollbacks: around.rollbacks,
        }
    }

    /// The outcome of presenting this generation. Queued confirmations count.
    pub(crate) fn ask(&self, table: &mut Table, generation: u8) -> Outcome {
        let record = Record { confirmed: self.confirmed(), ..self.record };
        table.ask(record, generation, self.list, self.unbroken)
    }

    /// Does this node know that the current generation was used?
    pub(crate) fn confirmed(&self) -> bool {
        self.record.confirmed || self.queued == self.record.current
    }

    /// Are this node's commits in its list, or at least still in the store? For a moment a commit may be in neither:
    /// the store may lose a rotation before its entry is in the list, and so before its reply.
    pub(crate) fn knows_its_own(&self) -> bool {
        self.late <= self.list || self.late <= self.minimum
    }

    /// Does an access token of this generation pass?
    pub(crate) fn passes(&self, generation: u8) -> bool {
        generation >= self.list && self.list != REVOKED
    }

    /// Writes the record and its revocation in one transaction, and then, or later, the list.
    pub(crate) fn commit(&mut self, (record, raised): (Record, Option<u8>), late: bool, around: &Around) {
        self.record = record;
        if around.heals_by_next_change {
            self.unbroken = true;
        }
        if let Some(minimum) = raised {
            self.minimum = merge(self.minimum, minimum);
            if late {
                self.late = minimum;
            } else {
                self.write_list(minimum, around);
            }
        }
    }

    /// The late entry arrives.
    pub(crate) fn arrive(&mut self, around: &Around) {
        self.write_list(self.late, around);
        self.late = 0;
    }

    fn write_list(&mut self, minimum: u8, around: &Around) {
        self.list = if around.list_replaces { minimum } else { merge(self.list, minimum) };
    }

    /// The steps: local list, store, acknowledgement.
    pub(crate) fn revoke(&mut self) {
        self.list = REVOKED;
        self.record.live = false;
        self.minimum = REVOKED;
        self.acknowledged = true;
    }

    /// An access token is used.
    pub(crate) fn used(&mut self, generation: u8) {
        if self.passes(generation) && self.record.live && generation == self.record.current {
            self.queued = generation;
        }
    }

    pub(crate) fn tick(&mut self) {
        self.record.tick();
        if self.rollbacks > 0 {
            self.kept.tick();
        }
    }

    /// All events of the gate without a request.
    pub(crate) fn happenings(&self, around: &Around, out: &mut Vec<(Happening, Self)>) {
        let mut add = |what, change: &dyn Fn(&mut Self)| {
            let mut after = *self;
            change(&mut after);
            out.push((what, after));
        };
        add(Happening::Tick, &Self::tick);
        if self.queued != 0 {
            add(Happening::ConfirmationsWritten, &|g| {
                if g.record.current == g.queued || around.confirms_any {
                    g.record.confirmed |= g.record.live;
                }
                g.queued = 0;
            });
            add(Happening::ConfirmationsLost, &|g| g.queued = 0);
        }
        if self.late != 0 {
            add(Happening::LateEntryArrives, &|g| g.arrive(around));
        }
        add(Happening::Restart, &|g| {
            // A store that has lost writes does not reveal them.
            g.unbroken &= g.rollbacks == around.rollbacks || around.claims_unbroken;
            g.queued = 0;
            g.late = 0;
            g.list = g.minimum;
        });
        if !self.acknowledged {
            add(Happening::Revocation, &Self::revoke);
            add(Happening::RevocationThatTheStoreRefuses, &|g| g.list = REVOKED);
        }
        if self.rollbacks > 0 {
            add(Happening::WritesAreSafe, &|g| (g.kept, g.kept_minimum) = (g.record, g.minimum));
            let lost = |g: &mut Self| {
                (g.record, g.minimum) = (g.kept, g.kept_minimum);
                g.rollbacks -= 1;
                if g.rollbacks == 0 {
                    // This state is not read again, so all its values are equivalent.
                    (g.kept, g.kept_minimum) = (Record::FIRST, 0);
                }
            };
            add(Happening::WritesLostListKept, &|g| {
                lost(g);
                if !around.puts_nothing_back {
                    g.minimum = merge(g.minimum, g.list);
                }
            });
            // Acknowledged writes are durable before, or some node still has them.
            if !self.acknowledged || self.kept_minimum == REVOKED || around.forgets_revocations {
                add(Happening::WritesLostAndListToo, &|g| {
                    lost(g);
                    (g.list, g.late, g.queued) = (g.minimum, 0, 0);
                    g.unbroken &= around.claims_unbroken;
                });
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    Tick,
    ConfirmationsWritten,
    ConfirmationsLost,
    LateEntryArrives,
    /// The gate crashes and starts again.
    Restart,
    /// The session is ended, durably and acknowledged.
    Revocation,
    /// The end is in the list, not in the store, and not acknowledged.
    RevocationThatTheStoreRefuses,
    /// A later loss does not reach back beyond this point.
    WritesAreSafe,
    WritesLostListKept,
    WritesLostAndListToo,
}

/// Production's merge of two minimums that are in effect.
pub(crate) fn merge(a: u8, b: u8) -> u8 {
    let effect = |m: u8| match m {
        REVOKED => Effect::SESSION_REVOKED,
        _ => Effect::Minimum {
            minimum: Generation::new(m.into()),
            effective_from: Timestamp::ZERO,
            before: Generation::NONE,
        },
    };
    match effect(a).merge(effect(b)) {
        Effect::Minimum { minimum: rotation::REVOKED, .. } => REVOKED,
        Effect::Minimum { minimum, .. } => u8::try_from(minimum.get()).unwrap(),
        other @ (Effect::NotBefore(_) | Effect::NotBeforeWithKeys { .. } | Effect::Gone) => unreachable!("{other:?}"),
    }
}
