//! The cache of verified tokens: J14, J15, A5.

use std::sync::{Arc, Barrier};
use std::time::Duration;

use super::support::{AUDIENCE, CACHE, World, scope, secs};
use crate::clock::TimeSource;
use crate::credential::Credential;
use crate::denial::Denial;
use crate::engine::{AccountRule, IssueKind, Origin};
use crate::limit::{Limits, Rate, Rates};
use crate::policy::judge;
use crate::route::RoutePolicy;
use crate::session::expiry::OnExpiry;
use crate::session::{Generation, RevokedBecause};
use crate::token::verify::{IssuerKeys, IssuerRules, Verifier};
use crate::verify_cache::MissContext;

#[tokio::test]
async fn j14_what_a_route_asks_is_judged_every_time_with_one_cached_token() {
    let w = World::new().await;
    let first = w.login().await;
    let verified = w.check(&first.access).unwrap();
    let again = w.check(&first.access).unwrap();
    assert!(Arc::ptr_eq(&verified, &again), "a hit in the cache");
    let policy = |scopes: &str, audiences: &[&str]| RoutePolicy {
        scopes: scope(scopes),
        audiences: audiences.iter().map(|&audience| audience.to_owned()).collect(),
        ..RoutePolicy::default()
    };
    let cases = [
        (policy("", &[]), Ok(())),
        (policy("read", &[]), Ok(())),
        (policy("write read", &["other", AUDIENCE]), Ok(())),
        (policy("read admin", &[]), Err(Denial::InsufficientScope)),
        (policy("rea", &[]), Err(Denial::InsufficientScope)),
        (policy("", &["other"]), Err(Denial::WrongAudience)),
        (policy("", &["ap"]), Err(Denial::WrongAudience)),
        (policy("", &["API"]), Err(Denial::WrongAudience)),
    ];
    for (policy, expected) in cases {
        assert_eq!(judge(&policy, w.check(&first.access).unwrap().token()), expected, "{policy:?}");
    }
}

#[tokio::test]
async fn j14_every_byte_of_a_token_is_compared() {
    let w = World::new().await;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    for at in 0..first.access.len() {
        let mut edited = first.access.clone().into_bytes();
        edited[at] = if edited[at] == b'A' { b'E' } else { b'A' };
        assert!(w.check(&String::from_utf8(edited).unwrap()).is_err(), "byte {at}");
    }
    for edited in [format!("{} ", first.access), format!("{}.", first.access), first.access[1..].to_owned()] {
        assert!(w.check(&edited).is_err());
    }
    assert_eq!(w.checker.cached(), 1);
}

#[tokio::test]
async fn j15_expiry_is_checked_at_every_hit() {
    let w = World::new().await;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    // The lifetime of 600 seconds, rounded up to a whole second, without leeway.
    w.advance(secs(600) - Duration::from_millis(1));
    w.check(&first.access).unwrap();
    w.advance(secs(1));
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenExpired);
}

#[tokio::test]
async fn j15_a_revocation_of_any_kind_takes_effect_at_the_next_hit() {
    let w = World::new().await;
    let by_session = w.login().await;
    w.check(&by_session.access).unwrap();
    w.engine.revoke_refresh_token(&by_session.refresh, "web", AccountRule::Any, &Origin::default()).await.unwrap();
    assert_eq!(w.check(&by_session.access).unwrap_err(), Denial::TokenRevoked);

    let by_subject = w.login().await;
    w.check(&by_subject.access).unwrap();
    w.engine.revoke_subject("ada", RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(&by_subject.access).unwrap_err(), Denial::TokenRevoked);

    let by_all = w.login().await;
    w.check(&by_all.access).unwrap();
    w.engine.revoke_all(RevokedBecause::Operator).await.unwrap();
    assert_eq!(w.check(&by_all.access).unwrap_err(), Denial::TokenRevoked);
    assert_eq!(w.checker.cached(), 3, "all three from the cache");
}

#[tokio::test]
async fn j15_a_removed_key_takes_effect_at_the_next_check() {
    let w = World::new().await;
    let first = w.login().await;
    w.check(&first.access).unwrap();
    w.set_keys(w.keys.ring(&["b", "a"], &[1]));
    w.check(&first.access).unwrap();
    w.set_keys(w.keys.ring(&["b"], &[1]));
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::UnknownKey);
    assert_eq!(w.checker.cached(), 0);
    let next = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    w.check(&next.access).unwrap();
}

#[tokio::test]
async fn a34_a_long_token_that_is_refused_unchecked_counts_and_one_beyond_the_bound_costs_nothing() {
    let w = World::new().await;
    let other = IssuerRules::external("https://idp.example", vec!["api".into()], IssuerKeys::unknown());
    w.checker.set_verifier(Verifier::new(vec![other]).unwrap());
    let from = Some("192.0.2.1".parse().unwrap());
    // An address may send 200 tokens of 8 KiB at once in vain.
    let refused = |token: &str| {
        let limits = Limits::new(Rates::default(), w.time.clone());
        let shown = || MissContext { limits: &limits, source: from.into(), ..w.shown(w.engine.confirmations()) };
        (0..300)
            .filter(|_| {
                w.checker
                    .check(Credential::new(token), shown, &mut ())
                    .is_err_and(|it| !matches!(it, Denial::RateLimited(..)))
            })
            .count()
    };
    let long = |bytes: usize| format!("e30.{}.e30", "A".repeat(bytes - 8));
    for (token, examined) in [(long(8 << 10), 300), (long(20 << 10), 101), (long(25 << 10), 300)] {
        assert_eq!(refused(&token), examined, "{} bytes", token.len());
    }
}

#[tokio::test]
async fn a5_whoever_shows_a_new_token_is_judged_for_himself_at_whatever_moment() {
    let w = World::new().await;
    let [forger, honest] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse().unwrap()));
    // The wait after these forgeries lasts until the end of the test.
    let limits =
        Limits::new(Rates { forged_per_address: Rate::new(1, secs(3600)), ..Rates::default() }, w.time.clone());
    (0..2).for_each(|_| limits.record_forged(forger));
    let show = |token: &str, address: Option<std::net::IpAddr>| {
        let shown = || MissContext { limits: &limits, source: address.into(), ..w.shown(w.engine.confirmations()) };
        w.checker.check(Credential::new(token), shown, &mut ()).map(|_| ())
    };
    for _ in 0..300 {
        let token = w.login().await.access;
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                // The token may have been verified meanwhile; then it is no longer unseen.
                assert!(matches!(show(&token, forger), Ok(()) | Err(Denial::RateLimited(..))));
            });
            barrier.wait();
            assert_eq!(show(&token, honest), Ok(()));
        });
    }
}

#[tokio::test]
async fn of_several_who_show_a_new_token_at_once_one_verifies_it() {
    let w = World::new().await;
    for _ in 0..200 {
        let token = w.login().await.access;
        let barrier = Barrier::new(4);
        let show = || {
            barrier.wait();
            w.checker.check(Credential::new(&token), || w.shown(w.engine.confirmations()), &mut ()).unwrap()
        };
        let verified = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(show)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        // A request that had verified it itself would have a value of its own.
        assert!(verified.iter().all(|one| Arc::ptr_eq(one, &verified[0])));
    }
}

#[tokio::test]
async fn a5_a_flood_of_bad_tokens_leaves_the_good_ones_in_the_cache() {
    let w = World::new().await;
    let first = w.login().await;
    let verified = w.check(&first.access).unwrap();
    let (signed, _) = first.access.rsplit_once('.').unwrap();
    // Thirty times the cache's capacity.
    for i in 0..3_000_u32 {
        let forged = format!("{signed}.{i:0>86}");
        assert!(w.check(&forged).is_err());
    }
    assert_eq!(w.checker.cached(), 1);
    assert!(Arc::ptr_eq(&verified, &w.check(&first.access).unwrap()));
}

#[tokio::test]
async fn a5_a_token_in_use_keeps_its_place_though_its_thread_has_it_at_hand() {
    let w = World::new().await;
    let first = w.login().await;
    let verified = w.check(&first.access).unwrap();
    // Three times the cache's capacity, with the first token between any two of them.
    for _ in 0..300 {
        w.check(&w.login().await.access).unwrap();
        w.check(&first.access).unwrap();
    }
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| w.check(&first.access).unwrap()).join().unwrap());
    assert!(Arc::ptr_eq(&verified, &elsewhere), "it was not verified again");
}

#[tokio::test]
async fn j17_an_own_token_ends_with_its_exp_and_lives_until_then() {
    let w = World::new().await;
    // The login is in the middle of a second: the granted lifetime is rounded up.
    let first = w.login_with("ada", None, "web", Some(secs(2))).await.unwrap();
    assert_eq!((first.expires_in, first.expires.as_millis() % 1000), (2, 0));
    let token = first.access_token.expose();
    w.advance(secs(2));
    w.check(token).unwrap();
    w.advance(Duration::from_millis(599));
    let verified = w.check(token).unwrap();
    assert_eq!(w.checker.check_again(&verified, None, OnExpiry::Close), Ok(()));
    w.advance(Duration::from_millis(1));
    assert_eq!(w.check(token).unwrap_err(), Denial::TokenExpired);
    assert_eq!(w.checker.check_again(&verified, None, OnExpiry::Close), Err(Denial::TokenExpired));
    let now = w.engine.clock().now();
    let key = verified.token().key();
    let successor = |expires| {
        Some(crate::token::claims::SuccessorToken { generation: Generation::new(2), issued_at: expires, expires, key })
    };
    assert_eq!(w.checker.check_again(&verified, successor(now), OnExpiry::Close), Err(Denial::TokenExpired));
    let later = now.plus(Duration::from_millis(1));
    assert_eq!(w.checker.check_again(&verified, successor(later), OnExpiry::Close), Ok(()));
    assert_eq!(w.verify_ignoring_expiry(token, Duration::ZERO).unwrap_err(), Denial::TokenExpired);
    w.verify_ignoring_expiry(token, secs(1)).unwrap();
}

#[tokio::test]
async fn j17_what_ends_a_token_is_the_later_of_engine_time_and_wall_clock() {
    let w = World::new().await;
    let [cached, new] = [w.login().await.access, w.login().await.access];
    w.check(&cached).unwrap();
    // The wall clock jumps, and the engine does not follow.
    let before = w.time.wall();
    w.time.set_wall(before.plus(secs(2 * 3600)));
    w.engine.clock().tick();
    assert_eq!(w.engine.clock().now(), before);
    for token in [&cached, &new] {
        assert_eq!(w.check(token).unwrap_err(), Denial::TokenExpired);
    }
    w.time.set_wall(before);
    w.engine.clock().tick();
    for token in [&cached, &new] {
        w.check(token).unwrap();
    }
    // A wall clock that steps back revives nothing.
    w.advance(secs(601));
    w.time.set_wall(before);
    w.engine.clock().tick();
    assert_eq!(w.check(&cached).unwrap_err(), Denial::TokenExpired);
}

/// Limits that have counted nothing yet.
fn fresh(w: &World, rates: Rates) -> Limits {
    Limits::new(rates, w.time.clone())
}

const NAT: Option<std::net::IpAddr> = Some(std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));

#[tokio::test]
async fn a13_a_client_that_goes_on_showing_a_dead_token_holds_nobody_up() {
    let w = World::new().await;
    let rate = Rate::new(2, secs(3600));
    let limits = fresh(&w, Rates { forged_per_address: rate, refused_per_address: rate, ..Rates::default() });
    let show = |token: &str| {
        let shown = || MissContext { limits: &limits, source: NAT.into(), ..w.shown(w.engine.confirmations()) };
        w.checker.check(Credential::new(token), shown, &mut ()).map(|_| ())
    };
    let expired = w.login_with("ada", None, "web", Some(secs(1))).await.unwrap();
    let revoked = w.login().await;
    w.engine.revoke_refresh_token(&revoked.refresh, "web", AccountRule::Any, &Origin::default()).await.unwrap();
    w.advance(secs(2));
    for _ in 0..100 {
        assert_eq!(show(expired.access_token.expose()), Err(Denial::TokenExpired), "no signature is checked");
        assert_eq!(show(&revoked.access), Err(Denial::TokenRevoked), "it was checked once");
    }
    assert_eq!(show(&w.login().await.access), Ok(()), "somebody else behind the same address");
    // Many such tokens are counted: each costs as much as a forged one.
    for n in 0..4 {
        let other = w.login().await;
        w.engine.revoke_refresh_token(&other.refresh, "web", AccountRule::Any, &Origin::default()).await.unwrap();
        match show(&other.access) {
            Err(Denial::TokenRevoked) => assert!(n < 2),
            other => assert!(n >= 2 && matches!(other, Err(Denial::RateLimited(..))), "{n}: {other:?}"),
        }
    }
    assert_eq!(show(&revoked.access), Err(Denial::TokenRevoked), "a known refusal needs no check");
    assert!(matches!(show(&w.login().await.access), Err(Denial::RateLimited(..))));
}

#[tokio::test]
async fn a13_a_token_that_is_only_read_is_counted_like_one_that_is_used() {
    let w = World::new().await;
    let limits = fresh(&w, Rates { forged_per_address: Rate::new(2, secs(3600)), ..Rates::default() });
    let read = |token: &str| {
        let shown = MissContext { limits: &limits, source: NAT.into(), ..w.shown(w.engine.confirmations()) };
        w.checker.verify_ignoring_expiry(token, Duration::ZERO, shown).map(|_| ())
    };
    let [seen, unseen] = [w.login().await.access, w.login().await.access];
    w.check(&seen).unwrap();
    let (signed, _) = unseen.rsplit_once('.').unwrap();
    let forged: Vec<_> = (0..4_u32).map(|n| format!("{signed}.{n:A>85}A")).collect();
    let came: Vec<_> = forged.iter().map(|token| read(token)).collect();
    assert_eq!(came[..3], [Err(Denial::BadSignature); 3]);
    assert!(matches!(came[3], Err(Denial::RateLimited(..))));
    assert!(matches!(read(&unseen), Err(Denial::RateLimited(..))));
    assert_eq!(read(&seen), Ok(()), "it costs nothing");
}

#[tokio::test]
async fn a12_the_cache_is_bounded_by_bytes() {
    let w = World::new().await;
    // Tokens of several kilobytes, five times the capacity.
    let long = ["x", "y"].map(|letter| letter.repeat(1500)).join(" ");
    w.users.change("ada", |user| user.scopes = scope(&long));
    let mut each = 0;
    for _ in 0..200 {
        let token = w.login().await.access;
        assert!(token.len() > 4000);
        each = each.max(token.len());
        w.check(&token).unwrap();
    }
    let bytes = w.checker.cached_bytes();
    assert!(bytes <= CACHE, "{bytes}");
    assert!(w.checker.cached() <= CACHE / each as u64, "{}", w.checker.cached());
    assert!(w.checker.cached() > 5);
}

#[tokio::test]
async fn a12_what_a_thread_has_at_hand_is_bounded_by_bytes() {
    let w = World::new().await;
    let long = ["x", "y"].map(|letter| letter.repeat(2000)).join(" ");
    w.users.change("ada", |user| user.scopes = scope(&long));
    for _ in 0..1600 {
        w.check(&w.login().await.access).unwrap();
    }
    assert!(crate::verify_cache::at_hand() <= 8 << 20, "{}", crate::verify_cache::at_hand());
}
