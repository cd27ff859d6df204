//! C31: the data that is copied into the embedded store, and the data that is left out.

use std::path::Path;

use super::*;
use rotogate_core::store::conformance::{BY_OPERATOR, ISSUER, LEEWAY, gone, insert, rotated, session, start};
use rotogate_core::store::copy::{CopyTarget, copy};
use rotogate_core::store::owed::Owed;

fn open(path: &Path, copying: Option<&str>) -> Result<RedbStore, StoreError> {
    let options = Options::new(ISSUER, uuid::Uuid::from_u128(7), LEEWAY);
    RedbStore::open(path, Options { copying: copying.map(str::to_owned), ..options })
}

#[tokio::test]
async fn c31_of_two_records_of_a_session_the_later_one_stays() {
    let folder = tempfile::tempdir().unwrap();
    let copy = open(&folder.path().join("copy.redb"), Some("first")).unwrap();
    let first = session("ada", 1, start());
    let second = rotated(&first, start());
    let ended = Session { status: rotogate_core::session::Status::Revoked(BY_OPERATOR), revision: 3, ..second.clone() };
    let third = rotated(&second, start());
    for (put, stays) in [(&second, &second), (&first, &second), (&third, &third), (&ended, &ended), (&third, &ended)] {
        copy.put_sessions(vec![put.clone()]).await.unwrap();
        assert_eq!(copy.load(first.id).await.unwrap().as_ref(), Some(stays));
    }
    copy.end_copy().await.unwrap();
    assert!(copy.put_sessions(vec![first]).await.is_err());
}

/// The revocations in the file beside the store would be missing in the copy, so the copy is refused.
#[tokio::test]
async fn c31_a_store_whose_file_has_revocations_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(&folder.path().join("first.redb"), None).unwrap();
    let known = session("ada", 1, start());
    insert(&first, &known).await;
    let file = first.owed_file().unwrap();
    file.keep(&Owed { because: BY_OPERATOR, entry: gone(known.id) }).unwrap();
    let target = open(&folder.path().join("copy.redb"), Some("first")).unwrap();
    let error = copy(&first, &target, start()).await.unwrap_err();
    assert!(error.to_string().contains("not yet in the store"), "{error}");
    file.clear(file.lines()).unwrap();
    assert_eq!(copy(&first, &target, start()).await.unwrap().sessions, 1);
}

#[test]
fn c31_a_copy_that_is_not_whole_is_opened_as_that_copy_only() {
    let folder = tempfile::tempdir().unwrap();
    let (own, part) = (folder.path().join("own.redb"), folder.path().join("part.redb"));
    drop(open(&own, None).unwrap());
    drop(open(&part, Some("first")).unwrap());
    for (path, copying, why) in [
        (&own, Some("first"), "already has data"),
        (&part, Some("another"), "unfinished copy of another store"),
        (&part, None, "is an unfinished copy: run"),
    ] {
        let error = open(path, copying).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(open(&part, Some("first")).is_ok());
}
