//! A6: what a client sends makes no log line of its own.

use std::fs::{self, File};

use super::issuer::{Issuer, URL};
use super::stub::{Edge, HEAD, ROUTES};
use serde_json::{Value, json};

const FORGED: &str = "FORGED-LINE";

/// Provokes every kind of line with hostile texts, and gives back what was logged.
fn provoked(format: &str) -> String {
    let config = format!(
        "{HEAD}{ROUTES}\n[log]\nformat = \"{format}\"\n[[issuers]]\nurl = \"{URL}\"\naudience = [\"api\"]\njwks_file = \"idp.json\"\n"
    );
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("test-output");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("edge-logs-{format}-{}.log", std::process::id()));
    let issuer = Issuer::new(1);
    let jwks = json!({ "keys": [issuer.jwk("k1"), { "kty": "none", "kid": format!("x\n{FORGED}\u{1b}[2J") }] });
    let edge = Edge::with(
        &config,
        |place| fs::write(place.path("idp.json"), jwks.to_string()).unwrap(),
        |command| {
            command.stderr(File::create(&file).unwrap());
        },
    );
    let hostile = format!("x\r\n2026-01-01T00:00:00Z  INFO {FORGED} \u{1b}[31m\u{85}\u{2028}\u{7f}\u{0}\"}}");
    // Names in forms.
    let tokens = edge.login();
    assert_eq!(edge.try_login(&[], &hostile, "x").status, 400);
    let as_client = [("client_id", hostile.as_str()), ("grant_type", "password"), ("username", "x"), ("password", "y")];
    assert_eq!(edge.form("/connect/token", &[], &as_client).status, 400);
    assert_eq!(edge.form("/a%C2%85b/connect/token", &[], &[("client_id", "web"), ("grant_type", "x")]).status, 400);
    assert_eq!(edge.refresh(&[], &hostile).status, 400);
    assert_eq!(edge.token(&[], &[("grant_type", &hostile)]).status, 400);
    assert_eq!(
        edge.token(&[], &[("grant_type", "password"), ("username", "x"), ("password", "y"), ("scope", &hostile)])
            .status,
        400
    );
    // Names in tokens.
    let mut header = super::issuer::header();
    header["kid"] = json!(hostile);
    assert_eq!(edge.ask_as(&issuer.sign(&header, &super::issuer::claims(&json!({}))), "GET /private", &[]).status, 401);
    for claim in ["iss", "sub", "jti", "client_id", "scope", "aud"] {
        assert_eq!(edge.ask_as(&issuer.token(&json!({ claim: hostile })), "GET /private", &[]).status, 401, "{claim}");
    }
    // Heads.
    for (line, headers) in [
        (format!("GET /public/%0d%0a{FORGED}"), vec![]),
        (format!("GET /public/\u{1b}[31m{FORGED}"), vec![]),
        (format!("GET /public/a\r{FORGED}"), vec![]),
        (format!("GET /public/{FORGED}%C2%85%E2%80%A8"), vec![]),
        (format!("GET /private/\"}}{{\"{FORGED}"), vec![]),
        (format!("GET /private?access_token=x%0d%0a{FORGED}"), vec![]),
        ("GET /public/reset".to_owned(), vec![format!("User-Agent: a\u{1b}[31m{FORGED}")]),
        ("GET /public/garbage".to_owned(), vec![]),
        ("GET /private".to_owned(), vec![format!("User-Agent: a\u{85}{FORGED}\tb")]),
        ("GET /private".to_owned(), vec![format!("X-Forwarded-For: {FORGED}"), format!("Referer: {FORGED}")]),
        (format!("{FORGED} /public/x"), vec![]),
        (format!("GET /public/x\u{b}{FORGED}"), vec![]),
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let mut wire = edge.wire();
        wire.head(&line, &[&["Host: gate.test"], &headers[..]].concat());
        let _ = wire.try_reply(false);
    }
    assert_eq!(edge.ask_as(&tokens.access, "GET /private", &[]).status, 200);
    let secrets = [edge.gate.password.clone(), tokens.access, tokens.refresh];
    // Written out whole once the process has ended.
    let Edge { gate, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
    let log = fs::read_to_string(file).unwrap();
    for secret in secrets {
        assert!(!log.contains(&secret), "a secret is in the log");
    }
    log
}

fn holds_no_control_byte(log: &str) {
    for line in log.lines() {
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
    assert!(log.contains(FORGED), "what came from outside was logged, so that this test can fail");
}

#[test]
fn a6_hostile_texts_make_no_line_of_their_own_in_a_text_log() {
    let log = provoked("text");
    holds_no_control_byte(&log);
    for line in log.lines() {
        let is_ours = line.get(..4).is_some_and(|year| year.bytes().all(|b| b.is_ascii_digit()))
            && line.get(4..5) == Some("-")
            && line.contains(" rotogate");
        // Time, level, the request's span, and who speaks.
        let mut speaker = line.split_whitespace().skip(2).skip_while(|word| word.starts_with("request{"));
        assert!(is_ours || speaker.next().is_some_and(|t| t.starts_with("hyper")), "{line:?}");
    }
}

#[test]
fn a6_hostile_texts_make_no_line_of_their_own_in_a_json_log() {
    let log = provoked("json");
    holds_no_control_byte(&log);
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        assert!(value["timestamp"].is_string() && value["level"].is_string() && value["target"].is_string(), "{line}");
    }
}
