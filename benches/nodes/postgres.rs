//! The parts of the bench for a store in PostgreSQL.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::support::CONFIG;
use ::support::pki::write_private;
use ::support::postgres::{ADMIN_PASSWORD, Postgres};
use ::support::{Gate, Place, until};
use http::StatusCode;
use rotogate::store::{NetworkOptions, PostgresOptions, PostgresStore, Store};
use secrecy::SecretString;

use crate::contents::{begin_sessions, revoke};
use crate::many::status;
use crate::rotation::{IN_FLIGHT, Rounds, Sessions};
use crate::shared::{ISSUER, Keys, LEEWAY, Server, gate};
use crate::support::program::goal;
use crate::support::{measures, quantile};
use crate::{runtime, say};

const PASSWORD: &str = "a-password-of-the-gates";
/// The statements of a rotation, in order: read the record, count the write, look for not-befores, write the record.
const SAME: &str = "\\set n random(1, 20000)\n\
    select state, record from bench.session where id = lpad(:n::text, 32, '0')::uuid;\n\
    with counted as (select nextval('bench.writes')), before as materialized (\
    select max(until) from bench.revocation where key in ('\\x01', '\\x02', '\\x03')) \
    update bench.session set state = set_byte(state, 9, (get_byte(state, 9) + 1) % 256), ends = ends + 0, record = record \
    from counted, before where id = lpad(:n::text, 32, '0')::uuid and get_byte(state, 1) = 0;\n";

/// A server that waits for its disk, with the gates' user.
pub(crate) fn start() -> Postgres {
    let server = Postgres::start(&["fsync=on", "shared_buffers=512MB", "max_wal_size=4GB"]);
    server.sql(&format!("create role gate login password '{PASSWORD}'"));
    server.sql("grant create on database postgres to gate");
    server
}

fn url(server: &Postgres) -> String {
    format!("postgres://gate@127.0.0.1:{}/postgres", server.port)
}

fn options(server: &Postgres, keys: &Keys) -> PostgresOptions {
    let network = NetworkOptions::new(ISSUER, keys.load().id(), LEEWAY).password(SecretString::from(PASSWORD));
    PostgresOptions::new(url(server), network)
}

async fn connect(server: &Postgres, keys: &Keys) -> PostgresStore {
    PostgresStore::connect(options(server, keys)).await.unwrap()
}

impl Server for Postgres {
    fn connect(&self, runtime: &tokio::runtime::Runtime, keys: &Keys) -> Arc<dyn Store> {
        Arc::new(runtime.block_on(connect(self, keys)))
    }
}

/// Processor time of all processes of a server so far, in seconds. The first process accounts for ended processes.
fn cpu(server: &Postgres) -> f64 {
    let file = std::fs::read_to_string(server.data().join("postmaster.pid")).unwrap();
    let first: u32 = file.lines().next().unwrap().trim().parse().unwrap();
    let mut ticks = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name in brackets may have spaces; the parent and the times follow it.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let number = |place: usize| fields[place].parse::<u64>().unwrap_or_default();
        if entry.file_name().to_str() == Some(&first.to_string()) {
            ticks += (11..15).map(number).sum::<u64>();
        } else if number(1) == u64::from(first) {
            ticks += number(11) + number(12);
        }
    }
    // USER_HZ is 100 on every architecture that Linux still builds for.
    ticks as f64 / 100.0
}

/// Rotations, compared with the rate of `pgbench` for the same read and writes.
pub(crate) fn rotation() {
    let (sessions, rounds, time) =
        if measures() { (20_000, 5, Duration::from_secs(3)) } else { (256, 1, Duration::from_millis(20)) };
    let (runtime, server, keys) = (runtime(), start(), Keys::new());
    let on_postgres = runtime.block_on(async {
        let gate = gate(Arc::new(connect(&server, &keys).await), &keys).await;
        Sessions::new(vec![gate], sessions).await
    });
    let length = server.sql("select max(length(record)) from rotogate.session");
    server.sql(
        "create schema bench; create sequence bench.writes; \
         create table bench.session (like rotogate.session including all); \
         create table bench.revocation (like rotogate.revocation including all); \
         insert into bench.session select lpad((row_number() over ())::text, 32, '0')::uuid, state, ends, subject, client, op, history, \
         record \
         from rotogate.session",
    );
    server.sql("vacuum analyze bench.session, rotogate.session");
    let script = server.folder().join("same.sql");
    std::fs::write(&script, SAME).unwrap();
    let pgbench = || {
        let mut tool = Command::new(server.bin.join("pgbench"));
        tool.env("PGPASSWORD", ADMIN_PASSWORD).args(["-n", "-M", "prepared", "-j", "2"]);
        tool.args(["-c", &IN_FLIGHT.to_string(), "-T", &time.as_secs().max(1).to_string()]);
        tool.arg("-f").arg(&script).args([
            "-h",
            "127.0.0.1",
            "-p",
            &server.port.to_string(),
            "-U",
            "postgres",
            "postgres",
        ]);
        let output = tool.output().expect("pgbench cannot be run; install it (Debian: postgresql)");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "pgbench said {}", String::from_utf8_lossy(&output.stderr));
        let rate = said.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse::<f64>().ok());
        rate.unwrap_or_else(|| panic!("pgbench said {said:?}"))
    };
    let mut all: [Rounds; 2] = Default::default();
    for round in 0..rounds {
        let mut order = [0, 1];
        if round % 2 == 1 {
            order.reverse();
        }
        for case in order {
            let (before, start) = (cpu(&server), Instant::now());
            let done = match case {
                0 => runtime.block_on(on_postgres.round(time)),
                _ => (pgbench(), f64::NAN, Vec::new()),
            };
            let (used, took) = (cpu(&server) - before, start.elapsed());
            all[case].add(done, used, took);
        }
    }
    println!("{sessions} sessions, records of {length} bytes, every write on the disk\n");
    println!("| | a second | range | CPU us each | CPU us of PostgreSQL each | p50 us | p99 us |");
    println!("|---|---|---|---|---|---|---|");
    all[0].print("rotation by a gate on PostgreSQL");
    all[1].print("`pgbench -c 64`, statements of the same read and writes");
    println!();
    let ratios: Vec<f64> = all[0].rates.iter().zip(&all[1].rates).map(|(a, b)| a / b).collect();
    say("rotations on PostgreSQL, x pgbench", quantile(&ratios, 0.5), "x");
    // By now all rows were written many times.
    let bytes = |of: &str| server.sql(&format!("select pg_total_relation_size('{of}')")).parse::<f64>().unwrap();
    say("a session of theirs, after all these rotations", bytes("rotogate.session") / sessions as f64, "B");
}

/// Bytes of a session, of a revocation and of its entry in the log, with their indexes.
pub(crate) fn memory() {
    let number = if measures() { 100_000 } else { 500 };
    let (server, keys, runtime) = (start(), Keys::new(), runtime());
    // Five connections take all revocations of a gate, and hundreds wait for them here.
    let patient = Duration::from_secs(60);
    let mut options = options(&server, &keys);
    (options.network.reply_timeout, options.network.operation_timeout) = (Some(patient), patient);
    let connecting = PostgresStore::connect(options);
    let store = runtime.block_on(connecting).unwrap();
    runtime.block_on(begin_sessions(&store, number));
    runtime.block_on(revoke(&store, number..2 * number));
    let each = |table: &str| {
        let size = server.sql(&format!("select pg_total_relation_size('rotogate.{table}')"));
        size.parse::<f64>().unwrap() / number as f64
    };
    let (session, revocation, entry) = (each("session"), each("revocation"), each("revocation_log"));
    say("PostgreSQL: a session, with its indexes", session, "B");
    say("PostgreSQL: a revocation, with its indexes", revocation, "B");
    say("its entry in the log, for 15 minutes", entry, "B");
    say("a million sessions, computed", session * 1e6 / 1_048_576.0, "MiB");
    say("a million revocations, computed", revocation * 1e6 / 1_048_576.0, "MiB");
}

/// A start among a million live revocations.
pub(crate) fn million() {
    let (number, rounds) = if measures() { (1_000_000, 5) } else { (2000, 1) };
    let (server, runtime) = (start(), runtime());
    let store = format!("[store]\nkind = \"postgres\"\nurl = \"{}\"\npassword_file = \"store.pw\"\n", url(&server));
    let place = Place::new(&format!("{CONFIG}{store}"));
    write_private(&place.path("store.pw"), PASSWORD);
    let start = || -> Gate {
        place.start_with(|command: &mut Command| {
            command.env("ROTOGATE_LOG", "warn");
        })
    };
    // The first start makes the store, and a logout its first revocation.
    let empty = start();
    runtime.block_on(async {
        let ended = empty.login().await;
        assert_eq!(empty.revoke(&ended.refresh).await.status, StatusCode::OK);
        until("it is written", async || server.sql("select count(*) from rotogate.revocation") == "1").await;
    });
    let resident = status(&empty, "VmRSS:");
    drop(empty);
    // The other revocations are copies for other sessions, with tokens that live for a day.
    server.sql(&format!(
        "insert into rotogate.revocation select one.target, one.target, effect, until, place from (\
         select substr(target, 1, length(target) - 16) || uuid_send(gen_random_uuid()) as target, effect, \
         until + 86400000 as until, place from rotogate.revocation, generate_series(2, {number})) as one"
    ));
    server.sql("vacuum analyze rotogate.revocation");
    let (mut ready, mut memory, mut peak, mut used) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (begun, before) = (Instant::now(), cpu(&server));
        let gate = start();
        runtime.block_on(async {
            while gate.admin_get("/readyz").await.status != StatusCode::OK {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(gate.metric("rotogate_revocations").await as usize, number);
        });
        ready.push(begun.elapsed().as_secs_f64());
        used.push((cpu(&server) - before) * 1e6 / number as f64);
        memory.push(status(&gate, "VmRSS:") - resident);
        peak.push(status(&gate, "VmHWM:") - resident);
    }
    goal(&format!("PostgreSQL, start with {number} live revocations: ready after"), quantile(&ready, 0.5), 5.0, "s");
    say("CPU of PostgreSQL for each", quantile(&used, 0.5), "us");
    say("memory of the gate, more than with none", quantile(&memory, 0.5), "MiB");
    say("the same at its peak", quantile(&peak, 0.5), "MiB");
}
