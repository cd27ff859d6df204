//! What other nodes revoke, as they write it.
//!
//! A node asks for the end of the log (the *beat*), having read its own monotonic clock first, and knows everything that was
//! acknowledged before that reading once its reader came to this end. The reader has a connection of its own, on which it
//! waits; the beat has another. A reader whose last entry is gone reads the live revocations anew.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use redis::Value;

use super::super::shared::{Feed, FeedStep, Follow, Heard};
use super::super::{Cursor, Revocation, StoreError};
use super::connect::Link;
use super::log::{PAGE, Place, floor, read_log};
use super::record::{LogId, new_op};
use super::script::{BEAT, bytes, unexpected};
use super::{Inner, drop_mut};
use crate::random::jittered;

/// The longest wait for an entry.
const LONGEST_BLOCK: Duration = Duration::from_millis(500);
/// How long the log keeps entries. A reader that is further behind reads the live ones anew.
const LOG_KEPT_MS: u64 = 15 * 60 * 1000;
/// The versions of records that this program reads from, reads to and writes.
const VERSIONS: [u8; 3] = [1, 1, 1];
/// The first pause after a fault. Each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

pub(super) struct RedisFeed {
    inner: Arc<Inner>,
    link: Link,
    follow: Follow,
    /// `None`: the live ones are read next.
    place: Option<Place>,
    /// Entries that no step has brought yet.
    ready: Vec<Revocation>,
    beat: Option<Beat>,
    /// The monotonic time of the next beat.
    next_beat: Duration,
    faults: u32,
    /// The run of the server: it may have lost writes when it started again.
    server: Option<String>,
}

/// A proof that waits for the reader.
struct Beat {
    heard: Heard,
    end: LogId,
    /// Something was read since: the reader's place is in the log that the beat saw.
    read: bool,
}

impl RedisFeed {
    pub(super) fn new(inner: Arc<Inner>, from: &Cursor, follow: Follow) -> Result<Self, StoreError> {
        let place = inner.place(from)?;
        let link = Link::new(Arc::clone(&inner.options), LONGEST_BLOCK);
        Ok(Self {
            inner,
            link,
            follow,
            place,
            ready: Vec::new(),
            beat: None,
            next_beat: Duration::ZERO,
            faults: 0,
            server: None,
        })
    }

    /// Nothing is lost if a caller stops waiting: what was read is kept with the place it was read to.
    async fn step(&mut self) -> Result<FeedStep, StoreError> {
        loop {
            let Some(place) = self.place else {
                let (live, end) = self.inner.snapshot(&self.link).await?;
                self.ready.extend(live.into_values().map(|(_, entry)| entry));
                self.place = Some(end);
                continue;
            };
            match &self.beat {
                Some(beat) if beat.read && place.id >= beat.end => {
                    let complete = Some(Heard { unbroken: self.is_unbroken(), ..beat.heard });
                    self.beat = None;
                    return Ok(FeedStep { entries: std::mem::take(&mut self.ready), complete });
                }
                // They hold from now on, whatever follows.
                _ if !self.ready.is_empty() => {
                    return Ok(FeedStep { entries: std::mem::take(&mut self.ready), complete: None });
                }
                Some(_) => self.read_on(place, None).await?,
                None => {
                    let now = self.follow.time.monotonic();
                    if now >= self.next_beat {
                        self.ask().await?;
                    } else {
                        self.read_on(place, Some((self.next_beat - now).min(LONGEST_BLOCK))).await?;
                    }
                }
            }
        }
    }

    fn is_unbroken(&self) -> bool {
        !self.inner.broken.load(Ordering::Acquire)
    }

    async fn ask(&mut self) -> Result<(), StoreError> {
        let asked = self.follow.time.monotonic();
        let args = vec![self.inner.node.to_vec(), VERSIONS.to_vec(), LOG_KEPT_MS.to_string().into()];
        let keys = vec![self.inner.keys.of("n")];
        let mut answer = self.inner.run_as(&self.inner.beats, new_op()?, &BEAT, keys, args).await?;
        let answered = self.follow.time.monotonic();
        if answer.status != "beat" {
            return Err(answer.unknown());
        }
        let end = LogId::parse(&answer.bytes()?).ok_or_else(|| unexpected("no end of the log"))?;
        let heard = Heard { asked, answered, store_time: answer.time, unbroken: false };
        self.same_server().await?;
        self.next_beat = asked.saturating_add(self.follow.every);
        self.beat = Some(Beat { heard, end, read: false });
        Ok(())
    }

    /// A server that started again may have lost what it acknowledged last. Its files alone would tell.
    async fn same_server(&mut self) -> Result<(), StoreError> {
        let info = self.inner.info(&self.inner.beats, "server").await?;
        let run = info.and_then(|info| info.get("run_id").map(str::to_owned));
        if run.is_none() || self.server.as_ref().is_some_and(|known| Some(known) != run.as_ref()) {
            self.inner.broken.store(true, Ordering::Release);
        }
        self.server = run;
        Ok(())
    }

    /// Reads what follows a place; waits for it for a while, if it should.
    async fn read_on(&mut self, place: Place, wait: Option<Duration>) -> Result<(), StoreError> {
        let (log, head) = (self.inner.keys.of("log"), self.inner.keys.of("h"));
        let own = place.id.to_string();
        let mut replies = self
            .inner
            .read(&self.link, |pipeline| {
                let read = pipeline.cmd("XREAD").arg("COUNT").arg(PAGE);
                if let Some(wait) = wait {
                    // 0 would be for ever.
                    read.arg("BLOCK").arg(u64::try_from(wait.as_millis()).unwrap_or(1).max(1));
                }
                drop_mut(read.arg("STREAMS").arg(&log).arg(&own));
                pipeline.cmd("XRANGE").arg(&log).arg(&own).arg(&own);
                pipeline.cmd("HGET").arg(head).arg("floor");
            })
            .await?;
        let entries = match replies.next() {
            Some(Value::Nil) => Vec::new(),
            Some(Value::Array(streams)) => match streams.into_iter().next() {
                Some(Value::Array(stream)) => read_log(stream.into_iter().nth(1))?,
                _ => return Err(unexpected("no stream")),
            },
            _ => return Err(unexpected("no streams")),
        };
        let known = read_log(replies.next())?;
        let floor = floor(replies.next())?;
        if !place.is_there(known.first(), floor) {
            tracing::warn!(%place.id, %floor, "the log of revocations begins later: reading all live ones");
            if place.id >= floor {
                // Not trimmed: lost.
                self.inner.broken.store(true, Ordering::Release);
            }
            self.place = None;
            return Ok(());
        }
        for (place, entry) in entries {
            self.ready.push(entry);
            self.place = Some(place);
        }
        if let Some(beat) = &mut self.beat {
            beat.read = true;
        }
        Ok(())
    }
}

#[async_trait]
impl Feed for RedisFeed {
    async fn next(&mut self) -> Result<FeedStep, StoreError> {
        if self.faults > 0 {
            let longest = FIRST_PAUSE.saturating_mul(1 << self.faults.min(8)).min(LONGEST_PAUSE);
            tokio::time::sleep(jittered(longest)).await;
        }
        let step = self.step().await;
        match &step {
            Ok(_) => self.faults = 0,
            Err(_) => {
                self.faults = self.faults.saturating_add(1);
                self.beat = None;
            }
        }
        step
    }
}

impl fmt::Debug for RedisFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFeed").field("place", &self.place).finish_non_exhaustive()
    }
}

impl super::check::Info {
    pub(super) fn of(reply: Value) -> Option<Self> {
        String::from_utf8(bytes(reply)?).ok().map(|text| Self::parse(&text))
    }
}
