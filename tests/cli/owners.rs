//! Requirements O17 and P12: root and the user of the service can both use the command line. Only root can try the former; as
//! any other user, the tests check the advice.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use http::StatusCode;

use support::{self, CONFIG, NOBODY, Place, until};

const PASSWORD: &str = "correct horse battery staple";

/// A folder and all its content.
fn belongs_to_the_service(path: &Path) {
    assert_eq!(fs::metadata(path).unwrap().uid(), NOBODY, "{}", path.display());
    for entry in path.is_dir().then(|| fs::read_dir(path).unwrap()).into_iter().flatten() {
        belongs_to_the_service(&entry.unwrap().path());
    }
}

#[tokio::test]
async fn o17_p12_root_can_use_the_command_line_beside_a_service_of_another_user() {
    let place = Place::new(CONFIG);
    if !rustix::process::geteuid().is_root() {
        // Owned by root, and readable by root only.
        place.write_config(&CONFIG.replace("[issuer]", "[directory]\npath = \"/etc/shadow\"\n[issuer]"));
        let said = place.fails(&["user", "list"], "");
        assert!(said.contains("Permission denied") && said.contains("run sudo -u root rotogate"), "{said}");
        assert!(!said.contains("chown"), "{said}");
        return;
    }
    fs::set_permissions(place.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(place.path("data")).unwrap();
    chown(place.path("data"), Some(NOBODY), Some(NOBODY)).unwrap();
    let copy = place.copy_of_binary();
    let script =
        format!("shift; exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {} \"$@\"", copy.display());
    let gate = place.start_in_shell(&script);
    place.point_commands_at(&gate);
    gate.login().await;

    // The command reads files of the service's user, and new files belong to that user.
    assert_eq!(place.done(&["session", "list", "--user", "demo"], "").stdout.lines().count(), 1);
    place.done(&["user", "add", "ada"], PASSWORD);
    until("the service sees the user", async || gate.log_in("ada", PASSWORD).await.status == StatusCode::OK).await;
    place.done(&["keys", "list"], "");
    place.done(&["store", "backup", "data/backup.redb"], "");
    place.done(&["check", "--strict"], "");
    let users = place.path("old.csv");
    fs::write(&users, "username,password_hash\nbea,$2b$04$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6\n")
        .unwrap();
    fs::set_permissions(&users, fs::Permissions::from_mode(0o600)).unwrap();
    let [first, second] = [(); 2].map(|()| place.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned());
    for (arguments, input) in [
        (&["keys", "promote", &first, "--force"][..], ""),
        (&["keys", "retire", &second, "--force"], ""),
        (&["keys", "rotate", "--refresh"], ""),
        (&["user", "import", users.to_str().unwrap()], ""),
        (&["user", "passwd", "ada"], "another password"),
        (&["user", "add-scope", "ada", "read"], ""),
        (&["user", "remove-scope", "ada", "read"], ""),
        (&["user", "disable", "bea"], ""),
        (&["user", "enable", "bea"], ""),
        (&["user", "remove", "bea"], ""),
        (&["user", "passwd", "ada"], PASSWORD),
        (&["token", "mint", "--subject", "job", "--client", "web"], ""),
        (&["session", "revoke", "--all"], ""),
        (&["init", "--dir", "data/new"], ""),
    ] {
        place.done(arguments, input);
        belongs_to_the_service(&place.path("data"));
    }
    assert_eq!(gate.stop(), Some(0));
    place.done(&["store", "restore", "data/backup.redb", "--end-all"], "");
    belongs_to_the_service(&place.path("data"));
    // The service starts again.
    let gate = place.start_in_shell(&script);
    assert_eq!(gate.log_in("ada", PASSWORD).await.status, StatusCode::OK);
}

#[test]
fn o17_a_service_that_was_taken_over_leads_root_to_no_file_of_roots() {
    const SECRET: &str = "root-keeps-this-secret-of-its-own-for-itself";
    let log = "[audit_log]\noutput = \"logs/audit.log\"\non_failure = \"refuse\"\n";
    let place = Place::new(&format!("{CONFIG}{log}"));
    if !rustix::process::geteuid().is_root() {
        // Our own link is followed.
        fs::create_dir(place.path("logs")).unwrap();
        symlink("../linked.log", place.path("logs/audit.log")).unwrap();
        place.done(&["user", "add", "ada"], PASSWORD);
        assert!(fs::metadata(place.path("linked.log")).unwrap().len() > 0);
        return;
    }
    fs::create_dir(place.path("logs")).unwrap();
    place.done(&["user", "add", "ada"], PASSWORD);
    let gate = place.start();
    place.point_commands_at(&gate);
    fs::write(place.path("secret"), SECRET).unwrap();
    fs::set_permissions(place.path("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    let trap = |name: &str| {
        let path = place.path(name);
        fs::remove_file(&path).unwrap();
        symlink(place.path("secret"), &path).unwrap();
        chown(path.parent().unwrap(), Some(NOBODY), Some(NOBODY)).unwrap();
    };
    trap("logs/audit.log");
    trap("data/admin.token");
    for arguments in [&["user", "disable", "ada"][..], &["session", "list"]] {
        let said = place.fails(arguments, "");
        assert!(said.contains("root follows no link"), "{said}");
    }
    assert_eq!(fs::read_to_string(place.path("secret")).unwrap(), SECRET);
    let meta = fs::metadata(place.path("secret")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (0, 0o600));
}

#[test]
fn o17_p12_whoever_may_not_read_a_file_is_told_whom_to_run_as_and_never_to_take_the_file() {
    let place = Place::new(CONFIG);
    assert_eq!(place.start().stop(), Some(0));
    let (mut command, is_another) = support::of_another_user(&place);
    let ran = command.args(["user", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(said.contains("Permission denied") && !said.contains("chown"), "{said}");
    if is_another {
        assert!(said.contains("run sudo -u root rotogate"), "{said}");
    }
    fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o700)).unwrap();
    if is_another {
        // Readable, but owned by another user.
        chown(place.path("data/users.toml"), Some(NOBODY + 1), Some(NOBODY)).unwrap();
        fs::set_permissions(place.path("data/users.toml"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(place.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
        let ran = command.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        let expected = format!("run sudo -u '#{}' rotogate", NOBODY + 1);
        assert!(said.contains("belongs to user") && said.contains(&expected) && !said.contains("chown"), "{said}");
    }
}

#[test]
fn a_missing_folder_that_may_not_be_made_is_refused_with_the_command_that_makes_it() {
    let place = Place::new(CONFIG);
    let (mut command, is_another) = support::of_another_user(&place);
    if !is_another {
        println!("not run here: only root can give a folder to another user");
        return;
    }
    command.arg("check");
    let mut said = || String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
    let refused = "may not be written by user";
    let before = said();
    let advice = before.lines().find(|line| line.contains(refused)).and_then(|line| line.split_once("run sudo "));
    let advice = advice.unwrap_or_else(|| panic!("{before}")).1;
    assert!(advice.starts_with(&format!("install -d -m 0700 -o {NOBODY} ")), "{advice}");
    // The advice helps. This test is root.
    let made = Command::new("sh").arg("-c").arg(advice).current_dir(place.path("")).status().unwrap();
    assert!(made.success(), "{advice}");
    let after = said();
    assert!(!after.contains(refused), "{after}");
}
