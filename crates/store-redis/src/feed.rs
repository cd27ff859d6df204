//! The feed of revocations from other nodes.
//!
//! For a *beat*, a node reads its own clock, and then requests the log's end. The log up to this end contains every
//! revocation that was acknowledged before the node read its clock. A script returns all entries after the reader's
//! position. If the log lacks this position, the reader reads all live revocations again. A second connection waits for
//! new entries.
//!
//! There is no proof until the reader has the last page of live revocations. Newer log entries cannot replace these
//! pages, which are not ordered by time. If the scan takes longer than the permitted staleness, the gate becomes stale.
//! The log keeps entries longer than any permitted staleness, so a running reader needs no scan.
//!
//! Each partition has a reader with its own connection, because a blocking command reads only one slot of a cluster. A
//! step is complete when all partitions have answered a beat. The oldest beat determines the time of the proof. An
//! unresponsive partition delays the proof, but not the entries of other partitions.

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
/// A reader that lags further behind reads all live revocations again.
const LOG_KEPT_MS: u64 = 15 * 60 * 1000;
/// How long to wait for a reply from the previous server of a partition.
const EARLIER_ANSWERS: Duration = Duration::from_millis(500);

pub(super) struct RedisFeed {
    inner: Arc<RedisInner>,
    reads: FuturesUnordered<BoxFuture<'static, (Reader, Result<FeedStep, StoreError>)>>,
    heard: Box<[Option<Heard>]>,
    /// The time of the last proof.
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

    /// Combines the proofs of all partitions. Returns the result if it is new.
    fn complete(&self) -> Option<Heard> {
        let of_each: Option<Vec<Heard>> = self.heard.iter().copied().collect();
        let of_each = of_each?;
        let asked = of_each.iter().map(|heard| heard.asked).min()?;
        // The server is assumed to read its clock halfway between request and reply. The oldest request was sent
        // earlier than this one, so half of the difference is subtracted.
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

struct Reader {
    inner: Arc<RedisInner>,
    primaries: Arc<Primaries>,
    partition: usize,
    follow: Follow,
    /// The last entry that was read. If `None`, the live revocations are read next.
    place: Option<LogPosition>,
    scan: Option<LiveScan>,
    ready: Vec<Revocation>,
    beat: Option<Asking<BeatReply>>,
    reading: Option<Asking<LogReading>>,
    next_beat: Duration,
    faults: u32,
    server: Option<ServerRun>,
    /// The history to which the fields above belong.
    history: History,
}

/// A server's run id, and the id of its replication stream.
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

/// Returns whether a slot moved, so that no write was lost: the previous server still runs as a primary, and the next
/// server was not its replica.
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

/// A scan of the live revocations. The log contains every missed change, because revocations only become stricter.
struct LiveScan {
    /// The log's end before the scan, where reading continues afterwards.
    begin: LogPosition,
    next: Vec<u8>,
}

type Asking<T> = BoxFuture<'static, Result<T, StoreError>>;

struct LogReading {
    from: LogPosition,
    /// The entry at this position, or `None` if the log lacks it.
    known: Option<(LogPosition, Revocation)>,
    floor: LogId,
    entries: Vec<(LogPosition, Revocation)>,
}

struct BeatReply {
    heard: Heard,
    reading: LogReading,
    /// Empty if the gate's user may not call INFO.
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
            // The error refers to an earlier history.
            Err(_) if self.partition().history() != self.history => return Ok(FeedStep::default()),
            Err(_) => {
                self.faults = self.faults.saturating_add(1);
                (self.beat, self.reading, self.scan) = (None, None, None);
                // If the beat failed, the next beat would wait for a whole interval.
                if self.next_beat > self.follow.time.monotonic() {
                    self.beat_again();
                }
            }
        }
        step
    }

    /// Schedules the next beat immediately. Later beats return to the regular schedule.
    fn beat_again(&mut self) {
        self.next_beat = self.next_beat.saturating_sub(self.follow.every);
    }

    /// This function is cancel-safe, because `self` keeps the entries and the position.
    async fn step(&mut self) -> Result<FeedStep, StoreError> {
        loop {
            let history = self.partition().history();
            if self.history != history {
                // Positions in the log of another history are meaningless.
                (self.place, self.scan, self.server) = (None, None, None);
                (self.beat, self.reading) = (None, None);
                self.history = history;
            }
            // The collected entries remain valid after a change of the history.
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

    /// Handles the reply to a beat. Returns the proof if all entries were read.
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

    /// Adds the entries after a position. Returns false if the log lacks the position.
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

    /// Reads and applies one page, because there may be millions of entries.
    async fn scan_on(&mut self) -> Result<Vec<Revocation>, StoreError> {
        if self.scan.is_none() {
            // A cursor is valid only on its own server. If the server has changed, the next beat detects this.
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

    /// Sends a beat, which requests all entries after `from`.
    fn ask(&mut self, from: LogPosition) -> Result<Asking<BeatReply>, StoreError> {
        let asked = self.follow.time.monotonic();
        // The next beat keeps to the common schedule of all readers.
        let late = asked.saturating_sub(self.next_beat).as_nanos().checked_rem(self.follow.every.as_nanos());
        let late = Duration::from_nanos(late.and_then(|late| u64::try_from(late).ok()).unwrap_or_default());
        self.next_beat = asked.saturating_sub(late).saturating_add(self.follow.every);
        let (inner, number, history) = (Arc::clone(&self.inner), self.partition, self.history);
        // Only the first partition stores the rows of nodes. The other partitions record which nodes are alive.
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

    /// Detects a restarted or replaced server, which may have lost acknowledged writes.
    async fn same_server(&mut self) -> Result<(), StoreError> {
        let link = self.inner.beats.link_of(self.partition)?;
        let run = run_of(&link).await?.unwrap_or_default();
        self.same_run(run).await
    }

    async fn same_run(&mut self, run: String) -> Result<(), StoreError> {
        // Without INFO, a loss shows only in the write count and in the log.
        if run.is_empty() || self.server.as_ref().is_some_and(|known| known.run == run) {
            return Ok(());
        }
        let link = self.inner.beats.link_of(self.partition)?;
        match &self.server {
            Some(known) if gave_away(known, &link).await => {
                tracing::info!(partition = self.partition, "the partition moved to another Redis server");
            }
            // If the history has changed, the loss is already known.
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

/// Reads the entries after a position, or waits for new ones.
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
