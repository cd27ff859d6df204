//! Recovers after a shared store has lost acknowledged writes (requirement O5). The engine does the following:
//!
//! 1. It adopts the data. From then on, operations of other engines fail until those engines also adopt the data.
//! 2. It restores the store's missing revocations from its own list.
//! 3. It restores the records that it wrote recently.
//! 4. It issues no tokens until the other engines have completed these steps, or have had enough time.
//!
//! After these steps, a session's record can still be older than its token. An engine then adopts the token's
//! generation, if the engine knows every revocation since the session began.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use tokio::task::{JoinError, JoinSet};

use super::Engine;
use crate::clock::Timestamp;
use crate::fault::{Error, Fault};
use crate::revocation::Revocation;
use crate::session::{RevokedBecause, Session};
use crate::store::{SharedStore, StoreError};

const AT_ONCE: usize = 64;

const STEADY: u8 = 0;
/// This engine has finished its recovery, but other engines may not have.
const WAITING: u8 = 1;
/// The store lost writes, and this engine has not adopted the data yet.
const LOST: u8 = 2;

#[derive(Debug)]
pub(super) struct Restoring {
    phase: AtomicU8,
    /// When engines last adopted the store's data, before this engine started.
    adopted_before: AtomicU64,
}

impl Restoring {
    pub(super) fn new() -> Self {
        Self { phase: AtomicU8::new(STEADY), adopted_before: AtomicU64::new(0) }
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase.load(Ordering::Acquire) == STEADY
    }
}

impl Engine {
    pub(super) fn suspect_loss(&self) {
        self.restoring.phase.store(LOST, Ordering::Release);
    }

    pub(super) fn is_loss_suspected(&self) -> bool {
        self.restoring.phase.load(Ordering::Acquire) == LOST
    }

    pub(super) async fn restore(&self, shared: &dyn SharedStore) -> Result<(), StoreError> {
        shared.adopt().await?;
        let now = self.clock.now();
        let (known, _) = self.store.revocations().await?;
        known.sweep(now);
        self.revocations.sweep(now);
        let mut revocations = 0_usize;
        for portion in self.revocations.missing_in(&known) {
            revocations += portion.len();
            self.revoke_again(portion).await?;
        }
        let sessions = shared.restore(self.written.lately()).await?;
        self.written.distrust(self.clock.source().monotonic());
        if revocations == 0 && sessions == 0 {
            tracing::info!(
                "the store may have lost writes, but it has everything that this gate knows; tokens are issued again \
                 once the other gates have also checked"
            );
        } else {
            tracing::error!(
                revocations,
                sessions,
                "the store has lost writes, and this gate has written back what was missing; tokens are issued again \
                 once the other gates have done the same"
            );
        }
        self.restoring.phase.store(WAITING, Ordering::Release);
        Ok(())
    }

    async fn revoke_again(&self, entries: Vec<Revocation>) -> Result<(), StoreError> {
        let mut under_way = JoinSet::new();
        for entry in entries {
            if under_way.len() == AT_ONCE {
                ended(under_way.join_next().await)?;
            }
            let store = Arc::clone(&self.store);
            under_way.spawn(async move { store.revoke(entry, RevokedBecause::Restored).await });
        }
        while !under_way.is_empty() {
            ended(under_way.join_next().await)?;
        }
        Ok(())
    }

    /// Ends the recovery if the other gates have finished, or have had enough time. Returns true if the recovery has
    /// ended.
    pub async fn is_restored(&self) -> bool {
        let (Some(shared), Some(staleness)) = (self.store.shared(), self.following.staleness()) else { return true };
        if self.restoring.is_over() {
            return true;
        }
        let restoration = shared.restoration(staleness.limit * 3).await;
        let is_complete = restoration.is_ok_and(|restoration| restoration.is_complete);
        let from_waiting =
            || self.restoring.phase.compare_exchange(WAITING, STEADY, Ordering::AcqRel, Ordering::Acquire);
        if is_complete && from_waiting().is_ok() {
            tracing::info!("the gates have written back the data that the store had lost, so tokens are issued again");
        }
        self.restoring.is_over()
    }

    /// Takes part in a recovery that began before this engine started. The engine does not issue tokens until the
    /// recovery has ended.
    pub async fn join(&self) -> Result<(), StoreError> {
        let (Some(shared), Some(staleness)) = (self.store.shared(), self.following.staleness()) else { return Ok(()) };
        let restoration = shared.restoration(staleness.limit * 3).await?;
        self.restoring.adopted_before.store(restoration.adopted.as_millis(), Ordering::Release);
        if !restoration.is_complete {
            self.restoring.phase.store(WAITING, Ordering::Release);
        }
        Ok(())
    }

    /// Returns whether a session may adopt a token's newer generation. The engine must know every revocation of the
    /// session.
    pub(super) async fn may_continue(&self, session: &Session) -> Result<bool, Error> {
        let (Some(shared), Some(staleness)) = (self.store.shared(), self.following.staleness()) else {
            return Ok(false);
        };
        let adopted_before = Timestamp::from_millis(self.restoring.adopted_before.load(Ordering::Acquire));
        if adopted_before != Timestamp::ZERO && session.created() <= adopted_before {
            return Ok(false);
        }
        if !shared.predates_loss(session.id).await? {
            self.suspect_loss();
            return Err(Fault::Restoring.into());
        }
        // Give other gates time to detect a further loss of writes.
        tokio::time::sleep(staleness.every() * 2).await;
        self.may_mint()?;
        if shared.predates_loss(session.id).await? { Ok(true) } else { Err(Fault::Restoring.into()) }
    }
}

fn ended(one: Option<Result<Result<Revocation, StoreError>, JoinError>>) -> Result<(), StoreError> {
    match one {
        Some(Ok(written)) => written.map(drop),
        Some(Err(error)) => Err(StoreError::caused_by("a revocation was not written back", error)),
        None => Ok(()),
    }
}
