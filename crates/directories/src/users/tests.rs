use std::sync::mpsc;
use std::time::Duration;

use secrecy::ExposeSecret;

use rotogate_core::private_file;

use super::audit::UserEvent::{Added, Changed, Removed};
use super::edit::{EditError, UserKey};
use super::*;
use rotogate_core::password::{Cost, CostClass, hash_with};
use rotogate_core::session::Scope;

const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_123);
const LATER: Timestamp = Timestamp::from_millis(1_767_225_700_456);
const CHEAP: Cost = Cost { memory_kib: 8, passes: 1, lanes: 1 };
const ADA: UserKey<'_> = UserKey { account: Some("acme"), username: "ada" };

fn secret(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn passwords() -> Arc<Passwords> {
    Arc::new(Passwords::new(1, 8))
}

/// A file with ada of acme, whose password is "right", followed by `more`.
fn file(dir: &tempfile::TempDir, more: &str) -> PathBuf {
    let path = dir.path().join("users.toml");
    let hash = hash_with(&secret("right"), CHEAP).unwrap();
    let text = format!(
        "# kept\n[[users]]\nsubject = \"s-ada\"\nusername = \"ada\" # the first\naccount = \"acme\"\n\
         password = \"{hash}\" # secret\nsessions_valid_from = 1000\nscopes = [\"read\", \"write\"]\n\
         profile = {{ email = \"ada@example.com\", age = 36 }}\n{more}"
    );
    private_file::write_private_atomic(&path, text.as_bytes()).unwrap();
    path
}

fn open(path: &Path) -> Arc<FileDirectory> {
    Arc::new(FileDirectory::open(path, passwords()).unwrap())
}

fn refused(more: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, more);
    let error = FileDirectory::open(&path, passwords()).unwrap_err().to_string();
    error.replace(&format!("{}:", path.display()), "")
}

#[tokio::test]
async fn a_user_logs_in_with_account_name_and_password() {
    let dir = tempfile::tempdir().unwrap();
    let directory = open(&file(&dir, ""));
    let user = directory.authenticate(Some("acme"), "ada", &secret("right")).await.unwrap().unwrap();
    assert_eq!((&*user.subject, user.account.as_deref()), ("s-ada", Some("acme")));
    assert_eq!((user.scopes.as_str(), user.sessions_valid_from), ("read write", Timestamp::from_secs(1)));
    assert_eq!(user.profile["email"], "ada@example.com");
    assert_eq!(user.profile["age"], 36);
    assert_eq!(directory.lookup("s-ada").await.unwrap(), Some(user));
    assert_eq!(directory.lookup("ada").await.unwrap(), None);
    for (account, name) in [(None, "ada"), (Some("other"), "ada"), (Some("acme"), "Ada"), (Some("acme"), "s-ada")] {
        assert_eq!(directory.authenticate(account, name, &secret("right")).await.unwrap(), None, "{account:?} {name}");
    }
}

#[tokio::test]
async fn a2_unknown_inactive_and_wrong_cost_one_run_each_and_look_alike() {
    let dir = tempfile::tempdir().unwrap();
    let hash = hash_with(&secret("right"), CHEAP).unwrap();
    let gone = format!("[[users]]\nsubject = \"s\"\nusername = \"gone\"\npassword = \"{hash}\"\nactive = false\n");
    let directory = open(&file(&dir, &gone));
    let cases = [(Some("acme"), "ada", "wrong"), (Some("acme"), "nobody", "right"), (None, "gone", "right")];
    for (run, (account, name, password)) in cases.into_iter().enumerate() {
        assert_eq!(directory.authenticate(account, name, &secret(password)).await.unwrap(), None);
        assert_eq!(directory.passwords.runs(), run as u64 + 1, "{name}");
    }
    assert_eq!(
        directory.users.load().dearest(),
        CostClass::Argon2(CHEAP),
        "an unknown user costs what a known one does"
    );
    assert!(!directory.lookup("s").await.unwrap().unwrap().active);
}

#[tokio::test]
async fn a2_whoever_logs_in_costs_as_much_as_the_dearest_hash() {
    let dear = Cost { memory_kib: 64, passes: 3, lanes: 1 };
    let dir = tempfile::tempdir().unwrap();
    let hash = hash_with(&secret("right"), dear).unwrap();
    let user = format!("[[users]]\nsubject = \"s\"\nusername = \"dear\"\npassword = \"{hash}\"\n");
    let directory = open(&file(&dir, &user));
    let cases = [
        (Some("acme"), "ada", "wrong"),
        (Some("acme"), "ada", "right"),
        (Some("acme"), "nobody", "right"),
        (None, "dear", "wrong"),
        (None, "dear", "right"),
    ];
    for (account, name, password) in cases {
        let before = directory.passwords.work();
        let found = directory.authenticate(account, name, &secret(password)).await.unwrap();
        assert_eq!(found.is_some(), password == "right" && name != "nobody");
        let work = directory.passwords.work() - before;
        assert!(work <= dear.work() && work + 3 > dear.work(), "{name} {password}: {work}");
    }
}

#[test]
fn a_broken_file_is_refused_with_every_problem_and_its_line() {
    let said = refused(
        "[[users]]\nsubject = \"s-ada\"\nusername = \"ada\"\naccount = \"acme\"\npasword = \"x\"\npassword = \"hunter2\"\n\
         sessions_valid_from = \"yesterday\"\n[[users]]\nusername = \"a\\u0007\"\n[[user]]\n",
    );
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "14:1: users[1].pasword: unknown key; did you mean password?",
            "15:12: users[1].password: is not a hash of an accepted scheme; expected $argon2id$v=19$m=…,t=…,p=…$salt$hash, or a salted \
             hash that docs/users.md lists",
            "16:23: users[1].sessions_valid_from: expected a time in UTC such as 2026-01-31T12:00:00Z, or milliseconds \
             since 1970, found \"yesterday\"",
            "17:1: users[2].subject: missing; expected the sub of the user's tokens",
            "17:1: users[2].password: missing; expected a password hash; see rotogate user passwd and import",
            "18:12: users[2].username: expected a string of at most 256 bytes without control characters, found \
             \"a\\u{7}\"",
            "19:3: user: unknown key; did you mean users?",
        ]
    );
}

#[tokio::test]
async fn i69_the_spellings_of_a_name_are_one_user() {
    let (composed, decomposed) = ("jos\u{e9}", "jose\u{301}");
    for (stored, other) in [(composed, decomposed), (decomposed, composed)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        let who = |username| edit::UserKey { account: None, username };
        let add = |username| {
            edit::add_user(
                &path,
                who(username),
                None,
                &Scope::default(),
                &secret("right password"),
                Timestamp::from_secs(1),
            )
        };
        add(stored).unwrap();
        assert!(matches!(add(other), Err(edit::EditError::Exists(_))));
        let directory = open(&path);
        for typed in [composed, decomposed] {
            let found = directory.authenticate(None, typed, &secret("right password")).await.unwrap();
            assert!(found.is_some(), "{stored:?} {typed:?}");
            assert_eq!(directory.named(None, typed).len(), 1, "{stored:?} {typed:?}");
        }
        // Who edits the file by hand hears of it.
        let text = std::fs::read_to_string(&path).unwrap();
        let twice = format!("{text}\n{}", text.replace(stored, other).replace("subject = \"", "subject = \"x"));
        std::fs::write(&path, twice).unwrap();
        let error = FileDirectory::open(&path, passwords()).unwrap_err().to_string();
        assert!(error.contains("is listed twice in one account"), "{error}");
    }
}

#[test]
fn subject_and_name_in_an_account_are_unique() {
    let hash = hash_with(&secret("right"), CHEAP).unwrap();
    let other = |subject: &str, name: &str, account: &str| {
        format!("[[users]]\nsubject = \"{subject}\"\nusername = \"{name}\"\n{account}password = \"{hash}\"\n")
    };
    let acme = "account = \"acme\"\n";
    assert!(refused(&other("s-ada", "bob", acme)).contains("users[1].subject: \"s-ada\" is listed twice"));
    assert!(refused(&other("s-bob", "ada", acme)).contains("users[1].username: \"ada\" is listed twice"));
    let dir = tempfile::tempdir().unwrap();
    let _ = open(&file(&dir, &other("s-bob", "ada", "")));
}

#[test]
fn j9_a_subject_is_visible_ascii() {
    let hash = hash_with(&secret("right"), CHEAP).unwrap();
    let path = Path::new("users.toml");
    for bad in ["", "a b", "caf\u{e9}", "a\\nb", &"x".repeat(257)] {
        let text = format!("[[users]]\nsubject = \"{bad}\"\nusername = \"a\"\npassword = \"{hash}\"\n");
        let said = parse::parse(&text, &path.into()).unwrap_err();
        assert!(said.starts_with("users.toml:2:11: users[0].subject: expected 1 to 256 visible ASCII"), "{said}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let bob = UserKey { account: None, username: "bob" };
    let bad = edit::add_user(&path, bob, Some("a b"), &Scope::default(), &secret("p"), NOW);
    assert!(matches!(bad, Err(EditError::Invalid(_))));
}

#[cfg(unix)]
#[test]
fn o2_a_file_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    let said = FileDirectory::open(&path, passwords()).unwrap_err().to_string();
    assert!(said.contains("users.toml") && said.contains("chmod 600"), "{said}");
}

#[cfg(unix)]
#[tokio::test]
async fn o2_the_first_start_makes_a_file_for_us_alone_with_one_user() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/users.toml");
    let (directory, first) = FileDirectory::create_with_first_user(&path, passwords(), NOW).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(dir.path().join("data")).unwrap().mode() & 0o777, 0o700);
    assert!(!std::fs::read_to_string(&path).unwrap().contains(first.password.expose_secret()));
    assert!(!format!("{first:?}").contains(first.password.expose_secret()), "o3: it does not print");
    let user = directory.authenticate(None, &first.username, &first.password).await.unwrap().unwrap();
    assert_eq!((user.scopes.as_str(), user.sessions_valid_from), ("read write", NOW));
    assert!(FileDirectory::create_with_first_user(&path, passwords(), NOW).is_err(), "never replaced");
    assert!(std::fs::read_to_string(&path).unwrap().starts_with("# Users of the gate"));
}

#[tokio::test]
async fn r8_another_password_ends_older_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let directory = open(&path);
    edit::set_password(&path, ADA, &secret("new"), NOW).unwrap();
    assert!(directory.reload().unwrap());
    assert_eq!(directory.lookup("s-ada").await.unwrap().unwrap().sessions_valid_from, NOW);
    assert!(directory.authenticate(ADA.account, "ada", &secret("new")).await.unwrap().is_some());
    assert!(directory.authenticate(ADA.account, "ada", &secret("right")).await.unwrap().is_none());
    let text = std::fs::read_to_string(&path).unwrap();
    for kept in ["# kept", "# the first", "# secret"] {
        assert!(text.contains(kept), "{text}");
    }
    edit::set_password(&path, ADA, &secret("newer"), Timestamp::from_secs(5)).unwrap();
    directory.reload().unwrap();
    assert_eq!(directory.lookup("s-ada").await.unwrap().unwrap().sessions_valid_from, NOW, "it never goes back");
}

#[tokio::test]
async fn r8_who_is_put_out_and_let_in_again_has_lost_the_old_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    edit::set_active(&path, ADA, false, NOW).unwrap();
    let directory = open(&path);
    let user = directory.lookup("s-ada").await.unwrap().unwrap();
    assert_eq!((user.active, user.sessions_valid_from), (false, NOW));
    edit::set_active(&path, ADA, true, LATER).unwrap();
    directory.reload().unwrap();
    let user = directory.lookup("s-ada").await.unwrap().unwrap();
    assert_eq!((user.active, user.sessions_valid_from), (true, NOW));
}

#[tokio::test]
async fn r8_a_subject_that_comes_back_does_not_revive_its_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let scopes = Scope::parse("read").unwrap();
    edit::remove_user(&path, ADA).unwrap();
    assert_eq!(edit::list(&path).unwrap(), []);
    assert!(matches!(edit::remove_user(&path, ADA), Err(EditError::Unknown)));
    let subject = edit::add_user(&path, ADA, Some("s-ada"), &scopes, &secret("p"), NOW).unwrap();
    let listed = edit::list(&path).unwrap();
    assert_eq!((subject.as_str(), listed.len(), listed[0].username.as_str()), ("s-ada", 1, "ada"));
    assert_eq!(listed[0].user.sessions_valid_from, NOW);
    assert_eq!(listed[0].user.scopes, scopes);
    let again = edit::add_user(&path, ADA, None, &scopes, &secret("p"), NOW);
    assert!(matches!(again, Err(EditError::Exists(edit::SAME_NAME))));
    let bob = UserKey { account: Some("acme"), username: "bob" };
    let again = edit::add_user(&path, bob, Some("s-ada"), &scopes, &secret("p"), NOW);
    assert!(matches!(again, Err(EditError::Exists("another user has the same subject"))));
    assert!(matches!(edit::add_user(&path, bob, None, &scopes, &secret(""), NOW), Err(EditError::Password(_))));
}

#[test]
fn the_first_user_may_be_added_where_there_is_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/users.toml");
    assert!(matches!(edit::set_active(&path, ADA, true, NOW), Err(EditError::File(_) | EditError::Io(_))));
    edit::add_user(&path, ADA, None, &Scope::default(), &secret("p"), NOW).unwrap();
    let bob = UserKey { account: None, username: "b\"ob\\" };
    edit::add_user(&path, bob, None, &Scope::default(), &secret("p"), NOW).unwrap();
    let listed = edit::list(&path).unwrap();
    assert_eq!(listed.iter().map(|l| l.username.as_str()).collect::<Vec<_>>(), ["ada", "b\"ob\\"]);
    assert_ne!(listed[0].user.subject, listed[1].user.subject);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Users of the gate") && text.matches("# Users of the gate").count() == 1, "{text}");
    edit::remove_user(&path, ADA).unwrap();
    edit::remove_user(&path, bob).unwrap();
    edit::add_user(&path, bob, None, &Scope::default(), &secret("p"), NOW).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Users of the gate") && text.matches("# Users of the gate").count() == 1, "{text}");

    // Another header, such as that of an earlier version, is also kept.
    let (_, users) = text.split_once("\n\n").unwrap();
    private_file::write_private_atomic(&path, format!("# Mine.\n# Two lines.\n\n{users}").as_bytes()).unwrap();
    edit::remove_user(&path, bob).unwrap();
    edit::add_user(&path, ADA, None, &Scope::default(), &secret("p"), NOW).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("# Mine.\n# Two lines.\n") && text.matches("# Mine").count() == 1, "{text}");
}

#[tokio::test]
async fn two_commands_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let names: Vec<String> = (0..4).map(|n| format!("user{n}")).collect();
    std::thread::scope(|scope| {
        for username in &names {
            let path = &path;
            scope.spawn(move || {
                let who = UserKey { account: None, username };
                edit::add_user(path, who, None, &Scope::default(), &secret("p"), NOW).unwrap();
            });
        }
    });
    assert_eq!(edit::list(&path).unwrap().len(), 5);
}

#[test]
fn a_command_does_not_touch_a_broken_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "[[users]]\nsubjekt = \"x\"\n");
    let before = std::fs::read(&path).unwrap();
    let said = edit::set_active(&path, ADA, false, NOW).unwrap_err().to_string();
    assert!(said.contains("did you mean subject?"), "{said}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn o10_a_broken_file_changes_nothing_and_a_sound_one_tells_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let directory = open(&path);
    let (tell, told) = mpsc::channel();
    directory.on_change(move |changes| tell.send(changes.to_vec()).unwrap());
    let sound = std::fs::read(&path).unwrap();

    private_file::write_private_atomic(&path, b"[[users]]\nsubject = 1\n").unwrap();
    assert!(directory.reload().unwrap_err().to_string().contains("users[0].subject"));
    assert!(directory.is_broken());
    assert!(directory.lookup("s-ada").await.unwrap().is_some());
    assert!(told.try_recv().is_err());

    private_file::write_private_atomic(&path, &sound).unwrap();
    assert!(!directory.reload().unwrap(), "nothing changed");
    assert!(!directory.is_broken() && told.try_recv().is_err());

    let before = directory.lookup("s-ada").await.unwrap().unwrap();
    edit::remove_user(&path, ADA).unwrap();
    assert!(directory.reload().unwrap());
    assert_eq!(told.try_recv().unwrap(), [UserChange { before, after: None }]);
    assert_eq!(directory.lookup("s-ada").await.unwrap(), None);
}

#[test]
fn a_change_of_the_file_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let directory = open(&path);
    let (tell, told) = mpsc::channel();
    directory.on_change(move |changes| tell.send(changes.to_vec()).unwrap());
    let _watch = directory.watch().unwrap();
    edit::set_active(&path, ADA, false, NOW).unwrap();
    let changes = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(!changes[0].after.as_ref().unwrap().active);
    edit::set_active(&path, ADA, true, NOW).unwrap();
    let changes = told.recv_timeout(Duration::from_secs(30)).unwrap();
    assert!(changes[0].after.as_ref().unwrap().active);
}

/// Many users with the same hash, which is fast to check.
fn many(number: usize) -> String {
    let hash = hash_with(&secret("right"), CHEAP).unwrap();
    (0..number)
        .map(|n| {
            format!("\n# before {n}\n[[users]] # of {n}\nsubject = \"s-{n}\"\nusername = \"user{n}\"\npassword = \"{hash}\"\n")
        })
        .collect()
}

#[test]
fn a_key_that_looks_like_a_head_within_a_text_is_text() {
    for profile in [
        "profile = { text = \"\"\"\n[[users]]\n\"\"\" }\n",
        "profile = { text = '''\n[[users]]\nsubject = \"s\"\nusername = \"s\"\n''' }\n",
        "[users.profile]\ntext = \"\"\"[[users]]\n\"\"\"\n",
    ] {
        let text = format!("{}{profile}", many(2));
        let users = parse::parse(&text, &Path::new("users.toml").into()).unwrap();
        assert_eq!(users.entries().len(), 2, "{profile}");
        assert!(users.by_subject("s-1").unwrap().user.profile["text"].as_str().unwrap().contains("[[users]]"));
    }
    let said = parse::parse(&format!("users = []\n{}", many(1)), &Path::new("users.toml").into());
    assert!(said.unwrap_err().contains("users.toml:4:"), "a list cannot be continued");
}

#[test]
fn what_changed_between_two_texts_is_named() {
    let read = |text: &str| parse::parse(text, &Path::new("users.toml").into());
    let text = many(5);
    let before = read(&text).unwrap();
    let now = read(&text.replace("\"user2\"", "\"user9\"")).unwrap();
    assert!(now.by_name(None, "user9").is_some() && now.by_name(None, "user2").is_none());
    let (changes, found) = before.changes(&now);
    assert_eq!(changes, Vec::new(), "the login name is not part of a user");
    let [renamed] = &found[..] else { panic!("{found:?}") };
    assert_eq!((renamed.event, renamed.name, renamed.changed.as_deref()), (Changed, "user9", Some("username")));
    let now = read(&text.replace("s-2", "s-9")).unwrap();
    let (changes, found) = before.changes(&now);
    let events: Vec<_> = found.iter().map(|user| (user.event, user.subject)).collect();
    assert_eq!((changes.len(), events), (1, vec![(Removed, Some("s-2")), (Added, Some("s-9"))]));
    // A user moved to the end of the file.
    let moved = text.split_once("\n# before 2").unwrap();
    let (third, rest) = moved.1.split_once("\n# before 3").unwrap();
    let now = read(&format!("{}\n# before 3{rest}\n# before 2{third}", moved.0)).unwrap();
    let (changes, found) = before.changes(&now);
    assert!(changes.is_empty() && found.is_empty(), "{found:?}");
    assert!(read(&text.replace("s-2", "s-3")).unwrap_err().contains("\"s-3\" is listed twice"));
}

#[test]
fn a_file_that_is_cut_short_or_no_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let text = many(5);
    for (cut, said) in [(text.len() - 20, "not TOML"), (text.rfind("username").unwrap(), "username: missing")] {
        private_file::write_private_atomic(&path, &text.as_bytes()[..cut]).unwrap();
        let error = parse::read(&(&path).into()).unwrap_err();
        assert!(error.contains(said), "{error}");
    }
    private_file::write_private_atomic(&path, &[text.as_bytes(), b"\xff"].concat()).unwrap();
    assert!(parse::read(&(&path).into()).unwrap_err().contains("not UTF-8"));
}

#[test]
fn more_users_than_a_file_should_have_are_read_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let write = |number| private_file::write_private_atomic(&path, many(number).as_bytes()).unwrap();
    write(MAX_USERS);
    let directory = open(&path);
    assert_eq!(directory.warnings(), Vec::<String>::new());
    write(MAX_USERS + 1);
    assert!(directory.reload().unwrap());
    let [warning] = &directory.warnings()[..] else { panic!() };
    let remedy = format!("rotogate user import --to sqlite:{}", path.with_extension("db").display());
    assert!(warning.starts_with("there are 2001 users, more than 2000") && warning.ends_with(&remedy), "{warning}");
    edit::add_user(&path, ADA, None, &Scope::default(), &secret("p"), NOW).unwrap();
    assert_eq!(edit::list(&path).unwrap().len(), MAX_USERS + 2);
}

#[test]
fn an_edit_of_one_user_leaves_all_other_text_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let head = "# Mine.\n";
    let before = format!("{head}{}# the end\n", many(4));
    private_file::write_private_atomic(&path, before.as_bytes()).unwrap();
    let text = || std::fs::read_to_string(&path).unwrap();
    let user = |username| UserKey { account: None, username };
    edit::set_active(&path, user("user1"), true, NOW).unwrap();
    assert_eq!(text().replacen("active = true\n", "", 1), before);
    private_file::write_private_atomic(&path, before.as_bytes()).unwrap();
    edit::remove_user(&path, user("user2")).unwrap();
    let from = before.find("\n# before 2").unwrap();
    let to = before.find("\n# before 3").unwrap();
    assert_eq!(text(), format!("{}{}", &before[..from], &before[to..]));
    edit::remove_user(&path, user("user3")).unwrap();
    assert!(text().ends_with("# the end\n") && !text().contains("# before 3"), "{}", text());
    edit::add_user(&path, user("new"), Some("s-new"), &Scope::default(), &secret("p"), NOW).unwrap();
    assert!(text().starts_with(&before[..from]), "{}", text());
    assert_eq!(edit::list(&path).unwrap().len(), 3);
}

#[test]
fn users_are_added_after_the_text_and_nothing_before_them_changes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let text = || std::fs::read_to_string(&path).unwrap();
    let add = |username: &str, subject: &str| {
        let who = UserKey { account: None, username };
        edit::add_user(&path, who, Some(subject), &Scope::default(), &secret("p"), NOW)
    };
    let list_of_inline_tables =
        format!("users = [{{ subject = \"s-0\", username = \"user0\", password = \"{BCRYPT}\" }}]");
    for (before, stays) in [
        (many(3), true),
        (format!("# Mine.\n\n{}# the end, without a line break", many(3)), true),
        (format!("{}profile = {{ a.b = 1 }}\n[users.rehashed]\n", many(3)), true),
        ("# Nobody yet.\n".to_owned(), true),
        (String::new(), true),
        (list_of_inline_tables, false),
        (many(3).replace("[[users]]", " [[users]]"), false),
    ] {
        private_file::write_private_atomic(&path, before.as_bytes()).unwrap();
        let old = edit::list(&path).unwrap();
        add("new", "s-new").unwrap();
        add("newer", "s-newer").unwrap();
        let now = edit::list(&path).unwrap();
        assert_eq!(now.get(..old.len()), Some(&*old), "{before}");
        let names: Vec<_> = now.iter().skip(old.len()).map(|user| (&*user.username, &*user.user.subject)).collect();
        assert_eq!(names, [("new", "s-new"), ("newer", "s-newer")]);
        assert!(!stays || text().starts_with(&before), "{}", text());
        let whole = text();
        for (username, subject, said) in [
            ("new", "s-x", "another user in this account has the same name"),
            ("x", "s-newer", "another user has the same subject"),
            ("newer", "s-newer", "another user in this account has the same name"),
        ] {
            let error = add(username, subject).unwrap_err();
            assert!(matches!(error, EditError::Exists(what) if what.starts_with(said)), "{error}");
        }
        for user in &old {
            assert!(matches!(add(&user.username, "s-x"), Err(EditError::Exists(_))), "{}", user.username);
        }
        assert_eq!(text(), whole);
    }
    // The same name in an account is another user.
    let in_acme = UserKey { account: Some("acme"), username: "new" };
    edit::add_user(&path, in_acme, None, &Scope::default(), &secret("p"), NOW).unwrap();
}

#[test]
fn no_user_is_added_to_a_broken_file_and_every_mistake_has_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let sound = many(3);
    let last = sound.lines().count();
    for (broken, place) in [
        (format!("{sound}active = maybe\n"), format!(":{}:10: not TOML", last + 1)),
        (format!("{sound}colour = \"red\"\n"), format!(":{}:1: users[2].colour: unknown key", last + 1)),
        (sound.replace("\"user1\"", "\"user0\""), ":11:12: users[1].username".to_owned()),
        (sound.replace("\"s-1\"", "\"s-0\""), ":10:11: users[1].subject".to_owned()),
        (sound.replacen("$argon2id", "$md5", 1), ":6:12: users[0].password: is not a hash".to_owned()),
        (format!("user = 1\n{sound}"), ":1:1: user: unknown key".to_owned()),
    ] {
        private_file::write_private_atomic(&path, broken.as_bytes()).unwrap();
        let who = UserKey { account: None, username: "new" };
        let said = edit::add_user(&path, who, None, &Scope::default(), &secret("p"), NOW).unwrap_err().to_string();
        assert!(said.contains(&place), "{place}: {said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), broken);
    }
}

#[test]
fn an_edit_of_a_file_with_windows_line_ends_keeps_its_header() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let ada = std::fs::read_to_string(&path).unwrap().replace("# kept\n", "# a header\n\n");
    private_file::write_private_atomic(&path, ada.replace('\n', "\r\n").as_bytes()).unwrap();
    edit::remove_user(&path, ADA).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap().trim_end(), "# a header");
}

/// A bcrypt hash of "correct horse", made by passlib.
const BCRYPT: &str = "$2b$04$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6";

/// A file with bob, whose hash was imported, and ada of [`file`].
fn with_bob(dir: &tempfile::TempDir) -> PathBuf {
    file(dir, &format!("# of bob\n[[users]]\nsubject = \"s-bob\"\nusername = \"bob\"\npassword = \"{BCRYPT}\" # old\n"))
}

/// Reads the file again until the hash of bob is another one than `before`, and returns it.
fn replaced(path: &Path, before: &str) -> String {
    for _ in 0..600 {
        let users = parse::read(&path.into()).unwrap();
        let hash = users.by_name(None, "bob").unwrap().hash.expose().to_owned();
        if hash != before {
            return hash;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("the hash was not replaced");
}

#[tokio::test(flavor = "multi_thread")]
async fn i31_a_login_replaces_an_imported_hash_once_and_keeps_the_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let path = with_bob(&dir);
    let directory = open(&path);
    let (tell, told) = mpsc::channel();
    directory.on_change(move |changes| tell.send(changes.to_vec()).unwrap());
    let before = directory.lookup("s-bob").await.unwrap().unwrap();
    let right = secret("correct horse");
    assert_eq!(directory.authenticate(None, "bob", &secret("wrong horse")).await.unwrap(), None);
    let logins = (0..8).map(|_| directory.authenticate(None, "bob", &right));
    for login in futures_util::future::join_all(logins).await {
        assert_eq!(login.unwrap().as_ref(), Some(&before));
    }
    let hash = replaced(&path, BCRYPT);
    assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
    let written = std::fs::metadata(&path).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("# of bob") && text.contains("# old") && text.contains("# the first"), "{text}");

    assert!(directory.reload().unwrap(), "the hash is another one");
    assert!(told.try_recv().is_err(), "no user changed: no session ends");
    assert_eq!(directory.lookup("s-bob").await.unwrap().as_ref(), Some(&before), "the mark of the password is kept");
    assert_eq!(directory.authenticate(None, "bob", &right).await.unwrap().as_ref(), Some(&before));
    assert_eq!(directory.authenticate(None, "bob", &secret("wrong horse")).await.unwrap(), None);
    // After the drop, the directory writes nothing more.
    drop(directory);
    assert_eq!(replaced(&path, BCRYPT), hash);
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), written.ino(), "written once");
}

#[tokio::test]
async fn i31_a_hash_that_was_changed_meanwhile_is_not_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = with_bob(&dir);
    let bob = UserKey { account: None, username: "bob" };
    let rehash = |old: &str| edit::Rehash {
        subject: "s-bob".into(),
        old: rotogate_core::password::SecretHash::new(old),
        new: rotogate_core::password::SecretHash::new(hash_with(&secret("correct horse"), CHEAP).unwrap()),
    };
    edit::set_password(&path, bob, &secret("another"), NOW).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(edit::rehash(&(&path).into(), &[rehash(BCRYPT)]).unwrap(), 0);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn i31_another_password_ends_the_sessions_also_after_a_replaced_hash() {
    let dir = tempfile::tempdir().unwrap();
    let path = with_bob(&dir);
    let directory = open(&path);
    let mark = |directory: &FileDirectory| directory.named(None, "bob")[0].password_mark;
    let first = mark(&directory);
    let ours = hash_with(&secret("correct horse"), CHEAP).unwrap();
    let rehash = |old: &str, new: &str| {
        let (old, new) = (old.to_owned(), new.to_owned());
        let (old, new) = (rotogate_core::password::SecretHash::new(old), rotogate_core::password::SecretHash::new(new));
        assert_eq!(edit::rehash(&(&path).into(), &[edit::Rehash { subject: "s-bob".into(), old, new }]).unwrap(), 1);
    };
    rehash(BCRYPT, &ours);
    directory.reload().unwrap();
    assert_eq!(mark(&directory), first);
    let dearer = hash_with(&secret("correct horse"), Cost { passes: 2, ..CHEAP }).unwrap();
    rehash(&ours, &dearer);
    directory.reload().unwrap();
    assert_eq!(mark(&directory), first, "also the second time");

    // The hash was changed by hand, so `rehashed` belongs to another hash. A login at another gate replaces the new
    // hash, too, before this gate reads the file.
    let text = std::fs::read_to_string(&path).unwrap();
    let by_hand = hash_with(&secret("by hand"), CHEAP).unwrap();
    private_file::write_private_atomic(&path, text.replace(&dearer, &by_hand).as_bytes()).unwrap();
    rehash(&by_hand, &hash_with(&secret("by hand"), CHEAP).unwrap());
    directory.reload().unwrap();
    assert_ne!(mark(&directory), first);

    let bob = UserKey { account: None, username: "bob" };
    edit::set_password(&path, bob, &secret("passwd"), NOW).unwrap();
    directory.reload().unwrap();
    assert!(mark(&directory) != first && !std::fs::read_to_string(&path).unwrap().contains("rehashed"));
}

#[tokio::test]
async fn i32_unknown_users_and_all_hashes_take_the_runs_of_the_dearest_class() {
    let dir = tempfile::tempdir().unwrap();
    let dear = BCRYPT.replace("$04$", "$08$");
    let path = with_bob(&dir);
    let text = std::fs::read_to_string(&path).unwrap();
    let more = format!("{text}[[users]]\nsubject = \"s-dear\"\nusername = \"dear\"\npassword = \"{dear}\"\n");
    private_file::write_private_atomic(&path, more.as_bytes()).unwrap();
    let directory = open(&path);
    assert_eq!(directory.users.load().dearest(), CostClass::Bcrypt { cost: 8 });
    for (account, name, least) in [(None, "nobody", 1), (None, "dear", 1), (None, "bob", 2), (Some("acme"), "ada", 2)] {
        let before = directory.passwords.runs();
        assert_eq!(directory.authenticate(account, name, &secret("wrong")).await.unwrap(), None);
        let runs = directory.passwords.runs() - before;
        assert!((least == 1) == (runs == 1) && runs >= least, "{name}: {runs} runs");
    }
    edit::remove_user(&path, UserKey { account: None, username: "dear" }).unwrap();
    directory.reload().unwrap();
    assert_ne!(directory.users.load().dearest(), CostClass::Bcrypt { cost: 8 });
}

#[tokio::test]
async fn i32_a_hash_that_is_expected_costs_as_much_before_the_file_has_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    let bcrypt = CostClass::Bcrypt { cost: 8 };
    let expecting = UsersFile::from(&path).expecting([bcrypt]);
    let directory = FileDirectory::open(expecting, passwords()).unwrap();
    assert_eq!(directory.users.load().dearest(), bcrypt);
    for (account, name, is_whole) in [(None, "nobody", true), (Some("acme"), "ada", false)] {
        let before = directory.passwords.runs();
        assert_eq!(directory.authenticate(account, name, &secret("wrong")).await.unwrap(), None);
        // The check of a dummy hash of the class, or a cheap check with additional work.
        assert_eq!(directory.passwords.runs() - before == 1, is_whole, "{name}");
    }
    edit::set_active(&path, ADA, false, NOW).unwrap();
    assert!(directory.reload().unwrap());
    assert_eq!(directory.users.load().dearest(), bcrypt, "after a reload, too");
    assert_eq!(directory.warnings(), Vec::<String>::new(), "nobody has such a hash");
}

#[test]
fn i32_few_dear_hashes_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.toml");
    let write = |users: usize| {
        let bob = format!("[[users]]\nsubject = \"b\"\nusername = \"bob\"\npassword = \"{BCRYPT}\"\n");
        private_file::write_private_atomic(&path, (many(users) + &bob).as_bytes()).unwrap();
        open(&path).warnings()
    };
    assert_eq!(write(999), Vec::<String>::new());
    assert!(write(1001)[0].contains("1 users have password hashes"));
}

mod import {
    use super::super::import::{self, ImportDefaults, Imported};
    use super::*;

    const FIREBASE: &str = r#"{"base64_signer_key": "jxspr8Ki0RYycVU8zykbdLGjFQ3McFUH0uiiTvC8pVMXAn210wjLNmdZJzxUECKbm0QsEmYUSDzZvpjeJ9WmXA==",
        "base64_salt_separator": "Bw==", "rounds": 8, "mem_cost": 14}"#;

    fn run(file: &UsersFile, name: &str, text: &str, defaults: &ImportDefaults) -> Result<Imported, EditError> {
        import::import(file, name, text, defaults, NOW, false)
    }

    fn refused(name: &str, text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "");
        let before = std::fs::read(&path).unwrap();
        let said = run(&(&path).into(), name, text, &ImportDefaults::default()).unwrap_err().to_string();
        assert_eq!(std::fs::read(&path).unwrap(), before, "nothing is written");
        assert!(!said.contains("hunter2"), "{said}");
        said
    }

    #[tokio::test]
    async fn json_lines_become_users_with_their_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "");
        let text = format!(
            "{{\"username\":\"bob\",\"password_hash\":\"{BCRYPT}\"}}\n\n\
             {{\"username\":\"eve\",\"password_hash\":\"{BCRYPT}\",\"subject\":\"s-eve\",\"account\":\"acme\",\
             \"active\":false,\"scopes\":[\"a\",\"b\"],\"valid_from\":\"2026-01-31T12:00:00Z\",\
             \"profile\":{{\"email\":\"e@x\",\"age\":7,\"none\":null,\"in\":[1.5,true,{{\"a b\":\"\\n\"}}]}}}}\n"
        );
        let defaults = ImportDefaults { scopes: Scope::parse("read").unwrap(), ..ImportDefaults::default() };
        let file = UsersFile::from(&path);
        let before = std::fs::read_to_string(&path).unwrap();
        let expected = Imported { users: 2, schemes: [("bcrypt", 2)].into(), without_password: 0 };
        assert_eq!(import::import(&file, "x", &text, &defaults, NOW, true).unwrap(), expected);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before, "a dry run changes nothing");
        assert_eq!(run(&file, "x", &text, &defaults).unwrap(), expected);
        assert!(std::fs::read_to_string(&path).unwrap().starts_with(&before));
        let directory = open(&path);
        let bob = directory.authenticate(None, "bob", &secret("correct horse")).await.unwrap().unwrap();
        assert_eq!((bob.scopes.as_str(), bob.sessions_valid_from, bob.active), ("read", NOW, true));
        let eve = directory.lookup("s-eve").await.unwrap().unwrap();
        assert_eq!((eve.scopes.as_str(), eve.account.as_deref(), eve.active), ("a b", Some("acme"), false));
        assert_eq!(eve.sessions_valid_from, Timestamp::from_secs(1_769_860_800));
        assert_eq!(
            serde_json::to_value(&eve.profile).unwrap(),
            serde_json::json!({"email": "e@x", "age": 7, "in": [1.5, true, {"a b": "\n"}]})
        );
        assert!(run(&file, "x", &text, &defaults).unwrap_err().to_string().contains("line 1: the user exists already"));
    }

    #[test]
    fn csv_becomes_users() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data/users.toml");
        let text = format!(
            "username,password_hash,subject,active,scopes,valid_from,profile.email\n\
             \"bob, b.\",{BCRYPT},s-bob,true,read write,1769860800,b@x\neve,{BCRYPT},,0,,,\n"
        );
        let defaults = ImportDefaults { account: Some("acme".to_owned()), ..ImportDefaults::default() };
        assert_eq!(run(&(&path).into(), "USERS.CSV", &text, &defaults).unwrap().users, 2);
        let listed = edit::list(&path).unwrap();
        assert_eq!(listed[0].username, "bob, b.");
        assert_eq!(listed[0].user.profile["email"], "b@x");
        assert_eq!(listed[0].user.sessions_valid_from, Timestamp::from_secs(1_769_860_800));
        assert_eq!((listed[1].user.active, listed[1].user.account.as_deref()), (false, Some("acme")));
    }

    #[tokio::test]
    async fn i30_an_export_of_firebase_becomes_users() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("users.toml");
        let text = r#"{"users": [
            {"localId": "u1", "email": "a@x", "emailVerified": true, "displayName": "A", "salt": "42xEC+ixf3L2lw==",
             "passwordHash": "lSrfV15cpx95/sZS2W9c9Kp6i/LVgQNDNC/qzrCnh1SAyZvqmZqAjTdn3aoItz+VHjoZilo78198JAdRuid5lQ=="},
            {"localId": "u2", "email": "b@x", "providerUserInfo": [{"providerId": "google.com"}]}
        ]}"#;
        let parameters = rotogate_core::password::FirebaseParameters::from_json(FIREBASE).unwrap();
        let defaults = ImportDefaults { firebase: Some(parameters.clone()), ..ImportDefaults::default() };
        let without = run(&(&path).into(), "x.json", text, &ImportDefaults::default()).unwrap_err().to_string();
        assert!(without.contains("--firebase"), "{without}");
        let not_configured = run(&(&path).into(), "x.json", text, &defaults).unwrap_err().to_string();
        assert!(not_configured.contains("users[0]") && not_configured.contains("[directory]"), "{not_configured}");
        let file = UsersFile::new(&path, Accepted { firebase: Some(parameters), ..Accepted::default() });
        let expected = Imported { users: 1, schemes: [("firebase-scrypt", 1)].into(), without_password: 1 };
        assert_eq!(run(&file, "x.json", text, &defaults).unwrap(), expected);
        let directory = FileDirectory::open(&file, passwords()).unwrap();
        let user = directory.authenticate(None, "a@x", &secret("user1password")).await.unwrap().unwrap();
        assert_eq!((&*user.subject, &user.profile["email_verified"]), ("u1", &serde_json::Value::Bool(true)));
        assert_eq!(directory.authenticate(None, "a@x", &secret("user2password")).await.unwrap(), None);
    }

    /// Made by kuzzle-plugin-auth-passport-local 6.4.1: sha512 in hexadecimal digits, RSA-SHA256 in base64, and sha1.
    const KUZZLE: &str = include_str!("tests/kuzzle.json");

    #[tokio::test]
    async fn i30_kuzzles_users_keep_their_passwords_and_ids() {
        let dir = tempfile::tempdir().unwrap();
        let schemes = [("pbkdf2-sha1", 1), ("pbkdf2-sha256", 1), ("pbkdf2-sha512", 1)].into();
        let expected = Imported { users: 3, schemes, without_password: 0 };
        let hits: serde_json::Value = serde_json::from_str(KUZZLE).unwrap();
        let hits = hits["hits"]["hits"].as_array().unwrap();
        let lines = hits.iter().map(|hit| format!("{hit}\n")).collect::<String>();
        for (name, text) in [("whole", KUZZLE), ("lines", &lines)] {
            let path = dir.path().join(name);
            assert_eq!(run(&(&path).into(), "kuzzle.json", text, &ImportDefaults::default()).unwrap(), expected);
            let directory = open(&path);
            for (name, password, subject) in [
                ("ada", "correct horse é", "kuid-brave-otter-42100"),
                ("bob", "battery staple", "bob"),
                ("eve", "tr0ub4dor", "kuid-shy-crane-1"),
            ] {
                let user = directory.authenticate(None, name, &secret(password)).await.unwrap().unwrap();
                assert_eq!(&*user.subject, subject);
                assert_eq!(directory.authenticate(None, name, &secret("wrong")).await.unwrap(), None);
            }
        }
    }

    #[test]
    fn i30_a_kuzzle_user_whose_hash_is_weak_or_unknown_is_named() {
        let changed = |changes: serde_json::Value| {
            let mut whole: serde_json::Value = serde_json::from_str(KUZZLE).unwrap();
            let user = whole["hits"]["hits"][1]["_source"].as_object_mut().unwrap();
            user.extend(changes.as_object().unwrap().clone());
            whole.to_string()
        };
        for (changes, said) in [
            (serde_json::json!({ "stretching": false }), "stretching: expected true"),
            (serde_json::json!({ "stretching": null }), "algorithm or stretching is missing"),
            (serde_json::json!({ "algorithm": null }), "algorithm or stretching is missing"),
            (serde_json::json!({ "algorithm": "sha384" }), "algorithm: expected sha1, sha256 or sha512"),
            (serde_json::json!({ "algorithm": "sha512" }), "userPassword: expected a Kuzzle hash of the full length"),
            (
                serde_json::json!({ "userPassword": "hunter2" }),
                "userPassword: expected a Kuzzle hash of the full length",
            ),
            (serde_json::json!({ "userPassword": ["hunter2"] }), "expected a document of a Kuzzle user"),
            (serde_json::json!({ "userSalt": "" }), "password_hash: is damaged"),
            (serde_json::json!({ "pepper": true }), "pepper: expected false"),
            (serde_json::json!({ "kuid": "a b" }), "subject: expected"),
        ] {
            let problem = refused("kuzzle.json", &changed(changes));
            assert!(problem.contains(&format!("hits.hits[1]: {said}")), "{problem}");
        }
        let part = KUZZLE.replace("\"value\":3", "\"value\":5000");
        assert!(refused("kuzzle.json", &part).contains("only 3 of 5000 users: add ?size=10000"));
        assert!(refused("kuzzle.json", "{\"hits\": 7}").contains("hits: expected the result of a search"));
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_nothing_is_imported() {
        let line = |more: &str| format!("{{\"username\":\"x\",\"password_hash\":\"{BCRYPT}\"{more}}}\n");
        for (text, said) in [
            ("hunter2".to_owned(), "line 1: expected a JSON object"),
            ("[\"hunter2\"]".to_owned(), "line 1: expected a JSON object"),
            (line(",\"hunter\":1"), "line 1: unknown field `hunter`"),
            (line(",\"username\":\"y\""), "line 1: duplicate field `username`"),
            (line("").replace(BCRYPT, "hunter2"), "line 1: password_hash: is not a hash of an accepted scheme"),
            (line("").replace(BCRYPT, "{noop}hunter2"), "line 1: password_hash: is a Spring encoder"),
            (line("").replace("\"x\"", "[\"hunter2\"]"), "line 1: username: expected a string"),
            (line("").replace("\"x\"", "\"\""), "line 1: username: expected 1 to 256"),
            (line(",\"subject\":\"a b\""), "line 1: subject: expected 1 to 256"),
            (line(",\"account\":\"a/b\""), "line 1: account: expected 1 to 256"),
            (line(",\"active\":\"hunter2\""), "line 1: active: expected true or false"),
            (line(",\"scopes\":7"), "line 1: scopes: expected"),
            (line(",\"valid_from\":\"hunter2\""), "line 1: valid_from: expected"),
            (line(",\"profile\":7"), "line 1: profile: expected an object"),
            (line(",\"profile\":{\"x\":[null]}"), "line 1: a profile may have strings"),
            (format!("{}{}", line(""), line("")), "line 2: the import has this user name twice in one account"),
            (
                line(",\"account\":\"acme\"").replace("\"x\"", "\"ada\""),
                "line 1: the user exists already: another user in this account has the same name",
            ),
            (line(",\"subject\":\"s-ada\""), "line 1: the user exists already: another user has the same subject"),
            (line(",\"x\":1").repeat(30), "and 10 more"),
        ] {
            let all = refused("x", &text);
            assert!(all.contains(said), "{text}: {all}");
        }
        for (text, said) in [
            (format!("username,password_hash\nx,{BCRYPT},hunter2\n"), "line 2: the line has more or fewer cells"),
            (format!("username,username\nx,{BCRYPT}\n"), "\"username\" occurs twice"),
            (format!("username,password_hash,email\nx,{BCRYPT},hunter2\n"), "line 2: email: unknown"),
            ("username\nx\n".to_owned(), "line 2: password_hash: missing"),
        ] {
            let all = refused("x.csv", &text);
            assert!(all.contains(said), "{text}: {all}");
        }
    }

    #[test]
    fn more_users_than_the_file_takes_are_refused_with_the_number() {
        let lines = |number: usize| -> String {
            (0..number).map(|n| format!("{{\"username\":\"u{n}\",\"password_hash\":\"{BCRYPT}\"}}\n")).collect()
        };
        // The file already has ada of [`file`].
        let said = refused("x", &lines(MAX_USERS));
        assert_eq!(said, "the users file has 1 users, and 2000 more would exceed 2000, the maximum for an import");
        let dir = tempfile::tempdir().unwrap();
        let path = file(&dir, "");
        assert_eq!(run(&(&path).into(), "x", &lines(MAX_USERS - 1), &ImportDefaults::default()).unwrap().users, 1999);
    }
}

#[cfg(feature = "sql")]
mod database {
    use super::super::database::UserCopy;
    use super::super::import::ImportDefaults;
    use super::*;
    use rotogate_core::password::{Legacy, Spring};

    /// The problems of a copy of the file with ada and `more`.
    fn refused(more: &str, accepted: Accepted) -> String {
        let dir = tempfile::tempdir().unwrap();
        let users = UsersFile::new(file(&dir, more), accepted);
        let path = dir.path().join("users.db");
        let added = UserCopy::of_file(&users).unwrap().add_to(("sqlite:users.db", &path), None, false);
        assert!(!path.exists(), "no file is left");
        added.unwrap_err().to_string()
    }

    fn bob(hash: &str, more: &str) -> String {
        format!("[[users]]\nsubject = \"s-bob\"\nusername = \"bob\"\npassword = \"{hash}\"\n{more}")
    }

    #[test]
    fn what_the_table_cannot_hold_is_named_and_nothing_is_added() {
        for (more, said) in [
            ("profile = { account = \"x\" }\n", "users[1]: profile.account: the table cannot store the field"),
            ("profile = { EMAIL = \"x\" }\n", "users[1]: profile.EMAIL: the table cannot store the field"),
            ("profile = { \"a{b\" = \"x\" }\n", "users[1]: profile.a{b: the table cannot store the field"),
        ] {
            let all = refused(&bob(BCRYPT, more), Accepted::default());
            assert!(all.contains(said), "{all}");
        }
        let all = refused(&bob(BCRYPT, "").replace("\"bob\"", "\"bob \""), Accepted::default());
        assert!(all.contains("users[1]: username: "), "{all}");
    }

    #[test]
    fn a_hash_that_only_a_file_checks_is_refused() {
        let phpass = "$P$527Jy5p567gnWMrfAM8U7N/CPgeTqU.";
        let legacy = Accepted { legacy: vec![Legacy::Phpass], ..Accepted::default() };
        let spring = Spring { iterations: Some(1000), secret: None };
        let of_spring = format!("{{pbkdf2}}{}", "ab".repeat(40));
        for (hash, accepted) in [(phpass, legacy), (&*of_spring, Accepted { spring, ..Accepted::default() })] {
            let all = refused(&bob(hash, ""), accepted);
            assert!(
                all.contains("users[1]: bob: password_hash: a database cannot have the secret or the permission"),
                "{all}"
            );
        }
    }

    #[test]
    fn doubles_and_another_table_are_refused_and_a_dry_run_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let users = UsersFile::from(&file(&dir, &bob(BCRYPT, "profile = { ok = true }\n")));
        let path = dir.path().join("users.db");
        let copy = UserCopy::of_file(&users).unwrap();
        let add = |dry_run| copy.add_to(("sqlite:users.db", &path), None, dry_run);
        let dry = add(true).unwrap();
        assert!(!path.exists());
        let copied = add(false).unwrap();
        assert_eq!((&copied.directory, &copied.warnings), (&dry.directory, &dry.warnings));
        assert!(copied.directory.contains("profile = [\"age\", \"email\", \"ok\"]"), "{}", copied.directory);
        assert!(copied.directory.contains("hashes = [\"bcrypt:4\"]"), "{}", copied.directory);
        assert!(copied.warnings[0].ends_with("JSON text: ok"), "{:?}", copied.warnings);
        let twice = add(false).unwrap_err().to_string();
        assert!(
            twice.contains("users[0]: the user exists already: another user in this account has the same name")
                && twice.contains("users[1]")
        );
        let line = format!("{{\"username\":\"bob\",\"password_hash\":\"{BCRYPT}\"}}\n");
        let one = UserCopy::of_import("x", &line, &ImportDefaults::default(), &Accepted::default(), NOW).unwrap();
        let name = one.add_to(("sqlite:users.db", &path), None, false).unwrap_err().to_string();
        assert!(
            name.contains("line 1: the user exists already: another user in this account has the same name"),
            "{name}"
        );
        let other = dir.path().join("other.db");
        rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE users (id TEXT)").unwrap();
        private_file::open_private(&other, true).unwrap_err();
        let open = one.add_to(("sqlite:other.db", &other), None, false).unwrap_err().to_string();
        assert!(open.contains("chmod 600"), "{open}");
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).unwrap();
        let another = one.add_to(("sqlite:other.db", &other), None, false).unwrap_err().to_string();
        assert!(another.contains("other.db: "), "{another}");
    }
}

#[test]
fn p75_a_page_has_the_users_after_a_subject_and_counts_all_that_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let hash = hash_with(&secret("right"), CHEAP).unwrap();
    let user =
        |name: &str| format!("[[users]]\nsubject = \"s-{name}\"\nusername = \"{name}\"\npassword = \"{hash}\"\n");
    let more = ["Bob", "bobby", "carl"].map(user).concat()
        + &user("x").replace("username = \"x\"", "username = \"J\u{d6}RG Bob\"");
    let directory = open(&file(&dir, &more));
    let page = |words: &str, after: Option<&str>, limit: usize| {
        let page = directory.page(words, after, limit)?;
        let names: Vec<_> = page.users.into_iter().map(|listed| listed.username).collect();
        Some((names.join(","), page.total, page.has_more))
    };
    assert_eq!(page("", None, 2), Some(("ada,Bob".to_owned(), 5, true)));
    assert_eq!(page("", Some("s-Bob"), 9), Some(("bobby,carl,J\u{d6}RG Bob".to_owned(), 5, false)));
    assert_eq!(page("BOB", None, 2), Some(("Bob,bobby".to_owned(), 3, true)));
    assert_eq!(page("bob", Some("s-bobby"), 2), Some(("J\u{d6}RG Bob".to_owned(), 3, false)));
    // In another normalization form.
    assert_eq!(page("jo\u{308}rg", None, 2), Some(("J\u{d6}RG Bob".to_owned(), 1, false)));
    assert_eq!(page("nobody", None, 2), Some((String::new(), 0, false)));
    assert_eq!(page("", Some("s-gone"), 2), None);
}

#[cfg(unix)]
#[test]
fn p75_a_file_behind_a_link_cannot_be_changed_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "");
    assert_eq!(UsersFile::from(&path).unwritable(), None);
    let link = dir.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let why = UsersFile::from(&link).unwritable().unwrap();
    assert!(why.contains("link.toml is a symbolic link"), "{why}");
    let refused = edit::set_active(&link, UserKey { account: Some("acme"), username: "ada" }, false, NOW).unwrap_err();
    assert!(matches!(refused, EditError::Io(_)), "{refused}");
    let below_a_file = UsersFile::from(&path.join("folder/users.toml"));
    assert!(below_a_file.unwritable().unwrap().contains("is not a directory"));
}
