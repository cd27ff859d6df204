//! The events for a receiver that follow from each revocation.

use std::time::Duration;

use super::*;
use crate::session::VouchedBy;
use crate::store::conformance::{self, ISSUER, gone, insert, later, start};
use crate::store::memory::MemoryStore;

const IDP: &str = "https://idp.test";

/// `ada` has two sessions, `bob` one, which an issuer vouched for; `eve` one of another client.
async fn world() -> (MemoryStore, [Session; 4]) {
    let store = MemoryStore::new(ISSUER, Duration::ZERO);
    let of = |subject: &str, number| conformance::session(subject, number, start());
    let bob = Session { vouched_by: Some(Box::new(VouchedBy::new(IDP, "b-1"))), ..of("bob", 3) };
    let eve = Session { client: "other".into(), ..of("eve", 4) };
    let all = [of("ada", 1), of("ada", 2), bob, eve];
    for session in &all {
        insert(&store, session).await;
    }
    (store, all)
}

/// All ends for the client `web` of these entries.
async fn ends(store: &MemoryStore, entries: &[Revocation]) -> Vec<End> {
    let batch = EndedBatch::new(ISSUER, entries);
    let (mut all, mut place) = (Vec::new(), Some(EndPlace::default()));
    while let Some(next) = place {
        let (more, after) = batch.next(store, ISSUER, &["web".into()], next, later(start(), 5)).await.unwrap();
        all.extend(more);
        place = after;
    }
    all
}

async fn ended(store: &MemoryStore, entry: Revocation, because: RevokedBecause) -> Vec<End> {
    let (_, before) = store.revocations_since(Cursor::default()).await.unwrap();
    store.revoke(entry, because).await.unwrap();
    ends(store, &store.revocations_since(before).await.unwrap().0).await
}

fn sessions(ends: &[End]) -> Vec<SessionId> {
    let mut all: Vec<_> = ends.iter().filter_map(|end| end.session).collect();
    all.sort();
    all
}

#[tokio::test]
async fn s24_s26_each_target_is_told_for_each_reason_and_of_the_receivers_clients_alone() {
    let moment = later(start(), 1);
    for because in RevokedBecause::ALL {
        let effect = Effect::not_before(moment, because.ends_keys());
        let entry = |target| Revocation { target, effect, until: Timestamp::ZERO };
        let (store, all) = world().await;
        // A session: one event, with the reason of its record.
        let told = ended(&store, gone(all[0].id), because).await;
        assert_eq!(told, [End::of_session(&all[0], because)]);
        assert_eq!((&*told[0].reason, &*told[0].subject), (because.word(), "ada"));
        assert!(["admin", "user", "policy", "system"].contains(&&*told[0].initiating_entity));
        assert_eq!(ended(&store, gone(all[3].id), because).await, [], "a session of another client");
        // A subject: one event with the user alone.
        let told = ended(&store, entry(conformance::subject("ada")), because).await;
        let word = if because.ends_keys() { ("administrative", "admin") } else { ("logout", "user") };
        assert_eq!((told.len(), &*told[0].subject, told[0].session), (1, "ada", None));
        assert_eq!((told[0].until, (&*told[0].reason, &*told[0].initiating_entity)), (Some(moment), word));
        assert_eq!(ended(&store, entry(conformance::subject("eve")), because).await, [], "a stranger");
        // A client, or all: one for each live session.
        for target in [conformance::client("web"), Target::Global] {
            let (store, all) = world().await;
            store.revoke(gone(all[0].id), because).await.unwrap();
            let told = ended(&store, entry(target), because).await;
            assert_eq!(sessions(&told), [all[1].id, all[2].id], "those that were live");
        }
        let (store, _) = world().await;
        assert_eq!(ended(&store, entry(conformance::client("other")), because).await, []);
        // A token without a session causes no event.
        let token = Target::Token { issuer: ISSUER.into(), jti: "t-1".into() };
        assert_eq!(ended(&store, Revocation { target: token, effect: Effect::Gone, until: moment }, because).await, []);
    }
}

#[tokio::test]
async fn s24_the_end_of_a_login_elsewhere_ends_the_sessions_that_it_vouched_for() {
    let (store, all) = world().await;
    let entry = |target| Revocation { target, effect: Effect::NotBefore(later(start(), 1)), until: Timestamp::ZERO };
    let of_subject = Target::Subject { issuer: IDP.into(), subject: "b-1".into() };
    let told = ends(&store, &[entry(of_subject)]).await;
    assert_eq!(told, [End::of_session(&all[2], RevokedBecause::IssuerLogout)]);
    let other = Target::Subject { issuer: IDP.into(), subject: "b-2".into() };
    assert_eq!(ends(&store, &[entry(other)]).await, []);
    // Only access tokens end: the sessions go on.
    for target in [Target::refreshed(ISSUER, "ada"), Target::refreshed(IDP, "b-1"), Target::refreshed_session(IDP, "s")]
    {
        assert_eq!(ends(&store, &[entry(target)]).await, []);
    }
}

#[tokio::test]
async fn s24_a_rotation_ends_nothing_and_many_entries_are_resolved_in_parts() {
    let (store, all) = world().await;
    assert_eq!(ends(&store, &[conformance::minimum(all[0].id, 2, later(start(), 9))]).await, []);
    let many: Vec<_> = (0..150).map(|number| conformance::session("ada", 100 + number, start())).collect();
    for session in &many {
        insert(&store, session).await;
        store.revoke(gone(session.id), RevokedBecause::Logout).await.unwrap();
    }
    let entries: Vec<_> = many.iter().map(|session| gone(session.id)).collect();
    let told = ends(&store, &entries).await;
    assert_eq!(
        told.iter().filter_map(|end| end.session).collect::<Vec<_>>(),
        many.iter().map(|s| s.id).collect::<Vec<_>>()
    );
}
