//! The content of `/metrics`, into which no text of a request passes (requirement A7).

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::{Method, Request, StatusCode};
use http_body_util::Full;

use support::server::{self, Process, program};
use support::stub::{Edge, ROUTES};
use support::{CONFIG, Gate, Place, until};

/// The names of all series.
async fn series(gate: &Gate) -> BTreeSet<String> {
    let text = String::from_utf8(gate.admin_get("/metrics").await.body.to_vec()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect()
}

#[tokio::test]
async fn a_connection_counts_from_the_moment_it_is_accepted() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let silent: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(gate.address).unwrap()).collect();
    let metric = "rotogate_connections{listener=\"0\",protocol=\"none\"}";
    until("the silent ones count", async || gate.metric(metric).await == 3).await;
    (&silent[0]).write_all(b"GET /public/x HTTP/1.1\r\nhost: gate.test\r\n\r\n").unwrap();
    until("one speaks", async || gate.metric(metric).await == 2).await;
    drop(silent);
    until("none is left", async || gate.metric(metric).await == 0).await;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a7_i43_p24_nothing_that_clients_and_upstreams_say_makes_another_series() {
    let edge = tokio::task::spawn_blocking(|| Edge::new(ROUTES)).await.unwrap();
    let gate = &edge.gate;
    let held = gate.login().await;
    let round = async |n: usize| {
        gate.get(&format!("/private/{n}"), &held.access).await;
        gate.get(&format!("/private/{n}"), &format!("token-{n}")).await;
        let [header, claims] = [
            format!("{{\"alg\":\"EdDSA\",\"kid\":\"key-{n}\"}}"),
            format!("{{\"iss\":\"https://issuer-{n}.test\",\"sub\":\"{n}\",\"exp\":9999999999}}"),
        ]
        .map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
        gate.get("/private", &format!("{header}.{claims}.AAAA")).await;
        gate.get(&format!("/public/{n}?q={n}"), "").await;
        gate.get(&format!("/%2F{n}"), "").await;
        // Statuses that IANA lists, and many that it does not.
        gate.get(&format!("/public/status-{}", 200 + n), "").await;
        gate.get(&format!("/public/status-{}", 600 + n), "").await;
        gate.call(Method::from_bytes(format!("METHOD{n}").as_bytes()).unwrap(), "/private", &[], "").await;
        gate.call(Method::GET, "/public/x", &[("host", &format!("host-{n}")), ("user-agent", &n.to_string())], "")
            .await;
        let (client, user) = (format!("client-{n}"), format!("user-{n}"));
        let login = [("grant_type", "password"), ("client_id", &client), ("username", &user), ("password", "x")];
        gate.form(&format!("/account-{n}/connect/token"), &login).await;
        gate.form("/connect/token", &[&[("client_id", "web")], &login[..1], &login[2..]].concat()).await;
        gate.refresh(&format!("rg1_{n}")).await;
    };
    // Further logins with wrong passwords are refused by a limit.
    for n in 1..=30 {
        round(n).await;
    }
    let before = series(gate).await;
    for n in 31..60 {
        round(n).await;
    }
    let after = series(gate).await;
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty() && before.len() > 100, "{new:?}");
}

/// Sends `GET /metrics` with this `Accept`, and gives media type and text.
async fn scraped(gate: &Gate, accept: &str) -> (String, String) {
    let request = Request::get(format!("http://{}/metrics", gate.admin)).header("accept", accept);
    let answer = support::send(request.body(Full::default()).unwrap()).await;
    (answer.headers["content-type"].to_str().unwrap().to_owned(), String::from_utf8(answer.body.to_vec()).unwrap())
}

#[tokio::test]
async fn o27_p22_metrics_come_in_the_format_that_is_asked_for_and_each_has_its_help() {
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
        // The rule of `promtool check metrics`: each series has help and type under its own name.
        for line in plain.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let known = |mark: &str, name: &str| plain.contains(&format!("# {mark} {name} "));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
            assert!(known("HELP", base) && known("TYPE", base), "{name}: {plain}");
        }
    }
}

/// The names of the families in the text format.
fn families(plain: &str) -> BTreeSet<&str> {
    let types = plain.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|line| line.split(' ').next()).collect()
}

/// The families of every gate, even before any request.
const FAMILIES: &str = "\
    build_info ready engine_time_skew_seconds requests_total request_duration_seconds gate_duration_seconds \
    grpc_responses_total request_bytes_total response_bytes_total streams_ended_total requests_in_flight requests_limit \
    connections connections_limit connections_rejected_total upstream_requests_total upstream_responses_total \
    upstream_request_duration_seconds upstream_in_flight upstream_connections upstream_retries_total upstream_addresses \
    session_events_total api_keys_total sessions_started_total sessions_ended_total revocations verified_tokens verifications_total \
    verification_duration_seconds rate_limited_total signing_key_created_timestamp_seconds password_queue \
    password_check_duration_seconds store_up store_size_bytes store_queue store_commits_total \
    store_commit_duration_seconds store_stale store_heard_age_seconds relay_exchanges_total directory_requests_total \
    directory_duration_seconds issuer_keys issuer_state issuer_last_success_timestamp_seconds issuer_waiting \
    issuer_fetches_total issuer_refused_keys issuer_unknown_kid_total certificate_not_after_timestamp_seconds \
    config_last_reload_successful config_last_reload_success_timestamp_seconds config_info log_lines_total \
    log_dropped_lines_total log_write_errors_total browser_logins_total browser_renewals_total browser_device_total \
    exchanges_total mcp_calls_total grants_total \
    rate_refused_total events_total api_keys_total";
const OF_PROCESS: &str =
    "cpu_seconds_total resident_memory_bytes virtual_memory_bytes open_fds max_fds threads start_time_seconds";

#[tokio::test]
async fn p23_every_family_exists_after_a_start_and_small_sets_are_at_0() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let (_, plain) = scraped(&gate, "text/plain").await;
    let all = families(&plain);
    let named = |prefix: &str, names: &'static str| -> Vec<String> {
        names.split_ascii_whitespace().map(|name| format!("{prefix}{name}")).collect()
    };
    for name in named("rotogate_", FAMILIES).into_iter().chain(named("process_", OF_PROCESS)) {
        assert!(all.contains(name.as_str()), "{name} does not exist: {plain}");
    }
    // `rate()` sees the first error only if there was a 0 before it.
    for (series, number) in [
        ("rotogate_upstream_requests_total{", 8),
        ("rotogate_session_events_total{", 12),
        ("rotogate_sessions_started_total{", 4),
        ("rotogate_sessions_ended_total{", 10),
        ("rotogate_grants_total{", 15),
        ("rotogate_verifications_total{", 6),
        ("rotogate_rate_limited_total{", 8),
        ("rotogate_relay_exchanges_total{", 7),
        ("rotogate_connections_rejected_total{", 5),
        ("rotogate_gate_duration_seconds_count{", 2),
    ] {
        let zero = plain.lines().filter(|line| line.starts_with(series) && line.ends_with(" 0")).count();
        assert_eq!(zero, number, "{series}: {plain}");
    }
    assert_eq!(gate.metric("rotogate_store_commits_total{result=\"failed\"}").await, 0);
    let held = gate.login().await;
    assert_eq!(gate.get("/private", &held.access).await.status, StatusCode::OK);
    assert!(gate.metric("rotogate_store_commits_total{result=\"ok\"}").await > 0);
    for (series, number) in [
        ("rotogate_store_commit_duration_seconds_count", None),
        ("rotogate_password_check_duration_seconds_count", Some(1)),
        ("rotogate_verification_duration_seconds_count{alg=\"EdDSA\"}", Some(1)),
        ("rotogate_verifications_total{result=\"valid\"}", Some(1)),
        ("rotogate_sessions_started_total{dialect=\"oauth2\"}", Some(1)),
        ("rotogate_gate_duration_seconds_count{step=\"decide\"}", Some(1)),
    ] {
        let counted = gate.metric(series).await;
        assert!(number.map_or(counted > 0, |number| counted == number), "{series}: {counted}");
    }
    let key = plain.lines().find(|line| line.starts_with("rotogate_signing_key_created_timestamp_seconds{")).unwrap();
    assert!(key.contains("alg=\"EdDSA\",state=\"signing\"}"), "{key}");
}

#[tokio::test]
async fn p26_histograms_have_the_documented_buckets() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    gate.get("/public/x", "").await;
    let (_, plain) = scraped(&gate, "text/plain").await;
    for name in ["rotogate_request_duration_seconds", "rotogate_upstream_request_duration_seconds"] {
        let begin = format!("{name}_bucket{{");
        let bounds: Vec<_> = plain
            .lines()
            .filter(|line| line.starts_with(&begin))
            .map(|line| line.split("le=\"").nth(1).unwrap().split('"').next().unwrap())
            .collect();
        let documented = "0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1.0 2.5 5.0 10.0 +Inf";
        assert_eq!(bounds.join(" "), documented, "{name}");
    }
}

/// Runs promtool on a text or a file, and gives what it says.
fn promtool(arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(program("promtool", &[]));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/prometheus");
    let mut child = command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[tokio::test]
async fn p22_promtool_has_nothing_to_say_about_the_metrics() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    let held = gate.login().await;
    gate.get("/private", &held.access).await;
    gate.get("/private", "nonsense").await;
    let (_, plain) = scraped(&gate, "text/plain").await;
    assert_eq!(promtool(&["check", "metrics"], &plain), (true, String::new()), "{plain}");
    // promtool finds faults.
    let (is_good, said) = promtool(&["check", "metrics"], "# TYPE bad counter\nbad 1\n");
    assert!(!is_good && said.contains("_total"), "{said}");
}

/// The words of an expression that are names of this program's metrics.
fn names_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let words = words.filter(|word| word.starts_with("rotogate_") || word.starts_with("process_"));
    words.map(str::to_owned).collect()
}

#[test]
fn o36_each_alert_is_shown_to_fire_from_an_empty_history() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/prometheus");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (is_good, said) = promtool(&["test", "rules", "rotogate.rules.test.yml"], "");
    assert!(is_good, "{said}");
    let (rules, tests) = (read("rotogate.rules.yml"), read("rotogate.rules.test.yml"));
    let alerts: Vec<_> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() >= 16, "{alerts:?}");
    // Each case begins with the first scrape of its series: promtool has nothing before it.
    let fires = |alert: &str| {
        let name = format!("alertname: {alert}\n");
        tests.split(name.as_str()).skip(1).any(|case| case.trim_start().starts_with("exp_alerts:\n"))
    };
    let silent: Vec<_> = alerts.into_iter().filter(|alert| !fires(alert)).collect();
    assert!(silent.is_empty(), "no test shows that they fire: {silent:?}");
}

#[tokio::test]
async fn p27_rules_and_dashboard_name_only_metrics_that_exist() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (is_good, said) = promtool(&["check", "rules", "rotogate.rules.yml"], "");
    assert!(is_good && said.contains("17 rules found"), "{said}");
    let (is_good, said) = promtool(&["test", "rules", "rotogate.rules.test.yml"], "");
    assert!(is_good, "{said}");
    // The page is generated from the declarations.
    let page = std::fs::read_to_string(folder.join("../docs/metrics.md")).unwrap();
    let known: BTreeSet<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | ").map(|(name, _)| name)).collect();
    let place = Place::new(CONFIG);
    let gate = place.start();
    let (_, plain) = scraped(&gate, "text/plain").await;
    for family in families(&plain) {
        assert!(known.contains(family), "{family} is not on the page");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&read("grafana/rotogate.json")).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array());
    let expressions: Vec<_> = targets.flatten().map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
    assert!(expressions.len() > 30, "{expressions:?}");
    let rules = read("prometheus/rotogate.rules.yml");
    let (alerts, tests) = (rules.matches("- alert: ").count(), read("prometheus/rotogate.rules.test.yml"));
    for name in expressions.iter().map(String::as_str).chain([rules.as_str()]).flat_map(names_in) {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
        assert!(known.contains(base), "{name} is no metric");
    }
    // Each alert has a test in which it fires, and a place in the documentation that says what to do.
    let named = |line: &str, mark: &str| line.split_once(mark).map(|(_, name)| name.trim().to_owned());
    let mut runbooks = 0;
    for line in rules.lines() {
        if let Some(alert) = named(line, "- alert: ") {
            assert!(tests.contains(&format!("alertname: {alert}\n        exp_alerts:\n")), "{alert} has no test");
        }
        if let Some(anchor) = named(line, "runbook: docs/metrics.md#") {
            runbooks += 1;
            let is_there = page.lines().filter_map(|line| line.strip_prefix("### "));
            assert!(is_there.map(str::to_ascii_lowercase).any(|heading| heading == anchor), "{anchor} has no place");
        }
    }
    assert_eq!(runbooks, alerts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p22_p27_prometheus_scrapes_openmetrics_and_evaluates_the_rules() {
    let place = Place::new(CONFIG);
    let gate = place.start();
    gate.get("/public/x", "").await;
    let folder = server::folder();
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/prometheus/rotogate.rules.yml");
    server::write(&folder.path().join("rules.yml"), &std::fs::read_to_string(rules).unwrap());
    let config = format!(
        "global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\nrule_files: [rules.yml]\n\
         scrape_configs: [{{job_name: rotogate, static_configs: [{{targets: [\"{}\"]}}]}}]\n",
        gate.admin
    );
    server::write(&folder.path().join("prometheus.yml"), &config);
    let port = server::free_port();
    let ready = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
    let mut command = server::unprivileged(&program("prometheus", &[]));
    command
        .current_dir(folder.path())
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let _prometheus = Process::start(&mut command, ready).unwrap();
    let ask = async |path: &str| {
        let request = Request::get(format!("http://127.0.0.1:{port}{path}")).body(Full::default()).unwrap();
        let answer = support::send(request).await;
        // Before the gate is ready, it answers with a text.
        if answer.status == StatusCode::OK { answer.json() } else { serde_json::Value::Null }
    };
    // Prometheus asks for OpenMetrics, and counts a scrape that it cannot parse as down.
    let mut target = serde_json::Value::Null;
    until("the gate was scraped", async || {
        target = ask("/api/v1/targets").await["data"]["activeTargets"][0].clone();
        target["health"].as_str().is_some_and(|health| health != "unknown")
    })
    .await;
    assert_eq!(target["health"], "up", "{target}");
    let query = async |query: &str| {
        let query: String = form_urlencoded::byte_serialize(query.as_bytes()).collect();
        ask(&format!("/api/v1/query?query={query}")).await["data"]["result"][0]["value"][1].clone()
    };
    until("it has the series", async || {
        query("rotogate_requests_total{route=\"/public/{*rest}\",code=\"200\"}").await == "1"
    })
    .await;
    assert_eq!(query("rotogate_ready").await, "1");
    let mut rules = serde_json::Value::Null;
    until("every rule was evaluated", async || {
        rules = ask("/api/v1/rules").await["data"]["groups"][0]["rules"].clone();
        rules.as_array().is_some_and(|rules| rules.iter().all(|rule| rule["health"] != "unknown"))
    })
    .await;
    for rule in rules.as_array().unwrap() {
        assert_eq!(rule["health"], "ok", "{rule}");
        assert_eq!(rule["state"], "inactive", "{rule}");
    }
}
