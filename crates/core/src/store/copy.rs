//! Copies all unexpired sessions and revocations into a store of another kind, while gates are stopped.
//!
//! Records may be copied in any order and repeatedly. The later record of a session is kept, and revocations are
//! merged. Gates do not open an incomplete copy.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};

use super::kit::encoding::{encode, encode_target};
use super::owed::OwedFile;
use super::relay::{KEPT_OWNER, KEY_OWNER, RelayStore, USE_OWNER, USED_OWNER, VAULT_OWNER};
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

/// Copies vaults, API keys and used assertions, and compares the copies with the originals.
///
/// Other relay records belong to exchanges in progress, so they are not copied. Returns the number of copied rows.
///
/// # Errors
/// A store returns an error, or the copy has a different record with the same id.
pub async fn copy_vaults(from: &dyn RelayStore, to: &dyn RelayStore, cut: Timestamp) -> Result<u64, StoreError> {
    let mut copied = 0;
    for id in from.relay_ids().await? {
        let Some(vault) = from.load_relay(id).await? else { continue };
        if ![KEPT_OWNER, KEY_OWNER, USE_OWNER, USED_OWNER, VAULT_OWNER].contains(&vault.owner) || vault.until <= cut {
            continue;
        }
        // If the copy is repeated, the row exists already.
        to.insert_relay(id, vault.clone(), cut).await?;
        if to.load_relay(id).await?.as_ref() != Some(&vault) {
            return Err(StoreError::new("the copy and the original have different records with the same id"));
        }
        copied += 1;
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
    use crate::store::conformance::relay::{done, id, pending};
    use crate::store::relay::{RelayInserted, RelayRecord};

    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn vault(until: Timestamp) -> RelayRecord {
        owned(VAULT_OWNER, until)
    }

    fn owned(owner: [u8; 16], until: Timestamp) -> RelayRecord {
        RelayRecord { owner, until, ..done(&pending(NOW), NOW) }
    }

    #[tokio::test]
    async fn vaults_are_copied_and_compared_and_exchanges_stay_behind() {
        let store = || MemoryStore::new("https://gate.test", Duration::ZERO);
        let (from, to) = (store(), store());
        let later = NOW.plus(Duration::from_secs(3600));
        let kept = [owned(KEPT_OWNER, later), owned(USE_OWNER, later)];
        let rows = [vault(later), pending(NOW), vault(NOW), vault(later)].into_iter().chain(kept);
        for (n, record) in rows.enumerate() {
            let inserted = from.insert_relay(id(u8::try_from(n).unwrap()), record, Timestamp::ZERO).await.unwrap();
            assert_eq!(inserted, RelayInserted::Inserted);
        }
        for _ in 0..2 {
            assert_eq!(copy_vaults(&from, &to, NOW).await.unwrap(), 4);
        }
        let mut copied = to.relay_ids().await.unwrap();
        copied.sort_unstable();
        assert_eq!(copied, [id(0), id(3), id(4), id(5)]);
        assert_eq!(to.load_relay(id(3)).await.unwrap(), Some(vault(later)));
        to.remove_relay(id(3), None).await.unwrap();
        to.insert_relay(id(3), RelayRecord { attempt: 9, ..vault(later) }, Timestamp::ZERO).await.unwrap();
        assert!(copy_vaults(&from, &to, NOW).await.is_err(), "another vault of the session");
    }
}
