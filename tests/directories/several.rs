//! Several directories, each with its own accounts.

use http::StatusCode;
use serde_json::json;
use support::pki::write_private;
use support::{Answer, Gate, Place, until};

use super::http::{Hook, PASSWORD, SECRET, json_answer, start};

/// A configuration with these entries of `[[directories]]`.
fn config(entries: &[String]) -> String {
    let list: String = entries.iter().map(|entry| format!("[[directories]]\n{entry}")).collect();
    support::CONFIG.replacen("[[clients]]", &format!("{list}[[clients]]"), 1)
}

fn place(entries: &[String]) -> Place {
    let place = Place::new(&config(entries));
    write_private(&place.path("hook.secret"), SECRET);
    place
}

/// A hook whose users all have this subject, in the requested account.
fn hook_of(subject: &'static str) -> Hook {
    let hook = Hook::start();
    hook.says(move |asked| {
        let is_it = asked.body["subject"] == subject || asked.body["password"] == PASSWORD;
        json_answer(&json!({"active": is_it, "subject": subject, "account": asked.body["account"]}))
    });
    hook
}

async fn log_in(gate: &Gate, account: &str) -> Answer {
    let fields = [("client_id", "web"), ("grant_type", "password"), ("username", "demo"), ("password", PASSWORD)];
    gate.form(&format!("{account}/connect/token"), &fields).await
}

async fn subject(gate: &Gate, account: &str) -> Vec<String> {
    let tokens = log_in(gate, account).await.tokens();
    gate.get("/x", &tokens.access).await.echoed("x-auth-subject")
}

#[tokio::test]
async fn i25_each_account_has_its_directory_and_a_fault_of_one_is_none_of_another() {
    let (acme, rest) = (hook_of("u-acme"), hook_of("u-rest"));
    let place = place(&[
        format!("name = \"acme\"\naccounts = [\"acme\", \"acme-test\"]\n{}", acme.keys()),
        format!("name = \"rest\"\n{}", rest.keys()),
    ]);
    let gate = start(&place);
    for (account, expected) in [("/acme", "u-acme"), ("/acme-test", "u-acme"), ("/other", "u-rest"), ("", "u-rest")] {
        assert_eq!(subject(&gate, account).await, [expected], "{account}");
    }
    acme.asked();
    rest.asked();
    let (of_acme, of_rest) = (log_in(&gate, "/acme").await.tokens(), log_in(&gate, "").await.tokens());
    let refresh = async |account: &str, token: &str| {
        let fields = [("client_id", "web"), ("grant_type", "refresh_token"), ("refresh_token", token)];
        gate.form(&format!("{account}/connect/token"), &fields).await.status
    };
    acme.says(|_| None);
    // The circuit of one directory opens, and the circuit of the other stays closed.
    for _ in 0..6 {
        assert_eq!(refresh("/acme", &of_acme.refresh).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(log_in(&gate, "").await.status, StatusCode::OK);
    }
    assert_eq!(refresh("", &of_rest.refresh).await, StatusCode::OK);
    assert!(acme.asked().iter().all(|asked| asked.body["account"] == "acme"));
    assert!(rest.asked().iter().all(|asked| asked.body["account"].is_null()));
    let log = gate.log();
    assert!(log.lines().any(|line| line.contains("directory fails") && line.contains("directory=acme")), "{log}");
    assert!(!log.lines().any(|line| line.contains("directory fails") && line.contains("directory=rest")), "{log}");
    let series = |name: &str, result: &str| {
        let labels = format!("kind=\"http\",operation=\"lookup\",result=\"{result}\"");
        format!("rotogate_directory_requests_total{{directory=\"{name}\",{labels}}}")
    };
    assert_eq!(gate.metric(&series("acme", "timeout")).await, 5);
    assert!(gate.metric(&series("rest", "found")).await > 6);
}

#[tokio::test]
async fn i44_a_reload_takes_directories_all_or_nothing_and_keeps_those_that_stay() {
    let (acme, rest, new) = (hook_of("u-acme"), hook_of("u-rest"), hook_of("u-new"));
    let entry = |name: &str, accounts: &str, hook: &Hook| format!("name = \"{name}\"\n{accounts}{}", hook.keys());
    let accounts = "accounts = [\"acme\"]\n";
    let place = place(&[entry("acme", accounts, &acme), entry("rest", "", &rest)]);
    let gate = start(&place);
    let held = log_in(&gate, "/acme").await.tokens();
    // The circuit of the remaining directory is open.
    rest.says(|_| Some(Vec::new()));
    for _ in 0..5 {
        assert_eq!(log_in(&gate, "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    }
    let missing = entry("acme", accounts, &new).replace("hook.secret", "none.secret");
    place.write_config(&config(&[missing, entry("rest", "", &new)]));
    gate.signal("HUP");
    until("the reload is refused", async || gate.log().contains("none.secret")).await;
    assert_eq!(subject(&gate, "/acme").await, ["u-acme"], "nothing changed");

    place.write_config(&config(&[entry("rest", "", &rest), entry("acme", accounts, &new)]));
    gate.signal("HUP");
    until("the new one counts", async || gate.log().contains("configuration reloaded")).await;
    assert_eq!(subject(&gate, "/acme").await, ["u-new"]);
    rest.asked();
    assert_eq!(log_in(&gate, "").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let fields = [("client_id", "web"), ("grant_type", "refresh_token"), ("refresh_token", held.refresh.as_str())];
    assert_eq!(
        gate.form("/acme/connect/token", &fields).await.status,
        StatusCode::BAD_REQUEST,
        "not a user of the new one"
    );
    let log = gate.log();
    assert!(!log.contains("restart needed"), "{log}");
    let faults = log.lines().filter(|line| line.contains("get 503") && line.contains("directory=rest")).count();
    assert_eq!(faults, 1, "the directory that stays knows that it had failed: {log}");
}

#[tokio::test]
async fn a_users_file_may_be_one_of_several_and_has_the_users_of_its_accounts() {
    let hook = hook_of("u-acme");
    let place = place(&[
        format!("accounts = [\"acme\"]\n{}", hook.keys()),
        "kind = \"file\"\npath = \"users.toml\"\n".to_owned(),
    ]);
    place.done(&["user", "add", "demo", "--subject", "u-file"], PASSWORD);
    let said = place.fails(&["user", "add", "demo", "--account", "acme"], PASSWORD);
    assert!(
        said.contains("users of account acme are in directory http (directories[0]), not in the users file"),
        "{said}"
    );
    let gate = start(&place);
    assert_eq!(subject(&gate, "").await, ["u-file"]);
    assert_eq!(subject(&gate, "/acme").await, ["u-acme"]);
}

#[test]
fn i45_check_refuses_directories_that_are_ambiguous() {
    let hook = Hook::start();
    let keys = |more: &str| format!("{more}\n{}", hook.keys());
    let place = place(&[]);
    for (entries, expected) in [
        (vec![keys(""), keys("name = \"b\"")], "directories[1].accounts: missing here and in `directories[0]`"),
        (
            vec![keys("accounts = [\"a\"]"), keys("")],
            "directories[1].name: \"http\" is already the name of `directories[0]`",
        ),
        (
            vec![keys("accounts = [\"a\"]"), keys("name = \"b\"\naccounts = [\"b\", \"a\"]")],
            "directories[1].accounts[1]: \"a\" already belongs to `directories[0]`",
        ),
        (
            vec![keys("accounts = [\"a\", \"a\"]")],
            "directories[0].accounts[1]: \"a\" already belongs to `directories[0]`",
        ),
        (vec![keys("accounts = []")], "directories[0].accounts: is empty"),
        (vec![keys("accounts = [\"a/b\"]")], "directories[0].accounts[0]: expected 1 to 256 visible ASCII characters"),
        (vec![keys("name = \"a b\"")], "directories[0].name: expected letters"),
        (
            vec!["name = \"a\"\naccounts = [\"a\"]\n".to_owned(), "name = \"b\"\n".to_owned()],
            "directories[1].kind: is \"file\" here and in `directories[0]`",
        ),
        (vec![keys("").replace("hook.secret", "none")], "directories[0].secret_file: "),
    ] {
        place.write_config(&config(&entries));
        let ran = place.run(&["check"], "");
        assert_eq!(ran.code, Some(2), "{entries:?}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    }
    place.write_config(&support::with(&config(&[keys("")]), "directory", "kind = \"file\""));
    let ran = place.run(&["check"], "");
    assert!(ran.stderr.contains("directory: cannot be combined with `[[directories]]`"), "{ran:?}");
    place.write_config(&support::with(support::CONFIG, "directory", "accounts = [\"a\"]"));
    let ran = place.run(&["check"], "");
    assert!(ran.stderr.contains("directory.accounts: unknown key"), "{ran:?}");

    place.write_config(&config(&[keys("accounts = [\"a\"]"), keys("name = \"rest\"")]));
    let printed = place.done(&["check", "--print"], "").stdout;
    assert!(printed.contains("[[directories]]") && printed.contains("accounts = [\"a\"]"), "{printed}");
    let online = place.done(&["check", "--online"], "").stdout;
    assert!(online.contains("directory: http: lookup") && online.contains("directory: rest: lookup"), "{online}");
}
