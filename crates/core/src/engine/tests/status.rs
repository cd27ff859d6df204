//! The bits of sessions that ended.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::support::{HOUR, ISSUER, Kind, T0, World};
use crate::claim::OwnClaims;
use crate::clock::{Timestamp, wall_micros};
use crate::engine::{ApplicationLogin, Origin, StatusFollower};
use crate::revocation::{Effect, Revocation, Target};
use crate::session::{RevokedBecause, Scope, SessionId, StatusPlace, VouchedBy};
use crate::status_list::{ListSize, StatusListSettings, StatusLists};
use crate::store::MemoryStore;
use crate::store::relay::{LISTS_ROW, RelayRecord, RelayState, RelayStore};
use crate::token::status_token::inflated;

/// The places whose bits are set.
fn ended(lists: &StatusLists, world: &World, number: u32) -> Vec<u32> {
    let list = lists.published(number, world.engine.clock().now()).unwrap().unwrap();
    let payload = std::str::from_utf8(&list.text).unwrap().split('.').nth(1).unwrap().to_owned();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let bits = inflated(claims["status_list"]["lst"].as_str().unwrap()).unwrap();
    let is_set = |index: &u32| bits[(index / 8) as usize] >> (index % 8) & 1 == 1;
    (0..u32::try_from(bits.len()).unwrap() * 8).filter(is_set).collect()
}

fn publish(world: &World, store: &Arc<MemoryStore>) -> Arc<StatusLists> {
    publish_of_size(world, store, 14)
}

fn publish_of_size(world: &World, store: &Arc<MemoryStore>, size: u8) -> Arc<StatusLists> {
    let settings = StatusListSettings { size: ListSize(size), ..StatusListSettings::default() };
    let lists = Arc::new(StatusLists::new(settings, "https://gate.test", Arc::clone(store) as _));
    lists.raise_longest(HOUR);
    world.engine.publish_status(Arc::clone(&lists));
    lists
}

async fn place(world: &World, subject: &str) -> StatusPlace {
    let id = world.start(subject).await.unwrap().session.unwrap();
    world.record(id).await.place.unwrap()
}

/// Follows until nothing is left to look at.
async fn follow(world: &World, follower: &mut StatusFollower, lists: &StatusLists) {
    world.advance(std::time::Duration::from_secs(1));
    let from = world.engine.clock().now();
    for _ in 0..10_000 {
        world.engine.follow_status(follower).await.unwrap();
        if lists.lag(from).is_zero() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("something is left");
}

#[tokio::test]
async fn s4_s5_the_bits_are_those_of_the_sessions_that_ended_also_by_a_not_before_and_after_a_restart() {
    let mut world = World::on(Kind::Alone).await;
    let register = Arc::new(MemoryStore::new("https://gate.test", HOUR));
    let lists = publish(&world, &register);
    let mut follower = StatusFollower::default();
    let mut of_many = Vec::new();
    for number in 0..2100 {
        of_many.push(place(&world, &format!("user-{number}")).await);
    }
    let list = of_many[0].list;
    assert!(of_many.iter().all(|place| place.list == list));
    follow(&world, &mut follower, &lists).await;
    assert!(ended(&lists, &world, list).is_empty());
    // One subject.
    let moment = world.engine.clock().now();
    let entry = world.engine.subject_before("user-7", moment);
    world.engine.revoke(entry, RevokedBecause::Operator).await.unwrap();
    follow(&world, &mut follower, &lists).await;
    assert_eq!(ended(&lists, &world, list), [of_many[7].index]);
    // One session.
    let session = world.start("later").await.unwrap().session.unwrap();
    let record = world.record(session).await;
    let later = record.place.unwrap();
    world.engine.revoke_session(&record, RevokedBecause::Reuse).await.unwrap();
    follow(&world, &mut follower, &lists).await;
    assert_eq!(ended(&lists, &world, list).len(), 2);
    assert!(ended(&lists, &world, list).contains(&later.index));
    // All sessions of a client.
    world.advance(std::time::Duration::from_secs(1));
    world.engine.revoke_client("web", RevokedBecause::Operator).await.unwrap();
    follow(&world, &mut follower, &lists).await;
    let mut all: Vec<_> = of_many.iter().chain([&later]).map(|place| place.index).collect();
    all.sort_unstable();
    assert_eq!(ended(&lists, &world, list), all);
    let after = place(&world, "after").await;
    follow(&world, &mut follower, &lists).await;
    assert_eq!(ended(&lists, &world, list), all, "a session that began since is not among them");
    // A gate that starts reads all of it from the store.
    world.restart().await;
    let lists = publish(&world, &register);
    let mut follower = StatusFollower::default();
    assert!(lists.published(list, T0).is_err(), "S6: nothing is served before");
    follow(&world, &mut follower, &lists).await;
    assert_eq!(ended(&lists, &world, list), all);
    assert_ne!(after.index, later.index);
}

const IDP: &str = "https://idp.test";

/// A session of `bob`, for whom another issuer vouched.
async fn start_vouched(world: &World) -> SessionId {
    let start = ApplicationLogin {
        vouched_by: Some(VouchedBy { session: Some("s-1".into()), ..VouchedBy::new(IDP, "b-1") }),
        subject: "bob",
        account: None,
        client: "web",
        scope: Scope::default(),
        claims: OwnClaims::default(),
        profile: &world.profile,
        origin: &Origin::default(),
    };
    world.engine.start(start).await.unwrap().session.unwrap()
}

#[tokio::test]
async fn s4_each_target_sets_the_bits_of_the_sessions_that_it_ends_for_each_cause_and_of_no_other() {
    let ours = Arc::<str>::from(ISSUER);
    let token = Target::Token { issuer: Arc::clone(&ours), jti: "t-1".into() };
    let targets: [(Option<Target>, &[usize]); 10] = [
        // The session of `ada` itself.
        (None, &[0]),
        (Some(Target::Subject { issuer: Arc::clone(&ours), subject: "ada".into() }), &[0]),
        (Some(Target::Subject { issuer: IDP.into(), subject: "b-1".into() }), &[1]),
        (Some(Target::session_of(IDP, "s-1")), &[1]),
        (Some(Target::Client { issuer: ours, client: "web".into() }), &[0, 1]),
        (Some(Target::Global), &[0, 1]),
        // A request for newer tokens ends no session: other verifiers go on to accept it.
        (Some(Target::refreshed(ISSUER, "ada")), &[]),
        (Some(Target::refreshed(IDP, "b-1")), &[]),
        (Some(Target::refreshed_session(IDP, "s-1")), &[]),
        (Some(token), &[]),
    ];
    for because in RevokedBecause::ALL {
        for (target, expected) in &targets {
            let world = World::on(Kind::Alone).await;
            let lists = publish(&world, &Arc::new(MemoryStore::new("https://gate.test", HOUR)));
            let all = [world.start("ada").await.unwrap().session.unwrap(), start_vouched(&world).await];
            let mut follower = StatusFollower::default();
            follow(&world, &mut follower, &lists).await;
            let record = world.record(all[0]).await;
            let moment = world.engine.clock().now();
            match target.clone() {
                None => {
                    world.engine.revoke_session(&record, because).await.unwrap();
                }
                Some(target) => {
                    let effect = match target {
                        Target::Token { .. } => Effect::Gone,
                        _ => Effect::not_before(moment, because.ends_keys()),
                    };
                    let entry = Revocation { target, effect, until: moment.plus(HOUR) };
                    world.engine.revoke(entry, because).await.unwrap();
                }
            }
            // A full scan, for another entry, finds the same sessions.
            for _ in 0..2 {
                follow(&world, &mut follower, &lists).await;
                let mut bits = Vec::new();
                for at in *expected {
                    bits.push(world.record(all[*at]).await.place.unwrap().index);
                }
                bits.sort_unstable();
                assert_eq!(ended(&lists, &world, record.place.unwrap().list), bits, "{target:?} {because:?}");
                world.engine.revoke_client("another", RevokedBecause::Operator).await.unwrap();
            }
        }
    }
}

/// A copy of the store is put back, or the store lost writes.
async fn set_back(register: &MemoryStore) {
    let row = register.load_relay(LISTS_ROW).await.unwrap().unwrap();
    register.remove_relay(LISTS_ROW, None).await.unwrap();
    let restored = RelayRecord { state: RelayState::Unknown, ..row };
    register.insert_relay(LISTS_ROW, restored, T0).await.unwrap();
}

#[tokio::test]
async fn s4_a_session_whose_record_the_store_lost_is_not_valid_in_its_list_at_a_running_or_a_new_gate() {
    let mut world = World::on(Kind::Alone).await;
    let register = Arc::new(MemoryStore::new("https://gate.test", HOUR));
    let lists = publish(&world, &register);
    let mut follower = StatusFollower::default();
    let session = world.start("ada").await.unwrap().session.unwrap();
    let live = world.record(session).await.place.unwrap();
    // A session that the store forgets: no record has its place, whether or not it was revoked.
    let keyring = world.engine.keyring();
    let gone = lists.place(keyring.refresh_keys(), world.engine.clock().now(), || Timestamp::ZERO).await.unwrap();
    assert_eq!(live.list, gone.list);
    follow(&world, &mut follower, &lists).await;
    assert!(ended(&lists, &world, live.list).is_empty());
    set_back(&register).await;
    let all_but_the_live = |lists: &StatusLists, world: &World| {
        let ended = ended(lists, world, live.list);
        assert_eq!(
            (ended.len(), ended.contains(&live.index), ended.contains(&gone.index)),
            ((1 << 14) - 1, false, true)
        );
    };
    follow(&world, &mut follower, &lists).await;
    all_but_the_live(&lists, &world);
    // Further sessions have places in another list, where nothing has ended.
    let next = place(&world, "eve").await;
    assert_ne!(next.list, live.list);
    follow(&world, &mut follower, &lists).await;
    assert!(ended(&lists, &world, next.list).is_empty());
    all_but_the_live(&lists, &world);
    // A gate that starts then, and one that starts on the copy.
    for is_set_back in [false, true] {
        world.restart().await;
        if is_set_back {
            set_back(&register).await;
        }
        let lists = publish(&world, &register);
        assert!(lists.published(live.list, T0).is_err());
        follow(&world, &mut StatusFollower::default(), &lists).await;
        all_but_the_live(&lists, &world);
        assert_eq!(ended(&lists, &world, next.list).len(), if is_set_back { (1 << 14) - 1 } else { 0 });
    }
    let record = world.record(session).await;
    world.engine.revoke_session(&record, RevokedBecause::Logout).await.unwrap();
    let lists = Arc::clone(world.engine.status_lists().unwrap());
    follow(&world, &mut StatusFollower::default(), &lists).await;
    assert_eq!(ended(&lists, &world, live.list).len(), 1 << 14);
}

/// How many sessions end at once: a million in the weekly run.
fn sessions() -> usize {
    std::env::var("ROTOGATE_STATUS_SESSIONS").ok().and_then(|number| number.parse().ok()).unwrap_or(5_000)
}

#[tokio::test]
async fn s5_all_sessions_that_one_not_before_ends_are_in_the_list() {
    let world = World::on(Kind::Alone).await;
    let register = Arc::new(MemoryStore::new("https://gate.test", HOUR));
    let lists = publish_of_size(&world, &register, 20);
    let all = sessions();
    let mut list = None;
    for number in 0..all {
        let id = world.start(&format!("user-{number}")).await.unwrap().session.unwrap();
        if number == 0 {
            list = world.record(id).await.place.map(|place| place.list);
        }
    }
    let mut follower = StatusFollower::default();
    follow(&world, &mut follower, &lists).await;
    world.advance(std::time::Duration::from_secs(1));
    world.engine.revoke_client("web", RevokedBecause::Operator).await.unwrap();
    let begun = wall_micros();
    follow(&world, &mut follower, &lists).await;
    let took = std::time::Duration::from_micros(wall_micros().saturating_sub(begun));
    let set = ended(&lists, &world, list.unwrap());
    let is_met = took < std::time::Duration::from_secs(60);
    println!("{} bits in {took:?}, goal 60 s: {}", set.len(), if is_met { "met" } else { "not met" });
    assert_eq!(set.len(), all);
}
