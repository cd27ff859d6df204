use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn o2_only_owner_or_our_group_may_have_rights() {
    const US: u32 = 1000;
    let ok = |mode: u32, owner, ours| objection(0o100_000 | mode, owner, US, ours, false).is_none();
    assert!(ok(0o600, US, false) && ok(0o400, US, false) && ok(0o600, 0, false) && ok(0o400, 0, false));
    assert!(ok(0o640, US, true) && ok(0o440, 0, true), "a mounted secret");
    assert!(!ok(0o640, US, false) && !ok(0o440, 0, false), "a group that is not ours");
    for group in [0o660, 0o650, 0o620, 0o610] {
        assert!(!ok(group, US, true), "a group that may do more than read: {group:o}");
    }
    for others in [0o601, 0o602, 0o604, 0o644, 0o666, 0o777] {
        assert!(!ok(others, US, true), "{others:o}");
    }
    assert!(!ok(0o600, 1001, true), "somebody else's");
}

#[test]
fn o17_root_reads_what_belongs_to_the_owner_of_its_folder_and_nobody_else_does() {
    assert!(objection(0o100_600, 994, 0, false, true).is_none());
    assert!(matches!(objection(0o100_644, 994, 0, false, true), Some(Objection::Mode(_))));
    let Some(Objection::Owner(said)) = objection(0o100_600, 994, 0, false, false) else { panic!("another's") };
    assert!(said.starts_with("belongs to user 994") && !said.contains("chown"), "{said}");
    assert!(dir_objection(0o40_700, 994, 0).is_none());
    assert!(matches!(dir_objection(0o40_700, 994, 1000), Some(Objection::Owner(_))));
}

#[test]
fn o17_what_root_makes_belongs_to_the_owner_of_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let owner = |path: &Path| (fs::metadata(path).unwrap().uid(), fs::metadata(path).unwrap().gid());
    let folder = dir.path().join("service");
    fs::create_dir(&folder).unwrap();
    let expected = if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&folder, Some(4242), Some(4243)).unwrap();
        (4242, 4243)
    } else {
        owner(&folder)
    };
    let file = folder.join("a/b/secret");
    create_private_dir(parent(&file)).unwrap();
    write_private_atomic(&file, b"one").unwrap();
    write_private_atomic(&file, b"two").unwrap();
    create_private_new(&file.with_file_name("other"), b"three").unwrap();
    drop(lock_for_edit(&file).unwrap());
    for made in ["a", "a/b", "a/b/secret", "a/b/other", "a/b/.secret.lock"] {
        assert_eq!(owner(&folder.join(made)), expected, "{made}");
    }
    assert_eq!(read_private(&file).unwrap().as_str(), "two");
}

#[test]
fn o2_a_directory_in_which_others_may_exchange_files_is_refused() {
    let ok = |mode: u32, owner| dir_objection(0o40_000 | mode, owner, 1000).is_none();
    assert!(ok(0o700, 1000) && ok(0o755, 0) && ok(0o1777, 0));
    assert!(!ok(0o777, 0) && !ok(0o770, 1000) && !ok(0o702, 1000) && !ok(0o700, 1001));

    let dir = tempfile::tempdir().unwrap();
    check_private_dir(dir.path()).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o770)).unwrap();
    let said = check_private_dir(dir.path()).unwrap_err();
    assert!(said.contains(&format!("chmod 700 {}", dir.path().display())), "{said}");
}

#[test]
fn o2_a_file_that_everyone_may_read_is_refused_with_its_name_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, "s").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let said = read_private(&path).unwrap_err();
    let remedy = format!("chmod 600 {}", path.display());
    assert!(said.starts_with(&path.display().to_string()) && said.contains("644") && said.ends_with(&remedy), "{said}");
    assert_eq!(open_private(&path, true).unwrap_err(), said);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(read_private(&path).unwrap().as_str(), "s");
    assert!(read_private(dir.path()).unwrap_err().contains("not a regular file"));
    assert!(read_private(&dir.path().join("none")).unwrap_err().contains("none: cannot be opened"));
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for writing in [false, true] {
        assert!(open_private(&pipe, writing).unwrap_err().contains("not a regular file"));
    }
}

#[test]
fn what_is_too_long_or_no_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    write_private_atomic(&path, b"12345").unwrap();
    assert_eq!(read_private_bytes(&path, 5).unwrap().as_slice(), b"12345");
    assert!(read_private_bytes(&path, 4).unwrap_err().contains("longer than 4 bytes"));
    write_private_atomic(&path, b"12\xff").unwrap();
    assert!(read_private(&path).unwrap_err().contains("from byte 2 on"));
}

#[test]
fn o2_files_and_directories_are_made_for_us_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/secret");
    create_private_dir(path.parent().unwrap()).unwrap();
    write_private_atomic(&path, b"one").unwrap();
    write_private_atomic(&path, b"two").unwrap();
    assert_eq!(read_private(&path).unwrap().as_str(), "two");
    assert_eq!((mode(&path), mode(&dir.path().join("a/b")), mode(&dir.path().join("a"))), (0o600, 0o700, 0o700));
    assert_eq!(create_private_new(&path, b"three").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(read_private(&path).unwrap().as_str(), "two");
    let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"], "no temporary file stays");
    let lock = lock_for_edit(&path).unwrap();
    assert_eq!(mode(&path.with_file_name(".secret.lock")), 0o600);
    drop(lock);
    lock_for_edit(&path).unwrap();
}

#[test]
fn o2_a_link_is_read_through_but_never_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    write_private_atomic(&real, b"kept").unwrap();
    symlink(&real, &link).unwrap();
    assert_eq!(read_private(&link).unwrap().as_str(), "kept");
    assert!(write_private_atomic(&link, b"lost").unwrap_err().to_string().contains("symbolic link"));
    assert!(create_private_new(&link, b"lost").is_err());
    assert_eq!(fs::read(&real).unwrap(), b"kept");
    symlink(&real, dir.path().join(".real.lock")).unwrap();
    assert!(lock_for_edit(&real).unwrap_err().to_string().contains("symbolic link"));
    assert!(write_private_atomic(dir.path(), b"lost").unwrap_err().to_string().contains("not a regular file"));
}

#[test]
fn o2_nothing_is_published_through_a_dangling_link_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (link, target) = (dir.path().join("store"), dir.path().join("elsewhere"));
    symlink(&target, &link).unwrap();
    let (unpublished, file) = Unpublished::beside(&link).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    assert_eq!(unpublished.publish_new(&link).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert!(!target.exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the link alone");
}

#[test]
fn o17_in_a_folder_of_another_user_root_follows_no_link_and_takes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("service")).unwrap();
    write_private_atomic(&at("victim"), b"root's").unwrap();
    symlink(at("victim"), at("service/log")).unwrap();
    symlink(dir.path(), at("service/deep")).unwrap();
    fs::hard_link(at("victim"), at("service/hard")).unwrap();
    let opened = || {
        ["service/log", "service/deep/victim", "service/hard"].map(|name| {
            let appended = open_to_append(&at(name), 0o640).map(drop).map_err(|error| error.to_string());
            assert_eq!(appended.is_ok(), open_private(&at(name), false).is_ok(), "{name}");
            assert_eq!(appended.is_ok(), open_private(&at(name), true).is_ok(), "{name}");
            appended
        })
    };
    assert_eq!(opened(), [const { Ok(()) }; 3], "our own folder");
    if !rustix::process::geteuid().is_root() {
        println!("not run here: only root can give a folder to another user");
        return;
    }
    std::os::unix::fs::chown(at("service"), Some(4242), Some(4243)).unwrap();
    let [log, deep, hard] = opened().map(Result::unwrap_err);
    assert!(log.contains("root follows no link") && deep == log, "{log} {deep}");
    assert!(hard.contains("regular files of user 4242"), "{hard}");
    symlink(at("elsewhere"), at("service/dangling")).unwrap();
    assert!(open_to_append(&at("service/dangling"), 0o640).is_err());
    assert!(create_private_dir(&at("service/dangling")).is_err());
    assert!(create_private_dir(&at("service/deep/elsewhere")).is_err());
    assert!(create_private_new(&at("service/deep/elsewhere"), b"x").is_err());
    assert!(!at("elsewhere").exists());
    assert_eq!((fs::read(at("victim")).unwrap(), mode(&at("victim"))), (b"root's".to_vec(), 0o600));
    assert_eq!(fs::metadata(at("victim")).unwrap().uid(), 0);
    // A pipe does not hold root up. Users of a group that share root's folder could set a link there, too.
    assert!(std::process::Command::new("mkfifo").arg(at("service/pipe")).status().unwrap().success());
    assert!(open_to_append(&at("service/pipe"), 0o640).is_err());
    std::os::unix::fs::chown(at("service"), Some(0), Some(4243)).unwrap();
    fs::set_permissions(at("service"), fs::Permissions::from_mode(0o770)).unwrap();
    assert!(open_to_append(&at("service/log"), 0o640).is_err());
    fs::set_permissions(at("service"), fs::Permissions::from_mode(0o1770)).unwrap();
    open_to_append(&at("service/log"), 0o640).unwrap();
}
