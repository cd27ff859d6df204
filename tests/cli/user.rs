//! `rotogate user`, beside a running gate.

use http::StatusCode;

use super::assert_invalid_grant;
use support::{CONFIG, Place, until, with};

const PASSWORD: &str = "correct horse battery staple";

#[tokio::test]
async fn a_user_who_is_added_can_log_in_and_is_listed() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.done(&["user", "add", "ada", "--subject", "ada-1", "--scopes", "read"], &format!("{PASSWORD}\n"));
    until("ada can log in", async || gate.log_in("ada", PASSWORD).await.status == StatusCode::OK).await;
    let tokens = gate.log_in("ada", PASSWORD).await.tokens();
    let call = gate.get("/", &tokens.access).await;
    assert_eq!(call.echoed("x-auth-subject"), ["ada-1"]);
    assert_eq!(call.echoed("x-auth-scope"), ["read"]);

    let list = place.json_lines(&["user", "list"]);
    let ada = list.iter().find(|user| user["username"] == "ada").unwrap();
    assert_eq!((&ada["subject"], &ada["active"], &ada["scopes"]), (&"ada-1".into(), &true.into(), &"read".into()));
    assert!(place.done(&["user", "list"], "").stdout.contains("ada  sub=ada-1  active  scopes=[read]"));

    // The same name in an account is another user.
    let added = place.json(&["user", "add", "ada", "--account", "acme"], PASSWORD);
    assert_eq!((&added["username"], &added["account"]), (&"ada".into(), &"acme".into()));
    until("ada of acme can log in", async || {
        let fields = [("grant_type", "password"), ("client_id", "web"), ("username", "ada"), ("password", PASSWORD)];
        gate.form("/acme/connect/token", &fields).await.status == StatusCode::OK
    })
    .await;
}

#[test]
fn what_cannot_be_done_to_a_user_is_said() {
    let place = Place::new(CONFIG);
    place.done(&["user", "add", "ada"], PASSWORD);
    let before = std::fs::read(place.path("data/users.toml")).unwrap();
    let said = place.fails(&["user", "add", "ada"], PASSWORD);
    assert!(said.contains("the user exists already") && said.contains("`rotogate user passwd ada`"), "{said}");
    assert!(said.contains("`rotogate user add-scope ada SCOPE`"), "{said}");
    assert!(place.fails(&["user", "add", "bob"], "\n").contains("empty"));
    for command in ["remove", "disable", "enable"] {
        let said = place.fails(&["user", command, "nobody"], "");
        assert!(
            said.contains("nobody: the user does not exist; `rotogate user list` lists all users"),
            "{command}: {said}"
        );
    }
    let said = place.fails(&["user", "passwd", "ada", "--account", "acme"], PASSWORD);
    assert!(said.contains("ada of the account acme: the user does not exist"), "{said}");
    assert_eq!(std::fs::read(place.path("data/users.toml")).unwrap(), before);
}

#[test]
fn p21_a_password_has_eight_characters_at_least() {
    let place = Place::new(CONFIG);
    for arguments in [&["user", "add", "ada"][..], &["user", "add", "ada", "--stdin"]] {
        // Seven characters of two bytes each.
        for short in ["1234567", "äöüäöüä"] {
            assert!(place.fails(arguments, short).contains("at least 8 characters; nothing was changed"));
        }
    }
    assert!(!place.path("data/users.toml").exists());
    place.done(&["user", "add", "ada", "--stdin"], "12345678\n");
    assert!(place.fails(&["user", "passwd", "ada", "--stdin"], "1234567\n").contains("at least 8"));
    place.done(&["user", "passwd", "ada", "--stdin"], "abcdefgh\n");
}

#[tokio::test]
async fn r8_disabling_a_user_ends_the_sessions_at_once_and_for_good() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(place.json(&["user", "disable", "demo"], "")["done"], "disabled");
    gate.until_refused(&tokens.access).await;
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
    assert_invalid_grant(&gate.log_in("demo", &gate.password).await);

    place.done(&["user", "enable", "demo"], "");
    until("demo can log in", async || gate.log_in("demo", &gate.password).await.status == StatusCode::OK).await;
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
    let new = gate.login().await;
    assert_eq!(gate.get("/", &new.access).await.status, StatusCode::OK);
    assert_eq!(gate.refresh(&new.refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn r8_a_new_password_ends_the_sessions_so_far() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    place.done(&["user", "passwd", "demo"], PASSWORD);
    gate.until_refused(&tokens.access).await;
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
    assert_invalid_grant(&gate.log_in("demo", &gate.password).await);
    let new = gate.log_in("demo", PASSWORD).await.tokens();
    assert_eq!(gate.get("/", &new.access).await.status, StatusCode::OK, "a login after it counts at once");
    assert_eq!(gate.refresh(&new.refresh).await.status, StatusCode::OK);
}

#[tokio::test]
async fn r8_removing_a_user_ends_the_sessions_also_after_a_restart() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    place.done(&["user", "remove", "demo"], "");
    gate.until_refused(&tokens.access).await;
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
    assert_eq!(gate.stop(), Some(0));
    let gate = place.start();
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
}

#[tokio::test]
async fn a_user_who_is_removed_while_the_gate_is_down_is_out_at_the_next_start() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    assert_eq!(gate.stop(), Some(0));
    place.done(&["user", "disable", "demo"], "");
    let gate = place.start();
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
}

#[tokio::test]
async fn a_broken_users_file_is_kept_out_loudly_while_the_gate_serves() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let tokens = gate.login().await;
    let file = place.path("data/users.toml");
    let good = std::fs::read_to_string(&file).unwrap();
    for (broken, said) in [("[[users]\n", "users.toml:1:"), ("[[users]]\nsubjct = \"x\"\n", "subjct")] {
        std::fs::write(&file, broken).unwrap();
        until("the log says so", async || {
            gate.log().lines().any(|line| line.contains("users file is invalid") && line.contains(said))
        })
        .await;
        assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
        gate.login().await;
    }
    std::fs::write(&file, good.replace("active = true", "active = false")).unwrap();
    gate.until_refused(&tokens.access).await;
}

#[tokio::test]
async fn r18_what_a_command_changes_counts_before_the_command_says_so() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    let tokens = gate.login().await;
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    place.done(&["user", "passwd", "demo"], PASSWORD);
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    assert_invalid_grant(&gate.log_in("demo", &gate.password).await);
    let tokens = gate.log_in("demo", PASSWORD).await.tokens();
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    place.done(&["user", "disable", "demo"], "");
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    place.done(&["user", "enable", "demo"], "");
    let tokens = gate.log_in("demo", PASSWORD).await.tokens();
    place.done(&["user", "remove", "demo"], "");
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
    place.done(&["user", "add", "ada"], PASSWORD);
    assert_eq!(gate.log_in("ada", PASSWORD).await.status, StatusCode::OK);

    // The command fails if the gate does not apply the change.
    std::fs::write(place.path("data/admin.token"), "another token that this gate does not know at all").unwrap();
    let said = place.fails(&["user", "disable", "ada"], "");
    assert!(said.contains("the users file was changed, but the running gate"), "{said}");
}

#[tokio::test]
async fn r18_a_login_between_a_change_and_its_taking_effect_does_not_survive_it() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let file = place.path("data/users.toml");
    let old = std::fs::read_to_string(&file).unwrap();
    place.done(&["user", "passwd", "demo"], PASSWORD);
    let changed = std::fs::read_to_string(&file).unwrap();
    let hash = |text: &str| text.lines().find(|line| line.starts_with("password")).unwrap().to_owned();
    // A change by hand: another password, without a time.
    let back = changed.replace(&hash(&changed), &hash(&old));
    let mut between = Vec::new();
    // The gate may notice the change before a login is through. Then the test makes it again.
    until("a login falls between the change and its effect", async || {
        std::fs::write(&file, &changed).unwrap();
        until("the password counts", async || gate.log_in("demo", PASSWORD).await.status == StatusCode::OK).await;
        std::fs::write(&file, &back).unwrap();
        loop {
            let answer = gate.log_in("demo", PASSWORD).await;
            if answer.status != StatusCode::OK {
                break !between.is_empty();
            }
            between.push(answer.tokens());
        }
    })
    .await;
    for tokens in between {
        assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
        assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
    }
}

#[tokio::test]
async fn r18_a_user_who_is_moved_is_out_of_the_account_before() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.done(&["user", "add", "bob", "--account", "acme"], PASSWORD);
    let log_in = async |account: &str| {
        let fields = [("grant_type", "password"), ("client_id", "web"), ("username", "bob"), ("password", PASSWORD)];
        gate.form(&format!("/{account}/connect/token"), &fields).await
    };
    until("bob can log in", async || log_in("acme").await.status == StatusCode::OK).await;
    let tokens = log_in("acme").await.tokens();
    assert_eq!(gate.get("/", &tokens.access).await.echoed("x-auth-account"), ["acme"]);
    let file = place.path("data/users.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("account = \"acme\"", "account = \"other\"")).unwrap();
    gate.until_refused(&tokens.access).await;
    let refresh = [("grant_type", "refresh_token"), ("client_id", "web"), ("refresh_token", tokens.refresh.as_str())];
    for account in ["acme", "other"] {
        assert_invalid_grant(&gate.form(&format!("/{account}/connect/token"), &refresh).await);
    }
    assert_eq!(log_in("acme").await.status, StatusCode::BAD_REQUEST);
    assert_eq!(gate.get("/", &log_in("other").await.tokens().access).await.echoed("x-auth-account"), ["other"]);
}

#[tokio::test]
async fn i31_p20_imported_users_log_in_at_once_and_get_a_hash_of_ours() {
    let place = Place::new(CONFIG);
    // Of passlib and Django: "correct horse".
    let bcrypt = "$2b$04$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6";
    let pbkdf2 = "pbkdf2_sha256$1000$seasalt8seasalt8seasalt$ERn9ISUu7/jpw7t1FT3s5w7ZgUFStVKKigIYguwbI3A=";
    let file = place.path("old.jsonl");
    let lines = format!(
        "{{\"username\":\"bea\",\"password_hash\":\"{bcrypt}\"}}\n{{\"username\":\"pia\",\"password_hash\":\"{pbkdf2}\"}}\n"
    );
    std::fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    assert!(place.fails(&["user", "import", file], "").contains("chmod 600"));
    std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let would = "2 users would be imported; nothing was changed: 1 bcrypt, 1 pbkdf2-sha256\n";
    assert_eq!(place.done(&["user", "import", file, "--dry-run"], "").stdout, would, "before the first start");

    let gate = place.start();
    place.point_commands_at(&gate);
    assert_eq!(place.done(&["user", "import", file, "--dry-run"], "").stdout, would);
    assert_eq!(gate.log_in("bea", "correct horse").await.status, StatusCode::BAD_REQUEST);
    let done = place.json(&["user", "import", file, "--scopes", "read"], "");
    assert_eq!(
        done,
        serde_json::json!({"users": 2, "schemes": {"bcrypt": 1, "pbkdf2-sha256": 1}, "without_password": 0, "dry_run": false})
    );
    assert!(place.fails(&["user", "import", file], "").contains("old.jsonl:1: the user exists already"));

    // Without waiting: a running gate has read the file when the command ends.
    let tokens = gate.log_in("bea", "correct horse").await.tokens();
    assert_invalid_grant(&gate.log_in("pia", "wrong horse").await);
    assert_eq!(gate.log_in("pia", "correct horse").await.status, StatusCode::OK);
    let users = || std::fs::read_to_string(place.path("data/users.toml")).unwrap();
    until("both hashes are ours", async || !users().contains(bcrypt) && !users().contains(pbkdf2)).await;
    assert_eq!(users().matches("rehashed = ").count(), 2);
    place.done(&["user", "enable", "demo"], "");
    // The gate has read the file with the new hashes: the session is alive, and the password is the same.
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::OK);
    assert_eq!(gate.log_in("bea", "correct horse").await.status, StatusCode::OK);
    assert_invalid_grant(&gate.log_in("bea", "wrong horse").await);
}

#[test]
fn i30_keys_of_directory_name_what_is_wrong() {
    let place = Place::new(&with(CONFIG, "directory", "hashes = [\"phpass\", \"md5\"]"));
    let said = place.run(&["check"], "").stderr;
    assert!(said.contains("directory.hashes[1]") && !said.contains("directory.hashes[0]"), "{said}");
    let mistakes = "hashes = [\"bcrypt\", \"md5\", \"bcrypt:16\", \"scrypt:N\", \"pbkdf2-sha256:1000000\", 7]";
    place.write_config(&with(CONFIG, "directory", mistakes));
    let said = place.run(&["check"], "").stderr;
    for expected in [
        "directory.hashes[1]: \"md5\" is not a known hash scheme; expected one of argon2, bcrypt, pbkdf2-sha1, \
         pbkdf2-sha256, pbkdf2-sha512, scrypt",
        "directory.hashes[2]: \"bcrypt:16\" has an invalid cost; expected \"bcrypt:12\", with a whole number from \
         4 to 15",
        "directory.hashes[3]: \"scrypt:N\"",
        "directory.hashes[5]",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    assert!(!said.contains("hashes[0]") && !said.contains("hashes[4]"), "{said}");
    let sql = "kind = \"sql\"\nurl = \"sqlite:users.db\"\nauthenticate = \"SELECT id AS subject FROM u WHERE n = {username}\"\n\
               lookup = \"SELECT id AS subject FROM u WHERE id = {subject}\"\n";
    for kind in ["", sql] {
        place.write_config(&with(CONFIG, "directory", &format!("{kind}hashes = [\"bcrypt:10\", \"scrypt\"]")));
        let printed = place.run(&["check", "--print"], "").stdout;
        assert!(printed.contains("\"bcrypt:10\"") && printed.contains("\"scrypt\""), "{printed}");
    }
    place.write_config(&with(CONFIG, "directory", "hash_parameters = \"none.json\""));
    let said = place.run(&["check"], "").stderr;
    assert!(said.contains("directory.hash_parameters") && said.contains("none.json"), "{said}");
    place.write_config(&with(CONFIG, "directory", "hash_parameters = \"bad.json\""));
    let path = place.path("bad.json");
    for (parameters, expected) in [
        ("{\"base64_signer_key\": 7}", "bad.json: 1:"),
        ("{\"spring_pbkdf2\": {\"iterations\": 0}}", "from 1 to 5000000"),
        ("{\"spring_pbkdf2\": {\"pepper\": \"sesame\"}}", "spring_pbkdf2: expected \"iterations\""),
    ] {
        std::fs::write(&path, parameters).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let said = place.fails(&["user", "list"], "");
        assert!(said.contains("directory.hash_parameters") && said.contains(expected), "{said}");
        assert!(!said.contains("sesame"), "{said}");
    }
    std::fs::write(&path, "{\"spring_pbkdf2\": {\"iterations\": 1000, \"secret\": \"sesame\"}}").unwrap();
    let said = place.fails(&["user", "list"], "");
    assert!(said.contains("users.toml: cannot be opened") && !said.contains("hash_parameters"), "{said}");
}

#[test]
fn a_scope_that_nothing_names_is_taken_with_a_warning() {
    let route = "[[routes]]\npath = \"/orders/{*rest}\"\nscopes = [\"read\"]\nupstream = \"app\"\n";
    let place = Place::new(&format!("{CONFIG}{route}"));
    let add = |name: &str, scopes: &str| place.json(&["user", "add", name, "--scopes", scopes], PASSWORD);
    assert!(add("ada", "read").get("warning").is_none());
    let said = add("bob", "reed read");
    let warning = said["warning"].as_str().unwrap();
    assert!(warning.contains("uses the scope reed; the scopes in use are read"), "{warning}");
    assert!(warning.ends_with("`rotogate user remove-scope bob SCOPE`"), "{warning}");
    let said = place.done(&["user", "add-scope", "ada", "admn"], "").stdout;
    assert!(said.contains("warning: no route, client, issuer or resource uses the scope admn"), "{said}");
    let checked = place.done(&["check"], "");
    assert!(
        checked.stdout.contains("directory.path: users in it") && checked.stdout.contains("admn, reed"),
        "{checked:?}"
    );
    // Where nothing names a scope, services read them.
    let open = Place::new(CONFIG);
    assert!(open.json(&["user", "add", "ada", "--scopes", "any"], PASSWORD).get("warning").is_none());
}
