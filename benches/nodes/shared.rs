//! The stores to measure, and gates on them.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use ::support::redis::Redis;
use rotogate::Gate;
use rotogate::client::Client;
use rotogate::store::{NetworkOptions, RedisOptions, RedisStore, Store};
use rotogate::token::Keyring;
use rotogate_core::token::algorithm::Algorithm;
use tempfile::TempDir;

use crate::support;

pub(crate) const ISSUER: &str = "https://auth.example.com";
pub(crate) const CLIENT: &str = "web";
pub(crate) const LEEWAY: Duration = Duration::from_secs(30);
/// Settings by which each acknowledged write is on disk.
pub(crate) const DURABLE: [&str; 2] = ["--appendonly yes", "--appendfsync always"];

/// A kind of server for a shared store, and the time that a revocation may take from one gate to another.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) start: fn() -> Box<dyn Server>,
    /// p50 and p99, in milliseconds.
    pub(crate) spread: (Option<f64>, f64),
}

/// The kinds of this build.
pub(crate) const KINDS: &[Kind] = &[
    Kind { name: "Redis", start: || Box::new(Redis::start(&DURABLE)), spread: (Some(5.0), 50.0) },
    Kind { name: "PostgreSQL", start: || Box::new(crate::postgres::start()), spread: (None, 150.0) },
];

/// A server that runs while this value lives.
pub(crate) trait Server {
    /// One more node on the store.
    fn connect(&self, runtime: &tokio::runtime::Runtime, keys: &Keys) -> Arc<dyn Store>;
}

impl Server for Redis {
    fn connect(&self, runtime: &tokio::runtime::Runtime, keys: &Keys) -> Arc<dyn Store> {
        Arc::new(runtime.block_on(redis_store(self, keys)))
    }
}

pub(crate) async fn redis_store(server: &Redis, keys: &Keys) -> RedisStore {
    let url = format!("redis://127.0.0.1:{}", server.port);
    RedisStore::connect(RedisOptions::new(url, NetworkOptions::new(ISSUER, keys.load().id(), LEEWAY))).await.unwrap()
}

/// One keyring of several gates.
pub(crate) struct Keys(TempDir);

impl Keys {
    pub(crate) fn new() -> Self {
        let keys = Self(tempfile::tempdir().unwrap());
        Keyring::load_or_create(&keys.path(), Algorithm::EdDsa).unwrap();
        keys
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("keys")
    }

    pub(crate) fn load(&self) -> Keyring {
        Keyring::load(&self.path()).unwrap()
    }
}

/// A gate on a store. The gate follows the store on the runtime of the caller.
pub(crate) async fn gate(store: Arc<dyn Store>, keys: &Keys) -> Gate {
    Gate::builder()
        .issuer(ISSUER)
        .audience(["api"])
        .keys(keys.load())
        .shared_store(store)
        .client(Client::public(CLIENT))
        .rates(support::open_rates())
        .build()
        .await
        .unwrap()
}

/// The number after a name in INFO.
pub(crate) fn info(server: &Redis, section: &str, name: &str) -> f64 {
    let said = server.cli(&["INFO", section]);
    let line = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap().trim().parse().unwrap()
}

/// Processor time of a server so far, in seconds.
pub(crate) fn cpu(server: &Redis) -> f64 {
    info(server, "cpu", "used_cpu_user") + info(server, "cpu", "used_cpu_sys")
}

/// Requests a second of a command that `redis-benchmark` sends over 64 connections.
pub(crate) fn benchmark(server: &Redis, requests: usize, command: &[&str]) -> f64 {
    let port = server.port.to_string();
    let number = requests.to_string();
    let mut tool = Command::new("redis-benchmark");
    tool.args(["-p", &port, "-c", "64", "-n", &number, "-r", "20000", "--csv"]).args(command);
    let output = tool.output().expect("redis-benchmark cannot be run; install it (Debian: redis-tools)");
    let said = String::from_utf8(output.stdout).unwrap();
    // The command in quotation marks, then numbers.
    let numbers = said.lines().last().unwrap_or_default().rsplit("\",\"").nth(6);
    let rate = numbers.unwrap_or_else(|| panic!("redis-benchmark said {said:?}"));
    rate.parse().unwrap()
}
