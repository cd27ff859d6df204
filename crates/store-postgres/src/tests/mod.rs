//! Tests against a real server, which each test starts for itself.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};

use secrecy::SecretString;
use support::postgres::Postgres;
use uuid::Uuid;

use super::*;
use rotogate_core::clock::Timestamp;
use rotogate_core::session::{Generation, RevokedBecause, Session};
use rotogate_core::store::conformance::{self, ISSUER, LEEWAY};
use rotogate_core::store::kit::encoding::encode_target;
use rotogate_core::store::kit::fields::new_op;
use rotogate_core::store::kit::network::NetworkOptions;
use rotogate_core::store::{
    CounterUse, Cursor, Filter, Inserted, Revocation, SharedCounter, SharedStore, Store, SubjectBound, Swap,
    WriteOutcome,
};

mod faults;
mod feed;
mod loss;
mod mark;
mod opening;
mod pooler;
mod suite;
mod unknown;

const KEYRING: Uuid = Uuid::from_u128(7);
/// The password of the gate's user.
const PASSWORD: &str = "a-password-of-the-gate";

/// A server of the test's own with the gate's user, and how to connect to it.
pub(super) struct Server(Postgres);

impl Server {
    pub(super) fn start(settings: &[&str]) -> Self {
        Self::prepared(Postgres::start(settings))
    }

    pub(super) fn prepared(server: Postgres) -> Self {
        server.sql(&format!("create role gate login password '{PASSWORD}'"));
        server.sql("grant create on database postgres to gate");
        Self(server)
    }

    pub(super) fn one() -> Self {
        Self::start(&[])
    }

    /// A server of each kind: there is one.
    pub(super) fn all() -> [Self; 1] {
        [Self::one()]
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn options(&self) -> PostgresOptions {
        options(self.port)
    }

    /// Everything that the store holds.
    pub(super) fn content(&self) -> [String; 9] {
        ["head", "session", "revocation", "revocation_log", "part_row", "part_row_count", "stamp", "change", "counter"]
            .map(|table| {
                self.sql(&format!(
                    "select coalesce(md5(string_agg(t::text, ',' order by t::text)), '') from rg.{table} t"
                ))
            })
    }

    pub(super) async fn connect(&self, schema: &str) -> Arc<PostgresStore> {
        Arc::new(PostgresStore::connect(self.options().schema(schema)).await.unwrap())
    }
}

impl Deref for Server {
    type Target = Postgres;

    fn deref(&self) -> &Postgres {
        &self.0
    }
}

impl DerefMut for Server {
    fn deref_mut(&mut self) -> &mut Postgres {
        &mut self.0
    }
}

pub(super) fn options(port: u16) -> PostgresOptions {
    let url = format!("postgres://gate@127.0.0.1:{port}/postgres");
    PostgresOptions::new(url, network(ISSUER, KEYRING))
}

pub(super) fn network(issuer: &str, keyring: Uuid) -> NetworkOptions {
    NetworkOptions::new(issuer, keyring, LEEWAY).password(SecretString::from(PASSWORD))
}

/// The options with changed network options.
pub(super) fn with(mut options: PostgresOptions, change: impl FnOnce(&mut NetworkOptions)) -> PostgresOptions {
    change(&mut options.network);
    options
}

/// The options with time limits that only a hang reaches, for tests whose subject is not time: a busy machine may take longer
/// than the limits of a gate.
pub(super) fn patient(options: PostgresOptions) -> PostgresOptions {
    const PATIENCE: Duration = Duration::from_secs(60);
    with(options, |network| {
        network.connect_timeout = PATIENCE;
        (network.reply_timeout, network.operation_timeout) = (Some(PATIENCE), PATIENCE);
    })
}

/// Each store of a suite has a schema of its own.
fn schema() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn connect_now(options: PostgresOptions) -> Arc<PostgresStore> {
    let connecting = PostgresStore::connect(options.schema(schema()));
    Arc::new(tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(connecting)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_the_postgres_store_passes_the_conformance_suite() {
    let server = Server::start(&[]);
    conformance::run(|_, _| connect_now(patient(server.options()))).await;
}

/// An attacker can guess no faster at five nodes than at one. Old counters are removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c29_ten_a_minute_over_five_nodes_are_ten() {
    let server = Server::start(&[]);
    let mut nodes = Vec::new();
    for _ in 0..5 {
        nodes.push(server.connect("rg").await);
    }
    conformance::server::c29_ten_a_minute_over_all_nodes_are_ten(&nodes).await;
    let soon = SharedCounter { name: [2; 16], every: Duration::from_micros(1), burst: 1 };
    assert_eq!(nodes[0].count(soon, CounterUse::Take).await.unwrap(), None);
    nodes[0].remember([3; 16], Duration::from_millis(1)).await.unwrap();
    nodes[0].remember([4; 16], Duration::from_secs(60)).await.unwrap();
    while nodes[0].remembers([3; 16]).await.unwrap() {
        tokio::task::yield_now().await;
    }
    let left = || {
        let rows = |table: &str| server.sql(&format!("select count(*) from rg.{table}"));
        [rows("counter"), rows("remembered")]
    };
    assert_eq!(left(), ["2", "2"]);
    nodes[1].sweep(Timestamp::ZERO).await.unwrap();
    assert_eq!(left(), ["1", "1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_k10_the_postgres_store_keeps_rows() {
    let server = Server::start(&[]);
    conformance::run_rows(|| connect_now(server.options())).await;
}
