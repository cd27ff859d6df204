//! The common behaviour of all commands: JSON, closed pipes, exit codes, completions and man pages; and
//! `rotogate init`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use std::process::{Command, Stdio};

use http::{Method, StatusCode};
use rotogate::token::Algorithm;
use rotogate_core::token::keyring::KeyMaterial;
use serde_json::Value;

use support::{CONFIG, Place, Ran};

const PASSWORD: &str = "correct horse battery staple";
const HASH: &str = "$2b$04$mVcgOk.KkzulJ1pCQt2NpOtZcqrvDYLqb2GUts5zMYGWcpE/nsn.6";

/// A private file.
fn private(place: &Place, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = place.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The commands that have no commands below them, as the man pages name them.
fn commands(place: &Place) -> BTreeSet<String> {
    let pages = place.json_lines(&["man", "--dir", "man"]);
    let text = |page: &Value| fs::read_to_string(place.path(page["file"].as_str().unwrap())).unwrap();
    let leaves = pages.iter().filter(|page| !text(page).contains(".SH SUBCOMMANDS"));
    let names = leaves.filter_map(|page| page["page"].as_str()?.strip_prefix("rotogate-")?.strip_suffix(".1"));
    names.map(str::to_owned).collect()
}

/// The command of these arguments: `user-add` for `user add ada`.
fn command_of(arguments: &[&str], commands: &BTreeSet<String>) -> String {
    let [one, two] = [1, 2].map(|length| arguments.iter().take(length).copied().collect::<Vec<_>>().join("-"));
    commands.get(&two).or_else(|| commands.get(&one)).cloned().unwrap_or_else(|| panic!("{arguments:?}"))
}

/// The object of an error.
#[track_caller]
fn error_of(ran: &Ran) -> Value {
    assert!(matches!(ran.code, Some(1 | 2)) && ran.stdout.lines().count() == 1, "{ran:?}");
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    let error = &said["error"];
    assert!(error["code"].as_str().is_some_and(|code| !code.is_empty()), "{ran:?}");
    assert!(error["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{ran:?}");
    error.clone()
}

#[test]
fn p13_each_command_reports_an_error_as_json() {
    let place = Place::new(CONFIG);
    let commands = commands(&place);
    let key = private(&place, "x.pem", "no key");
    let users = private(&place, "old.csv", "username\nada\n");
    let errors: &[&[&str]] = &[
        &["api-key", "create", "x", "--user", "nobody"],
        &["api-key", "list"],
        &["api-key", "rotate", "x"],
        &["api-key", "revoke", "x"],
        &["api-key", "leaked"],
        &["client", "secret", "--stdin"],
        &["audit-hash", "x"],
        &["config", "show", "--running"],
        &["config", "reference", "x"],
        &["events"],
        &["reload"],
        &["upgrade"],
        &["completions", "tcsh"],
        &["explain", "--path", "/x", "--method", "a b"],
        &["init"],
        &["issuer", "list"],
        &["issuer", "refresh", "x"],
        &["issuer", "drop", "x"],
        &["keys", "init", "--algorithm", "none"],
        &["keys", "list"],
        &["keys", "add"],
        &["keys", "rotate", "--after", "1s"],
        &["keys", "promote", "x"],
        &["keys", "retire", "x"],
        &["keys", "import", &key, "--algorithm", "EdDSA"],
        &["man", "--dir", "/dev/null/man"],
        &["session", "list"],
        &["session", "show", "x"],
        &["session", "revoke", "--all"],
        &["status"],
        &["store", "accept-restored"],
        &["store", "backup", "gateway.toml"],
        &["store", "restore", "nosuch.redb"],
        &["store", "copy", "--to-config", "nosuch.toml"],
        &["store", "reset-clock"],
        &["token", "inspect"],
        &["token", "mint", "--subject", "s", "--client", "nosuch"],
        &["user", "add", "ada"],
        &["user", "import", &users],
        &["user", "remove", "nobody"],
        &["user", "passwd", "nobody"],
        &["user", "disable", "nobody"],
        &["user", "enable", "nobody"],
        &["user", "add-scope", "nobody", "read"],
        &["user", "remove-scope", "nobody", "read"],
    ];
    let mut shown: BTreeSet<_> = errors.iter().map(|arguments| command_of(arguments, &commands)).collect();
    for arguments in errors {
        let ran = place.run(&[*arguments, &["--json"]].concat(), "");
        error_of(&ran);
        assert_eq!(ran.stderr, "", "{arguments:?}");
    }

    // Positions are separate members.
    place.write_config(&CONFIG.replace("drain_timeout", "drain_timout"));
    for command in ["check", "serve"] {
        let ran = place.run(&["--json", command], "");
        let error = error_of(&ran);
        let at = &error["at"][0];
        assert_eq!((&error["code"], ran.code), (&"configuration".into(), Some(2)));
        assert_eq!((&at["line"], &at["key"]), (&5.into(), &"server.drain_timout".into()), "{ran:?}");
        assert!(at["file"].as_str().unwrap().ends_with("gateway.toml"), "{ran:?}");
        assert!(at["detail"].as_str().unwrap().contains("did you mean"), "{ran:?}");
        // `serve` also writes the error to standard error, for the log.
        assert_eq!(ran.stderr.is_empty(), command == "check", "{ran:?}");
        shown.insert(command.to_owned());
    }
    place.write_config(CONFIG);
    let import = place.run(&["--json", "user", "import", &users], "");
    let at = &error_of(&import)["at"];
    assert_eq!((&at[0]["line"], &at[0]["file"]), (&2.into(), &users.as_str().into()), "{import:?}");
    fs::create_dir_all(place.path("data")).unwrap();
    private(&place, "data/users.toml", "[[users]\n");
    error_of(&place.run(&["user", "list", "--json"], ""));
    shown.insert("user-list".to_owned());
    assert_eq!(shown, commands, "each command");
}

#[tokio::test]
async fn p13_each_command_reports_success_as_json() {
    let place = Place::new(CONFIG);
    let commands = commands(&place);
    let gate = place.start();
    place.point_commands_at(&gate);
    let tokens = gate.login().await;
    let id = place.json_lines(&["session", "list"])[0]["id"].as_str().unwrap().to_owned();
    let users = private(&place, "old.csv", format!("username,password_hash\nbea,{HASH}\n"));
    let [first, second] = [(); 2].map(|()| place.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned());
    let key = private(&place, "mine.pem", KeyMaterial::generate(Algorithm::EdDsa).unwrap().expose());
    let backup = place.path("backup.redb");
    let done: &[(&[&str], &str)] = &[
        (&["check"], ""),
        (&["client", "secret", "--stdin"], PASSWORD),
        (&["explain", "--path", "/hello"], &tokens.access),
        (&["completions", "bash"], ""),
        (&["init", "--dir", "new"], ""),
        (&["audit-hash", "x"], ""),
        (&["config", "show"], ""),
        (&["config", "reference"], ""),
        (&["events"], ""),
        (&["reload"], ""),
        (&["keys", "list"], ""),
        (&["keys", "add"], ""),
        (&["keys", "rotate", "--refresh"], ""),
        (&["keys", "promote", &first, "--force"], ""),
        (&["keys", "retire", &second, "--force"], ""),
        (&["keys", "import", &key, "--algorithm", "EdDSA"], ""),
        (&["man"], ""),
        (&["token", "inspect"], &tokens.access),
        (&["session", "list"], ""),
        (&["session", "show", &id], ""),
        (&["session", "revoke", &id], ""),
        (&["status"], ""),
        (&["store", "backup", backup.to_str().unwrap()], ""),
        (&["token", "mint", "--subject", "s", "--client", "web"], ""),
        (&["user", "add", "ada"], PASSWORD),
        (&["user", "import", &users], ""),
        (&["user", "list"], ""),
        (&["user", "add-scope", "ada", "read", "write"], ""),
        (&["user", "remove-scope", "ada", "read"], ""),
        (&["user", "passwd", "ada"], PASSWORD),
        (&["user", "disable", "ada"], ""),
        (&["user", "enable", "ada"], ""),
        (&["user", "remove", "ada"], ""),
    ];
    let mut shown: BTreeSet<_> = done.iter().map(|(arguments, _)| command_of(arguments, &commands)).collect();
    for (arguments, input) in done {
        let ran = place.done(&[*arguments, &["--json"]].concat(), input);
        assert!(!ran.stdout.is_empty() && ran.stderr.is_empty(), "{arguments:?}: {ran:?}");
        for line in ran.stdout.lines() {
            assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{arguments:?}: {line}");
        }
    }
    let new = place.path("new/gateway.toml");
    let made = place.json(&["keys", "init", "--config", new.to_str().unwrap()], "");
    assert_eq!(made["state"], "signing");
    // `start` has read the greeting of `serve`. The tests of the rest, which needs other systems, read its JSON.
    let elsewhere = [
        "serve",
        "upgrade",
        "api-key-create",
        "api-key-list",
        "api-key-rotate",
        "api-key-revoke",
        "api-key-leaked",
        "keys-init",
        "issuer-list",
        "issuer-refresh",
        "issuer-drop",
        "store-accept-restored",
        "store-copy",
        "store-restore",
        "store-reset-clock",
    ];
    shown.extend(elsewhere.map(str::to_owned));
    assert_eq!(shown, commands, "each command");
}

#[tokio::test]
async fn p14_a_closed_pipe_is_silent() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    let tokens = gate.login().await;
    let token = private(&place, "token", &tokens.access);
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["check"],
        &["check", "--print"],
        &["client", "secret"],
        &["completions", "zsh"],
        &["keys", "list"],
        &["man"],
        &["man", "--dir", "man"],
        &["session", "list"],
        &["token", "inspect"],
        &["user", "list"],
        &["user", "disable", "demo"],
    ] {
        for more in [&[][..], &["--json"]] {
            // The pipe has no reader from the start.
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            let mut command = place.command();
            command.args(arguments).args(more).stdin(fs::File::open(&token).unwrap()).stdout(writer);
            let ran = command.output().unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert_eq!((ran.status.code(), said.as_ref()), (Some(0), ""), "{arguments:?} {more:?}");
        }
    }
    // The command did its work, although no reader got its output.
    assert_eq!(place.json_lines(&["user", "list"])[0]["active"], false);
    // A failure stays a failure without a reader, too.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = place.command().args(["user", "enable", "nobody", "--json"]).stdout(writer).output().unwrap();
    assert_eq!(ran.status.code(), Some(1));
}

#[tokio::test]
async fn p15_exit_codes_are_those_of_the_help() {
    let place = Place::new(CONFIG);
    let help = place.done(&["--help"], "").stdout;
    assert!(
        help.contains("Exit codes: 0 the command succeeded; 1 it failed") && help.contains("; 2 the command line"),
        "{help}"
    );
    let gate = place.start();
    place.point_commands_at(&gate);
    gate.login().await;
    let private = private(&place, "empty.csv", "username,password_hash\n");
    for (code, arguments) in [
        (0, &["--version"][..]),
        (0, &["user", "--help"]),
        (0, &["check"]),
        (0, &["session", "list", "--subject", "nobody"]),
        (0, &["user", "list"]),
        (0, &["user", "import", &private]),
        // The command failed, was refused, or matched nothing.
        (1, &["session", "revoke", "--user", "nobody"]),
        (1, &["session", "show", "0190b5a0-0000-7000-8000-000000000000"]),
        (1, &["user", "remove", "nobody"]),
        (1, &["user", "remove-scope", "demo", "nosuch"]),
        (1, &["user", "import", "nosuch.csv"]),
        (1, &["keys", "retire", "nosuch"]),
        (1, &["store", "backup", "gateway.toml"]),
        (1, &["init"]),
        // The command line.
        (2, &["usr"]),
        (2, &["--no-such-option"]),
        (2, &["session", "revoke"]),
        (2, &["session", "revoke", "x", "--all"]),
        (2, &["user", "add"]),
        (2, &["completions", "tcsh"]),
        (2, &["init", "--dir", "new", "--upstream", "nowhere"]),
        // The configuration.
        (2, &["check", "--config", "nosuch.toml"]),
        (2, &["user", "list", "--config", "nosuch.toml"]),
        (2, &["serve", "--config", "nosuch.toml"]),
    ] {
        // A command line has --config once.
        let mut command = Command::new(support::binary());
        command.args(arguments).current_dir(place.path("")).stdin(Stdio::null());
        for more in [&[][..], &["--json"]] {
            let ran = command.args(more).output().unwrap();
            assert_eq!(ran.status.code(), Some(code), "{arguments:?} {more:?}: {ran:?}");
        }
    }
}

/// A gate on the configuration that `init` wrote, on ports that are free.
fn anywhere(command: &mut Command) {
    let url = "http://gate.test";
    for (name, value) in
        [("SERVER__LISTEN", "127.0.0.1:0"), ("ADMIN__LISTEN", "127.0.0.1:0"), ("SERVER__PUBLIC_URL", url)]
    {
        command.env(format!("ROTOGATE_{name}"), value);
    }
}

#[tokio::test]
async fn p16_a_gate_begins_in_an_empty_folder_with_init_and_nothing_is_overwritten() {
    let place = Place::new("");
    let file = place.path("gateway.toml");
    fs::remove_file(&file).unwrap();
    let ran = place.run(&[], "");
    assert!(ran.code == Some(2) && ran.stderr.contains("rotogate init"), "{ran:?}");

    let said = place.done(&["init"], "").stdout;
    assert!(said.contains("gateway.toml check") && said.ends_with("\n\nNothing is left to fill in\n"), "{said}");
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644, "a service reads it, too");
    let mut check = place.command();
    anywhere(&mut check);
    let checked = check.args(["check", "--strict"]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    assert_eq!(fs::read_dir(place.path("")).unwrap().count(), 1, "check makes nothing");
    let gate = place.start_with(anywhere);
    let tokens = gate.login().await;
    assert_eq!(gate.get("/hello", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(gate.get("/hello", "no token").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.stop(), Some(0));

    // An existing file of that name is not changed.
    let said = place.fails(&["init", "--client", "other"], "");
    assert!(said.contains("gateway.toml exists already"), "{said}");
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
    fs::create_dir(place.path("linked")).unwrap();
    std::os::unix::fs::symlink(place.path("target"), place.path("linked/gateway.toml")).unwrap();
    place.fails(&["init", "--dir", "linked"], "");
    assert!(!place.path("target").exists());

    let options = ["--upstream", "http://127.0.0.1:3000", "--client", "my \"app\""];
    let ran = place.run(&[&["init", "--dir", "refused"], &options[..]].concat(), "");
    assert!(ran.code == Some(2) && ran.stderr.contains("clients[0].id"), "{ran:?}");
    assert!(!place.path("refused").exists(), "nothing was written");
    place.done(&["init", "--dir", "a/new", "--upstream", "http://127.0.0.1:3000", "--client", "app"], "");
    let mut check = Command::new(support::binary());
    anywhere(&mut check);
    let printed = check.args(["check", "--print"]).current_dir(place.path("a/new")).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("\"http://127.0.0.1:3000\"") && printed.contains("id = \"app\""), "{printed}");
    // The printed command works in a shell, whatever the name of the folder is.
    let said = place.done(&["init", "--dir", "my gate"], "").stdout;
    let line = said.lines().find(|line| line.ends_with(" check")).unwrap();
    let mut shell = Command::new("/bin/sh");
    anywhere(&mut shell);
    let binary = support::binary();
    let programs = binary.parent().unwrap();
    let checked = shell.args(["-c", line]).env("PATH", programs).current_dir(place.path("")).output().unwrap();
    assert!(checked.status.success(), "{line}: {checked:?}");
}

#[test]
fn p19_completions_for_five_shells_name_every_command() {
    let place = Place::new(CONFIG);
    let commands = commands(&place);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = place.done(&["completions", shell], "").stdout;
        let begin = match shell {
            "bash" => "_rotogate()",
            "zsh" => "#compdef rotogate",
            "fish" => "complete -c rotogate",
            "powershell" => "Register-ArgumentCompleter",
            _ => "set edit:completion:arg-completer[rotogate]",
        };
        assert!(script.contains(begin), "{shell}");
        let words = commands.iter().map(|command| command.strip_prefix("api-").unwrap_or(command));
        for word in words.filter_map(|command| command.split_once('-')).map(|(_, last)| last) {
            assert!(script.contains(word), "{shell}: {word}");
        }
        assert_eq!(place.json(&["completions", shell], "")["script"], script.trim_end());
    }
    // The request of bash for completions.
    let complete = "source <(\"$@\") && COMP_WORDS=(rotogate se) COMP_CWORD=1 && _rotogate rotogate se rotogate && \
                    echo \"${COMPREPLY[@]}\" && COMP_WORDS=(rotogate session revoke --su) COMP_CWORD=3 && \
                    _rotogate rotogate --su revoke && echo \"${COMPREPLY[@]}\"";
    let mut bash = place.command();
    bash.args(["completions", "bash"]);
    support::in_shell(complete)(&mut bash);
    let ran = bash.output().unwrap();
    assert_eq!(
        String::from_utf8(ran.stdout).unwrap(),
        "serve session\n--subject\n",
        "{}",
        String::from_utf8_lossy(&ran.stderr)
    );
}

#[test]
fn p19_man_pages_have_no_warnings() {
    let place = Place::new(CONFIG);
    let pages = place.json_lines(&["man", "--dir", "man"]);
    assert!(pages.len() > 30);
    let mut number = 0;
    for page in &pages {
        let file = page["file"].as_str().unwrap();
        let text = fs::read_to_string(place.path(file)).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".TH "), "{text}");
        // Only with groff on the machine.
        let formatted =
            Command::new("groff").args(["-man", "-ww", "-z", "-K", "utf8", "-Tutf8"]).arg(place.path(file)).output();
        let Ok(formatted) = formatted else { continue };
        assert_eq!(String::from_utf8_lossy(&formatted.stderr), "", "{file}");
        number += 1;
    }
    assert!(number == pages.len() || number == 0);
    let one = place.done(&["man"], "").stdout;
    assert_eq!(one, fs::read_to_string(place.path("man/man1/rotogate.1")).unwrap());
    assert!(one.contains("Exit codes: 0 the command succeeded"));
    let configuration = fs::read_to_string(place.path("man/man5/gateway.toml.5")).unwrap();
    assert!(configuration.contains("max_connections"));
}

#[test]
fn the_reference_of_the_configuration_is_printed_without_a_file_and_is_one_that_check_accepts() {
    let place = Place::new(CONFIG);
    fs::remove_file(place.path("gateway.toml")).unwrap();
    let printed = place.done(&["config", "reference"], "").stdout;
    assert!(printed.contains("# [[server.listeners]]") && printed.lines().count() > 400, "{printed}");
    let value = place.json(&["config", "reference"], "");
    assert_eq!(value["reference"].as_str().map(str::trim_end), Some(printed.trim_end()));
    fs::write(place.path("gateway.toml"), printed).unwrap();
    // Its addresses may be in use on this machine.
    let said = place.run(&["check"], "");
    let others = said.stderr.lines().filter(|line| !line.contains("cannot listen on"));
    assert_eq!(others.collect::<Vec<_>>(), [""; 0], "{said:?}");
}

#[cfg(feature = "sql")]
#[tokio::test]
async fn p20_fifty_thousand_users_are_imported_all_or_none() {
    const USERS: usize = 50_000;
    let place = Place::new(CONFIG);
    assert_eq!(place.start().stop(), Some(0));
    let users = || (fs::read(place.path("data/users.toml")).unwrap(), place.path("data/users.db").exists());
    let before = users();
    let import = |file: &str| place.run(&["user", "import", file, "--to", "sqlite:data/users.db", "--json"], "");
    let lines = |last: &str| -> String {
        let line =
            |n: usize| format!("{{\"username\":\"old{n}\",\"subject\":\"old-{n}\",\"password_hash\":\"{HASH}\"}}\n");
        (1..USERS).map(line).chain([format!("{{\"username\":\"last\",\"password_hash\":\"{last}\"}}\n")]).collect()
    };
    // The last line is wrong in each of these ways.
    for (last, detail) in [("plain text", "password_hash: is "), ("$2b$99$mVcgOk", "password_hash: is ")] {
        let file = private(&place, "old.jsonl", lines(last));
        let ran = import(&file);
        let error = error_of(&ran);
        assert_eq!(
            (error["at"].as_array().map(Vec::len), &error["at"][0]["line"]),
            (Some(1), &USERS.into()),
            "{ran:?}"
        );
        assert!(error["at"][0]["detail"].as_str().unwrap().starts_with(detail), "{ran:?}");
        assert!(!ran.stdout.contains(last), "a value may be a password");
        assert!(users() == before, "nothing was imported");
    }
    let file = private(&place, "old.jsonl", lines(HASH));
    let said = place.fails(&["user", "import", &file], "");
    for part in
        ["50000 more would exceed 2000", "nothing was imported", &format!("import {file} --to sqlite:data/users.db")]
    {
        assert!(said.contains(part), "{said}");
    }
    assert!(users() == before, "nothing was imported");
    let imported: Value = serde_json::from_str(&import(&file).stdout).unwrap();
    assert_eq!(imported["users"], USERS);
    // A second import: all users exist, and the message names the first of them.
    let ran = import(&file);
    let error = error_of(&ran);
    assert_eq!(error["at"].as_array().map(Vec::len), Some(20));
    assert!(error["detail"].as_str().unwrap().contains("the first 20 of 50000 problems"), "{ran:?}");
    place.write_config(&format!("{CONFIG}\n{}", imported["directory"].as_str().unwrap()));
    let gate = place.start();
    for name in ["old1", "last"] {
        assert_eq!(gate.log_in(name, "correct horse").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn p20_csv_names_its_line_and_scopes_are_added_and_removed() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    let before = fs::read(place.path("data/users.toml")).unwrap();
    // A quoted cell has a line break: the next row begins one line later.
    let rows = format!("username,password_hash,profile.name\nbea,{HASH},\"Bea\nB\"\neve,nothing,Eve\n");
    let file = private(&place, "old.csv", &rows);
    let said = place.fails(&["user", "import", &file], "");
    assert!(
        said.contains("nothing was imported:\n") && said.contains(&format!("{file}:4: password_hash: is ")),
        "{said}"
    );
    assert!(!said.contains("nothing,"), "{said}");
    assert_eq!(fs::read(place.path("data/users.toml")).unwrap(), before);
    let file = private(&place, "old.csv", rows.replace("nothing", HASH));
    assert_eq!(place.json(&["user", "import", &file, "--scopes", "read"], "")["users"], 2);

    let scopes = async || {
        let tokens = gate.log_in("bea", "correct horse").await.tokens();
        (gate.get("/", &tokens.access).await.echoed("x-auth-scope").concat(), tokens)
    };
    assert_eq!(scopes().await.0, "read");
    place.done(&["user", "add-scope", "bea", "write", "admin", "read"], "");
    let (had, tokens) = scopes().await;
    assert_eq!(had, "read write admin");
    assert!(
        place
            .fails(&["user", "add-scope", "bea", "write"], "")
            .contains("has these scopes already; nothing was changed")
    );
    place.done(&["user", "remove-scope", "bea", "admin", "nosuch"], "");
    assert_eq!(scopes().await.0, "read write");
    let next = gate.refresh(&tokens.refresh).await.tokens();
    assert_eq!(
        gate.get("/", &next.access).await.echoed("x-auth-scope"),
        ["read write"],
        "a session loses it at its refresh"
    );
    assert!(
        place
            .fails(&["user", "remove-scope", "bea", "admin"], "")
            .contains("none of these scopes; nothing was changed")
    );
    let ran = place.run(&["user", "add-scope", "bea", "a\"b"], "");
    assert_eq!(ran.code, Some(1), "{ran:?}");
}

#[test]
fn b54_an_import_writes_all_of_its_files_or_none() {
    let place = Place::new("");
    let old = "client_id=\"web\"\nclient_secret=\"the-old-secret-of-the-client\"\nemail_domains=\"*\"\nupstreams=\"http://app\"\n";
    fs::write(place.path("old.cfg"), old).unwrap();
    let import = ["init", "--dir", "new", "--from-oauth2-proxy", "old.cfg"];
    fs::create_dir(place.path("new")).unwrap();
    fs::write(place.path("new/idp.secret"), "stale").unwrap();
    let said = place.fails(&import, "");
    assert!(said.contains("idp.secret exists already"), "{said}");
    assert_eq!(fs::read_dir(place.path("new")).unwrap().count(), 1, "nothing else was written");
    fs::remove_file(place.path("new/idp.secret")).unwrap();
    let said = place.done(&import, "").stdout;
    assert!(said.starts_with("Differences from oauth2-proxy:"), "{said}");
    let (remarks, open) = said.split_once("Before you start the gate, fill in:\n\n").unwrap();
    assert!(open.starts_with("- server.public_url: redirect_url: ") && !remarks.contains("redirect_url:"), "{said}");
    let uri = "- endpoints[0].path: register the redirect URI http://localhost:4180/oauth2/callback at the provider\n";
    assert!(open.ends_with(uri) && !open.contains("secret_file"), "{said}");
    let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("new/idp.secret"), mode("new/gateway.toml")), (0o600, 0o644));
    fs::remove_file(place.path("new/idp.secret")).unwrap();
    let said = place.fails(&import, "");
    assert!(said.contains("gateway.toml exists already") && !place.path("new/idp.secret").exists(), "{said}");
}

#[test]
fn b54_an_oauth2_proxy_without_files_is_imported_from_flags_and_variables() {
    let place = Place::new("");
    let import = ["init", "--dir", "new", "--from-oauth2-proxy"];
    let none = place.run(&import, "");
    assert_eq!(none.code, Some(2), "{none:?}");
    assert!(none.stderr.contains("no settings of oauth2-proxy"), "{none:?}");
    let flags = ["--", "--client-id=web", "--email-domain=*", "--upstream=http://app"];
    place.done(&[&import[..], &flags[..]].concat(), "");
    let written = fs::read_to_string(place.path("new/gateway.toml")).unwrap();
    assert!(written.contains("http://app"), "{written}");
    let mut command = place.command();
    command.args(["init", "--dir", "other", "--from-oauth2-proxy"]);
    for (name, value) in [("CLIENT_ID", "web"), ("EMAIL_DOMAINS", "*"), ("UPSTREAMS", "http://app")] {
        command.env(format!("OAUTH2_PROXY_{name}"), value);
    }
    assert!(command.output().unwrap().status.success());
    assert_eq!(fs::read_to_string(place.path("other/gateway.toml")).unwrap(), written);
}

#[tokio::test]
async fn b54_init_writes_a_configuration_with_a_login_of_browsers() {
    let place = Place::new("");
    fs::remove_file(place.path("gateway.toml")).unwrap();
    place.done(&["init", "--browser", "own"], "");
    let secure = |command: &mut Command| {
        anywhere(command);
        command.env("ROTOGATE_SERVER__PUBLIC_URL", "https://gate.test");
    };
    let mut check = place.command();
    secure(&mut check);
    let checked = check.args(["check", "--strict"]).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let gate = place.start_with(secure);
    let body = serde_json::json!({ "username": "demo", "password": gate.password }).to_string();
    let headers = [("host", "gate.test"), ("origin", "https://gate.test"), ("content-type", "application/json")];
    let login = gate.call(Method::POST, "/auth/login", &headers, &body).await;
    assert_eq!(login.status, StatusCode::OK);
    let cookie = login.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let by_cookie = [("host", "gate.test"), ("cookie", cookie.as_str())];
    assert_eq!(gate.call(Method::GET, "/hello", &by_cookie, "").await.status, StatusCode::OK);
    assert_eq!(gate.call(Method::GET, "/hello", &by_cookie[..1], "").await.status, StatusCode::UNAUTHORIZED);
    // `--browser` cannot be combined with an application's client.
    assert_eq!(place.run(&["init", "--dir", "x", "--browser", "own", "--client", "web"], "").code, Some(2));
    let open = &place.json(&["init", "--dir", "x", "--browser", "oidc"], "")["to_fill_in"];
    let keys: Vec<_> = open.as_array().unwrap().iter().map(|open| open["key"].as_str().unwrap()).collect();
    let client = ["endpoints[0].client.id", "endpoints[0].client.secret_file", "endpoints[0].path"];
    assert_eq!(keys, [&["issuers[0].url", "issuers[0].preset"], &client[..]].concat());
}
