//! A model of two gates on one store. Each gate knows the revocations that it wrote and those that it has read in the
//! store's log. The store may fail over to a replica that lacks its last writes. `late` and the clock of one gate are
//! only in [`super::gate`].

use super::gate::merge;
use super::table::{Outcome, REVOKED, Record, Table};

pub(crate) const NODES: usize = 2;

/// The surroundings of the table, and the fault to simulate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around {
    /// No generation past this one is issued.
    pub(crate) generations: u8,
    /// How often the store may lose its last writes.
    pub(crate) failovers: u8,
    /// Fault: after a failover a node serves as soon as it has put back its own list, whatever the other still knows.
    pub(crate) serves_at_once: bool,
    /// Fault: no list is put back.
    pub(crate) puts_nothing_back: bool,
    /// Fault: a node says that it holds every revocation if it holds those of the store that it finds.
    pub(crate) unbroken_by_what_is_left: bool,
    /// Fault: a node that started on a store with lost writes says the same.
    pub(crate) unbroken_after_restart: bool,
    /// Fault: a revocation is acknowledged before the other node has it.
    pub(crate) acknowledges_early: bool,
}

impl Around {
    pub(crate) const fn sound(generations: u8, failovers: u8) -> Self {
        Self {
            generations,
            failovers,
            serves_at_once: false,
            puts_nothing_back: false,
            unbroken_by_what_is_left: false,
            unbroken_after_restart: false,
            acknowledges_early: false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    list: u8,
    unbroken: bool,
    /// The generation whose confirmation is queued here; 0 without one.
    queued: u8,
    /// This node has finished its work after the store's last failover.
    put_back: bool,
    /// The node started on a store that may lack records, which another node has yet to put back.
    waits: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Cluster {
    pub(crate) record: Record,
    minimum: u8,
    kept: Record,
    kept_minimum: u8,
    failovers: u8,
    pub(crate) nodes: [Node; NODES],
    pub(crate) acknowledged: bool,
}

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "what is in it is printed")]
pub(crate) enum Happening {
    Tick,
    ConfirmationsWritten(usize),
    ConfirmationsLost(usize),
    /// A node reads the log to its end.
    CatchesUp(usize),
    Restart(usize),
    /// The end is in the node's list and in the store, and not yet acknowledged.
    Revocation(usize),
    RevocationThatTheStoreRefuses(usize),
    Acknowledged,
    /// A later loss does not reach back beyond this point.
    WritesAreSafe,
    Failover,
    /// A node has noticed the failover, and writes its list into the present store.
    PutsBack(usize),
}

impl Cluster {
    pub(crate) fn new(around: &Around) -> Self {
        let node = Node { list: 0, unbroken: true, queued: 0, put_back: true, waits: false };
        Self {
            record: Record::FIRST,
            minimum: 0,
            kept: Record::FIRST,
            kept_minimum: 0,
            failovers: around.failovers,
            nodes: [node; NODES],
            acknowledged: false,
        }
    }

    /// Whether this node may serve refreshes: after a failover only once every node has written its list back, because
    /// until then the losses of the store are unknown.
    pub(crate) fn may_serve(&self, at: usize, around: &Around) -> bool {
        if around.serves_at_once { self.nodes[at].put_back } else { self.nodes.iter().all(|node| node.put_back) }
    }

    /// The outcome of presenting this generation to a node.
    pub(crate) fn ask(&self, table: &mut Table, at: usize, generation: u8) -> Outcome {
        let node = &self.nodes[at];
        let confirmed = self.record.confirmed || node.queued == self.record.current;
        table.ask(Record { confirmed, ..self.record }, generation, node.list, node.unbroken)
    }

    pub(crate) fn passes(&self, at: usize, generation: u8) -> bool {
        let node = &self.nodes[at];
        !node.waits && generation >= node.list && node.list != REVOKED
    }

    /// One transaction in the store, then the node's own list.
    pub(crate) fn commit(&mut self, at: usize, (record, raised): (Record, Option<u8>)) {
        self.record = record;
        if let Some(minimum) = raised {
            self.minimum = merge(self.minimum, minimum);
            self.nodes[at].list = merge(self.nodes[at].list, minimum);
        }
    }

    pub(crate) fn revoke(&mut self, at: usize) {
        self.nodes[at].list = REVOKED;
        self.minimum = REVOKED;
        self.record.live = false;
    }

    pub(crate) fn used(&mut self, at: usize, generation: u8) {
        if self.passes(at, generation) && self.record.live && generation == self.record.current {
            self.nodes[at].queued = generation;
        }
    }

    fn catches_up(&mut self, at: usize) {
        self.nodes[at].list = merge(self.nodes[at].list, self.minimum);
    }

    fn fails_over(&mut self, around: &Around) {
        for node in &mut self.nodes {
            let complete = if around.unbroken_by_what_is_left { self.kept_minimum } else { self.minimum };
            node.unbroken &= merge(node.list, complete) == node.list;
            node.put_back = false;
        }
        (self.record, self.minimum) = (self.kept, self.kept_minimum);
        self.failovers -= 1;
        if self.failovers == 0 {
            // This state is not read again, so all its values are equivalent.
            (self.kept, self.kept_minimum) = (Record::FIRST, 0);
        }
    }

    fn puts_back(&mut self, at: usize, around: &Around) {
        if !around.puts_nothing_back {
            self.minimum = merge(self.minimum, self.nodes[at].list);
            // A revocation of the session ends its record, too.
            self.record.live &= self.minimum != REVOKED;
        }
        self.nodes[at].put_back = true;
        self.catches_up(at);
        self.settles(around);
    }

    /// When every node has put its list back, all nodes read the entries of the others.
    fn settles(&mut self, around: &Around) {
        if self.nodes.iter().all(|node| node.put_back) {
            (0..NODES).for_each(|node| self.catches_up(node));
        }
        for at in 0..NODES {
            self.nodes[at].waits &= !self.may_serve(at, around);
        }
    }

    fn restart(&mut self, at: usize, around: &Around) {
        let has_failed_over = self.failovers < around.failovers;
        let unbroken = (self.nodes[at].unbroken && !has_failed_over) || around.unbroken_after_restart;
        // The node has nothing to put back. The other nodes decide whether it may serve.
        self.nodes[at] = Node { list: self.minimum, unbroken, queued: 0, put_back: true, waits: true };
        self.settles(around);
    }

    /// Whether only this node knows the end of the session. If the node dies, the end is lost; either it was never
    /// acknowledged, or no protocol could keep it.
    fn is_last_to_know(&self, at: usize) -> bool {
        let knows = |(other, node): (usize, &Node)| other != at && node.list == REVOKED && !node.put_back;
        self.nodes[at].list == REVOKED && self.minimum != REVOKED && !self.nodes.iter().enumerate().any(knows)
    }

    /// All events without a request.
    pub(crate) fn happenings(&self, around: &Around, out: &mut Vec<(Happening, Self)>) {
        let mut add = |what, change: &dyn Fn(&mut Self)| {
            let mut after = *self;
            change(&mut after);
            if after != *self {
                out.push((what, after));
            }
        };
        add(Happening::Tick, &|c| {
            c.record.tick();
            if c.failovers > 0 {
                c.kept.tick();
            }
        });
        for at in 0..NODES {
            if self.nodes[at].queued != 0 && self.may_serve(at, around) {
                add(Happening::ConfirmationsWritten(at), &|c| {
                    if c.record.current == c.nodes[at].queued {
                        c.record.confirmed |= c.record.live;
                    }
                    c.nodes[at].queued = 0;
                });
            }
            add(Happening::ConfirmationsLost(at), &|c| c.nodes[at].queued = 0);
            if self.nodes[at].put_back {
                add(Happening::CatchesUp(at), &|c| c.catches_up(at));
            } else {
                add(Happening::PutsBack(at), &|c| c.puts_back(at, around));
            }
            if !(self.acknowledged && self.is_last_to_know(at)) {
                add(Happening::Restart(at), &|c| c.restart(at, around));
            }
            if !self.acknowledged && self.may_serve(at, around) {
                add(Happening::Revocation(at), &|c| c.revoke(at));
            }
            add(Happening::RevocationThatTheStoreRefuses(at), &|c| c.nodes[at].list = REVOKED);
        }
        let durable = self.minimum == REVOKED && !self.record.live;
        if durable && (around.acknowledges_early || self.nodes.iter().all(|node| node.list == REVOKED)) {
            add(Happening::Acknowledged, &|c| c.acknowledged = true);
        }
        if self.failovers > 0 {
            add(Happening::WritesAreSafe, &|c| (c.kept, c.kept_minimum) = (c.record, c.minimum));
            add(Happening::Failover, &|c| c.fails_over(around));
        }
    }
}
