//! The checker of recorded histories, which judges what clients of several gates saw: it accepts a legal history, and
//! rejects each planted fault.

use std::time::Duration;

use support::history::{KEY_LIFETIME, Loss, Operation, Pair, Reply, Request, Rule, Rules, judge, judge_with_losses};

const A: usize = 0;
const B: usize = 1;

const RULES: Rules = Rules { grace: Duration::from_secs(10), staleness: Duration::from_secs(2), ..Rules::STRICT };
const NO_GRACE: Rules = Rules { grace: Duration::ZERO, ..RULES };

/// An operation of session 0 between two moments, in tenths of a second.
fn op(gate: usize, (begin, end): (u64, u64), request: Request, reply: Reply) -> Operation {
    let at = |tenths| Duration::from_millis(100 * tenths);
    Operation { session: 0, gate, begin: at(begin), end: at(end), request, reply }
}

fn login() -> Operation {
    op(A, (0, 1), Request::LogIn, Reply::Issued(0))
}

fn rotation(gate: usize, when: (u64, u64), shown: Pair, got: Pair) -> Operation {
    op(gate, when, Request::Refresh(shown), Reply::Issued(got))
}

fn broken(rules: &Rules, operations: &[Operation]) -> Rule {
    judge(operations, rules).unwrap_err().rule
}

fn legal(rules: &Rules, operations: &[Operation]) {
    judge(operations, rules).unwrap_or_else(|verdict| panic!("{:?}\n{}", verdict.rule, verdict.text));
}

#[test]
fn c6_a_legal_history_with_outcomes_in_doubt_is_accepted() {
    legal(
        &RULES,
        &[
            login(),
            // The reply was lost; the repetition at another gate gets the issued pair.
            op(A, (2, 9), Request::Refresh(0), Reply::InDoubt),
            rotation(B, (10, 11), 0, 1),
            rotation(A, (12, 13), 0, 1),
            // Two concurrent refreshes.
            rotation(A, (20, 25), 1, 2),
            rotation(B, (21, 24), 1, 2),
            op(B, (26, 27), Request::Access(1), Reply::Accepted),
            // The operation without an answer had no effect.
            op(B, (30, 40), Request::Refresh(2), Reply::InDoubt),
            rotation(A, (41, 42), 2, 3),
            // The revocation holds at this gate, and the other gate does not know it yet.
            op(A, (50, 55), Request::LogOut(3), Reply::InDoubt),
            op(A, (56, 57), Request::Access(3), Reply::Refused),
            op(A, (56, 57), Request::Refresh(3), Reply::Refused),
            op(B, (58, 59), Request::Access(3), Reply::Accepted),
            rotation(B, (60, 61), 3, 4),
            op(B, (70, 71), Request::LogOut(4), Reply::Accepted),
            // Within the staleness.
            op(A, (72, 80), Request::Access(4), Reply::Accepted),
            op(A, (72, 80), Request::Access(4), Reply::InDoubt),
            op(B, (92, 93), Request::Access(4), Reply::Refused),
            op(B, (92, 93), Request::Refresh(4), Reply::Refused),
        ],
    );
}

#[test]
fn c6_a_rotation_in_doubt_may_be_done_or_not() {
    let doubt = op(A, (2, 9), Request::Refresh(0), Reply::InDoubt);
    legal(&NO_GRACE, &[login(), doubt, rotation(B, (10, 11), 0, 1)]);
    legal(&NO_GRACE, &[login(), doubt, op(B, (10, 11), Request::Refresh(0), Reply::Refused)]);
    // This refresh began after the answer to the first repetition.
    let late = op(A, (20, 29), Request::Refresh(0), Reply::InDoubt);
    assert_eq!(
        broken(&NO_GRACE, &[login(), op(B, (10, 11), Request::Refresh(0), Reply::Refused), late]),
        Rule::OneOrder
    );
}

#[test]
fn c6_a_reuse_ends_the_session() {
    let reuse = op(B, (150, 151), Request::Refresh(0), Reply::Refused);
    let rotated = rotation(A, (2, 3), 0, 1);
    legal(&RULES, &[login(), rotated, reuse, op(A, (152, 153), Request::Refresh(1), Reply::Refused)]);
    assert_eq!(broken(&RULES, &[login(), rotated, reuse, rotation(A, (152, 153), 1, 2)]), Rule::OneOrder);
    let early = op(B, (10, 11), Request::Refresh(0), Reply::Refused);
    assert_eq!(broken(&RULES, &[login(), rotated, early]), Rule::OneOrder, "within grace");
}

#[test]
fn c6_a_forked_successor_is_rejected() {
    assert_eq!(broken(&RULES, &[login(), rotation(A, (2, 5), 0, 1), rotation(B, (3, 4), 0, 2)]), Rule::OneSuccessor);
    // The first of two successors is known only by its own successor.
    let doubt = op(A, (2, 5), Request::Refresh(0), Reply::InDoubt);
    let fork = [login(), doubt, rotation(B, (6, 7), 0, 1), rotation(A, (8, 9), 1, 2), rotation(B, (10, 11), 0, 2)];
    assert_eq!(broken(&RULES, &fork), Rule::OnePlace);
    let other = Operation { session: 1, ..login() };
    assert_eq!(broken(&RULES, &[login(), other]), Rule::OnePlace, "the pair of another session");
}

#[test]
fn c6_a_revived_revocation_is_rejected() {
    let ended = op(A, (2, 3), Request::LogOut(0), Reply::Accepted);
    assert_eq!(broken(&RULES, &[login(), ended, rotation(B, (4, 5), 0, 1)]), Rule::OneOrder);
    legal(&RULES, &[login(), ended, rotation(B, (2, 5), 0, 1)]);
    // The outcome was unknown until another gate refused.
    let doubt = op(A, (2, 3), Request::LogOut(0), Reply::InDoubt);
    let refused = op(B, (4, 5), Request::Refresh(0), Reply::Refused);
    legal(&RULES, &[login(), doubt, refused]);
    assert_eq!(broken(&RULES, &[login(), doubt, refused, rotation(B, (6, 7), 0, 1)]), Rule::OneOrder);
}

#[test]
fn c6_a_lost_acknowledgement_is_rejected() {
    let rotated = rotation(A, (2, 3), 0, 1);
    let refused = op(B, (4, 5), Request::Refresh(1), Reply::Refused);
    assert_eq!(broken(&RULES, &[login(), rotated, refused]), Rule::OneOrder, "a rotation");
    assert_eq!(
        broken(&RULES, &[login(), op(B, (4, 5), Request::Refresh(0), Reply::Refused)]),
        Rule::OneOrder,
        "a login"
    );
    let access = op(B, (4, 5), Request::Access(1), Reply::Refused);
    assert_eq!(broken(&RULES, &[login(), rotated, access]), Rule::AcceptedWhileLive);
    // An operation with an unknown outcome at another gate does not explain the refusal.
    let doubt = op(A, (3, 4), Request::Refresh(1), Reply::InDoubt);
    assert_eq!(broken(&RULES, &[login(), rotated, doubt, access]), Rule::AcceptedWhileLive);
}

#[test]
fn c6_an_ancestors_replay_is_rejected() {
    let (first, second) = (rotation(A, (2, 3), 0, 1), rotation(A, (4, 5), 1, 2));
    assert_eq!(broken(&RULES, &[login(), first, second, rotation(B, (6, 7), 0, 1)]), Rule::OneOrder);
    assert_eq!(broken(&RULES, &[login(), first, rotation(B, (150, 151), 0, 1)]), Rule::OneOrder, "after grace");
    legal(&RULES, &[login(), first, rotation(B, (50, 51), 0, 1)]);
    assert_eq!(broken(&NO_GRACE, &[login(), first, rotation(B, (4, 5), 0, 1)]), Rule::OneOrder);
}

#[test]
fn c6_a_late_acceptance_is_rejected() {
    let ended = op(A, (2, 3), Request::LogOut(0), Reply::Accepted);
    legal(&RULES, &[login(), ended, op(B, (23, 30), Request::Access(0), Reply::Accepted)]);
    let late = op(B, (24, 30), Request::Access(0), Reply::Accepted);
    assert_eq!(broken(&RULES, &[login(), ended, late]), Rule::RefusedInTime);
    // A reuse is a revocation as well.
    let (rotated, reuse) = (rotation(A, (2, 3), 0, 1), op(B, (150, 151), Request::Refresh(0), Reply::Refused));
    let late = op(A, (172, 173), Request::Access(1), Reply::Accepted);
    assert_eq!(broken(&RULES, &[login(), rotated, reuse, late]), Rule::RefusedInTime);
}

#[test]
fn c6_c9_a_request_that_was_held_and_ended_its_session_is_rejected() {
    let went_on = [login(), rotation(B, (10, 11), 0, 1), rotation(B, (12, 13), 1, 2)];
    let history = |held: Operation| {
        let after = [rotation(B, (85, 86), 2, 3), held, op(B, (120, 121), Request::Refresh(3), Reply::Refused)];
        [went_on.as_slice(), &after].concat()
    };
    assert_eq!(broken(&RULES, &history(op(A, (2, 100), Request::Refresh(0), Reply::Refused))), Rule::OneOrder);
    // The client had given up.
    assert_eq!(broken(&RULES, &history(op(A, (2, 9), Request::Refresh(0), Reply::InDoubt))), Rule::OneOrder);
    legal(&RULES, &history(op(A, (90, 100), Request::Refresh(0), Reply::Refused)));
    legal(&RULES, &history(op(A, (90, 100), Request::Refresh(0), Reply::InDoubt)));
}

fn made() -> Operation {
    op(A, (0, 1), Request::MakeKey, Reply::Issued(0))
}

fn used(gate: usize, when: (u64, u64), reply: Reply) -> Operation {
    op(gate, when, Request::UseKey(0), reply)
}

fn replaced(when: (u64, u64), overlap: u64, reply: Reply) -> Operation {
    op(A, when, Request::ReplaceKey(0, Duration::from_secs(overlap)), reply)
}

#[test]
fn k4_k7_a_legal_life_of_a_key_is_accepted() {
    let revoked = op(A, (50, 51), Request::RevokeKey(0), Reply::Accepted);
    let doubt = op(A, (40, 41), Request::RevokeKey(0), Reply::InDoubt);
    legal(
        &RULES,
        &[
            made(),
            used(B, (2, 3), Reply::Accepted),
            used(B, (4, 9), Reply::InDoubt),
            // Replaced with an overlap of two seconds; a second request comes too late.
            replaced((10, 12), 2, Reply::Issued(1)),
            replaced((11, 13), 2, Reply::Refused),
            used(B, (20, 21), Reply::Accepted),
            // The first gate knows of the revocation, the other does not yet.
            doubt,
            used(A, (42, 43), Reply::Refused),
            used(B, (44, 45), Reply::Accepted),
            revoked,
            used(B, (52, 53), Reply::Accepted),
            used(B, (72, 73), Reply::Refused),
        ],
    );
    // At its end.
    let seconds = KEY_LIFETIME.as_secs() * 10;
    legal(&RULES, &[made(), used(A, (seconds, seconds + 1), Reply::Refused)]);
    legal(&RULES, &[made(), used(A, (seconds, seconds + 1), Reply::Accepted)]);
}

#[test]
fn k4_k7_each_fault_in_the_life_of_a_key_is_rejected() {
    let revoked = op(A, (10, 12), Request::RevokeKey(0), Reply::Accepted);
    assert_eq!(broken(&RULES, &[made(), used(B, (2, 3), Reply::Refused)]), Rule::AcceptedWhileLive, "lost");
    assert_eq!(broken(&RULES, &[made(), revoked, used(B, (33, 34), Reply::Accepted)]), Rule::RefusedInTime);
    let doubt = op(A, (5, 6), Request::RevokeKey(0), Reply::InDoubt);
    legal(&RULES, &[made(), doubt, used(B, (90, 91), Reply::Accepted)]);
    assert_eq!(broken(&RULES, &[made(), used(B, (2, 4), Reply::Refused), doubt]), Rule::AcceptedWhileLive, "too early");
    // A replaced key lives for the overlap, and no longer.
    let rotated = replaced((10, 12), 5, Reply::Issued(1));
    assert_eq!(broken(&RULES, &[made(), rotated, used(B, (20, 40), Reply::Refused)]), Rule::AcceptedWhileLive);
    legal(&RULES, &[made(), rotated, used(B, (70, 71), Reply::Refused)]);
    assert_eq!(broken(&RULES, &[made(), rotated, used(B, (93, 94), Reply::Accepted)]), Rule::RefusedInTime);
    let at_once = replaced((10, 12), 0, Reply::Issued(1));
    assert_eq!(broken(&RULES, &[made(), at_once, used(B, (33, 34), Reply::Accepted)]), Rule::RefusedInTime);
    // Two successors, one after the revocation, and none of a live key.
    assert_eq!(broken(&RULES, &[made(), rotated, replaced((11, 13), 5, Reply::Issued(2))]), Rule::OneSuccessor);
    assert_eq!(broken(&RULES, &[made(), revoked, replaced((13, 14), 0, Reply::Issued(1))]), Rule::OneOrder);
    assert_eq!(broken(&RULES, &[made(), replaced((2, 3), 0, Reply::Refused)]), Rule::AcceptedWhileLive);
    // It outlives its end, and it is made twice.
    let late = KEY_LIFETIME.as_secs() * 10 + 35;
    assert_eq!(broken(&RULES, &[made(), used(A, (late, late + 1), Reply::Accepted)]), Rule::RefusedInTime);
    assert_eq!(broken(&RULES, &[made(), Operation { session: 1, ..made() }]), Rule::OnePlace);
}

/// The store fails over after the first second, and the gates have written back after three.
const LOSS: Loss = Loss { at: Duration::from_secs(1), restored: Duration::from_secs(3) };

fn broken_by_a_loss(operations: &[Operation]) -> Rule {
    judge_with_losses(operations, &RULES, &[LOSS]).unwrap_err().rule
}

fn legal_with_a_loss(operations: &[Operation]) {
    judge_with_losses(operations, &RULES, &[LOSS])
        .unwrap_or_else(|verdict| panic!("{:?}\n{}", verdict.rule, verdict.text));
}

#[test]
fn r29_a_session_that_the_store_lost_may_be_unknown_and_come_back_or_be_gone() {
    let unknown = op(B, (12, 13), Request::Refresh(0), Reply::Refused);
    let passes = op(B, (45, 46), Request::Access(0), Reply::Accepted);
    legal_with_a_loss(&[login(), unknown, rotation(A, (31, 32), 0, 1)]);
    assert_eq!(broken(&RULES, &[login(), unknown, rotation(A, (31, 32), 0, 1)]), Rule::OneOrder, "without a loss");
    // The session is lost for ever, without a revocation.
    let gone = op(A, (41, 42), Request::Refresh(0), Reply::Refused);
    legal_with_a_loss(&[login(), unknown, gone, passes]);
    assert_eq!(broken_by_a_loss(&[login(), gone, rotation(B, (43, 44), 0, 1)]), Rule::OneOrder, "gone, and back");
    // A session that began after the loss was not lost.
    let later = op(A, (35, 36), Request::LogIn, Reply::Issued(0));
    let refused = op(B, (41, 42), Request::Refresh(0), Reply::Refused);
    assert_eq!(broken_by_a_loss(&[later, refused]), Rule::OneOrder);
}

#[test]
fn r29_a_logout_of_a_session_that_the_store_lost_holds_when_it_comes_back() {
    let ended = op(B, (15, 16), Request::LogOut(0), Reply::Accepted);
    legal_with_a_loss(&[login(), ended, op(A, (17, 18), Request::Refresh(0), Reply::Refused)]);
    // The planted fault: the logout found no record, and wrote nothing; then another gate wrote the record back.
    assert_eq!(broken_by_a_loss(&[login(), ended, rotation(A, (31, 32), 0, 1)]), Rule::OneOrder);
    let passes = op(A, (40, 41), Request::Access(0), Reply::Accepted);
    assert_eq!(broken_by_a_loss(&[login(), ended, passes]), Rule::RefusedInTime);
}

#[test]
fn r29_a_logout_that_a_loss_or_a_restart_takes_back_is_rejected() {
    // The planted fault: the end was acknowledged, and only the process knew of it.
    let ended = op(A, (5, 6), Request::LogOut(0), Reply::Accepted);
    assert_eq!(broken(&RULES, &[login(), ended, rotation(A, (100, 101), 0, 1)]), Rule::OneOrder, "a restart");
    assert_eq!(broken_by_a_loss(&[login(), ended, rotation(B, (31, 32), 0, 1)]), Rule::OneOrder, "a loss");
    let passes = op(B, (50, 51), Request::Access(0), Reply::Accepted);
    assert_eq!(broken_by_a_loss(&[login(), ended, passes]), Rule::RefusedInTime);
    // An operation without an answer may have been executed or not.
    let doubt = op(A, (5, 6), Request::LogOut(0), Reply::InDoubt);
    legal_with_a_loss(&[login(), doubt, rotation(B, (31, 32), 0, 1)]);
}

#[test]
fn r29_a_superseded_token_that_a_loss_makes_current_again_is_rejected() {
    let (first, second) = (rotation(A, (2, 3), 0, 1), rotation(B, (6, 7), 1, 2));
    // The newer record may be gone; the client then logs in again.
    legal_with_a_loss(&[login(), first, second, op(A, (31, 32), Request::Refresh(2), Reply::Refused)]);
    // The planted fault: an older record was written back over the newer one, and its token rotates a second time.
    assert_eq!(broken_by_a_loss(&[login(), first, second, rotation(A, (31, 32), 1, 3)]), Rule::OneSuccessor);
    assert_eq!(broken_by_a_loss(&[login(), first, second, rotation(A, (31, 32), 0, 3)]), Rule::OneSuccessor);
}

/// A lost response is answered for an hour.
const LASTING: Rules = Rules { lost_response_window: Duration::from_secs(3600), ..RULES };
/// Kuzzle's rules.
const ONE_TOKEN: Rules = Rules { reuse_ends: false, ends_previous: true, ..LASTING };

fn access(when: (u64, u64), pair: Pair, reply: Reply) -> Operation {
    op(B, when, Request::Access(pair), reply)
}

fn is_known(when: (u64, u64), pair: Pair) -> Operation {
    op(A, when, Request::Confirmed(pair), Reply::Accepted)
}

fn refused(when: (u64, u64), shown: Pair) -> Operation {
    op(A, when, Request::Refresh(shown), Reply::Refused)
}

#[test]
fn c6_a_pair_that_nobody_used_may_be_replaced() {
    let doubt = op(A, (2, 9), Request::Refresh(0), Reply::InDoubt);
    for rules in [&LASTING, &ONE_TOKEN] {
        // The response was lost. After grace, the old token gets another pair, whose response arrives.
        legal(rules, &[login(), doubt, rotation(B, (150, 151), 0, 1), access((152, 153), 1, Reply::Accepted)]);
        // The second one was lost as well, and came at last, again and again.
        let (first, second) = (rotation(A, (2, 3), 0, 1), rotation(B, (150, 151), 0, 2));
        let again = rotation(A, (160, 161), 0, 2);
        let third = rotation(A, (300, 301), 0, 3);
        let went_on = [access((303, 304), 2, Reply::Refused), rotation(B, (305, 306), 3, 4)];
        legal(rules, &[[login(), first, second, again, third].as_slice(), &went_on].concat());
        // All access tokens before the new pair end with it.
        let earlier = [login(), rotation(A, (2, 3), 0, 1), rotation(A, (4, 5), 1, 2), rotation(B, (150, 151), 1, 3)];
        legal(rules, &[earlier.as_slice(), &[access((152, 153), 0, Reply::Refused)]].concat());
        let new = access((152, 153), 3, Reply::Refused);
        assert_eq!(broken(rules, &[earlier.as_slice(), &[new]].concat()), Rule::AcceptedWhileLive);
        // The use was not known yet where the old token was presented.
        let unknown = access((140, 141), 1, Reply::Accepted);
        legal(rules, &[login(), first, unknown, second, access((152, 153), 1, Reply::Refused)]);
        legal(rules, &[login(), first, unknown, refused((150, 151), 0)]);
        // An exchange in doubt may have replaced the pair.
        let doubt = op(A, (150, 155), Request::Refresh(0), Reply::InDoubt);
        legal(rules, &[login(), first, doubt, access((160, 161), 1, Reply::Refused), again]);
    }
}

#[test]
fn c6_a_window_that_never_closes_is_rejected() {
    let (first, late) = (rotation(A, (2, 3), 0, 1), rotation(B, (150, 151), 0, 2));
    let used = [access((4, 5), 1, Reply::Accepted), is_known((8, 9), 1)];
    for rules in [&LASTING, &ONE_TOKEN] {
        assert_eq!(broken(rules, &[login(), first, used[0], used[1], late]), Rule::OneOrder, "by use");
        assert_eq!(broken(rules, &[login(), first, rotation(B, (8, 9), 1, 3), late]), Rule::OneOrder, "by a refresh");
        let after = rotation(B, (36_150, 36_151), 0, 2);
        assert_eq!(broken(rules, &[login(), first, after]), Rule::OneOrder, "by time");
        legal(rules, &[login(), first, refused((36_150, 36_151), 0)]);
    }
}

#[test]
fn c6_a_window_that_closes_too_early_is_rejected() {
    let first = rotation(A, (2, 3), 0, 1);
    for rules in [&LASTING, &ONE_TOKEN] {
        assert_eq!(broken(rules, &[login(), first, refused((150, 151), 0)]), Rule::OneOrder);
        let used_later = access((160, 161), 1, Reply::Accepted);
        assert_eq!(broken(rules, &[login(), first, refused((150, 151), 0), used_later]), Rule::OneOrder);
    }
}

#[test]
fn c6_a_pair_that_is_repeated_beyond_grace_or_comes_back_is_rejected() {
    let (first, second) = (rotation(A, (2, 3), 0, 1), rotation(B, (150, 151), 0, 2));
    for rules in [&LASTING, &ONE_TOKEN] {
        assert_eq!(broken(rules, &[login(), first, rotation(B, (150, 151), 0, 1)]), Rule::OneOrder, "byte for byte");
        assert_eq!(broken(rules, &[login(), first, rotation(B, (50, 51), 0, 2)]), Rule::OneOrder, "a fork in grace");
        let back = rotation(A, (300, 301), 0, 1);
        assert_eq!(broken(rules, &[login(), first, second, back]), Rule::OneOrder, "the abandoned pair");
        let abandoned = rotation(A, (160, 161), 1, 3);
        assert_eq!(broken(rules, &[login(), first, second, abandoned]), Rule::OneOrder, "its token is exchanged");
    }
}

#[test]
fn c6_an_old_token_that_works_on_a_route_is_rejected() {
    let (first, second) = (rotation(A, (2, 3), 0, 1), rotation(B, (150, 151), 0, 2));
    let abandoned = access((172, 173), 1, Reply::Accepted);
    for rules in [&LASTING, &ONE_TOKEN] {
        assert_eq!(broken(rules, &[login(), first, second, abandoned]), Rule::RefusedInTime, "nobody used it");
    }
    let previous = access((30, 31), 0, Reply::Accepted);
    assert_eq!(broken(&ONE_TOKEN, &[login(), first, previous]), Rule::RefusedInTime);
    legal(&LASTING, &[login(), first, previous]);
    let early = access((0, 1), 0, Reply::Refused);
    assert_eq!(broken(&ONE_TOKEN, &[login(), first, early]), Rule::AcceptedWhileLive);
    let previous = access((30, 31), 0, Reply::Refused);
    legal(&ONE_TOKEN, &[login(), first, previous]);
    assert_eq!(broken(&LASTING, &[login(), first, previous]), Rule::AcceptedWhileLive);
}

#[test]
fn c6_a_reuse_that_is_only_denied_leaves_the_session() {
    let first = [login(), rotation(A, (2, 3), 0, 1), access((4, 5), 1, Reply::Accepted), refused((150, 151), 0)];
    let passes = [access((180, 181), 1, Reply::Accepted), rotation(A, (182, 183), 1, 2)];
    legal(&ONE_TOKEN, &[first.as_slice(), &passes].concat());
    assert_eq!(broken(&LASTING, &[first.as_slice(), &passes].concat()), Rule::RefusedInTime);
    let stopped = [access((152, 153), 1, Reply::Refused)];
    assert_eq!(broken(&ONE_TOKEN, &[first.as_slice(), &stopped].concat()), Rule::AcceptedWhileLive);
    legal(&LASTING, &[first.as_slice(), &stopped].concat());
}
