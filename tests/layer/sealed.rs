//! A forged session record causes a fault of only its session (requirement J23).

use std::sync::Arc;

use rotogate::Gate;
use rotogate::client::Client;
use rotogate::fault::{Error, Fault};
use rotogate::gate::NewSession;
use rotogate::session::{Scope, Session, SessionId, Status};
use rotogate::store::{Filter, MemoryStore, Store, SubjectBound, Swap};
use rotogate::token::Keyring;
use rotogate_core::session::Seal;

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
        |record| record.expires = rotogate::clock::Timestamp::MAX,
    ];
    for change in forgeries {
        let begin = async || sessions.start(NewSession::new("ada", "web")).await.unwrap();
        let (tokens, good) = (begin().await, begin().await);
        let (id, token) = (tokens.session.unwrap(), tokens.refresh_token.unwrap());
        forge(&store, id, change).await;
        assert!(is_of_the_store(&sessions.refresh(token.expose()).await));
        assert!(is_of_the_store(&sessions.get(id).await));
        // The other sessions are listed, and continue.
        let listed = sessions.list(Filter::All, None, 1000).await.unwrap().sessions;
        assert!(listed.iter().all(|one| one.id != id) && listed.iter().any(|one| Some(one.id) == good.session));
        sessions.refresh(good.refresh_token.unwrap().expose()).await.unwrap();
        // An operator can end the session nevertheless.
        assert!(sessions.revoke(id).await.unwrap());
        assert!(matches!(store.load(id).await.unwrap().unwrap().status, Status::Revoked(_)));
    }
    // A session that no gate began, with a secret that its maker knows.
    let made = rotogate_core::store::conformance::session("ada", 1, rotogate_core::store::conformance::start());
    store.insert(made.clone(), SubjectBound::NONE).await.unwrap();
    assert!(is_of_the_store(&sessions.get(made.id).await));
}

#[tokio::test]
async fn j23_a_forged_record_is_a_fault_of_its_session_alone_in_memory() {
    forged_records_are_faults(Arc::new(MemoryStore::for_a_trial(ISSUER, Gate::DEFAULT_LEEWAY))).await;
}

#[cfg(feature = "redb")]
#[tokio::test]
async fn j23_a_forged_record_is_a_fault_of_its_session_alone_in_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let options = rotogate::store::redb::Options::new(ISSUER, uuid::Uuid::from_u128(7), Gate::DEFAULT_LEEWAY);
    let store = rotogate::store::RedbStore::open(folder.path().join("rotogate.redb"), options).unwrap();
    forged_records_are_faults(Arc::new(store)).await;
}
