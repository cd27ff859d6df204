//! Checks whether a Redis server is suitable for a store, at startup and later.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{ErrorKind, RedisError, ServerErrorKind, Value, cmd};

use super::connect::{Link, Request};
use super::opening::{self, Ways};
use super::options::RedisOptions;
use super::partitions::PartitionKeys;
use super::script::unexpected;
use super::{RedisInner, time_of};
use rotogate_core::clock::{SystemTime, TimeSource};
use rotogate_core::store::kit::network::{compare_clocks, refused};
use rotogate_core::store::{InspectedServer, StoreError, round_trip};

const OLDEST: (u32, u32) = (6, 2);
/// The first version with WAITAOF, which waits for append-only files.
const KNOWS_FSYNC: (u32, u32) = (7, 2);

pub(super) struct Info(HashMap<String, String>);

impl Info {
    pub(super) fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> u64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
    }

    fn version(&self) -> Option<(u32, u32)> {
        let mut parts = self.get("redis_version")?.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    }
}

pub(super) fn is_forbidden(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
}

struct Fit {
    ways: Ways,
    evicted: u64,
    /// `None` if the gate's user may not call INFO.
    version: Option<String>,
}

async fn check_all(options: &Arc<RedisOptions>) -> Result<Fit, StoreError> {
    options.check()?;
    let ways = Ways::find(options).await?;
    let clock = SystemTime::new();
    let (mut times, mut evicted, mut version) = (Vec::new(), 0, None);
    for (partition, own, link) in ways.commands.each(options) {
        if let Some(info) = fitness(&own, &link, &PartitionKeys::new(&options.prefix, partition)).await? {
            evicted += info.number("evicted_keys");
            version = version.or_else(|| info.get("redis_version").map(str::to_owned));
        }
        let (before, wall) = (clock.monotonic(), clock.wall());
        let reply = link.once(&cmd("TIME")).await?.map_err(|error| link.error(&error))?;
        let (theirs, after) = (time_of(Some(reply))?, clock.monotonic());
        // If the clocks differ, tokens are refused too early or accepted for too long.
        compare_clocks(&own.network, format!("Redis at {}", own.address()), wall, theirs, clock.wall())?;
        times.push((before, theirs, after));
    }
    opening::agree(options, &times)?;
    Ok(Fit { ways, evicted, version })
}

/// Runs the startup checks without changing data.
pub async fn inspect(options: RedisOptions) -> Result<InspectedServer, StoreError> {
    let options = Arc::new(options);
    let Fit { ways, version, .. } = check_all(&options).await?;
    let is_new = opening::is_new(&options, &ways).await?;
    if let Some(durable) = options.durable() {
        for (_, own, link) in ways.commands.each(&options) {
            if let Some(info) = info(&link, Some("replication")).await?
                && info.number("connected_slaves") < u64::from(durable.replicas)
            {
                let (address, follow) = (own.address(), info.number("connected_slaves"));
                let wanted = durable.replicas;
                return Err(refused(format!(
                    "Redis at {address} has {follow} replicas, but `wait_replicas` is {wanted}"
                )));
            }
        }
    }
    let version = version.map_or_else(|| "an unknown version".to_owned(), |version| format!("version {version}"));
    let state = if is_new { "there is no store yet" } else { "the store is this gate's" };
    let question = Request::time();
    let round_trip = round_trip(|| ways.commands.ask(0, &question)).await?;
    Ok(InspectedServer { found: format!("Redis at {} has {version}; {state}", options.address()), round_trip })
}

pub(super) async fn open(options: RedisOptions) -> Result<RedisInner, StoreError> {
    let options = Arc::new(options);
    let Fit { ways, evicted, version: _ } = check_all(&options).await?;
    let inner = opening::open_heads(options, ways, evicted).await?;
    // If a failover lost a new head, the gate would create another store.
    inner.settle().await?;
    Ok(inner)
}

async fn fitness(options: &RedisOptions, commands: &Link, keys: &PartitionKeys) -> Result<Option<Info>, StoreError> {
    commands.ask(&Request::time()).await?;
    let info = info(commands, None).await?;
    match &info {
        Some(info) => check_server(options, info)?,
        None if options.assume_noeviction => {}
        None => {
            return Err(refused(format!(
                "Redis at {} does not allow INFO, which shows whether maxmemory-policy is noeviction: allow +info, \
                 or set `assume_noeviction` if the policy is noeviction",
                options.address()
            )));
        }
    }
    check_permissions(options, commands, keys).await?;
    warn_of_lost_writes(options, commands).await?;
    Ok(info)
}

pub(super) async fn info(link: &Link, section: Option<&str>) -> Result<Option<Info>, StoreError> {
    let mut command = cmd("INFO");
    section.into_iter().for_each(|section| drop(command.arg(section).clone()));
    match link.once(&command).await? {
        Ok(reply) => Info::from_reply(reply).map(Some).ok_or_else(|| unexpected("no text")),
        Err(error) if is_forbidden(&error) => Ok(None),
        Err(error) => Err(link.error(&error)),
    }
}

pub(super) fn check_server(options: &RedisOptions, info: &Info) -> Result<(), StoreError> {
    let address = options.address();
    let (major, minor) = OLDEST;
    if info.version().is_none_or(|version| version < OLDEST) {
        let version = info.get("redis_version").unwrap_or("unknown");
        return Err(refused(format!("Redis at {address} has version {version}: {major}.{minor} or later is needed")));
    }
    if options.durable().is_some_and(|durable| durable.fsync)
        && info.version().is_some_and(|version| version < KNOWS_FSYNC)
    {
        let version = info.get("redis_version").unwrap_or("unknown");
        let text = format!("Redis at {address} has version {version}: wait_fsync needs 7.2 or later");
        return Err(refused(text));
    }
    match (info.get("cluster_enabled") == Some("1"), options.cluster) {
        (true, false) => {
            return Err(refused(format!(
                "Redis at {address} is a node of a cluster: set cluster = true, or give a server that is not in a \
                 cluster"
            )));
        }
        (false, true) => {
            return Err(opening::not_a_node(options));
        }
        (true, true) | (false, false) => {}
    }
    if info.get("role") != Some("master") {
        return Err(refused(format!("Redis at {address} is a replica: give the address of the primary")));
    }
    check_policy(options, info)?;
    if info.number("evicted_keys") > 0 {
        tracing::warn!(
            %address,
            "Redis has evicted keys since it started, and sessions or revocations may be among them. Give Redis more \
             memory, keep maxmemory-policy noeviction, and restart Redis"
        );
    }
    if info.get("aof_enabled") == Some("0") {
        tracing::warn!(
            %address,
            "Redis has no append-only file, so a crash of Redis loses sessions and revocations; set appendonly yes"
        );
    }
    Ok(())
}

pub(super) fn check_policy(options: &RedisOptions, info: &Info) -> Result<(), StoreError> {
    match info.get("maxmemory_policy") {
        Some("noeviction") => Ok(()),
        None if options.assume_noeviction => Ok(()),
        policy => Err(refused(format!(
            "Redis at {} has the maxmemory-policy {}, so it drops sessions and revocations when it is full: set \
             maxmemory-policy noeviction",
            options.address(),
            policy.unwrap_or("unknown")
        ))),
    }
}

/// Tries each command on unused Redis keys with the gate's prefix.
async fn check_permissions(options: &RedisOptions, link: &Link, keys: &PartitionKeys) -> Result<(), StoreError> {
    let (none, hash, set) = (keys.named("probe"), keys.named("probe:h"), keys.named("probe:z"));
    let mut tried = vec![
        "GET <key>",
        "MGET <key>",
        "SET <key> 1 XX",
        "DEL <key>",
        "EXISTS <key>",
        "PEXPIREAT <key> 1",
        "PERSIST <key>",
        "HSET <hash> f 0",
        "HGET <hash> f",
        "HMGET <hash> f",
        "HEXISTS <hash> f",
        "HINCRBY <hash> f 1",
        "HSCAN <hash> 0",
        "HDEL <hash> f",
        "ZADD <key> XX 0 m",
        "ZINCRBY <set> 0 m",
        "ZREM <set> m",
        "ZSCORE <key> m",
        "ZRANGE <key> 0 -1",
        "ZREVRANGE <key> 0 0",
        "ZRANGEBYSCORE <key> 0 0",
        "ZREMRANGEBYSCORE <key> 0 0",
        "XADD <key> NOMKSTREAM * e v",
        "XRANGE <key> - +",
        "XREVRANGE <key> + -",
        "XTRIM <key> MINID 0",
        "XREAD COUNT 1 STREAMS <key> 0",
        "ROLE",
        "SCAN 0 COUNT 1",
        "EVAL return 0",
        "EVALSHA 0000000000000000000000000000000000000000 0",
    ];
    if options.cluster {
        tried.push("ASKING");
    }
    if let Some(durable) = options.durable() {
        tried.push(if durable.fsync { "WAITAOF 0 0 1" } else { "WAIT 0 1" });
    }
    for line in tried {
        let mut words = line.split(' ');
        let name = words.next().unwrap_or_default();
        let mut command = cmd(name);
        for word in words {
            let arg = match word {
                "<key>" => &none,
                "<hash>" => &hash,
                "<set>" => &set,
                arg => arg.as_bytes(),
            };
            command.arg(arg);
        }
        match link.once(&command).await? {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {}
            Err(error) if is_forbidden(&error) => return Err(not_allowed(options, keys, name, &error)),
            Err(error) => return Err(link.error(&error)),
        }
    }
    Ok(())
}

/// The error for a missing permission. The name of a subcommand includes its command, such as `CLUSTER|SLOTS`.
pub(super) fn not_allowed(options: &RedisOptions, keys: &PartitionKeys, name: &str, error: &RedisError) -> StoreError {
    let (address, tag) = (options.address(), &keys.tag);
    let what = if error.detail().is_some_and(|text| text.contains("command")) {
        format!("to use the command {name}: allow +{}", name.to_lowercase())
    } else {
        format!("to use keys that begin with {tag}: allow ~{tag}*")
    };
    refused(format!("Redis at {address} does not allow the gate's user {what}"))
}

async fn warn_of_lost_writes(options: &RedisOptions, link: &Link) -> Result<(), StoreError> {
    let mut command = cmd("CONFIG");
    command.arg("GET").arg("appendfsync");
    // The setting is not checked if the server forbids `CONFIG`.
    if let Ok(Value::Array(pair)) = link.once(&command).await?
        && let Some(policy) = pair.into_iter().nth(1).and_then(super::bytes)
        && policy != b"always"
    {
        tracing::warn!(
            address = options.address(),
            "Redis replies before its append-only file is on the disk, so a crash loses up to a second of sessions and \
             revocations; set appendfsync always"
        );
    }
    Ok(())
}
