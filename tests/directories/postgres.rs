//! A real PostgreSQL server with the users.

use std::ops::Deref;

use http::StatusCode;
use support::pki::{Pki, write_private};
use support::proxy::{Proxy, unreachable};
use support::{Gate, Place, keep_secret, until, with};

use super::sqlite::{CHEAP, PASSWORD, hash};
use rotogate_core::password::Cost;
use support::postgres::{ADMIN_PASSWORD, Postgres as Server};
use support::server::Process;

/// The statements use types that SQLite does not have.
const STATEMENTS: &str = r#"
authenticate = """
SELECT id AS subject, hash AS password_hash, active, scopes, valid_from, org AS account, roles, email
FROM users WHERE name = lower({username}) AND org IS NOT DISTINCT FROM {account}"""
lookup = """
SELECT id AS subject, hash AS password_hash, active, scopes, valid_from, org AS account, roles, email
FROM users WHERE id = {subject}"""
rehash = "UPDATE users SET hash = {new_hash} WHERE id = {subject} AND hash = {old_hash}"
claims = ["roles"]
profile = ["email"]
"#;

struct Postgres(Server);

impl Deref for Postgres {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl Postgres {
    fn start(pki: Option<&Pki>) -> Self {
        Self(pki.map_or_else(|| Server::start(&[]), Server::start_with_tls))
    }

    fn restart(mut self) -> Self {
        self.0.kill();
        self.0.start_elsewhere();
        self
    }

    /// The table, and the gate's database user.
    fn with_users(self) -> Self {
        self.sql(
            "CREATE TABLE users (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text, hash text, \
             active boolean DEFAULT true, scopes text[] DEFAULT '{read,write}', valid_from timestamptz, \
             org varchar(20), roles jsonb DEFAULT '[\"boss\"]', email text DEFAULT 'demo@example.com')",
        );
        self.sql(&format!("INSERT INTO users (name, hash) VALUES ('demo', '{}')", hash(Cost::default())));
        self.sql("CREATE ROLE gate LOGIN PASSWORD 'gate-database-password'");
        self.sql("GRANT SELECT, UPDATE (hash) ON users TO gate");
        self
    }

    fn url(&self, host: &str, more: &str) -> String {
        format!("postgres://gate:gate-database-password@{host}:{}/postgres{more}\n", self.port)
    }

    fn place(&self, keys: &str, more: &str) -> Place {
        for secret in ["gate-database-password", ADMIN_PASSWORD, PASSWORD] {
            keep_secret(secret);
        }
        let section = format!("kind = \"sql\"\nurl_file = \"db.url\"\n{STATEMENTS}{keys}");
        let place = Place::new(&with(support::CONFIG, "directory", &section));
        write_private(&place.path("db.url"), &self.url("localhost", more));
        place
    }
}

fn start(place: &Place) -> Gate {
    let mut gate = place.start();
    gate.password = PASSWORD.to_owned();
    gate
}

#[tokio::test]
async fn i29_i45_a_postgresql_server_has_the_users() {
    let server = Postgres::start(None).with_users();
    // The driver logs the parameters of a prepared statement alone.
    let place = server.place("for_tests = { statement_cache = true }\n", "");
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(
        said.contains("directory: authenticate (text, text): subject uuid, password_hash text, active bool"),
        "{said}"
    );
    assert!(said.contains("directory: rehash (text, uuid, text)"), "{said}");
    let gate = start(&place);

    let tokens = gate.login().await;
    let subject = server.sql("SELECT id FROM users");
    let answer = gate.get("/x", &tokens.access).await;
    assert_eq!(answer.echoed("x-auth-subject"), [subject.as_str()]);
    assert_eq!(answer.echoed("x-auth-scope"), ["read write"]);
    let mut held = gate.refresh(&tokens.refresh).await.tokens();

    for name in ["' OR 1=1 --", "demo'; DROP TABLE users --", "{username}", "$1", "\\", "demo\0"] {
        assert_eq!(gate.log_in(name, PASSWORD).await.status, StatusCode::BAD_REQUEST, "{name:?}");
    }
    assert_eq!(gate.log_in("demo", "wrong password").await.status, StatusCode::BAD_REQUEST);

    // A weak hash is replaced.
    server.sql(&format!("INSERT INTO users (name, hash) VALUES ('eve', '{}')", hash(CHEAP)));
    assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::OK);
    assert!(server.sql("SELECT hash FROM users WHERE name = 'eve'").starts_with("$argon2id$v=19$m=19456,"));

    let log = gate.log();
    assert!(log.contains("Text(…)") && !log.contains("argon2id"), "the driver logs no parameter");

    // Two users with one name.
    server.sql("INSERT INTO users (name, hash) SELECT name, hash FROM users WHERE name = 'eve'");
    assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);

    // A column gets another type: the gate prepares the statements again.
    server.sql("ALTER TABLE users ALTER COLUMN org TYPE text");
    held = gate.refresh(&held.refresh).await.tokens();
    // Every connection breaks. The next request opens another one.
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate'");
    until("the refresh works", async || {
        let answer = gate.refresh(&held.refresh).await;
        assert!(matches!(answer.status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE), "{answer:?}");
        answer.status == StatusCode::OK
    })
    .await;

    server.sql("UPDATE users SET valid_from = now()");
    let again = gate.refresh(&held.refresh).await;
    assert_eq!((again.status, again.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
}

#[tokio::test]
async fn i46_what_a_function_raises_at_one_user_is_503_for_that_user_alone() {
    let server = Postgres::start(None).with_users();
    server.sql(
        "CREATE FUNCTION checked(hash text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN IF hash = 'bad' THEN \
         RAISE EXCEPTION 'not this one'; END IF; RETURN hash; END $$",
    );
    server.sql("INSERT INTO users (name, hash) VALUES ('eve', 'bad')");
    let place = server.place("", "");
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&config.replace("hash AS password_hash", "checked(hash) AS password_hash"));
    let gate = start(&place);
    // More often than faults of the server open the circuit.
    for _ in 0..8 {
        assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    gate.login().await;
}

/// A value of the caller that fits no column is no user. A stored value or a statement that is wrong is a fault.
#[tokio::test]
async fn i22_i46_a_stored_value_that_cannot_be_read_is_503_and_ends_no_session() {
    let server = Postgres::start(None).with_users();
    server.sql("ALTER TABLE users ADD ext text DEFAULT '17', ADD number bigint DEFAULT 17");
    for keys in ["for_tests = { statement_cache = true }\n", ""] {
        let place = server.place(keys, "");
        let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
        let config = config.replace("name = lower({username})", "number = {username}");
        let config = config.replace("email\nFROM", "ext::bigint AS email\nFROM");
        place.write_config(&config);
        let gate = start(&place);
        let held = gate.log_in("17", PASSWORD).await.tokens();
        for name in ["abc", "17x", "99999999999999999999", "1\u{141}"] {
            assert_eq!(gate.log_in(name, PASSWORD).await.status, StatusCode::BAD_REQUEST, "{name}");
        }
        for value in ["abc", "99999999999999999999"] {
            server.sql(&format!("UPDATE users SET ext = '{value}'"));
            assert_eq!(gate.log_in("17", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE, "{keys}{value}");
            let answer = gate.refresh(&held.refresh).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{keys}{value}: {answer:?}");
        }
        server.sql("UPDATE users SET ext = '17'");
        let held = gate.refresh(&held.refresh).await.tokens();
        drop(gate);
        place.write_config(&config.replace("WHERE", "WHERE active = 'perhaps' AND"));
        let gate = start(&place);
        let answer = gate.refresh(&held.refresh).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{keys}: {answer:?}");
    }
}

#[tokio::test]
async fn i22_a_postgresql_server_that_is_locked_or_gone_is_a_fault_and_the_refresh_token_works_afterwards() {
    let server = Postgres::start(None).with_users();
    let place = server.place("", "");
    let gate = start(&place);
    let tokens = gate.login().await;

    // The statement waits for a lock: the server or the gate ends the statement.
    let mut locking = server.psql("BEGIN; LOCK TABLE users; SELECT pg_sleep(600)");
    let locked = || server.sql("SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted") == "1";
    let locking = Process::start(&mut locking, locked).unwrap();
    let answer = gate.refresh(&tokens.refresh).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(answer.headers.contains_key("retry-after"));
    assert!(gate.log().contains("the statement took too long"));
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::OK);
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()");
    drop(locking);
    let held = gate.refresh(&tokens.refresh).await.tokens();

    let server = server.restart();
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE, "another port now");
    assert_eq!(gate.get("/x", &held.access).await.status, StatusCode::OK);
    drop(gate);
    write_private(&place.path("db.url"), &server.url("localhost", ""));
    let gate = start(&place);
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn i22_a_first_host_that_is_silent_leaves_time_for_the_second() {
    let server = Postgres::start(None).with_users();
    let place = server.place("timeout = \"3s\"\n", "");
    let first = |port: u16| {
        let hosts = format!("@127.0.0.1:{port},127.0.0.1:");
        write_private(&place.path("db.url"), &server.url("127.0.0.1", "").replace("@127.0.0.1:", &hosts));
    };
    let (gone, _listener) = unreachable().await;
    let proxy = Proxy::to(server.port).await;
    proxy.hold(true);
    for port in [gone, proxy.port] {
        first(port);
        let gate = start(&place);
        let held = gate.login().await;
        gate.refresh(&held.refresh).await.tokens();
    }
    super::silence::goes_silent(&start(&place), &proxy, PASSWORD).await;
}

#[tokio::test]
async fn i29_tls_to_the_server_is_verified() {
    let pki = Pki::new();
    let server = Postgres::start(Some(&pki)).with_users();
    server.sql("CREATE VIEW tls AS SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
    let place = server.place("ca = \"ca.pem\"\n", "?sslmode=verify-full");
    std::fs::write(place.path("ca.pem"), pki.root_pem()).unwrap();
    place.done(&["check", "--online"], "");
    let gate = start(&place);
    gate.login().await;
    assert_eq!(
        server.sql("SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'gate'"),
        "t"
    );
    // A certificate for another name, and another authority.
    write_private(&place.path("db.url"), &server.url("127.0.0.1", "?sslmode=verify-full"));
    let ran = place.run(&["check", "--online"], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("certificate"), "{ran:?}");
    write_private(&place.path("db.url"), &server.url("localhost", "?sslmode=require"));
    std::fs::write(place.path("ca.pem"), Pki::new().root_pem()).unwrap();
    let ran = place.run(&["check", "--online"], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("certificate"), "{ran:?}");
}

#[tokio::test]
async fn wrong_credentials_of_the_gate_are_a_fault_that_names_no_password() {
    let server = Postgres::start(None).with_users();
    let place = server.place("", "");
    write_private(
        &place.path("db.url"),
        &server.url("localhost", "").replace("gate-database-password", "wrong-database-password"),
    );
    keep_secret("wrong-database-password");
    let gate = start(&place);
    assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
    let log = gate.log();
    assert!(log.contains("cause=credentials") && log.contains("password authentication failed"), "see the log");
    let ran = place.run(&["check", "--online"], "");
    assert!(ran.code == Some(2) && !ran.stderr.contains("wrong-database-password"), "{ran:?}");
}
