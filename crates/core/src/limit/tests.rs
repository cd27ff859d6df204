use super::*;
use crate::clock::{ManualTime, Timestamp};

fn limits() -> (Arc<ManualTime>, Limits) {
    let time = ManualTime::at(Timestamp::from_secs(1_700_000_000));
    (time.clone(), Limits::new(Rates::default(), time))
}

fn from<'a>(address: &str, username: &'a str) -> Attempt<'a> {
    Attempt { address: Some(address.parse().unwrap()), account: None, username, client: "web" }
}

#[test]
fn a1_an_address_is_limited_and_earns_tries_back() {
    let (time, limits) = limits();
    for i in 0..20 {
        limits.login(from("192.0.2.1", &format!("user{i}"))).unwrap();
    }
    let Err(Error::Denied(Denial::RateLimited("login_per_address", wait))) = limits.login(from("192.0.2.1", "another"))
    else {
        panic!("not limited")
    };
    assert_eq!(wait, Duration::from_secs(3));
    limits.login(from("192.0.2.2", "another")).unwrap();
    time.advance(wait);
    limits.login(from("192.0.2.1", "another")).unwrap();
}

#[test]
fn a1_ipv6_counts_by_64() {
    let (_, limits) = limits();
    for i in 0..20 {
        limits.login(from(&format!("2001:db8::{i:x}"), &format!("user{i}"))).unwrap();
    }
    assert!(limits.login(from("2001:db8::ffff", "x")).is_err());
    limits.login(from("2001:db8:0:1::1", "x")).unwrap();
}

#[test]
fn a1_strangers_do_not_lock_a_user_out() {
    let (_, limits) = limits();
    let victim = from("192.0.2.1", "ada");
    limits.login(victim).unwrap();
    limits.logged_in(victim);
    let refused = (0..40).filter(|i| limits.login(from(&format!("198.51.100.{i}"), "ada")).is_err()).count();
    assert!(refused > 20, "strangers are limited: {refused}");
    limits.login(victim).unwrap();
}

#[test]
fn a34_the_size_of_refused_tokens_and_the_number_of_tried_keys_buy_no_more_work() {
    const KIB: usize = 1024;
    let token = |kib: usize| "x".repeat(kib * KIB);
    let costs = [(0, 1, 1), (1, 1, 1), (8, 1, 1), (9, 1, 2), (16, 4, 8), (24, 0, 1), (24, 1, 3), (24, 4, 12)];
    for (kib, keys, cost) in costs {
        assert_eq!(Vain::cost(&token(kib), keys).get(), cost, "{kib} KiB, {keys} keys");
    }
    let unchecked = [0, 8, 9, 24].map(|kib| Vain::cost_unchecked(&token(kib)).map(NonZeroU32::get));
    assert_eq!(unchecked, [None, None, Some(1), Some(2)]);
    // Whatever is mixed: the address gets its burst of 50, and one more that takes it into debt.
    for (kib, keys) in [(1, 1), (8, 4), (20, 1), (24, 2), (24, 4)] {
        for vain in [Vain::Forged, Vain::Refused] {
            let (_, limits) = limits();
            let (from, cost) = (Some("192.0.2.1".parse().unwrap()), Vain::cost(&token(kib), keys));
            let burst = if vain == Vain::Forged { 50 } else { 200 };
            let mut work = 0;
            while limits.admit_unverified(from).is_ok() {
                limits.record(vain, from, cost);
                work += cost.get();
            }
            assert!((burst..=burst + cost.get()).contains(&work), "{vain:?} {kib} KiB, {keys} keys: {work}");
            limits.admit_unverified(Some("192.0.2.2".parse().unwrap())).unwrap();
        }
    }
}

#[test]
fn a1_who_shows_forged_tokens_waits_and_nobody_else() {
    let (time, limits) = limits();
    let [forger, other] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse().unwrap()));
    for _ in 0..50 {
        limits.record_forged(forger);
        limits.admit_unverified(forger).unwrap();
    }
    limits.record_forged(forger);
    assert_eq!(limits.admit_unverified(forger), Err(Denial::RateLimited("forged_per_address", Duration::from_secs(1))));
    limits.admit_unverified(other).unwrap();
    limits.admit_unverified(None).unwrap();
    time.advance(Duration::from_millis(100));
    limits.admit_unverified(forger).unwrap();
    limits.record_forged(forger);
    limits.record_forged(forger);
    limits.admit_unverified(forger).unwrap_err();
    time.advance(Duration::from_secs(60));
    limits.admit_unverified(forger).unwrap();
}

#[test]
fn a1_a_flood_of_undecided_messages_counts_as_forged_and_a_lone_sender_after_a_key_roll_does_not() {
    let (time, limits) = limits();
    let [flood, lone] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse().unwrap()));
    for _ in 0..1000 {
        limits.record(Vain::Undecided, lone, NonZeroU32::MIN);
        limits.record(Vain::Undecided, flood, NonZeroU32::MIN);
    }
    // A hundred a second, for an hour.
    for _ in 0..360_000 {
        time.advance(Duration::from_millis(10));
        limits.record(Vain::Undecided, lone, NonZeroU32::MIN);
    }
    limits.admit_unverified(lone).unwrap();
    for _ in 0..1200 {
        limits.record(Vain::Undecided, flood, NonZeroU32::MIN);
    }
    assert!(matches!(limits.admit_unverified(flood), Err(Denial::RateLimited("forged_per_address", _))));
    limits.admit_unverified(lone).unwrap();
}

#[test]
fn a1_forged_tokens_from_everywhere_are_bounded_together_and_familiar_addresses_pass() {
    let (time, limits) = limits();
    let [friend, stranger] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse().unwrap()));
    limits.record_valid(friend);
    for from in 0..5000_u32 {
        limits.admit_unverified(stranger).unwrap();
        limits.record_forged(Some(IpAddr::from((from << 8).to_be_bytes())));
    }
    limits.admit_unverified(stranger).unwrap();
    limits.record_forged(None);
    for nobody_known in [stranger, None] {
        assert_eq!(
            limits.admit_unverified(nobody_known),
            Err(Denial::RateLimited("forged_overall", Duration::from_secs(1)))
        );
    }
    limits.admit_unverified(friend).unwrap();
    // Five attempts are earned, and the next callers get them.
    time.advance(Duration::from_millis(1));
    limits.admit_unverified(stranger).unwrap();
    limits.record_valid(stranger);
    for _ in 0..5 {
        limits.admit_unverified(None).unwrap();
        limits.record_forged(None);
    }
    limits.record_forged(None);
    limits.admit_unverified(None).unwrap_err();
    limits.admit_unverified(stranger).unwrap();
    // A familiar address still has the rate of one address.
    for _ in 0..=50 {
        limits.record_forged(friend);
    }
    limits.admit_unverified(friend).unwrap_err();
    time.advance(Duration::from_secs(2));
    limits.admit_unverified(None).unwrap();
}

#[test]
fn a1_memory_is_bounded_whatever_arrives() {
    let (_, limits) = limits();
    assert_eq!(limits.refresh_address.memory(), 0);
    for i in 0..2_000_000_u64 {
        let address = std::net::Ipv6Addr::from_bits(u128::from(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64);
        let _ = limits.refresh(Some(address.into()));
    }
    let full = limits.refresh_address.memory();
    assert_eq!(full, (8 << BUCKET_BITS) + 2 * (8 << (BUCKET_BITS - 3)), "2.5 MiB");
}

#[test]
fn a13_strangers_who_fail_with_a_client_lock_nobody_else_out() {
    let (time, limits) = limits();
    let stranger = |i: u32| IpAddr::from((0xcb00_7100 + i).to_be_bytes()).to_string();
    let from_home = from("192.0.2.1", "ada");
    let home = from_home.address;
    limits.login(from_home).unwrap();
    limits.logged_in(from_home);
    // Three hundred addresses, each at its full rate.
    let mut refused = 0;
    for i in 0..300 {
        for n in 0..20 {
            let user = format!("user{i}-{n}");
            let attempt = Attempt { username: &user, ..from(&stranger(i), "") };
            match limits.login(attempt) {
                Ok(_) => limits.login_failed(attempt),
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 4000, "strangers wait: {refused} of 6000");
    limits.login(from_home).unwrap();
    // Another user from there, another user from a new address, and each of them after one failure.
    limits.login(Attempt { username: "bob", address: home, ..from_home }).unwrap();
    let newcomer = from("198.51.100.1", "eve");
    for _ in 0..3 {
        limits.login(newcomer).unwrap();
        limits.login_failed(newcomer);
    }
    limits.login(newcomer).unwrap();
    limits.login_failed(newcomer);
    limits.login(newcomer).unwrap_err();
    time.advance(Duration::from_secs(60));
    limits.login(newcomer).unwrap();
    // Successful logins are not counted.
    for i in 0..2000_u32 {
        let (address, user) = (IpAddr::from((0x0a00_0000 + i).to_be_bytes()).to_string(), format!("u{i}"));
        let attempt = Attempt { client: "other", ..from(&address, &user) };
        limits.login(attempt).unwrap();
        limits.logged_in(attempt);
    }
}

#[test]
fn a13_a_known_user_has_a_count_of_its_own() {
    let (_, limits) = limits();
    let ada = from("192.0.2.1", "ada");
    limits.login(ada).unwrap();
    limits.logged_in(ada);
    // Other users behind the same address use up its rate for strangers.
    let refused = (0..40).filter(|i| limits.login(from("192.0.2.1", &format!("user{i}"))).is_err()).count();
    assert_eq!(refused, 21);
    for _ in 0..20 {
        limits.login(ada).unwrap();
        limits.login_failed(ada);
    }
    limits.login(ada).unwrap_err();
}

#[test]
fn a13_a_correct_secret_passes_while_strangers_fail() {
    let (_, limits) = limits();
    let stranger = |i: u32| Some(IpAddr::from((0xcb00_7100 + i).to_be_bytes()));
    let passed = (0..300).flat_map(|i| std::iter::repeat_n(i, 20)).filter(|i| {
        let passes = limits.secret(stranger(*i), "api").is_ok();
        limits.secret_failed(stranger(*i), "api");
        passes
    });
    let passed = passed.count();
    assert!(passed < 200 + 300 * 4, "{passed}");
    limits.secret(Some("192.0.2.1".parse().unwrap()), "api").unwrap();
    limits.secret(None, "api").unwrap_err();
    // Neither another client nor the users of this one are affected.
    limits.secret(stranger(1), "other").unwrap_err();
    limits.secret(stranger(301), "other").unwrap();
    limits.login(Attempt { client: "api", ..from("203.0.113.1", "ada") }).unwrap();
    for _ in 0..200 {
        limits.client_token("api").unwrap();
    }
    limits.client_token("api").unwrap_err();
}

#[test]
fn a13_strangers_leave_room_among_the_password_checks() {
    let (_, limits) = limits();
    let limits = limits.with_password_places(8);
    let known = from("192.0.2.1", "ada");
    limits.logged_in(known);
    let user = |i: u32| format!("user{i}");
    let places: Vec<_> = (0..6).map(|i| limits.login(from("192.0.2.2", &user(i))).unwrap()).collect();
    assert!(matches!(limits.login(from("192.0.2.3", "x")), Err(Error::Failed(Fault::Busy))));
    let _client = limits.secret(None, "api").unwrap();
    assert!(matches!(limits.secret(None, "api"), Err(Error::Failed(Fault::Busy))));
    let _known: Vec<_> = (0..8).map(|_| limits.login(known).unwrap()).collect();
    drop(places);
    limits.login(from("192.0.2.3", "x")).unwrap();
}

#[test]
fn a13_tokens_that_are_refused_have_a_wider_rate_than_forged_ones() {
    let (time, limits) = limits();
    let nat = Some("192.0.2.1".parse().unwrap());
    for _ in 0..200 {
        limits.record_refused(nat);
        limits.admit_unverified(nat).unwrap();
    }
    limits.record_refused(nat);
    limits.admit_unverified(nat).unwrap_err();
    limits.admit_unverified(Some("192.0.2.2".parse().unwrap())).unwrap();
    time.advance(Duration::from_millis(50));
    limits.admit_unverified(nat).unwrap();
}

#[test]
fn a13_who_introspects_is_held_up_by_its_own_questions_alone() {
    let (_, limits) = limits();
    let address = Some("192.0.2.1".parse().unwrap());
    for _ in 0..100 {
        limits.record_forged(address);
    }
    limits.admit_unverified(address).unwrap_err();
    for _ in 0..5000 {
        limits.admit_unverified(Source::Client("api")).unwrap();
        limits.record_forged(Source::Client("api"));
    }
    limits.record_forged(Source::Client("api"));
    limits.admit_unverified(Source::Client("api")).unwrap_err();
    limits.admit_unverified(Source::Client("other")).unwrap();
    limits.admit_unverified(Some("192.0.2.2".parse().unwrap())).unwrap();
}

/// The address of a /64, by its upper half.
fn v6(high: u64) -> Option<IpAddr> {
    Some(std::net::Ipv6Addr::from_bits(u128::from(high) << 64).into())
}

#[test]
fn a14_whoever_has_many_64s_has_the_rate_of_a_56_and_of_a_48() {
    const BASE: u64 = 0x2001_0db8_0000_0000;
    fn attempt(address: Option<IpAddr>, username: &str) -> Attempt<'_> {
        Attempt { address, account: None, username, client: "web" }
    }
    let (_, limits) = limits();
    let tries = |highs: &mut dyn Iterator<Item = u64>| -> usize {
        highs
            .map(|high| {
                let names: Vec<_> = (0..25).map(|n| format!("{high:x}-{n}")).collect();
                names.iter().filter(|name| limits.login(attempt(v6(high), name)).is_ok()).count()
            })
            .sum()
    };
    assert_eq!(tries(&mut (0..256).map(|n| BASE + n)), 20 * 4, "a /56");
    assert_eq!(tries(&mut (1..256).map(|n| BASE + (n << 8))), 20 * (32 - 4), "a /48");
    assert_eq!(tries(&mut std::iter::once(BASE + (1 << 16))), 20, "the next one");

    for n in 0..1000 {
        limits.record_forged(v6(BASE + n));
    }
    limits.admit_unverified(v6(BASE + 0xff)).unwrap_err();
    limits.admit_unverified(v6(BASE + 0xff00)).unwrap();
    for n in 0..2000 {
        limits.record_forged(v6(BASE + (n << 6)));
    }
    limits.admit_unverified(v6(BASE + 0xffff)).unwrap_err();
    limits.admit_unverified(v6(BASE + (1 << 16))).unwrap();

    let passed = (0..20_000).filter(|n| limits.refresh(v6(BASE + n % 65_536)).is_ok()).count();
    assert_eq!(passed, 200 * 32);
}

/// Counters of four nodes that are away, or refuse everything.
#[derive(Debug)]
struct Told {
    away: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl shared::RateCounters for Told {
    async fn admit(&self, _: Option<(&[u8], Rate)>, steps: &[shared::Step]) -> Result<shared::Admission, shared::Away> {
        if self.away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(shared::Away);
        }
        let take = steps.iter().position(|(_, _, how)| *how == shared::Use::Take);
        Ok(shared::Admission { is_known: false, refused: take.map(|place| (place, Duration::from_secs(9))) })
    }

    async fn remember(&self, _: &[u8]) -> Result<(), shared::Away> {
        self.remembers(&[]).await.map(drop)
    }

    async fn remembers(&self, _: &[u8]) -> Result<bool, shared::Away> {
        if self.away.load(std::sync::atomic::Ordering::Relaxed) { Err(shared::Away) } else { Ok(false) }
    }

    fn nodes(&self) -> u32 {
        4
    }
}

#[tokio::test]
async fn c29_while_the_shared_counters_are_away_a_node_admits_its_share_and_whom_it_knows() {
    let (time, limits) = limits();
    let told = Arc::new(Told { away: false.into() });
    let limits = limits.shared_by(Arc::clone(&told) as _, time.clone());
    let ada = from("192.0.2.1", "ada");
    limits.admit_login(ada).await.unwrap_err();
    limits.record_login(ada).await;
    told.away.store(true, std::sync::atomic::Ordering::Relaxed);
    // Four nodes admit 10 attempts of an account and 20 of an address; this node admits a quarter.
    let mut admitted = 0;
    for i in 0..40 {
        admitted += u32::from(limits.admit_login(from(&format!("198.51.100.{i}"), "ada")).await.is_ok());
    }
    assert_eq!(admitted, 2);
    let mut admitted = 0;
    for i in 0..40 {
        admitted += u32::from(limits.admit_login(from("203.0.113.1", &format!("user{i}"))).await.is_ok());
    }
    assert_eq!(admitted, 5);
    limits.admit_login(ada).await.unwrap();
    limits.admit_secret(Some("203.0.113.2".parse().unwrap()), "web").await.unwrap();
    // The shared counters are asked again after a pause, not at once.
    told.away.store(false, std::sync::atomic::Ordering::Relaxed);
    limits.admit_login(from("198.51.100.200", "ben")).await.unwrap();
    time.advance(Duration::from_secs(1));
    limits.admit_login(from("198.51.100.200", "ben")).await.unwrap_err();
}

#[test]
fn c29_a_share_of_a_rate_is_one_attempt_at_least() {
    let time = ManualTime::at(Timestamp::from_secs(1_700_000_000));
    let buckets = Buckets::new(4, Rate::new(2, Duration::from_secs(10)), time.clone());
    let eight = std::num::NonZeroU32::new(8).unwrap();
    buckets.take_share("a", eight).unwrap();
    assert_eq!(buckets.take_share("a", eight), Err(Duration::from_secs(80)));
    time.advance(Duration::from_secs(80));
    buckets.take_share("a", eight).unwrap();
}
