//! A user's own sessions: `dialect = "my-sessions"` (requirement P55).

use std::collections::BTreeSet;

use http::{Method, StatusCode};
use serde_json::Value;
use support::{Answer, CONFIG, Gate, Place, Tokens, until};

const ENDPOINT: &str = "[[endpoints]]\ndialect = \"my-sessions\"\npath = \"/account/sessions\"\n";

fn place(more: &str) -> Place {
    Place::new(&CONFIG.replace("[[upstreams]]", &format!("{ENDPOINT}{more}[[upstreams]]")))
}

async fn ask(gate: &Gate, method: Method, path: &str, access: &str) -> Answer {
    let bearer = format!("Bearer {access}");
    gate.call(method, &format!("/account/sessions{path}"), &[("authorization", &bearer)], "").await
}

/// The ids of the list, and the current one.
async fn list(gate: &Gate, access: &str) -> (BTreeSet<String>, String) {
    let answer = ask(gate, Method::GET, "", access).await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let body = answer.json();
    let sessions = body["sessions"].as_array().unwrap();
    let id = |session: &Value| session["id"].as_str().unwrap().to_owned();
    let current: Vec<_> = sessions.iter().filter(|session| session["current"] == true).map(id).collect();
    let [current] = &current[..] else { panic!("one is the caller's: {body}") };
    (sessions.iter().map(id).collect(), current.clone())
}

fn id_of(place: &Place, tokens: &Tokens) -> String {
    place.json(&["token", "inspect"], &tokens.refresh)["session"].as_str().unwrap().to_owned()
}

async fn other_user(place: &Place, gate: &Gate) -> Tokens {
    let password = "another password of a user";
    support::keep_secret(password);
    let _ = place.done(&["user", "add", "eve"], password);
    until("eve can log in", async || gate.log_in("eve", password).await.status == StatusCode::OK).await;
    gate.log_in("eve", password).await.tokens()
}

#[tokio::test]
async fn p55_a_user_sees_and_ends_only_their_own_sessions() {
    let place = place("");
    let gate = place.start();
    let (mine, phone) = (gate.login().await, gate.login().await);
    let eve = other_user(&place, &gate).await;
    let (id, id_of_phone, id_of_eve) = (id_of(&place, &mine), id_of(&place, &phone), id_of(&place, &eve));
    let (all, current) = list(&gate, &mine.access).await;
    assert_eq!((all, current), (BTreeSet::from([id.clone(), id_of_phone.clone()]), id.clone()));
    assert!(!list(&gate, &eve.access).await.0.contains(&id));
    let shown = ask(&gate, Method::GET, "", &mine.access).await.json();
    let shown = &shown["sessions"][1];
    assert_eq!((&shown["client"], &shown["address"]), (&"web".into(), &"127.0.0.1".into()), "{shown}");
    assert!(shown["created"].is_u64() && shown["refreshed"].is_u64() && shown["expires"].is_u64(), "{shown}");

    // The session of another user, an unknown one, an ended one, and a malformed id get the same answer.
    assert_eq!(ask(&gate, Method::DELETE, &format!("/{id_of_phone}"), &mine.access).await.json()["ended"], 1);
    assert_eq!(gate.get("/x", &phone.access).await.status, StatusCode::UNAUTHORIZED);
    let unknown = uuid::Uuid::nil().to_string();
    let mut answers = Vec::new();
    for other in [id_of_eve.as_str(), &unknown, &id_of_phone, "nobody"] {
        let answer = ask(&gate, Method::DELETE, &format!("/{other}"), &mine.access).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{other} {answer:?}");
        let mut problem = answer.json();
        let _ = problem.as_object_mut().unwrap().remove("request_id").unwrap();
        answers.push((answer.headers["content-type"].clone(), problem));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(gate.get("/x", &eve.access).await.status, StatusCode::OK);

    // All sessions except the current one.
    let others = [gate.login().await, gate.login().await];
    assert_eq!(ask(&gate, Method::DELETE, "?others", &mine.access).await.json()["ended"], 2);
    for other in &others {
        assert_eq!(gate.get("/x", &other.access).await.status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(list(&gate, &mine.access).await, (BTreeSet::from([id.clone()]), id.clone()));
    assert_eq!(gate.get("/x", &eve.access).await.status, StatusCode::OK);

    // The audit trail names the user.
    let [subject] = &gate.get("/x", &mine.access).await.echoed("x-auth-subject")[..] else { panic!("one subject") };
    let token = std::fs::read_to_string(place.path("data/admin.token")).unwrap();
    let path = format!("/v1/events?action=revocation&session={id_of_phone}");
    let events = gate.admin(Method::GET, &path, Some(token.trim())).await.json();
    let line = &events["events"][0];
    assert_eq!((&line["rotogate.actor.role"], &line["because"]), (&"user".into(), &"logout".into()), "{line}");
    assert!(!subject.is_empty() && line["rotogate.actor"] == subject.as_str(), "{subject} {line}");
}

#[tokio::test]
async fn p55_what_is_no_request_of_a_user_is_refused() {
    let place = place("needs_scope = true\n[[endpoints]]\ndialect = \"my-sessions\"\npath = \"/plain\"\n");
    let gate = place.start();
    let tokens = gate.login().await;
    assert_eq!(ask(&gate, Method::GET, "", &tokens.access).await.status, StatusCode::FORBIDDEN, "no such scope");
    let bearer = format!("Bearer {}", tokens.access);
    let bearer = [("authorization", bearer.as_str())];
    for (method, path, status) in [
        (Method::GET, "/plain", 200),
        (Method::POST, "/plain", 405),
        (Method::GET, "/plain/x", 405),
        (Method::GET, "/plain?x", 400),
        (Method::DELETE, "/plain", 400),
        (Method::DELETE, "/plain?other", 400),
        (Method::DELETE, "/plain/x?others", 400),
    ] {
        let answer = gate.call(method.clone(), path, &bearer, "").await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} {answer:?}");
        if status != 200 {
            assert_eq!(answer.headers["content-type"], "application/problem+json", "{method} {path}");
        }
    }
    let answer = gate.call(Method::GET, "/plain", &[], "").await;
    assert_eq!(
        (answer.status, &answer.headers["www-authenticate"]),
        (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
    );
    let refused = gate.call(Method::GET, "/plain", &[("authorization", "Bearer not.a.token")], "").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::OK, "nothing ended");
}

#[tokio::test]
async fn p55_a_change_by_cookie_needs_an_origin_of_ours() {
    let gate = place("").start();
    let (mine, phone) = (gate.login().await, gate.login().await);
    let cookie = format!("__Host-access={}", mine.access);
    let with = async |method: Method, path: &str, more: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie.as_str())], more].concat();
        gate.call(method, &format!("/account/sessions{path}"), &headers, "").await
    };
    assert_eq!(with(Method::GET, "", &[]).await.status, StatusCode::OK);
    for foreign in [&[][..], &[("origin", "https://evil.example")], &[("sec-fetch-site", "cross-site")]] {
        let answer = with(Method::DELETE, "?others", foreign).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{foreign:?} {answer:?}");
    }
    assert_eq!(gate.get("/x", &phone.access).await.status, StatusCode::OK, "nothing ended");
    let both = with(Method::GET, "", &[("authorization", &format!("Bearer {}", mine.access))]).await;
    assert_eq!(both.status, StatusCode::BAD_REQUEST, "two credentials");
    assert_eq!(with(Method::DELETE, "?others", &[("origin", "http://gate.test")]).await.json()["ended"], 1);
    assert_eq!(gate.get("/x", &phone.access).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn p55_a_user_may_ask_twenty_times_at_once() {
    let gate = place("").start();
    let tokens = gate.login().await;
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(ask(&gate, Method::GET, "", &tokens.access).await);
    }
    assert!(answers[..20].iter().all(|answer| answer.status == StatusCode::OK));
    let refused = answers.iter().find(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.is_some_and(|answer| answer.headers.contains_key("retry-after")), "the limit is of the user");
    assert_eq!(gate.get("/x", &tokens.access).await.status, StatusCode::OK, "routes have no such limit");
}
