//! What `/metrics` tells, and what it never takes from a request (requirement A7).

use std::collections::BTreeSet;

use http::Method;

use crate::support::{CONFIG, Gate, Place};

/// The names of all series.
async fn series(gate: &Gate) -> BTreeSet<String> {
    let text = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn requests_and_what_happens_to_sessions_are_counted() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let first = gate.login().await;
    for _ in 0..3 {
        gate.get("/private", &first.access).await;
    }
    gate.get("/private", "nonsense").await;
    gate.get("/public/x", "").await;
    gate.call(Method::GET, "/.well-known/jwks.json", &[], "").await;
    let second = gate.refresh(&first.refresh).await.tokens();
    gate.refresh(&first.refresh).await;
    gate.revoke(&second.refresh).await;
    let answer = gate.admin_get("/metrics").await;
    assert_eq!(answer.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(answer.body.ends_with(b"# EOF\n"), "{answer:?}");
    for (name, expected) in [
        ("rotogate_requests_total{route=\"/{*rest}\",outcome=\"passed\"}", 3),
        ("rotogate_requests_total{route=\"/{*rest}\",outcome=\"malformed_token\"}", 1),
        ("rotogate_request_duration_seconds_count{route=\"/{*rest}\"}", 4),
        ("rotogate_session_events_total{event=\"login\"}", 1),
        ("rotogate_session_events_total{event=\"rotated\"}", 1),
        ("rotogate_session_events_total{event=\"replayed\"}", 1),
        ("rotogate_session_events_total{event=\"revoked\"}", 1),
        ("rotogate_session_events_total{event=\"reuse\"}", 0),
        ("rotogate_revocations", 1),
        ("rotogate_verified_tokens", 1),
        ("rotogate_requests_in_flight", 0),
        ("rotogate_ready", 1),
    ] {
        assert_eq!(gate.metric(name).await, expected, "{name}\n{answer:?}");
    }
}

#[tokio::test]
async fn a7_no_request_makes_another_series() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let held = gate.login().await;
    let round = async |n: usize| {
        gate.get(&format!("/private/{n}"), &held.access).await;
        gate.get(&format!("/private/{n}"), &format!("token-{n}")).await;
        gate.get(&format!("/public/{n}?q={n}"), "").await;
        gate.get(&format!("/%2F{n}"), "").await;
        gate.call(Method::from_bytes(format!("METHOD{n}").as_bytes()).unwrap(), "/private", &[], "").await;
        gate.call(Method::GET, "/public/x", &[("host", &format!("host-{n}")), ("user-agent", &n.to_string())], "")
            .await;
        let (client, user) = (format!("client-{n}"), format!("user-{n}"));
        let login = [("grant_type", "password"), ("client_id", &client), ("username", &user), ("password", "x")];
        gate.form(&format!("/account-{n}/connect/token"), &login).await;
        gate.form("/connect/token", &[&[("client_id", "web")], &login[..1], &login[2..]].concat()).await;
        gate.refresh(&format!("rg1_{n}")).await;
    };
    round(10).await;
    let before = series(&gate).await;
    for n in 11..40 {
        round(n).await;
    }
    let after = series(&gate).await;
    assert_eq!(after, before, "nothing new");
    assert!(before.len() > 20, "{before:?}");
}
