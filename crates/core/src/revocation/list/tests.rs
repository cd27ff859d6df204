//! The results of checks and sweeps; the order of entries does not matter.

use proptest::prelude::*;

use super::*;

const OURS: &str = "https://gate.example.com";
const THEIRS: &str = "https://idp.example.com/";
const HOUR: Duration = Duration::from_secs(3600);
const CREATED: Timestamp = Timestamp::from_millis(1_732_000_000_123);
const NOW: Timestamp = CREATED.plus(HOUR);
const LATE: Timestamp = NOW.plus(Duration::from_secs(86_400));

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn session(n: u8) -> SessionId {
    SessionId::new(CREATED, [n; 10])
}

fn entry(target: Target, effect: Effect) -> Revocation {
    Revocation { target, effect, until: LATE }
}

fn raised(id: SessionId, minimum: Generation, effective_from: Timestamp) -> Revocation {
    entry(Target::Session(id), Effect::Minimum { minimum, effective_from, before: Generation::NONE })
}

fn gone(id: SessionId) -> Revocation {
    entry(Target::Session(id), Effect::SESSION_REVOKED)
}

fn subject(issuer: &str, at: Timestamp) -> Revocation {
    entry(Target::Subject { issuer: issuer.into(), subject: "ada".into() }, Effect::NotBefore(at))
}

fn client(issuer: &str, at: Timestamp) -> Revocation {
    entry(Target::Client { issuer: issuer.into(), client: "web".into() }, Effect::NotBefore(at))
}

fn token(issuer: &str, jti: &str) -> Revocation {
    entry(Target::Token { issuer: issuer.into(), jti: jti.into() }, Effect::Gone)
}

/// A token of this gate with a session.
fn session_facts(id: SessionId, generation: Generation) -> TokenFacts<'static> {
    TokenFacts {
        delegation: None,
        key_vouchers: None,
        issuer_session: None,
        vouched_by: None,
        issuer: OURS,
        subject: "ada",
        sub: None,
        client: Some("web"),
        session: Some((id, generation)),
        jti: Some("own"),
        issued_at: Some(NOW),
    }
}

/// A token of this gate without one.
const LOOSE: TokenFacts<'static> = TokenFacts {
    key_vouchers: None,
    delegation: None,
    issuer_session: None,
    vouched_by: None,
    issuer: OURS,
    subject: "ada",
    sub: None,
    client: Some("web"),
    session: None,
    jti: Some("j1"),
    issued_at: Some(NOW),
};

/// The same claims from another issuer.
const FOREIGN: TokenFacts<'static> = TokenFacts { issuer: THEIRS, ..LOOSE };

fn list(entries: &[Revocation]) -> RevocationList {
    let list = RevocationList::new();
    entries.iter().for_each(|e| {
        list.apply(e);
    });
    list
}

fn refused(list: &RevocationList, facts: TokenFacts<'_>) -> bool {
    list.judge(facts, NOW).refuses(NOW)
}

#[test]
fn n66_an_entry_of_no_session_matches_what_names_none_of_one_subject_and_issuer() {
    let list = list(&[entry(Target::without_session_of(THEIRS, "ada"), Effect::NotBefore(NOW))]);
    assert!(refused(&list, FOREIGN));
    for other in [
        TokenFacts { issuer_session: Some("s-1"), ..FOREIGN },
        TokenFacts { subject: "bob", ..FOREIGN },
        TokenFacts { issued_at: Some(NOW.plus(Duration::from_secs(1))), ..FOREIGN },
        LOOSE,
    ] {
        assert!(!refused(&list, other), "{other:?}");
    }
    let mut by = VouchedBy::new(THEIRS, "ada");
    assert!(list.ended_elsewhere(&by, NOW));
    by.session = Some("s-1".into());
    assert!(!list.ended_elsewhere(&by, NOW));
}

#[test]
fn n72_an_entry_of_any_session_matches_all_tokens_of_one_subject_and_no_session_of_ours_that_names_one() {
    let list = list(&[entry(Target::any_session_of(THEIRS, "ada"), Effect::NotBefore(NOW))]);
    assert!(refused(&list, FOREIGN));
    assert!(refused(&list, TokenFacts { issuer_session: Some("s-1"), ..FOREIGN }));
    for other in [
        TokenFacts { subject: "bob", ..FOREIGN },
        TokenFacts { issued_at: Some(NOW.plus(Duration::from_secs(1))), issuer_session: Some("s-1"), ..FOREIGN },
        LOOSE,
    ] {
        assert!(!refused(&list, other), "{other:?}");
    }
    let mut by = VouchedBy::new(THEIRS, "ada");
    assert!(list.ended_elsewhere(&by, NOW));
    by.session = Some("s-1".into());
    assert!(!list.ended_elsewhere(&by, NOW));
}

#[test]
fn s19_a_refresh_refuses_tokens_by_iat_and_leaves_sessions_alone() {
    let later = NOW.plus(Duration::from_secs(1));
    let by = VouchedBy::new(THEIRS, "ada").session("s-1");
    let session = SessionId::new(NOW.minus(Duration::from_secs(60)), [3; 10]);
    let ours =
        TokenFacts { subject: "u-17", session: Some((session, Generation::FIRST)), vouched_by: Some(&by), ..LOOSE };
    let named = TokenFacts { issuer_session: Some("s-1"), ..FOREIGN };
    for (target, matched, others) in [
        (
            Target::refreshed(THEIRS, "ada"),
            vec![FOREIGN, named, ours],
            vec![LOOSE, TokenFacts { subject: "bob", ..FOREIGN }],
        ),
        (Target::refreshed_session(THEIRS, "s-1"), vec![named, ours], vec![FOREIGN, LOOSE]),
        (Target::refreshed(OURS, "u-17"), vec![ours], vec![FOREIGN, named, LOOSE]),
    ] {
        let list = list(&[entry(target, Effect::NotBefore(NOW))]);
        for facts in matched {
            assert!(refused(&list, facts), "{facts:?}");
            assert!(refused(&list, TokenFacts { issued_at: None, ..facts }), "it may be older");
            assert!(!refused(&list, TokenFacts { issued_at: Some(later), ..facts }), "a new one: {facts:?}");
        }
        for facts in others {
            assert!(!refused(&list, facts), "{facts:?}");
        }
        assert!(!list.ended_elsewhere(&by, session.created()), "the session goes on");
        let asks = |issued| list.asks_for_another((OURS, "u-17"), Some(&by), issued);
        assert!(asks(NOW) && !asks(later));
    }
}

#[test]
fn an_empty_list_refuses_nothing() {
    let list = RevocationList::new();
    for facts in [
        session_facts(session(1), Generation::NONE),
        LOOSE,
        FOREIGN,
        TokenFacts { issued_at: None, jti: None, ..LOOSE },
    ] {
        assert_eq!(list.judge(facts, NOW), Judgement { refuse_from: Timestamp::MAX });
    }
    assert_eq!((list.len(), list.minimum(session(1))), (0, Generation::NONE));
    assert_eq!(list.not_before(OURS, "ada", Some("web")), Timestamp::ZERO);
    assert!(list.is_empty());
}

#[test]
fn a_gone_session_refuses_all_its_tokens_and_no_others() {
    let list = list(&[gone(session(1))]);
    for generation in [0, 1, 9, u64::MAX - 1, u64::MAX] {
        assert!(refused(&list, session_facts(session(1), Generation::new(generation))));
    }
    assert!(!refused(&list, session_facts(session(2), Generation::FIRST)));
    assert!(!refused(&list, LOOSE));
    assert_eq!(list.minimum(session(1)), REVOKED);
}

#[test]
fn a_minimum_refuses_what_is_below_it() {
    let list = list(&[raised(session(1), Generation::new(5), NOW)]);
    assert!(refused(&list, session_facts(session(1), Generation::new(4))));
    assert!(!refused(&list, session_facts(session(1), Generation::new(5))));
    assert_eq!(list.minimum(session(1)), Generation::new(5));
}

#[test]
fn a_rotation_entry_that_is_delayed_past_a_revoke_revives_nothing() {
    let list = list(&[gone(session(1)), raised(session(1), Generation::new(7), NOW)]);
    assert!(
        refused(&list, session_facts(session(1), Generation::new(7)))
            && refused(&list, session_facts(session(1), Generation::new(8)))
    );
    assert_eq!(list.minimum(session(1)), REVOKED);
    assert_eq!(list.len(), 1);
}

#[test]
fn revoke_previous_after_refuses_when_it_says_and_not_before() {
    let list = list(&[raised(session(1), Generation::new(2), NOW.plus(ms(60)))]);
    let judged = list.judge(session_facts(session(1), Generation::FIRST), NOW);
    assert_eq!(judged.refuse_from, NOW.plus(ms(60)));
    assert!(!judged.refuses(NOW.plus(ms(59))) && judged.refuses(NOW.plus(ms(60))));
    assert_eq!(list.judge(session_facts(session(1), Generation::FIRST), NOW.plus(ms(60))).refuse_from, Timestamp::ZERO);
    assert_eq!(list.judge(session_facts(session(1), Generation::new(2)), NOW).refuse_from, Timestamp::MAX);
    // The decision sees the minimum at once.
    assert_eq!(list.minimum(session(1)), Generation::new(2));

    // A further rotation brings the last minimum into effect and sets the next one's time.
    list.apply(&raised(session(1), Generation::new(3), NOW.plus(ms(90))));
    assert_eq!(list.judge(session_facts(session(1), Generation::FIRST), NOW).refuse_from, Timestamp::ZERO);
    assert_eq!(list.judge(session_facts(session(1), Generation::new(2)), NOW).refuse_from, NOW.plus(ms(90)));
    assert_eq!(list.judge(session_facts(session(1), Generation::new(3)), NOW).refuse_from, Timestamp::MAX);

    // A logout in between wins over both.
    list.apply(&gone(session(1)));
    assert_eq!(list.judge(session_facts(session(1), Generation::new(3)), NOW).refuse_from, Timestamp::ZERO);
}

#[test]
fn a_schedule_that_has_run_out_is_forgotten_by_the_sweep_and_refuses_the_same() {
    let list = list(&[raised(session(1), Generation::new(2), NOW.plus(ms(60)))]);
    assert_eq!(list.sweep(NOW.plus(ms(59))), 0);
    assert_eq!(
        list.judge(session_facts(session(1), Generation::FIRST), NOW.plus(ms(59))).refuse_from,
        NOW.plus(ms(60))
    );
    assert_eq!(list.sweep(NOW.plus(ms(60))), 0);
    assert_eq!(list.judge(session_facts(session(1), Generation::FIRST), NOW.plus(ms(60))).refuse_from, Timestamp::ZERO);
    assert_eq!(list.judge(session_facts(session(1), Generation::new(2)), NOW.plus(ms(60))).refuse_from, Timestamp::MAX);
}

#[test]
fn a_not_before_is_compared_with_the_creation_of_the_session_to_the_millisecond() {
    type Entry = fn(Timestamp) -> Revocation;
    let all: [Entry; 3] =
        [|at| subject(OURS, at), |at| client(OURS, at), |at| entry(Target::Global, Effect::NotBefore(at))];
    for make in all {
        // The token was issued long after the not-before, but its session began at that moment.
        assert!(refused(&list(&[make(CREATED)]), session_facts(session(1), Generation::new(9))));
        assert!(refused(&list(&[make(CREATED.plus(ms(1)))]), session_facts(session(1), Generation::new(9))));
        assert!(!refused(&list(&[make(CREATED.minus(ms(1)))]), session_facts(session(1), Generation::new(9))));
        assert!(!refused(&list(&[make(CREATED)]), LOOSE), "a token without a session goes by its iat");
        assert!(refused(&list(&[make(NOW)]), LOOSE));
        assert!(!refused(&list(&[make(NOW.minus(ms(1)))]), LOOSE));
    }
}

#[test]
fn a_token_that_does_not_say_when_it_was_issued_is_refused_by_any_not_before() {
    let unknown = TokenFacts { issued_at: None, ..LOOSE };
    assert!(refused(&list(&[subject(OURS, CREATED)]), unknown));
    assert!(refused(&list(&[client(OURS, CREATED)]), unknown));
    assert!(!refused(&list(&[client(OURS, CREATED)]), TokenFacts { client: None, ..unknown }));
    assert!(!refused(&list(&[subject(OURS, CREATED)]), TokenFacts { subject: "bob", ..unknown }));
}

#[test]
fn r9_of_several_not_befores_the_later_one_wins() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let list = list(&order.map(|n| subject(OURS, CREATED.plus(ms(n)))));
        assert_eq!(list.not_before(OURS, "ada", None), CREATED.plus(ms(2)));
        assert_eq!(list.len(), 1);
    }
    let mixed = list(&[
        subject(OURS, CREATED.plus(ms(1))),
        client(OURS, CREATED.plus(ms(2))),
        entry(Target::Global, Effect::NotBefore(CREATED)),
    ]);
    assert_eq!(mixed.not_before(OURS, "ada", Some("web")), CREATED.plus(ms(2)));
    assert_eq!(mixed.not_before(OURS, "ada", None), CREATED.plus(ms(1)));
    assert_eq!(mixed.not_before(OURS, "bob", None), CREATED);
    assert_eq!(mixed.not_before(THEIRS, "ada", Some("web")), CREATED);
    assert_eq!(mixed.len(), 3);
}

#[test]
fn i15_the_same_names_from_another_issuer_are_other_names() {
    let list_of = |issuer| list(&[subject(issuer, NOW), token(issuer, "j1"), client(issuer, NOW)]);
    assert!(refused(&list_of(OURS), LOOSE) && !refused(&list_of(OURS), FOREIGN));
    assert!(refused(&list_of(THEIRS), FOREIGN) && !refused(&list_of(THEIRS), LOOSE));
    let only_jti = list(&[token(THEIRS, "j1")]);
    assert!(refused(&only_jti, FOREIGN) && !refused(&only_jti, LOOSE));
    assert!(!refused(&only_jti, TokenFacts { jti: Some("j2"), ..FOREIGN }));
    // The name of one issuer is a prefix of another's.
    assert!(!refused(&only_jti, TokenFacts { issuer: "https://idp.example.com", ..FOREIGN }));
}

#[test]
fn a_token_of_another_issuer_that_looks_like_one_of_our_sessions_is_unaffected() {
    let list = list(&[gone(session(1))]);
    let id = session(1).to_string();
    // The verifier reads no session from a foreign token; the claims are only names.
    assert!(!refused(&list, TokenFacts { jti: Some(&id), subject: &id, ..FOREIGN }));
}

#[test]
fn an_effect_that_does_not_fit_its_target_refuses() {
    let minimum = Effect::Minimum { minimum: Generation::new(3), effective_from: LATE, before: Generation::NONE };
    for effect in [Effect::NotBefore(CREATED), Effect::Gone] {
        assert!(refused(
            &list(&[entry(Target::Session(session(1)), effect)]),
            session_facts(session(1), Generation::new(9))
        ));
    }
    for effect in [minimum, Effect::Gone] {
        assert!(refused(
            &list(&[entry(subject(OURS, NOW).target, effect)]),
            session_facts(session(1), Generation::new(9))
        ));
        assert!(refused(&list(&[entry(Target::Global, effect)]), FOREIGN));
    }
    for effect in [minimum, Effect::NotBefore(CREATED)] {
        assert!(refused(&list(&[entry(token(OURS, "j1").target, effect)]), LOOSE));
    }
}

#[test]
fn j15_an_entry_raises_the_counter_of_every_token_that_it_can_match() {
    let own = session_facts(session(1), Generation::FIRST);
    let nameless = TokenFacts { jti: None, ..FOREIGN };
    for (revocation, touched) in [
        (gone(session(1)), vec![own]),
        (token(OURS, "j1"), vec![LOOSE]),
        (token(THEIRS, "j1"), vec![FOREIGN]),
        (subject(OURS, NOW), vec![own, LOOSE, FOREIGN, nameless]),
        (client(OURS, NOW), vec![own, LOOSE, FOREIGN, nameless]),
        (entry(Target::Global, Effect::NotBefore(NOW)), vec![own, LOOSE, FOREIGN, nameless]),
    ] {
        let list = RevocationList::new();
        let before: Vec<_> = touched.iter().map(|t| list.epoch(list.shard_of(*t))).collect();
        list.apply(&revocation);
        for (facts, before) in touched.iter().zip(before) {
            assert!(list.epoch(list.shard_of(*facts)) > before, "{revocation:?}");
        }
    }
}

#[test]
fn a_session_entry_leaves_the_counters_of_other_shards_alone() {
    let list = list(&[gone(session(1))]);
    let untouched = (0..64).filter(|shard| list.epoch(*shard) == 0).count();
    assert_eq!(untouched, 63);
}

#[test]
fn r10_entries_leave_an_hour_after_their_end_and_not_before() {
    let all = [
        gone(session(1)),
        subject(OURS, NOW),
        client(THEIRS, NOW),
        token(THEIRS, "j1"),
        entry(Target::Global, Effect::NotBefore(NOW)),
    ];
    let list = list(&all);
    assert_eq!(list.len(), 5);
    assert_eq!(list.sweep(LATE.plus(HOUR)), 0);
    assert!(refused(&list, session_facts(session(1), Generation::FIRST)) && refused(&list, FOREIGN));
    assert_eq!(list.sweep(LATE.plus(HOUR).plus(ms(1))), 5);
    assert_eq!(list.len(), 0);
    assert!(!refused(&list, session_facts(session(1), Generation::FIRST)) && !refused(&list, FOREIGN));
}

#[test]
fn r10_the_later_end_wins() {
    for (first, second) in [(NOW, LATE), (LATE, NOW)] {
        for make in
            [gone(session(1)), subject(OURS, NOW), token(OURS, "j1"), entry(Target::Global, Effect::NotBefore(NOW))]
        {
            let list = list(&[Revocation { until: first, ..make.clone() }, Revocation { until: second, ..make }]);
            assert_eq!(list.sweep(LATE), 0);
            assert_eq!(list.sweep(LATE.plus(HOUR).plus(ms(1))), 1);
        }
    }
}

#[test]
fn r10_a_sweep_raises_no_counter() {
    let list = list(&[gone(session(1)), subject(OURS, NOW)]);
    let before: Vec<_> = (0..64).map(|shard| list.epoch(shard)).collect();
    assert_eq!(list.sweep(LATE.plus(HOUR * 2)), 2);
    assert_eq!((0..64).map(|shard| list.epoch(shard)).collect::<Vec<_>>(), before);
}

#[test]
fn r10_many_entries_are_not_evicted_and_their_memory_goes_back_down() {
    let list = RevocationList::new();
    let id = |n: u32| {
        let mut random = [0; 10];
        random[6..].copy_from_slice(&n.to_be_bytes());
        SessionId::new(CREATED, random)
    };
    const MANY: u32 = 100_000;
    for n in 0..MANY {
        list.apply(&Revocation { until: if n % 1000 == 0 { LATE } else { NOW }, ..gone(id(n)) });
        list.apply(&Revocation { until: NOW, ..token(THEIRS, &n.to_string()) });
    }
    assert_eq!(list.len(), 200_000);
    assert!((0..MANY).all(|n| list.minimum(id(n)) == REVOKED));
    let full = list.sessions.capacity();
    assert_eq!(list.sweep(NOW.plus(HOUR * 2)), 199_900);
    assert_eq!(list.len(), 100);
    assert!(list.sessions.capacity() * 50 < full, "{} of {full}", list.sessions.capacity());
    assert_eq!(list.issuer(THEIRS).unwrap().tokens.map.capacity(), 0);
    assert!((0..MANY).all(|n| (list.minimum(id(n)) == REVOKED) == (n % 1000 == 0)));
}

#[test]
fn an_entry_of_a_session_is_small() {
    assert!(size_of::<(SessionId, SessionEntry)>() <= 32);
}

#[test]
fn writers_of_new_issuers_do_not_lose_each_other() {
    let list = RevocationList::new();
    std::thread::scope(|scope| {
        for n in 0..4 {
            let list = &list;
            scope.spawn(move || {
                (0..50).for_each(|i| {
                    list.apply(&subject(&format!("https://{}/", (i + n) % 50), NOW));
                });
            });
        }
    });
    assert_eq!(list.len(), 50);
    assert!((0..50).all(|n| list.not_before(&format!("https://{n}/"), "ada", None) == NOW));
}

#[test]
fn a_list_filled_at_once_says_what_one_says_that_got_entry_by_entry() {
    // More entries than may wait, with repetitions and with other kinds.
    let entries = || {
        let sessions = (0..200_000).map(|n| match n % 3 {
            0 => gone(id(n)),
            1 => raised(id(n / 2), Generation::new(7), LATE),
            _ => raised(id(n), Generation::new(5), Timestamp::ZERO),
        });
        sessions.chain([subject(OURS, NOW), client(THEIRS, NOW), token(OURS, "loose")])
    };
    let one_by_one = RevocationList::new();
    let mut filling = ListFilling::expecting(entries().count());
    for entry in entries() {
        one_by_one.apply(&entry);
        filling.add(&entry);
    }
    let filling_in_shares = ListFilling::expecting(entries().count());
    std::thread::scope(|threads| {
        for thread in 0..3 {
            let mut share = filling_in_shares.share(3);
            threads.spawn(move || {
                entries().skip(thread).step_by(3).for_each(|entry| share.add(&entry));
                share.finish();
            });
        }
    });
    for at_once in [filling.finish(), filling_in_shares.finish()] {
        same(&at_once, &one_by_one);
    }
}

fn id(n: u32) -> SessionId {
    let mut random = [0; 10];
    random[..4].copy_from_slice(&n.to_be_bytes());
    SessionId::new(CREATED, random)
}

fn same(at_once: &RevocationList, one_by_one: &RevocationList) {
    assert_eq!(at_once.len(), one_by_one.len());
    for n in 0..200_001 {
        for generation in [1, 6, 9] {
            let facts = TokenFacts { subject: "bob", ..session_facts(id(n), Generation::new(generation)) };
            assert_eq!(at_once.judge(facts, NOW), one_by_one.judge(facts, NOW), "{n}");
        }
    }
    assert_eq!(at_once.judge(LOOSE, NOW), one_by_one.judge(LOOSE, NOW));
}

#[test]
fn an_entry_without_an_end_stays() {
    for effect in [
        Effect::SESSION_REVOKED,
        Effect::Minimum { minimum: Generation::new(5), effective_from: NOW, before: Generation::NONE },
    ] {
        let list = list(&[Revocation { until: Timestamp::MAX, ..entry(Target::Session(session(1)), effect) }]);
        let minimum = list.minimum(session(1));
        assert_eq!(list.sweep(LATE), 0);
        list.apply(&raised(session(1), Generation::new(3), Timestamp::ZERO));
        assert_eq!((list.sweep(LATE.plus(HOUR * 2)), list.minimum(session(1))), (0, minimum));
        assert!(list.judge(session_facts(session(1), Generation::new(4)), LATE).refuses(LATE));
    }
}

fn entries() -> impl Strategy<Value = Vec<Revocation>> {
    let minimum = (0..6u64, 0..6u64, 0..6u64).prop_map(|(minimum, from, before)| Effect::Minimum {
        minimum: Generation::new(minimum),
        effective_from: Timestamp::from_millis(from),
        before: Generation::new(before),
    });
    let one = prop_oneof![8 => minimum, 1 => Just(Effect::SESSION_REVOKED)]
        .prop_map(|e| entry(Target::Session(session(1)), e));
    proptest::collection::vec(one, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_list_refuses_what_any_of_its_entries_refuses_in_whatever_order_they_came(
        entries in entries(), generation in 0..7u64, now in 0..7u64, swept in 0..7u64,
    ) {
        let now = Timestamp::from_millis(now);
        let forth = list(&entries);
        let back = RevocationList::new();
        for e in entries.iter().rev() {
            back.apply(e);
            // A sweep in between may neither bring forward a future effect nor undo one.
            back.sweep(Timestamp::from_millis(swept).min(now));
        }
        let facts = session_facts(session(1), Generation::new(generation));
        let refused = |l: &RevocationList| l.judge(facts, now).refuses(now);
        if entries.iter().any(|e| refused(&list(std::slice::from_ref(e)))) {
            prop_assert!(refused(&forth) && refused(&back));
        }
        let merged = entries[1..].iter().fold(entries[0].clone(), |mut all, e| { all.absorb(e); all });
        prop_assert_eq!(refused(&forth), refused(&list(&[merged])));
        prop_assert_eq!(refused(&forth), refused(&back));
        prop_assert_eq!(forth.minimum(session(1)), back.minimum(session(1)));
    }
}

#[test]
fn r23_an_entry_that_refuses_nothing_new_raises_no_counter() {
    let entries = [
        gone(session(1)),
        raised(session(2), Generation::new(5), NOW),
        raised(session(3), Generation::new(5), NOW.plus(Duration::from_secs(9))),
        Revocation {
            target: Target::Subject { issuer: OURS.into(), subject: "ada".into() },
            effect: Effect::NotBefore(NOW),
            until: NOW,
        },
        Revocation {
            target: Target::Client { issuer: OURS.into(), client: "web".into() },
            effect: Effect::NotBefore(NOW),
            until: NOW,
        },
        Revocation { target: Target::Global, effect: Effect::NotBefore(NOW), until: NOW },
        Revocation { target: Target::Token { issuer: OURS.into(), jti: "j".into() }, effect: Effect::Gone, until: NOW },
    ];
    let list = RevocationList::new();
    let epochs = || (0..SHARDS).map(|shard| list.epoch(shard)).collect::<Vec<_>>();
    for entry in &entries {
        let before = epochs();
        assert!(list.apply(entry), "{entry:?}");
        let after = epochs();
        assert_ne!(before, after, "{entry:?}");
        assert!(!list.apply(entry), "{entry:?}");
        // A longer `until` changes nothing for a token.
        assert!(!list.apply(&Revocation { until: entry.until.plus(Duration::from_secs(60)), ..entry.clone() }));
        assert_eq!(epochs(), after, "{entry:?}");
    }
}

/// The entries, the token that each ends, and the counter of that token.
fn many() -> Vec<(Revocation, TokenFacts<'static>)> {
    let mut all: Vec<_> = (1..=200).map(|n| (gone(session(n)), session_facts(session(n), Generation::FIRST))).collect();
    all.push((token(THEIRS, "j1"), FOREIGN));
    all
}

#[test]
fn many_entries_at_once_do_what_one_after_the_other_does() {
    let all = many();
    let apart = list(&all.iter().map(|(entry, _)| entry.clone()).collect::<Vec<_>>());
    let together = RevocationList::new();
    assert_eq!(together.apply_all(all.iter().map(|(entry, _)| entry)), all.len());
    assert_eq!(together.len(), apart.len());
    for (_, facts) in &all {
        assert_eq!(together.judge(*facts, NOW), apart.judge(*facts, NOW));
        assert!(refused(&together, *facts));
    }
    assert_eq!(together.apply_all(all.iter().map(|(entry, _)| entry)), 0, "nothing of it is news");
}

#[test]
fn j15_many_entries_at_once_raise_each_counter_that_they_concern_once() {
    let list = RevocationList::new();
    // Twice as many entries as counters, each entry twice.
    let all: Vec<_> = (0..128).chain(0..128).map(|n| gone(session(n))).collect();
    assert_eq!(list.apply_all(&all), 128);
    assert_eq!((0..64).map(|shard| list.epoch(shard)).collect::<Vec<_>>(), [1; 64]);
    list.apply_all([&subject(OURS, NOW), &gone(session(200))]);
    assert_eq!((0..64).map(|shard| list.epoch(shard)).collect::<Vec<_>>(), [2; 64]);
    let shard = list.shard_of(session_facts(session(201), Generation::FIRST));
    list.apply_all([&gone(session(201))]);
    assert_eq!(list.epoch(shard), 3);
    assert_eq!((0..64).map(|shard| list.epoch(shard) - 2).sum::<u64>(), 1, "only that one");
    list.apply_all(&all);
    assert_eq!((0..64).map(|shard| list.epoch(shard) - 2).sum::<u64>(), 1, "no news");
    // The id of a token may be that of one that came of it, which has another id.
    list.apply_all([&token(THEIRS, "j1")]);
    assert_eq!((0..64).map(|shard| list.epoch(shard) - 2).sum::<u64>(), 65);
}

/// The entry's writer returns before the batch does, so the entry's counter rises before.
#[test]
fn j15_an_entry_that_a_batch_has_brought_holds_once_its_own_writer_returns() {
    let list = RevocationList::new();
    let of_batch = [gone(session(1)), gone(session(2))];
    let shard = list.shard_of(session_facts(session(1), Generation::FIRST));
    let during = of_batch.iter().enumerate().map(|(number, entry)| {
        if number == 1 {
            assert_eq!(list.epoch(shard), 0, "the batch has not raised it");
            assert!(!list.apply(&gone(session(1))), "the batch has brought it");
            assert_eq!(list.epoch(shard), 1);
        }
        entry
    });
    assert_eq!(list.apply_all(during), 2);
    assert_eq!(list.epoch(shard), 2);
    assert!(!list.apply(&gone(session(1))));
    assert_eq!(list.epoch(shard), 2, "afterwards there is nothing to raise it for");
}

/// A key of ada's, made at this second.
fn key(made: u64) -> TokenFacts<'static> {
    TokenFacts { client: None, issued_at: Some(Timestamp::from_secs(made)), key_vouchers: Some(&[]), ..LOOSE }
}

#[test]
fn k4_a_key_ends_by_what_ends_keys_and_by_its_own_revocation_alone() {
    let (ada, at) = (LOOSE.subject, |seconds| Effect::NotBefore(Timestamp::from_secs(seconds)));
    let with_keys = |seconds| Effect::not_before(Timestamp::from_secs(seconds), true);
    let subject = || Target::Subject { issuer: OURS.into(), subject: ada.into() };
    let client = || Target::Client { issuer: OURS.into(), client: "batch".into() };
    for (target, of_client) in [(subject(), None), (client(), Some("batch")), (Target::Global, None)] {
        let list = RevocationList::new();
        let facts = |made| TokenFacts { client: of_client, ..key(made) };
        list.apply(&entry(target.clone(), at(50)));
        assert!(!refused(&list, facts(10)), "{target}: as after a logout everywhere");
        assert!(list.apply(&entry(target.clone(), with_keys(20))), "news for keys, although sessions have ended");
        assert!(refused(&list, facts(10)) && refused(&list, facts(20)) && !refused(&list, facts(21)), "{target}");
        assert!(refused(&list, TokenFacts { issued_at: None, ..facts(1) }), "{target}: of an unknown age");
        let copy = RevocationList::new();
        list.missing_in(&copy).flatten().for_each(|entry| assert!(copy.apply(&entry)));
        assert!(
            refused(&copy, facts(20)) && !refused(&copy, facts(21)),
            "{target}: what a list writes back has the bit"
        );
    }
    let list = RevocationList::new();
    list.apply(&entry(client(), with_keys(20)));
    assert!(!refused(&list, key(10)), "a client's end is not that of users' keys");
    // The issuer that vouched for the owner: in whole seconds, and only by what ends keys.
    let by = VouchedBy::new(THEIRS, "u-1");
    let vouched = |made| TokenFacts {
        key_vouchers: Some(std::slice::from_ref(&by)),
        issued_at: Some(Timestamp::from_millis(made)),
        ..key(0)
    };
    let there = || Target::Subject { issuer: THEIRS.into(), subject: "u-1".into() };
    list.apply(&entry(there(), at(50)));
    assert!(!refused(&list, vouched(10_000)), "as after a logout there");
    list.apply(&entry(there(), with_keys(30)));
    assert!(refused(&list, vouched(30_999)) && !refused(&list, vouched(31_000)) && !refused(&list, key(10)));
    let jti = LOOSE.jti.unwrap();
    list.apply(&token(OURS, jti));
    assert!(refused(&list, key(30)) && !refused(&list, TokenFacts { jti: Some("another"), ..key(30) }));
}
