//! Records that nobody wrote who has a key (requirement J23), and the keys that a seal needs.

use std::sync::Arc;

use super::support::{Kind, Mode, World, scope};
use crate::Gate;
use crate::client::Client;
use crate::denial::Denial;
use crate::engine::{AccountRule, Event, IssueKind, Origin};
use crate::fault::{Error, Fault};
use crate::gate::{DEFAULT_LEEWAY, NewSession};
use crate::session::{Generation, Scope, Seal, Session, SessionId, Status};
use crate::store::{FeedStep, Filter, MemoryStore, Store, SubjectBound, Swap};
use crate::token::Keyring;

const ISSUER: &str = "https://gate.test";

async fn gate(store: &Arc<dyn Store>) -> Gate {
    let gate = Gate::builder().issuer(ISSUER).keys(Keyring::ephemeral().unwrap()).client(Client::public("web"));
    gate.shared_store(Arc::clone(store)).build().await.unwrap()
}

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

async fn forged_records_are_faults(store: Arc<dyn Store>) {
    let gate = gate(&store).await;
    let sessions = gate.sessions();
    let forgeries: [fn(&mut Session); 4] = [
        |record| record.scope = Scope::parse("admin").unwrap(),
        |record| record.account = Some("other".into()),
        |record| record.seal = Seal::default(),
        |record| record.expires = crate::clock::Timestamp::MAX,
    ];
    for change in forgeries {
        let begin = async || sessions.start(NewSession::new("ada", "web")).await.unwrap();
        let (tokens, good) = (begin().await, begin().await);
        let (id, token) = (tokens.session.unwrap(), tokens.refresh_token.unwrap());
        forge(&store, id, change).await;
        assert!(is_of_the_store(&sessions.refresh(token.expose()).await));
        assert!(is_of_the_store(&sessions.get(id).await));
        // The others are listed, and go on.
        let listed = sessions.list(Filter::All, None, 1000).await.unwrap().sessions;
        assert!(listed.iter().all(|one| one.id != id) && listed.iter().any(|one| Some(one.id) == good.session));
        sessions.refresh(good.refresh_token.unwrap().expose()).await.unwrap();
        // An operator ends it all the same.
        assert!(sessions.revoke(id).await.unwrap());
        assert!(matches!(store.load(id).await.unwrap().unwrap().status, Status::Revoked(_)));
    }
    // A session that no gate began, with a secret that its maker knows.
    let made = crate::store::conformance::session("ada", 1, crate::store::conformance::start());
    store.insert(made.clone(), SubjectBound::NONE).await.unwrap();
    assert!(is_of_the_store(&sessions.get(made.id).await));
}

#[tokio::test]
async fn j23_a_forged_record_is_a_fault_of_its_session_alone_in_memory() {
    forged_records_are_faults(Arc::new(MemoryStore::for_a_trial(ISSUER, DEFAULT_LEEWAY))).await;
}

#[cfg(feature = "redb")]
#[tokio::test]
async fn j23_a_forged_record_is_a_fault_of_its_session_alone_in_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let options = crate::store::redb::Options::new(ISSUER, uuid::Uuid::from_u128(7), DEFAULT_LEEWAY);
    let store = crate::store::RedbStore::open(folder.path().join("rotogate.redb"), options).unwrap();
    forged_records_are_faults(Arc::new(store)).await;
}

#[tokio::test]
async fn j23_each_whole_write_seals_the_record_with_the_current_key() {
    let w = World::new().await;
    let first = w.login().await;
    assert_eq!(w.record(first.session).await.seal.key(), Some(1));
    w.set_keys(w.keys.ring(&["a"], &[2, 1]));
    // Read under the old key, written under the new one.
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
    // The store works, and has the end: none is owed.
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
    let [first, second] = [bad, good].map(|id| w.engine.live_sessions().begin(id, Generation::FIRST, later));
    *w.store.spoilt.lock().unwrap() = Some(bad);
    let rotated = |id| crate::store::conformance::minimum(id, 2, later);
    let step = FeedStep { entries: vec![rotated(bad), rotated(good)], ..FeedStep::default() };
    w.engine.take_step(&step).await.unwrap();
    assert_eq!(first.advanced_to(), None);
    assert!(second.advanced_to().is_some());
}
