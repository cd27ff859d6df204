//! `rotogate user import --to`: users move from the file to a database, by the program's instructions.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use http::StatusCode;
use support::{CONFIG, Place, Ran, until};

use super::assert_invalid_grant;

const PASSWORD: &str = "correct horse battery staple";
/// Of passlib and Django: "correct horse".
const BCRYPT: &str = "$2b$04$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6";
const PBKDF2: &str = "pbkdf2_sha256$1000$seasalt8seasalt8seasalt$ERn9ISUu7/jpw7t1FT3s5w7ZgUFStVKKigIYguwbI3A=";

fn private(place: &Place, name: &str, text: &str) -> String {
    let path = place.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::set_permissions(path.parent().unwrap(), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The keys that an import printed, in a configuration of users in a file.
fn with_printed(ran: &Ran) -> String {
    let (_, block) = ran.stdout.split_once("\n\n").unwrap();
    assert!(block.starts_with("[directory]\nkind = \"sql\"\n"), "{block}");
    format!("{CONFIG}\n{block}")
}

#[tokio::test]
async fn the_directory_that_an_import_prints_has_the_users_of_the_file() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    place.done(&["user", "add", "ada", "--subject", "ada-1", "--scopes", "read write"], PASSWORD);
    let lines = format!(
        "{{\"username\":\"bea\",\"password_hash\":\"{BCRYPT}\",\"subject\":\"bea-1\",\"scopes\":\"read\",\
         \"profile\":{{\"email\":\"bea@example.com\",\"age\":7,\"email_verified\":true}}}}\n\
         {{\"username\":\"pia\",\"password_hash\":\"{PBKDF2}\",\"account\":\"acme\"}}\n\
         {{\"username\":\"gone\",\"password_hash\":\"{BCRYPT}\",\"active\":false}}\n"
    );
    let old = private(&place, "old.jsonl", &lines);
    place.done(&["user", "import", &old], "");
    let ada = gate.log_in("ada", PASSWORD).await.tokens();
    assert_eq!(gate.stop(), Some(0));

    let database = place.path("data/users.db");
    let import = ["user", "import", "--to", "sqlite:data/users.db"];
    let dry = place.done(&[&import[..], &["--dry-run"]].concat(), "");
    assert!(dry.stdout.starts_with("5 users would be imported; nothing was changed: ") && !database.exists());
    let done = place.done(&import, "");
    assert!(done.stdout.starts_with("5 users imported: 2 argon2id, 2 bcrypt, 1 pbkdf2-sha256\n"), "{}", done.stdout);
    assert!(done.stdout.contains("\nwarning: profile fields that are booleans"), "{}", done.stdout);
    assert!(done.stdout.contains("JSON text: email_verified\n"), "{}", done.stdout);
    assert_eq!(fs::metadata(&database).unwrap().mode() & 0o777, 0o600);
    let twice = place.fails(&import, "");
    assert!(twice.contains("users.toml") && twice.contains("users[0]: the user exists already"), "{twice}");

    place.write_config(&with_printed(&done));
    place.done(&["check", "--online"], "");
    let gate = place.start();
    place.point_commands_at(&gate);
    // The session stays: subject, scopes and password are the same.
    let next = gate.refresh(&ada.refresh).await.tokens();
    let call = gate.get("/", &next.access).await;
    assert_eq!(
        (call.echoed("x-auth-subject"), call.echoed("x-auth-scope")),
        (vec!["ada-1".into()], vec!["read write".into()])
    );
    assert_eq!(gate.log_in("ada", PASSWORD).await.status, StatusCode::OK);
    assert_invalid_grant(&gate.log_in("ada", "another password").await);
    let tokens = gate.log_in("bea", "correct horse").await.tokens();
    assert_eq!(gate.get("/", &tokens.access).await.echoed("x-auth-subject"), ["bea-1"]);
    assert_invalid_grant(&gate.log_in("gone", "correct horse").await);
    assert_invalid_grant(&gate.log_in("pia", "correct horse").await);
    let fields = [("grant_type", "password"), ("client_id", "web"), ("username", "pia"), ("password", "correct horse")];
    assert_eq!(gate.form("/acme/connect/token", &fields).await.status, StatusCode::OK);
    assert_invalid_grant(&gate.form("/other/connect/token", &fields).await);
    let hash = |name: &str| -> String {
        let connection = rusqlite::Connection::open(&database).unwrap();
        connection.query_row("SELECT password_hash FROM users WHERE username = ?1", [name], |row| row.get(0)).unwrap()
    };
    until("the hash is ours", async || hash("bea").starts_with("$argon2id$")).await;
    assert_eq!(hash("gone"), BCRYPT);

    // The database takes more users while the gate runs, now that the users file is not read.
    let more = private(&place, "more.csv", &format!("username,password_hash\nnew,{BCRYPT}\n"));
    let said = place.fails(&["user", "import", &more], "");
    assert!(said.contains("the users are not in a file"), "{said}");
    assert!(place.fails(&import, "").contains("give the path of a file to import"));
    place.done(&["user", "import", &more, "--to", "sqlite:data/users.db", "--scopes", "read"], "");
    assert_eq!(gate.log_in("new", "correct horse").await.status, StatusCode::OK);
    let said = place.fails(&["user", "import", &more, "--to", "postgres://db/users"], "");
    assert!(said.contains("expected sqlite:FILE"), "{said}");
}

#[tokio::test]
async fn what_check_says_of_too_many_users_moves_them() {
    let place = Place::new(CONFIG);
    let user = |n: usize| format!("[[users]]\nsubject = \"s-{n}\"\nusername = \"user{n}\"\npassword = \"{BCRYPT}\"\n");
    let text: String = (0..2001).map(user).collect();
    private(&place, "data/users.toml", &text);
    let gate = place.start();
    assert_eq!(gate.log_in("user0", "correct horse").await.status, StatusCode::OK);
    let warned =
        |log: &str| log.lines().filter(|line| line.contains("WARN") && line.contains("more than 2000")).count();
    assert_eq!(warned(&gate.log()), 1, "{}", gate.log());
    let ran = place.run(&["check"], "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let said = format!("{}{}", ran.stdout, ran.stderr);
    let (_, command) = said.split_once("2001 users, more than 2000").unwrap();
    let command = command.split_once(": rotogate ").unwrap().1.lines().next().unwrap();
    until("the first login has another hash", async || {
        !fs::read_to_string(place.path("data/users.toml")).unwrap().contains(&user(0))
    })
    .await;
    assert_eq!(gate.stop(), Some(0));

    let done = place.done(&command.split(' ').collect::<Vec<_>>(), "");
    assert!(done.stdout.contains("warning: 1 users must log in again"), "{}", done.stdout);
    place.write_config(&with_printed(&done));
    let ran = place.run(&["check"], "");
    assert!(ran.code == Some(0) && !format!("{ran:?}").contains("more than 2000"), "{ran:?}");
    let gate = place.start();
    for name in ["user0", "user2000"] {
        assert_eq!(gate.log_in(name, "correct horse").await.status, StatusCode::OK);
    }
    assert_eq!(warned(&gate.log()), 0);
}
