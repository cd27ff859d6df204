//! A start loads all revocations, for every distribution of keys and every number of threads.

use redb::Database;

use super::*;

/// Several ids for each of a few moments, so that some keys are close together and others far apart.
fn id(n: u64) -> SessionId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    SessionId::new(later(START, [0, 1, 1_000_000, 90_000_000][(n % 4) as usize]), random)
}

/// Sessions, tokens whose keys have a long common beginning, and one entry far after all others.
async fn many(store: &RedbStore) -> (Vec<SessionId>, Vec<Box<str>>) {
    let sessions: Vec<_> = (0..700).map(id).collect();
    let tokens: Vec<Box<str>> = (0..300).map(|n| format!("token-{n}").into()).collect();
    let until = later(START, 86_400_000);
    let of_tokens = tokens.iter().map(|jti| Revocation {
        target: Target::Token { issuer: "https://login.example.com/tenant".into(), jti: jti.clone() },
        effect: Effect::Gone,
        until,
    });
    let entries = sessions.iter().map(|id| Revocation { until, ..gone(*id) }).chain(of_tokens);
    let entries = entries.chain([Revocation { until, ..not_before(Target::Global, START) }]);
    let writes = entries.map(|entry| store.revoke(entry, RevokedBecause::Operator));
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    (sessions, tokens)
}

#[tokio::test]
async fn r10_a_start_loads_each_revocation_however_the_keys_lie() {
    let place = Place::new();
    let store = place.open();
    let (sessions, tokens) = many(&store).await;
    let (list, cursor) = store.revocations().await.unwrap();
    assert_eq!(list.len(), sessions.len() + tokens.len() + 1);
    for id in &sessions {
        assert_eq!(list.minimum(*id), rotogate_core::session::rotation::REVOKED, "{id}");
    }
    assert_eq!(list.missing_in(&RevocationList::new()).flatten().count(), list.len());
    assert_eq!(store.revocations_since(cursor.clone()).await.unwrap().0, [], "the list ends where the log does");
    let next = Revocation { until: later(START, 86_400_000), ..gone(session("bob", 9, START).id) };
    store.revoke(next.clone(), RevokedBecause::Operator).await.unwrap();
    assert_eq!(store.revocations_since(cursor).await.unwrap().0, [next]);
}

#[tokio::test]
async fn r10_one_entry_that_cannot_be_read_fails_the_start() {
    let place = Place::new();
    let store = place.open();
    let (sessions, _) = many(&store).await;
    drop(store);
    let key = rotogate_core::store::kit::encoding::encode_target(&Target::Session(sessions[300])).unwrap();
    let database = Database::open(place.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(REVOCATIONS).unwrap().insert(key.as_slice(), [9, 1, 2].as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = place.open().revocations().await.unwrap_err().to_string();
    assert!(error.contains("version 9") && error.contains("the revocation of"), "{error}");
}
