//! `rotogate user`, beside a running gate.

use http::StatusCode;

use super::assert_invalid_grant;
use super::support::{CONFIG, Place, until};

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

    let list = place.json(&["user", "list"], "");
    let ada = list.as_array().unwrap().iter().find(|user| user["username"] == "ada").unwrap();
    assert_eq!((&ada["subject"], &ada["active"], &ada["scopes"]), (&"ada-1".into(), &true.into(), &"read".into()));
    assert!(place.done(&["user", "list"], "").stdout.contains("ada  sub=ada-1  active  scopes=[read]"));

    // The same name in an account is somebody else.
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
    assert!(place.fails(&["user", "add", "ada"], PASSWORD).contains("such a user already"));
    assert!(place.fails(&["user", "add", "bob"], "\n").contains("empty"));
    for command in ["remove", "disable", "enable"] {
        assert!(place.fails(&["user", command, "nobody"], "").contains("no such user"), "{command}");
    }
    assert!(place.fails(&["user", "passwd", "ada", "--account", "acme"], PASSWORD).contains("no such user"));
    assert_eq!(std::fs::read(place.path("data/users.toml")).unwrap(), before);
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
            gate.log().lines().any(|line| line.contains("the users file is broken") && line.contains(said))
        })
        .await;
        assert_eq!(gate.get("/", &tokens.access).await.status, StatusCode::OK);
        gate.login().await;
    }
    std::fs::write(&file, good.replace("active = true", "active = false")).unwrap();
    gate.until_refused(&tokens.access).await;
}
