//! What other nodes revoke, as they write it.
//!
//! A node asks for the end of the log (the *beat*), having read its own monotonic clock first, and knows everything that was
//! acknowledged before that reading once it has everything up to this end. The beat says how far the reader is. Its one script
//! shows that the reader's last entry is in the log, and brings what follows up to the end: the answer alone is the proof.
//! Meanwhile the reader waits for entries on a connection of its own, so that a revocation comes by itself, however long the
//! beat is under way. Both bring an entry; the first counts. A reader whose last entry is gone reads the live revocations anew.
//!
//! Until the last page of the live ones nothing is proved, and the gate becomes stale if that takes longer than its staleness.
//! What was acknowledged between the last proof and the end of the log before the first page may be on any page: they are in
//! no order of time. Following the log beside the pages would bring what is newer, and not these. A reader that keeps its place
//! never reads them: the log's last entry is not trimmed, and the others are kept longer than any staleness.
//!
//! Each partition has a reader of its own with a connection of its own: a command that waits reads one slot of a cluster,
//! and holds up whatever follows on its connection. A step is complete once all partitions were asked and read; what it
//! proves is as old as the oldest question among them. All of them ask at the same times, so that is the same moment but for
//! a partition that answers late. A partition that does not answer holds up the proof, and not the entries of others.

use std::fmt;
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
use rotogate_core::random::jittered;
use rotogate_core::store::kit::fields::History;
use rotogate_core::store::{Cursor, Feed, FeedStep, Follow, Heard, Revocation, StoreError};

/// The longest wait for an entry.
const LONGEST_BLOCK: Duration = Duration::from_millis(500);
/// How long the log keeps entries. A reader that is further behind reads the live ones anew.
const LOG_KEPT_MS: u64 = 15 * 60 * 1000;
/// How long a server that no longer has a partition may take to say that it goes on.
const EARLIER_ANSWERS: Duration = Duration::from_millis(500);
/// The first pause after a fault. Each later one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The readers of all partitions, as one.
pub(super) struct RedisFeed {
    inner: Arc<RedisInner>,
    reads: FuturesUnordered<BoxFuture<'static, (Reader, Result<FeedStep, StoreError>)>>,
    /// The last proof of each partition.
    heard: Box<[Option<Heard>]>,
    /// When the question of the last complete step was asked.
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

    /// The proof of all partitions together, if it is new.
    fn complete(&self) -> Option<Heard> {
        let of_each: Option<Vec<Heard>> = self.heard.iter().copied().collect();
        let of_each = of_each?;
        let asked = of_each.iter().map(|heard| heard.asked).min()?;
        // The time of the store is the first partition's, in the middle between its question and its answer. The earlier
        // question moves that middle, so it moves the time as well.
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

impl fmt::Debug for RedisFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFeed").field("partitions", &self.heard.len()).finish_non_exhaustive()
    }
}

/// The reader of one partition.
struct Reader {
    inner: Arc<RedisInner>,
    primaries: Arc<Primaries>,
    partition: usize,
    follow: Follow,
    /// `None`: the live ones are read next.
    place: Option<LogPosition>,
    scan: Option<LiveScan>,
    /// Entries that no step has brought yet.
    ready: Vec<Revocation>,
    /// Under way.
    beat: Option<Asking<BeatReply>>,
    reading: Option<Asking<LogReading>>,
    /// The monotonic time of the next beat.
    next_beat: Duration,
    faults: u32,
    server: Option<ServerRun>,
    /// The history of the fields above.
    history: History,
}

/// The run of a server, and the name of what it writes to its replicas.
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

/// Is the earlier server still what it was, and the next one none of its replicas? Then a slot was moved from one to the
/// other, key by key, and nothing is lost.
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

/// The live ones, as far as they were read. Entries only tighten: whatever the scan misses is in the log.
struct LiveScan {
    /// The end of the log before the first page. The log is read on from there.
    begin: LogPosition,
    /// The cursor of the next page.
    next: Vec<u8>,
}

type Asking<T> = BoxFuture<'static, Result<T, StoreError>>;

/// The entries of the log after a place.
struct LogReading {
    /// Where it begins.
    from: LogPosition,
    /// The entry there, if the log has one.
    known: Option<(LogPosition, Revocation)>,
    floor: LogId,
    entries: Vec<(LogPosition, Revocation)>,
}

/// The answer to a beat: everything up to the end of the log, unless there is more than a page.
struct BeatReply {
    heard: Heard,
    reading: LogReading,
    /// The run of the server; empty if the gate's user may not ask.
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
            let longest = FIRST_PAUSE.saturating_mul(1 << self.faults.min(8)).min(LONGEST_PAUSE);
            tokio::time::sleep(jittered(longest)).await;
        }
        let step = self.step().await;
        match &step {
            Ok(_) => self.faults = 0,
            // What it read was adopted meanwhile, under another name.
            Err(_) if self.partition().history() != self.history => return Ok(FeedStep::default()),
            Err(_) => {
                self.faults = self.faults.saturating_add(1);
                (self.beat, self.reading, self.scan) = (None, None, None);
                // The beat may be what failed. Without this, its repetition would wait for a whole interval.
                if self.next_beat > self.follow.time.monotonic() {
                    self.beat_again();
                }
            }
        }
        step
    }

    /// Makes the next beat due now. Those after it stay at the same times as those of the other partitions.
    fn beat_again(&mut self) {
        self.next_beat = self.next_beat.saturating_sub(self.follow.every);
    }

    /// Nothing is lost if a caller stops waiting: what was read is kept with the place it was read to.
    async fn step(&mut self) -> Result<FeedStep, StoreError> {
        loop {
            let history = self.partition().history();
            if self.history != history {
                // The log is another one, and perhaps the server.
                (self.place, self.scan, self.server) = (None, None, None);
                (self.beat, self.reading) = (None, None);
                self.history = history;
            }
            // They hold from now on, whatever follows.
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
                    // The caller looks at each step whether data was lost.
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

    /// The proof, if the answer has everything up to the end of the log.
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

    /// Takes over what follows a place, as far as that is news. False: the place is gone.
    fn take(&mut self, LogReading { from, known, floor, entries }: LogReading) -> bool {
        if !from.is_there(known.as_ref(), floor) {
            tracing::warn!(%from.id, %floor, "the log of revocations begins later: reading all live ones");
            if from.id >= floor {
                // Not trimmed: lost.
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

    /// Reads a page of the live ones. They are applied page by page: there may be millions.
    async fn scan_on(&mut self) -> Result<Vec<Revocation>, StoreError> {
        if self.scan.is_none() {
            // A cursor is of one server: the next beat finds out whether another answered meanwhile.
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

    /// Sends a beat: asks for all entries from `place` to the end of the log.
    fn ask(&mut self, from: LogPosition) -> Result<Asking<BeatReply>, StoreError> {
        let asked = self.follow.time.monotonic();
        // At the same times as the other partitions, which began at the same moment.
        let late = asked.saturating_sub(self.next_beat).as_nanos().checked_rem(self.follow.every.as_nanos());
        let late = Duration::from_nanos(late.and_then(|late| u64::try_from(late).ok()).unwrap_or_default());
        self.next_beat = asked.saturating_sub(late).saturating_add(self.follow.every);
        let (inner, number, history) = (Arc::clone(&self.inner), self.partition, self.history);
        // The first partition has the rows. The others only say which nodes are alive.
        let row = if number == 0 { self.follow.row.get().encode()? } else { Vec::new() };
        let time = Arc::clone(&self.follow.time);
        Ok(Box::pin(async move {
            let partition = inner.partitions.get(number);
            let kept = LOG_KEPT_MS.to_string().into();
            let args = vec![inner.node.to_vec(), row, kept, from.id.to_string().into(), PAGE.to_string().into()];
            let keys = vec![partition.keys.named("n")];
            let mut answer = inner.run_as(&inner.beats, partition, (new_op()?, history), &BEAT, keys, args).await?;
            let answered = time.monotonic();
            if answer.status != "beat" {
                return Err(answer.unknown());
            }
            let heard = Heard { asked, answered, store_time: answer.time };
            let (floor, run) = (floor(answer.value().ok())?, answer.text()?);
            let known = read_log(answer.value().ok())?.into_iter().next();
            let entries = read_log(answer.value().ok())?;
            Ok(BeatReply { heard, reading: LogReading { from, known, floor, entries }, run })
        }))
    }

    /// A server that started again may have lost what it acknowledged last, and so may another that took over from it.
    /// Their files alone would tell.
    async fn same_server(&mut self) -> Result<(), StoreError> {
        let link = self.inner.beats.link_of(self.partition)?;
        let run = run_of(&link).await?.unwrap_or_default();
        self.same_run(run).await
    }

    /// The same, of the server whose run this is: it has answered just now.
    async fn same_run(&mut self, run: String) -> Result<(), StoreError> {
        // Where the gate's user may not ask, only the number of writes and the log tell of a loss.
        if run.is_empty() || self.server.as_ref().is_some_and(|known| known.run == run) {
            return Ok(());
        }
        let link = self.inner.beats.link_of(self.partition)?;
        match &self.server {
            Some(known) if gave_away(known, &link).await => {
                tracing::info!(partition = self.partition, "the partition moved to another server of Redis");
            }
            // Else it was adopted meanwhile.
            Some(_) if self.partition().history() == self.history => {
                // Every partition that the server has may lack writes.
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

/// Reads what follows a place, and waits for it for a while.
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
