//! Against a real server, which each test starts for itself.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::server::{Process, done, folder, free_port, program, unprivileged};
use tempfile::TempDir;
use uuid::Uuid;

use super::*;
use crate::store::conformance::{self, ISSUER, LEEWAY};

mod faults;
mod opening;
mod proxy;
mod rules;
mod twice;

const KEYRING: Uuid = Uuid::from_u128(7);

/// A server with its own folder.
pub(super) struct Server {
    process: Option<Process>,
    pub(super) port: u16,
    folder: TempDir,
    settings: Vec<String>,
}

impl Server {
    /// Starts a server with these settings besides the default ones.
    pub(super) fn start(settings: &[&str]) -> Self {
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { process: None, port: 0, folder: folder(), settings };
        for _ in 0..5 {
            server.port = free_port();
            server.process = server.serve();
            if server.process.is_some() {
                return server;
            }
        }
        panic!("Redis does not start");
    }

    fn serve(&self) -> Option<Process> {
        let mut command = unprivileged(&program("redis-server", &[]));
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(self.path());
        command.args(self.settings.iter().flat_map(|setting| setting.split(' ')));
        Process::start(&mut command, || {
            let reply = self.cli_raw(&["PING"]);
            reply.contains("PONG") || reply.contains("NOAUTH")
        })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn cli_raw(&self, args: &[&str]) -> String {
        let mut command = Command::new(program("redis-cli", &[]));
        let output = command.args(["-p", &self.port.to_string()]).args(args).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// What an operator does by hand.
    pub(super) fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new(program("redis-cli", &[]));
        done(command.args(["-p", &self.port.to_string()]).args(args)).trim().to_owned()
    }

    /// As a power failure would.
    pub(super) fn kill(&mut self) {
        let process = self.process.take().unwrap();
        process.signal("KILL");
        process.wait();
    }

    pub(super) fn start_again(&mut self) {
        self.process = self.serve();
        assert!(self.process.is_some(), "it starts again");
    }

    pub(super) fn options(&self) -> RedisOptions {
        options(self.port)
    }

    pub(super) async fn connect(&self, prefix: &str) -> Arc<RedisStore> {
        Arc::new(RedisStore::connect(self.options().prefix(prefix)).await.unwrap())
    }
}

pub(super) fn options(port: u16) -> RedisOptions {
    RedisOptions::new(format!("redis://127.0.0.1:{port}"), ISSUER, KEYRING, LEEWAY)
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
    conformance::run(|| connect_now(&server)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_nodes_on_a_redis_store_pass_the_conformance_suite() {
    let server = Server::start(&[]);
    conformance::run_shared(async || {
        let prefix = prefix();
        [server.connect(&prefix).await, server.connect(&prefix).await]
    })
    .await;
}

#[cfg(feature = "relay")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c1_the_redis_store_keeps_the_records_of_the_relay() {
    let server = Server::start(&[]);
    conformance::run_relay(|| connect_now(&server)).await;
}
