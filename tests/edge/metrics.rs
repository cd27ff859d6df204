//! What `/metrics` tells, and what it never takes from a request (requirement A7).

use std::collections::BTreeSet;

use http::{Method, Request};
use http_body_util::Full;

use support::{CONFIG, Gate, Place};

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
    for (name, expected) in [
        ("rotogate_requests_total{route=\"/{*rest}\",outcome=\"passed\",code=\"200\"}", 3),
        ("rotogate_requests_total{route=\"/{*rest}\",outcome=\"malformed_token\",code=\"401\"}", 1),
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
async fn a7_i43_no_request_makes_another_series() {
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

/// Sends `GET /metrics` with this `Accept`, and gives media type and text.
async fn scraped(gate: &Gate, accept: &str) -> (String, String) {
    let request = Request::get(format!("http://{}/metrics", gate.admin)).header("accept", accept);
    let answer = support::send(request.body(Full::default()).unwrap()).await;
    (answer.headers["content-type"].to_str().unwrap().to_owned(), String::from_utf8(answer.body.to_vec()).unwrap())
}

#[tokio::test]
async fn o27_metrics_come_in_the_format_that_is_asked_for_and_each_has_its_help() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    gate.get("/public/x", "").await;
    let (media, open) =
        scraped(&gate, "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5").await;
    assert_eq!(media, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE rotogate_requests counter\n"), "{open}");
    for accept in ["*/*", "text/plain"] {
        let (media, plain) = scraped(&gate, accept).await;
        assert_eq!(media, "text/plain; version=0.0.4; charset=utf-8");
        assert!(!plain.contains("# EOF") && !plain.contains("# UNIT"), "{plain}");
        // What `promtool check metrics` asks: each series has a head with help and type under its own name.
        for line in plain.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let known = |mark: &str, name: &str| plain.contains(&format!("# {mark} {name} "));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(known("HELP", base) && known("TYPE", base), "{name}: {plain}");
        }
    }
}
