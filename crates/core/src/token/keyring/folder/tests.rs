use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

fn home() -> (tempfile::TempDir, PathBuf) {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("data/keys");
    (home, dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// The files of the folder, without the writers' lock.
fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).filter(|path| *path != lock(dir)).collect()
}

fn lock(dir: &Path) -> PathBuf {
    dir.join(".keyring.toml.lock")
}

fn secret_file(home: &Path, name: &str, text: &[u8]) -> PathBuf {
    let path = home.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn o2_the_first_start_makes_a_ring_that_nobody_else_can_read() {
    for algorithm in [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256, Algorithm::Hs256] {
        let (_home, dir) = home();
        let made = Keyring::load_or_create(&dir, algorithm).unwrap();
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(files(&dir).len(), 3, "{:?}", files(&dir));
        assert_eq!(mode(&lock(&dir)), 0o600);
        for file in files(&dir) {
            assert_eq!(mode(&file), 0o600, "{}", file.display());
        }
        let again = Keyring::load_or_create(&dir, algorithm).unwrap();
        assert_eq!(made.id(), again.id());
        assert_eq!(made.signer().kid(), again.signer().kid());
        let signature = made.signer().sign(b"x").unwrap();
        assert!(again.signer().verifying_key().verifies(b"x", &signature));
        assert!(Keyring::create(&dir, algorithm).is_err(), "a key ring is never made over another");
    }
}

#[test]
fn o2_a_file_open_to_others_stops_the_start_and_says_what_to_do() {
    let (_home, dir) = home();
    Keyring::create(&dir, Algorithm::EdDsa).unwrap();
    for file in files(&dir) {
        for bad in [0o604, 0o644, 0o602, 0o660, 0o620] {
            fs::set_permissions(&file, fs::Permissions::from_mode(bad)).unwrap();
            let error = Keyring::load(&dir).unwrap_err().to_string();
            let name = file.display().to_string();
            assert!(error.starts_with(&name) && error.contains(&format!("chmod 600 {name}")), "{error}");
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        Keyring::load(&dir).expect("a group of ours may read");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        Keyring::load(&dir).unwrap();
    }
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Keyring::load(&dir).unwrap_err().to_string().contains("chmod 700"));
}

#[test]
fn o2_symlinks_are_read_through_and_never_written_through() {
    let (home, dir) = home();
    let made = Keyring::create(&dir, Algorithm::EdDsa).unwrap();
    let link = home.path().join("link");
    symlink(&dir, &link).unwrap();
    assert_eq!(Keyring::load(&link).unwrap().id(), made.id());
    assert!(Keyring::add(&link, Algorithm::EdDsa, KeyState::Signing).is_err());
    assert!(Keyring::make_signing(&link, made.signer().kid()).is_err());

    // In a mounted secret of Kubernetes, every file is a link.
    let index = dir.join(INDEX);
    let elsewhere = home.path().join("elsewhere.toml");
    fs::rename(&index, &elsewhere).unwrap();
    symlink(&elsewhere, &index).unwrap();
    assert_eq!(Keyring::load(&dir).unwrap().id(), made.id());
    let before = fs::read(&elsewhere).unwrap();
    assert!(Keyring::add(&dir, Algorithm::EdDsa, KeyState::Signing).is_err());
    assert_eq!(fs::read(&elsewhere).unwrap(), before);

    // A first start in a folder that an attacker prepared.
    let trap = home.path().join("trap");
    let target = home.path().join("target");
    symlink(&target, &trap).unwrap();
    assert!(Keyring::create(&trap, Algorithm::EdDsa).is_err());
    assert!(!target.exists());
}

#[test]
fn j16_keys_are_added_put_to_use_and_still_verify() {
    let (home, dir) = home();
    let first = Keyring::create(&dir, Algorithm::EdDsa).unwrap();
    let old = first.signer().kid().to_owned();

    let second = Keyring::add(&dir, Algorithm::Es256, KeyState::Verifying).unwrap();
    let ring = Keyring::load(&dir).unwrap();
    assert_eq!((ring.signer().kid(), ring.signing_keys().count()), (old.as_str(), 2));
    Keyring::make_signing(&dir, &second).unwrap();
    let ring = Keyring::load(&dir).unwrap();
    assert_eq!(ring.signer().kid(), second);
    assert!(ring.signing_key(&old).is_some());
    assert!(Keyring::make_signing(&dir, "nobody").is_err());

    let pem = KeyMaterial::generate(Algorithm::Rs256).unwrap();
    let source = secret_file(home.path(), "mine.pem", pem.expose());
    let third = Keyring::import(&dir, &source, Algorithm::Rs256, KeyState::Verifying).unwrap();
    assert_eq!(Keyring::load(&dir).unwrap().signer().kid(), second);
    assert_eq!(Keyring::import(&dir, &source, Algorithm::Rs256, KeyState::Signing).unwrap(), third);
    let ring = Keyring::load(&dir).unwrap();
    assert_eq!((ring.signer().kid(), ring.signing_keys().count()), (third.as_str(), 3));
    assert!(Keyring::import(&dir, &source, Algorithm::Ps256, KeyState::Verifying).is_err(), "one key, one algorithm");
    assert!(Keyring::import(&dir, &source, Algorithm::Rs256, KeyState::Verifying).is_err(), "somebody has to sign");
    assert_eq!(ring.id(), first.id());
    assert!(files(&dir).iter().all(|f| mode(f) == 0o600));
    assert_eq!(files(&dir).len(), 5, "three keys, a refresh secret and the index: {:?}", files(&dir));
}

#[test]
fn an_import_that_was_cut_short_can_be_repeated() {
    let (home, dir) = home();
    Keyring::create(&dir, Algorithm::EdDsa).unwrap();
    let pem = KeyMaterial::generate(Algorithm::EdDsa).unwrap();
    let source = secret_file(home.path(), "mine.pem", pem.expose());
    let index = fs::read(dir.join(INDEX)).unwrap();
    let kid = Keyring::import(&dir, &source, Algorithm::EdDsa, KeyState::Verifying).unwrap();
    secret_file(&dir, INDEX, &index);
    assert_eq!(Keyring::import(&dir, &source, Algorithm::EdDsa, KeyState::Signing).unwrap(), kid);
    assert_eq!(Keyring::load(&dir).unwrap().signer().kid(), kid);
}

#[test]
fn j2_an_import_refuses_public_keys_and_short_secrets_and_names_the_file() {
    let (home, dir) = home();
    Keyring::create(&dir, Algorithm::EdDsa).unwrap();
    let spki = [&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00][..], &[8; 32]].concat();
    let public = pem::encode(&pem::Pem::new("PUBLIC KEY", spki.clone()));
    for text in [public.as_bytes(), public.trim().as_bytes(), &spki, b"c2hvcnQ"] {
        let source = secret_file(home.path(), "mine", text);
        for algorithm in [Algorithm::Hs256, Algorithm::Hs512, Algorithm::EdDsa] {
            let error = Keyring::import(&dir, &source, algorithm, KeyState::Signing).unwrap_err().to_string();
            assert!(error.starts_with(&source.display().to_string()), "{error}");
        }
    }
    let source = secret_file(home.path(), "mine", KeyMaterial::generate(Algorithm::Hs256).unwrap().expose());
    fs::set_permissions(&source, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(Keyring::import(&dir, &source, Algorithm::Hs256, KeyState::Signing).is_err(), "others may have read it");
    assert_eq!(Keyring::load(&dir).unwrap().signing_keys().count(), 1);
}

#[test]
fn j2_a_public_key_put_in_the_place_of_a_secret_stops_the_start() {
    let (_home, dir) = home();
    Keyring::create(&dir, Algorithm::Hs256).unwrap();
    let is_key = |f: &PathBuf| f.extension().is_some_and(|e| e == "secret") && !f.ends_with("refresh-1.secret");
    let file = files(&dir).into_iter().find(is_key).unwrap();
    let public = pem::encode(&pem::Pem::new("PUBLIC KEY", vec![1; 40]));
    fs::write(&file, public).unwrap();
    let error = Keyring::load(&dir).unwrap_err().to_string();
    assert!(error.contains("never be an HMAC secret") && error.contains(&file.display().to_string()), "{error}");
}

#[test]
fn a_lost_index_is_not_taken_for_a_first_start() {
    let (_home, dir) = home();
    Keyring::create(&dir, Algorithm::EdDsa).unwrap();
    fs::remove_file(dir.join(INDEX)).unwrap();
    let error = Keyring::load_or_create(&dir, Algorithm::EdDsa).unwrap_err().to_string();
    assert!(error.contains("bring it back"), "{error}");
}

#[test]
fn a_malformed_index_is_an_error_that_says_where() {
    let (_home, dir) = home();
    Keyring::create(&dir, Algorithm::EdDsa).unwrap();
    let good = fs::read_to_string(dir.join(INDEX)).unwrap();
    let cases = [
        (good.replace("version = 1", "version = 2"), "version 2"),
        (good.replace("\"signing\"", "\"verifying\""), "no key has the state"),
        (good.replace("\"current\"", "\"verifying\""), "no refresh key has the state"),
        (good.replace("EdDSA", "none"), "accepted are"),
        (good.replace("EdDSA", "ES256"), "another kind"),
        (good.replace("refresh-1.secret", "../refresh-1.secret"), "in the same folder"),
        (good.replace("refresh-1.secret", "refresh-2.secret"), "refresh-2.secret"),
        (format!("{good}\nunknown = 1\n"), "unknown"),
        ("garbage".to_owned(), "keyring.toml"),
    ];
    for (text, expected) in cases {
        assert_ne!(text, good);
        secret_file(&dir, INDEX, text.as_bytes());
        let error = Keyring::load(&dir).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("keys/"), "{expected}: {error}");
    }
}

#[test]
fn starting_twice_at_once_makes_one_ring() {
    let (_home, dir) = home();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let starts: Vec<_> =
            (0..8).map(|_| scope.spawn(|| Keyring::load_or_create(&dir, Algorithm::EdDsa).unwrap().id())).collect();
        starts.into_iter().map(|s| s.join().unwrap()).collect()
    });
    assert!(ids.windows(2).all(|w| w[0] == w[1]), "{ids:?}");
}

/// Reads the folder until `change` is done, at least once.
fn read_during<T>(read: impl Fn() -> T + Sync, change: impl FnOnce()) -> Vec<T>
where
    T: Send,
{
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut all = vec![read()];
            while !is_done.load(Ordering::Acquire) {
                all.push(read());
            }
            all
        });
        change();
        is_done.store(true, Ordering::Release);
        reader.join().unwrap()
    })
}

#[test]
fn a_folder_is_not_judged_while_a_first_start_fills_it() {
    for _ in 0..20 {
        let (_home, dir) = home();
        let seen = read_during(
            || Keyring::load_if_there(&dir).map(|ring| ring.map(|ring| ring.id())).unwrap(),
            || drop(Keyring::create(&dir, Algorithm::EdDsa).unwrap()),
        );
        let id = Keyring::load(&dir).unwrap().id();
        assert!(seen.iter().flatten().all(|seen| *seen == id));
    }
    // A keyring that is removed leaves an empty folder, and a key of no keyring is still reported.
    let (_home, dir) = home();
    begin(&dir).remove();
    assert!(Keyring::load_if_there(&dir).unwrap().is_none());
    secret_file(&dir, "refresh-1.secret", b"half");
    let error = Keyring::load_if_there(&dir).unwrap_err().to_string();
    assert!(error.contains("was cut short"), "{error}");
    assert!(Keyring::load_or_begin(&dir, Algorithm::EdDsa).is_err());
}

fn begin(dir: &Path) -> Box<NewKeyring> {
    match Keyring::load_or_begin(dir, Algorithm::EdDsa).unwrap() {
        OpenedKeyring::New(new) => new,
        OpenedKeyring::Loaded(_) => panic!("the keyring is in force already"),
    }
}

#[test]
fn c28_a_first_start_that_was_cut_short_is_taken_up_again_with_its_keyring() {
    let (_home, dir) = home();
    let id = begin(&dir).keyring().id();
    assert!(Keyring::load(&dir).is_err(), "the keyring is not in force");
    assert!(Keyring::load_if_there(&dir).unwrap().is_none(), "the next start completes it");
    assert_eq!(begin(&dir).keyring().id(), id);
    // A copied folder belongs to the same store.
    let copy = dir.with_file_name("copy");
    private_file::create_private_dir(&copy).unwrap();
    for file in files(&dir) {
        fs::copy(&file, copy.join(file.file_name().unwrap())).unwrap();
    }
    assert_eq!(Keyring::load_or_create(&copy, Algorithm::EdDsa).unwrap().id(), id);
    assert_eq!(Keyring::create(&dir, Algorithm::EdDsa).unwrap().id(), id);
    assert_eq!(Keyring::load(&dir).unwrap().id(), id);
    assert!(!dir.join(PENDING).exists());
}

/// Whichever file the first start wrote last.
#[test]
fn c28_a_first_start_that_was_cut_short_before_its_keys_were_whole_begins_anew() {
    for lost in 0..=2 {
        let (_home, dir) = home();
        let id = begin(&dir).keyring().id();
        for file in
            files(&dir).iter().filter(|file| file.extension().is_some_and(|e| e == "pem" || e == "secret")).take(lost)
        {
            fs::remove_file(file).unwrap();
        }
        assert!(Keyring::load_if_there(&dir).unwrap().is_none());
        let next = Keyring::load_or_create(&dir, Algorithm::EdDsa).unwrap();
        assert_eq!(next.id() == id, lost == 0, "{lost}");
        assert_eq!(files(&dir).iter().filter(|file| file.extension().is_some_and(|e| e == "pem")).count(), 1);
    }
}

#[test]
fn a_key_that_is_removed_while_the_keyring_is_read_is_no_fault() {
    let (_home, dir) = home();
    Keyring::create(&dir, Algorithm::EdDsa).unwrap();
    let kid = Keyring::add(&dir, Algorithm::EdDsa, KeyState::Verifying).unwrap();
    let index = Index::read(&dir).unwrap();
    Keyring::retire(&dir, &kid).unwrap();
    assert!(index.keyring(&dir).is_err());
    assert!(index.keyring_or_later(&dir).unwrap().signing_key(&kid).is_none());
}
