//! C20: a start refuses unfit servers. Its error has the reason and the remedy, but no credentials.

use support::pki::Pki;

use super::*;
use rotogate_core::store::conformance::{gone, insert, session, start};

async fn refused(options: PostgresOptions) -> String {
    let error = PostgresStore::connect(options).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains(PASSWORD) && !text.contains("\"gate\"") && !text.contains("gate@"), "{text}");
    error.to_string()
}

#[tokio::test]
async fn c20_a_server_that_does_not_wait_for_the_disk_is_refused() {
    let server = Server::start(&[]);
    for value in ["off", "local", "remote_write"] {
        server.sql(&format!("alter role gate set synchronous_commit = {value}"));
        let said = refused(server.options()).await;
        assert!(said.contains(value) && said.contains("set it to on"), "{said}");
    }
    server.sql("alter role gate set synchronous_commit = remote_apply");
    PostgresStore::connect(server.options()).await.unwrap();
}

#[tokio::test]
async fn c20_a_read_only_server_and_a_standby_are_refused() {
    let mut server = Server::start(&[]);
    server.sql("alter role gate set default_transaction_read_only = on");
    let said = refused(server.options()).await;
    assert!(said.contains("read-only") && said.contains("the primary"), "{said}");
    server.sql("alter role gate reset default_transaction_read_only");
    server.connect("rg").await;
    server.kill();
    support::server::write(&server.data().join("standby.signal"), "");
    server.start_again();
    let said = refused(server.options()).await;
    assert!(said.contains("standby") && said.contains("the primary"), "{said}");
}

#[tokio::test]
async fn c20_another_issuer_keyring_or_schema_is_refused() {
    let server = Server::start(&[]);
    let store = server.connect("rotogate").await;
    insert(&*store, &session("alice", 1, start())).await;
    let url = format!("postgres://gate@127.0.0.1:{}/postgres", server.port);
    let of = |issuer: &str, keyring| PostgresOptions::new(&url, network(issuer, keyring));
    let said = refused(of("https://other.example", KEYRING)).await;
    assert!(said.contains(ISSUER) && said.contains("another schema"), "{said}");
    let said = refused(of(ISSUER, Uuid::from_u128(8))).await;
    assert!(said.contains("another keyring"), "{said}");
    server.sql("insert into rotogate.migration values (99)");
    let said = refused(server.options()).await;
    assert!(said.contains("schema version 99") && said.contains("the version that made it"), "{said}");
    server.sql("delete from rotogate.migration where number = 99");
    server.connect("rotogate").await;
    // Another schema is another store.
    PostgresStore::connect(of("https://it's.example", KEYRING).schema("other")).await.unwrap();
    // A missing head is not created again over the remaining data.
    store.revoke(gone(session("alice", 1, start()).id), RevokedBecause::Logout).await.unwrap();
    server.sql("delete from rotogate.head");
    let said = refused(server.options()).await;
    assert!(said.contains("lost its main record"), "{said}");
}

#[tokio::test]
async fn c20_each_right_that_is_missing_is_named() {
    let server = Server::start(&[]);
    server.sql("revoke create on database postgres from gate");
    let said = refused(server.options()).await;
    assert!(said.contains("permission denied for database") && said.contains("docs/postgres.md"), "{said}");
    // The tables may belong to another role, which migrates.
    server.sql("create role owner login password 'owner'; grant create on database postgres to owner");
    let url = format!("postgres://owner@127.0.0.1:{}/postgres", server.port);
    let owner = PostgresOptions::new(url, network(ISSUER, KEYRING).password(SecretString::from("owner")));
    PostgresStore::connect(owner).await.unwrap();
    let said = refused(server.options()).await;
    assert!(said.contains("schema rotogate"), "{said}");
    let grants = [
        "usage on schema rotogate",
        "select, insert, update, delete on all tables in schema rotogate",
        "usage, select on all sequences in schema rotogate",
    ];
    for right in grants {
        server.sql(&format!("grant {right} to gate"));
    }
    let store = PostgresStore::connect(server.options()).await.unwrap();
    // The granted rights are enough for all operations.
    let begun = session("alice", 1, start());
    insert(&store, &begun).await;
    store.confirm(vec![(begun.id, Generation::FIRST)]).await.unwrap();
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    store.list(Filter::All, None, 10).await.unwrap();
    store.sweep(start()).await.unwrap();
    store.check().await.unwrap();
    store.revocations().await.unwrap();
    for (right, named) in [
        ("update on rotogate.stamp", "update on table stamp"),
        ("delete on rotogate.revocation_log", "delete on table revocation_log"),
        ("usage on sequence rotogate.log_id", "usage on sequence log_id"),
        ("usage on schema rotogate", "grant usage on schema rotogate"),
    ] {
        server.sql(&format!("revoke {right} from gate"));
        let said = refused(server.options()).await;
        assert!(said.contains(named), "{right}: {said}");
        server.sql(&format!("grant {right} to gate"));
    }
    server.sql("revoke execute on all functions in schema rotogate from public");
    let said = refused(server.options()).await;
    assert!(said.contains("execute on function"), "{said}");
}

#[tokio::test]
async fn c20_wrong_credentials_and_a_missing_database_are_named_without_them() {
    let server = Server::start(&[]);
    let wrong = with(server.options(), |network| *network = network.clone().password(SecretString::from("another")));
    let said = refused(wrong).await;
    assert!(said.contains("password"), "{said}");
    let url = format!("postgres://gate@127.0.0.1:{}/nowhere", server.port);
    let nowhere = PostgresOptions::new(url, network(ISSUER, KEYRING));
    let said = refused(nowhere).await;
    assert!(said.contains("no such database"), "{said}");
}

#[tokio::test]
async fn a_password_file_is_read_again_at_each_connection() {
    let server = Server::start(&[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
    let store =
        PostgresStore::connect(with(server.options(), |network| *network = network.clone().password_file(file.path())))
            .await
            .unwrap();
    store.check().await.unwrap();
    server.sql("alter role gate password 'second'");
    std::fs::write(file.path(), "second\n").unwrap();
    server.sql("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'gate'");
    store.check().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn tls_needs_the_right_authority_and_name_and_a_client_certificate_where_the_server_wants_one() {
    let pki = Pki::new();
    let server = Server::prepared(Postgres::start_with_tls(&pki));
    let options = |name: &str, ca: &Pki| {
        let url = format!("postgres://gate@{name}:{}/postgres?sslmode=verify-full", server.port);
        PostgresOptions::new(url, NetworkOptions { ca: Some(ca.root_pem().into()), ..network(ISSUER, KEYRING) })
    };
    let store = PostgresStore::connect(options("localhost", &pki)).await.unwrap();
    let begun = session("alice", 1, start());
    insert(&store, &begun).await;
    assert_eq!(store.load(begun.id).await.unwrap(), Some(begun));
    let used = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where usename = 'gate'";
    assert_eq!(server.sql(used), "t");
    for wrong in [options("localhost", &Pki::new()), options("127.0.0.1", &pki)] {
        let said = refused(wrong).await;
        assert!(said.contains("certificate"), "{said}");
    }
    let rules = "hostssl all gate all scram-sha-256 clientcert=verify-ca\nhost all postgres all scram-sha-256\n";
    support::server::write(&server.data().join("pg_hba.conf"), rules);
    server.sql("select pg_reload_conf()");
    let said = refused(options("localhost", &pki)).await;
    assert!(said.contains("certificate"), "{said}");
    let own = pki.issue(&["gate"]);
    let with_own = with(options("localhost", &pki), |network| {
        network.client_certificate = Some((own.cert.into(), SecretString::from(own.key)));
    });
    PostgresStore::connect(with_own).await.unwrap();
}

#[tokio::test]
async fn c20_mistakes_in_the_options_are_named_without_credentials() {
    let options = |url: &str| PostgresOptions::new(url, network(ISSUER, KEYRING));
    let good = "postgres://gate@127.0.0.1:1/rotogate";
    let own = Pki::new().issue(&["gate"]);
    for (options, part) in [
        (options(&format!("postgres://gate:{PASSWORD}@127.0.0.1:1/rotogate")), "a password"),
        (options(&format!("postgres://gate@127.0.0.1:1/rotogate?password={PASSWORD}")), "a password"),
        (options("http://127.0.0.1"), "postgres://"),
        (options("host=localhost user=gate"), "postgres://"),
        (options("postgres://127.0.0.1/rotogate"), "no user"),
        (options("postgres://gate@127.0.0.1"), "no database"),
        (options("postgres://gate@db.example/rotogate?sslmode=disable"), "sslmode=disable"),
        (options("postgres://gate@127.0.0.1/rotogate?colour=red"), "colour"),
        (options(good).listen_url(format!("postgres://gate:{PASSWORD}@127.0.0.1/x")), "a password"),
        (options(good).schema("a b"), "the schema"),
        (options(good).schema("pg_own"), "the schema"),
        (with(options(good), |network| network.ca = Some("x".into())), "no certificate"),
        (
            with(options(good), |network| network.client_certificate = Some(("x".into(), SecretString::from("y")))),
            "client_cert: holds no certificate",
        ),
        (
            with(options(good), |network| {
                network.client_certificate = Some((own.cert.clone().into(), SecretString::from("y")));
            }),
            "client_cert: holds no private key",
        ),
        (
            with(options(good), |network| *network = network.clone().password_file("/nonexistent/postgres")),
            "/nonexistent/postgres",
        ),
    ] {
        let shown = format!("{options:?}");
        assert!(!shown.contains(PASSWORD), "{shown}");
        let said = refused(options).await;
        assert!(said.contains(part), "{part}: {said}");
    }
    let said = refused(super::options(support::server::free_port())).await;
    assert!(said.contains("cannot be reached"), "{said}");
}

/// Nodes that start at once on an empty database make one store.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_start_at_once_make_one_store() {
    let server = Server::start(&[]);
    let mut starting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let options = server.options().connections(2);
        starting.spawn(async move { PostgresStore::connect(options).await.unwrap() });
    }
    let nodes = starting.join_all().await;
    let begun = session("alice", 1, start());
    insert(&nodes[0], &begun).await;
    for node in &nodes {
        assert_eq!(node.load(begun.id).await.unwrap(), Some(begun.clone()));
    }
    assert_eq!(server.sql("select count(*) from rotogate.migration"), "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c39_a_store_in_postgresql_whose_clock_was_ahead_is_brought_back() {
    let server = Server::start(&[]);
    let store = server.connect("rotogate").await;
    let set_ahead = |later: Timestamp| {
        server.sql(&format!("update rotogate.stamp set last = {}", later.as_millis()));
    };
    conformance::loss::c39_a_shared_store_is_brought_back(store, set_ahead).await;
}
