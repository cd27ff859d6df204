//! The primary that the Sentinels name, and its changes.

use support::redis::{PRIMARY, Replicated};
use tokio::time::{Instant, timeout};

use super::*;
use rotogate_core::store::conformance::{gone, insert, later, rotated, session, start};

pub(super) fn options_of(servers: &Replicated) -> RedisOptions {
    let urls = servers.urls();
    RedisOptions::new(&urls[0], NetworkOptions::new(ISSUER, KEYRING, LEEWAY)).more_urls(&urls[1..]).sentinel(PRIMARY)
}

/// Waits until the Sentinels name another server than this.
async fn promoted(servers: &Replicated, old: u16) {
    let other = async {
        while servers.primary() == old {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, other).await.expect("a replica becomes the primary");
}

/// Waits until the store works again. Each attempt inserts another session, because a session whose answer
/// was lost may be in the store.
async fn again(store: &RedisStore) {
    let (mut last, mut tries) = (None, 0);
    let back = async {
        while let Err(error) = store.insert(session("bob", 1000 + tries, start()), SubjectBound::NONE).await {
            (last, tries) = (Some(error), tries + 1);
        }
    };
    let asked = Instant::now();
    let worked = timeout(PATIENCE, back).await.is_ok();
    assert!(worked, "it does not work again: {last:?}");
    print_time("C12 a login after a promotion", asked.elapsed(), BACK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_after_the_sentinels_promoted_a_replica_a_node_goes_on_there() {
    let mut servers = Replicated::start(&[]);
    let store = RedisStore::connect(options_of(&servers)).await.unwrap();
    let begun = session("alice", 1, start());
    insert(&store, &begun).await;
    let old = servers.servers[0].port;
    servers.servers[0].kill();
    let asked = Instant::now();
    let answer = store.load(begun.id).await;
    print_time("C11 an answer without the primary", asked.elapsed(), LATEST);
    assert!(answer.is_err() || servers.primary() != old, "there is an answer without a primary");
    promoted(&servers, old).await;
    again(&store).await;
    store.revoke(gone(begun.id), RevokedBecause::Logout).await.unwrap();
    // The old primary comes back as a primary until the Sentinels notice it. The gate must send nothing to
    // it.
    servers.servers[0].start_again();
    let mut written = 0;
    for n in 3..200 {
        let session = session("carol", n, start());
        written += u32::from(store.insert(session, SubjectBound::NONE).await.is_ok());
    }
    assert!(written > 0);
    assert_eq!(servers.servers[0].cli(&["EXISTS", "{rg:0}:sub:carol"]), "0");
}

/// The connections of the old primary stay open, as in some kinds of failover.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_a_primary_that_became_a_replica_is_left_at_once_and_nothing_is_read_there() {
    let servers = Replicated::start(&[]);
    let store = RedisStore::connect(options_of(&servers)).await.unwrap();
    let begun = session("alice", 1, start());
    insert(&store, &begun).await;
    let (old, new) = (&servers.servers[0], &servers.servers[1]);
    // By hand, so that the Sentinels know nothing of it yet.
    let swap_roles = || {
        new.cli(&["REPLICAOF", "NO", "ONE"]);
        old.cli(&["REPLICAOF", "127.0.0.1", &new.port.to_string()]);
    };
    swap_roles();
    let error = store.load(begun.id).await.unwrap_err();
    assert!(error.to_string().contains("is a replica"), "{error}");
    let next = rotated(&begun, later(start(), 5));
    let error = store.compare_and_swap(1, next.clone(), None).await.unwrap_err();
    assert!(error.to_string().contains("replica"), "{error}");
    // Without this, the Sentinels might take a minute and more to repair the roles.
    for sentinel in &servers.sentinels {
        sentinel.cli(&["SENTINEL", "REMOVE", PRIMARY]);
        sentinel.cli(&["SENTINEL", "MONITOR", PRIMARY, "127.0.0.1", &new.port.to_string(), "2"]);
    }
    // On a busy machine a Sentinel may have swapped the roles back before. Sentinels that monitor the new primary keep it.
    swap_roles();
    let back = async { while store.load(begun.id).await.is_err() {} };
    timeout(PATIENCE, back).await.expect("the Sentinels name a primary");
    assert_eq!(store.compare_and_swap(1, next, None).await.unwrap(), Swap::Swapped);
}

#[tokio::test]
async fn c20_what_the_sentinels_do_not_know_is_refused() {
    let servers = Replicated::start(&[]);
    let unknown = options_of(&servers).sentinel("other");
    let said = RedisStore::connect(unknown).await.unwrap_err().to_string();
    assert!(said.contains("knows no primary \"other\""), "{said}");
    let port = support::server::free_port();
    let away = RedisOptions::new(format!("redis://127.0.0.1:{port}"), NetworkOptions::new(ISSUER, KEYRING, LEEWAY))
        .sentinel(PRIMARY);
    let said = RedisStore::connect(away).await.unwrap_err().to_string();
    assert!(said.contains("Sentinel") && said.contains(&port.to_string()), "{said}");
    let server = options(servers.servers[0].port).sentinel(PRIMARY);
    let said = RedisStore::connect(server).await.unwrap_err().to_string();
    assert!(said.contains("Sentinel"), "{said}");
    // The gate works with one Sentinel missing.
    let some = options_of(&servers).more_urls([format!("redis://127.0.0.1:{port}")]);
    RedisStore::connect(some).await.unwrap();
    // The user has the rights that the documentation lists.
    let [right, wrong] = ["a-password-of-the-sentinels", "another"].map(|text| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    });
    let rights = ["+sentinel|master", "+sentinel|get-master-addr-by-name"];
    for sentinel in &servers.sentinels {
        sentinel.cli(&[&["ACL", "SETUSER", "gate", "on", ">a-password-of-the-sentinels"][..], &rights].concat());
    }
    let as_gate = |file: &tempfile::NamedTempFile| {
        options_of(&servers).sentinel_username("gate").sentinel_password_file(file.path())
    };
    RedisStore::connect(as_gate(&right)).await.unwrap();
    let said = RedisStore::connect(as_gate(&wrong)).await.unwrap_err().to_string();
    assert!(said.contains("Sentinel") && said.contains("refuses the username or the password"), "{said}");
}
