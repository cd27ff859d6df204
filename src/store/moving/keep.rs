//! What a gate does for the next store beside its operations.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, LOOK_EVERY, Next, switch};
use crate::session::SessionId;
use crate::store::copy::{Put, Standing};
use crate::store::{StoreError, WriteOutcome};

/// How often a gate looks whose old store was fenced: nothing is served meanwhile.
const LOOK_FENCED_EVERY: Duration = Duration::from_millis(50);
/// After a fence, so long is waited for the gate that set it. Then this one ends the copy.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many sessions are put again at once.
const AT_ONCE: usize = 256;

/// Runs until the gate has ended, or the next store is in charge.
pub(super) async fn keep(inner: Weak<Inner>) {
    let mut fenced: Option<Instant> = None;
    let mut refused = String::new();
    loop {
        let pause = if fenced.is_some() { LOOK_FENCED_EVERY } else { LOOK_EVERY };
        tokio::time::sleep(pause).await;
        let Some(inner) = inner.upgrade() else { return };
        if *inner.moved.borrow() {
            return;
        }
        // A copy or a switch of this gate looks after both itself.
        let Ok(_job) = inner.job.try_lock() else { continue };
        if inner.next.load().is_none()
            && let Err(error) = inner.open_next().await
        {
            let text = error.to_string();
            if error.outcome() == WriteOutcome::Refused && text != refused {
                tracing::error!(%error, "next store cannot be a copy");
                refused = text;
            }
        }
        if let Err(error) = look(&inner, &mut fenced).await {
            tracing::debug!(%error, "the stores were not looked at");
        }
    }
}

async fn look(inner: &Inner, fenced: &mut Option<Instant>) -> Result<(), StoreError> {
    let next = match inner.next.load_full() {
        Some(next) => next.store.standing().await,
        None => inner.opening.standing().await,
    };
    if let Ok(Standing::Serving { of: Some(of), .. }) = &next
        && *of == inner.id.to_string()
    {
        inner.leave();
        return Ok(());
    }
    if let Standing::Moved { .. } = inner.old.standing().await? {
        let since = *fenced.get_or_insert_with(Instant::now);
        if since.elapsed() >= PATIENCE {
            let reader = inner.opening.moved().await?;
            switch::finish(&*reader, &*inner.opening).await?;
            inner.leave();
        }
        return Ok(());
    }
    next?;
    put_missed(inner).await
}

/// Puts again what the next store did not take.
async fn put_missed(inner: &Inner) -> Result<(), StoreError> {
    let Some(next) = inner.next.load_full() else { return Ok(()) };
    loop {
        let some: Vec<_> = inner.missed().iter().copied().take(AT_ONCE).collect();
        if some.is_empty() {
            inner.is_down.store(false, Ordering::Release);
            return Ok(());
        }
        // Before they are read: what is written from now on, and not taken, is missed anew.
        inner.missed().retain(|id| !some.contains(id));
        match put(inner, &next, &some).await {
            Ok(Put::Done) => inner.is_down.store(false, Ordering::Release),
            Ok(Put::Whole) => return Ok(()),
            Err(error) => {
                inner.miss(some);
                return Err(error);
            }
        }
    }
}

/// Puts sessions as they are now.
async fn put(inner: &Inner, next: &Next, ids: &[SessionId]) -> Result<Put, StoreError> {
    let mut records = Vec::new();
    for id in ids {
        records.extend(inner.old.load(*id).await?);
    }
    next.store.put_sessions(records).await
}
