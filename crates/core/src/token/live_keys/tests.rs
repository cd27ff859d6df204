use super::change::shown;
use super::*;
use crate::token::algorithm::Algorithm;
use crate::token::keyring::{Keyring, SigningKey};

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const COOLDOWN: Duration = Duration::from_secs(30);
const LEEWAY: Duration = Duration::from_secs(5);
const RULES: FetchRules = FetchRules { cooldown: COOLDOWN, timeout: Duration::from_secs(5) };

fn after(secs: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(secs))
}

/// A set of keys, named in order, and the print of each.
fn keys(of: &[(&str, &SigningKey)]) -> IssuerKeys {
    let entries: Vec<_> = of
        .iter()
        .map(|(kid, key)| {
            let mut jwk = serde_json::to_value(key.verifying_key().published().unwrap()).unwrap();
            jwk["kid"] = (*kid).into();
            jwk
        })
        .collect();
    IssuerKeys::from_jwks(serde_json::json!({ "keys": entries }).to_string().as_bytes(), None).unwrap()
}

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EdDsa).unwrap()
}

fn print(key: &SigningKey) -> KeyPrint {
    key.verifying_key().print()
}

const fn until(secs: u64) -> Validity {
    Validity {
        fresh_until: Timestamp::from_secs(1_800_000_000 + secs / 2),
        usable_until: Timestamp::from_secs(1_800_000_000 + secs),
    }
}

/// The attempt at `at` brings these keys; `None`: it fails, and the next one is a minute later.
fn attempt(live: &Arc<LiveKeys>, at: Timestamp, keys: Option<IssuerKeys>) {
    let attempt = live.begin(at, at);
    match keys {
        Some(keys) => {
            live.set(
                keys,
                Validity { fresh_until: at.plus(COOLDOWN), usable_until: at.plus(Duration::from_secs(3600)) },
            );
            attempt.succeed();
        }
        None => attempt.fail(at.plus(Duration::from_secs(60))),
    }
}

fn unavailable(secs: u64) -> Denial {
    Denial::KeysUnavailable(Duration::from_secs(secs))
}

#[test]
fn i4_an_empty_set_says_that_the_keys_are_not_known() {
    let a = key();
    let live = Arc::<LiveKeys>::from(keys(&[("a", &a)]));
    let stamp = AtomicU64::new(0);
    assert_eq!(live.recheck(&print(&a), &stamp, NOW), Ok(()));
    let change = live.set(IssuerKeys::unknown(), Validity::ENDLESS);
    assert_eq!(change.left, ["a"]);
    assert!(live.present().get().is_none());
    assert!(matches!(live.recheck(&print(&a), &stamp, NOW), Err(Denial::KeysUnavailable(_))));
    let generation = live.generation.load(Ordering::Relaxed);
    assert!(live.set(IssuerKeys::unknown(), Validity::ENDLESS).is_empty());
    assert_eq!(live.generation.load(Ordering::Relaxed), generation);
    assert_eq!(live.set(keys(&[("a", &a)]), Validity::ENDLESS).added, ["a"]);
    assert_eq!(live.recheck(&print(&a), &stamp, NOW), Ok(()));
}

#[test]
fn i10_an_equal_set_keeps_its_generation_and_a_key_that_stays_is_only_stamped_anew() {
    let (a, b, c) = (key(), key(), key());
    let live = Arc::<LiveKeys>::from(keys(&[("a", &a), ("b", &b)]));
    let (of_a, of_b) = (AtomicU64::new(0), AtomicU64::new(0));
    assert_eq!(live.recheck(&print(&a), &of_a, NOW), Ok(()));
    assert_eq!(live.recheck(&print(&b), &of_b, NOW), Ok(()));
    let first = of_a.load(Ordering::Relaxed);
    assert!(live.set(keys(&[("b", &b), ("a", &a)]), Validity::ENDLESS).is_empty());
    assert_eq!(live.generation.load(Ordering::Relaxed), first, "equal keys in another order");
    let change = live.set(keys(&[("a", &a), ("c", &c)]), Validity::ENDLESS);
    assert_eq!(change, KeyChange { added: vec!["c".into()], left: vec!["b".into()], reused: vec![] });
    assert_eq!(live.recheck(&print(&a), &of_a, NOW), Ok(()));
    assert_eq!(of_a.load(Ordering::Relaxed), first + 1, "the key that stays is found in the new set");
}

#[test]
fn i2_a_key_that_left_is_refused_at_the_next_check_and_so_is_one_whose_name_is_another_keys() {
    let (a, b, c) = (key(), key(), key());
    let live = Arc::<LiveKeys>::from(keys(&[("a", &a), ("b", &b)]));
    let (of_a, of_b) = (AtomicU64::new(0), AtomicU64::new(0));
    live.recheck(&print(&a), &of_a, NOW).unwrap();
    live.recheck(&print(&b), &of_b, NOW).unwrap();
    let change = live.set(keys(&[("a", &c)]), Validity::ENDLESS);
    assert_eq!(change, KeyChange { added: vec![], left: vec!["b".into()], reused: vec!["a".into()] });
    for (key, stamp) in [(&a, &of_a), (&b, &of_b)] {
        assert_eq!(live.recheck(&print(key), stamp, NOW), Err(Denial::UnknownKey));
        assert_eq!(live.holds(&print(key), NOW), Err(Denial::UnknownKey), "open streams ask so");
    }
}

#[test]
fn i4_keys_are_used_until_they_are_too_old_and_then_nothing_is_decided() {
    let a = key();
    let live = LiveKeys::fetched(RULES);
    let stamp = AtomicU64::new(0);
    assert_eq!(live.state(NOW), IssuerKeyState::Empty);
    assert_eq!(live.holds(&print(&a), NOW), Err(unavailable(1)));
    live.set(keys(&[("a", &a)]), until(100));
    assert_eq!(live.recheck(&print(&a), &stamp, NOW), Ok(()));
    assert_eq!(live.state(after(49)), IssuerKeyState::Fresh);
    attempt(&live, after(50), None);
    assert_eq!(live.state(after(50)), IssuerKeyState::Aging);
    assert_eq!(live.recheck(&print(&a), &stamp, after(99)), Ok(()));
    // The stamp is up to date, and the keys are not.
    assert_eq!(live.state(after(100)), IssuerKeyState::Stale);
    assert_eq!(live.recheck(&print(&a), &stamp, after(100)), Err(unavailable(10)), "the next attempt is in 10 s");
    assert!(live.usable(after(100)).is_none() && live.usable(after(99)).is_some());
    assert_eq!(live.missing(after(100), None, LEEWAY), unavailable(10));
    live.renew(until(200));
    assert_eq!(live.recheck(&print(&a), &stamp, after(100)), Ok(()));
}

#[test]
fn i3_i4_an_unknown_kid_asks_once_for_each_cooldown_and_is_refused_only_by_a_good_answer() {
    let a = key();
    let live = LiveKeys::fetched(RULES);
    // The issuer has not answered yet.
    assert_eq!(live.missing(NOW, None, LEEWAY), unavailable(1));
    assert!(live.fetching().is_wanted);
    attempt(&live, NOW, Some(keys(&[("a", &a)])));
    assert!(!live.fetching().is_wanted, "the attempt is the one that was wanted");
    // Within the cooldown of a good answer, the token is refused unless it is newer than the answer.
    assert_eq!(live.missing(after(10), Some(NOW.minus(LEEWAY)), LEEWAY), Denial::UnknownKey);
    assert_eq!(live.missing(after(10), None, LEEWAY), Denial::UnknownKey);
    assert_eq!(live.missing(after(10), Some(NOW), LEEWAY), unavailable(20));
    for _ in 0..10_000 {
        live.missing(after(29), Some(after(20)), LEEWAY);
    }
    assert!(!live.fetching().is_wanted, "no number of unknown kids asks within the cooldown");
    // After the cooldown, one attempt is wanted.
    assert_eq!(live.missing(after(30), None, LEEWAY), unavailable(1));
    assert!(live.fetching().is_wanted);
    attempt(&live, after(30), None);
    // A failed attempt proves nothing, and the schedule of retries alone decides.
    assert_eq!(live.missing(after(40), None, LEEWAY), unavailable(50));
    assert!(!live.fetching().is_wanted);
    assert_eq!(live.missing(after(4000), None, LEEWAY), unavailable(1));
    assert!(!live.fetching().is_wanted);
    assert_eq!(live.unknown_kids(), 10_007);
}

#[test]
fn i58_a_token_without_iat_asks_at_once_after_a_scheduled_attempt_and_is_refused_after_its_own() {
    let a = key();
    let live = LiveKeys::fetched(RULES);
    attempt(&live, NOW, Some(keys(&[("a", &a)])));
    assert_eq!(live.missing(after(1), None, LEEWAY), unavailable(1));
    assert!(live.fetching().is_wanted, "at once");
    attempt(&live, after(1), Some(keys(&[("a", &a)])));
    for scheduled in [5, 10, 25] {
        for _ in 0..1000 {
            assert_eq!(live.missing(after(3), None, LEEWAY), Denial::UnknownKey);
        }
        assert!(!live.fetching().is_wanted, "one attempt in each cooldown");
        attempt(&live, after(scheduled), Some(keys(&[("a", &a)])));
    }
    assert_eq!(live.missing(after(31), None, LEEWAY), unavailable(1));
    assert!(live.fetching().is_wanted);
}

#[test]
fn i51_the_first_unknown_kid_after_a_scheduled_attempt_asks_at_once_and_the_next_waits() {
    let a = key();
    let live = LiveKeys::fetched(RULES);
    // The scheduled attempt comes right before the issuer signs with a new key.
    attempt(&live, NOW, Some(keys(&[("a", &a)])));
    let of_before = Some(NOW.minus(LEEWAY));
    assert_eq!(live.missing(after(1), of_before, LEEWAY), Denial::UnknownKey, "it is older than the keys");
    assert!(!live.fetching().is_wanted);
    assert_eq!(live.missing(after(1), Some(after(1)), LEEWAY), unavailable(1));
    assert!(live.fetching().is_wanted, "at once");
    attempt(&live, after(1), Some(keys(&[("a", &a)])));
    // For any times in tokens: one attempt in each cooldown, besides the scheduled attempts.
    for scheduled in [5, 10, 25] {
        for _ in 0..1000 {
            assert_eq!(live.missing(after(3), Some(after(4000)), LEEWAY), unavailable(28));
        }
        assert!(!live.fetching().is_wanted);
        attempt(&live, after(scheduled), Some(keys(&[("a", &a)])));
    }
    assert_eq!(live.missing(after(31), Some(after(31)), LEEWAY), unavailable(1));
    assert!(live.fetching().is_wanted);
}

#[test]
fn i1_i51_a_token_that_its_key_did_not_sign_asks_once_in_a_cooldown_if_it_is_newer_than_the_keys() {
    let a = key();
    let live = LiveKeys::fetched(RULES);
    let mistaken = |at: u64, issued_at: Option<Timestamp>| live.mistaken(after(at), issued_at, LEEWAY, true);
    attempt(&live, NOW, Some(keys(&[("a", &a)])));
    assert_eq!(mistaken(1, Some(NOW.minus(LEEWAY))), None, "the issuer answered after it");
    assert_eq!(live.mistaken(after(1), Some(after(1)), LEEWAY, false), Some((unavailable(1), true)));
    assert!(!live.fetching().is_wanted, "without effects");
    assert_eq!(mistaken(1, Some(after(1))), Some((unavailable(1), true)));
    assert!(live.fetching().is_wanted, "at once");
    assert_eq!(mistaken(1, Some(after(1))), Some((unavailable(1), true)), "until the attempt ends");
    attempt(&live, after(1), Some(keys(&[("a", &a)])));
    // The attempt did not help: a newer token is undecided, and counts; one without `iat` is decided.
    for _ in 0..1000 {
        assert_eq!(mistaken(3, Some(after(4000))), Some((unavailable(28), false)));
    }
    assert_eq!(mistaken(3, None), None);
    assert!(!live.fetching().is_wanted, "no number of tokens asks within the cooldown");
    // Anyone can make such tokens: they do not delay the first token of a key with a new name.
    assert_eq!(live.foresee_missing(after(3), Some(after(3)), LEEWAY), unavailable(1));
    assert!(live.judge_missing((&live.fetching(), None), after(3), Some(after(3)), LEEWAY).1);
    assert_eq!(mistaken(31, None), Some((unavailable(1), true)));
    attempt(&live, after(31), None);
    // The failed attempt proves nothing about tokens since the last answer.
    assert_eq!(mistaken(32, Some(after(20))), Some((unavailable(59), false)));
    assert_eq!(mistaken(32, Some(NOW.minus(LEEWAY))), None);
    // Keys that are not fetched decide.
    let set = Arc::<LiveKeys>::from(keys(&[("a", &a)]));
    assert_eq!(set.mistaken(NOW, None, LEEWAY, true), None);
    assert_eq!(live.unknown_kids(), 0);
}

#[test]
fn i4_keys_that_an_application_sets_are_unknown_until_then_and_after_a_clear() {
    let a = key();
    let live = Arc::<LiveKeys>::from(IssuerKeys::unknown());
    assert_eq!(live.missing(NOW, None, LEEWAY), unavailable(1));
    live.set(keys(&[("a", &a)]), Validity::ENDLESS);
    assert_eq!((live.missing(NOW, Some(NOW), LEEWAY), live.state(NOW)), (Denial::UnknownKey, IssuerKeyState::Fresh));
    live.clear();
    assert_eq!(live.missing(NOW, None, LEEWAY), unavailable(1));
    assert_eq!(live.holds(&print(&a), NOW), Err(unavailable(1)));
}

#[tokio::test(start_paused = true)]
async fn i3_requests_wait_for_one_attempt_and_not_more_than_the_bound() {
    let live = LiveKeys::fetched(RULES);
    assert!(live.join().is_none(), "nothing is under way");
    live.missing(NOW, None, LEEWAY);
    let mut waits: Vec<_> = std::iter::from_fn(|| live.join()).collect();
    assert_eq!((waits.len(), live.waiting()), (MAX_WAITING, MAX_WAITING));
    let one = waits.pop().unwrap();
    drop(waits);
    assert_eq!(live.waiting(), 1, "a request that goes away leaves its place");
    let fetching = async {
        live.wants().notified().await;
        attempt(&live, NOW, Some(keys(&[("a", &key())])));
    };
    let (is_final, ()) = tokio::join!(one.ended(), fetching);
    assert!(is_final, "the attempt began after the request");
    // An attempt that began before the request proves nothing about a newer key; nor does a failed attempt.
    let under_way = live.begin(after(40), after(40));
    let wait = live.join().unwrap();
    under_way.succeed();
    assert!(!wait.ended().await);
    live.missing(after(80), None, LEEWAY);
    let wait = live.join().unwrap();
    drop(live.begin(after(80), after(80)));
    assert!(!wait.ended().await, "an attempt without a result failed");
    assert_eq!(live.state(after(80)), IssuerKeyState::Aging);
    // The attempt never ends, but the wait does.
    let _never = live.begin(after(90), after(90));
    assert!(!live.join().unwrap().ended().await);
    assert_eq!(live.waiting(), 0);
}

#[test]
fn a_kid_is_escaped_and_cut_for_logs() {
    assert_eq!(shown(Some("a\n\u{1b}é")), "a\\n\\u{1b}\\u{e9}");
    assert_eq!(shown(Some(&"k".repeat(100))).len(), 64);
    assert!(!format!("{:?}", Arc::<LiveKeys>::from(IssuerKeys::own(&Keyring::ephemeral().unwrap()))).is_empty());
}
