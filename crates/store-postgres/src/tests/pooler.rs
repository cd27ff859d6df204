//! C25: through pgbouncer, which gives each transaction another connection.

use std::process::Command;

use support::server::{Process, folder, free_port, program, unprivileged, write};
use tempfile::TempDir;

use super::*;

struct Pooler {
    _process: Process,
    port: u16,
    _folder: TempDir,
}

impl Pooler {
    fn start(server: &Server) -> Self {
        let folder = folder();
        let users = folder.path().join("users");
        write(&users, &format!("\"gate\" \"{PASSWORD}\"\n"));
        for _ in 0..5 {
            let port = free_port();
            let ini = folder.path().join("pgbouncer.ini");
            let text = format!(
                "[databases]\npostgres = host=127.0.0.1 port={} dbname=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
                 listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
                 default_pool_size = 20\nmax_client_conn = 1000\n",
                server.port,
                users.display()
            );
            write(&ini, &text);
            let ready = || {
                let mut asked = Command::new(server.bin.join("pg_isready"));
                asked.args(["-q", "-h", "127.0.0.1", "-p", &port.to_string(), "-d", "postgres"]);
                asked.status().unwrap().success()
            };
            let mut command = unprivileged(&program("pgbouncer", &["/usr/sbin".into()]));
            if let Some(process) = Process::start(command.arg(&ini), ready) {
                return Self { _process: process, port, _folder: folder };
            }
        }
        panic!("pgbouncer does not start");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn c25_the_store_passes_the_conformance_suite_through_a_pooler_of_transactions() {
    let server = Server::start(&[]);
    let pooler = Pooler::start(&server);
    let direct = format!("postgres://gate@127.0.0.1:{}/postgres", server.port);
    let polling = || patient(options(pooler.port).unnamed_statements());
    conformance::run(|_, _| connect_now(polling())).await;
    for options in [polling(), polling().listen_url(direct)] {
        conformance::run_shared(async || {
            let schema = schema();
            let connect = || async { Arc::new(PostgresStore::connect(options.clone().schema(&schema)).await.unwrap()) };
            [connect().await, connect().await]
        })
        .await;
    }
}

#[tokio::test]
async fn c25_a_pooler_that_was_not_expected_is_named() {
    let server = Server::start(&[]);
    let pooler = Pooler::start(&server);
    let said = PostgresStore::connect(options(pooler.port)).await.unwrap_err().to_string();
    assert!(said.contains("a connection pooler is in between") && said.contains("unnamed"), "{said}");
}
