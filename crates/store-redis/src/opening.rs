//! Opens a store: creates or checks its partitions.
//!
//! The head of partition 0 is created first. The other heads copy its store name. Once all heads exist, the first head
//! records this fact. If a head is missing later, the server has lost it.

use std::sync::Arc;
use std::time::Duration;

use redis::{Value, pipe};

use super::cluster::{Cluster, Primaries};
use super::connect::{Link, Request};
use super::options::RedisOptions;
use super::partitions::{OF_A_CLUSTER, Partition, PartitionKeys, Partitions};
use super::record::{Op, new_op};
use super::script::{OPEN, ScriptReply, bytes, unexpected};
use super::servers::Servers;
use super::topology::Topology;
use super::{RedisInner, drop_mut};
use rotogate_core::clock::Timestamp;
use rotogate_core::store::StoreError;
use rotogate_core::store::kit::mark::{self, Marker};
use rotogate_core::store::kit::network::refused;

/// The version of the data layout.
const SCHEMA: &str = "1";

const WRITER_LANES: usize = 4;

pub(super) struct Ways {
    pub(super) commands: Primaries,
    revokes: Primaries,
    beats: Primaries,
    count: usize,
}

impl Ways {
    pub(super) async fn find(options: &Arc<RedisOptions>) -> Result<Self, StoreError> {
        if options.cluster {
            let topology = Topology::find(options).await?;
            let to = |lanes| Primaries::Cluster(Cluster::new(&topology, Duration::ZERO, lanes));
            return Ok(Self { commands: to(WRITER_LANES), revokes: to(1), beats: to(1), count: OF_A_CLUSTER });
        }
        let servers = Servers::new(options);
        let to = |lanes| Primaries::One(Link::new(Arc::clone(&servers), Duration::ZERO).with_lanes(lanes).into());
        Ok(Self { commands: to(WRITER_LANES), revokes: to(1), beats: to(1), count: 1 })
    }
}

fn expected_head(options: &RedisOptions, count: usize) -> [(&'static str, String); 4] {
    [
        ("schema", SCHEMA.to_owned()),
        ("partitions", count.to_string()),
        ("issuer", options.network.issuer.clone()),
        ("keyring", options.network.keyring.to_string()),
    ]
}

/// Returns whether the store is new. Checks an existing store.
pub(super) async fn is_new(options: &RedisOptions, ways: &Ways) -> Result<bool, StoreError> {
    let heads = Heads { options, primaries: &ways.commands, count: ways.count };
    heads.compare_with_mark().await?;
    if ways.count > 1 {
        heads.are_whole().await?;
    }
    let (mut is_new, mut store) = (true, None);
    for number in 0..ways.count {
        if let Some(own) = heads.compare(number).await? {
            is_new = false;
            if *store.get_or_insert_with(|| own.clone()) != own {
                return Err(heads.differs(number, "store", ""));
            }
        }
    }
    Ok(is_new)
}

/// Checks that the servers' clocks agree, as stamps require. `times` has each server's time, and the monotonic time
/// before and after the query.
pub(super) fn agree(options: &RedisOptions, times: &[(Duration, Timestamp, Duration)]) -> Result<(), StoreError> {
    let latest = times.iter().map(|(_, time, after)| time.as_millis().saturating_sub(millis(*after))).max();
    let earliest = times.iter().map(|(before, time, _)| time.as_millis().saturating_sub(millis(*before))).min();
    let apart = latest.unwrap_or_default().saturating_sub(earliest.unwrap_or_default());
    if u128::from(apart) > options.network.leeway.as_millis() {
        return Err(refused(format!(
            "the clocks of the servers of Redis at {} differ by {} s, which is more than the leeway: synchronize \
             them with NTP",
            options.address(),
            apart / 1000
        )));
    }
    Ok(())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn not_a_node(options: &RedisOptions) -> StoreError {
    refused(format!(
        "Redis at {} is not a node of a cluster: remove cluster = true, or give a node of a cluster",
        options.address()
    ))
}

pub(super) async fn open_heads(
    options: Arc<RedisOptions>,
    Ways { commands, revokes, beats, count }: Ways,
    evicted: u64,
) -> Result<RedisInner, StoreError> {
    let heads = Heads { options: &options, primaries: &commands, count };
    // Compare before any write. Otherwise, refused starts could raise an older store's write count to the mark.
    let is_accepted = heads.compare_with_mark().await?;
    let new = new_op()?;
    let mut is_made = true;
    if count > 1 {
        is_made = heads.are_whole().await?;
    }
    let (first, store) = heads.open(0, new, None).await?;
    let mut others = Vec::new();
    for number in 1..count {
        let (head, _) = heads.open(number, store, Some(store)).await?;
        others.push(Partition::new(&options.prefix, number, head));
    }
    if !is_made {
        heads.say_that_all_are_there().await?;
    }
    let partitions = Partitions::new(Partition::new(&options.prefix, 0, first), others);
    let mark = Marker::new(options.network.high_water.as_deref(), store);
    mark.begin(partitions.writes(), is_accepted).await?;
    Ok(RedisInner {
        partitions,
        issuer: options.network.issuer.as_str().into(),
        node: new_op()?,
        commands,
        revokes,
        beats,
        store,
        evicted,
        inserts: Default::default(),
        hints: Default::default(),
        clients: parking_lot::Mutex::default(),
        doubts: rotogate_core::store::kit::doubts::Doubts::default(),
        mark,
        listing: super::list::Listing::default(),
        options,
    })
}

struct Heads<'a> {
    options: &'a RedisOptions,
    primaries: &'a Primaries,
    count: usize,
}

impl Heads<'_> {
    fn place(&self) -> String {
        format!("the store {:?} in Redis at {}", self.options.prefix, self.options.address())
    }

    /// Compares the store with the mark. Returns whether the operator has accepted a store that differs from the mark.
    async fn compare_with_mark(&self) -> Result<bool, StoreError> {
        let (file, accepts) = (self.options.network.high_water.as_deref(), self.options.network.accept_restored);
        mark::compare(file, accepts, self.stand().await?, &self.place())
    }

    async fn fields<const N: usize>(
        &self,
        number: usize,
        names: [&str; N],
    ) -> Result<[Option<Vec<u8>>; N], StoreError> {
        let mut pipeline = pipe();
        let key = PartitionKeys::new(&self.options.prefix, number).named("h");
        drop_mut(pipeline.cmd("HMGET").arg(key).arg(&names[..]));
        let reply = self.primaries.ask(number, &Request::Pipeline(pipeline)).await?;
        let Value::Array(replies) = reply else { return Err(unexpected("no list")) };
        let Some(Value::Array(fields)) = replies.into_iter().next() else { return Err(unexpected("no head")) };
        Ok(<[Value; N]>::try_from(fields).map_err(|_| unexpected("a short head"))?.map(bytes))
    }

    async fn stand(&self) -> Result<Option<(Op, u64)>, StoreError> {
        let (mut store, mut writes) = (None, 0_u64);
        for number in 0..self.count {
            let [name, seq] = self.fields(number, ["store", "seq"]).await?;
            store = store.or(name);
            let seq = seq.map(|seq| String::from_utf8(seq).ok()?.parse().ok().map(|seq: u64| seq));
            writes = writes.saturating_add(seq.unwrap_or(Some(0)).ok_or_else(|| unexpected("no seq"))?);
        }
        store.map(|name| Ok((name.try_into().map_err(|_| unexpected("no store"))?, writes))).transpose()
    }

    /// Returns whether the first head records that all heads exist. Fails if some of the heads were lost.
    async fn are_whole(&self) -> Result<bool, StoreError> {
        let (mut made, mut missing, mut first_there) = (false, Vec::new(), None);
        for number in 0..self.count {
            let [schema, own] = self.fields(number, ["schema", "made"]).await?;
            made |= number == 0 && own.is_some();
            match schema {
                Some(_) => drop(first_there.get_or_insert(number)),
                None => missing.push(number),
            }
        }
        if let Some(lost) = missing.first()
            && (made || *lost == 0 && first_there.is_some())
        {
            return Err(refused(format!(
                "{} lost the main record of its partition {lost}: restore a complete back-up, or use another prefix",
                self.place()
            )));
        }
        Ok(made)
    }

    async fn say_that_all_are_there(&self) -> Result<(), StoreError> {
        let mut pipeline = pipe();
        let key = PartitionKeys::new(&self.options.prefix, 0).named("h");
        drop_mut(pipeline.cmd("HSET").arg(key).arg("made").arg("1"));
        self.primaries.ask(0, &Request::Pipeline(pipeline)).await.map(drop)
    }

    async fn compare(&self, number: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let expected = expected_head(self.options, self.count);
        let [schema, partitions, issuer, keyring] = expected.each_ref().map(|(field, _)| *field);
        let names = [schema, partitions, issuer, keyring, "copying", "store"];
        let [known @ .., copying, store] = self.fields(number, names).await?;
        if known.iter().all(Option::is_none) {
            return Ok(None);
        }
        if copying.is_some() {
            return Err(self.differs(number, "unfinished", ""));
        }
        for ((field, expected), known) in expected.iter().zip(known) {
            let known = known.unwrap_or_default();
            if known != expected.as_bytes() {
                return Err(self.differs(number, field, &String::from_utf8_lossy(&known)));
            }
        }
        Ok(Some(store.unwrap_or_default()))
    }

    /// Opens a partition. Returns the history, the number of writes, and the name of the store.
    async fn open(&self, number: usize, new: Op, store: Option<Op>) -> Result<(([u8; 8], u64), Op), StoreError> {
        let expected = expected_head(self.options, self.count);
        let mut args = vec![new_op()?.to_vec(), new_op()?.to_vec(), new.to_vec()];
        let mut fields: Vec<_> = expected.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
        fields.extend(store.as_ref().map(|store| ("store", &store[..])));
        if let Some(from) = &self.options.network.copying {
            // This field comes first, because the script reports only the first difference. A copy into a store with
            // data then fails with the error about the data.
            fields.insert(0, ("copying", from.as_bytes()));
        }
        args.extend(fields.iter().flat_map(|(name, value)| [name.as_bytes().to_vec(), value.to_vec()]));
        let keys = PartitionKeys::new(&self.options.prefix, number).fixed();
        let request = Request::Script { script: &OPEN, keys, args };
        let mut answer = ScriptReply::read(self.primaries.ask(number, &request).await?)?;
        match answer.status.as_str() {
            "open" => {
                let history = answer.bytes()?.try_into().map_err(|_| unexpected("no history"))?;
                let store = answer.bytes()?.try_into().map_err(|_| unexpected("no store"))?;
                Ok(((history, answer.seq), store))
            }
            "headless" => Err(refused(format!(
                "{} lost its main record, but still has revocations: restore a complete back-up, or use another prefix",
                self.place()
            ))),
            "differs" => {
                let field = answer.text()?;
                let known = answer.bytes().unwrap_or_default();
                let differs = self.differs(number, &field, &String::from_utf8_lossy(&known));
                if field != "keyring" {
                    return Err(differs);
                }
                Err(differs.of_another_keyring(self.way_to_begin_anew().await?))
            }
            _ => Err(answer.unknown()),
        }
    }

    /// Returns instructions to start over, or `None` if the stamp shows that the store has had a session. The
    /// instructions also delete the gates' rows, because a killed gate counts as running for a while.
    async fn way_to_begin_anew(&self) -> Result<Option<String>, StoreError> {
        let key = |name| String::from_utf8_lossy(&PartitionKeys::new(&self.options.prefix, 0).named(name)).into_owned();
        let [head, nodes] = ["h", "n"].map(key);
        let [stamp] = self.fields(0, ["stamp"]).await?;
        if stamp.as_deref() != Some(b"0") {
            return Ok(None);
        }
        let more = match self.count.saturating_sub(1) {
            0 => String::new(),
            last => format!(" and the same keys of its partitions 1 to {last}"),
        };
        Ok(Some(self.options.network.to_begin_anew(format!("delete its keys {head} {nodes}{more}"))))
    }

    fn differs(&self, number: usize, field: &str, known: &str) -> StoreError {
        let place = self.place();
        let expected = self.count;
        refused(match field {
            "issuer" => format!("{place} belongs to the issuer {known:?}: use another prefix, or that issuer"),
            "keyring" => format!("{place} belongs to another keyring, {known}: use that keyring, or another prefix"),
            "schema" => format!(
                "{place} has schema version {known}, but this program knows only {SCHEMA}: use the version that made it"
            ),
            "partitions" if known == "1" => format!(
                "{place} was made on a single server and has 1 partition, but a store in a cluster has {expected}: \
                 use another prefix, or remove cluster = true and give a single server"
            ),
            "partitions" if known == OF_A_CLUSTER.to_string() => format!(
                "{place} was made in a cluster and has {known} partitions: set cluster = true and give a cluster, or use \
                 another prefix"
            ),
            "unfinished" => {
                format!("{place} is an unfinished copy: run `rotogate store copy` again, or use another prefix")
            }
            "copying" if known.is_empty() => {
                format!("{place} already has data: copy into an empty store, or use another prefix")
            }
            "copying" => format!("{place} is an unfinished copy of another store: use another prefix"),
            "store" => format!(
                "{place} has partition {number} from another store: restore a complete back-up, or use another prefix"
            ),
            _ => {
                format!("{place} has {field} {known}, which this program does not know: use the version that made it")
            }
        })
    }
}
