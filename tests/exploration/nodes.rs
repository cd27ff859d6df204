//! The proofs on two nodes with one store, which may fail over to a replica without its last writes.
//!
//! Their demands on a store for several nodes (O5): after a failover, no node serves before every node has put its list
//! back. A node continues a session from a token ahead of the store only if the node had read the log up to the lost
//! end, which the remaining log cannot show. A revocation is acknowledged when every node has it.

use super::cluster::{Around, Cluster, Happening, NODES};
use super::search::{World, finds, generations, proves};
use super::table::{Table, Verdict, WINDOW};

const TWO_LIVE: &str = "two live successors of one generation";
const UNDONE: &str = "an acknowledged revocation is undone";
const SOLE_HOLDER: &str = "the sole holder is answered Reuse inside the window";

const MOST: usize = 8;
/// The holder has not exchanged its token.
const NEVER: u8 = u8::MAX;

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "what is in it is printed")]
enum Event {
    /// A generation, presented to a node.
    Present(usize, u8, Verdict),
    PresentAndLose(usize, u8, Verdict),
    Use(usize, u8),
    Cluster(Happening),
}

/// Proofs 1 and 4: anyone may present every issued token to any node at any time.
struct Anyone {
    around: Around,
    table: Table,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Issued {
    cluster: Cluster,
    /// For each generation, a bit for each generation from which it was issued.
    parents: [u8; MOST],
}

impl Issued {
    fn generations(&self) -> impl Iterator<Item = u8> {
        (1..MOST as u8).filter(|generation| self.parents[usize::from(*generation)] != 0)
    }
}

impl World for Anyone {
    type State = Issued;
    type Event = Event;

    fn start(&self) -> Issued {
        let mut parents = [0; MOST];
        parents[1] = 1;
        Issued { cluster: Cluster::new(&self.around), parents }
    }

    fn next(&mut self, s: &Issued, out: &mut Vec<(Event, Issued)>) {
        for at in (0..NODES).filter(|at| s.cluster.may_serve(*at, &self.around)) {
            for generation in s.generations() {
                let outcome = s.cluster.ask(&mut self.table, at, generation);
                let mut after = *s;
                match outcome.next {
                    Some((record, raised)) if record.current <= self.around.generations => {
                        after.parents[usize::from(record.current)] |= 1 << generation;
                        after.cluster.commit(at, (record, raised));
                    }
                    None if outcome.verdict == Verdict::Reuse => after.cluster.revoke(at),
                    Some(_) | None => continue,
                }
                out.push((Event::Present(at, generation, outcome.verdict), after));
            }
            let mut used = *s;
            used.cluster.used(at, s.cluster.record.current);
            out.push((Event::Use(at, s.cluster.record.current), used));
        }
        let mut happenings = Vec::new();
        s.cluster.happenings(&self.around, &mut happenings);
        out.extend(happenings.into_iter().map(|(what, cluster)| (Event::Cluster(what), Issued { cluster, ..*s })));
    }

    fn bad(&mut self, _: &Issued, _: &Event, after: &Issued) -> Option<&'static str> {
        let cluster = &after.cluster;
        let mut claimed = 0;
        for generation in after.generations() {
            let mut live = false;
            for at in 0..NODES {
                if cluster.acknowledged && cluster.passes(at, generation) {
                    return Some(UNDONE);
                }
                if !cluster.may_serve(at, &self.around) {
                    continue;
                }
                let verdict = cluster.ask(&mut self.table, at, generation).verdict;
                if cluster.acknowledged && verdict.serves() {
                    return Some(UNDONE);
                }
                live |= verdict.is_live();
            }
            if live {
                let parents = after.parents[usize::from(generation)];
                if claimed & parents != 0 {
                    return Some(TWO_LIVE);
                }
                claimed |= parents;
            }
        }
        None
    }
}

fn anyone(around: Around, revoke_previous: bool) -> Anyone {
    Anyone { around, table: Table::new(revoke_previous) }
}

/// Proof 2: one holder, whose requests reach any node.
struct SoleHolder {
    around: Around,
    table: Table,
    /// Does a node answer `Reuse` to a token that is ahead?
    blames: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    cluster: Cluster,
    /// The stored generation; 0 without one.
    refresh: u8,
    /// The time since its first exchange, up to the window.
    first: u8,
}

impl World for SoleHolder {
    type State = Held;
    type Event = Event;

    fn start(&self) -> Held {
        Held { cluster: Cluster::new(&self.around), refresh: 1, first: NEVER }
    }

    fn next(&mut self, s: &Held, out: &mut Vec<(Event, Held)>) {
        if s.refresh == 0 {
            return;
        }
        for at in (0..NODES).filter(|at| s.cluster.may_serve(*at, &self.around)) {
            let mut outcome = s.cluster.ask(&mut self.table, at, s.refresh);
            if self.blames && outcome.verdict == Verdict::Refused {
                outcome.verdict = Verdict::Reuse;
            }
            let mut after = *s;
            match outcome.next {
                Some(next) if next.0.current <= self.around.generations => after.cluster.commit(at, next),
                Some(_) => continue,
                None => {}
            }
            let mut lost = after;
            if outcome.verdict.serves() {
                lost.first = if s.first == NEVER { 0 } else { s.first };
                (after.refresh, after.first) = (after.cluster.record.current, NEVER);
            } else {
                (lost.refresh, after.refresh) = (0, 0);
            }
            out.push((Event::PresentAndLose(at, s.refresh, outcome.verdict), lost));
            out.push((Event::Present(at, s.refresh, outcome.verdict), after));
        }
        for at in 0..NODES {
            let mut used = *s;
            used.cluster.used(at, s.refresh);
            out.push((Event::Use(at, s.refresh), used));
        }
        let mut happenings = Vec::new();
        s.cluster.happenings(&self.around, &mut happenings);
        for (what, cluster) in happenings {
            let first = match what {
                Happening::Tick if s.first != NEVER => (s.first + 1).min(WINDOW),
                _ => s.first,
            };
            out.push((Event::Cluster(what), Held { cluster, first, ..*s }));
        }
    }

    fn bad(&mut self, before: &Held, event: &Event, _: &Held) -> Option<&'static str> {
        let (Event::Present(.., verdict) | Event::PresentAndLose(.., verdict)) = event else { return None };
        let in_window = before.first == NEVER || before.first < WINDOW;
        (*verdict == Verdict::Reuse && in_window).then_some(SOLE_HOLDER)
    }
}

fn sole_holder(around: Around, revoke_previous: bool) -> SoleHolder {
    SoleHolder { around, table: Table::new(revoke_previous), blames: false }
}

#[test]
fn r1_proof_1_and_4_hold_on_two_nodes() {
    proves("two nodes", anyone(Around::sound(5, 0), false));
    proves("two nodes, earlier tokens end at once", anyone(Around::sound(4, 0), true));
}

#[test]
fn o5_proof_1_and_4_hold_on_two_nodes_when_the_store_fails_over() {
    proves("two nodes, a failover", anyone(Around::sound(generations(4), 1), false));
}

#[test]
fn o5_proof_1_and_4_hold_when_it_does_and_earlier_tokens_end_at_once_on_both() {
    proves("two nodes, a failover, earlier tokens end at once", anyone(Around::sound(3, 1), true));
}

#[test]
fn o5_proof_2_holds_on_two_nodes_when_the_store_fails_over() {
    proves("sole holder, two nodes", sole_holder(Around::sound(6, 0), false));
    proves("sole holder, two nodes, a failover", sole_holder(Around::sound(generations(5), 1), false));
    proves(
        "sole holder, two nodes, a failover, earlier tokens end at once",
        sole_holder(Around::sound(generations(4), 1), true),
    );
}

#[test]
fn o5_a_node_that_serves_before_the_other_has_put_its_list_back_is_found() {
    let around = Around { serves_at_once: true, ..Around::sound(4, 1) };
    finds("served at once", UNDONE, anyone(around, false));
}

#[test]
fn o5_nodes_that_put_nothing_back_are_found() {
    let around = Around { puts_nothing_back: true, ..Around::sound(4, 1) };
    finds("two nodes, nothing put back", UNDONE, anyone(around, false));
}

#[test]
fn o5_a_node_that_takes_what_is_left_of_the_log_for_all_there_was_is_found() {
    let around = Around { unbroken_by_what_is_left: true, ..Around::sound(4, 1) };
    finds("unbroken by what is left", TWO_LIVE, anyone(around, false));
}

#[test]
fn o5_a_node_that_started_on_a_store_that_had_lost_writes_and_says_nothing_is_found() {
    let around = Around { unbroken_after_restart: true, ..Around::sound(4, 1) };
    finds("unbroken after a restart", TWO_LIVE, anyone(around, false));
}

#[test]
fn o6_a_revocation_that_is_acknowledged_before_every_node_has_it_is_found() {
    let around = Around { acknowledges_early: true, ..Around::sound(3, 0) };
    finds("acknowledged early", UNDONE, anyone(around, false));
}

#[test]
fn a_node_that_takes_a_token_ahead_of_the_store_for_a_reuse_is_found() {
    let world = SoleHolder { blames: true, ..sole_holder(Around::sound(4, 1), false) };
    finds("ahead is blamed", SOLE_HOLDER, world);
}
