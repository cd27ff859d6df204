//! Facts that an operator reads: the reason and the author of a session's end, the rate that refused an attempt, the age
//! of keys, the changes of a reload.

use std::fs;

use http::StatusCode;
use serde_json::Value;
use support::{CONFIG, Gate, Place, until, with};

use super::session::sid;

fn running(config: &str) -> (Place, Gate) {
    let place = Place::new(config);
    let gate = place.start();
    place.point_commands_at(&gate);
    (place, gate)
}

/// The output of `explain --json` for a refresh token, and its exit code.
fn explained(place: &Place, token: &str, arguments: &[&str]) -> (Value, Option<i32>) {
    let ran = place.run(&[&["explain", "--json"], arguments].concat(), token);
    (serde_json::from_str(&ran.stdout).unwrap(), ran.code)
}

#[tokio::test]
async fn o33_o34_who_revoked_all_sessions_and_that_it_was_no_change_of_password_is_told() {
    let (place, gate) = running(CONFIG);
    let subject = place.json(&["session", "show", &sid(&place, &gate.login().await)], "")["subject"].clone();
    let every: [&[&str]; 4] =
        [&["--subject", subject.as_str().unwrap()], &["--user", "demo"], &["--client", "web"], &["--all"]];
    for which in every {
        let tokens = gate.login().await;
        let session = sid(&place, &tokens);
        place.done(&[&["session", "revoke"], which].concat(), "");
        place.done(&["session", "revoke", "--all"], "");
        let (said, code) = explained(&place, &tokens.refresh, &[]);
        assert_eq!((&said["outcome"], code), (&"session_not_before".into(), Some(1)), "{which:?}: {said}");
        assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::BAD_REQUEST);
        assert!(gate.log().contains("session_not_before"));
        let shown = place.json(&["session", "show", &session], "");
        assert_eq!(
            (&shown["status"], &shown["ended_by"]),
            (&"not-before".into(), &"default (admin)".into()),
            "{shown}"
        );
        assert!(place.done(&["session", "show", &session], "").stdout.contains("ended by default (admin)"));
        let events = place.json_lines(&["events", "--session", &session]);
        let ends = events.iter().filter(|line| line["event.action"] == "revocation").count();
        assert_eq!(ends, 1, "the first of the two ended it: {events:?}");
        let other = place.json_lines(&["events", "--session", &sid(&place, &gate.login().await)]);
        assert!(other.iter().all(|line| line["event.action"] != "revocation"), "it began later: {other:?}");
    }
    // A change of password is still reported as such.
    let tokens = gate.login().await;
    place.done(&["user", "passwd", "demo"], "another correct horse");
    let (said, _) = explained(&place, &tokens.refresh, &[]);
    assert_eq!(said["outcome"], "session_before_valid_from", "{said}");
}

#[tokio::test]
async fn o35_o37_a_refresh_that_a_rate_holds_up_is_attributed_and_foreseen() {
    let limits = "refresh_per_session = \"2/1h\"\nlogin_per_account = \"2/1h\"";
    let (place, gate) = running(&with(&with(CONFIG, "limits", limits), "access_log", "for_tests.format = \"json\""));
    let mut tokens = gate.login().await;
    let session = sid(&place, &tokens);
    for _ in 0..2 {
        let (said, code) = explained(&place, &tokens.refresh, &["--from", "127.0.0.1"]);
        assert_eq!((&said["decision"], code), (&"passed".into(), Some(0)), "{said}");
        tokens = gate.refresh(&tokens.refresh).await.tokens();
    }
    let (said, code) = explained(&place, &tokens.refresh, &[]);
    assert_eq!((&said["outcome"], &said["decision"], code), (&"too_many_requests".into(), &"refused".into(), Some(1)));
    assert_eq!(said["detail"], "refresh_per_session", "{said}");
    assert!(said["advice"].as_str().unwrap().contains("refresh_per_session"), "{said}");
    let before = gate.metric("rotogate_rate_limited_total{limit=\"refresh_per_session\"}").await;
    for _ in 0..5 {
        assert_eq!(gate.refresh(&tokens.refresh).await.status, StatusCode::TOO_MANY_REQUESTS);
    }
    let after = gate.metric("rotogate_rate_limited_total{limit=\"refresh_per_session\"}").await;
    assert!(after - before >= 5, "an explanation counts nothing: {before} {after}");
    let held = place.json_lines(&["events", "--action", "rate.limited"]);
    assert_eq!(held.len(), 1, "one line a minute: {held:?}");
    let line = &held[0];
    assert_eq!((&line["limit"], &line["session.id"]), (&"refresh_per_session".into(), &session.as_str().into()));
    assert!(line["user.id"].is_string() && line["rotogate.client.id"] == "web" && line["client.address"].is_string());
    let log = gate.log();
    let access = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let access: Vec<_> = access.filter(|line| line["rotogate.detail"] == "refresh_per_session").collect();
    assert!(access.len() >= 5, "{}", access.len());
    let named = |line: &Value| {
        line["session.id"] == session.as_str() && line["rotogate.client.id"] == "web" && line["user.id"].is_string()
    };
    assert!(access.iter().all(named), "{access:?}");
    // Guesses leave a trace beyond the limit, too.
    for _ in 0..6 {
        let form = [("grant_type", "password"), ("username", "nobody"), ("password", "guess")];
        assert_ne!(gate.token(&form).await.status, StatusCode::OK);
    }
    let held = place.json_lines(&["events", "--action", "rate.limited"]);
    let login = held.iter().find(|line| line["limit"] == "login_per_account").unwrap();
    assert!(login["user.name_hash"].is_string() && login["rotogate.client.id"] == "web", "{login}");
}

#[tokio::test]
async fn o38_a_user_without_an_account_is_named_beside_a_namesake() {
    let (place, _gate) = running(CONFIG);
    place.done(&["user", "add", "ada"], "correct horse");
    place.done(&["user", "add", "ada", "--account", "acme"], "correct horse");
    until("there are two", async || {
        place.run(&["session", "list", "--user", "ada"], "").stderr.contains("several accounts have a user ada")
    })
    .await;
    for account in ["", "none", "acme"] {
        place.done(&["session", "list", "--user", "ada", "--account", account], "");
    }
    assert!(place.fails(&["session", "list", "--user", "ada", "--account", "other"], "").contains("no user"));
    // A user whose account has that name is that user.
    place.done(&["user", "add", "ada", "--account", "none"], "correct horse");
    let subjects = place.json_lines(&["user", "list"]);
    let subject = |account: Option<&str>| {
        let is_it = |user: &&Value| user["username"] == "ada" && user["account"].as_str() == account;
        subjects.iter().find(is_it).unwrap()["subject"].as_str().unwrap().to_owned()
    };
    assert_ne!(subject(None), subject(Some("none")));
    place.done(&["user", "disable", "ada", "--account", ""], "");
    let users = place.json_lines(&["user", "list"]);
    let disabled: Vec<_> = users.iter().filter(|user| user["active"] == false).collect();
    assert_eq!(disabled.len(), 1);
    assert!(disabled[0]["account"].is_null(), "{disabled:?}");
}

#[tokio::test]
async fn o41_every_session_ends_at_a_terminal_once_that_is_confirmed() {
    let (place, gate) = running(CONFIG);
    let tokens = gate.login().await;
    let at_terminal = |answer: &str, more: &str| {
        let program = support::binary();
        let config = place.path("gateway.toml");
        let line = format!("{} --config {} session revoke --all {more}", program.display(), config.display());
        let shell = format!("printf '{answer}\\n' | script -qec '{line}' /dev/null");
        std::process::Command::new("bash").args(["-c", &shell]).output().unwrap()
    };
    let said = at_terminal("no", "");
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::OK);
    assert_eq!(at_terminal("yes", "").status.code(), Some(0));
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    let tokens = gate.login().await;
    assert_eq!(at_terminal("", "--yes").status.code(), Some(0));
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    // A script gets no question.
    place.done(&["session", "revoke", "--all"], "");
}

#[tokio::test]
async fn o39_o42_o43_issuers_with_files_ages_of_keys_and_what_a_reload_changed_are_told() {
    let (place, gate) = running(CONFIG);
    let age = |text: &str| text.contains("minute old");
    assert!(age(&place.done(&["keys", "list"], "").stdout));
    assert!(age(&place.done(&["keys", "list", "--refresh"], "").stdout));
    let key = &place.json_lines(&["keys", "list"])[0];
    assert!(key["created"].as_str().unwrap().ends_with('Z') && key["age"].as_u64().unwrap() < 600, "{key}");
    let good = fs::read_to_string(place.path("gateway.toml")).unwrap();
    let jwks = br#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","alg":"EdDSA","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    fs::write(place.path("idp.json"), jwks).unwrap();
    let issuer = "[[issuers]]\nname = \"idp\"\nurl = \"https://idp.test\"\naudience = [\"api\"]\neverywhere = true\n\
                  jwks_file = \"idp.json\"\n";
    place.write_config(&format!("{good}{issuer}"));
    let said = place.json(&["reload"], "");
    // With the first issuer, upstreams get its name in a header.
    let applied = serde_json::json!(["identity.headers.issuer", "issuers", "issuers[0]"]);
    assert_eq!(said["applied"], applied, "{said}");
    let listed = place.done(&["issuer", "list"], "").stdout;
    assert!(listed.starts_with("idp  file  jwks_file ") && listed.contains("idp.json"), "{listed}");
    assert!(place.fails(&["issuer", "refresh", "idp"], "").contains("Replace "));
    place.write_config(&format!("{good}{issuer}[[routes]]\npath = \"/new/{{*rest}}\"\nupstream = \"app\"\n"));
    let said = place.json(&["reload"], "");
    assert_eq!(said["applied"], serde_json::json!(["routes[2]"]), "{said}");
    drop(gate);
}

#[test]
fn o44_the_man_page_has_exit_status_environment_and_signals() {
    let place = Place::new(CONFIG);
    let page = place.done(&["man"], "").stdout;
    for section in [".SH \"EXIT STATUS\"", ".SH ENVIRONMENT", ".SH SIGNALS", "SIGUSR2", "ROTOGATE_CONFIG"] {
        assert!(page.contains(section), "{section}");
    }
    place.done(&["man", "--dir", "man"], "");
    let of_command = fs::read_to_string(place.path("man/man1/rotogate-check.1")).unwrap();
    assert!(!of_command.contains(".SH SIGNALS"));
}
