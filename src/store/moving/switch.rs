//! The copy, and the switch to it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{Inner, MovingStore, Opening};
use crate::clock::{SystemTime, TimeSource};
use crate::store::StoreError;
use crate::store::copy::{CopyTarget, Destination, Level, Standing, level};

/// A gate that runs beats every 15 seconds at least.
const SILENT_FOR: Duration = Duration::from_secs(20);
/// The longest time that a gate looks at its stores, while both answer.
const LOOKS_FOR: Duration = Duration::from_secs(5);
/// How often two stores that hold still are compared until they are equal, and two that are written to until one
/// comparison met no fault.
const MAX_PASSES: u32 = 10;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Which comparison this is, from 1 on.
    pub pass: u32,
    /// How many sessions it has compared so far.
    pub sessions: u64,
}

type Told<'a> = &'a (dyn Fn(Report) + Send + Sync);

impl MovingStore {
    /// Copies everything to the next store, and compares until it is level with this one. Cut short, it can be run again.
    ///
    /// # Errors
    /// Another copy or switch runs, a gate does not write to the next store, or one of the stores fails.
    pub async fn copy(&self, told: Told<'_>) -> Result<Level, StoreError> {
        let _job = self.0.begin_job().await?;
        self.0.bring_level(told).await
    }

    /// Makes the next store the one in charge. From the fence to the end of this, the gates serve nothing that needs the
    /// store. The second value is that time.
    ///
    /// # Errors
    /// As for a [copy](Self::copy). An error after the fence leaves no store in charge: the gates try to come to the end by
    /// themselves.
    pub async fn switch(&self, told: Told<'_>) -> Result<(Level, Duration), StoreError> {
        let _job = self.0.begin_job().await?;
        self.0.bring_level(told).await?;
        let next = self.0.next()?;
        let begun = Instant::now();
        let to = Destination { store: next.id, place: self.0.opening.place() };
        // No gate on the next store reads this file. From here on, a revocation that the old store does not take is not
        // acknowledged. If the fence fails, that stays so until the process starts again: the fence may yet be there.
        if self.0.old.owed_file().is_some_and(|file| !file.retire()) {
            return Err(StoreError::new(
                "the file beside the old store has revocations that the store has not taken yet: try again once the gate has \
                 written them, which its log says",
            ));
        }
        self.0.old.move_to(&to).await?;
        tracing::info!(target: "rotogate::audit", event = "store_fenced", next = to.place, "the old store serves no gate any more");
        let reader = self.0.opening.moved().await?;
        let level = end(&*reader, &*next.store, told).await?;
        self.0.opening.publish().await?;
        self.0.leave_soon();
        Ok((level, begun.elapsed()))
    }
}

/// Comes to the end of a switch that was cut short after the fence: `old` is read although it was moved. Several gates may do
/// so at once.
///
/// # Errors
/// One of the stores fails.
pub async fn finish(old: &dyn CopyTarget, opening: &dyn Opening) -> Result<(), StoreError> {
    let Standing::Moved { store, to } = old.standing().await? else {
        return Err(StoreError::new("the store was not moved"));
    };
    // A cluster may have been left with a fence in some of its partitions.
    old.move_to(&to).await?;
    let next = opening.standing().await?;
    if next.store() != Some(to.store) {
        return Err(StoreError::new(to.refusal("the old store")));
    }
    match next {
        Standing::Copying { .. } => {
            let next = opening.next(store).await?;
            let level = end(old, &*next, &|_| ()).await?;
            tracing::warn!(next = opening.place(), content = %level.content, "interrupted switch completed");
        }
        Standing::Missing | Standing::Serving { .. } | Standing::Moved { .. } => {}
    }
    opening.publish().await
}

/// Both stores hold still: compares until they are equal, and ends the copy.
async fn end(old: &dyn CopyTarget, next: &dyn CopyTarget, told: Told<'_>) -> Result<Level, StoreError> {
    let cut = SystemTime::new().wall();
    for pass in 1..=MAX_PASSES {
        let found = level(old, next, cut, &|sessions| told(Report { pass, sessions })).await?;
        if found.is_whole {
            return Ok(found);
        }
        if found.copied == 0 {
            next.raise_stamp(found.latest).await?;
            next.end_copy().await?;
            return Ok(found);
        }
    }
    Err(StoreError::new("the stores differ again and again, although nothing writes to them"))
}

impl Inner {
    async fn begin_job(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, StoreError> {
        // A look at the stores is soon over.
        let job = tokio::time::timeout(LOOKS_FOR, self.job.lock()).await;
        job.map_err(|_| StoreError::new("another copy or switch of this gate runs: try again after it"))
    }

    fn next(&self) -> Result<Arc<super::Next>, StoreError> {
        self.next.load_full().ok_or_else(|| {
            StoreError::new(format!("{} cannot be opened as a copy: see the gate's log", self.opening.place()))
        })
    }

    async fn bring_level(&self, told: Told<'_>) -> Result<Level, StoreError> {
        if self.next.load().is_none() {
            self.open_next().await?;
        }
        let next = self.next()?;
        if !matches!(next.store.standing().await?, Standing::Copying { .. }) {
            return Err(StoreError::new(format!("{} is no copy in progress", self.opening.place())));
        }
        self.all_gates_write_to(next.id).await?;
        let cut = SystemTime::new().wall();
        for pass in 1..=MAX_PASSES {
            let failed = self.failed.load(Ordering::Relaxed);
            let found = level(&*self.old, &*next.store, cut, &|sessions| told(Report { pass, sessions })).await?;
            if found.is_whole {
                return Err(StoreError::new("the next store is in charge already"));
            }
            // What differs while both are written to was read again, and put. A pass without a fault leaves nothing behind.
            let had_fault = failed != self.failed.load(Ordering::Relaxed);
            if !had_fault && (found.copied == 0 || pass > 1) {
                next.store.raise_stamp(found.latest).await?;
                return Ok(found);
            }
        }
        Err(StoreError::new(format!("{} fails again and again: see the gate's log", self.opening.place())))
    }

    /// A gate that writes to the old store alone would make differences as long as it runs.
    async fn all_gates_write_to(&self, next: Uuid) -> Result<(), StoreError> {
        let Some(shared) = self.old.shared() else { return Ok(()) };
        let (nodes, now) = (shared.nodes().await?, shared.last_known_time().await?);
        let running: Vec<_> = nodes.iter().filter(|seen| now.since(seen.beat) < SILENT_FOR).collect();
        let next = next.to_string();
        let others: Vec<_> = running.iter().filter(|seen| seen.row.next_store.as_deref() != Some(&*next)).collect();
        if !others.is_empty() {
            let names: Vec<_> = others.iter().map(|seen| &*seen.row.node).collect();
            return Err(StoreError::new(format!(
                "gates that were heard of in the last {} seconds do not write to {} (store {next}): {}. Give each of them the \
                 same [store.next] and restart it, or stop it",
                SILENT_FOR.as_secs(),
                self.opening.place(),
                names.join(", ")
            )));
        }
        if !self.opening.is_shared() && running.len() > 1 {
            return Err(StoreError::new("an embedded store serves one gate: stop the others first"));
        }
        Ok(())
    }

    /// Once the command that asked has its answer.
    fn leave_soon(&self) {
        let moved = self.moved.clone();
        let place = self.opening.place();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if !moved.send_replace(true) {
                tracing::info!(target: "rotogate::audit", event = "store_moved", next = place, "the next store is in charge");
            }
        });
    }
}
