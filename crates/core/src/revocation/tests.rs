//! The laws of merging, and the counters. (`tests/loom_epoch.rs` includes the file of the counters to prove their
//! promise to threads, so their tests are here.)

use proptest::prelude::*;

use super::epoch::{Epochs, RevocationEpoch, SHARDS};
use super::*;

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, cases: 2000, ..ProptestConfig::default() }
}

fn minimum() -> impl Strategy<Value = Effect> {
    let ordinary = (0..5u64, 0..5u64, 0..5u64).prop_map(|(minimum, from, before)| Effect::Minimum {
        minimum: Generation::new(minimum),
        effective_from: Timestamp::from_millis(from),
        before: Generation::new(before),
    });
    prop_oneof![6 => ordinary, 1 => Just(Effect::SESSION_REVOKED)]
}

fn not_before() -> impl Strategy<Value = Effect> {
    let at = Timestamp::from_millis;
    prop_oneof![
        (0..5u64).prop_map(move |ms| Effect::NotBefore(at(ms))),
        (0..5u64, 1..5u64)
            .prop_map(move |(sessions, keys)| Effect::NotBeforeWithKeys { sessions: at(sessions), keys: at(keys) }),
    ]
}

/// Two or three effects of one kind, as they can meet.
fn three() -> impl Strategy<Value = (Effect, Effect, Effect)> {
    prop_oneof![
        3 => (minimum(), minimum(), minimum()),
        1 => (not_before(), not_before(), not_before()),
        1 => Just((Effect::Gone, Effect::Gone, Effect::Gone)),
    ]
}

/// Is a token refused with this generation, created (or with a session created) at this moment?
fn refuses(effect: Effect, generation: Generation, created: Timestamp, now: Timestamp) -> bool {
    match effect {
        Effect::Minimum { minimum, effective_from, before } => {
            generation < before || (now >= effective_from && generation < minimum)
        }
        Effect::NotBefore(at) => created <= at,
        // As of a key: see `a_logout_everywhere_moves_no_keys`.
        Effect::NotBeforeWithKeys { sessions, .. } => created <= sessions,
        Effect::Gone => true,
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn merging_is_commutative_associative_and_idempotent((a, b, c) in three()) {
        prop_assert_eq!(a.merge(b), b.merge(a));
        prop_assert_eq!(a.merge(b).merge(c), a.merge(b.merge(c)));
        prop_assert_eq!(a.merge(a), a);
        prop_assert_eq!(a.merge(b).merge(b), a.merge(b));
    }

    #[test]
    fn merging_never_loosens((a, b, _) in three(), generation in 0..6u64, created in 0..6u64, now in 0..6u64) {
        let (created, now) = (Timestamp::from_millis(created), Timestamp::from_millis(now));
        if refuses(a, Generation::new(generation), created, now) || refuses(b, Generation::new(generation), created, now) {
            prop_assert!(refuses(a.merge(b), Generation::new(generation), created, now));
        }
    }

    #[test]
    fn absorbing_keeps_the_later_end((a, b, _) in three(), x in 0..9u64, y in 0..9u64) {
        let entry = |effect, until| Revocation { target: Target::Global, effect, until: Timestamp::from_millis(until) };
        let mut one = entry(a, x);
        one.absorb(&entry(b, y));
        let mut other = entry(b, y);
        other.absorb(&entry(a, x));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(one.until, Timestamp::from_millis(x.max(y)));
    }
}

#[test]
fn k4_a_logout_everywhere_ends_no_keys_and_an_operators_end_of_a_subject_does() {
    let at = Timestamp::from_millis;
    let (ended, logged_out) = (Effect::not_before(at(5), true), Effect::not_before(at(9), false));
    for merged in [ended.merge(logged_out), logged_out.merge(ended)] {
        assert_eq!((merged.sessions_until(), merged.keys_until()), (Some(at(9)), Some(at(5))));
        assert_eq!(merged.merge(Effect::not_before(at(12), true)).keys_until(), Some(at(12)));
    }
    assert_eq!(logged_out.keys_until(), None);
    use crate::session::RevokedBecause as Because;
    for because in Because::ALL {
        let ends =
            matches!(because, Because::Operator | Because::UserChanged | Because::Restored | Because::GlobalRevocation);
        assert_eq!(because.ends_keys(), ends, "{because:?}");
    }
}

#[test]
fn gone_absorbs_every_minimum_and_its_schedule() {
    let later = Effect::Minimum { minimum: REVOKED, effective_from: Timestamp::MAX, before: Generation::NONE };
    let raised =
        Effect::Minimum { minimum: Generation::new(9), effective_from: Timestamp::MAX, before: Generation::new(8) };
    for (a, b) in
        [(Effect::SESSION_REVOKED, raised), (raised, Effect::SESSION_REVOKED), (later, raised), (later, later)]
    {
        assert_eq!(a.merge(b), Effect::SESSION_REVOKED);
    }
}

#[test]
fn an_entry_that_comes_before_the_last_took_effect_brings_the_last_into_effect() {
    let at = |minimum, from| Effect::Minimum {
        minimum,
        effective_from: Timestamp::from_millis(from),
        before: Generation::NONE,
    };
    let both = at(Generation::new(2), 60).merge(at(Generation::new(3), 90));
    assert_eq!(
        both,
        Effect::Minimum {
            minimum: Generation::new(3),
            effective_from: Timestamp::from_millis(90),
            before: Generation::new(2)
        }
    );
}

#[test]
fn a_bump_concerns_its_shard_and_a_bump_of_all_every_shard() {
    let epochs = Epochs::<4>::new();
    epochs.bump(1);
    epochs.bump(5);
    assert_eq!([0, 1, 2, 3].map(|s| epochs.read(s)), [0, 2, 0, 0]);
    epochs.bump_all();
    assert_eq!([0, 1, 2, 3].map(|s| epochs.read(s)), [1, 3, 1, 1]);
}

#[test]
fn counters_share_no_cache_line() {
    // The number of open batches is one more counter.
    assert_eq!(size_of::<Epochs>(), (SHARDS + 1) * 128);
}

#[test]
fn a_watch_is_current_until_the_counter_moves_and_never_loosens() {
    let watch = RevocationEpoch::new(3, Timestamp::MAX);
    assert!(watch.is_current(3) && !watch.is_current(4));
    watch.update(4, Timestamp::from_millis(100));
    // A slower checker that saw less.
    watch.update(3, Timestamp::MAX);
    assert!(!watch.is_current(4));
    assert_eq!(watch.refuse_from(), Timestamp::from_millis(100));
}
