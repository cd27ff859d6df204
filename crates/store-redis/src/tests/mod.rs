//! Tests against a real server, which each test starts for itself.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::figure::print_time;
use support::redis::Redis;
use uuid::Uuid;

use super::*;
use rotogate_core::revocation::Target;
use rotogate_core::session::{Generation, RevokedBecause, Session, SessionId};
use rotogate_core::store::conformance::{self, ISSUER, LEEWAY};
use rotogate_core::store::kit::network::NetworkOptions;
use rotogate_core::store::{
    CounterUse, Cursor, Filter, Follow, Inserted, Revocation, SharedCounter, SharedStore, Store, SubjectBound, Swap,
    WriteOutcome,
};

mod cluster;
mod cluster_faults;
mod durable;
mod faults;
mod feed;
mod memory;
mod opening;
mod sentinel;
mod site;
mod storm;
mod suite;
mod unknown;
mod unpolled;

const KEYRING: Uuid = Uuid::from_u128(7);
/// How long a test waits for an event that must happen.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest time for an answer (C11, C13).
const LATEST: Duration = Duration::from_secs(3);
/// The longest time until a node serves again after an outage (C12).
const BACK: Duration = Duration::from_secs(5);

/// A server of the test's own, and how to connect to it.
pub(super) struct Server(Redis);

impl Server {
    pub(super) fn start(settings: &[&str]) -> Self {
        Self(Redis::start(settings))
    }

    pub(super) fn options(&self) -> RedisOptions {
        options(self.port)
    }

    pub(super) async fn connect(&self, prefix: &str) -> Arc<RedisStore> {
        Arc::new(RedisStore::connect(self.options().prefix(prefix)).await.unwrap())
    }
}

impl Deref for Server {
    type Target = Redis;

    fn deref(&self) -> &Redis {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Redis {
        &mut self.0
    }
}

pub(super) fn options(port: u16) -> RedisOptions {
    RedisOptions::new(format!("redis://127.0.0.1:{port}"), NetworkOptions::new(ISSUER, KEYRING, LEEWAY))
}

/// The options with changed network options.
pub(super) fn with(mut options: RedisOptions, change: impl FnOnce(&mut NetworkOptions)) -> RedisOptions {
    change(&mut options.network);
    options
}

/// Each store of a suite has a prefix of its own.
fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn connect_now(server: &Server) -> Arc<RedisStore> {
    let prefix = prefix();
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(server.connect(&prefix)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_the_redis_store_passes_the_conformance_suite() {
    let server = Server::start(&[]);
    conformance::run(|_, _| connect_now(&server)).await;
}

/// An attacker can guess no faster at five nodes than at one.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c29_ten_a_minute_over_five_nodes_are_ten() {
    let server = Server::start(&[]);
    let mut nodes = Vec::new();
    for _ in 0..5 {
        nodes.push(server.connect("rg").await);
    }
    conformance::server::c29_ten_a_minute_over_all_nodes_are_ten(&nodes).await;
    let keys = server.cli(&["--scan", "--pattern", "*:l:*"]);
    assert_eq!(keys.lines().count(), 1);
    let left = server.cli(&["PTTL", &format!("{{rg:0}}:l:{}", "\u{1}".repeat(16))]).parse::<u64>().unwrap();
    assert!(left > 0 && left <= 600_000, "{left}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_k10_the_redis_store_keeps_rows() {
    let server = Server::start(&[]);
    conformance::run_rows(|| connect_now(&server)).await;
}
