//! The feed, which reads the revocations that other nodes write.
//!
//! A node first reads its own monotonic clock, and then asks for the end of the log (the *beat*). Once the node has all
//! entries up to this end, it knows every revocation that was acknowledged before the clock was read. The beat sends
//! the reader's position. A single script checks that the reader's last entry is in the log, and returns all later
//! entries up to the end, so its reply is sufficient proof. In the meantime the reader waits for entries on a separate
//! connection, so that a revocation arrives at once, however long the beat takes. If an entry arrives both ways, the
//! second copy is ignored. A reader whose last entry is no longer in the log reads all live revocations again.
//!
//! The node has no proof until it has read the last page of live revocations. If this takes longer than the permitted
//! staleness, the gate becomes stale. The pages are not ordered by time, so a revocation from before the scan may be on
//! any page. Following the log in parallel would therefore not help, because it yields only newer entries. A reader
//! that keeps its position does not need a scan, because the last entry of the log is never trimmed, and other entries
//! are kept longer than any permitted staleness.
//!
//! Each partition has its own reader and connection, because a blocking command can read only one slot of a
//! cluster, and delays all later commands on its connection. A step is complete once all partitions have replied to
//! a beat. Its proof is as old as the oldest of these beats. All readers send their beats at the same times, so the
//! beats have the same age unless a partition replies late. A partition that does not reply delays the proof, but
//! not the entries of other partitions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, OptionFuture};
use futures_util::stream::FuturesUnordered;
use redis::Value;
use tokio::time::timeout;

use super::check::info;
use super::cluster::Primaries;
use super::connect::Link;
use super::log::{BEGIN, LogPosition, PAGE, floor, read_log};
use super::partitions::{Partition, Sign};
use super::record::{LogId, new_op};
use super::script::{BEAT, bytes, unexpected};
use super::{RedisInner, drop_mut};
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::kit::network::pause_after;
use rotogate_core::store::{Cursor, Feed, FeedStep, Follow, Heard, Revocation, StoreError};

/// The maximum time that a command waits for an entry.
const LONGEST_BLOCK: Duration = Duration::from_millis(500);
/// How long the log keeps entries. A reader that lags further behind reads all live revocations again.
const LOG_KEPT_MS: u64 = 15 * 60 * 1000;
/// How long to wait for a reply from the previous server of a partition, to find out whether it is still running.
const EARLIER_ANSWERS: Duration = Duration::from_millis(500);

/// Combines the readers of all partitions.
pub(super) struct RedisFeed {
    inner: Arc<RedisInner>,
    reads: FuturesUnordered<BoxFuture<'static, (Reader, Result<FeedStep, StoreError>)>>,
    /// The last proof from each partition.
    heard: Box<[Option<Heard>]>,
    /// The time of the oldest beat in the last complete step.
    told: Option<Duration>,
}

impl RedisFeed {
    pub(super) fn new(inner: &Arc<RedisInner>, from: &Cursor, follow: &Follow) -> Result<Self, StoreError> {
        let begin = follow.time.monotonic();
        let reads = FuturesUnordered::new();
        for (partition, place) in inner.places(from)?.into_iter().enumerate() {
            let reader = Reader::new(inner, partition, place, follow, begin);
            reads.push(read_next(reader));
        }
        Ok(Self { inner: Arc::clone(inner), heard: vec![None; reads.len()].into(), reads, told: None })
    }

    /// Returns the common proof of all partitions, if it is new.
    fn complete(&self) -> Option<Heard> {
        let of_each: Option<Vec<Heard>> = self.heard.iter().copied().collect();
        let of_each = of_each?;
        let asked = of_each.iter().map(|heard| heard.asked).min()?;
        // The store's time is the first partition's time, which is assumed to belong to the midpoint between request
        // and reply. If the oldest beat's request is used instead, the midpoint is earlier by half the difference
        // between the two requests, so the time is reduced by that amount.
        let first = of_each.first()?;
        let store_time = first.store_time.minus(first.asked.saturating_sub(asked) / 2);
        let heard = Heard { asked, answered: first.answered, store_time };
        self.told.is_none_or(|told| told < asked).then_some(heard)
    }
}

fn read_next(mut reader: Reader) -> BoxFuture<'static, (Reader, Result<FeedStep, StoreError>)> {
    Box::pin(async move {
        let step = reader.next().await;
        (reader, step)
    })
}

#[async_trait]
impl Feed for RedisFeed {
    async fn next(&mut self) -> Result<FeedStep, StoreError> {
        loop {
            let Some((reader, step)) = self.reads.next().await else { return Err(unexpected("no partition")) };
            let partition = reader.partition;
            self.reads.push(read_next(reader));
            if self.inner.partitions.iter().any(Partition::is_lost) {
                self.heard.fill(None);
                let entries = step.map(|step| step.entries).unwrap_or_default();
                return Ok(FeedStep { entries, complete: None, lost: true });
            }
            let FeedStep { entries, complete, .. } = step?;
            if let (Some(heard), Some(known)) = (complete, self.heard.get_mut(partition)) {
                *known = Some(heard);
            }
            let complete = self.complete();
            if let Some(heard) = complete {
                self.told = Some(heard.asked);
            }
            if complete.is_some() || !entries.is_empty() {
                return Ok(FeedStep { entries, complete, lost: false });
            }
        }
    }
}

rotogate_core::debug_with!(RedisFeed, |it| { partitions: it.heard.len() });

/// The reader of one partition.
struct Reader {
    inner: Arc<RedisInner>,
    primaries: Arc<Primaries>,
    partition: usize,
    follow: Follow,
    /// The last entry that was read. `None` means that the live revocations must be read next.
    place: Option<LogPosition>,
    scan: Option<LiveScan>,
    /// Entries that no step has returned yet.
    ready: Vec<Revocation>,
    /// The beat that is waiting for its reply, if any.
    beat: Option<Asking<BeatReply>>,
    reading: Option<Asking<LogReading>>,
    /// The monotonic time of the next beat.
    next_beat: Duration,
    faults: u32,
    server: Option<ServerRun>,
    /// The history to which the fields above belong.
    history: History,
}

/// The run id of a server, and the id of its replication stream.
struct ServerRun {
    link: Arc<Link>,
    run: String,
    replication: String,
}

async fn said(link: &Link, section: &str, field: &str) -> Result<Option<String>, StoreError> {
    Ok(info(link, Some(section)).await?.and_then(|info| info.get(field).map(str::to_owned)))
}

async fn run_of(link: &Link) -> Result<Option<String>, StoreError> {
    said(link, "server", "run_id").await
}

/// Returns whether the previous server is still running as before, and the next server is not its replica. If so, a
/// slot was moved from one to the other, key by key, and no write was lost.
async fn gave_away(known: &ServerRun, next: &Link) -> bool {
    let earlier = async {
        let run = run_of(&known.link).await.ok()??;
        let role = said(&known.link, "replication", "role").await.ok()??;
        Some(run == known.run && role == "master")
    };
    if !matches!(timeout(EARLIER_ANSWERS, earlier).await, Ok(Some(true))) {
        return false;
    }
    let followed = said(next, "replication", "master_replid2").await.ok().flatten();
    followed.is_some_and(|followed| followed != known.replication)
}

/// The progress of a scan of the live revocations. Entries only become stricter, so every change that the scan
/// misses is in the log.
struct LiveScan {
    /// The end of the log before the first page. After the scan, the log is read from this position.
    begin: LogPosition,
    /// The cursor of the next page.
    next: Vec<u8>,
}

type Asking<T> = BoxFuture<'static, Result<T, StoreError>>;

/// The entries of the log after a position.
struct LogReading {
    /// The position after which the entries were read.
    from: LogPosition,
    /// The entry at this position, if it is in the log.
    known: Option<(LogPosition, Revocation)>,
    floor: LogId,
    entries: Vec<(LogPosition, Revocation)>,
}

/// The reply to a beat, which contains all entries up to the end of the log, or one page if there are more.
struct BeatReply {
    heard: Heard,
    reading: LogReading,
    /// The run id of the server, or an empty string if the gate's user may not call INFO.
    run: String,
}

impl Reader {
    fn new(
        inner: &Arc<RedisInner>,
        partition: usize,
        place: Option<LogPosition>,
        follow: &Follow,
        begin: Duration,
    ) -> Self {
        Self {
            primaries: Arc::new(inner.commands.another(LONGEST_BLOCK)),
            inner: Arc::clone(inner),
            partition,
            follow: follow.clone(),
            place,
            scan: None,
            ready: Vec::new(),
            beat: None,
            reading: None,
            next_beat: begin,
            faults: 0,
            server: None,
            history: inner.partitions.get(partition).history(),
        }
    }

    fn partition(&self) -> &Partition {
        self.inner.partitions.get(self.partition)
    }

    async fn next(&mut self) -> Result<FeedStep, StoreError> {
        if self.faults > 0 {
            tokio::time::sleep(pause_after(self.faults)).await;
        }
        let step = self.step().await;
        match &step {
            Ok(_) => self.faults = 0,
            // In the meantime the data was adopted under another history, so the error is irrelevant.
            Err(_) if self.partition().history() != self.history => return Ok(FeedStep::default()),
            Err(_) => {
                self.faults = self.faults.saturating_add(1);
                (self.beat, self.reading, self.scan) = (None, None, None);
                // The beat may have failed. Without the next lines, another beat would be sent only after a whole
                // interval.
                if self.next_beat > self.follow.time.monotonic() {
                    self.beat_again();
                }
            }
        }
        step
    }

    /// Makes the next beat due at once. Later beats keep the common schedule of all partitions.
    fn beat_again(&mut self) {
        self.next_beat = self.next_beat.saturating_sub(self.follow.every);
    }

    /// Safe to cancel: the entries read so far are kept together with their position.
    async fn step(&mut self) -> Result<FeedStep, StoreError> {
        loop {
            let history = self.partition().history();
            if self.history != history {
                // The data has another history, and another server may be replying, so positions in the earlier log
                // are meaningless.
                (self.place, self.scan, self.server) = (None, None, None);
                (self.beat, self.reading) = (None, None);
                self.history = history;
            }
            // Returns these entries first. They are valid, whatever the next reading returns.
            if !self.ready.is_empty() {
                return Ok(FeedStep { entries: std::mem::take(&mut self.ready), complete: None, lost: false });
            }
            let Some(place) = self.place else {
                (self.beat, self.reading) = (None, None);
                let entries = self.scan_on().await?;
                return Ok(FeedStep { entries, complete: None, lost: false });
            };
            let now = self.follow.time.monotonic();
            let is_due = now >= self.next_beat;
            if self.beat.is_none() && is_due {
                self.beat = Some(self.ask(place)?);
            }
            let beat = self.beat.as_mut();
            let is_asking = beat.is_some();
            let (inner, primaries, number, history) = (&self.inner, &self.primaries, self.partition, self.history);
            let reading = self.reading.get_or_insert_with(|| {
                Box::pin(read_on(Arc::clone(inner), Arc::clone(primaries), number, history, place))
            });
            tokio::select! {
                beat = OptionFuture::from(beat), if is_asking => {
                    self.beat = None;
                    let Some(beat) = beat.transpose()? else { continue };
                    if let Some(complete) = self.take_beat(beat).await? {
                        let entries = std::mem::take(&mut self.ready);
                        return Ok(FeedStep { entries, complete: Some(complete), lost: false });
                    }
                    // The caller checks at each step whether data was lost.
                    if self.partition().is_lost() {
                        return Ok(FeedStep::default());
                    }
                }
                read = reading => {
                    self.reading = None;
                    self.take(read?);
                }
                () = tokio::time::sleep(self.next_beat.saturating_sub(now)), if !is_asking => {}
            }
        }
    }

    /// Handles the reply to a beat. Returns the proof if the reply has all entries up to the end of the log.
    async fn take_beat(&mut self, beat: BeatReply) -> Result<Option<Heard>, StoreError> {
        let is_whole = beat.reading.entries.len() < PAGE;
        self.same_run(beat.run).await?;
        if self.partition().is_lost() || !self.take(beat.reading) {
            return Ok(None);
        }
        if !is_whole {
            self.beat_again();
        }
        Ok(is_whole.then_some(beat.heard))
    }

    /// Adds the new entries after a position. Returns false if the log no longer contains the position.
    fn take(&mut self, LogReading { from, known, floor, entries }: LogReading) -> bool {
        if !from.is_there(known.as_ref(), floor) {
            tracing::warn!(
                %from.id,
                %floor,
                "the log of revocations in Redis was trimmed: reading all live revocations"
            );
            if from.id >= floor {
                // The entry was not trimmed, so it must have been lost.
                self.partition().flag_lost(self.history, Sign::Certain);
            }
            self.place = None;
            return false;
        }
        for (place, entry) in entries {
            if self.place.is_some_and(|known| place.id > known.id) {
                self.ready.push(entry);
                self.place = Some(place);
            }
        }
        true
    }

    /// Reads a page of the live revocations. Each page is applied at once, because there may be millions of
    /// entries.
    async fn scan_on(&mut self) -> Result<Vec<Revocation>, StoreError> {
        if self.scan.is_none() {
            // A cursor is valid only on the server that issued it. The next beat detects whether another server
            // replied in the meantime.
            self.same_server().await?;
        }
        let (inner, partition) = (&self.inner, self.inner.partitions.get(self.partition));
        let scan = match self.scan.take() {
            Some(scan) => scan,
            None => LiveScan { begin: inner.end_of_log(&self.primaries, partition).await?, next: BEGIN.into() },
        };
        let LiveScan { begin, next } = self.scan.insert(scan);
        let (entries, rest) = inner.live_page(&self.primaries, partition, next.clone()).await?;
        match rest {
            Some(rest) => *next = rest,
            None => {
                self.place = Some(*begin);
                self.scan = None;
            }
        }
        Ok(entries.into_iter().map(|(_, entry)| entry).collect())
    }

    /// Sends a beat, which requests all entries from `place` to the end of the log.
    fn ask(&mut self, from: LogPosition) -> Result<Asking<BeatReply>, StoreError> {
        let asked = self.follow.time.monotonic();
        // Keeps the common schedule of all partitions, whose readers started at the same moment.
        let late = asked.saturating_sub(self.next_beat).as_nanos().checked_rem(self.follow.every.as_nanos());
        let late = Duration::from_nanos(late.and_then(|late| u64::try_from(late).ok()).unwrap_or_default());
        self.next_beat = asked.saturating_sub(late).saturating_add(self.follow.every);
        let (inner, number, history) = (Arc::clone(&self.inner), self.partition, self.history);
        // Only the first partition stores the rows of nodes. The other partitions record only which nodes are
        // alive.
        let row = if number == 0 { self.follow.row.get().encode()? } else { Vec::new() };
        let time = Arc::clone(&self.follow.time);
        Ok(Box::pin(async move {
            let partition = inner.partitions.get(number);
            let kept = LOG_KEPT_MS.to_string().into();
            let args = vec![inner.node.to_vec(), row, kept, from.id.to_string().into(), PAGE.to_string().into()];
            let keys = vec![partition.keys.named("n")];
            let reply = inner.run_as(&inner.beats, partition, (new_op()?, history), &BEAT, keys, args).await?;
            let answered = time.monotonic();
            let mut answer = reply.with_status("beat")?;
            let heard = Heard { asked, answered, store_time: answer.time };
            let (floor, run) = (floor(answer.value().ok())?, answer.text()?);
            let known = read_log(answer.value().ok())?.into_iter().next();
            let entries = read_log(answer.value().ok())?;
            Ok(BeatReply { heard, reading: LogReading { from, known, floor, entries }, run })
        }))
    }

    /// Detects that the server was restarted or replaced. A server that restarted, or took over from another, may have
    /// lost the latest acknowledged writes. The gate cannot see such a loss, because it does not read the server's
    /// files.
    async fn same_server(&mut self) -> Result<(), StoreError> {
        let link = self.inner.beats.link_of(self.partition)?;
        let run = run_of(&link).await?.unwrap_or_default();
        self.same_run(run).await
    }

    /// Compares the run id of the server that has just replied with the known one.
    async fn same_run(&mut self, run: String) -> Result<(), StoreError> {
        // If the gate's user may not call INFO, a loss can be detected only by the number of writes and by the log.
        if run.is_empty() || self.server.as_ref().is_some_and(|known| known.run == run) {
            return Ok(());
        }
        let link = self.inner.beats.link_of(self.partition)?;
        match &self.server {
            Some(known) if gave_away(known, &link).await => {
                tracing::info!(partition = self.partition, "the partition moved to another Redis server");
            }
            // If the history differs, the data was adopted in the meantime.
            Some(_) if self.partition().history() == self.history => {
                // Every partition on this server may have lost writes.
                for partition in self.inner.partitions.iter() {
                    if self.inner.beats.link_of(partition.number).is_ok_and(|other| Arc::ptr_eq(&other, &link)) {
                        partition.flag_lost(partition.history(), Sign::Possible);
                    }
                }
            }
            Some(_) | None => {}
        }
        let replication = said(&link, "replication", "master_replid").await?.unwrap_or_default();
        self.server = Some(ServerRun { link, run, replication });
        Ok(())
    }
}

/// Reads the entries after a position. If there are none, waits for a while.
async fn read_on(
    inner: Arc<RedisInner>,
    primaries: Arc<Primaries>,
    number: usize,
    history: History,
    from: LogPosition,
) -> Result<LogReading, StoreError> {
    let partition = inner.partitions.get(number);
    let (log, head) = (partition.keys.named("log"), partition.keys.named("h"));
    let own = from.id.to_string();
    let mut replies = inner
        .read_of(&primaries, partition, history, |pipeline| {
            let read = pipeline.cmd("XREAD").arg("COUNT").arg(PAGE);
            read.arg("BLOCK").arg(u64::try_from(LONGEST_BLOCK.as_millis()).unwrap_or(1));
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
    let known = read_log(replies.next())?.into_iter().next();
    Ok(LogReading { from, known, floor: floor(replies.next())?, entries })
}

impl super::check::Info {
    pub(super) fn from_reply(reply: Value) -> Option<Self> {
        String::from_utf8(bytes(reply)?).ok().map(|text| Self::parse(&text))
    }
}

#[cfg(test)]
mod tests;
