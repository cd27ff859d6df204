//! Tests copies from the embedded store to the tested store and back (C31).

use std::fmt::Debug;
use std::time::Duration;

use super::{BY_OPERATOR, gone, insert, minimum, not_before, rotated, session, start, subject};
use crate::store::copy::{CopyTarget, content, copy};
use crate::store::{StoreError, Swap};

/// Copies a store and copies it back, and compares the content.
///
/// `open` opens the embedded store in a file with this name. `connect` opens the tested store. The optional argument
/// names the source of a copy.
pub async fn there_and_back<E: CopyTarget, S: CopyTarget + Debug>(
    open: impl Fn(&str, Option<&str>) -> Result<E, StoreError>,
    connect: impl AsyncFn(Option<&'static str>) -> Result<S, StoreError>,
) {
    let first = open("first.redb", None).unwrap();
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

    let target = connect(Some("first")).await.unwrap();
    target.put_sessions(sessions[..10].to_vec()).await.unwrap();
    // The later record is kept, even if it is copied first. A revoked record always counts as later.
    let other = connect(Some("first")).await.unwrap();
    let ended = first.load(sessions[1].id).await.unwrap().unwrap();
    other.put_sessions(vec![next.clone(), ended.clone()]).await.unwrap();
    target.put_sessions(vec![sessions[0].clone(), rotated(&sessions[1], start())]).await.unwrap();
    assert_eq!(other.load(next.id).await.unwrap(), Some(next.clone()));
    assert_eq!(other.load(ended.id).await.unwrap(), Some(ended));
    let refused = async |copy_of| connect(copy_of).await.unwrap_err().to_string();
    let text = refused(None).await;
    assert!(text.contains("store copy"), "{text}");
    let text = refused(Some("another")).await;
    assert!(text.contains("copy of another store"), "{text}");
    let target = connect(Some("first")).await.unwrap();
    assert_eq!(copy(&first, &target, start()).await.unwrap(), was);
    target.end_copy().await.unwrap();
    other.end_copy().await.unwrap();
    let text = other.put_sessions(sessions[..1].to_vec()).await.unwrap_err().to_string();
    assert!(text.contains("already completed"), "{text}");
    let shared = connect(None).await.unwrap();
    assert_eq!(shared.load(next.id).await.unwrap(), first.load(next.id).await.unwrap());
    let later = rotated(&shared.load(next.id).await.unwrap().unwrap(), start());
    let revision = later.revision - 1;
    assert_eq!(shared.compare_and_swap(revision, later.clone(), None).await.unwrap(), Swap::Swapped);
    let ended = rotated(&shared.load(sessions[1].id).await.unwrap().unwrap(), start());
    assert!(matches!(shared.compare_and_swap(2, ended, None).await.unwrap(), Swap::Changed(Some(_))));
    let text = refused(Some("first")).await;
    assert!(text.contains("already has data"), "{text}");

    let back = open("back.redb", Some("there")).unwrap();
    let is = copy(&shared, &back, start()).await.unwrap();
    assert_eq!((is.sessions, is.revocations), (600, 3));
    assert_eq!(back.load(later.id).await.unwrap(), Some(later));
    assert_eq!(back.load(sessions[2].id).await.unwrap(), Some(sessions[2].clone()));
    assert!(back.load(sessions[1].id).await.unwrap().unwrap().is_revoked());
    let swapped = back.compare_and_swap(1, rotated(&sessions[3], start()), None).await.unwrap();
    assert_eq!(swapped, Swap::NoLongerValid);
}
