//! An SQLite file with the users.

use http::{Method, StatusCode};
use rotogate_core::password::{Cost, hash_with};
use rusqlite::Connection;

use crate::rotation_table::dialects::dialects;
use crate::rotation_table::{config, passes};
use support::{Gate, Place, keep_secret, until, with};

pub(super) const PASSWORD: &str = "correct horse battery";

/// The statements of these tests.
pub(super) const STATEMENTS: &str = r#"
authenticate = """
SELECT id AS subject, hash AS password_hash, active, scopes, valid_from, org AS account, email
FROM users WHERE lower(name) = lower({username})"""
lookup = """
SELECT id AS subject, hash AS password_hash, active, scopes, valid_from, org AS account, email
FROM users WHERE id = {subject}"""
profile = ["email"]
"#;

pub(super) fn hash(cost: Cost) -> String {
    let hash = hash_with(&PASSWORD.to_owned().into(), cost).unwrap();
    keep_secret(&hash);
    hash
}

pub(super) const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };

struct Users {
    place: Place,
}

impl Users {
    /// A file with the user `demo`, and a gate's configuration that names it.
    fn new(config: &str, keys: &str) -> Self {
        keep_secret(PASSWORD);
        let config =
            with(config, "directory", &format!("kind = \"sql\"\nurl = \"sqlite:users.db\"\n{STATEMENTS}{keys}"));
        let users = Self { place: Place::new(&config) };
        users.sql(
            "CREATE TABLE users (id TEXT PRIMARY KEY, name TEXT, hash TEXT, active INTEGER, scopes TEXT, \
             valid_from INTEGER, org TEXT, email TEXT)",
        );
        users.add("u-1", "demo", &hash(Cost::default()));
        users
    }

    fn connection(&self) -> Connection {
        Connection::open(self.place.path("users.db")).unwrap()
    }

    fn sql(&self, statement: &str) {
        self.connection().execute_batch(statement).unwrap();
    }

    fn add(&self, id: &str, name: &str, hash: &str) {
        let statement = "INSERT INTO users VALUES (?1, ?2, ?3, 1, 'read write', NULL, NULL, 'demo@example.com')";
        self.connection().execute(statement, [id, name, hash]).unwrap();
    }

    fn hash_of(&self, id: &str) -> String {
        self.connection().query_row("SELECT hash FROM users WHERE id = ?1", [id], |row| row.get(0)).unwrap()
    }

    fn start(&self) -> Gate {
        let mut gate = self.place.start();
        gate.password = PASSWORD.to_owned();
        gate
    }

    fn hide(&self) {
        std::fs::rename(self.place.path("users.db"), self.place.path("hidden.db")).unwrap();
    }

    fn unhide(&self) {
        std::fs::rename(self.place.path("hidden.db"), self.place.path("users.db")).unwrap();
    }
}

#[tokio::test]
async fn i22_a_directory_that_fails_is_503_in_every_dialect_and_consumes_nothing() {
    let users = Users::new(&config("", |_| Vec::new()), "");
    let gate = users.start();
    let mut held = Vec::new();
    for dialect in dialects() {
        held.push((dialect, dialect.login(&gate).await));
    }
    users.hide();
    // More requests than the circuit needs to open: the answer is the same.
    for _ in 0..3 {
        for (dialect, tokens) in &held {
            assert!(dialect.is_undecided(&gate, tokens).await, "{}", dialect.name());
            assert!(passes(&gate, tokens).await, "{}: a data route asks no directory", dialect.name());
        }
        let login = gate.log_in("demo", PASSWORD).await;
        assert_eq!(login.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(login.headers.contains_key("retry-after"));
    }
    let log = gate.log();
    let changes = log.lines().filter(|line| line.contains("directory fails")).count();
    assert_eq!(changes, 2, "one line for the first fault, one for the circuit");
    assert!(log.contains("unable to open database file"), "the cause is logged");
    users.unhide();
    until("the directory answers again", async || gate.log_in("demo", PASSWORD).await.status == StatusCode::OK).await;
    for (dialect, tokens) in &held {
        let next = dialect.refresh(&gate, tokens).await.unwrap_or_else(|| panic!("{}: refused", dialect.name()));
        assert!(next.access != tokens.access && passes(&gate, &next).await, "{}", dialect.name());
    }
    assert!(gate.log().contains("directory responds again"));
    let failed = r#"rotogate_directory_requests_total{directory="sql",kind="sql",operation="lookup",result="connect"}"#;
    assert!(gate.metric(failed).await >= 4);
}

#[tokio::test]
async fn i23_a_file_that_replaces_another_is_read_at_the_next_request() {
    let users = Users::new(support::CONFIG, "");
    let gate = users.start();
    let held = gate.login().await;
    let (file, next) = (users.place.path("users.db"), users.place.path("next.db"));
    std::fs::copy(&file, &next).unwrap();
    let change = "UPDATE users SET active = 0; UPDATE users SET name = 'was', id = 'u-2'";
    Connection::open(&next).unwrap().execute_batch(change).unwrap();
    std::fs::rename(&next, &file).unwrap();
    users.add("u-3", "eve", &hash(CHEAP));
    for name in ["demo", "was"] {
        assert_eq!(gate.log_in(name, PASSWORD).await.status, StatusCode::BAD_REQUEST, "{name}");
    }
    assert_eq!(gate.refresh(&held.refresh).await.error(), "invalid_grant");
    let eve = gate.log_in("eve", PASSWORD).await.tokens();
    gate.refresh(&eve.refresh).await.tokens();
}

#[tokio::test]
async fn i23_a_change_of_the_user_ends_the_session_at_the_next_refresh() {
    let users = Users::new(support::CONFIG, "");
    let gate = users.start();
    for change in [
        "UPDATE users SET active = 0",
        "UPDATE users SET org = 'acme'",
        "UPDATE users SET valid_from = unixepoch() + 5",
        "DELETE FROM users",
    ] {
        let tokens = gate.login().await;
        let next = gate.refresh(&tokens.refresh).await.tokens();
        users.sql(&format!("CREATE TABLE kept AS SELECT * FROM users; {change}"));
        let answer = gate.refresh(&next.refresh).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"), "{change}");
        users.sql("DELETE FROM users; INSERT INTO users SELECT * FROM kept; DROP TABLE kept");
    }
    users.sql("UPDATE users SET scopes = 'read'");
    let tokens = gate.login().await;
    assert_eq!(gate.get("/x", &tokens.access).await.echoed("x-auth-scope"), ["read"]);
}

#[tokio::test]
async fn i29_values_are_bound_and_two_rows_are_a_fault() {
    let users = Users::new(support::CONFIG, "");
    let gate = users.start();
    for name in ["' OR 1=1 --", "demo' --", "{username}", "?1", "demo\0", "\u{fffd}"] {
        let answer = gate.log_in(name, PASSWORD).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_grant"), "{name:?}");
    }
    users.add("u-2", "DEMO", &hash(CHEAP));
    let answer = gate.log_in("demo", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(gate.log().contains("more than one user"));
    users.sql("DELETE FROM users WHERE id = 'u-2'");
    gate.login().await;
}

#[tokio::test]
async fn i29_a_weak_hash_is_replaced_at_a_login_and_a_failure_does_not_fail_it() {
    let rehash = "rehash = \"UPDATE users SET hash = {new_hash} WHERE id = {subject} AND hash = {old_hash}\"\n";
    let users = Users::new(support::CONFIG, rehash);
    users.add("u-2", "eve", &hash(CHEAP));
    users.sql("CREATE TRIGGER no BEFORE UPDATE ON users BEGIN SELECT RAISE(ABORT, 'read only'); END");
    let gate = users.start();
    let before = users.hash_of("u-2");
    let session = gate.log_in("eve", PASSWORD).await.tokens();
    assert!(users.hash_of("u-2") == before, "the update failed");
    assert!(gate.log().contains("password hash could not be replaced"));
    users.sql("DROP TRIGGER no");
    assert_eq!(gate.log_in("eve", "wrong password").await.status, StatusCode::BAD_REQUEST);
    assert!(users.hash_of("u-2") == before, "a wrong password replaces nothing");
    assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::OK);
    let after = users.hash_of("u-2");
    assert!(after.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "ours now");
    assert_eq!(gate.log_in("eve", PASSWORD).await.status, StatusCode::OK);
    assert!(users.hash_of("u-2") == after, "a good hash stays");
    assert_eq!(gate.refresh(&session.refresh).await.status, StatusCode::OK, "older sessions go on");
}

#[tokio::test]
async fn i29_a_statement_that_takes_too_long_is_a_fault() {
    let endless = "lookup = \"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT {subject} AS subject FROM n WHERE i < 0\"\n";
    let users = Users::new(support::CONFIG, "");
    let config = std::fs::read_to_string(users.place.path("gateway.toml")).unwrap();
    let (head, rest) = config.split_once("lookup = ").unwrap();
    let (_, tail) = rest.split_once("WHERE id = {subject}\"\"\"\n").unwrap();
    users.place.write_config(&format!("{head}{endless}{tail}"));
    let gate = users.start();
    let answer = gate.log_in("demo", PASSWORD).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{answer:?}");
    assert!(gate.log().contains("the statement took too long"));
}

#[tokio::test]
async fn i26_spellings_of_one_name_share_one_limit() {
    let limits = with(support::CONFIG, "limits", "login_per_account = \"3/1h\"");
    let users = Users::new(&limits, "");
    let gate = users.start();
    for name in ["demo", "DEMO", "d\u{ad}e\u{301}mo"] {
        assert_eq!(gate.log_in(name, "wrong password").await.status, StatusCode::BAD_REQUEST, "{name}");
    }
    for name in ["Demo", "\u{ff44}emo", " demo"] {
        assert_eq!(gate.log_in(name, PASSWORD).await.status, StatusCode::TOO_MANY_REQUESTS, "{name}");
    }
    assert_eq!(gate.log_in("another", PASSWORD).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn i48_a_user_of_a_database_takes_as_many_guesses_as_nobody() {
    let users = Users::new(&super::guesses::config(), "");
    users.add("u-2", "eve", &hash(CHEAP));
    users.add("u-3", "gone", &hash(CHEAP));
    users.sql("UPDATE users SET active = 0 WHERE id = 'u-3'");
    let gate = users.start();
    let names = ["demo", "eve", "gone", "nobody", "else"];
    assert_eq!(super::guesses::guesses(&gate, names).await, [5; 5]);
}

#[tokio::test]
async fn i46_what_the_database_has_of_one_user_is_503_for_that_user_alone() {
    let users = Users::new(support::CONFIG, "");
    users.add("u-2", "DEMO", &hash(CHEAP));
    users.add("u-3", "bob", &hash(CHEAP));
    users.add("u-4", "eve", &hash(CHEAP));
    users.add("u-5", "odd", "not a hash");
    let gate = users.start();
    let (bob, eve) = (gate.log_in("bob", PASSWORD).await.tokens(), gate.log_in("eve", PASSWORD).await.tokens());
    users.sql("UPDATE users SET valid_from = 'yesterday' WHERE id = 'u-4'");
    let mut held = bob.refresh;
    // Each more often than faults of the database open the circuit.
    for _ in 0..8 {
        for name in ["demo", "eve", "odd"] {
            let answer = gate.log_in(name, PASSWORD).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{name}: {answer:?}");
            assert!(answer.headers.contains_key("retry-after"), "{name}");
        }
        assert_eq!(gate.refresh(&eve.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(gate.log_in("bob", PASSWORD).await.status, StatusCode::OK);
    held = gate.refresh(&held).await.tokens().refresh;
    gate.refresh(&held).await.tokens();
    // One line a minute, which names the user as the audit log does.
    let log = gate.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("directory entry cannot be used")).collect();
    let hash = users.place.json(&["audit-hash", "demo"], "")["name_hash"].as_str().unwrap().to_owned();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(&hash) && lines[0].contains("more than one user"), "{lines:?}");
    assert!(!log.contains("directory fails"), "{log}");
    users.sql("UPDATE users SET valid_from = NULL WHERE id = 'u-4'");
    assert_eq!(gate.refresh(&eve.refresh).await.status, StatusCode::OK, "the same token works afterwards");
}

#[tokio::test]
async fn an_account_is_one_of_the_row() {
    let users = Users::new(support::CONFIG, "");
    users.sql("UPDATE users SET org = 'acme'");
    let gate = users.start();
    assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::BAD_REQUEST, "in no account");
    let fields = [("client_id", "web"), ("grant_type", "password"), ("username", "demo"), ("password", PASSWORD)];
    assert_eq!(gate.form("/acme/connect/token", &fields).await.status, StatusCode::OK);
    assert_eq!(gate.form("/other/connect/token", &fields).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn i55_a_directory_without_accounts_is_named_by_check_and_by_the_outcome() {
    let users = Users::new(support::CONFIG, "");
    let file = users.place.path("gateway.toml");
    let without = std::fs::read_to_string(&file).unwrap().replace(" org AS account,", "");
    users.place.write_config(&without);
    let said = users.place.done(&["check", "--online"], "");
    assert!(said.stdout.contains("directory.authenticate: does not give users an account"), "{said:?}");
    assert_eq!(users.place.run(&["check", "--online", "--strict"], "").code, Some(1));
    let gate = users.start();
    let login = async |password: &str| {
        let fields = [("client_id", "web"), ("grant_type", "password"), ("username", "demo"), ("password", password)];
        gate.form("/acme/connect/token", &fields).await
    };
    let (right, wrong) = (login(PASSWORD).await, login("wrong password").await);
    assert_eq!((right.status, right.json()), (wrong.status, wrong.json()), "a caller learns nothing");
    until("both are in the log", async || {
        let log = gate.log();
        log.contains("no_account") && log.contains("wrong_password")
    })
    .await;
    assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::OK, "without an account");
}

#[tokio::test]
async fn operators_commands_say_that_the_users_are_elsewhere() {
    let users = Users::new(support::CONFIG, "");
    let said = users.place.fails(&["user", "list"], "");
    assert!(said.contains("the users are not in a file"), "{said}");
    let gate = users.start();
    let tokens = gate.login().await;
    users.place.point_commands_at(&gate);
    let said = users.place.fails(&["session", "revoke", "--user", "demo"], "");
    assert!(said.contains("--subject"), "{said}");
    users.place.done(&["session", "revoke", "--subject", "u-1"], "");
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    let token = std::fs::read_to_string(users.place.path("data/admin.token")).unwrap();
    let answer = gate.admin(Method::POST, "/v1/users/reload", Some(token.trim())).await;
    assert_eq!(answer.status, StatusCode::CONFLICT, "{answer:?}");
}

#[test]
fn i45_check_reports_every_mistake_of_the_section_and_asks_no_database() {
    let section = |keys: &str| format!("{}[directory]\nkind = \"sql\"\n{keys}", "");
    let good = format!("url = \"sqlite:users.db\"\n{STATEMENTS}");
    let place = Place::new(support::CONFIG);
    let said = |keys: &str| {
        let config = support::CONFIG.replace("[limits]", &format!("{}\n[limits]", section(keys)));
        place.write_config(&config);
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{keys}: {ran:?}");
        ran.stderr
    };
    for (keys, expected) in [
        ("", "directory.url_file: missing"),
        ("", "directory.authenticate: missing"),
        ("", "directory.lookup: missing"),
        (&good.replace("sqlite:users.db", "oracle://db"), "directory.url: is not the URL of a supported database"),
        (&good.replace("sqlite:users.db", "postgres://gate:secretsecret@db/x"), "directory.url: contains a password"),
        (
            &good.replace("sqlite:users.db", "postgres://gate@db/x?sslmode=disable"),
            "directory.url: has `sslmode=disable`",
        ),
        (&good.replace("url =", "url_file ="), "directory.url_file: "),
        (&format!("{good}url_file = \"x\"\n"), "directory.url_file: cannot be combined with `url`"),
        (
            &good.replace("{username}", "{user}"),
            "directory.authenticate: unknown value {user}; expected one of {username}",
        ),
        (&good.replace("{subject}", "'{subject}'"), "directory.lookup: {subject} is in quotes"),
        (
            &format!("{good}rehash = \"UPDATE users SET hash = {{new_hash}}\"\n"),
            "directory.rehash: {subject} is missing",
        ),
        (&format!("{good}claims = [\"sub\"]\n"), "directory.claims[0]: the claim \"sub\" is reserved"),
        (&format!("{good}timeout = \"2m\"\n"), "directory.timeout: expected at most 1m"),
        (&format!("{good}path = \"users.toml\"\n"), "directory.path: unknown key"),
        (&format!("{good}poll = 3\n"), "directory.poll: unknown key; expected one of kind"),
    ] {
        assert!(said(keys).contains(expected), "{expected}: {}", said(keys));
    }
    place.write_config(&support::CONFIG.replace("[limits]", &format!("{}\n[limits]", section(&good))));
    place.done(&["check"], "");
    let printed = place.done(&["check", "--print"], "").stdout;
    assert!(printed.contains("{username}"), "{printed}");
    let ran = place.run(&["check", "--online"], "");
    assert_eq!(ran.code, Some(2), "there is no database: {ran:?}");
    assert!(ran.stderr.contains("unable to open database file"), "{ran:?}");
}

#[test]
fn i45_check_online_prepares_every_statement() {
    let users = Users::new(support::CONFIG, "");
    let said = users.place.done(&["check", "--online"], "").stdout;
    assert!(
        said.contains("directory: lookup: subject, password_hash, active, scopes, valid_from, account, email"),
        "{said}"
    );
    let listed = users.place.json(&["check", "--online"], "");
    assert_eq!(listed["directory"].as_array().map(Vec::len), Some(2));
    users.sql("ALTER TABLE users RENAME COLUMN hash TO password");
    let ran = users.place.run(&["check", "--online"], "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("directory: sql: authenticate: no such column: hash"), "{ran:?}");

    users.sql("ALTER TABLE users RENAME COLUMN password TO hash");
    let file = users.place.path("gateway.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    users.place.write_config(&good.replace("active,", "users.*, 1 AS Active,"));
    let ran = users.place.run(&["check", "--online"], "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("authenticate: several columns are called active"), "{ran:?}");
}

#[tokio::test]
async fn i29_a_column_that_is_there_twice_is_a_fault_and_ends_no_session() {
    let users = Users::new(support::CONFIG, "");
    let gate = users.start();
    let held = gate.login().await;
    drop(gate);
    let good = std::fs::read_to_string(users.place.path("gateway.toml")).unwrap();
    for (column, again) in [("active", "1 AS active"), ("subject", "'u-2' AS Subject"), ("email", "name AS email")] {
        users.place.write_config(&good.replace("email\nFROM", &format!("email, {again}\nFROM")));
        let gate = users.start();
        assert_eq!(gate.log_in("demo", PASSWORD).await.status, StatusCode::SERVICE_UNAVAILABLE, "{column}");
        assert_eq!(gate.refresh(&held.refresh).await.status, StatusCode::SERVICE_UNAVAILABLE, "{column}");
    }
    users.place.write_config(&good);
    users.start().refresh(&held.refresh).await.tokens();
}
