//! The feed of revocations from other nodes.
//!
//! A node reads the log ten times a second, and at each notification. Some reads are a *beat*, which also updates the
//! node's row. A node reads its own clock before a beat. The beat then reads every revocation that was acknowledged
//! before the node read its clock. A lost notification does no harm.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;

use super::PostgresInner;
use super::connect::{ConnectionPool, connect};
use super::log::{Beat, LogProgress};
use super::options::{PostgresOptions, Purpose};
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::kit::network::pause_after;
use rotogate_core::store::{Cursor, Feed, FeedStep, Follow, Heard, Revocation, StoreError};
use rotogate_core::task::TaskGuard;

const POLL: Duration = Duration::from_millis(100);

pub(super) struct PostgresFeed {
    inner: Arc<PostgresInner>,
    pool: ConnectionPool,
    follow: Follow,
    /// The position in the log. If `None`, the live revocations are read next.
    place: Option<LogProgress>,
    ready: Vec<Revocation>,
    /// A beat with unread pages.
    beat: Option<Heard>,
    next_beat: Duration,
    faults: u32,
    /// The history to which the position and the beat belong.
    history: History,
    said_lost: bool,
    heard: Arc<Notify>,
    _listener: Option<TaskGuard>,
}

/// Listens for notifications. Wakes the reader after each connect, because notifications may have been missed.
async fn listen(options: Arc<PostgresOptions>, heard: Arc<Notify>) {
    let mut failures = 0;
    loop {
        if let Ok(mut connection) = connect(&options, Purpose::Listening, Some(Arc::clone(&heard))).await
            && connection.client.batch_execute(&format!("listen \"{}\"", options.schema)).await.is_ok()
        {
            failures = 0;
            heard.notify_one();
            connection.ended().await;
        }
        tokio::time::sleep(pause_after(failures)).await;
        failures += 1;
    }
}

impl PostgresFeed {
    pub(super) fn new(inner: Arc<PostgresInner>, from: &Cursor, follow: Follow) -> Result<Self, StoreError> {
        let history = inner.known.history();
        let place = inner.place(from)?;
        let options = &inner.options;
        let heard = Arc::new(Notify::new());
        let listener = options.listens().then(|| TaskGuard::spawn(listen(Arc::clone(options), Arc::clone(&heard))));
        Ok(Self {
            pool: ConnectionPool::new(Arc::clone(options), 1),
            inner,
            follow,
            place,
            ready: Vec::new(),
            beat: None,
            next_beat: Duration::ZERO,
            faults: 0,
            history,
            said_lost: false,
            heard,
            _listener: listener,
        })
    }

    /// This function is cancel-safe, because `self` keeps the entries and the position.
    async fn step(&mut self) -> Result<FeedStep, StoreError> {
        loop {
            let history = self.inner.known.history();
            if self.history != history {
                // A position from another history is meaningless.
                (self.place, self.beat, self.history) = (None, None, history);
            }
            if self.inner.known.is_lost() {
                if self.said_lost {
                    tokio::time::sleep(POLL).await;
                }
                self.said_lost = true;
                return Ok(FeedStep { entries: std::mem::take(&mut self.ready), complete: None, lost: true });
            }
            self.said_lost = false;
            if self.place.is_none() {
                let (live, end) = self.inner.snapshot(&self.pool, self.history).await?;
                self.ready.extend(live.into_values().map(|(_, entry)| entry));
                self.place = Some(end);
                // Earlier pages of the beat may be incomplete, so the beat starts again.
                self.beat = None;
            }
            // The collected entries stay valid when the history changes.
            if !self.ready.is_empty() {
                return Ok(FeedStep { entries: std::mem::take(&mut self.ready), complete: None, lost: false });
            }
            let now = self.follow.time.monotonic();
            let beats = self.beat.is_none() && now >= self.next_beat;
            if self.beat.is_none() && !beats {
                tokio::select! {
                    () = self.heard.notified() => {}
                    () = tokio::time::sleep((self.next_beat - now).min(POLL)) => {}
                }
                if self.follow.time.monotonic() >= self.next_beat {
                    continue;
                }
            }
            if let Some(complete) = self.read(beats).await? {
                return Ok(FeedStep {
                    entries: std::mem::take(&mut self.ready),
                    complete: Some(complete),
                    lost: false,
                });
            }
        }
    }

    /// Reads the log once. Returns the beat if this read completes it.
    async fn read(&mut self, beats: bool) -> Result<Option<Heard>, StoreError> {
        let Some(place) = &mut self.place else { return Ok(None) };
        let asked = self.follow.time.monotonic();
        let said = if beats { self.follow.row.get().encode()? } else { Vec::new() };
        let beat = beats.then_some(Beat { node: &self.inner.node, said: &said });
        let reading = self.inner.read_on(&self.pool, self.history, place, beat).await?;
        let answered = self.follow.time.monotonic();
        if beats {
            self.next_beat = asked.saturating_add(self.follow.every);
            self.beat = Some(Heard { asked, answered, store_time: reading.now });
        }
        if let Some(server) = reading.server {
            self.inner.known.saw(self.history, &server);
        }
        if self.inner.known.is_lost() {
            // A beat must not complete before the recovery.
            self.beat = None;
            return Ok(None);
        }
        if reading.is_lost {
            tracing::warn!("the log of revocations in PostgreSQL was replaced: reading all live revocations");
            self.place = None;
            return Ok(None);
        }
        self.ready.extend(reading.entries.into_iter().map(|(_, entry)| entry));
        if reading.more {
            return Ok(None);
        }
        Ok(self.beat.take())
    }
}

#[async_trait]
impl Feed for PostgresFeed {
    async fn next(&mut self) -> Result<FeedStep, StoreError> {
        if self.faults > 0 {
            tokio::time::sleep(pause_after(self.faults)).await;
        }
        let step = self.step().await;
        match &step {
            Ok(_) => self.faults = 0,
            // The error is about an outdated history.
            Err(_) if self.inner.known.history() != self.history => return Ok(FeedStep::default()),
            Err(_) => {
                self.faults = self.faults.saturating_add(1);
                self.beat = None;
            }
        }
        step
    }
}

rotogate_core::debug_with!(PostgresFeed { place });
