//! A 429 names its limit and its caller (requirement O46).

use std::fs;

use http::{Method, StatusCode};
use serde_json::Value;
use support::{Answer, CONFIG, Gate, Place, Tokens, with};

use super::session::sid;

/// The token with another signature.
fn forged(tokens: &Tokens, number: usize) -> String {
    let (signed, signature) = tokens.access.rsplit_once('.').unwrap();
    let first = char::from(b"ABCDEFGH"[number]);
    let forged = format!("{signed}.{first}{}", &signature[1..]);
    if forged == tokens.access { format!("{signed}.Z{}", &signature[1..]) } else { forged }
}

async fn log_in(gate: &Gate, username: &str, password: &str) -> Answer {
    gate.token(&[("grant_type", "password"), ("username", username), ("password", password)]).await
}

/// Exceeds a limit. Returns the last answer.
async fn exceed(limit: &str, place: &Place, gate: &Gate) -> Answer {
    let mut last = None;
    match limit {
        "login_per_address" => {
            for user in 0..4 {
                last = Some(log_in(gate, &format!("nobody-{user}"), "a guess").await);
            }
        }
        "login_per_account" => {
            for _ in 0..4 {
                last = Some(log_in(gate, "nobody", "a guess").await);
            }
        }
        "login_per_client" => {
            for user in 0..10 {
                last = Some(log_in(gate, &format!("nobody-{user}"), "a guess").await);
            }
        }
        "refresh_per_address" => {
            for _ in 0..4 {
                last = Some(gate.refresh("no token of this gate").await);
            }
        }
        "refresh_per_session" => {
            let mut tokens = gate.login().await;
            for _ in 0..2 {
                tokens = gate.refresh(&tokens.refresh).await.tokens();
            }
            last = Some(gate.refresh(&tokens.refresh).await);
        }
        "forged_per_address" | "forged_overall" => {
            let tokens = gate.login().await;
            for number in 0..6 {
                last = Some(gate.get("/x", &forged(&tokens, number)).await);
            }
        }
        "refused_per_address" => {
            let mut held = Vec::new();
            for _ in 0..6 {
                held.push(gate.login().await);
            }
            place.done(&["session", "revoke", "--all"], "");
            for tokens in held {
                last = Some(gate.get("/x", &tokens.access).await);
            }
        }
        "own_sessions" => {
            let bearer = format!("Bearer {}", gate.login().await.access);
            for _ in 0..25 {
                last = Some(gate.call(Method::GET, "/mine", &[("authorization", &bearer)], "").await);
            }
        }
        other => panic!("{other}"),
    }
    last.unwrap()
}

#[tokio::test]
async fn o46_each_limit_is_named_with_its_caller_in_the_access_log_and_in_the_audit_trail() {
    let page = include_str!("../../docs/outcomes.md");
    let mine = "[[endpoints]]\ndialect = \"my-sessions\"\npath = \"/mine\"\n[[upstreams]]";
    let config = with(&CONFIG.replacen("[[upstreams]]", mine, 1), "access_log", "for_tests.format = \"json\"");
    for (limit, knows) in [
        ("login_per_address", "user.name_hash"),
        ("login_per_account", "user.name_hash"),
        ("login_per_client", "rotogate.client.id"),
        ("refresh_per_address", "rotogate.client.id"),
        ("refresh_per_session", "session.id"),
        ("forged_per_address", "client.address"),
        ("refused_per_address", "client.address"),
        ("forged_overall", "client.address"),
        ("own_sessions", "session.id"),
    ] {
        let config = match limit {
            "own_sessions" => config.clone(),
            key if key.starts_with("login_per_a") || key.starts_with("refresh") => {
                with(&config, "limits", &format!("{key} = \"2/1h\""))
            }
            fixed => with(&config, "limits", &format!("for_tests.{fixed} = \"2/1h\"")),
        };
        let place = Place::new(&config);
        let gate = place.start();
        place.point_commands_at(&gate);
        let answer = exceed(limit, &place, &gate).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{limit}: {answer:?}");
        let told = place.json_lines(&["events", "--action", "rate.limited"]);
        let line = told.iter().find(|line| line["limit"] == limit).unwrap_or_else(|| panic!("{limit}: {told:?}"));
        assert!(line[knows].is_string() && line["client.address"].is_string(), "{limit}: {line}");
        let log = gate.log();
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        assert!(lines.any(|line| line["rotogate.detail"] == limit), "{limit}: {log}");
    }
    // The page explains each name in the sources.
    let sources = [
        "crates/core/src/limit.rs",
        "crates/core/src/fault.rs",
        "crates/core/src/dpop/mod.rs",
        "crates/core/src/verify_cache/introspected.rs",
        "src/relay/engine/flight.rs",
    ];
    let mut named = 0;
    for file in sources {
        let source = fs::read_to_string(format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for marker in ["RateLimited(\"", "refusal(\"", "limit: \""] {
            for name in source.split(marker).skip(1).filter_map(|rest| rest.split_once('"')).map(|(name, _)| name) {
                assert!(page.contains(&format!("| `{name}` |")), "{name} of {file}");
                named += 1;
            }
        }
    }
    assert!(named >= 5, "{named}");
}

#[tokio::test]
async fn o47_what_ended_a_session_is_told_by_explain_and_a_live_session_was_ended_by_no_one() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    place.point_commands_at(&gate);
    let tokens = gate.login().await;
    let session = sid(&place, &tokens);
    place.done(&["session", "revoke", "--all"], "");
    let later = sid(&place, &gate.login().await);
    for (token, kind) in [(&tokens.refresh, &[][..]), (&tokens.access, &["--path", "/x"][..])] {
        let ran = place.run(&[&["explain", "--json"], kind].concat(), token);
        let said: Value = serde_json::from_str(&ran.stdout).unwrap();
        let advice = said["advice"].as_str().unwrap_or_default();
        assert!(advice.contains(&format!("rotogate session show {session}")), "{said}");
    }
    assert_eq!(place.json(&["session", "show", &session], "")["ended_by"], "default (admin)");
    let shown = place.json(&["session", "show", &later], "");
    assert_eq!((&shown["status"], &shown["ended_by"]), (&"live".into(), &Value::Null), "{shown}");
    let line = &place.json_lines(&["events", "--action", "revocation"])[0];
    assert!(line["not_before"].as_str().is_some_and(|moment| moment.ends_with('Z')), "{line}");
}
