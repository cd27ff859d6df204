//! `rotogate store`, and the stores on which a gate starts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use http::StatusCode;

use super::assert_invalid_grant;
use support::{CONFIG, Place};

const STORE: &str = "data/rotogate.redb";

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A place with the keys, the users and the configuration of another, and this store.
fn with_store(from: &Place, store: &Path) -> Place {
    let to = Place::new(CONFIG);
    fs::create_dir_all(to.path("data/keys")).unwrap();
    let mut files = vec!["data/users.toml".to_owned(), "password".to_owned()];
    for entry in fs::read_dir(from.path("data/keys")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name != "store.mark" {
            files.push(format!("data/keys/{name}"));
        }
    }
    for file in files {
        fs::copy(from.path(&file), to.path(&file)).unwrap();
    }
    fs::copy(store, to.path(STORE)).unwrap();
    to
}

#[tokio::test]
async fn a_running_gate_backs_up_its_store_and_the_copy_holds_the_sessions() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    let revoked = gate.login().await;
    gate.revoke(&revoked.refresh).await;
    place.point_commands_at(&gate);
    let copy = place.path("backups/one.redb");
    let said = place.fails(&["store", "backup", "backups/one.redb"], "");
    assert!(said.contains("there is no folder backups; create it"), "{said}");
    assert!(!place.path("backups").exists());
    fs::create_dir(place.path("backups")).unwrap();
    let said = place.done(&["store", "backup", "backups/one.redb"], "").stdout;
    assert!(said.contains("by the running gate"), "{said}");
    assert_eq!(mode(&copy), 0o600);
    let said = place.fails(&["store", "backup", "backups/one.redb"], "");
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(fs::read_dir(place.path("backups")).unwrap().count(), 1, "nothing else is left");
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    drop(gate);

    let restored = with_store(&place, &copy);
    let gate = restored.start();
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
    assert_eq!(gate.get("/", &revoked.access).await.status, StatusCode::UNAUTHORIZED);
    assert_invalid_grant(&gate.refresh(&revoked.refresh).await);
}

#[tokio::test]
async fn without_a_gate_the_file_is_copied() {
    let place = Place::new(CONFIG);
    assert!(place.fails(&["store", "backup", "none.redb"], "").contains("rotogate.redb"), "there is none yet");
    let gate = place.start();
    let tokens = gate.login().await;
    // The commands do not find the gate here: the file is in use.
    assert!(place.fails(&["store", "backup", "copy.redb"], "").contains("in use by another process"));
    place.point_commands_at(&gate);
    assert_eq!(gate.stop(), Some(0));
    let before = fs::read(place.path(STORE)).unwrap();
    let said = place.json(&["store", "backup", "copy.redb"], "");
    let copy = place.path("copy.redb");
    assert_eq!(said["bytes"], fs::metadata(&copy).unwrap().len());
    assert_eq!(mode(&copy), 0o600);
    assert_eq!(fs::read(place.path(STORE)).unwrap(), before, "the store is left as it is");
    let restored = with_store(&place, &copy);
    assert_eq!(restored.start().refresh(&tokens.refresh).await.status, StatusCode::OK);
}

#[test]
fn a_memory_store_cannot_be_backed_up() {
    let place = Place::new(&format!("{CONFIG}[store]\nkind = \"memory\"\n"));
    assert!(place.fails(&["store", "backup", "copy.redb"], "").contains("memory"));
    place.done(&["keys", "init"], "");
    assert!(place.fails(&["store", "restore", "copy.redb"], "").contains("memory"));
}

#[tokio::test]
async fn o5_an_older_store_is_refused_until_the_operator_accepts_it() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let old = gate.login().await;
    assert_eq!(gate.stop(), Some(0));
    fs::copy(place.path(STORE), place.path("older")).unwrap();
    let gate = place.start();
    assert_eq!(gate.revoke(&old.refresh).await.status, StatusCode::OK);
    let new = gate.login().await;
    assert_eq!(gate.stop(), Some(0));

    fs::rename(place.path("older"), place.path(STORE)).unwrap();
    let before = fs::read(place.path(STORE)).unwrap();
    let said = place.refused();
    assert!(said.contains("RESTORED BACKUP") && said.contains("rotogate store accept-restored"), "{said}");
    assert_eq!(fs::read(place.path(STORE)).unwrap(), before);
    assert_eq!(place.json(&["store", "accept-restored"], "")["accepted"], true);
    let said = place.done(&["store", "accept-restored"], "").stdout;
    assert!(said.contains("nothing to accept"), "{said}");
    let gate = place.start();
    assert!(place.fails(&["store", "accept-restored"], "").contains("in use"), "a gate runs");
    assert_eq!(gate.refresh(&old.refresh).await.status, StatusCode::OK, "what accepting means");
    assert_invalid_grant(&gate.refresh(&new.refresh).await);
    assert_eq!(gate.stop(), Some(0));
    drop(place.start());
}

#[tokio::test]
async fn p18_after_a_restore_with_end_all_no_earlier_token_passes_and_logins_do() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    let minted = place.json(&["token", "mint", "--subject", "job", "--client", "web"], "");
    let minted = minted["access_token"].as_str().unwrap().to_owned();
    let [kept, revoked] = [gate.login().await, gate.login().await];
    place.done(&["store", "backup", "backup.redb"], "");
    let backup = fs::read(place.path("backup.redb")).unwrap();
    // After the back-up: a logout, a refresh, a login.
    assert_eq!(gate.revoke(&revoked.refresh).await.status, StatusCode::OK);
    let [refreshed, later] = [gate.refresh(&kept.refresh).await.tokens(), gate.login().await];
    let said = place.fails(&["store", "restore", "backup.redb", "--end-all"], "");
    assert!(said.contains("in use by a gate: stop the gate"), "{said}");
    assert_eq!(gate.get("/", &later.access).await.status, StatusCode::OK);
    assert_eq!(gate.stop(), Some(0));

    // A file that is not a back-up of this store changes nothing.
    let before = fs::read(place.path(STORE)).unwrap();
    let files = || fs::read_dir(place.path("data")).unwrap().count();
    let number = files();
    let text = place.path("list.redb");
    fs::write(&text, "a shopping list").unwrap();
    fs::set_permissions(&text, fs::Permissions::from_mode(0o600)).unwrap();
    for wrong in ["list.redb", "nosuch.redb", STORE] {
        place.fails(&["store", "restore", wrong, "--end-all"], "");
        assert!(fs::read(place.path(STORE)).unwrap() == before && files() == number, "{wrong}");
    }

    let said = place.json(&["store", "restore", "backup.redb", "--end-all"], "");
    assert_eq!(said["all_ended"], true);
    assert!(fs::read(said["kept"].as_str().unwrap()).unwrap() == before, "the former store is kept");
    assert!(fs::read(place.path("backup.redb")).unwrap() == backup, "the back-up stays as it is");
    assert_eq!(mode(&place.path(STORE)), 0o600);
    // The configuration needs no key for this.
    let gate = place.start();
    for tokens in [&kept, &revoked, &refreshed, &later] {
        assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
        assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
    }
    assert_eq!(gate.get("/", &minted).await.status, StatusCode::UNAUTHORIZED);
    let new = gate.login().await;
    assert_eq!(gate.get("/", &new.access).await.status, StatusCode::OK);
    let new = gate.refresh(&new.refresh).await.tokens();
    assert_eq!(gate.stop(), Some(0));
    let gate = place.start();
    assert_eq!(gate.get("/", &new.access).await.status, StatusCode::OK);
    assert_eq!(gate.get("/", &later.access).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.stop(), Some(0));

    // A lost store, and a restore that ends no session and names the consequences.
    fs::remove_file(place.path(STORE)).unwrap();
    let said = place.done(&["store", "restore", "backup.redb"], "").stdout;
    assert!(said.contains("revoked after the back-up are valid again"), "{said}");
    let gate = place.start();
    assert_eq!(gate.get("/", &revoked.access).await.status, StatusCode::OK);
    assert_eq!(gate.refresh(&kept.refresh).await.status, StatusCode::OK);
}

#[test]
fn o4_a_deleted_store_is_refused() {
    let place = Place::new(CONFIG);
    drop(place.start());
    fs::remove_file(place.path(STORE)).unwrap();
    let said = place.refused();
    assert!(said.contains("LOST FILE") && said.contains("rotogate store accept-restored"), "{said}");
    assert!(!place.path(STORE).exists());
}

#[test]
fn o4_what_is_no_store_is_refused_and_left_as_it_was() {
    let place = Place::new(CONFIG);
    assert_eq!(place.start().stop(), Some(0));
    let good = fs::read(place.path(STORE)).unwrap();
    let mut damaged = good.clone();
    let half = damaged.len() / 2;
    damaged[64..half].iter_mut().for_each(|byte| *byte ^= 0x55);
    let half = &good[..half];
    for (what, bytes) in [("text", &b"a shopping list\n"[..]), ("empty", b""), ("damaged", &damaged), ("half", half)] {
        fs::write(place.path(STORE), bytes).unwrap();
        let said = place.refused();
        assert!(said.contains("rotogate.redb") && said.contains("left as it was"), "{what}: {said}");
        assert_eq!(fs::read(place.path(STORE)).unwrap(), bytes, "{what}");
    }
    fs::write(place.path(STORE), good).unwrap();
    drop(place.start());
}

#[test]
fn o4_keys_of_another_keyring_are_refused_with_the_old_store() {
    let (place, other) = (Place::new(CONFIG), Place::new(CONFIG));
    drop((place.start(), other.start()));
    let before = fs::read(place.path(STORE)).unwrap();
    fs::rename(place.path("data/keys"), place.path("data/keys-before")).unwrap();
    fs::rename(other.path("data/keys"), place.path("data/keys")).unwrap();
    let said = place.refused();
    assert!(said.contains("belongs to keyring") && said.contains("`[issuer] keys`"), "{said}");
    assert_eq!(fs::read(place.path(STORE)).unwrap(), before);
    fs::remove_dir_all(place.path("data/keys")).unwrap();
    fs::rename(place.path("data/keys-before"), place.path("data/keys")).unwrap();
    drop(place.start());
}

#[tokio::test]
async fn o4_no_keys_are_made_beside_a_store_that_has_others() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    assert_eq!(gate.stop(), Some(0));
    let before = fs::read(place.path(STORE)).unwrap();
    fs::rename(place.path("data/keys"), place.path("keys-before")).unwrap();

    let (started, checked) = (place.refused(), place.run(&["check"], ""));
    assert_eq!(checked.code, Some(2), "{checked:?}");
    for said in [started, checked.stderr] {
        for part in ["issuer.keys", "data/keys", "rotogate.redb", "from the back-up", "To start over"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
    assert!(place.fails(&["keys", "init"], "").contains("from the back-up"));
    assert!(!place.path("data/keys").exists());
    assert_eq!(fs::read(place.path(STORE)).unwrap(), before);

    // The keys of the back-up have their place.
    fs::rename(place.path("keys-before"), place.path("data/keys")).unwrap();
    let gate = place.start();
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
    assert_eq!(gate.stop(), Some(0));

    // Neither keys nor store, but a mark: the store was lost, and a first start would hide that.
    fs::rename(place.path("data/keys"), place.path("keys-before")).unwrap();
    fs::rename(place.path(STORE), place.path("store-before")).unwrap();
    assert!(place.path("data/store.mark").exists());
    let said = place.refused();
    assert!(said.contains("store.mark"), "{said}");
    assert!(!place.path("data/keys").exists());

    // What the message says begins anew.
    fs::remove_file(place.path("data/store.mark")).unwrap();
    let gate = place.start();
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
    gate.login().await;
}
