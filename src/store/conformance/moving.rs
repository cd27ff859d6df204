//! What holds for a store of several gates that is copied into, and moved away from (requirement C31).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;

use super::{BY_OPERATOR, gone, insert, minimum, rotated, session, start};
use crate::session::{Generation, Session, Status};
use crate::store::copy::{CopyTarget, Destination, Put, Standing};
use crate::store::{Cursor, Effect, SharedStore, StoreError, SubjectBound};

/// How a handle is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// For a gate.
    Serving,
    /// As a copy of the store `first`.
    Copying,
    /// To read it although it was moved.
    ReadingMoved,
}

/// `open` gives a handle on one and the same store, which is missing at first.
pub async fn run<S: SharedStore + CopyTarget>(open: impl AsyncFn(Open) -> Result<S, StoreError>) {
    let [a, b] = [open(Open::Copying).await.unwrap(), open(Open::Copying).await.unwrap()];
    let first = session("alice", 1, start());
    let second = rotated(&first, start());
    let third = rotated(&second, start());
    let ended = Session { status: Status::Revoked(BY_OPERATOR), revision: second.revision + 1, ..second.clone() };
    // Two gates, in either order, and at once.
    assert_eq!(a.put_sessions(vec![second.clone()]).await.unwrap(), Put::Done);
    assert_eq!(b.put_sessions(vec![first.clone()]).await.unwrap(), Put::Done);
    assert_eq!(a.load(first.id).await.unwrap(), Some(second.clone()));
    for _ in 0..8 {
        let (x, y) = tokio::join!(a.put_sessions(vec![third.clone()]), b.put_sessions(vec![second.clone()]));
        assert_eq!((x.unwrap(), y.unwrap()), (Put::Done, Put::Done));
        assert_eq!(b.load(first.id).await.unwrap(), Some(third.clone()));
    }
    a.put_sessions(vec![ended.clone()]).await.unwrap();
    b.put_sessions(vec![third]).await.unwrap();
    assert_eq!(a.load(first.id).await.unwrap(), Some(ended));
    let until = start().plus(std::time::Duration::from_secs(86_400));
    b.put_revocations(vec![minimum(first.id, 3, until)]).await.unwrap();
    a.put_revocations(vec![minimum(first.id, 2, until)]).await.unwrap();
    let (entries, _) = b.revocations_since(Cursor::default()).await.unwrap();
    assert!(
        matches!(entries[..], [ref one] if matches!(one.effect, Effect::Minimum { minimum, .. } if minimum == Generation::new(3))),
        "{entries:?}"
    );
    assert!(matches!(a.standing().await.unwrap(), Standing::Copying { of, .. } if of == "first"));
    let refused = open(Open::Serving).await.map(drop).expect_err("it is refused").to_string();
    assert!(refused.contains("not whole yet"), "{refused}");

    a.raise_stamp(start()).await.unwrap();
    a.end_copy().await.unwrap();
    b.end_copy().await.unwrap();
    assert_eq!(b.put_sessions(vec![first.clone()]).await.unwrap(), Put::Whole);
    assert!(matches!(b.standing().await.unwrap(), Standing::Serving { of: Some(of), .. } if of == "first"));

    let [x, y] = [open(Open::Serving).await.unwrap(), open(Open::Serving).await.unwrap()];
    let [stop, is_written] = [AtomicBool::new(false), AtomicBool::new(false)];
    let to = Destination { store: Uuid::from_u128(9), place: "the next store".to_owned() };
    let writing = async {
        let mut acknowledged = Vec::new();
        for n in 2.. {
            let begun = session("bob", n, start());
            match y.insert(begun.clone(), SubjectBound::NONE).await {
                Ok(_) => {
                    acknowledged.push(begun);
                    is_written.store(true, Ordering::SeqCst);
                }
                Err(error) => {
                    assert!(stop.load(Ordering::SeqCst), "before the fence: {error}");
                    break;
                }
            }
        }
        acknowledged
    };
    let moving = async {
        for n in 0.. {
            insert(&x, &session("carol", 1_000_000 + n, start())).await;
            // On a busy machine the other gate may have written nothing by then.
            if n >= 20 && is_written.load(Ordering::SeqCst) {
                break;
            }
        }
        stop.store(true, Ordering::SeqCst);
        x.move_to(&to).await.unwrap();
    };
    let (acknowledged, ()) = tokio::join!(writing, moving);
    assert!(!acknowledged.is_empty());
    // To every handle, whatever it asks.
    for handle in [&x, &y] {
        assert!(handle.load(first.id).await.is_err());
        assert!(handle.list(crate::store::Filter::All, None, 10).await.is_err());
        assert!(handle.revoke(gone(first.id), BY_OPERATOR).await.is_err());
        assert!(handle.stamp_not_before().await.is_err());
        let error = handle.adopt().await.unwrap_err().to_string();
        assert!(error.contains("moved"), "{error}");
        assert!(handle.load(first.id).await.is_err(), "it was not adopted");
    }
    let refused = open(Open::Serving).await.map(drop).expect_err("it is refused").to_string();
    assert!(refused.contains("was moved to the next store"), "{refused}");
    let reader = Arc::new(open(Open::ReadingMoved).await.unwrap());
    assert!(matches!(reader.standing().await.unwrap(), Standing::Moved { to: known, .. } if known == to));
    for begun in acknowledged {
        assert_eq!(reader.load(begun.id).await.unwrap(), Some(begun));
    }
    reader.move_to(&to).await.unwrap();
    let elsewhere = Destination { store: Uuid::from_u128(10), place: "elsewhere".to_owned() };
    assert!(reader.move_to(&elsewhere).await.is_err());
}
