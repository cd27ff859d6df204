//! The servers of a store, and how gates reach them.

use std::process::Command;

use support::pki::write_private;
use support::postgres::Postgres;
use support::proxy::Proxy;
use support::random::Random;
use support::redis::{PRIMARY, Redis, Replicated};
use support::{Place, keep_secret, until};
use tempfile::TempDir;

pub(super) enum Servers {
    /// One server, which loses nothing when it is killed.
    Redis(Redis),
    /// A primary, and the replica that it waits for before it acknowledges.
    RedisWithReplica { primary: Redis, _replica: Redis },
    /// As above, with two replicas, and Sentinels that make one of them the primary.
    Sentinels(Replicated),
    /// One server, which loses nothing when it is killed.
    Postgres(Postgres),
    /// A primary, and the standby that it waits for before it acknowledges; which is which changes.
    PostgresWithStandby([Postgres; 2]),
}

const DURABLE: [&str; 2] = ["--appendonly yes", "--appendfsync always"];
const PASSWORD: &str = "gate-store-password";

/// With the gates' user.
fn postgres() -> Postgres {
    keep_secret(PASSWORD);
    let server = Postgres::start(&["fsync=on"]);
    server.sql(&format!("create role gate login password '{PASSWORD}'; grant create on database postgres to gate"));
    server
}

fn postgres_url(ports: &[u16]) -> String {
    let hosts: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://gate@{}/postgres", hosts.join(","))
}

impl Servers {
    pub(super) fn redis() -> Self {
        Self::Redis(Redis::start(&DURABLE))
    }

    pub(super) async fn redis_with_replica() -> Self {
        let primary = Redis::start(&[]);
        let replica = Redis::start(&[&format!("--replicaof 127.0.0.1 {}", primary.port)]);
        until("the replica follows", async || primary.cli(&["INFO", "replication"]).contains("state=online")).await;
        Self::RedisWithReplica { primary, _replica: replica }
    }

    pub(super) fn sentinels() -> Self {
        Self::Sentinels(Replicated::start(&DURABLE))
    }

    pub(super) fn postgres() -> Self {
        Self::Postgres(postgres())
    }

    pub(super) fn postgres_with_standby() -> Self {
        let primary = postgres();
        let standby = primary.standby();
        standby.waits_for_a_standby();
        primary.waits_for_a_standby();
        Self::PostgresWithStandby([primary, standby])
    }

    /// The section `[store]`.
    pub(super) fn section(&self) -> String {
        let keys = match self {
            Self::Redis(server) => format!("urls = [\"redis://127.0.0.1:{}\"]\n", server.port),
            Self::RedisWithReplica { primary, .. } => {
                format!("urls = [\"redis://127.0.0.1:{}\"]\nwait_replicas = 1\n", primary.port)
            }
            Self::Sentinels(all) => {
                let urls: Vec<_> = all.urls().iter().map(|url| format!("{url:?}")).collect();
                format!("urls = [{}]\nsentinel = \"{PRIMARY}\"\nwait_replicas = 1\n", urls.join(", "))
            }
            Self::Postgres(server) => {
                format!("url = \"{}\"\npassword_file = \"store.pw\"\n", postgres_url(&[server.port]))
            }
            Self::PostgresWithStandby(servers) => {
                let url = postgres_url(&servers.each_ref().map(|server| server.port));
                format!("url = \"{url}\"\npassword_file = \"store.pw\"\n")
            }
        };
        let kind = if self.is_postgres() { "postgres" } else { "redis" };
        format!("[store]\nkind = \"{kind}\"\n{keys}")
    }

    pub(super) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_) | Self::PostgresWithStandby(_))
    }

    /// The folder of gates with this configuration.
    pub(super) fn place(&self, config: &str) -> Place {
        let place = Place::new(config);
        self.put_files(&place);
        place
    }

    /// The files that the section needs.
    pub(super) fn put_files(&self, place: &Place) {
        if self.is_postgres() {
            write_private(&place.path("store.pw"), PASSWORD);
        }
    }

    /// A proxy to the store for one gate alone. `None` if gates look for the primary among several servers.
    pub(super) async fn way(&self) -> Option<Proxy> {
        match self {
            Self::Redis(server) | Self::RedisWithReplica { primary: server, .. } => Some(Proxy::to(server.port).await),
            Self::Postgres(server) => Some(Proxy::to(server.port).await),
            Self::Sentinels(_) | Self::PostgresWithStandby(_) => None,
        }
    }

    /// The gate of this command takes that way.
    pub(super) fn lead_over(&self, way: &Proxy, command: &mut Command) {
        match self.is_postgres() {
            true => command.env("ROTOGATE_STORE__URL", postgres_url(&[way.port])),
            false => command.env("ROTOGATE_STORE__URLS", format!("redis://127.0.0.1:{}", way.port)),
        };
    }

    /// Kills the server with the data, and waits for a new server. Acknowledged writes are not lost.
    pub(super) fn lose_the_server(&mut self, random: &mut Random) {
        match self {
            Self::Redis(server) | Self::RedisWithReplica { primary: server, .. } => {
                server.kill();
                server.start_again();
            }
            Self::Sentinels(all) => {
                // The server that was lost before may be returning.
                all.until("both replicas follow", || {
                    let primary = all.primary();
                    let server = all.servers.iter().find(|server| server.port == primary);
                    server
                        .is_some_and(|server| server.cli(&["INFO", "replication"]).matches("state=online").count() == 2)
                });
                let port = all.primary();
                let Some(old) = all.servers.iter().position(|server| server.port == port) else { return };
                all.servers[old].kill();
                all.until("a replica becomes the primary", || all.primary() != port);
                all.servers[old].start_again();
            }
            // Kills one of the server's processes, which ends all others, or all at once.
            Self::Postgres(server) if random.one_in(2) => server.kill_a_backend(),
            Self::Postgres(server) => {
                server.kill();
                server.start_again();
            }
            Self::PostgresWithStandby(servers) => {
                let [primary, standby] = servers;
                primary.kill();
                standby.promote();
                primary.follow(standby);
                primary.waits_for_a_standby();
                servers.reverse();
            }
        }
    }

    /// A copy of what the server has on its disk.
    pub(super) fn copy_of_disk(&self) -> TempDir {
        let Self::Redis(server) = self else { panic!("no test asks") };
        server.copy_of_disk()
    }

    /// The server loses the writes that it acknowledged after the copy.
    pub(super) fn go_back_to(&mut self, copy: &TempDir) {
        let Self::Redis(server) = self else { panic!("no test asks") };
        server.go_back_to(copy);
    }

    /// How many revocations the store has.
    pub(super) fn revocations(&self) -> String {
        match self {
            Self::Redis(server) | Self::RedisWithReplica { primary: server, .. } => server.cli(&["HLEN", "{rg:0}:r"]),
            Self::Postgres(server) => server.sql("select count(*) from rotogate.revocation"),
            Self::Sentinels(_) | Self::PostgresWithStandby(_) => panic!("no test asks"),
        }
    }

    /// Gives the record of every session an unknown version.
    pub(super) fn change_versions(&self) {
        match self {
            Self::Redis(server) => overwrite(server, "0", "9"),
            Self::Postgres(server) => drop(server.sql("update rotogate.session set state = set_byte(state, 0, 9)")),
            _ => panic!("no test asks"),
        }
    }

    /// Damages the record of every session.
    pub(super) fn damage_records(&self) {
        match self {
            // The id.
            Self::Redis(server) => overwrite(server, "50", "zz"),
            Self::Postgres(server) => drop(server.sql("update rotogate.session set record = substr(record, 1, 20)")),
            _ => panic!("no test asks"),
        }
    }
}

fn overwrite(server: &Redis, place: &str, bytes: &str) {
    let all = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('SETRANGE', key, ARGV[2], ARGV[3]) end";
    server.cli(&["EVAL", all, "0", "{rg:0}:s:*", place, bytes]);
}
