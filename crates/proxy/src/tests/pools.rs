//! The choice among addresses, without sockets.

use rotogate_core::headers::Peer;
use rotogate_core::overload::Holder;
use rotogate_core::route::UpstreamId;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::support::upstream;
use crate::address::{Address, Connector};
use crate::counts::UpstreamCounts;
use crate::pool::{InFlightSlot, Pool, RequestHolders, Resolver, system_resolver};
use crate::{MAX_EJECTION, Proxy, ProxyError, Settings, Upstream};

const SECOND: Duration = Duration::from_secs(1);

fn pool_with(upstream: Upstream, resolver: &Resolver) -> Arc<Pool> {
    let counts = Arc::new(UpstreamCounts::new(0));
    let connecting = Connector::new(&upstream, &Settings::default(), Arc::clone(&counts)).unwrap();
    Arc::new(Pool::new(upstream, connecting, counts, None, Arc::clone(resolver)))
}

/// A pool with this many addresses.
fn pool_of(addresses: usize, change: impl FnOnce(&mut Upstream)) -> Arc<Pool> {
    let urls: Vec<String> = (1..=addresses).map(|n| format!("http://127.0.0.{n}:1")).collect();
    let mut upstream = upstream(&urls.iter().map(String::as_str).collect::<Vec<_>>());
    change(&mut upstream);
    pool_with(upstream, &system_resolver())
}

async fn enter(pool: &Arc<Pool>) -> InFlightSlot {
    pool.enter(&[], RequestHolders::default()).await.unwrap().unwrap()
}

/// Fails until an address is ejected. Returns that address.
async fn put_one_aside(pool: &Arc<Pool>) -> Arc<Address> {
    let in_flight = enter(pool).await;
    for _ in 0..pool.upstream.max_failures {
        assert!(!in_flight.address.is_ejected());
        in_flight.record_failure("test");
    }
    assert!(in_flight.address.is_ejected());
    Arc::clone(&in_flight.address)
}

async fn goes_to(pool: &Arc<Pool>, address: &Arc<Address>) -> bool {
    for _ in 0..50 {
        if Arc::ptr_eq(&enter(pool).await.address, address) {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn of_two_addresses_the_one_with_fewer_requests_is_taken() {
    fastrand::seed(7);
    let pool = pool_of(2, |_| {});
    let mut held = Vec::new();
    for _ in 0..10 {
        held.push(enter(&pool).await);
    }
    assert_eq!(pool.all().iter().map(|address| address.load()).collect::<Vec<_>>(), [5, 5]);
    held.retain(|in_flight| !Arc::ptr_eq(&in_flight.address, &pool.all()[0]));
    for _ in 0..5 {
        held.push(enter(&pool).await);
    }
    assert_eq!(pool.all().iter().map(|address| address.load()).collect::<Vec<_>>(), [5, 5]);
    drop(held);
    assert_eq!(pool.all().iter().map(|address| address.load()).collect::<Vec<_>>(), [0, 0]);
}

#[tokio::test]
async fn among_many_addresses_two_choices_keep_the_load_even() {
    fastrand::seed(7);
    let pool = pool_of(10, |_| {});
    let mut held = Vec::new();
    for _ in 0..1000 {
        held.push(enter(&pool).await);
    }
    let loads: Vec<usize> = pool.all().iter().map(|address| address.load()).collect();
    // A choice of one random address would vary by dozens.
    assert!(loads.iter().all(|load| (95..=105).contains(load)), "{loads:?}");
}

#[tokio::test(start_paused = true)]
async fn a_failing_address_is_put_aside_and_each_time_in_a_row_for_twice_as_long() {
    let pool = pool_of(2, |upstream| upstream.eject_for = 10 * SECOND);
    let address = put_one_aside(&pool).await;
    assert!(!goes_to(&pool, &address).await);
    for seconds in [10, 20, 40, 80, 160, 300, 300] {
        tokio::time::sleep(seconds * SECOND - SECOND / 2).await;
        assert!(address.is_ejected(), "{seconds}");
        tokio::time::sleep(SECOND).await;
        assert!(!address.is_ejected() && goes_to(&pool, &address).await, "{seconds}");
        // From now on, one failure ejects the address.
        loop {
            let in_flight = enter(&pool).await;
            if Arc::ptr_eq(&in_flight.address, &address) {
                in_flight.record_failure("test");
                break;
            }
        }
        assert!(address.is_ejected(), "{seconds}");
    }
    tokio::time::sleep(MAX_EJECTION + SECOND).await;
    address.record_success(&pool.upstream);
    assert_eq!(put_one_aside_of(&pool, &address).await, 5, "all is forgiven");
}

/// Fails until the address is ejected. Returns the number of failures.
async fn put_one_aside_of(pool: &Arc<Pool>, address: &Arc<Address>) -> u32 {
    for failures in 1.. {
        loop {
            let in_flight = enter(pool).await;
            if Arc::ptr_eq(&in_flight.address, address) {
                in_flight.record_failure("test");
                break;
            }
        }
        if address.is_ejected() {
            return failures;
        }
    }
    unreachable!()
}

#[tokio::test(start_paused = true)]
async fn where_all_addresses_are_put_aside_all_are_used() {
    let pool = pool_of(2, |_| {});
    let (one, two) = (put_one_aside(&pool).await, put_one_aside(&pool).await);
    assert!(!Arc::ptr_eq(&one, &two));
    assert!(goes_to(&pool, &one).await && goes_to(&pool, &two).await);
    let alone = pool_of(1, |_| {});
    for _ in 0..100 {
        enter(&alone).await.record_failure("test");
    }
    assert!(!alone.all()[0].is_ejected(), "there is no other");
}

fn states(pool: &Pool) -> Vec<&'static str> {
    pool.report().addresses.iter().map(|address| address.state).collect()
}

#[tokio::test(start_paused = true)]
async fn o30_a_dead_address_is_not_up_whether_it_is_alone_or_all_are_dead() {
    let alone = pool_of(1, |_| {});
    for number in 1..=alone.upstream.max_failures {
        assert_eq!(states(&alone), ["up"], "{number}");
        enter(&alone).await.record_failure("test");
    }
    let report = alone.report();
    assert_eq!((states(&alone), report.up, report.failing), (vec!["failing"], 0, 1));
    assert!(enter(&alone).await.address.record_success(&alone.upstream), "it answers again, which is logged");
    assert_eq!((states(&alone), alone.report().up), (vec!["up"], 1));
    // Single failures do not make an upstream down.
    for _ in 0..100 {
        enter(&alone).await.record_failure("test");
        assert!(!enter(&alone).await.address.record_success(&alone.upstream));
        assert_eq!(states(&alone), ["up"]);
    }
    // Readmitted after its time, an address is up once it has answered.
    let pool = pool_of(2, |_| {});
    let one = put_one_aside(&pool).await;
    assert_eq!(pool.report().up, 1);
    tokio::time::sleep(pool.upstream.eject_for + SECOND).await;
    assert!(!one.is_ejected());
    assert_eq!((pool.report().up, pool.report().failing), (1, 1));
    one.record_success(&pool.upstream);
    assert_eq!((pool.report().up, pool.report().failing), (2, 0));
}

#[tokio::test]
async fn an_address_that_was_tried_is_not_taken_again() {
    let pool = pool_of(2, |_| {});
    let first = enter(&pool).await;
    let second = pool.enter(&[Arc::clone(&first.address)], RequestHolders::default()).await.unwrap().unwrap();
    assert!(!Arc::ptr_eq(&first.address, &second.address));
    let tried = [Arc::clone(&first.address), Arc::clone(&second.address)];
    assert!(pool.enter(&tried, RequestHolders::default()).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_for_an_address_that_is_full_but_not_for_ever() {
    let pool = pool_of(2, |upstream| (upstream.max_requests, upstream.queue_timeout) = (1, SECOND));
    let (first, second) = (enter(&pool).await, enter(&pool).await);
    assert!(matches!(pool.enter(&[], RequestHolders::default()).await, Err(ProxyError::Overloaded)));
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move { pool.enter(&[], RequestHolders::default()).await.unwrap().unwrap() })
        })
        .collect();
    tokio::task::yield_now().await;
    drop((first, second));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().address.load(), 1);
    }
}

/// Holders that share no counter: equal indices among more counters are equal among fewer.
static HOLDERS: LazyLock<Vec<Holder>> = LazyLock::new(|| {
    let mut seen = HashSet::new();
    let all = (0..1000_u32).map(|last| Peer::new(IpAddr::from(last.to_be_bytes()), false).holder());
    all.filter(|holder| seen.insert(holder.index(2048))).take(256).collect()
});

/// The holders of a request: a caller, and a client address.
fn holders(caller: impl Into<Option<u8>>, client: u8) -> RequestHolders {
    let holder = |number: u8| HOLDERS[usize::from(number)];
    RequestHolders { caller: caller.into().map(holder), client: Some(holder(client)) }
}

fn at_once(pool: &Arc<Pool>, holders: RequestHolders) -> Option<InFlightSlot> {
    pool.enter(&[], holders).now_or_never().map(|entered| entered.unwrap().unwrap())
}

fn taken(pool: &Arc<Pool>, holders: RequestHolders) -> Vec<InFlightSlot> {
    std::iter::from_fn(|| at_once(pool, holders)).take(1000).collect()
}

/// Starts requests that wait. When one gets its slot, the number of its holders is sent.
fn waiting(pool: &Arc<Pool>, callers: &[u8]) -> mpsc::UnboundedReceiver<(u8, InFlightSlot)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    for caller in callers.iter().copied() {
        let (pool, sender) = (Arc::clone(pool), sender.clone());
        tokio::spawn(async move {
            let slot = pool.enter(&[], holders(caller, caller)).await.unwrap().unwrap();
            let _ = sender.send((caller, slot));
        });
    }
    receiver
}

#[tokio::test(start_paused = true)]
async fn a17_one_caller_uses_an_idle_upstream_and_leaves_the_reserve_to_others() {
    // For each address of the upstream, a caller has a tenth of the slots, and a client address a quarter.
    for addresses in [1, 2] {
        let pool = pool_of(addresses, |upstream| {
            upstream.max_requests = 80;
            (upstream.max_requests_per_caller, upstream.max_requests_per_address) = (8, 20);
        });
        let all = taken(&pool, holders(1, 1));
        assert_eq!(all.len(), 70 * addresses);
        // Other callers get slots, from other client addresses and from that of the first caller.
        let others: Vec<_> =
            (2..5).map(|caller| at_once(&pool, holders(caller, caller % 2)).expect("a place")).collect();
        assert!(at_once(&pool, holders(1, 9)).is_none(), "the first from elsewhere");
        drop((all, others));
        // One client address has many callers, none of them above its share.
        let mut all: Vec<_> = (1..200).filter_map(|caller| at_once(&pool, holders(caller, 1))).collect();
        all.extend((1..200).filter_map(|caller| at_once(&pool, holders(caller, 1))));
        assert_eq!(all.len(), 70 * addresses);
        assert!((2..10).all(|caller| at_once(&pool, holders(caller, caller)).is_some()));
        assert!(at_once(&pool, holders(None, 1)).is_none() && at_once(&pool, holders(None, 2)).is_some());
        drop(all);
        assert_eq!(taken(&pool, holders(None, 3)).len(), 70 * addresses, "nothing is left behind");
    }
}

#[tokio::test(start_paused = true)]
async fn a18_a_request_beyond_its_share_waits_and_those_with_little_are_first() {
    let pool = pool_of(1, |upstream| {
        upstream.max_requests = 16;
        (upstream.max_requests_per_caller, upstream.max_requests_per_address) = (2, 4);
    });
    let mut first = taken(&pool, holders(1, 1));
    assert_eq!(first.len(), 14);
    let _second = taken(&pool, holders(2, 2));
    let _third = at_once(&pool, holders(3, 3)).unwrap();
    // The order of arrival: several requests of the first caller, then other callers, of which one has a request
    // already.
    let mut served = waiting(&pool, &[1, 1, 1, 1, 3, 4, 5]);
    tokio::task::yield_now().await;
    let mut held = Vec::new();
    for expected in [4, 5, 3] {
        first.pop();
        // The last free slot is for a caller without a slot.
        let and_one_more = if expected == 3 { first.pop() } else { None };
        drop(and_one_more);
        let (caller, slot) = served.recv().await.unwrap();
        assert_eq!(caller, expected);
        held.push(slot);
    }
    // The first caller gets the remaining slots when no other caller waits.
    assert_eq!(first.len(), 10);
    first.clear();
    for _ in 0..4 {
        let (caller, slot) = served.recv().await.unwrap();
        assert_eq!(caller, 1);
        held.push(slot);
    }
}

#[tokio::test(start_paused = true)]
async fn a18_of_two_beyond_their_share_the_one_with_less_is_first() {
    let pool = pool_of(1, |upstream| {
        upstream.max_requests = 16;
        (upstream.max_requests_per_caller, upstream.max_requests_per_address) = (2, 4);
    });
    let mut first: Vec<_> = (0..9).map(|_| at_once(&pool, holders(1, 1)).unwrap()).collect();
    let second = taken(&pool, holders(2, 2));
    assert_eq!(second.len(), 5);
    let mut served = waiting(&pool, &[1, 1, 1, 2, 2]);
    tokio::task::yield_now().await;
    let mut held = Vec::new();
    for expected in [2, 2, 1] {
        first.pop();
        let (caller, slot) = served.recv().await.unwrap();
        assert_eq!(caller, expected);
        held.push(slot);
    }
}

#[tokio::test(start_paused = true)]
async fn a18_nobody_is_refused_before_the_time_to_wait_and_who_gives_up_leaves_nothing() {
    let pool = pool_of(1, |upstream| {
        upstream.max_requests = 8;
        (upstream.max_requests_per_caller, upstream.max_requests_per_address) = (1, 2);
        upstream.queue_timeout = SECOND;
    });
    let held = taken(&pool, holders(1, 1));
    assert_eq!(held.len(), 7);
    let begun = tokio::time::Instant::now();
    assert!(matches!(pool.enter(&[], holders(1, 1)).await, Err(ProxyError::ShareTaken)));
    assert_eq!(begun.elapsed().as_secs(), 1);
    let last = at_once(&pool, holders(2, 2)).expect("who has nothing");
    assert!(matches!(pool.enter(&[], holders(1, 1)).await, Err(ProxyError::Overloaded)));
    // A request that leaves just as it gets a slot passes the slot on to the next one.
    let mut gone = Box::pin(pool.enter(&[], holders(3, 3)));
    assert!(futures_util::poll!(&mut gone).is_pending());
    let mut served = waiting(&pool, &[4]);
    tokio::task::yield_now().await;
    drop(last);
    drop(gone);
    assert_eq!(served.recv().await.unwrap().0, 4);
    drop((served, held));
    assert_eq!(taken(&pool, holders(1, 1)).len(), 7);
    assert_eq!(pool.all()[0].load(), 0);
}

#[tokio::test(start_paused = true)]
async fn a18_who_waits_has_the_places_of_an_address_that_is_readmitted() {
    let pool = pool_of(2, |upstream| {
        upstream.max_requests = 1;
        upstream.queue_timeout = SECOND * 60;
    });
    put_one_aside(&pool).await;
    let _held = at_once(&pool, holders(1, 1)).expect("a place at the other address");
    assert!(pool.upstream.eject_for < pool.upstream.queue_timeout);
    // Meanwhile no request ends.
    let mut served = waiting(&pool, &[2]);
    assert_eq!(served.recv().await.unwrap().0, 2);
}

/// Resolves names from a list that a test changes, and counts the lookups.
type Names = Arc<Mutex<Option<Vec<&'static str>>>>;

fn names(names: &[&'static str]) -> (Names, Resolver, Arc<AtomicUsize>) {
    let (answer, asked) = (Arc::new(Mutex::new(Some(names.to_vec()))), Arc::new(AtomicUsize::new(0)));
    let (said, count) = (Arc::clone(&answer), Arc::clone(&asked));
    let resolver: Resolver = Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        let found = said.lock().unwrap().clone();
        Box::pin(async move {
            tokio::time::sleep(SECOND).await;
            let found = found.ok_or(std::io::ErrorKind::NotFound)?;
            Ok(found.into_iter().map(|address| address.parse::<SocketAddr>().unwrap()).collect())
        })
    });
    (answer, resolver, asked)
}

fn addresses(pool: &Pool) -> Vec<String> {
    pool.all().iter().filter_map(|address| address.to).map(|to| to.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_name_is_as_many_addresses_as_it_stands_for_and_is_looked_up_again() {
    let (answer, resolver, asked) = names(&["10.0.0.1:80", "[::1]:80", "10.0.0.1:80"]);
    let pool = pool_with(Upstream { dns_refresh: 30 * SECOND, ..upstream(&["http://app.test"]) }, &resolver);
    let mut tasks = JoinSet::new();
    pool.start(&mut tasks);
    let both = tokio::join!(enter(&pool), enter(&pool));
    assert_eq!(asked.load(Ordering::SeqCst), 1, "one looks up for all");
    assert_eq!(addresses(&pool), ["10.0.0.1:80", "[::1]:80"]);
    assert_eq!(pool.all()[0].to_string(), "app.test (10.0.0.1:80)");

    let stays = Arc::clone(&pool.all()[0]);
    *answer.lock().unwrap() = Some(vec!["10.0.0.2:80", "10.0.0.1:80"]);
    tokio::time::sleep(32 * SECOND).await;
    assert_eq!(addresses(&pool), ["10.0.0.2:80", "10.0.0.1:80"]);
    assert!(Arc::ptr_eq(&stays, &pool.all()[1]), "its connections, its load and its failures are kept");

    for nothing in [None, Some(Vec::new())] {
        *answer.lock().unwrap() = nothing;
        tokio::time::sleep(40 * SECOND).await;
        assert_eq!(addresses(&pool), ["10.0.0.2:80", "10.0.0.1:80"], "a name server that is away takes nothing away");
    }
    drop(both);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_never_found_is_an_upstream_that_cannot_be_reached() {
    let (answer, resolver, _) = names(&[]);
    *answer.lock().unwrap() = None;
    let pool = pool_with(upstream(&["http://app.test"]), &resolver);
    assert!(matches!(pool.enter(&[], RequestHolders::default()).await, Err(ProxyError::Unreachable)));
    *answer.lock().unwrap() = Some(vec!["10.0.0.1:80"]);
    assert!(pool.enter(&[], RequestHolders::default()).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_look_up_that_hangs_ends_with_the_time_for_a_connection() {
    let resolver: Resolver = Arc::new(|_| Box::pin(std::future::pending()));
    let pool = pool_with(upstream(&["http://app.test"]), &resolver);
    assert!(matches!(pool.enter(&[], RequestHolders::default()).await, Err(ProxyError::Unreachable)));
}

#[tokio::test(start_paused = true)]
async fn where_health_is_checked_good_checks_bring_an_address_back_and_not_time() {
    let check = crate::HealthCheck::new("/healthz".parse().unwrap());
    let pool = pool_of(2, |upstream| upstream.health = Some(check));
    let address = put_one_aside(&pool).await;
    tokio::time::sleep(2 * MAX_EJECTION).await;
    assert!(address.is_ejected());
    assert!(!address.record_good_check(2) && address.is_ejected());
    assert!(!address.record_bad_check(3));
    assert!(!address.record_good_check(2), "in a row");
    assert!(address.record_good_check(2) && !address.is_ejected());
    assert!(
        !address.record_bad_check(3)
            && !address.record_bad_check(3)
            && address.record_bad_check(3)
            && address.is_ejected()
    );
}

#[tokio::test]
async fn replacing_upstreams_keeps_whatever_is_the_same() {
    let named = |name: &str, url: &str| Upstream { name: name.into(), ..upstream(&[url]) };
    let (a, b) = (named("a", "http://127.0.0.1:1"), named("b", "http://127.0.0.1:2"));
    let proxy = Proxy::new(vec![a.clone(), b], Settings::default()).unwrap();
    let pool = |proxy: &Proxy, name: &str| proxy.0.pool(proxy.upstream(name).unwrap()).unwrap();

    let other = named("b", "http://127.0.0.1:3");
    let upstreams = vec![named("c", "http://127.0.0.1:4"), other.clone(), a];
    let next = proxy.with_upstreams(upstreams, Vec::new()).unwrap();
    assert_eq!(next.upstream("c"), Some(UpstreamId::new(0)), "places are those of the configuration");
    assert!(Arc::ptr_eq(&pool(&next, "a"), &pool(&proxy, "a")));
    assert_eq!(pool(&next, "b").upstream, other);
    assert_ne!(pool(&proxy, "b").upstream, other, "requests that have the old proxy go on with it");
    assert!(Arc::ptr_eq(&pool(&next, "b").counts, &pool(&proxy, "b").counts));

    let fewer = next.with_upstreams(vec![other], Vec::new()).unwrap();
    assert_eq!(fewer.upstream("a"), None);
    assert!(Arc::ptr_eq(&pool(&fewer, "b"), &pool(&next, "b")));
}
