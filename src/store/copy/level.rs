//! Brings a copy level with a store that may be written to meanwhile, if each of these writes goes to both.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::collections::VecDeque;

use super::super::rules::end_of;
use super::{Content, CopyTarget, Counting, Filter, PAGE, Put, Store, StoreError, is_later, revocations};
use crate::clock::Timestamp;
use crate::session::{Session, SessionId};

/// How many records are read at once.
const READ: usize = 1000;

/// What one comparison of two stores found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// What the first store held, as it was read.
    pub content: Content,
    /// The latest creation of a session.
    pub latest: Timestamp,
    /// How many records and revocations the copy lacked, or had in an earlier state. It has them now.
    pub copied: u64,
    /// How many sessions and revocations the copy has beyond the first store, which has lost them.
    pub ahead: u64,
    /// The copy is whole already, and nothing more was put into it.
    pub is_whole: bool,
}

/// Pages of sessions, one session at a time.
struct Sessions<'a, S: ?Sized> {
    store: &'a S,
    cut: Timestamp,
    page: VecDeque<Session>,
    /// `None`: no page was read yet. `Some(None)`: there is no further one.
    after: Option<Option<SessionId>>,
}

impl<'a, S: Store + ?Sized> Sessions<'a, S> {
    fn new(store: &'a S, cut: Timestamp) -> Self {
        Self { store, cut, page: VecDeque::new(), after: None }
    }

    /// The next session, which stays the next one until it is taken.
    async fn peek(&mut self) -> Result<Option<&Session>, StoreError> {
        while self.page.is_empty() {
            let after = match self.after {
                None => None,
                Some(Some(id)) => Some(id),
                Some(None) => return Ok(None),
            };
            let page = self.store.list(Filter::All, after, READ).await?;
            self.after = Some(page.next);
            let cut = self.cut;
            self.page.extend(page.sessions.into_iter().filter(|session| end_of(session) > cut));
        }
        Ok(self.page.front())
    }

    fn take(&mut self) -> Option<Session> {
        self.page.pop_front()
    }
}

/// Compares all that has not ended at `cut`, and puts into the copy what it lacks. `told` hears how many sessions were
/// compared.
///
/// A record that is missing is put as it was read: of two, the copy keeps the later one. One that differs is read again
/// first, in both: it may be on its way.
///
/// # Errors
/// Those of the stores.
pub async fn level<F, T>(
    from: &F,
    to: &T,
    cut: Timestamp,
    told: &(dyn Fn(u64) + Send + Sync),
) -> Result<Level, StoreError>
where
    F: Store + ?Sized,
    T: CopyTarget + ?Sized,
{
    let mut counting = Counting::new();
    let mut level = Level {
        content: Content { sessions: 0, revocations: 0, digest: [0; 32] },
        latest: Timestamp::ZERO,
        copied: 0,
        ahead: 0,
        is_whole: false,
    };
    let (mut ours, mut theirs) = (Sessions::new(from, cut), Sessions::new(to, cut));
    let (mut missing, mut differing, mut compared) = (Vec::new(), Vec::new(), 0);
    loop {
        let order = match (ours.peek().await?, theirs.peek().await?) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(own), Some(their)) => own.id.cmp(&their.id),
        };
        let own = if order == Ordering::Greater { None } else { ours.take() };
        let their = if order == Ordering::Less { None } else { theirs.take() };
        if let Some(own) = &own {
            counting.session(own)?;
            level.latest = level.latest.max(own.created());
            compared += 1;
            if compared % READ as u64 == 0 {
                told(compared);
            }
        }
        match (own, their) {
            (Some(own), Some(their)) if own == their => {}
            (Some(own), None) => missing.push(own),
            (Some(own), Some(_)) => differing.push(own.id),
            (None, Some(their)) => match from.load(their.id).await? {
                Some(own) if own == their => {}
                Some(own) => differing.push(own.id),
                None => level.ahead += 1,
            },
            (None, None) => {}
        }
        if missing.len() >= PAGE {
            put(to, std::mem::take(&mut missing), &mut level).await?;
        }
        if differing.len() >= PAGE {
            put_again(from, to, &mut differing, &mut level).await?;
        }
        if level.is_whole {
            return Ok(level);
        }
    }
    put(to, missing, &mut level).await?;
    put_again(from, to, &mut differing, &mut level).await?;
    told(compared);
    put_revocations(from, to, cut, &mut counting, &mut level).await?;
    level.content = counting.finish();
    Ok(level)
}

async fn put<T: CopyTarget + ?Sized>(to: &T, records: Vec<Session>, level: &mut Level) -> Result<(), StoreError> {
    if records.is_empty() {
        return Ok(());
    }
    level.copied += records.len() as u64;
    level.is_whole |= to.put_sessions(records).await? == Put::Whole;
    Ok(())
}

/// Reads these sessions again, in the first store first, and puts those that the copy lacks.
async fn put_again<F, T>(from: &F, to: &T, ids: &mut Vec<SessionId>, level: &mut Level) -> Result<(), StoreError>
where
    F: Store + ?Sized,
    T: CopyTarget + ?Sized,
{
    let mut records = Vec::new();
    for id in ids.drain(..) {
        let Some(own) = from.load(id).await? else { continue };
        match to.load(id).await? {
            Some(their) if their == own => {}
            Some(their) if is_later(&their, &own) => level.ahead += 1,
            Some(_) | None => records.push(own),
        }
    }
    put(to, records, level).await
}

async fn put_revocations<F, T>(
    from: &F,
    to: &T,
    cut: Timestamp,
    counting: &mut Counting,
    level: &mut Level,
) -> Result<(), StoreError>
where
    F: Store + ?Sized,
    T: CopyTarget + ?Sized,
{
    let ours = revocations(from, cut).await?;
    let mut theirs: HashMap<_, _> = revocations(to, cut).await?.into_iter().collect();
    let mut lacking = Vec::new();
    for (target, own) in ours {
        counting.revocation(&target, &own);
        let their = theirs.remove(&target);
        // Equal effects in one form.
        let has_it = their.is_some_and(|mut their| {
            their.absorb(&their.clone());
            let mut merged = their.clone();
            merged.absorb(&own);
            merged == their
        });
        if !has_it {
            lacking.push(own);
        }
    }
    level.ahead += theirs.len() as u64;
    level.copied += lacking.len() as u64;
    let mut lacking = lacking.into_iter();
    loop {
        let page: Vec<_> = lacking.by_ref().take(PAGE).collect();
        if page.is_empty() {
            return Ok(());
        }
        level.is_whole |= to.put_revocations(page).await? == Put::Whole;
    }
}
