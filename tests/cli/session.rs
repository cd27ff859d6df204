//! `rotogate session`: the list of sessions, and the end of sessions.

use http::StatusCode;

use super::assert_invalid_grant;
use support::{self, CONFIG, Gate, Place, Tokens};

/// The id of a token's session.
pub(super) fn sid(place: &Place, tokens: &Tokens) -> String {
    place.json(&["token", "inspect"], &tokens.refresh)["session"].as_str().unwrap().to_owned()
}

async fn is_over(gate: &Gate, tokens: &Tokens) {
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::UNAUTHORIZED);
    assert_invalid_grant(&gate.refresh(&tokens.refresh).await);
}

async fn lives(gate: &Gate, tokens: &Tokens) {
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_session_is_listed_shown_and_ended_and_the_next_request_is_refused() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    assert_eq!(place.done(&["session", "list"], "").stdout, "no sessions\n");
    let (mine, other) = (gate.login().await, gate.login().await);
    let id = sid(&place, &mine);

    let listed = place.done(&["session", "list", "--json"], "").stdout;
    let rows: Vec<serde_json::Value> = listed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0]["id"], &rows[1]["id"]), (&id.as_str().into(), &sid(&place, &other).into()), "oldest first");
    let subject = rows[0]["subject"].as_str().unwrap();
    assert_eq!(place.done(&["session", "list", "--subject", subject], "").stdout.lines().count(), 2);
    assert_eq!(place.done(&["session", "list", "--subject", "nobody"], "").stdout, "no sessions\n");

    let shown = place.json(&["session", "show", &id], "");
    assert_eq!((&shown["status"], &shown["generation"]), (&"live".into(), &1.into()));
    assert_eq!((&shown["client"], &shown["dialect"]), (&"web".into(), &"oauth2".into()));
    assert_eq!(shown["address"], "127.0.0.1");
    let next = gate.refresh(&mine.refresh).await.tokens();
    lives(&gate, &next).await;
    assert!(place.done(&["session", "show", &id], "").stdout.contains("generation  2"));

    assert_eq!(place.done(&["session", "revoke", &id], "").stdout, format!("session {id} ended\n"));
    is_over(&gate, &next).await;
    lives(&gate, &other).await;
    assert_eq!(place.json(&["session", "show", &id], "")["status"], "operator");
    // A repeated command reports that nothing is left to do.
    assert_eq!(place.done(&["session", "revoke", &id], "").stdout, format!("session {id} had already ended\n"));
    assert_eq!(place.json(&["session", "revoke", &id], "")["ended"], 0);
}

#[tokio::test]
async fn sessions_of_a_user_a_client_or_everyone_end_together() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    let first = gate.login().await;
    let subject = place.json(&["session", "show", &sid(&place, &first)], "")["subject"].as_str().unwrap().to_owned();
    let every: [&[&str]; 3] = [&["--subject", &subject], &["--client", "web"], &["--all"]];
    for which in every {
        let held = [gate.login().await, gate.login().await];
        place.done(&[&["session", "revoke"], which].concat(), "");
        for tokens in &held {
            is_over(&gate, tokens).await;
            assert_eq!(place.json(&["session", "show", &sid(&place, tokens)], "")["status"], "not-before");
        }
        lives(&gate, &gate.login().await).await;
    }
}

#[tokio::test]
async fn o16_p10_p11_a_revocation_says_how_many_sessions_it_ended_and_never_succeeds_for_nothing() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    let held = [gate.login().await, gate.login().await, gate.login().await];
    let subject = place.json(&["session", "show", &sid(&place, &held[0])], "")["subject"].as_str().unwrap().to_owned();
    place.done(&["session", "revoke", &sid(&place, &held[0])], "");
    for (which, said) in [
        (
            &["--subject", "demo"][..],
            format!(
                "no user, session or token has the subject demo, but a user with this name has the subject \
                 {subject}: use --user demo"
            ),
        ),
        (&["--subject", "nosuch"], "no user, session or token has the subject nosuch".to_owned()),
        (&["--client", "nosuch"], "no client, session or token has the client_id nosuch".to_owned()),
        (&["--user", "nosuch"], "no user has the name nosuch".to_owned()),
        (
            &["--user", &subject],
            format!("no user has the name {subject}, but it is the subject of demo: use --user demo"),
        ),
        (
            &["0190b5a0-0000-7000-8000-000000000000"],
            "there is no session 0190b5a0-0000-7000-8000-000000000000".to_owned(),
        ),
    ] {
        let refused = place.fails(&[&["session", "revoke"], which].concat(), "");
        assert!(refused.contains(&said), "{which:?}: {refused}");
    }
    lives(&gate, &held[1]).await;
    assert_eq!(place.done(&["session", "list", "--user", "demo"], "").stdout.lines().count(), 3);
    assert!(place.fails(&["session", "list", "--user", "nosuch"], "").contains("no user has the name nosuch"));

    // One of the three sessions had ended before.
    assert_eq!(place.done(&["session", "revoke", "--user", "demo"], "").stdout, "2 sessions of demo ended\n");
    is_over(&gate, &held[1]).await;
    is_over(&gate, &held[2]).await;
    assert_eq!(place.done(&["session", "revoke", "--user", "demo"], "").stdout, "0 sessions of demo ended\n");
    gate.login().await;
    let ended = place.json(&["session", "revoke", "--client", "web"], "");
    assert_eq!((&ended["matched"], &ended["ended"]), (&4.into(), &1.into()));
    gate.login().await;
    gate.login().await;
    assert_eq!(place.done(&["session", "revoke", "--all"], "").stdout, "2 sessions ended\n");

    // A user without a session: nothing ends. If two accounts have the name, the command needs one of them.
    place.done(&["user", "add", "ada", "--account", "acme"], "correct horse");
    support::until("ada is known", async || {
        place.run(&["session", "revoke", "--user", "ada"], "").stderr.contains("there is no session of ada")
    })
    .await;
    place.done(&["user", "add", "demo", "--account", "acme"], "correct horse");
    support::until("there are two of that name", async || {
        place.run(&["session", "revoke", "--user", "demo"], "").stderr.contains("several accounts have a user demo")
    })
    .await;
    assert!(
        place.fails(&["session", "revoke", "--user", "demo", "--account", "acme"], "").contains("no session of demo")
    );
    // An unknown name can be entered on purpose.
    place.done(&["session", "revoke", "--subject", "nosuch", "--force"], "");
}

#[tokio::test]
async fn o16_p14_a_reader_that_goes_away_is_no_failure() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    gate.login().await;
    let mut command = place.command();
    command.args(["session", "list"]);
    // The output has no reader from the beginning.
    support::in_shell("set -o pipefail; \"$@\" | true")(&mut command);
    for _ in 0..3 {
        let ran = command.output().unwrap();
        assert_eq!((ran.status.code(), String::from_utf8_lossy(&ran.stderr).as_ref()), (Some(0), ""));
    }
}

#[tokio::test]
async fn what_cannot_be_done_to_a_session_is_said() {
    let place = Place::new(CONFIG);
    let said = place.fails(&["session", "list"], "");
    assert!(said.contains("no gate responds on 127.0.0.1:0 (admin.listen): start it"), "{said}");
    let gate = place.start();
    place.point_commands_at(&gate);
    for id in ["0190b5a0-0000-7000-8000-000000000000", "../livez", "x", "?all"] {
        for command in ["show", "revoke"] {
            let said = place.fails(&["session", command, id], "");
            assert!(said.contains(&format!("there is no session {id}")), "{said}");
        }
    }
    for wrong in [&["session", "revoke"][..], &["session", "revoke", "x", "--all"], &["session", "show"]] {
        assert_eq!(place.run(wrong, "").code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn o1_sessions_are_nobodys_without_the_admin_token() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let held = gate.login().await;
    let id = sid(&place, &held);
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    for (method, path) in [
        ("GET", "/v1/sessions".to_owned()),
        ("GET", format!("/v1/sessions/{id}")),
        ("POST", format!("/v1/sessions/{id}/revoke")),
        ("POST", "/v1/revocations".to_owned()),
        ("GET", "/v1/status".to_owned()),
    ] {
        let method: http::Method = method.parse().unwrap();
        let answer = gate.admin(method.clone(), &path, None).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
        let answer = gate.admin(method, &path, Some(&held.access)).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    lives(&gate, &held).await;
    let page = gate.admin(http::Method::GET, "/v1/sessions?limit=1", Some(token.trim())).await.json();
    assert_eq!((&page["sessions"][0]["id"], &page["next"]), (&id.into(), &serde_json::Value::Null));
    for wrong in ["/v1/sessions?limit=0", "/v1/sessions?limit=1001", "/v1/sessions?cursor=x"] {
        let answer = gate.admin(http::Method::GET, wrong, Some(token.trim())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
    lives(&gate, &held).await;
}
