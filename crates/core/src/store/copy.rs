//! Copies all unexpired sessions and revocations into a store of another kind, while gates are stopped.
//!
//! Records may be copied in any order and repeatedly. The later record of a session is kept, and revocations are
//! merged. Gates do not open an incomplete copy.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};

use super::kit::encoding::{encode, encode_target};
use super::owed::OwedFile;
use super::rows::{RowStore, Space};
use super::rules::{Failure, State};
use super::{Cursor, Filter, Revocation, Store, StoreError, WriteOutcome};
use crate::clock::Timestamp;
use crate::session::Session;

const PAGE: usize = 256;

/// A store that can be the target of a copy.
#[async_trait]
pub trait CopyTarget: Store {
    /// Writes each record unchanged, unless the copy has a later record of its session.
    ///
    /// # Errors
    /// The store returns an error, or the copy is already complete.
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError>;

    /// Merges these revocations with those in the copy.
    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError>;

    /// Ensures that later stamps of the copy exceed `latest`.
    async fn raise_stamp(&self, latest: Timestamp) -> Result<(), StoreError> {
        let _ = latest;
        Ok(())
    }

    /// Marks the copy as complete, so that gates may open it. Sessions can no longer be added.
    ///
    /// A repeated call changes nothing.
    async fn end_copy(&self) -> Result<(), StoreError>;
}

/// The error for a write to a complete copy, which gates may already use.
pub fn is_whole() -> StoreError {
    StoreError::new("another command has already completed the copy").with_outcome(WriteOutcome::Refused)
}

/// Returns whether `a` is the later of two records of a session. A revoked record always counts as later.
///
/// A higher generation is later, because clients may already have its tokens.
pub fn is_later(a: &Session, b: &Session) -> bool {
    let rank = |session: &Session| (session.is_revoked(), session.current, session.revision);
    rank(a) > rank(b)
}

/// Writes a record into a copy, unless the copy has a later one.
///
/// # Errors
/// An access to the tables fails.
pub fn put_record(state: &mut impl State, session: &Session) -> Result<(), Failure> {
    match state.session(session.id) {
        Ok(Some(known)) if is_later(&known, session) => Ok(()),
        Ok(known) => state.put_session(known.as_ref(), session),
        Err(Failure::Refused(_)) => state.put_session(None, session),
        Err(broken @ Failure::Broken(_)) => Err(broken),
    }
}

/// The content of a copied store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The number of sessions.
    pub sessions: u64,
    /// The number of revocations.
    pub revocations: u64,
    digest: [u8; 32],
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sessions, {} revocations, SHA-256 ", self.sessions, self.revocations)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

async fn each_page<S: Store + ?Sized>(
    store: &S,
    cut: Timestamp,
    mut page_of: impl AsyncFnMut(Vec<Session>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let page = store.list(Filter::All, after, PAGE).await?;
        let live: Vec<_> = page.sessions.into_iter().filter(|session| session.ends_at() > cut).collect();
        page_of(live).await?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// The result is ordered by target.
async fn revocations<S: Store + ?Sized>(store: &S, cut: Timestamp) -> Result<Vec<(Vec<u8>, Revocation)>, StoreError> {
    let (entries, _) = store.revocations_since(Cursor::default()).await?;
    let live = entries.into_iter().filter(|entry| entry.until > cut);
    let mut live =
        live.map(|entry| Ok((encode_target(&entry.target)?, entry))).collect::<Result<Vec<_>, StoreError>>()?;
    live.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(live)
}

/// Counts the sessions and revocations unexpired at `cut`, and computes their digest.
///
/// # Errors
/// The store returns an error.
pub async fn content<S: Store + ?Sized>(store: &S, cut: Timestamp) -> Result<Content, StoreError> {
    let (mut context, mut sessions) = (Context::new(&SHA256), 0);
    // The pages are in a fixed order, so equal contents have equal digests.
    each_page(store, cut, async |page| {
        for session in &page {
            let record = encode(session)?;
            context.update(session.id.as_bytes());
            context.update(&(record.len() as u64).to_be_bytes());
            context.update(&record);
            sessions += 1;
        }
        Ok(())
    })
    .await?;
    let entries = revocations(store, cut).await?;
    for (target, entry) in &entries {
        context.update(&(target.len() as u64).to_be_bytes());
        context.update(target);
        // Merging an effect with itself normalises it.
        context.update(format!("{:?} {:?}", entry.effect.merge(entry.effect), entry.until).as_bytes());
    }
    let digest = context.finish().as_ref().first_chunk().copied().unwrap_or_default();
    Ok(Content { sessions, revocations: entries.len() as u64, digest })
}

/// Copies the rows of these spaces that are unexpired at `cut`, and compares the copies with the originals. Rows of work
/// in progress are not copied. Returns the number of copied rows.
///
/// # Errors
/// A store returns an error, or the copy has a different row with the same key.
pub async fn copy_rows(
    from: &dyn RowStore,
    to: &dyn RowStore,
    spaces: &[Space],
    cut: Timestamp,
) -> Result<u64, StoreError> {
    let mut copied = 0;
    for &space in spaces.iter().filter(|space| space.is_copied()) {
        for key in from.row_keys(space, None, usize::MAX).await? {
            let row = from.load_row(space, key).await?.filter(|row| row.until > cut);
            let Some(row) = row else { continue };
            // If the copy is repeated, the row exists already.
            to.insert_row(space, key, row.clone(), cut).await?;
            if to.load_row(space, key).await?.as_ref() != Some(&row) {
                return Err(StoreError::new("the copy and the original have different rows with the same key"));
            }
            copied += 1;
        }
    }
    Ok(copied)
}

/// Copies everything unexpired at `cut`, and compares both stores. An interrupted copy can be started again.
///
/// # Errors
/// A store fails, the copy differs, or the first store's file of pending revocations is not empty.
pub async fn copy<F, T>(from: &F, to: &T, cut: Timestamp) -> Result<Content, StoreError>
where
    F: Store + ?Sized,
    T: CopyTarget + ?Sized,
{
    OwedFile::none_beside(from, "the copy would lack them")?;
    let mut latest = Timestamp::ZERO;
    each_page(from, cut, async |page| {
        latest = page.iter().map(Session::created).fold(latest, Timestamp::max);
        if page.is_empty() { Ok(()) } else { to.put_sessions(page).await }
    })
    .await?;
    to.raise_stamp(latest).await?;
    let mut entries = revocations(from, cut).await?.into_iter().map(|(_, entry)| entry);
    loop {
        let page: Vec<_> = entries.by_ref().take(PAGE).collect();
        if page.is_empty() {
            break;
        }
        to.put_revocations(page).await?;
    }
    let (was, is) = (content(from, cut).await?, content(to, cut).await?);
    if was != is {
        return Err(StoreError::new(format!(
            "the copy differs from the original: it should contain {was}, but contains {is}"
        )));
    }
    Ok(is)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::MemoryStore;
    use crate::store::conformance::rows::{SPACE, first, key};
    use crate::store::rows::{Row, RowInserted, RowVersion};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
    const COPIED: Space = Space::copied(1, "copied rows", 10, 10);
    const BACKED_UP: Space = Space::lasting(1, "backed up rows", 10, 10);

    #[tokio::test]
    async fn rows_are_copied_and_compared_and_work_in_progress_stays_behind() {
        let store = || MemoryStore::new("https://gate.test", Duration::ZERO);
        let (from, to) = (store(), store());
        let live = Row { until: NOW.plus(Duration::from_secs(3600)), ..first(NOW) };
        let ended = Row { until: NOW, ..first(NOW) };
        let rows =
            [(COPIED, 0, &live), (SPACE, 0, &live), (COPIED, 1, &ended), (COPIED, 2, &live), (BACKED_UP, 0, &live)];
        for (space, n, row) in rows {
            let inserted = from.insert_row(space, key(n), row.clone(), Timestamp::ZERO).await.unwrap();
            assert_eq!(inserted, RowInserted::Inserted);
        }
        let spaces = [COPIED, SPACE, BACKED_UP];
        for _ in 0..2 {
            assert_eq!(copy_rows(&from, &to, &spaces, NOW).await.unwrap(), 3);
        }
        assert_eq!(to.row_keys(COPIED, None, 9).await.unwrap(), [key(0), key(2)]);
        assert!(to.row_keys(SPACE, None, 9).await.unwrap().is_empty());
        assert_eq!(to.load_row(COPIED, key(2)).await.unwrap(), Some(live.clone()));
        to.remove_row(COPIED, key(2), None).await.unwrap();
        let another = Row { version: RowVersion([9; 16]), ..live };
        to.insert_row(COPIED, key(2), another, Timestamp::ZERO).await.unwrap();
        assert!(copy_rows(&from, &to, &spaces, NOW).await.is_err(), "another row with this key");
    }
}
