//! The files that are opened or refused, and the mark.

use super::*;
use rotogate_core::store::kit::highwater::{COMMITS_PER_MARK, HighWater, Mark};
use rotogate_core::store::owed::Owed;
use rotogate_core::store::reset_clock;

#[tokio::test]
async fn o4_a_file_that_is_not_a_sound_store_is_refused_and_left_as_it_is() {
    let place = Place::new();
    let store = place.open();
    fill(&store).await;
    store.close().await.unwrap();
    drop(store);
    let good = std::fs::read(place.path()).unwrap();
    let noise: Vec<u8> = (0..20_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let header_and_noise = [&good[..512], &noise[..]].concat();
    let cases: [(&str, &[u8]); 7] = [
        ("noise", &noise),
        ("text", b"[store]\nkind = \"redb\"\n"),
        ("empty", b""),
        ("cut short in the header", &good[..100]),
        ("cut short in the middle", &good[..good.len() / 2]),
        ("a page less", &good[..good.len() - 4096]),
        ("a header before noise", &header_and_noise),
    ];
    for (what, bytes) in cases {
        place.replace(bytes);
        let error = place.refused();
        assert!(error.contains("rotogate.redb") && error.contains("The file was left as it was"), "{what}: {error}");
    }
    place.replace(&good);
    place.open();
}

#[tokio::test]
async fn o4_a_damaged_page_is_found_wherever_it_lies() {
    let place = Place::new();
    let store = place.open();
    for n in 0..40 {
        insert(&store, &session("alice", n, START)).await;
    }
    let before = content(&store).await;
    store.close().await.unwrap();
    drop(store);
    let good = std::fs::read(place.path()).unwrap();
    let mut refused = 0;
    for page in 0..good.len() / 4096 {
        let range = page * 4096 + 40..page * 4096 + 200;
        if good[range.clone()].iter().all(|&byte| byte == 0) {
            continue;
        }
        let mut bad = good.clone();
        bad[range].iter_mut().for_each(|byte| *byte ^= 0x55);
        place.replace(&bad);
        match RedbStore::open(place.path(), place.options()) {
            // The damaged page is not in use.
            Ok(store) => assert_eq!(content(&store).await, before, "page {page}"),
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("The file was left as it was"), "page {page}: {error}");
                assert!(std::fs::read(place.path()).unwrap() == bad, "page {page}");
            }
        }
    }
    assert!(refused > 5, "{refused}");
}

#[tokio::test]
async fn o4_another_programs_redb_file_is_refused_even_where_redb_would_repair_it() {
    let place = Place::new();
    place.replace(b"");
    let file = rotogate_core::private_file::open_private(&place.path(), true).unwrap();
    let (theirs, _) = open::create(file, 1 << 20).unwrap();
    let transaction = theirs.begin_write().unwrap();
    transaction.open_table(redb::TableDefinition::<u64, u64>::new("theirs")).unwrap().insert(1, 2).unwrap();
    transaction.commit().unwrap();
    let not_closed = std::fs::read(place.path()).unwrap();
    drop(theirs);
    assert!(place.refused().contains("some other program"));
    place.replace(&not_closed);
    assert!(place.refused().contains("some other program"));
}

#[tokio::test]
async fn o4_another_schema_or_another_keyring_is_refused() {
    let place = Place::new();
    drop(place.open());
    let other = Options { keyring_id: Uuid::from_u128(1), ..place.options() };
    let error = place.refused_with(other);
    assert!(error.contains("keyring") && error.contains(&KEYRING.to_string()), "{error}");

    let database = Database::open(place.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    let schema = 3_u32.to_be_bytes();
    transaction.open_table(schema::META).unwrap().insert(schema::SCHEMA_ROW, schema.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(place.refused().contains("schema version 3"));
}

#[tokio::test]
async fn o4_a_record_of_an_unknown_version_is_an_error_and_can_still_be_revoked() {
    let place = Place::new();
    let [a, b] = [1, 2].map(|n| session("alice", n, START));
    let store = place.open();
    insert(&store, &a).await;
    insert(&store, &b).await;
    drop(store);
    let database = Database::open(place.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(SESSIONS).unwrap().insert(a.id.as_bytes(), [7, 1, 2].as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let store = place.open();
    for error in
        [store.load(a.id).await.unwrap_err(), store.compare_and_swap(1, rotated(&a, START), None).await.unwrap_err()]
    {
        let text = error.to_string();
        assert!(text.contains("version 7") && text.contains(&a.id.to_string()), "{text}");
        assert!(error.is_of_one_record(), "{text}");
    }
    for filter in [Filter::All, Filter::Subject("alice".into())] {
        assert_eq!(store.list(filter, None, 9).await.unwrap().sessions, std::slice::from_ref(&b));
    }
    // The other sessions continue, and the revocation lasts at least as long as the session could.
    store.confirm(vec![(a.id, Generation::FIRST), (b.id, Generation::FIRST)]).await.unwrap();
    assert!(store.load(b.id).await.unwrap().unwrap().confirmed);
    let entry = store.revoke(gone(a.id), RevokedBecause::Operator).await.unwrap();
    assert_eq!(entry.effect, Effect::SESSION_REVOKED);
    assert!(entry.until >= a.expires.plus(conformance::LEEWAY));
    let swept = store.sweep(a.expires.plus(Duration::from_secs(8000))).await.unwrap();
    assert_eq!(swept.sessions, 2);
    assert_eq!(store.list(Filter::Subject("alice".into()), None, 9).await.unwrap().sessions, []);
}

#[tokio::test]
async fn a_store_in_use_is_not_opened_twice() {
    let place = Place::new();
    let store = place.open();
    let error = RedbStore::open(place.path(), place.options()).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    let error = RedbStore::backup_file(place.path(), place.dir.path().join("copy")).unwrap_err().to_string();
    assert!(error.contains("in use by another process"), "{error}");
    drop(store);
    place.open();
}

#[cfg(unix)]
#[tokio::test]
async fn o2_files_are_made_for_us_alone_and_others_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let place = Place::new();
    drop(place.open());
    for file in [place.path(), place.mark()] {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        for open in [0o644, 0o660, 0o602] {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(open)).unwrap();
            let error = place.refused();
            assert!(error.contains("chmod 600") && error.contains(&*file.to_string_lossy()), "{error}");
        }
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let files = std::fs::read_dir(place.path().parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut beside: Vec<_> = files.filter(|file| *file != place.path()).collect();
    let owed = beside.pop().unwrap();
    assert!(owed.to_string_lossy().ends_with(".owed") && mode(&owed) == 0o600, "{}", owed.display());
    assert_eq!(beside.len(), 0, "nothing else is left behind: {beside:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn o2_a_link_is_read_through_and_never_created_through() {
    let place = Place::new();
    drop(place.open());
    let linked = Place::new();
    std::fs::create_dir_all(linked.path().parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(place.path(), linked.path()).unwrap();
    let error = linked.refused_with(Options { keyring_id: Uuid::nil(), ..linked.options() });
    assert!(error.contains("keyring"), "it was read: {error}");
    drop(linked.open());

    let dangling = Place::new();
    std::fs::create_dir_all(dangling.path().parent().unwrap()).unwrap();
    let elsewhere = dangling.dir.path().join("elsewhere");
    std::os::unix::fs::symlink(&elsewhere, dangling.path()).unwrap();
    dangling.refused();
    assert!(!elsewhere.exists());
}

#[tokio::test]
async fn o5_a_lost_store_is_not_silently_begun_anew() {
    let place = Place::new();
    drop(place.open());
    std::fs::remove_file(place.path()).unwrap();
    let error = place.refused();
    assert!(error.contains("LOST FILE") && error.contains("store accept-restored"), "{error}");
    assert!(!place.path().exists());
    drop(RedbStore::open(place.path(), Options { accept_restored: true, ..place.options() }).unwrap());
    // The alarm is logged once, because the mark now names the new store.
    place.open();
}

#[tokio::test]
async fn o5_a_restored_backup_needs_the_operators_word() {
    let place = Place::new();
    let store = place.open();
    let backup = place.dir.path().join("backup.redb");
    store.backup_to(&backup).await.unwrap();
    fill(&store).await;
    store.close().await.unwrap();
    drop(store);
    let latest = std::fs::read(place.path()).unwrap();
    place.replace(&std::fs::read(&backup).unwrap());
    let error = place.refused();
    assert!(error.contains("RESTORED BACKUP") && error.contains("store accept-restored"), "{error}");
    let accepted = RedbStore::open(place.path(), Options { accept_restored: true, ..place.options() }).unwrap();
    assert_eq!(content(&accepted).await, (vec![], vec![], Timestamp::ZERO));
    drop(accepted);
    drop(place.open());
    // The original store lacks the later writes to the restored one, so it now counts as another store.
    place.replace(&latest);
    assert!(place.refused().contains("but this store is"));
}

#[tokio::test]
async fn o5_another_store_in_the_place_of_ours_is_noticed() {
    let (place, other) = (Place::new(), Place::new());
    drop(place.open());
    let store = other.open();
    fill(&store).await;
    drop(store);
    place.replace(&std::fs::read(other.path()).unwrap());
    assert!(place.refused().contains("but this store is"));
    let accepted = RedbStore::open(place.path(), Options { accept_restored: true, ..place.options() }).unwrap();
    assert_eq!(content(&accepted).await.0.len(), 3);
    drop(accepted);
    place.open();
}

#[tokio::test]
async fn o5_the_mark_is_written_at_start_and_at_a_clean_stop_and_never_ahead_of_the_store() {
    let place = Place::new();
    let file = HighWater::at(place.mark());
    let sequence = || file.read().unwrap().map(|mark| mark.sequence);
    let store = place.open();
    let at_start = sequence();
    assert_eq!(at_start, Some(store.head().unwrap().sequence));
    fill(&store).await;
    let durable = store.head().unwrap().sequence;
    assert_eq!(sequence(), at_start, "a few commits are not yet marked");
    // The process is killed at this moment. The store is then ahead of its mark, which is allowed.
    let killed = killed_copy(&place);
    std::fs::create_dir_all(killed.mark().parent().unwrap()).unwrap();
    file.read().unwrap().map(|mark| HighWater::at(killed.mark()).write(mark)).unwrap().unwrap();
    drop(killed.open());
    store.close().await.unwrap();
    assert_eq!(sequence(), Some(durable));
}

#[tokio::test]
async fn k35_a_store_that_lacks_the_last_revocation_of_a_key_is_refused_after_a_crash() {
    let key = |jti: &str| Target::Token { issuer: conformance::ISSUER.into(), jti: jti.into() };
    let with_keys = Effect::not_before(later(START, 7), true);
    for (target, effect) in [
        (key("acme_k1"), Effect::Gone),
        (Target::Subject { issuer: conformance::ISSUER.into(), subject: "alice".into() }, with_keys),
        (Target::Global, with_keys),
    ] {
        let place = Place::new();
        let store = place.open();
        fill(&store).await;
        let before = killed_copy(&place);
        store
            .revoke(Revocation { target, effect, until: later(START, 9_000) }, RevokedBecause::Operator)
            .await
            .unwrap();
        // The process is killed at this moment, and the copy from a moment before the revocation takes its place.
        let mark = HighWater::at(place.mark()).read().unwrap().unwrap();
        assert_eq!(mark.sequence, store.head().unwrap().sequence);
        std::fs::create_dir_all(before.mark().parent().unwrap()).unwrap();
        HighWater::at(before.mark()).write(mark).unwrap();
        assert!(before.refused().contains("accept-restored"));
        drop(RedbStore::open(before.path(), Options { accept_restored: true, ..before.options() }).unwrap());
        before.open();
        // What ends no key costs no mark.
        let logout =
            not_before(Target::Subject { issuer: conformance::ISSUER.into(), subject: "bob".into() }, later(START, 8));
        store.revoke(logout, RevokedBecause::Logout).await.unwrap();
        assert_eq!(HighWater::at(place.mark()).read().unwrap(), Some(mark));
    }
}

#[tokio::test]
async fn o5_the_mark_follows_every_few_thousand_commits() {
    let place = Place::new();
    let store = place.open();
    let file = HighWater::at(place.mark());
    let start = file.read().unwrap().unwrap();
    let mut marker = writer::MarkSchedule::new(file.clone(), start.sequence);
    assert_eq!(marker.next, start.sequence + COMMITS_PER_MARK);
    let head = StoreHead { sequence: start.sequence + 5, ..store.head().unwrap() };
    marker.write(head).unwrap();
    assert_eq!(file.read().unwrap(), Some(Mark { store: head.store, sequence: start.sequence + 5 }));
    assert_eq!(marker.next, start.sequence + 5 + COMMITS_PER_MARK);
    // A mark that cannot be written is tried again soon.
    std::fs::remove_file(place.mark()).unwrap();
    std::fs::create_dir(place.mark()).unwrap();
    let later = StoreHead { sequence: start.sequence + 9, ..head };
    assert!(marker.write(later).is_err());
    assert!(marker.next < later.sequence + COMMITS_PER_MARK);
}

#[tokio::test]
async fn r22_live_sessions_are_known_after_a_restart_and_in_a_store_of_an_earlier_version() {
    let bound = SubjectBound { most: 2, idle_ttl: conformance::SESSION_TTL, ends_oldest: true };
    let s = |n| session("alice", n, later(START, n));
    let ended = |inserted| match inserted {
        Inserted::Inserted(ended) => ended.iter().map(|entry| entry.target.clone()).collect::<Vec<_>>(),
        Inserted::TooMany | Inserted::NoLongerValid(_) => panic!("it did not begin"),
    };
    let place = Place::new();
    let store = place.open();
    for n in [1, 2] {
        insert(&store, &s(n)).await;
    }
    drop(store);
    let store = place.open();
    assert_eq!(ended(store.insert(s(3), bound).await.unwrap()), [Target::Session(s(1).id)]);
    drop(store);

    // Changes the file to the form of an earlier version.
    let database = Database::open(place.path()).unwrap();
    let transaction = database.begin_write().unwrap();
    assert!(transaction.delete_table(schema::LIVE).unwrap());
    let version = schema::SCHEMA_WITHOUT_LIVE.to_be_bytes();
    transaction.open_table(schema::META).unwrap().insert(schema::SCHEMA_ROW, version.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let copy = place.dir.path().join("copy.redb");
    RedbStore::backup_file(place.path(), &copy).unwrap();
    for path in [place.path(), copy] {
        let store = RedbStore::open(&path, Options { high_water: None, ..place.options() }).unwrap();
        assert_eq!(ended(store.insert(s(4), bound).await.unwrap()), [Target::Session(s(2).id)], "one was revoked");
        drop(store);
        let store = RedbStore::open(&path, Options { high_water: None, ..place.options() }).unwrap();
        assert_eq!(ended(store.insert(s(5), bound).await.unwrap()), [Target::Session(s(3).id)]);
    }
}

#[tokio::test]
async fn c46_the_clock_of_a_store_is_not_reset_while_a_revocation_waits_beside_it() {
    let place = Place::new();
    let store = place.open();
    // An entry from a time when the clock was ahead.
    let entry = not_before(Target::Global, later(START, 1_000_000));
    let file = store.owed_file().unwrap();
    file.keep(&Owed { entry, because: rotogate_core::session::RevokedBecause::Operator }).unwrap();
    let error = reset_clock::ahead(&store).await.unwrap_err().to_string();
    assert!(
        error.contains("has revocations that are not yet in the store") && error.contains("Start a gate"),
        "{error}"
    );
    file.clear(file.lines()).unwrap();
    reset_clock::ahead(&store).await.unwrap();
}
