//! C20: a start refuses unfit servers. Its error has the reason and the remedy, but no credentials.

use std::path::PathBuf;

use secrecy::SecretString;
use support::pki::Pki;

use super::*;
use rotogate_core::store::conformance::{gone, insert, session, start};

const PASSWORD: &str = "a-password-of-the-store";
const USER: &str = "user-of-the-gate";
/// The commands that the documentation lists.
pub(super) const COMMANDS: &str = "+eval +evalsha +get +mget +set +del +exists +pexpireat +persist +hset +hget +hmget +hexists +hincrby \
    +hscan +hdel +zadd +zincrby +zrem +zscore +zrange +zrevrange +zrangebyscore +zremrangebyscore +xadd +xread +xrange \
    +xrevrange +xtrim +scan +time +role +info";

/// A rare branch of a script must not need a command that the start did not ask for.
#[test]
fn c20_no_script_needs_a_command_that_the_documentation_leaves_out() {
    let allowed: Vec<_> = COMMANDS.split_whitespace().map(|one| one.trim_start_matches('+').to_uppercase()).collect();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/scripts");
    let mut number = 0;
    for script in std::fs::read_dir(folder).unwrap() {
        let path = script.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for rest in text.split("redis.call('").skip(1) {
            let command = rest.split('\'').next().unwrap();
            assert!(allowed.iter().any(|one| one == command), "{}: {command}", path.display());
            number += 1;
        }
    }
    assert!(number > 50, "{number}");
}

async fn refused(options: RedisOptions) -> String {
    let error = RedisStore::connect(options).await.unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(!text.contains(PASSWORD) && !text.contains(USER), "{text}");
    error.to_string()
}

#[tokio::test]
async fn c20_a_server_that_may_evict_is_refused_at_start_and_c21_while_it_runs() {
    let server = Server::start(&["--maxmemory-policy allkeys-lru"]);
    let said = refused(server.options()).await;
    assert!(said.contains("allkeys-lru") && said.contains("set maxmemory-policy noeviction"), "{said}");
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let store = server.connect("rg").await;
    store.check().await.unwrap();
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    let said = store.check().await.unwrap_err().to_string();
    assert!(said.contains("volatile-ttl"), "{said}");
}

#[tokio::test]
async fn c20_an_inspection_finds_what_a_start_would_and_makes_nothing() {
    let server = Server::start(&[]);
    let found = inspect(server.options()).await.unwrap().found;
    assert!(found.contains("version ") && found.contains("no store yet"), "{found}");
    assert_eq!(server.cli(&["DBSIZE"]), "0");
    server.connect("rg").await;
    let found = inspect(server.options()).await.unwrap().found;
    assert!(found.contains("the store is this gate's"), "{found}");
    let url = format!("redis://127.0.0.1:{}", server.port);
    let other = RedisOptions::new(&url, NetworkOptions::new(ISSUER, Uuid::from_u128(8), LEEWAY));
    let more = server.options().wait_replicas(2);
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let evicts = server.options();
    for (options, part) in [(evicts, "allkeys-lru"), (other, "another keyring"), (more, "`wait_replicas` is 2")] {
        let said = inspect(options).await.unwrap_err().to_string();
        assert!(said.contains(part), "{said}");
        server.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    }
}

#[tokio::test]
async fn c20_a_replica_is_refused() {
    let primary = Server::start(&[]);
    let replica = Server::start(&[&format!("--replicaof 127.0.0.1 {}", primary.port)]);
    let said = refused(replica.options()).await;
    assert!(said.contains("is a replica: give the address of the primary"), "{said}");
}

#[tokio::test]
async fn c20_a_server_with_too_few_replicas_is_refused() {
    let server = Server::start(&["--min-replicas-to-write 1"]);
    let said = refused(server.options()).await;
    assert!(said.contains("min-replicas-to-write"), "{said}");
}

#[tokio::test]
async fn c20_another_issuer_keyring_or_schema_is_refused() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    insert(&*store, &session("alice", 1, start())).await;
    let url = format!("redis://127.0.0.1:{}", server.port);
    let said = refused(RedisOptions::new(&url, NetworkOptions::new("https://other.example", KEYRING, LEEWAY))).await;
    assert!(said.contains(ISSUER) && said.contains("another prefix"), "{said}");
    let said = refused(RedisOptions::new(&url, NetworkOptions::new(ISSUER, Uuid::from_u128(8), LEEWAY))).await;
    assert!(said.contains("another keyring"), "{said}");
    for field in ["schema", "partitions"] {
        let before = server.cli(&["HGET", "{rg:0}:h", field]);
        server.cli(&["HSET", "{rg:0}:h", field, "9"]);
        let said = refused(server.options()).await;
        assert!(said.contains(field) && said.contains("the version that made it"), "{said}");
        server.cli(&["HSET", "{rg:0}:h", field, &before]);
    }
    server.connect("rg").await;
    // Another prefix is another store.
    let other = RedisOptions::new(&url, NetworkOptions::new("https://other.example", KEYRING, LEEWAY)).prefix("other");
    RedisStore::connect(other).await.unwrap();
    // A missing head is not created again over the remaining data.
    store.revoke(gone(session("alice", 1, start()).id), RevokedBecause::Logout).await.unwrap();
    server.cli(&["DEL", "{rg:0}:h"]);
    let said = refused(server.options()).await;
    assert!(said.contains("lost its main record"), "{said}");
}

/// A user with these commands and keys.
fn allow(server: &Server, rules: &str) {
    let mut args = vec!["ACL", "SETUSER", USER, "reset", "on"];
    let password = format!(">{PASSWORD}");
    args.push(&password);
    args.extend(rules.split(' '));
    server.cli(&args);
}

fn with_password(options: RedisOptions) -> RedisOptions {
    with(options, |network| *network = network.clone().password(SecretString::from(PASSWORD)))
}

fn with_password_file(options: RedisOptions, path: impl Into<PathBuf>) -> RedisOptions {
    with(options, |network| *network = network.clone().password_file(path))
}

fn as_user(server: &Server) -> RedisOptions {
    with_password(server.options().username(USER))
}

#[tokio::test]
async fn c20_each_command_and_key_pattern_that_is_missing_is_named() {
    let server = Server::start(&[]);
    let keys = "~{rg:0}:*";
    allow(&server, &format!("{keys} {COMMANDS}"));
    let store = RedisStore::connect(as_user(&server)).await.unwrap();
    // The allowed commands are enough for all operations.
    let begun = session("alice", 1, start());
    insert(&store, &begun).await;
    store.confirm(vec![(begun.id, Generation::FIRST)]).await.unwrap();
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    store.list(Filter::All, None, 10).await.unwrap();
    store.sweep(start()).await.unwrap();
    store.check().await.unwrap();
    store.revocations().await.unwrap();
    for command in COMMANDS.split_whitespace() {
        let rest: Vec<_> = COMMANDS.split_whitespace().filter(|other| *other != command).collect();
        allow(&server, &format!("{keys} {}", rest.join(" ")));
        let said = refused(as_user(&server)).await;
        assert!(said.contains(command) || (command == "+time" && said.contains("ACL")), "{command}: {said}");
    }
    allow(&server, &format!("{keys} {COMMANDS}"));
    let said = refused(as_user(&server).wait_replicas(1)).await;
    assert!(said.contains("allow +wait"), "{said}");
    allow(&server, &format!("~other:* {COMMANDS}"));
    let said = refused(as_user(&server)).await;
    assert!(said.contains("allow ~{rg:0}:*"), "{said}");
    assert_eq!(server.cli(&["KEYS", "*probe*"]), "", "nothing of the trial is left");
    allow(&server, &format!("{keys} {}", COMMANDS.replace(" +info", "")));
    RedisStore::connect(as_user(&server).assume_noeviction()).await.unwrap();
}

#[tokio::test]
async fn c20_a_wrong_password_is_named_without_it() {
    let server = Server::start(&["--requirepass another-password"]);
    for options in [with_password(server.options()), server.options(), as_user(&server)] {
        let said = refused(options).await;
        assert!(said.contains("password"), "{said}");
    }
}

#[tokio::test]
async fn a_password_file_is_read_again_at_each_connection() {
    let server = Server::start(&["--requirepass first"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    let store = RedisStore::connect(with_password_file(server.options(), file.path())).await.unwrap();
    store.check().await.unwrap();
    server.cli(&["-a", "first", "--no-auth-warning", "CONFIG", "SET", "requirepass", "second"]);
    std::fs::write(file.path(), "second\n").unwrap();
    server.cli(&["-a", "second", "--no-auth-warning", "CLIENT", "KILL", "TYPE", "normal"]);
    store.check().await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn tls_needs_the_right_authority_and_name_and_a_client_certificate_where_the_server_wants_one() {
    let pki = Pki::new();
    let (_server, port) = Redis::start_with_tls(&pki);
    let own = pki.issue(&["gate"]);
    let options = |name: &str, ca: &Pki| {
        let network = NetworkOptions { ca: Some(ca.root_pem().into()), ..NetworkOptions::new(ISSUER, KEYRING, LEEWAY) };
        RedisOptions::new(format!("rediss://{name}:{port}"), network)
    };
    let key = || SecretString::from(own.key.clone());
    let with_own =
        |options| with(options, |network| network.client_certificate = Some((own.cert.clone().into(), key())));
    let store = RedisStore::connect(with_own(options("localhost", &pki))).await.unwrap();
    let begun = session("alice", 1, start());
    insert(&store, &begun).await;
    assert_eq!(store.load(begun.id).await.unwrap(), Some(begun));
    for wrong in [
        options("localhost", &pki),
        with_own(options("localhost", &Pki::new())),
        with_own(options("127.0.0.1", &pki)),
        RedisOptions::new(format!("redis://localhost:{port}"), NetworkOptions::new(ISSUER, KEYRING, LEEWAY)),
    ] {
        let said = refused(wrong).await;
        assert!(said.contains("Redis at ") && !said.contains(&own.key), "{said}");
    }
}

#[tokio::test]
async fn c20_mistakes_in_the_options_are_named_without_credentials() {
    let options = |url: &str| RedisOptions::new(url, NetworkOptions::new(ISSUER, KEYRING, LEEWAY));
    let secret = format!("redis://{USER}:{PASSWORD}@127.0.0.1:1");
    for (options, part) in [
        (options(&secret), "credentials"),
        (options("http://127.0.0.1"), "redis://"),
        (options("unix:///tmp/redis.sock"), "redis://"),
        (options("rediss://127.0.0.1:1/#insecure"), "#insecure"),
        (options("redis://127.0.0.1:1").prefix("a b"), "prefix"),
        (options("redis://127.0.0.1:1").prefix(""), "prefix"),
        (with(options("redis://127.0.0.1:1"), |network| network.ca = Some("x".into())), "rediss://"),
        (options("redis://127.0.0.1:1").username("gate"), "password"),
        (with_password_file(options("redis://127.0.0.1:1"), "/nonexistent/redis"), "/nonexistent/redis"),
    ] {
        let shown = format!("{options:?}");
        assert!(!shown.contains(PASSWORD), "{shown}");
        let said = refused(options).await;
        assert!(said.contains(part), "{part}: {said}");
    }
    let port = support::server::free_port();
    let said = refused(super::options(port)).await;
    assert!(said.contains("cannot be reached"), "{said}");
}

/// The checks refuse the replies of a server with another version or kind.
#[tokio::test]
async fn c20_an_old_version_and_a_cluster_are_refused() {
    let server = Server::start(&["--cluster-enabled yes"]);
    let said = refused(server.options()).await;
    assert!(said.contains("cluster"), "{said}");
    let info = |text: &str| super::super::check::Info::parse(text);
    let base = "redis_version:6.0.16\r\nrole:master\r\nmaxmemory_policy:noeviction\r\n";
    let said = super::super::check::check_server(&options(1), &info(base)).unwrap_err().to_string();
    assert!(said.contains("6.0.16") && said.contains("6.2 or later"), "{said}");
    let newer = base.replace("6.0.16", "7.2.4");
    super::super::check::check_server(&options(1), &info(&newer)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c39_a_store_in_redis_whose_clock_was_ahead_is_brought_back() {
    let server = Server::start(&[]);
    let store = server.connect("rg").await;
    let set_ahead = |later: Timestamp| {
        let later = later.as_millis().to_string();
        server.cli(&["HSET", "{rg:0}:h", "stamp", &later]);
        // New entries of the log must follow this entry, too.
        server.cli(&["XADD", "{rg:0}:log", &format!("{later}-0"), "x", "y"]);
        server.cli(&["XDEL", "{rg:0}:log", &format!("{later}-0")]);
    };
    conformance::loss::c39_a_shared_store_is_brought_back(store, set_ahead).await;
}
