//! Proofs 1 and 4: anyone may present and use every issued token at any time, even tokens of lost replies.

use rotogate_core::session::rotation::{Decision, apply_decision, decide};

use super::gate::{Around, Gate, Happening};
use super::search::{World, finds, generations, proves};
use super::table::{Table, Verdict};

const TWO_LIVE: &str = "two live successors of one generation";
const UNDONE: &str = "an acknowledged revocation is undone";
const ABANDONED_PASSES: &str = "an access token of an abandoned generation passes";
const USED_ABANDONED: &str = "a generation that was seen in use is abandoned";

const MOST: usize = 8;

struct Anyone {
    around: Around,
    table: Table,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    gate: Gate,
    /// For each generation, a bit for each generation from which it was issued.
    parents: [u8; MOST],
}

impl State {
    fn issued(&self) -> impl Iterator<Item = u8> {
        (1..MOST as u8).filter(|g| self.parents[usize::from(*g)] != 0)
    }
}

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "what is in it is printed")]
enum Event {
    /// Presented by anyone: the verdict, and whether the list gets its entry late.
    Present(u8, Verdict, Late),
    Use(u8),
    Gate(Happening),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Late {
    No,
    Yes,
}

impl World for Anyone {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        let mut parents = [0; MOST];
        parents[1] = 1;
        State { gate: Gate::new(&self.around), parents }
    }

    fn next(&mut self, s: &State, out: &mut Vec<(Event, State)>) {
        for generation in s.issued() {
            let outcome = s.gate.ask(&mut self.table, generation);
            match outcome.next {
                Some((record, raised)) if record.current <= self.around.generations => {
                    let mut after = *s;
                    after.parents[usize::from(record.current)] |= 1 << generation;
                    for late in [Late::No, Late::Yes] {
                        if late == Late::Yes && (raised.is_none() || s.gate.late != 0) {
                            continue;
                        }
                        let mut after = after;
                        after.gate.commit((record, raised), late == Late::Yes, &self.around);
                        out.push((Event::Present(generation, outcome.verdict, late), after));
                    }
                }
                Some(_) => {}
                None if outcome.verdict == Verdict::Reuse => {
                    let mut after = *s;
                    after.gate.revoke();
                    out.push((Event::Present(generation, outcome.verdict, Late::No), after));
                }
                None => {}
            }
        }
        let mut used = *s;
        used.gate.used(s.gate.record.current);
        out.push((Event::Use(s.gate.record.current), used));
        let mut happenings = Vec::new();
        s.gate.happenings(&self.around, &mut happenings);
        out.extend(happenings.into_iter().map(|(what, gate)| (Event::Gate(what), State { gate, ..*s })));
    }

    fn bad(&mut self, before: &State, event: &Event, after: &State) -> Option<&'static str> {
        if let Event::Present(_, Verdict::Reissue, _) = event
            && before.gate.confirmed()
        {
            return Some(USED_ABANDONED);
        }
        let (gate, record) = (&after.gate, &after.gate.record);
        let mut claimed = 0;
        for generation in after.issued() {
            let verdict = gate.ask(&mut self.table, generation).verdict;
            if verdict.is_live() {
                // Every parent may have one live child.
                let parents = after.parents[usize::from(generation)];
                if claimed & parents != 0 && gate.knows_its_own() {
                    return Some(TWO_LIVE);
                }
                claimed |= parents;
            }
            if gate.acknowledged && (verdict.serves() || gate.passes(generation)) {
                return Some(UNDONE);
            }
            let abandoned = generation > record.previous && generation < record.current;
            if abandoned && gate.late == 0 && gate.passes(generation) {
                return Some(ABANDONED_PASSES);
            }
        }
        None
    }
}

fn anyone(around: Around, revoke_previous: bool) -> Anyone {
    Anyone { around, table: Table::new(revoke_previous) }
}

#[test]
fn r1_proof_1_and_4_hold_while_the_store_keeps_its_writes() {
    proves("anyone, no loss", anyone(Around::sound(7, 0), false));
    proves("anyone, no loss, earlier tokens end at once", anyone(Around::sound(6, 0), true));
}

#[test]
fn o5_proof_1_and_4_hold_when_the_store_loses_its_last_writes() {
    proves("anyone, a loss", anyone(Around::sound(generations(6), 1), false));
}

#[test]
fn o5_proof_1_and_4_hold_when_it_does_and_earlier_tokens_end_at_once() {
    proves("anyone, a loss, earlier tokens end at once", anyone(Around::sound(5, 1), true));
}

#[test]
fn o5_proof_1_and_4_hold_when_the_store_loses_writes_twice() {
    proves("anyone, two losses", anyone(Around::sound(4, 2), false));
}

#[test]
fn accepting_whatever_is_newer_than_the_predecessor_is_found() {
    let mut world = anyone(Around::sound(5, 0), false);
    world.table.decide = |s, presented, facts, now, profile| match decide(s, presented, facts, now, profile) {
        Decision::Reuse(_) if presented > s.previous => Decision::Rotate,
        sound => sound,
    };
    finds("anything newer than the predecessor", TWO_LIVE, world);
}

#[test]
fn a_fast_forward_that_does_not_look_at_the_minimum_is_found() {
    let mut world = anyone(Around::sound(5, 1), false);
    world.table.decide = |s, presented, facts, now, profile| match decide(s, presented, facts, now, profile) {
        Decision::Ahead { .. } if presented > s.current => Decision::Ahead { fast_forward: facts.unbroken_revocations },
        sound => sound,
    };
    finds("a fast-forward without the minimum", TWO_LIVE, world);
}

#[test]
fn a_node_that_says_it_holds_revocations_which_it_lost_is_found() {
    let around = Around { claims_unbroken: true, ..Around::sound(5, 1) };
    finds("unbroken, it says", TWO_LIVE, anyone(around, false));
}

#[test]
fn a_node_that_says_so_from_the_next_change_on_is_found() {
    let around = Around { heals_by_next_change: true, ..Around::sound(6, 1) };
    finds("unbroken since the last change", TWO_LIVE, anyone(around, false));
}

#[test]
fn a_reissue_that_does_not_raise_the_minimum_is_found() {
    let mut world = anyone(Around::sound(5, 0), false);
    world.table.step = |s, decision, presented, pair, now, profile| {
        let mut made = apply_decision(s, decision, presented, pair, now, profile)?;
        if decision == Decision::Reissue {
            made.raised = None;
        }
        Some(made)
    };
    finds("no minimum raised", ABANDONED_PASSES, world);
}

#[test]
fn a_reissue_in_the_place_of_what_was_used_is_found() {
    let mut world = anyone(Around::sound(5, 0), false);
    world.table.decide = |s, presented, facts, now, profile| {
        decide(&rotogate::session::Session { confirmed: false, ..s.clone() }, presented, facts, now, profile)
    };
    finds("confirmations do not count", USED_ABANDONED, world);
}

#[test]
fn a_list_that_replaces_instead_of_merging_is_found() {
    let around = Around { list_replaces: true, ..Around::sound(4, 0) };
    finds("replaced, not merged", UNDONE, anyone(around, true));
}

#[test]
fn a_store_that_loses_acknowledged_revocations_is_found() {
    let around = Around { forgets_revocations: true, ..Around::sound(4, 1) };
    finds("revocations forgotten", UNDONE, anyone(around, false));
}

#[test]
fn a_node_that_does_not_put_its_list_back_is_found() {
    let around = Around { puts_nothing_back: true, ..Around::sound(4, 1) };
    finds("nothing put back", UNDONE, anyone(around, false));
}
