//! Commands for an emergency: the configuration or the admin token is broken.

use std::fs;

use http::StatusCode;
use support::{CONFIG, Gate, Place};

/// A place with a gate that commands find, a user, and a login of that user.
async fn running() -> (Place, Gate, support::Tokens) {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    let tokens = gate.login().await;
    (place, gate, tokens)
}

/// Mistakes outside the two keys that commands need; one file is not TOML.
const BROKEN: [fn(String) -> String; 3] = [
    |good| good.replace("[issuer]\n", "[issuer]\nacess_ttl = 5\n"),
    |good| format!("{good}\n[sessions\nthis is = = no TOML\n"),
    |good| good.replace("audience = [\"api\"]", "audience = [\"api\""),
];

#[tokio::test]
async fn o28_emergency_commands_work_beside_a_broken_configuration_and_say_so_in_a_line() {
    let (place, gate, _) = running().await;
    let good = fs::read_to_string(place.path("gateway.toml")).unwrap();
    for (index, broken) in BROKEN.into_iter().enumerate() {
        place.write_config(&good);
        let tokens = gate.login().await;
        let session = super::session::sid(&place, &tokens);
        place.write_config(&broken(good.clone()));
        assert_eq!(place.run(&["check"], "").code, Some(2));
        let commands: &[(&[&str], &str)] = &[
            (&["status"], ""),
            (&["session", "list"], ""),
            (&["session", "show", &session], ""),
            (&["session", "revoke", &session], ""),
            (&["events"], ""),
            (&["issuer", "list"], ""),
            (&["keys", "list"], ""),
            (&["store", "backup", &format!("copy-{index}.redb")], ""),
        ];
        for (arguments, input) in commands {
            let ran = place.done(arguments, input);
            assert_eq!(ran.stderr.lines().count(), 1, "{arguments:?}: {ran:?}");
            assert!(ran.stderr.starts_with("rotogate: the configuration is invalid: "), "{ran:?}");
            assert!(
                ran.stderr.contains(&format!("The command still sends its request to the gate on {}", gate.admin)),
                "{ran:?}"
            );
        }
        assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED, "the session ended");
        let explained = place.run(&["explain", "--path", "/x"], &tokens.access);
        assert!(explained.code == Some(1) && explained.stdout.contains("token_revoked"), "{explained:?}");
        // Commands that need the whole configuration refuse it as before, and so do commands that the gate would
        // refuse.
        assert_eq!(place.run(&["user", "list"], "").code, Some(2));
        assert_eq!(place.run(&["reload"], "").code, Some(2));
    }
    place.write_config(&good);
    assert_eq!(place.done(&["status"], "").stderr, "", "nothing is said of a sound one");
}

#[tokio::test]
async fn o28_a_user_is_disabled_and_a_stolen_key_replaced_beside_a_broken_configuration() {
    let (place, gate, tokens) = running().await;
    let second = place.json(&["keys", "add"], "")["kid"].as_str().unwrap().to_owned();
    let first = place.json_lines(&["keys", "list"]).into_iter().find(|key| key["state"] == "signing").unwrap();
    let first = first["kid"].as_str().unwrap().to_owned();
    let good = fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&BROKEN[1](good));
    assert_eq!(place.fails(&["user", "disable", "nobody"], "").lines().count(), 2, "the notice, and why");
    place.done(&["user", "disable", "demo"], "");
    assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    place.done(&["keys", "promote", &second, "--force"], "");
    place.done(&["keys", "retire", &first, "--force"], "");
    support::until("the gate has one key", async || place.json_lines(&["keys", "list"]).len() == 1).await;
    let log = gate.log();
    assert!(log.contains("user_disable") || log.contains("user.disable"), "it is in the audit trail");
}

#[tokio::test]
async fn o28_the_gate_is_found_by_options_and_by_the_environment_where_the_configuration_is_not_read() {
    let (place, gate, _) = running().await;
    let (admin, token) = (format!("http://{}", gate.admin), place.path("data/admin.token"));
    let token = token.to_str().unwrap();
    // Without the file, only the options find the gate.
    fs::rename(place.path("gateway.toml"), place.path("away.toml")).unwrap();
    assert_eq!(place.run(&["session", "list"], "").code, Some(2));
    place.done(&["status", "--admin", &admin], "");
    place.done(&["session", "list", "--admin", &admin, "--token-file", token], "");
    place.done(&["keys", "list", "--admin", &admin, "--token-file", token], "");
    assert_eq!(place.run(&["session", "list", "--admin", &admin], "").code, Some(2), "its token is not known");
    assert_eq!(place.run(&["status", "--admin", "https://127.0.0.1:1"], "").code, Some(2));
    // An override counts beside a broken file, too.
    place.write_config("[admin]\nlisten = \"127.0.0.1:0\"\n[sessions\n");
    let status = |value: &str| {
        let mut command = place.command();
        command.arg("status").env("ROTOGATE_ADMIN__LISTEN", value).output().unwrap()
    };
    assert_eq!(status(&gate.admin.to_string()).status.code(), Some(0));
    assert_eq!(status("nonsense").status.code(), Some(2), "a wrong address is none to ask");
}

#[tokio::test]
async fn o29_a_lost_or_wrong_admin_token_is_told_from_a_gate_that_does_not_run() {
    let (place, gate, _) = running().await;
    let token = place.path("data/admin.token");
    let text = fs::read(&token).unwrap();
    let asking: [&[&str]; 5] = [
        &["session", "list"],
        &["store", "backup", "copy.redb"],
        &["user", "disable", "demo"],
        &["keys", "add"],
        &["events"],
    ];
    fs::remove_file(&token).unwrap();
    for arguments in asking {
        let said = place.fails(arguments, "");
        assert!(said.contains("its admin token is missing") && !said.contains("start it"), "{arguments:?}: {said}");
    }
    // A token that the gate does not know. The gate reads its own file, so this token is in another file.
    let wrong = place.path("wrong.token");
    fs::write(&wrong, "x".repeat(40)).unwrap();
    set_private(&wrong);
    fs::write(&token, &text).unwrap();
    set_private(&token);
    place.done(&["session", "list"], "");
    let good = fs::read_to_string(place.path("gateway.toml")).unwrap();
    place.write_config(&support::with(&good, "admin", "token_file = \"wrong.token\""));
    for arguments in asking {
        let said = place.fails(arguments, "");
        assert!(said.contains("not one of its admin tokens"), "{arguments:?}: {said}");
    }
    // The remedy of docs/operating.md: the option, without --admin.
    place.done(&["session", "list", "--token-file", token.to_str().unwrap()], "");
    // The public listener is no admin listener.
    let public = format!("http://{}", gate.address);
    for arguments in [&["status"][..], &["session", "list", "--token-file", token.to_str().unwrap()]] {
        let said = place.fails(&[arguments, &["--admin", &public]].concat(), "");
        assert!(said.contains("is not the admin listener of a gate: it returned 401"), "{arguments:?}: {said}");
    }
    // Without a listening gate, the command asks no gate, and changes the files alone.
    place.write_config(&good);
    assert_eq!(gate.stop(), Some(0));
    assert!(place.fails(&["session", "list"], "").contains("start it"));
    place.done(&["user", "enable", "demo"], "");
    place.done(&["store", "backup", "copy.redb"], "");
    place.done(&["keys", "add"], "");
}

fn set_private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}
