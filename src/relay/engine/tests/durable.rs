//! Records in a file: what a kill leaves, and what the file shows.

use std::path::Path;

use uuid::Uuid;

use super::*;
use rotogate_core::token::Algorithm;
use rotogate_core::token::keyring::{KeyMaterial, RefreshKeys, RefreshSecret, SigningKey};
use rotogate_store_redb::{Options, RedbStore};

/// A keyring that another process can have, too.
fn keyring() -> Keyring {
    let material = KeyMaterial::generate(Algorithm::EdDsa).unwrap();
    let signer = SigningKey::from_material(Algorithm::EdDsa, &material).unwrap();
    let secret = RefreshSecret::from_text(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap();
    let refresh = RefreshKeys::new(1, &[(1, secret)]).unwrap();
    Keyring::from_parts(Uuid::from_u128(0x6b65_7973), signer, Vec::new(), refresh).unwrap()
}

fn open(dir: &Path) -> RedbStore {
    let options = Options::new(conformance::ISSUER, Uuid::from_u128(0x6b65_7973), conformance::LEEWAY);
    RedbStore::open(dir.join("rotogate.redb"), options).unwrap()
}

fn relay(world: &World, store: &RedbStore) -> Relay {
    Relay::new(RelayParts {
        endpoint: "/auth/token".to_owned(),
        settings: RelaySettings {
            sealer: Sealer::new(&world.keyring, "/auth/token", "https://id.example/token"),
            rules: RelayRules::default(),
            provider: world.provider.clone(),
        },
        store: Arc::new(store.clone()),
        is_alone: false,
        counts_proofs: None,
        end_tokens: world.ended.clone(),
        clock: world.clock.clone(),
        limits: Arc::new(Limits::new(Rates::default(), world.time.clone())),
        time: world.time.clone(),
    })
    .unwrap()
}

fn world() -> World {
    World { keyring: keyring(), ..World::new() }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn child() {
    let Some(dir) = std::env::var_os("ROTOGATE_TEST_RELAY_CHILD") else { return };
    let world = world();
    let store = open(Path::new(&dir));
    relay(&world, &store).exchange(presented("T")).await;
    println!("\nanswered after {} requests", world.provider.sent());
}

/// Runs [`child`] in a process of its own: what it printed.
#[cfg(feature = "failpoints")]
fn run_child(dir: &Path, failpoint: &str) -> String {
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "relay::engine::tests::durable::child", "--nocapture", "--test-threads=1"])
        .env("ROTOGATE_FAILPOINT", failpoint)
        .env("ROTOGATE_TEST_RELAY_CHILD", dir)
        .output()
        .unwrap();
    String::from_utf8(run.stdout).unwrap()
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn i34_i35_a_program_killed_after_a_commit_has_the_answer_or_the_intent() {
    // The program is killed when the answer is durable, but not sent.
    let dir = tempfile::tempdir().unwrap();
    assert!(!run_child(dir.path(), "after-commit:2").contains("answered"));
    let world = world();
    let store = open(dir.path());
    let relay = relay(&world, &store);
    world.pass(3);
    let again = body(relay.exchange(presented("T")).await);
    assert_eq!(again, (text(&granted(1)).replace("300", "297"), Source::Replayed));
    assert_eq!(world.provider.sent(), 0, "the first program asked");
    // The program is killed when the intent is durable: it sent no request, but the next one cannot know that.
    let dir = tempfile::tempdir().unwrap();
    assert!(!run_child(dir.path(), "after-commit:1").contains("answered"));
    let store = open(dir.path());
    let relay = super::durable::relay(&world, &store);
    assert_eq!(unavailable(relay.exchange(presented("T")).await), ("relay_pending", 32));
    assert_eq!(world.provider.sent(), 0);
    // Without a failpoint, the relay answers.
    let dir = tempfile::tempdir().unwrap();
    assert!(run_child(dir.path(), "none-of-these").contains("answered after 1 requests"));
}

#[tokio::test]
async fn i37_the_file_and_its_backup_hold_no_token_and_nothing_to_check_one_against() {
    use aws_lc_rs::digest::{SHA256, digest};
    let dir = tempfile::tempdir().unwrap();
    let world = world();
    let store = open(dir.path());
    let relay = relay(&world, &store);
    let token = "the-refresh-token-of-alice";
    body(relay.exchange(presented(token)).await);
    world.provider.next(Step::Reply(dead()));
    body(relay.exchange(presented("another-refresh-token")).await);
    world.provider.next(Step::Lost);
    unavailable(relay.exchange(presented("a-third-refresh-token")).await);
    let copy = dir.path().join("copy.redb");
    store.backup_to(&copy).await.unwrap();
    store.close().await.unwrap();
    let digests =
        [token, "another-refresh-token", "access-1", "refresh-1"].map(|text| digest(&SHA256, text.as_bytes()));
    let texts = [token, "another-refresh-token", "a-third-refresh-token", "access-1", "refresh-1", "invalid_grant"];
    let wanted = texts.iter().map(|text| text.as_bytes()).chain(digests.iter().map(AsRef::as_ref));
    let wanted: Vec<&[u8]> = wanted.collect();
    for file in ["rotogate.redb", "copy.redb"] {
        let bytes = std::fs::read(dir.path().join(file)).unwrap();
        for wanted in &wanted {
            assert!(!bytes.windows(wanted.len()).any(|window| window == *wanted), "{file}: {wanted:?}");
        }
    }
    // A known token cannot be looked up with another keyring.
    let store = open(dir.path());
    let theirs = Sealer::new(&Keyring::ephemeral().unwrap(), "/auth/token", "https://id.example/token");
    let id = theirs.keys(&token.into(), &Presenter::default()).unwrap()[0].id();
    assert_eq!(store.load_row(EXCHANGES, id).await.unwrap(), None);
    let ours = Sealer::new(&world.keyring, "/auth/token", "https://id.example/token");
    let ours = ours.keys(&token.into(), &presented(token).presenter).unwrap();
    let row = store.load_row(EXCHANGES, ours[0].id()).await.unwrap().unwrap();
    assert!(ours[0].open(&RelayRecord::read(&row).unwrap()).is_some());
}
