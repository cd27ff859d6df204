//! The rows of the table. `tests/exploration/` explores the table exhaustively.

use super::*;
use crate::session::{RevokedBecause, Scope, Seal, SessionId, SessionSecret};

const CREATED: Timestamp = Timestamp::from_secs(1_732_000_000);
/// When the session below was last rotated.
const ROTATED: Timestamp = CREATED.plus(secs(3600));

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn pair(access_expires: Timestamp) -> LastPair {
    LastPair { scope: Scope::default(), access_expires, kid: "k1".into(), refresh_key: 1 }
}

/// At generation 5, from 4, unconfirmed.
fn session() -> Session {
    let expires = ROTATED.plus(secs(600));
    Session {
        bound_to: None,
        certificate: None,
        browser: None,
        seal: Seal::default(),
        resource: None,
        vouched_by: None,
        id: SessionId::new(CREATED, [7; 10]),
        secret: SessionSecret::new([9; 16]),
        subject: "ada".into(),
        account: None,
        client: "web".into(),
        scope: Scope::default(),
        dialect: "oauth2".into(),
        expires: CREATED.plus(secs(30 * 86_400)),
        latest_access_expires: expires,
        current: Generation::new(5),
        previous: Generation::new(4),
        rotated_at: ROTATED,
        issued_at: ROTATED,
        confirmed: false,
        last: pair(expires),
        status: Status::Live,
        revision: 17,
        user_agent: None,
        address: None,
        claims: crate::claim::OwnClaims::default(),
    }
}

const KNOWN: Facts = Facts {
    user_active: true,
    sessions_valid_from: Timestamp::ZERO,
    minimum_known: Generation::NONE,
    unbroken_revocations: true,
};

fn at(s: &Session, generation: Generation, facts: Facts, now: Timestamp, profile: &Profile) -> Decision {
    decide(s, generation, facts, now, profile)
}

fn decided(s: &Session, generation: Generation, after: Duration) -> Decision {
    at(s, generation, KNOWN, ROTATED.plus(after), &Profile::default())
}

fn is_reuse(d: Decision) -> bool {
    matches!(d, Decision::Reuse(_))
}

fn stepped(
    s: &Session,
    d: Decision,
    generation: Generation,
    now: Timestamp,
    profile: &Profile,
) -> Option<RecordChange> {
    apply_decision(s, d, generation, pair(now.plus(secs(600))), now, profile)
}

#[test]
fn a_revoked_record_ends_every_token() {
    for because in
        [RevokedBecause::Logout, RevokedBecause::Reuse, RevokedBecause::OtherClient, RevokedBecause::Operator]
    {
        let s = Session { status: Status::Revoked(because), ..session() };
        for g in [0, 3, 4, 5, 6, u64::MAX] {
            assert_eq!(decided(&s, Generation::new(g), secs(1)), Decision::Revoked(SessionEnd::Record));
        }
    }
}

#[test]
fn a_session_that_the_list_knows_gone_ends_every_token() {
    let gone = Facts { minimum_known: REVOKED, ..KNOWN };
    for g in [0, 3, 4, 5, 6, u64::MAX] {
        assert_eq!(
            at(&session(), Generation::new(g), gone, ROTATED, &Profile::default()),
            Decision::Revoked(SessionEnd::List)
        );
    }
    // The value below `REVOKED` is a minimum like any other.
    let almost = Facts { minimum_known: Generation::new(REVOKED.get() - 1), ..KNOWN };
    assert_eq!(
        at(&session(), Generation::new(5), almost, ROTATED, &Profile::default()),
        Decision::Ahead { fast_forward: false }
    );
}

#[test]
fn r8_an_inactive_user_ends_every_token() {
    let facts = Facts { user_active: false, ..KNOWN };
    for g in [3, 4, 5, 6] {
        assert_eq!(
            at(&session(), Generation::new(g), facts, ROTATED, &Profile::default()),
            Decision::Revoked(SessionEnd::UserInactive)
        );
    }
}

#[test]
fn r8_a_not_before_of_the_very_millisecond_of_creation_ends_the_session() {
    let facts = |from| Facts { sessions_valid_from: from, ..KNOWN };
    let decided = |from| at(&session(), Generation::new(5), facts(from), ROTATED, &Profile::default());
    assert_eq!(decided(CREATED.minus(ms(1))), Decision::Rotate);
    assert_eq!(decided(CREATED), Decision::Revoked(SessionEnd::BeforeValidFrom));
    assert_eq!(decided(CREATED.plus(ms(1))), Decision::Revoked(SessionEnd::BeforeValidFrom));
    assert_eq!(decided(Timestamp::MAX), Decision::Revoked(SessionEnd::BeforeValidFrom));
}

#[test]
fn r8_session_ttl_ends_every_token_at_its_very_end() {
    let idle = Profile { idle_ttl: secs(30 * 86_400), ..Profile::default() };
    let s = Session { issued_at: CREATED.plus(secs(29 * 86_400)), ..session() };
    for g in [3, 4, 5, 6] {
        assert_eq!(at(&s, Generation::new(g), KNOWN, s.expires, &idle), Decision::Expired(Lifetime::Session));
        assert_eq!(at(&s, Generation::new(g), KNOWN, Timestamp::MAX, &idle), Decision::Expired(Lifetime::Session));
    }
    assert_eq!(at(&s, Generation::new(5), KNOWN, s.expires.minus(ms(1)), &idle), Decision::Rotate);
    // A profile shortened since the login counts, a longer one does not.
    let shorter = Profile { session_ttl: secs(29 * 86_400), ..idle.clone() };
    assert_eq!(
        at(&s, Generation::new(5), KNOWN, CREATED.plus(secs(29 * 86_400)), &shorter),
        Decision::Expired(Lifetime::Session)
    );
    let longer = Profile { session_ttl: secs(90 * 86_400), ..idle };
    assert_eq!(at(&s, Generation::new(5), KNOWN, s.expires, &longer), Decision::Expired(Lifetime::Session));
}

#[test]
fn r8_idle_ttl_ends_every_token_at_its_very_end() {
    let idle = Profile::default().idle_ttl;
    for g in [3, 4, 5, 6] {
        assert_eq!(decided(&session(), Generation::new(g), idle), Decision::Expired(Lifetime::Idle));
    }
    assert_eq!(decided(&session(), Generation::new(5), idle - ms(1)), Decision::Rotate);
    // The idle time counts from the last issue, which a replay does not move.
    let s = Session { issued_at: ROTATED.plus(secs(60)), ..session() };
    assert_eq!(decided(&s, Generation::new(5), idle), Decision::Rotate);
}

#[test]
fn what_ended_or_expired_wins_over_every_later_row() {
    let late = Profile::default().idle_ttl;
    let gone = Facts { minimum_known: REVOKED, ..KNOWN };
    let s = Session { status: Status::Revoked(RevokedBecause::Logout), ..session() };
    assert_eq!(
        at(&s, Generation::new(9), gone, ROTATED.plus(late), &Profile::default()),
        Decision::Revoked(SessionEnd::Record)
    );
    assert_eq!(
        at(&session(), Generation::new(9), gone, ROTATED.plus(late), &Profile::default()),
        Decision::Revoked(SessionEnd::List)
    );
    let ahead = Facts { minimum_known: Generation::new(9), ..KNOWN };
    assert_eq!(
        at(&session(), Generation::new(9), ahead, ROTATED.plus(late), &Profile::default()),
        Decision::Expired(Lifetime::Idle)
    );
}

#[test]
fn o5_a_token_ahead_of_the_record_is_taken_on_only_with_unbroken_revocations() {
    assert_eq!(decided(&session(), Generation::new(6), secs(1)), Decision::Ahead { fast_forward: true });
    assert_eq!(decided(&session(), Generation::new(600), secs(1)), Decision::Ahead { fast_forward: true });
    let broken = Facts { unbroken_revocations: false, ..KNOWN };
    assert_eq!(
        at(&session(), Generation::new(6), broken, ROTATED, &Profile::default()),
        Decision::Ahead { fast_forward: false }
    );
}

#[test]
fn o5_a_minimum_above_the_record_lets_only_a_token_at_or_past_it_go_on() {
    let facts = Facts { minimum_known: Generation::new(7), ..KNOWN };
    let decided = |g| at(&session(), g, facts, ROTATED, &Profile::default());
    for g in [0, 3, 4, 5, 6] {
        assert_eq!(decided(Generation::new(g)), Decision::Ahead { fast_forward: false }, "{g}");
    }
    for g in [7, 8] {
        assert_eq!(decided(Generation::new(g)), Decision::Ahead { fast_forward: true }, "{g}");
    }
    // A minimum that the record has reached says nothing new.
    let reached = Facts { minimum_known: Generation::new(5), ..KNOWN };
    assert_eq!(at(&session(), Generation::new(5), reached, ROTATED, &Profile::default()), Decision::Rotate);
}

#[test]
fn generations_that_have_no_successor_are_never_taken_on() {
    for g in [u64::MAX - 1, u64::MAX] {
        assert_eq!(decided(&session(), Generation::new(g), secs(1)), Decision::Ahead { fast_forward: false });
        let forced = Decision::Ahead { fast_forward: true };
        assert_eq!(stepped(&session(), forced, Generation::new(g), ROTATED, &Profile::default()), None);
    }
    assert_eq!(decided(&session(), Generation::new(u64::MAX - 2), secs(1)), Decision::Ahead { fast_forward: true });
    let used_up =
        Session { current: Generation::new(u64::MAX - 1), previous: Generation::new(u64::MAX - 2), ..session() };
    assert_eq!(decided(&used_up, Generation::new(u64::MAX - 1), secs(1)), Decision::Rotate);
    for d in [Decision::Rotate, Decision::Reissue] {
        assert_eq!(stepped(&used_up, d, Generation::new(u64::MAX - 1), ROTATED, &Profile::default()), None);
    }
    let revisions_used_up = Session { revision: u64::MAX, ..session() };
    assert_eq!(stepped(&revisions_used_up, Decision::Rotate, Generation::new(5), ROTATED, &Profile::default()), None);
}

#[test]
fn the_current_token_is_rotated_whether_confirmed_or_not() {
    for confirmed in [false, true] {
        for after in [ms(0), secs(9), secs(86_400), secs(13 * 86_400)] {
            assert_eq!(decided(&Session { confirmed, ..session() }, Generation::new(5), after), Decision::Rotate);
        }
    }
}

#[test]
fn r3_the_predecessor_is_replayed_within_grace_and_not_at_its_end() {
    for confirmed in [false, true] {
        let s = Session { confirmed, ..session() };
        assert_eq!(decided(&s, Generation::new(4), ms(0)), Decision::Replay);
        assert_eq!(decided(&s, Generation::new(4), ms(9_999)), Decision::Replay);
    }
    assert_eq!(decided(&session(), Generation::new(4), secs(10)), Decision::Reissue);
    assert!(is_reuse(decided(&Session { confirmed: true, ..session() }, Generation::new(4), secs(10))));
}

#[test]
fn r3_grace_is_counted_from_the_last_issue_and_the_window_from_the_first_exchange() {
    let s = Session { issued_at: ROTATED.plus(secs(100)), ..session() };
    assert_eq!(decided(&s, Generation::new(4), secs(109)), Decision::Replay);
    assert_eq!(decided(&s, Generation::new(4), secs(110)), Decision::Reissue);
    assert_eq!(decided(&s, Generation::new(4), secs(86_400) - ms(1)), Decision::Reissue);
    assert!(is_reuse(decided(&s, Generation::new(4), secs(86_400))));
    // A token issued at the end of the window still has its grace period.
    let s = Session { issued_at: ROTATED.plus(secs(86_399)), ..session() };
    assert_eq!(decided(&s, Generation::new(4), secs(86_400)), Decision::Replay);
    assert!(is_reuse(decided(&s, Generation::new(4), secs(86_409))));
}

#[test]
fn r3_a_used_generation_is_not_abandoned() {
    let s = Session { confirmed: true, ..session() };
    for after in [secs(10), secs(11), secs(86_399)] {
        assert!(is_reuse(decided(&s, Generation::new(4), after)));
    }
}

#[test]
fn r3_grace_zero_is_off_even_in_the_same_millisecond() {
    let off = Profile { grace: secs(0), lost_response_window: secs(0), ..Profile::default() };
    assert_eq!(off.problems(), []);
    for after in [ms(0), ms(1)] {
        assert!(is_reuse(at(&session(), Generation::new(4), KNOWN, ROTATED.plus(after), &off)));
        assert_eq!(at(&session(), Generation::new(5), KNOWN, ROTATED.plus(after), &off), Decision::Rotate);
    }
}

#[test]
fn r3_window_zero_leaves_grace_alone() {
    let off = Profile { lost_response_window: secs(0), ..Profile::default() };
    assert_eq!(off.problems(), []);
    assert_eq!(at(&session(), Generation::new(4), KNOWN, ROTATED.plus(ms(9_999)), &off), Decision::Replay);
    assert!(is_reuse(at(&session(), Generation::new(4), KNOWN, ROTATED.plus(secs(10)), &off)));
}

#[test]
fn a_time_before_the_issue_opens_nothing_but_what_was_open() {
    assert_eq!(at(&session(), Generation::new(4), KNOWN, CREATED, &Profile::default()), Decision::Replay);
    assert!(is_reuse(at(&session(), Generation::new(3), KNOWN, CREATED, &Profile::default())));
}

#[test]
fn r4_older_and_abandoned_tokens_are_reuse_and_say_how_old_they_are() {
    let d = decided(&session(), Generation::FIRST, secs(1));
    assert_eq!(d, Decision::Reuse(Reuse { generations_old: 4, superseded_for: None }));
    // 5 was reissued and replaces 3 and 4, which were never used.
    let reissued = Session { previous: Generation::new(2), ..session() };
    for g in [3, 4] {
        assert!(is_reuse(decided(&reissued, Generation::new(g), ms(0))));
    }
    assert_eq!(decided(&reissued, Generation::new(2), ms(0)), Decision::Replay);
    let late = decided(&Session { confirmed: true, ..session() }, Generation::new(4), secs(60));
    assert_eq!(late, Decision::Reuse(Reuse { generations_old: 1, superseded_for: Some(secs(60)) }));
}

#[test]
fn generation_zero_is_never_a_predecessor() {
    let fresh = Session { current: Generation::FIRST, previous: Generation::NONE, ..session() };
    for after in [ms(0), secs(10), secs(86_400)] {
        let d = decided(&fresh, Generation::NONE, after);
        assert_eq!(d, Decision::Reuse(Reuse { generations_old: 1, superseded_for: None }));
    }
    assert_eq!(decided(&fresh, Generation::FIRST, ms(0)), Decision::Rotate);
}

#[test]
fn rotate_steps_on_and_keeps_everything_else() {
    let (s, now) = (session(), ROTATED.plus(secs(50)));
    let RecordChange { record, raised } =
        stepped(&s, Decision::Rotate, Generation::new(5), now, &Profile::default()).unwrap();
    assert_eq!(raised, None);
    let expected = Session {
        current: Generation::new(6),
        previous: Generation::new(5),
        rotated_at: now,
        issued_at: now,
        confirmed: false,
        latest_access_expires: now.plus(secs(600)),
        last: pair(now.plus(secs(600))),
        revision: 18,
        ..s
    };
    assert_eq!(record, expected);
}

#[test]
fn the_latest_access_expiry_never_goes_back() {
    let s = Session { latest_access_expires: ROTATED.plus(secs(86_400)), confirmed: true, ..session() };
    let profile = Profile { revoke_previous_after: Some(secs(0)), ..Profile::default() };
    let step = stepped(&s, Decision::Rotate, Generation::new(5), ROTATED.plus(secs(5)), &profile).unwrap();
    assert_eq!(step.record.latest_access_expires, ROTATED.plus(secs(86_400)));
    assert_eq!(step.raised.unwrap().until, ROTATED.plus(secs(86_400)));
    assert!(!step.record.confirmed);
}

#[test]
fn revoke_previous_after_raises_the_minimum_when_it_says() {
    let now = ROTATED.plus(secs(50));
    for after in [secs(0), secs(90)] {
        let profile = Profile { revoke_previous_after: Some(after), ..Profile::default() };
        let raised = stepped(&session(), Decision::Rotate, Generation::new(5), now, &profile).unwrap().raised;
        let until = session().latest_access_expires;
        assert_eq!(
            raised,
            Some(RaisedMinimum {
                minimum: Generation::new(6),
                effective_from: now.plus(after),
                before: Generation::NONE,
                until
            })
        );
    }
}

#[test]
fn r3_reissue_keeps_the_predecessor_and_its_window_and_abandons_at_once_what_lay_between() {
    let now = ROTATED.plus(secs(50));
    for after in [None, Some(secs(0)), Some(secs(90))] {
        let profile = Profile { revoke_previous_after: after, ..Profile::default() };
        let s = session();
        let RecordChange { record, raised } =
            stepped(&s, Decision::Reissue, Generation::new(4), now, &profile).unwrap();
        assert_eq!((record.current.get(), record.previous.get()), (6, 4));
        assert_eq!((record.rotated_at, record.issued_at), (ROTATED, now));
        assert_eq!((record.confirmed, record.revision), (false, 18));
        let until = s.latest_access_expires;
        assert_eq!(
            raised,
            Some(RaisedMinimum { minimum: Generation::new(6), effective_from: now, before: Generation::NONE, until })
        );
        assert_eq!(at(&record, Generation::new(4), KNOWN, now, &profile), Decision::Replay);
        assert!(is_reuse(at(&record, Generation::new(5), KNOWN, now, &profile)));
        assert_eq!(at(&record, Generation::new(6), KNOWN, now, &profile), Decision::Rotate);
    }
}

#[test]
fn o5_a_reissue_is_known_to_the_list_even_when_every_access_token_has_expired() {
    let now = ROTATED.plus(secs(7200));
    let raised =
        stepped(&session(), Decision::Reissue, Generation::new(4), now, &Profile::default()).unwrap().raised.unwrap();
    assert_eq!(raised.until, now);
}

#[test]
fn o5_fast_forward_goes_on_from_the_presented_generation() {
    let now = ROTATED.plus(secs(50));
    let profile = Profile { revoke_previous_after: Some(secs(0)), ..Profile::default() };
    let forward = Decision::Ahead { fast_forward: true };
    let RecordChange { record, raised } = stepped(&session(), forward, Generation::new(9), now, &profile).unwrap();
    assert_eq!((record.current.get(), record.previous.get()), (10, 9));
    assert_eq!((record.rotated_at, record.issued_at, record.confirmed), (now, now, false));
    assert_eq!(raised.unwrap().minimum, Generation::new(10));
    assert_eq!(stepped(&session(), forward, Generation::new(9), now, &Profile::default()).unwrap().raised, None);
}

#[test]
fn o5_fast_forward_reckons_with_the_longest_access_token_that_may_have_been_lost() {
    // The lost generations may have had the longest lifetime that a client can request.
    let now = ROTATED.plus(secs(50));
    let profile = Profile { revoke_previous_after: Some(secs(0)), ..Profile::default() };
    let forward = Decision::Ahead { fast_forward: true };
    let step = stepped(&session(), forward, Generation::new(9), now, &profile).unwrap();
    let longest = now.plus(profile.max_access_ttl);
    assert_eq!((step.record.latest_access_expires, step.raised.unwrap().until), (longest, longest));
    // No token outlives the session.
    let s = Session { expires: now.plus(secs(3600)), ..session() };
    assert_eq!(
        stepped(&s, forward, Generation::new(9), now, &profile).unwrap().record.latest_access_expires,
        s.expires
    );
}

#[test]
fn what_issues_nothing_has_no_step() {
    for d in [
        Decision::Revoked(SessionEnd::Record),
        Decision::Expired(Lifetime::Idle),
        Decision::Ahead { fast_forward: false },
        Decision::Replay,
        Decision::Reuse(Reuse { generations_old: 1, superseded_for: None }),
    ] {
        assert_eq!(stepped(&session(), d, Generation::new(5), ROTATED, &Profile::default()), None, "{d:?}");
    }
}

#[test]
fn the_table_holds_at_the_ends_of_time() {
    for now in [Timestamp::ZERO, Timestamp::MAX] {
        for g in [0, 1, 4, 5, 6, u64::MAX] {
            let d = at(&session(), Generation::new(g), KNOWN, now, &Profile::default());
            if now == Timestamp::MAX {
                assert_eq!(d, Decision::Expired(Lifetime::Session));
            }
            let _ = stepped(&session(), d, Generation::new(g), now, &Profile::default());
        }
    }
}
