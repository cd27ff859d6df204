//! Copies a store into another one, of another kind: all sessions that have not ended, and all live revocations, as they are.
//! [`copy`] does so while no gate runs on either; [`moving`](super::moving) while gates run.
//!
//! What is put into a copy may come in any order: of two records of a session the later one stays, and
//! revocations merge. A store says of itself [how it stands](Standing). Only one that was copied in full is served from, and
//! one that was moved refuses everything.

use std::fmt;

use async_trait::async_trait;
use aws_lc_rs::digest::{Context, SHA256};
use uuid::Uuid;

use super::encoding::{encode_session, encode_target};
use super::rules::{end_of, is_revoked};
use super::{Cursor, Filter, Revocation, Store, StoreError};
use crate::clock::Timestamp;
use crate::session::Session;

mod level;

pub use level::{Level, level};

/// How many records are read and written at once.
const PAGE: usize = 256;

/// A store that can be copied into, and moved away from.
#[async_trait]
pub trait CopyTarget: Store {
    /// Puts these records as they are, each unless the one that is there is later.
    async fn put_sessions(&self, sessions: Vec<Session>) -> Result<Put, StoreError>;

    /// Merges these revocations with those that are there.
    async fn put_revocations(&self, entries: Vec<Revocation>) -> Result<Put, StoreError>;

    /// What begins in the copy, and each not-before of it, is later than this creation.
    async fn raise_stamp(&self, latest: Timestamp) -> Result<(), StoreError> {
        let _ = latest;
        Ok(())
    }

    /// The copy is whole: gates may open it, and nothing is put into it any more. Repeated, it changes nothing.
    async fn end_copy(&self) -> Result<(), StoreError>;

    /// From now on the store refuses everything, to every gate and at one moment: it was moved to the store `to`. Repeated,
    /// it changes nothing.
    async fn move_to(&self, to: &Destination) -> Result<(), StoreError>;

    /// How the store stands now, whatever it refuses.
    async fn standing(&self) -> Result<Standing, StoreError>;
}

/// What became of a record that was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is there, or a later one is.
    Done,
    /// The copy is whole already, and nothing was put.
    Whole,
}

/// Where a store was moved to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// The id of the store.
    pub store: Uuid,
    /// Its kind and address, for people.
    pub place: String,
}

impl Destination {
    /// As a store keeps it.
    pub(super) fn encode(&self) -> String {
        format!("{} {}", self.store, self.place)
    }

    /// What [`encode`](Self::encode) made.
    pub(super) fn decode(text: &str) -> Result<Self, StoreError> {
        let (store, place) = text.split_once(' ').unwrap_or((text, ""));
        let unreadable =
            |error| StoreError::caused_by(format!("it cannot be read where the store was moved to: {text:?}"), error);
        Ok(Self { store: store.parse().map_err(unreadable)?, place: place.to_owned() })
    }

    /// Why a gate without this destination does not open the store at `place`.
    pub fn refusal(&self, place: impl fmt::Display) -> String {
        format!(
            "{place} was moved to {} (store {}), which has its sessions and revocations now: write that one into [store], or \
             into [store.next]",
            self.place, self.store
        )
    }
}

/// How a store stands among those that are copied and moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is none yet.
    Missing,
    /// It is becoming a copy.
    Copying {
        /// Its id.
        store: Uuid,
        /// The name of the store that it is a copy of; the id, if gates run on that.
        of: String,
    },
    /// Gates may run on it.
    Serving {
        /// Its id.
        store: Uuid,
        /// The name of the store that it was a copy of, if it was.
        of: Option<String>,
    },
    /// Another store has its sessions and revocations.
    Moved {
        /// Its id.
        store: Uuid,
        /// Which one has them.
        to: Destination,
    },
}

impl Standing {
    /// From what a store says of itself.
    pub(super) fn read(
        store: Uuid,
        copying: Option<String>,
        copied: Option<String>,
        moved: Option<&str>,
    ) -> Result<Self, StoreError> {
        Ok(match (moved, copying) {
            (Some(to), _) => Self::Moved { store, to: Destination::decode(to)? },
            (None, Some(of)) => Self::Copying { store, of },
            (None, None) => Self::Serving { store, of: copied },
        })
    }

    /// The id of the store, if there is one.
    pub fn store(&self) -> Option<Uuid> {
        match self {
            Self::Missing => None,
            Self::Copying { store, .. } | Self::Serving { store, .. } | Self::Moved { store, .. } => Some(*store),
        }
    }
}

/// Is this the mark of the store with this id?
pub fn mark_names(mark: &std::path::Path, store: Uuid) -> bool {
    let known = super::highwater::HighWater::at(mark.to_owned()).read();
    known.is_ok_and(|known| known.is_some_and(|mark| mark.store == store))
}

/// Was `a` written after `b`, both records of one session? A revoked record is the last one. After a loss of writes, a
/// generation that a client has counts for more than the number of writes.
pub(super) fn is_later(a: &Session, b: &Session) -> bool {
    let rank = |session: &Session| (is_revoked(session), session.current, session.revision);
    rank(a) > rank(b)
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
    let mut counting = Counting::new();
    each_page(store, cut, async |page| page.iter().try_for_each(|session| counting.session(session))).await?;
    revocations(store, cut).await?.iter().for_each(|(target, entry)| counting.revocation(target, entry));
    Ok(counting.finish())
}

/// Counts and digests what a store holds.
struct Counting {
    context: Context,
    sessions: u64,
    revocations: u64,
}

impl Counting {
    fn new() -> Self {
        Self { context: Context::new(&SHA256), sessions: 0, revocations: 0 }
    }

    /// In the order of their ids.
    fn session(&mut self, session: &Session) -> Result<(), StoreError> {
        let record = encode_session(session)?;
        self.context.update(session.id.as_bytes());
        self.context.update(&(record.len() as u64).to_be_bytes());
        self.context.update(&record);
        self.sessions += 1;
        Ok(())
    }

    /// In the order of their targets, after the sessions.
    fn revocation(&mut self, target: &[u8], entry: &Revocation) {
        self.context.update(&(target.len() as u64).to_be_bytes());
        self.context.update(target);
        // Equal effects in one form.
        self.context.update(format!("{:?} {:?}", entry.effect.merge(entry.effect), entry.until).as_bytes());
        self.revocations += 1;
    }

    fn finish(self) -> Content {
        let mut digest = [0; 32];
        digest.iter_mut().zip(self.context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Content { sessions: self.sessions, revocations: self.revocations, digest }
    }
}

/// Copies what has not ended at `cut`, and compares. Cut short, it can begin again.
///
/// # Errors
/// Those of the stores; if the copy is not what was copied; and if the file beside the first store has revocations that the
/// store did not take.
pub async fn copy<F, T>(from: &F, to: &T, cut: Timestamp) -> Result<Content, StoreError>
where
    F: Store + ?Sized,
    T: CopyTarget + ?Sized,
{
    if from.owed_file().is_some_and(|file| !file.is_empty()) {
        return Err(StoreError::new(
            "the file beside the store has revocations that the store has not taken yet, and the copy would lack them: start a \
             gate on the store, stop it once it has written them, and copy again",
        ));
    }
    let mut latest = Timestamp::ZERO;
    each_page(from, cut, async |page| {
        latest = page.iter().map(Session::created).fold(latest, Timestamp::max);
        if page.is_empty() { Ok(()) } else { to.put_sessions(page).await.and_then(not_whole) }
    })
    .await?;
    to.raise_stamp(latest).await?;
    let mut entries = revocations(from, cut).await?.into_iter().map(|(_, entry)| entry);
    loop {
        let page: Vec<_> = entries.by_ref().take(PAGE).collect();
        if page.is_empty() {
            break;
        }
        to.put_revocations(page).await.and_then(not_whole)?;
    }
    let (was, is) = (content(from, cut).await?, content(to, cut).await?);
    if was != is {
        return Err(StoreError::new(format!("the copy differs: {was} were to be copied, and {is} are there")));
    }
    Ok(is)
}

fn not_whole(put: Put) -> Result<(), StoreError> {
    match put {
        Put::Done => Ok(()),
        Put::Whole => Err(StoreError::new("the copy was ended meanwhile, by another command or gate")),
    }
}
