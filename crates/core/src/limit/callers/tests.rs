use super::*;
use crate::clock::{ManualTime, Timestamp};
use crate::limit::Rates;

const MINUTE: Duration = Duration::from_secs(60);

fn limits() -> (Arc<ManualTime>, CallerLimits) {
    let time = ManualTime::at(Timestamp::from_secs(1_700_000_000));
    (time.clone(), CallerLimits::new(&Limits::new(Rates::default(), time.clone()), time))
}

fn in_force(limits: &CallerLimits, all: &[RateLimit]) -> Vec<Arc<RunningLimit>> {
    let name = |limit: &RateLimit| limit.name.clone().unwrap_or_else(|| limit.per.to_string().into());
    let running: Vec<_> = all.iter().map(|limit| limits.running_limit(&name(limit), limit)).collect();
    limits.use_limits(running.iter().zip(all));
    running
}

/// A request of a subject at an issuer, from an address, with `org` as its one claim.
#[derive(Clone, Copy, Default)]
struct Sent<'a> {
    caller: Option<(&'a str, &'a str)>,
    client: Option<&'a str>,
    account: Option<&'a str>,
    org: Option<&'a str>,
    address: Option<&'a str>,
}

fn by<'a>(subject: &'a str) -> Sent<'a> {
    Sent { caller: Some(("https://a.test", subject)), ..Sent::default() }
}

/// The limit that refuses the request, and for how long.
fn take(running: &[Arc<RunningLimit>], sent: Sent<'_>) -> Result<(), (&'static str, Duration)> {
    let claim = |path: &ClaimPath| sent.org.filter(|_| path.to_string() == "org").map(ToOwned::to_owned);
    let address = || sent.address.map(|address| address.parse().unwrap());
    let caller = sent.caller.map(|(issuer, subject)| LimitedCaller {
        issuer,
        subject,
        client: sent.client,
        account: sent.account,
        claim: &claim,
    });
    let request = LimitedRequest { caller, address: &address };
    let looked = CallerLimits::look_request(running.iter().map(|limit| &**limit), &request);
    let mut told = Vec::new();
    let taken = CallerLimits::take_request(&mut running.iter().map(|limit| &**limit), &request, &mut |limit, left| {
        told.push((limit.name(), left.requests));
    });
    match (taken, looked) {
        (Ok(()), Ok(())) => {
            assert_eq!(told.len(), running.len());
            Ok(())
        }
        // K24: what was foreseen happens.
        (Err(Unmet::Refused(name, wait)), Err(Unmet::Refused(foreseen, _))) => {
            assert_eq!(name, foreseen);
            Err((name, wait))
        }
        _ => panic!("a gate alone asks nobody, and refuses what it foresaw"),
    }
}

/// How many of twenty requests pass.
fn passed(running: &[Arc<RunningLimit>], sent: Sent<'_>) -> usize {
    (0..20).filter(|_| take(running, sent).is_ok()).count()
}

#[test]
fn k15_a_callers_requests_are_a_burst_and_then_what_time_earns() {
    let (time, limits) = limits();
    let three = RateLimit { burst: std::num::NonZeroU32::new(3), ..RateLimit::new(LimitPer::Subject, 6, MINUTE) };
    let running = in_force(&limits, &[three]);
    assert_eq!(passed(&running, by("ada")), 3);
    assert_eq!(take(&running, by("ada")), Err(("subject", Duration::from_secs(10))));
    assert_eq!(passed(&running, by("ben")), 3, "another subject");
    let elsewhere = Sent { caller: Some(("https://b.test", "ada")), ..Sent::default() };
    assert_eq!(passed(&running, elsewhere), 3, "another issuer's");
    time.advance(Duration::from_secs(20));
    assert_eq!(passed(&running, by("ada")), 2);
    assert_eq!(limits.refused_requests(), [("subject", 17 * 3 + 1 + 18)]);
}

#[test]
fn k15_each_kind_counts_what_it_says_and_the_others_together() {
    let (_, limits) = limits();
    let one = |per: LimitPer| in_force(&limits, &[RateLimit::new(per, 2, MINUTE)]);
    let ada = Sent {
        client: Some("web"),
        account: Some("acme"),
        org: Some("\"7\""),
        address: Some("192.0.2.1"),
        ..by("ada")
    };
    let key = Sent { client: Some("key:k1"), ..ada };
    let table = [
        (LimitPer::Subject, Sent { client: Some("app"), ..ada }, by("ben")),
        (LimitPer::Client, Sent { caller: by("ben").caller, ..ada }, key),
        (LimitPer::Account, Sent { client: Some("app"), ..ada }, Sent { account: Some("b"), ..ada }),
        (LimitPer::claim("org").unwrap(), Sent { client: Some("app"), ..ada }, Sent { org: Some("7"), ..ada }),
        (LimitPer::Address, by("ben"), Sent { address: Some("192.0.2.2"), ..ada }),
    ];
    for (per, same, other) in table {
        let same = Sent { address: ada.address, ..same };
        let running = one(per.clone());
        assert!(take(&running, ada).is_ok() && take(&running, same).is_ok(), "{per}");
        assert!(take(&running, ada).is_err() && take(&running, same).is_err(), "{per}: one count");
        assert_eq!(passed(&running, other), 2, "{per}: another count");
        assert_eq!(passed(&running, Sent::default()), 2, "{per}: those without it have one");
        assert_eq!(passed(&running, Sent { account: None, org: None, client: None, ..Sent::default() }), 0, "{per}");
    }
    let keys = one(LimitPer::Key);
    assert_eq!(passed(&keys, key), 2);
    assert_eq!(passed(&keys, Sent { client: Some("key:k2"), ..key }), 2);
    assert_eq!(passed(&keys, ada) + passed(&keys, by("ben")), 2, "tokens have one count");
    let route = one(LimitPer::Route);
    assert_eq!(passed(&route, ada) + passed(&route, by("ben")), 2);
}

#[test]
fn k15_an_ipv6_address_counts_by_its_64_and_the_networks_around_it() {
    let (_, limits) = limits();
    let running = in_force(&limits, &[RateLimit::new(LimitPer::Address, 2, MINUTE)]);
    let from = |address: &str| passed(&running, Sent { address: Some(address), ..Sent::default() });
    assert_eq!(from("2001:db8::1") + from("2001:db8::2"), 2);
    let others: usize = (1..8).map(|n| from(&format!("2001:db8:0:{n}::1"))).sum();
    assert_eq!(others, 6, "four times as many from a /56");
    assert_eq!(from("2001:db8:0:100::1"), 2);
}

#[test]
fn k18_a_request_that_one_limit_refuses_counts_with_none() {
    let (time, limits) = limits();
    let all = [
        RateLimit::new(LimitPer::Route, 10, MINUTE),
        RateLimit::new(LimitPer::Address, 10, MINUTE),
        RateLimit::new(LimitPer::Subject, 2, MINUTE),
    ];
    let running = in_force(&limits, &all);
    let from = |subject| Sent { address: Some("2001:db8::1"), ..by(subject) };
    assert_eq!(passed(&running, from("ada")), 2);
    assert_eq!(take(&running, from("ada")).unwrap_err().0, "subject");
    assert_eq!(passed(&running, from("ben")), 2);
    for subject in ["c", "d", "e"] {
        assert_eq!(passed(&running, from(subject)), 2, "refused requests used nothing up");
    }
    assert_eq!(take(&running, from("f")).unwrap_err().0, "route");
    time.advance(MINUTE);
    assert_eq!(passed(&running, from("ada")), 2);
}

#[test]
fn k21_new_rules_keep_the_counts_of_a_limit_that_counts_the_same() {
    let (_, limits) = limits();
    let limit = RateLimit::new(LimitPer::Subject, 5, MINUTE).named("a");
    let running = in_force(&limits, std::slice::from_ref(&limit));
    assert_eq!(passed(&running, by("ada")), 5);
    // Prepared rules that never come in force change nothing.
    let more = RateLimit { requests: NonZeroU32::new(10).unwrap(), ..limit.clone() };
    drop(limits.running_limit("a", &more));
    assert_eq!((passed(&running, by("ada")), limits.quota("a")), (0, Some((5, MINUTE))));
    let running = in_force(&limits, &[more]);
    assert_eq!(passed(&running, by("ada")), 0, "it is still used up");
    assert_eq!(passed(&running, by("ben")), 10);
    assert_eq!(limits.quota("a"), Some((10, MINUTE)));
    assert_eq!(limits.refused_requests()[0].1, 65, "the refusals too");
    let other = in_force(&limits, &[RateLimit::new(LimitPer::Route, 5, MINUTE).named("a")]);
    assert_eq!(passed(&other, by("ada")), 5, "one that counts something else begins anew");
}

#[test]
fn k15_many_callers_need_bounded_memory() {
    let (_, limits) = limits();
    let running = in_force(&limits, &[RateLimit::new(LimitPer::Subject, 2, MINUTE)]);
    for n in 0..100_000 {
        let _ = take(&running, by(&n.to_string()));
    }
    assert!(running[0].counters[0].buckets.memory() <= (1 << BUCKET_BITS) * 8);
}
