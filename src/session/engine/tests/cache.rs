//! The cache of verified tokens: J14, J15, A5.

use std::sync::{Arc, Barrier};

use super::support::{AUDIENCE, ISSUER, World, scope, secs};
use crate::credential::Credential;
use crate::denial::Denial;
use crate::limit::{Limits, Rate, Rates};
use crate::policy::{Audiences, judge};
use crate::route::RoutePolicy;
use crate::session::RevokedBecause;
use crate::session::engine::{How, Origin};
use crate::verified::Shown;

#[tokio::test]
async fn j14_what_a_route_asks_is_judged_every_time_with_one_cached_token() {
    let w = World::new().await;
    let first = w.login().await;
    let verified = w.check(&first.access).unwrap();
    let again = w.check(&first.access).unwrap();
    assert!(Arc::ptr_eq(&verified, &again), "a hit in the cache");
    let own = Audiences(vec![(ISSUER.into(), vec![AUDIENCE.into()])]);
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
        assert_eq!(judge(&policy, &w.check(&first.access).unwrap(), &own), expected, "{policy:?}");
    }
    assert_eq!(judge(&policy("", &[]), &verified, &Audiences::default()), Err(Denial::WrongAudience));
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
    // 600 seconds from the whole second of the login, and the leeway.
    w.advance(secs(600 + 29));
    w.check(&first.access).unwrap();
    w.advance(secs(1));
    assert_eq!(w.check(&first.access).unwrap_err(), Denial::TokenExpired);
}

#[tokio::test]
async fn j15_a_revocation_of_any_kind_takes_effect_at_the_next_hit() {
    let w = World::new().await;
    let by_session = w.login().await;
    w.check(&by_session.access).unwrap();
    w.engine.revoke_refresh_token(&by_session.refresh, "web", &Origin::default()).await.unwrap();
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
    let next = w.refreshed(&first.refresh, How::Rotated).await;
    w.check(&next.access).unwrap();
}

#[tokio::test]
async fn a5_whoever_shows_a_new_token_is_judged_for_himself_at_whatever_moment() {
    let w = World::new().await;
    let [forger, honest] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse().unwrap()));
    // So much that he waits until the end of the test.
    let limits =
        Limits::new(Rates { forged_per_address: Rate::new(1, secs(3600)), ..Rates::default() }, w.time.clone());
    (0..2).for_each(|_| limits.forged(forger));
    let show = |token: &str, address| {
        let shown = || Shown { limits: &limits, address, ..w.shown(w.engine.confirmations()) };
        w.checker.check(Credential::new(token), shown).map(|_| ())
    };
    for _ in 0..300 {
        let token = w.login().await.access;
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                barrier.wait();
                // Late, it is no first sight any more.
                assert!(matches!(show(&token, forger), Ok(()) | Err(Denial::TooManyRequests(_))));
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
            w.checker.check(Credential::new(&token), || w.shown(w.engine.confirmations())).unwrap()
        };
        let verified = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(show)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect::<Vec<_>>()
        });
        // Whoever had verified it himself would have one of his own.
        assert!(verified.iter().all(|one| Arc::ptr_eq(one, &verified[0])));
    }
}

#[tokio::test]
async fn a5_a_flood_of_bad_tokens_leaves_the_good_ones_in_the_cache() {
    let w = World::new().await;
    let first = w.login().await;
    let verified = w.check(&first.access).unwrap();
    let (signed, _) = first.access.rsplit_once('.').unwrap();
    // Thirty times what the cache holds.
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
    // Three times what the cache holds, and the first between any two of them.
    for _ in 0..300 {
        w.check(&w.login().await.access).unwrap();
        w.check(&first.access).unwrap();
    }
    let elsewhere = std::thread::scope(|scope| scope.spawn(|| w.check(&first.access).unwrap()).join().unwrap());
    assert!(Arc::ptr_eq(&verified, &elsewhere), "it was not verified again");
}
