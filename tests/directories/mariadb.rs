//! A real MariaDB server with the users.

use std::process::Command;

use http::StatusCode;
use support::pki::{Pki, write_private};
use support::{Gate, Place, keep_secret, until, with};
use tempfile::TempDir;

use super::sqlite::{CHEAP, PASSWORD, hash};
use rotogate_core::password::Cost;
use support::server::{Process, done, folder, free_port, give, program, unprivileged, write};

const GATE_PASSWORD: &str = "gate-mariadb-password";

const STATEMENTS: &str = r#"
authenticate = """
SELECT id AS subject, hash AS password_hash, active, scopes, valid_from, org AS account, email
FROM users WHERE name = {username} AND org <=> {account}"""
lookup = """
SELECT id AS subject, hash AS password_hash, active, scopes, valid_from, org AS account, email
FROM users WHERE id = {subject}"""
rehash = "UPDATE users SET hash = {new_hash} WHERE id = {subject} AND hash = {old_hash}"
profile = ["email"]
"#;

struct MariaDb {
    _process: Process,
    port: u16,
    folder: TempDir,
}

impl MariaDb {
    fn start(pki: &Pki) -> Self {
        for secret in [GATE_PASSWORD, PASSWORD] {
            keep_secret(secret);
        }
        let folder = folder();
        let file = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir(folder.path().join("tmp")).unwrap();
        give(&folder.path().join("tmp"));
        done(unprivileged(&program("mariadb-install-db", &[])).current_dir(folder.path()).args([
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-log-bin",
            &format!("--datadir={}", file("data")),
            &format!("--tmpdir={}", file("tmp")),
        ]));
        let pair = pki.issue(&["localhost"]);
        write(&folder.path().join("ca.pem"), &pki.root_pem());
        write(&folder.path().join("cert.pem"), &pair.cert);
        write(&folder.path().join("key.pem"), &pair.key);
        for _ in 0..5 {
            let port = free_port();
            let mut command = unprivileged(&program("mariadbd", &["/usr/sbin".into()]));
            command.current_dir(folder.path()).args([
                "--no-defaults",
                &format!("--datadir={}", file("data")),
                &format!("--tmpdir={}", file("tmp")),
                &format!("--socket={}", file("socket")),
                &format!("--pid-file={}", file("pid")),
                &format!("--port={port}"),
                "--bind-address=localhost",
                "--innodb-flush-log-at-trx-commit=0",
                &format!("--ssl-ca={}", file("ca.pem")),
                &format!("--ssl-cert={}", file("cert.pem")),
                &format!("--ssl-key={}", file("key.pem")),
            ]);
            let ready = || Self::client(port).args(["-e", "SELECT 1"]).output().unwrap().status.success();
            if let Some(process) = Process::start(&mut command, ready) {
                let server = Self { _process: process, port, folder };
                server.sql(
                    "CREATE DATABASE app; USE app; CREATE TABLE users (id BIGINT PRIMARY KEY AUTO_INCREMENT, \
                     name VARCHAR(100), hash VARCHAR(200), active BOOLEAN DEFAULT TRUE, \
                     scopes TEXT DEFAULT 'read write', valid_from TIMESTAMP(3) NULL, org VARCHAR(20), \
                     email TEXT DEFAULT 'demo@example.com')",
                );
                server.add("demo", &hash(Cost::default()));
                server.sql(&format!(
                    "CREATE USER gate@localhost IDENTIFIED BY '{GATE_PASSWORD}'; \
                     GRANT SELECT, UPDATE (hash) ON app.users TO gate@localhost; SET GLOBAL time_zone = '+05:00'"
                ));
                return server;
            }
        }
        panic!("MariaDB does not start");
    }

    fn client(port: u16) -> Command {
        let mut command = Command::new(program("mariadb", &[]));
        let port = port.to_string();
        command.args([
            "--no-defaults",
            "--protocol=tcp",
            "--skip-ssl",
            "-h",
            "127.0.0.1",
            "-P",
            &port,
            "-u",
            "root",
            "-N",
        ]);
        command
    }

    fn sql(&self, statement: &str) -> String {
        done(Self::client(self.port).args(["-e", statement])).trim().to_owned()
    }

    fn add(&self, name: &str, hash: &str) {
        self.sql(&format!("INSERT INTO app.users (name, hash) VALUES ('{name}', '{hash}')"));
    }

    fn place(&self, more: &str) -> Place {
        let section = format!("kind = \"sql\"\nurl_file = \"db.url\"\nca = \"ca.pem\"\n{STATEMENTS}");
        let place = Place::new(&with(support::CONFIG, "directory", &section));
        let url = format!("mysql://gate:{GATE_PASSWORD}@localhost:{}/app{more}\n", self.port);
        write_private(&place.path("db.url"), &url);
        std::fs::copy(self.folder.path().join("ca.pem"), place.path("ca.pem")).unwrap();
        place
    }
}

fn start(place: &Place) -> Gate {
    let mut gate = place.start();
    gate.password = PASSWORD.to_owned();
    gate
}

#[tokio::test]
async fn i29_a_mariadb_server_has_the_users() {
    let server = MariaDb::start(&Pki::new());
    let place = server.place("");
    let said = place.done(&["check", "--online"], "").stdout;
    assert!(said.contains("directory: authenticate: subject, password_hash, active, scopes"), "{said}");
    let gate = start(&place);

    let tokens = gate.login().await;
    let answer = gate.get("/x", &tokens.access).await;
    assert_eq!(answer.echoed("x-auth-subject"), ["1"]);
    assert_eq!(answer.echoed("x-auth-scope"), ["read write"]);
    let mut held = gate.refresh(&tokens.refresh).await.tokens();
    for name in ["' OR 1=1 -- ", "demo' -- ", "{username}", "?", "\\", "demo\0"] {
        assert_eq!(gate.log_in(name, PASSWORD).await.status, StatusCode::BAD_REQUEST, "{name:?}");
    }
    assert_eq!(gate.log_in("demo", "wrong password").await.status, StatusCode::BAD_REQUEST);

    server.add("eve", &hash(CHEAP));
    assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::OK);
    assert!(server.sql("SELECT hash FROM app.users WHERE name = 'eve'").starts_with("$argon2id$v=19$m=19456,"));
    server.add("eve", &hash(CHEAP));
    assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE, "two rows");

    // Connections that the server ended are replaced.
    server.sql("SELECT CONCAT('KILL ', id) INTO @kill FROM information_schema.processlist WHERE user = 'gate' LIMIT 1; EXECUTE IMMEDIATE @kill");
    until("the refresh works", async || {
        let answer = gate.refresh(&held.refresh).await;
        assert!(matches!(answer.status, StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE), "{answer:?}");
        if answer.status == StatusCode::OK {
            held = answer.tokens();
        }
        answer.status == StatusCode::OK
    })
    .await;

    // A statement waits for a lock.
    let mut locking = MariaDb::client(server.port);
    locking.args(["-e", "LOCK TABLES app.users WRITE; SELECT SLEEP(600)"]);
    let is_locked =
        || !server.sql("SELECT id FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'").is_empty();
    let locking = Process::start(&mut locking, is_locked).unwrap();
    assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE);
    server.sql("SELECT CONCAT('KILL ', id) INTO @kill FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP%'; EXECUTE IMMEDIATE @kill");
    drop(locking);
    held = gate.refresh(&held.refresh).await.tokens();

    // The gate reads a time in the server's zone as UTC.
    server.sql("UPDATE app.users SET valid_from = NOW(3) - INTERVAL 1 HOUR WHERE id = 1");
    held = gate.refresh(&held.refresh).await.tokens();
    server.sql("UPDATE app.users SET valid_from = NOW(3) WHERE id = 1");
    let answer = gate.refresh(&held.refresh).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"));
}

#[tokio::test]
async fn i46_what_a_function_signals_at_one_user_is_503_for_that_user_alone() {
    let server = MariaDb::start(&Pki::new());
    server.sql(
        "USE app;\nDELIMITER //\nCREATE FUNCTION checked(hash VARCHAR(200)) RETURNS VARCHAR(200) DETERMINISTIC BEGIN \
         IF hash = 'bad' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'not this one'; END IF; RETURN hash; END//\n\
         DELIMITER ;\nGRANT EXECUTE ON FUNCTION app.checked TO gate@localhost",
    );
    server.add("eve", "bad");
    let place = server.place("");
    let config = std::fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&config.replace("hash AS password_hash", "checked(hash) AS password_hash"));
    let gate = start(&place);
    // More often than faults of the server open the circuit.
    for _ in 0..8 {
        assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    gate.login().await;
}

#[tokio::test]
async fn i29_tls_to_a_mariadb_server_is_verified() {
    let server = MariaDb::start(&Pki::new());
    server.sql("ALTER USER gate@localhost REQUIRE SSL");
    let off = "?require_ssl=true&verify_ca=false&verify_identity=false";
    let place = server.place(off);
    let gate = start(&place);
    gate.login().await;
    std::fs::write(place.path("ca.pem"), Pki::new().root_pem()).unwrap();
    let ran = place.run(&["check", "--online"], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("certificate"), "the URL switches nothing off: {ran:?}");
    // The same server by a name that its certificate lacks.
    let place = server.place(off);
    let url = std::fs::read_to_string(place.path("db.url")).unwrap().replace("@localhost:", "@127.0.0.1:");
    write_private(&place.path("db.url"), &url);
    let ran = place.run(&["check", "--online"], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("certificate"), "another name: {ran:?}");
    let place = server.place("");
    let ran = place.run(&["check", "--online"], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("SQLSTATE 28000"), "{ran:?}");
    assert!(!ran.stderr.contains(GATE_PASSWORD));
}
