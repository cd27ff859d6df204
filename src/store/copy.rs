//! Copies a store into another one, of another kind: all sessions that have not ended, and all live revocations, as they are.
//! While it is copied, no gate may run on either.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};

use super::encoding::{encode_session, encode_target};
use super::rules::end_of;
use super::{Cursor, Filter, Revocation, Store, StoreError};
use crate::clock::Timestamp;
use crate::session::Session;

/// How many records are read and written at once.
const PAGE: usize = 256;

/// A store that can be copied into.
#[async_trait]
pub trait CopyTarget: Store {
    /// Puts these records as they are, and replaces those that are there.
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<(), StoreError>;

    /// Puts these revocations as they are.
    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<(), StoreError>;
}

/// What a store holds, as far as it is copied.
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
        let live: Vec<_> = page.sessions.into_iter().filter(|session| end_of(session) > cut).collect();
        page_of(live).await?;
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

/// The revocations that end after `cut`, in the order of their targets.
async fn revocations<S: Store + ?Sized>(store: &S, cut: Timestamp) -> Result<Vec<(Vec<u8>, Revocation)>, StoreError> {
    let (entries, _) = store.revocations_since(Cursor::default()).await?;
    let live = entries.into_iter().filter(|entry| entry.until > cut);
    let mut live =
        live.map(|entry| Ok((encode_target(&entry.target)?, entry))).collect::<Result<Vec<_>, StoreError>>()?;
    live.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(live)
}

/// What of a store has not ended at `cut`.
///
/// # Errors
/// Those of the store.
pub async fn content<S: Store + ?Sized>(store: &S, cut: Timestamp) -> Result<Content, StoreError> {
    let mut context = Context::new(&SHA256);
    let mut sessions = 0;
    each_page(store, cut, async |page| {
        for session in page {
            let record = encode_session(&session)?;
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
        // Equal effects in one form.
        context.update(format!("{:?} {:?}", entry.effect.merge(entry.effect), entry.until).as_bytes());
    }
    let mut digest = [0; 32];
    digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    Ok(Content { sessions, revocations: entries.len() as u64, digest })
}

/// Copies what has not ended at `cut`, and compares. Cut short, it can begin again.
///
/// # Errors
/// Those of the stores; and if the copy is not what was copied.
pub async fn copy<F, T>(from: &F, to: &T, cut: Timestamp) -> Result<Content, StoreError>
where
    F: Store + ?Sized,
    T: CopyTarget + ?Sized,
{
    // First the sessions: what revokes them must not keep them out.
    each_page(from, cut, async |page| if page.is_empty() { Ok(()) } else { to.put_sessions(page).await }).await?;
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
        return Err(StoreError::new(format!("the copy differs: {was} were to be copied, and {is} are there")));
    }
    Ok(is)
}
