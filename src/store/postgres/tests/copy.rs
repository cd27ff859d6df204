//! C31: what is copied from the embedded store and back is what it was.

use super::*;
use crate::store::conformance::{BY_OPERATOR, gone, insert, minimum, not_before, rotated, session, start, subject};
use crate::store::copy::{content, copy};
use crate::store::{RedbStore, redb};

fn embedded(folder: &std::path::Path, name: &str) -> RedbStore {
    RedbStore::open(folder.join(name), redb::Options::new(ISSUER, KEYRING, LEEWAY)).unwrap()
}

#[tokio::test]
async fn c31_a_store_is_copied_to_postgresql_and_back_with_all_that_it_holds() {
    let server = Server::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let first = embedded(folder.path(), "first.redb");
    let mut sessions = Vec::new();
    for n in 0..600 {
        let begun = session(&format!("user{}", n % 7), n, start());
        insert(&first, &begun).await;
        sessions.push(begun);
    }
    let next = rotated(&sessions[0], start());
    let entry = minimum(next.id, 2, start().plus(Duration::from_secs(60)));
    assert_eq!(first.compare_and_swap(1, next.clone(), Some(entry)).await.unwrap(), Swap::Swapped);
    first.confirm(vec![(next.id, next.current)]).await.unwrap();
    first.revoke(gone(sessions[1].id), BY_OPERATOR).await.unwrap();
    first.revoke(not_before(subject("user3"), start()), BY_OPERATOR).await.unwrap();
    let was = content(&first, start()).await.unwrap();
    assert_eq!((was.sessions, was.revocations), (600, 3));

    let copying = || server.options().schema("rg").copying("first");
    let target = PostgresStore::connect(copying()).await.unwrap();
    // Cut short, and begun again.
    crate::store::copy::CopyTarget::put_sessions(&target, sessions[..10].to_vec()).await.unwrap();
    let refused = PostgresStore::connect(server.options().schema("rg")).await.unwrap_err().to_string();
    assert!(refused.contains("store copy"), "{refused}");
    let refused =
        PostgresStore::connect(server.options().schema("rg").copying("another")).await.unwrap_err().to_string();
    assert!(refused.contains("copy of another store"), "{refused}");
    let target = PostgresStore::connect(copying()).await.unwrap();
    assert_eq!(copy(&first, &target, start()).await.unwrap(), was);
    target.end_copy().await.unwrap();
    let shared = server.connect("rg").await;
    assert_eq!(shared.load(next.id).await.unwrap(), first.load(next.id).await.unwrap());
    let later = rotated(&shared.load(next.id).await.unwrap().unwrap(), start());
    let revision = later.revision - 1;
    assert_eq!(shared.compare_and_swap(revision, later.clone(), None).await.unwrap(), Swap::Swapped);
    let ended = rotated(&shared.load(sessions[1].id).await.unwrap().unwrap(), start());
    assert!(matches!(shared.compare_and_swap(2, ended, None).await.unwrap(), Swap::Changed(Some(_))));
    let refused = PostgresStore::connect(copying()).await.unwrap_err().to_string();
    assert!(refused.contains("data of its own"), "{refused}");

    let back = embedded(folder.path(), "back.redb");
    let is = copy(&*shared, &back, start()).await.unwrap();
    assert_eq!((is.sessions, is.revocations), (600, 3));
    assert_eq!(back.load(later.id).await.unwrap(), Some(later));
    assert_eq!(back.load(sessions[2].id).await.unwrap(), Some(sessions[2].clone()));
    assert!(crate::store::rules::is_revoked(&back.load(sessions[1].id).await.unwrap().unwrap()));
    // The not-before holds on.
    let swapped = back.compare_and_swap(1, rotated(&sessions[3], start()), None).await.unwrap();
    assert_eq!(swapped, Swap::NoLongerValid);
}
