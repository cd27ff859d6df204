//! Seals of session records: a forged record, and the keys that a seal needs (requirement J23).

use std::sync::Arc;

use super::support::{Kind, Mode, World, scope};
use crate::denial::Denial;
use crate::engine::{AccountRule, Event, IssueKind, Origin};
use crate::fault::{Error, Fault};
use crate::session::{Generation, Session, SessionId, Status};
use crate::store::{FeedStep, Store, Swap};

/// A writer of the store replaces the record by another one.
async fn forge(store: &Arc<dyn Store>, id: SessionId, change: impl FnOnce(&mut Session)) {
    let known = store.load(id).await.unwrap().unwrap();
    let mut forged = Session { revision: known.revision + 1, ..known.clone() };
    change(&mut forged);
    assert_eq!(store.compare_and_swap(known.revision, forged, None).await.unwrap(), Swap::Swapped);
}

fn is_of_the_store<T: std::fmt::Debug>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Failed(Fault::Store(_))))
}

#[tokio::test]
async fn j23_each_whole_write_seals_the_record_with_the_current_key() {
    let w = World::new().await;
    let first = w.login().await;
    assert_eq!(w.record(first.session).await.seal.key(), Some(1));
    w.set_keys(w.keys.ring(&["a"], &[2, 1]));
    // The record is read with the old key, and written with the new one.
    let second = w.refreshed(&first.refresh, IssueKind::Rotated).await;
    let rotated = w.record(second.session).await;
    assert_eq!((rotated.seal.key(), rotated.last.refresh_key), (Some(2), 2));
    w.refreshed(&second.refresh, IssueKind::Rotated).await;
    assert_ne!(w.record(second.session).await.seal, rotated.seal, "the generation is sealed");
}

#[tokio::test]
async fn j23_a_revocation_by_a_token_asks_for_no_good_seal() {
    let w = World::new().await;
    let revoke = async |token: &str| {
        w.engine.revoke_refresh_token(token, "web", AccountRule::Any, &Origin::default()).await.unwrap();
    };
    let tokens = w.login().await;
    let store: Arc<dyn Store> = Arc::clone(&w.store) as _;
    forge(&store, tokens.session, |record| record.scope = scope("admin")).await;
    assert!(is_of_the_store(&w.refresh(&tokens.refresh).await));
    assert_eq!(w.engine.counts().get(Event::BrokenSeal), 1);
    w.check(&tokens.access).unwrap();
    revoke(&tokens.refresh).await;
    assert_eq!(w.check(&tokens.access).unwrap_err(), Denial::TokenRevoked);
    assert!(matches!(w.record(tokens.session).await.status, Status::Revoked(_)));
    // A store that does not answer is still a fault: nothing is known of it.
    let other = w.login().await;
    w.store.set(Mode::AllFails);
    let refused = w.engine.revoke_refresh_token(&other.refresh, "web", AccountRule::Any, &Origin::default()).await;
    assert!(is_of_the_store(&refused));
}

#[tokio::test]
async fn j27_a_record_that_cannot_be_read_is_a_fault_of_its_session_and_a_revocation_ends_it() {
    let w = World::new().await;
    let (tokens, good) = (w.login().await, w.login().await);
    *w.store.spoilt.lock().unwrap() = Some(tokens.session);
    assert!(is_of_the_store(&w.refresh(&tokens.refresh).await));
    assert_eq!(w.engine.counts().get(Event::BrokenSeal), 1);
    w.refreshed(&good.refresh, IssueKind::Rotated).await;
    w.check(&tokens.access).unwrap();
    // The store works and has the entry, so no entry is owed.
    w.engine.revoke_refresh_token(&tokens.refresh, "web", AccountRule::Any, &Origin::default()).await.unwrap();
    assert_eq!(w.check(&tokens.access).unwrap_err(), Denial::TokenRevoked);
    assert_eq!(w.engine.unpaid().total, 0);
    *w.store.spoilt.lock().unwrap() = None;
    assert!(matches!(w.record(tokens.session).await.status, Status::Revoked(_)));
}

#[tokio::test]
async fn j27_a_record_that_cannot_be_read_holds_up_no_connection_of_another_session() {
    let w = World::on(Kind::Shared).await;
    let (bad, good) = (w.login().await.session, w.login().await.session);
    let later = w.record(good).await.expires;
    let [first, second] = [bad, good].map(|id| w.engine.live_sessions().begin(id, Generation::FIRST, later, None));
    *w.store.spoilt.lock().unwrap() = Some(bad);
    let rotated = |id| crate::store::conformance::minimum(id, 2, later);
    let step = FeedStep { entries: vec![rotated(bad), rotated(good)], ..FeedStep::default() };
    w.engine.take_step(&step).await.unwrap();
    assert_eq!(first.advanced_to(), None);
    assert!(second.advanced_to().is_some());
}
