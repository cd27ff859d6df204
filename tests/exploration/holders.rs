//! Proofs 2 and 3: a victim that stores the received tokens, and a thief that may copy the refresh token at any time.

use rotogate_core::session::rotation::{Decision, apply_decision, decide};

use super::gate::{Around, Gate, Happening};
use super::search::{World, finds, generations, proves};
use super::table::{GRACE, Table, Verdict, WINDOW};
use rotogate::session::Generation;

const SOLE_HOLDER: &str = "the sole holder is answered Reuse inside the window";
const SHARED: &str = "victim and thief both hold live tokens after two further rotations";

/// The holder has not exchanged its token.
const NEVER: u8 = u8::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Holder {
    /// The stored generation; 0 without one.
    refresh: u8,
    access: u8,
    /// The time since the gate first exchanged that refresh token for this holder, up to the window. Only for proof 2.
    first: u8,
    /// The time since the holder last presented a token, up to grace.
    acted: u8,
}

impl Holder {
    fn tick(&mut self) {
        if self.first != NEVER {
            self.first = (self.first + 1).min(WINDOW);
        }
        self.acted = (self.acted + 1).min(GRACE);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    gate: Gate,
    victim: Holder,
    thief: Holder,
    stolen: bool,
    /// The highest generation that anyone has received.
    received: u8,
    /// The number of new tokens received since the theft or the last loss of writes, up to two.
    rotations: u8,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Victim,
    Thief,
}

#[derive(Clone, Copy, Debug)]
#[expect(dead_code, reason = "what is in it is printed")]
enum Event {
    /// A refresh whose reply arrives.
    Present(Who, u8, Verdict),
    /// An executed refresh whose reply is lost, or whose receiver crashes before it has stored the reply.
    PresentAndLose(Who, u8, Verdict),
    Use(Who, u8),
    Steal,
    Gate(Happening),
}

struct Holders {
    around: Around,
    table: Table,
    /// Is there a thief?
    thief: bool,
    /// Do thief and victim never act within each other's grace?
    apart: bool,
    /// Does the victim store the new refresh token before it uses the new access token?
    stores_first: bool,
    /// Does a reuse end the session, or is it only refused?
    reuse_revokes: bool,
    /// Is the access token the refresh token, so that the thief can use it on a route?
    one_token: bool,
}

impl State {
    fn holder(&mut self, who: Who) -> &mut Holder {
        match who {
            Who::Victim => &mut self.victim,
            Who::Thief => &mut self.thief,
        }
    }
}

impl Holders {
    /// A crash before the write changes nothing, and is not an event for that reason.
    fn refresh(&mut self, s: &State, who: Who, out: &mut Vec<(Event, State)>) {
        let (own, other) = match who {
            Who::Victim => (s.victim, s.thief),
            Who::Thief => (s.thief, s.victim),
        };
        if own.refresh == 0 || (self.apart && s.stolen && other.acted < GRACE) {
            return;
        }
        let outcome = s.gate.ask(&mut self.table, own.refresh);
        let mut after = *s;
        after.holder(who).acted = 0;
        if let Some(next) = outcome.next {
            if next.0.current > self.around.generations {
                return;
            }
            after.gate.commit(next, false, &self.around);
        }
        if outcome.verdict == Verdict::Reuse && self.reuse_revokes {
            after.gate.revoke();
        }
        let mut lost = after;
        if outcome.verdict.serves() && own.first == NEVER && !self.thief {
            lost.holder(who).first = 0;
        }
        out.push((Event::PresentAndLose(who, own.refresh, outcome.verdict), lost));
        if outcome.verdict.serves() && !self.stores_first {
            // The holder uses the access token and crashes.
            lost.holder(who).access = lost.gate.record.current;
            out.push((Event::PresentAndLose(who, own.refresh, outcome.verdict), lost));
        }

        if outcome.verdict.serves() {
            let got = after.gate.record.current;
            *after.holder(who) = Holder { refresh: got, access: got, first: NEVER, acted: 0 };
            if got > after.received {
                after.received = got;
                after.rotations = (after.rotations + 1).min(2);
            }
        } else {
            after.holder(who).refresh = 0;
        }
        out.push((Event::Present(who, own.refresh, outcome.verdict), after));
    }
}

impl World for Holders {
    type State = State;
    type Event = Event;

    fn start(&self) -> State {
        let victim = Holder { refresh: 1, access: 1, first: NEVER, acted: GRACE };
        let thief = Holder { refresh: 0, access: 0, ..victim };
        State { gate: Gate::new(&self.around), victim, thief, stolen: false, received: 1, rotations: 0 }
    }

    fn next(&mut self, s: &State, out: &mut Vec<(Event, State)>) {
        if s.gate.acknowledged {
            // The session has ended permanently: proof 4.
            return;
        }
        for who in [Who::Victim, Who::Thief] {
            self.refresh(s, who, out);
            let mut after = *s;
            let access = after.holder(who).access;
            after.gate.used(access);
            if after != *s {
                out.push((Event::Use(who, access), after));
            }
        }
        if self.thief && !s.stolen && s.victim.refresh != 0 {
            let access = if self.one_token { s.victim.refresh } else { s.thief.access };
            let thief = Holder { refresh: s.victim.refresh, access, ..s.thief };
            out.push((Event::Steal, State { thief, stolen: true, rotations: 0, ..*s }));
        }
        let mut happenings = Vec::new();
        s.gate.happenings(&self.around, &mut happenings);
        for (what, gate) in happenings {
            let mut after = State { gate, ..*s };
            match what {
                Happening::Tick => {
                    after.victim.tick();
                    after.thief.tick();
                }
                Happening::WritesLostListKept | Happening::WritesLostAndListToo => after.rotations = 0,
                Happening::ConfirmationsWritten
                | Happening::ConfirmationsLost
                | Happening::LateEntryArrives
                | Happening::Restart
                | Happening::Revocation
                | Happening::RevocationThatTheStoreRefuses
                | Happening::WritesAreSafe => {}
            }
            out.push((Event::Gate(what), after));
        }
    }

    fn bad(&mut self, before: &State, event: &Event, after: &State) -> Option<&'static str> {
        if !self.thief
            && let Event::Present(_, _, Verdict::Reuse) | Event::PresentAndLose(_, _, Verdict::Reuse) = event
            && (before.victim.first == NEVER || before.victim.first < WINDOW)
        {
            return Some(SOLE_HOLDER);
        }
        if after.rotations < 2 || !after.stolen {
            return None;
        }
        let holders = [after.victim.refresh, after.thief.refresh];
        let both = holders.iter().all(|g| *g != 0 && after.gate.ask(&mut self.table, *g).verdict.serves());
        both.then_some(SHARED)
    }
}

fn sole_holder(around: Around, revoke_previous: bool) -> Holders {
    Holders { thief: false, ..with_thief(around, revoke_previous) }
}

fn with_thief(around: Around, revoke_previous: bool) -> Holders {
    let table = Table::new(revoke_previous);
    Holders { around, table, thief: true, apart: true, stores_first: true, reuse_revokes: true, one_token: false }
}

#[test]
fn proof_2_a_sole_holder_is_never_answered_reuse_inside_the_windows() {
    proves("sole holder", sole_holder(Around::sound(8, 0), false));
    proves("sole holder, earlier tokens end at once", sole_holder(Around::sound(8, 0), true));
    proves("sole holder, a loss", sole_holder(Around::sound(6, 1), false));
    proves("sole holder, a loss, earlier tokens end at once", sole_holder(Around::sound(5, 1), true));
}

#[test]
fn proof_3_victim_and_thief_do_not_both_go_on() {
    proves("thief and victim", with_thief(Around::sound(7, 0), false));
    proves("thief and victim, earlier tokens end at once", with_thief(Around::sound(6, 0), true));
    let refused = Holders { reuse_revokes: false, ..with_thief(Around::sound(6, 0), false) };
    proves("thief and victim, a reuse is only refused", refused);
}

/// Kuzzle's rules: a rotation ends the token before it, and a reuse is only refused.
#[test]
fn proof_3_holds_where_the_access_token_is_the_refresh_token() {
    for losses in [0, 1] {
        let around = Around::sound(if losses == 0 { 6 } else { generations(5) }, losses);
        let world = Holders { reuse_revokes: false, one_token: true, ..with_thief(around, true) };
        proves("thief and victim, one token", world);
    }
}

#[test]
fn proof_3_holds_when_the_store_loses_its_last_writes() {
    proves("thief and victim, a loss", with_thief(Around::sound(generations(5), 1), false));
}

#[test]
fn the_conditions_of_proofs_2_and_3_are_needed() {
    let careless = Holders { stores_first: false, ..sole_holder(Around::sound(6, 0), false) };
    finds("the access token is used first", SOLE_HOLDER, careless);
    let together = Holders { apart: false, ..with_thief(Around::sound(6, 0), false) };
    finds("within each other's grace", SHARED, together);
}

#[test]
fn a_generation_that_is_born_confirmed_is_found() {
    let mut world = sole_holder(Around::sound(6, 0), false);
    world.table.step = |s, decision, presented, pair, now, profile| {
        let mut made = apply_decision(s, decision, presented, pair, now, profile)?;
        made.record.confirmed = true;
        Some(made)
    };
    finds("born confirmed", SOLE_HOLDER, world);
}

#[test]
fn a_reissue_that_moves_the_predecessor_is_found() {
    let mut world = sole_holder(Around::sound(6, 0), false);
    world.table.step = |s, decision, presented, pair, now, profile| {
        let mut made = apply_decision(s, decision, presented, pair, now, profile)?;
        made.record.previous = s.current;
        Some(made)
    };
    finds("the predecessor moves with a reissue", SOLE_HOLDER, world);
}

#[test]
fn a_confirmation_of_another_generation_is_found() {
    let around = Around { confirms_any: true, ..Around::sound(6, 0) };
    finds("confirmations of any generation", SOLE_HOLDER, sole_holder(around, false));
}

#[test]
fn a_table_without_replay_is_found() {
    let mut world = sole_holder(Around::sound(6, 0), false);
    world.table.decide = |s, presented, facts, now, profile| match decide(s, presented, facts, now, profile) {
        Decision::Replay => {
            Decision::Reuse(rotogate_core::session::rotation::Reuse { generations_old: 1, superseded_for: None })
        }
        sound => sound,
    };
    finds("no replay", SOLE_HOLDER, world);
}

#[test]
fn replay_in_the_place_of_reissue_is_found() {
    let mut world = with_thief(Around::sound(6, 0), false);
    world.table.decide = |s, presented, facts, now, profile| match decide(s, presented, facts, now, profile) {
        Decision::Reissue => Decision::Replay,
        sound => sound,
    };
    finds("replay in the place of reissue", SHARED, world);
}

#[test]
fn a_rotation_that_keeps_an_older_predecessor_is_found() {
    let mut world = with_thief(Around::sound(6, 0), false);
    world.table.step = |s, decision, presented, pair, now, profile| {
        let mut made = apply_decision(s, decision, presented, pair, now, profile)?;
        if decision == Decision::Rotate && s.previous != Generation::NONE {
            made.record.previous = s.previous;
        }
        Some(made)
    };
    finds("the predecessor stays", SHARED, world);
}
