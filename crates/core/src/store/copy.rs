//! Copies a store into a store of another kind. All sessions that have not ended and all live revocations are copied,
//! unchanged. No gate may use either store meanwhile.
//!
//! Records may be put into a copy in any order and repeatedly. Of two records of the same session the later one is
//! kept, and revocations are merged. An incomplete copy is marked as incomplete, and gates do not open it.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};

use super::kit::encoding::{encode, encode_target};
use super::owed::OwedFile;
use super::relay::{KEY_OWNER, RelayStore, USED_OWNER, VAULT_OWNER};
use super::rules::{Failure, State};
use super::{Cursor, Filter, Revocation, Store, StoreError, WriteOutcome};
use crate::clock::Timestamp;
use crate::session::Session;

/// The number of records that are read and written at once.
const PAGE: usize = 256;

/// A store that can be the target of a copy.
#[async_trait]
pub trait CopyTarget: Store {
    /// Puts these records unchanged, unless the copy already has a later record of the same session.
    ///
    /// # Errors
    /// The store returns an error, or the copy is already complete.
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError>;

    /// Merges these revocations with those in the copy.
    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError>;

    /// Ensures that all later stamps of the copy, for sessions and for not-befores, are after this creation time.
    async fn raise_stamp(&self, latest: Timestamp) -> Result<(), StoreError> {
        let _ = latest;
        Ok(())
    }

    /// Marks the copy as complete. Gates may then open it, and no more sessions can be put into it. A repeated call
    /// changes nothing.
    async fn end_copy(&self) -> Result<(), StoreError>;
}

/// The error for a write to a copy that is complete, because gates may already use it.
pub fn is_whole() -> StoreError {
    StoreError::new("another command has already completed the copy").with_outcome(WriteOutcome::Refused)
}

/// Returns whether `a` was written after `b`, where both are records of one session. A revoked record counts as the
/// last one. Generations are compared before revisions, because after a loss of writes a client may have a token of the
/// higher generation.
pub fn is_later(a: &Session, b: &Session) -> bool {
    let rank = |session: &Session| (session.is_revoked(), session.current, session.revision);
    rank(a) > rank(b)
}

/// Puts a record into a copy, unless the copy has a later record.
///
/// # Errors
/// An access to the tables fails.
pub fn put_record(state: &mut impl State, session: &Session) -> Result<(), Failure> {
    match state.session(session.id) {
        Ok(Some(known)) if is_later(&known, session) => Ok(()),
        Ok(known) => state.put_session(known.as_ref(), session),
        // An unreadable record is useless, so it is replaced.
        Err(Failure::Refused(_)) => state.put_session(None, session),
        Err(broken @ Failure::Broken(_)) => Err(broken),
    }
}

/// The content of a store that is copied.
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

/// Reads all sessions that end after `cut`, page by page, in the order of their ids.
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

/// The revocations that end after `cut`, ordered by target.
async fn revocations<S: Store + ?Sized>(store: &S, cut: Timestamp) -> Result<Vec<(Vec<u8>, Revocation)>, StoreError> {
    let (entries, _) = store.revocations_since(Cursor::default()).await?;
    let live = entries.into_iter().filter(|entry| entry.until > cut);
    let mut live =
        live.map(|entry| Ok((encode_target(&entry.target)?, entry))).collect::<Result<Vec<_>, StoreError>>()?;
    live.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(live)
}

/// Counts the store's sessions and revocations that have not ended at `cut`, and computes a digest of them.
///
/// # Errors
/// The store returns an error.
pub async fn content<S: Store + ?Sized>(store: &S, cut: Timestamp) -> Result<Content, StoreError> {
    let (mut context, mut sessions) = (Context::new(&SHA256), 0);
    // The pages are ordered by id, so equal contents have equal digests.
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
        // Merging an effect with itself gives equal effects the same representation.
        context.update(format!("{:?} {:?}", entry.effect.merge(entry.effect), entry.until).as_bytes());
    }
    let digest = context.finish().as_ref().first_chunk().copied().unwrap_or_default();
    Ok(Content { sessions, revocations: entries.len() as u64, digest })
}

/// Copies the vaults of browser sessions, the API keys and the used assertions, unchanged, and compares the copies with
/// the originals. The other records of the relay are not copied, because they belong to exchanges in progress, and no
/// gate runs meanwhile. Returns the number of copied rows.
///
/// # Errors
/// The stores return an error, or the copy has another vault for the same session.
pub async fn copy_vaults(from: &dyn RelayStore, to: &dyn RelayStore, cut: Timestamp) -> Result<u64, StoreError> {
    let mut copied = 0;
    for id in from.relay_ids().await? {
        let Some(vault) = from.load_relay(id).await? else { continue };
        if ![KEY_OWNER, VAULT_OWNER, USED_OWNER].contains(&vault.owner) || vault.until <= cut {
            continue;
        }
        // If the copy is repeated, the row exists already.
        to.insert_relay(id, vault.clone(), cut).await?;
        if to.load_relay(id).await?.as_ref() != Some(&vault) {
            return Err(StoreError::new("the copy and the original have different vaults for the same session"));
        }
        copied += 1;
    }
    Ok(copied)
}

/// Copies the content that has not ended at `cut`, and compares both stores. An interrupted copy can be started again.
///
/// # Errors
/// The stores return an error, or the copy differs from the original, or the file beside the first store has
/// revocations that the store did not accept.
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
    use crate::store::conformance::relay::{done, id, pending};
    use crate::store::relay::{RelayInserted, RelayRecord};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn vault(until: Timestamp) -> RelayRecord {
        RelayRecord { owner: VAULT_OWNER, until, ..done(&pending(NOW), NOW) }
    }

    #[tokio::test]
    async fn vaults_are_copied_and_compared_and_exchanges_stay_behind() {
        let store = || MemoryStore::new("https://gate.test", Duration::ZERO);
        let (from, to) = (store(), store());
        let later = NOW.plus(Duration::from_secs(3600));
        for (n, record) in [vault(later), pending(NOW), vault(NOW), vault(later)].into_iter().enumerate() {
            let inserted = from.insert_relay(id(u8::try_from(n).unwrap()), record, Timestamp::ZERO).await.unwrap();
            assert_eq!(inserted, RelayInserted::Inserted);
        }
        // Run twice, because the command can be repeated.
        for _ in 0..2 {
            assert_eq!(copy_vaults(&from, &to, NOW).await.unwrap(), 2);
        }
        let mut copied = to.relay_ids().await.unwrap();
        copied.sort_unstable();
        assert_eq!(copied, [id(0), id(3)]);
        assert_eq!(to.load_relay(id(3)).await.unwrap(), Some(vault(later)));
        to.remove_relay(id(3), None).await.unwrap();
        to.insert_relay(id(3), RelayRecord { attempt: 9, ..vault(later) }, Timestamp::ZERO).await.unwrap();
        assert!(copy_vaults(&from, &to, NOW).await.is_err(), "another vault of the session");
    }
}
