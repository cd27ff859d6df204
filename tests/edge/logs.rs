//! A6: a client's text never becomes a log line. O18 to O24: the content of the logs, and their costs.

use std::fs::{self, File};

use super::issuer::{Issuer, URL};
use serde_json::{Value, json};
use support::stub::{Edge, HEAD, ROUTES};

const FORGED: &str = "FORGED-LINE";

/// Provokes every kind of line with hostile texts, and gives back what was logged.
fn provoked(format: &str) -> String {
    let config = format!(
        "{HEAD}{ROUTES}\n[log]\nformat = \"{format}\"\n[[issuers]]\nurl = \"{URL}\"\naudience = [\"api\"]\njwks_file = \"idp.json\"\neverywhere = true\n"
    );
    let folder = support::target_folder("test-output");
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
        // Time, level, the request's span, and the target.
        let mut words = line.split_whitespace().skip(1);
        let (first, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let is_access = first == "event.dataset=rotogate.access";
        let is_event = ["ERROR", "WARN", "INFO", "DEBUG"].contains(&first) && second.ends_with(':');
        assert!(is_access || is_ours && is_event || is_event && second.starts_with("h"), "{line:?}");
    }
}

#[test]
fn a6_hostile_texts_make_no_line_of_their_own_in_a_json_log() {
    let log = provoked("json");
    holds_no_control_byte(&log);
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let is_event = value["level"].is_string() && value["target"].is_string();
        let is_access = value["event.dataset"] == "rotogate.access";
        assert!(value["timestamp"].is_string() && (is_event || is_access), "{line}");
        is_flat(&value);
    }
}

/// Every value is a string, a number or a boolean, and no string is in Rust's `Debug` form.
fn is_flat(line: &Value) {
    for (key, value) in line.as_object().unwrap() {
        assert!(value.is_string() || value.is_number() || value.is_boolean(), "{key}: {line}");
        let text = value.as_str().unwrap_or("plain");
        assert!(!text.is_empty() && !text.starts_with('"') && !text.starts_with("Some("), "{key}: {line}");
        assert!(text != "None", "{key}: {line}");
    }
}

/// A gate that logs JSON.
struct Logging {
    edge: Edge,
}

fn logging(more: &str) -> Logging {
    let head = HEAD.replace("[admin]", &format!("{more}[admin]"));
    let config = format!("{head}{ROUTES}\n[log]\nformat = \"json\"\n");
    Logging { edge: Edge::with(&config, |_| {}, |_| {}) }
}

impl Logging {
    fn lines(&self) -> Vec<Value> {
        // A line that is being written just now is not there yet.
        let log = self.edge.gate.log();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    /// The access lines of a path.
    fn access(&self, path: &str) -> Vec<Value> {
        let of_path = |line: &Value| line["event.dataset"] == "rotogate.access" && line["url.path"] == path;
        self.lines().into_iter().filter(of_path).collect()
    }

    fn one(&self, path: &str) -> Value {
        let mut lines = self.access(path);
        assert_eq!(lines.len(), 1, "{path}: {lines:#?}");
        lines.remove(0)
    }
}

#[test]
fn o18_json_is_flat_and_plain_and_a_logout_is_no_warning() {
    let logging = logging("");
    let tokens = logging.edge.login();
    let next = support::stub::tokens(&logging.edge.refresh(&[], &tokens.refresh));
    assert_eq!(logging.edge.try_login(&[], "hunter2-typed-here", "x").status, 400);
    let revoked = logging.edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &next.refresh)]);
    assert_eq!(revoked.status, 200, "{revoked:?}");
    let lines = logging.lines();
    lines.iter().for_each(is_flat);
    let audit = |event: &str| {
        let found = lines.iter().find(|line| line["target"] == "rotogate::audit" && line["event.action"] == event);
        found.unwrap_or_else(|| panic!("no {event}: {lines:#?}")).clone()
    };
    let login = audit("session.start");
    assert_eq!(login["client.address"], "127.0.0.1");
    assert_eq!((&login["rotogate.client.id"], &login["rotogate.dialect"]), (&json!("web"), &json!("oauth2")));
    assert!(login["user.id"].is_string() && login["session.id"].is_string(), "{login}");
    assert_eq!(login.get("rotogate.account"), None, "absent where there is none");
    let refused = audit("session.start_refused");
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
    for event in ["session.end", "revocation"] {
        let line = audit(event);
        assert_eq!((&line["level"], &line["client.address"]), (&json!("INFO"), &json!("127.0.0.1")), "{line}");
        assert!(line["http.request.id"].is_string(), "{line}");
    }
    assert_eq!(audit("revocation")["of"], login["session.id"]);
    assert!(lines.iter().any(|line| line["message"] == "listening" && line["version"].is_string()), "{lines:#?}");
}

#[test]
fn p33_o18_no_level_of_the_log_hides_access_lines_or_the_audit_trail() {
    for (level, variable) in [
        ("error", None),
        ("info", Some("error")),
        ("info", Some("off")),
        ("info", Some("error,rotogate::audit=off")),
        ("info", Some("off,rotogate=off,rotogate::audit=error")),
    ] {
        let config = format!("{HEAD}{ROUTES}\n[log]\nformat = \"json\"\nlevel = \"{level}\"\n");
        let edge = Edge::with(
            &config,
            |_| {},
            |command| {
                command.env_remove("ROTOGATE_LOG");
                variable.map(|variable| command.env("ROTOGATE_LOG", variable));
            },
        );
        let tokens = edge.login();
        assert_eq!(
            edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &tokens.refresh)]).status,
            200
        );
        let Edge { gate, .. } = edge;
        let log = gate.log.clone();
        assert_eq!(gate.stop(), Some(0));
        let log = fs::read_to_string(log).unwrap();
        // A warning, and a line that is not a warning.
        for event in ["session.start", "revocation"] {
            assert!(log.contains(&format!("\"event.action\":\"{event}\"")), "{level}, {variable:?}: {log}");
        }
        assert_eq!(log.matches("rotogate.access").count(), 2, "{level}, {variable:?}: {log}");
        assert!(!log.contains("listening"), "{level}, {variable:?}: {log}");
    }
}

#[test]
fn o19_a_line_says_who_asked_what_and_what_came_of_it() {
    let logging = logging("trusted_proxies = [\"127.0.0.1\"]\n");
    let edge = &logging.edge;
    let tokens = edge.login();
    let headers = ["X-Forwarded-For: 203.0.113.9", "User-Agent: test/1", "Content-Length: 5"];
    let mut wire = edge.wire();
    let authorization = format!("Authorization: Bearer {}", tokens.access);
    wire.head("POST /private?secret=1", &[&["Host: gate.test", &*authorization][..], &headers].concat());
    wire.send(b"hello");
    assert_eq!(wire.reply().status, 200);
    let line = logging.one("/private");
    for (key, expected) in [
        ("http.request.method", json!("POST")),
        ("server.address", json!("gate.test")),
        ("url.scheme", json!("http")),
        ("network.protocol.version", json!("1.1")),
        ("client.address", json!("203.0.113.9")),
        ("network.peer.address", json!("127.0.0.1")),
        ("user_agent.original", json!("test/1")),
        ("http.response.status_code", json!(200)),
        ("rotogate.outcome", json!("passed")),
        ("rotogate.client.id", json!("web")),
        ("rotogate.generation", json!(1)),
        ("rotogate.upstream", json!("app")),
        ("upstream.address", json!(edge.stub.address.to_string())),
        ("rotogate.upstream.attempts", json!(1)),
        ("http.request.body.size", json!(5)),
        ("http.response.body.size", json!(2)),
        ("rotogate.end", json!("complete")),
    ] {
        assert_eq!(line[key], expected, "{key}: {line:#}");
    }
    let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("no {key}: {line:#}"));
    assert!(number("event.duration") >= number("rotogate.duration.head"));
    assert_eq!(
        number("rotogate.duration.gate") + number("rotogate.duration.upstream"),
        number("rotogate.duration.head")
    );
    for key in ["user.id", "session.id", "rotogate.route", "http.route", "http.request.id"] {
        assert!(line[key].is_string(), "{key}: {line:#}");
    }
    assert!(!line.to_string().contains("secret"), "{line:#}");
    // The subjects of issued tokens.
    let login = logging.one("/connect/token");
    assert_eq!((&login["rotogate.dialect"], &login["rotogate.outcome"]), (&json!("oauth2"), &json!("answered")));
    assert_eq!((&login["user.id"], &login["session.id"]), (&line["user.id"], &line["session.id"]));
}

#[test]
fn p31_the_client_of_a_line_is_the_one_that_trusted_proxies_name_and_the_peer_stays() {
    let chain = "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 198.51.100.7";
    for (trusted, headers, client) in [
        ("", vec![chain], "127.0.0.1"),
        ("trusted_proxies = [\"203.0.113.0/24\"]\n", vec![chain], "127.0.0.1"),
        ("trusted_proxies = [\"127.0.0.1\"]\n", vec![], "127.0.0.1"),
        ("trusted_proxies = [\"127.0.0.1\"]\n", vec![chain], "198.51.100.7"),
        ("trusted_proxies = [\"127.0.0.1\", \"198.51.100.0/24\"]\n", vec![chain], "203.0.113.9"),
        ("trusted_proxies = [\"127.0.0.1\"]\n", vec!["X-Forwarded-For: 2001:db8::9"], "2001:db8::9"),
    ] {
        let logging = logging(trusted);
        assert_eq!(logging.edge.ask("GET /public/x", &headers).status, 200);
        assert_eq!(logging.edge.ask("GET /private/x", &headers).status, 401);
        for path in ["/public/x", "/private/x"] {
            let line = logging.one(path);
            let addresses = (&line["client.address"], &line["network.peer.address"]);
            assert_eq!(addresses, (&json!(client), &json!("127.0.0.1")), "{trusted} {headers:?}: {line:#}");
        }
    }
}

#[test]
fn p32_o19_a_refused_line_says_why_and_whose_token_it_would_have_been() {
    let logging = logging("");
    let edge = &logging.edge;
    let tokens = edge.login();
    let (message, _) = tokens.access.rsplit_once('.').unwrap();
    let forged = format!("{message}.{}", "A".repeat(86));
    assert_eq!(edge.ask_as(&forged, "GET /private/forged", &[]).status, 401);
    assert_eq!(edge.ask_as("nonsense", "GET /private/nonsense", &[]).status, 401);
    assert_eq!(edge.ask_as(&tokens.access, "GET /private/good", &[]).status, 200);
    let (forged, nonsense, good) =
        (logging.one("/private/forged"), logging.one("/private/nonsense"), logging.one("/private/good"));
    assert_eq!(
        (&forged["rotogate.outcome"], &forged["rotogate.token.unverified"]),
        (&json!("bad_signature"), &json!(true))
    );
    for key in ["user.id", "session.id"] {
        assert_eq!(forged[key], good[key], "{key}: {forged:#}");
    }
    assert!(forged["rotogate.token.id"].is_string() && forged["rotogate.token.kid"].is_string(), "{forged:#}");
    assert_eq!((&nonsense["rotogate.outcome"], nonsense.get("user.id")), (&json!("malformed_token"), None));
    assert!(nonsense["rotogate.detail"].is_string(), "{nonsense:#}");
    assert_eq!(good.get("rotogate.token.unverified"), None);
    // A token with a good signature, of an ended session.
    let revoked = edge.form("/connect/revocation", &[], &[("client_id", "web"), ("token", &tokens.refresh)]);
    assert_eq!(revoked.status, 200);
    assert_eq!(edge.ask_as(&tokens.access, "GET /private/over", &[]).status, 401);
    let over = logging.one("/private/over");
    assert_eq!(over["rotogate.outcome"], "token_revoked");
    for key in ["user.id", "session.id", "rotogate.token.id", "rotogate.token.kid"] {
        assert_eq!(over[key], forged[key], "{key}: {over:#}");
    }
    assert_eq!(over.get("rotogate.token.unverified"), None, "{over:#}");
    // Tokens of strangers: each claim that parses, as a claim.
    let stranger = Issuer::new(1);
    let claims = json!({ "sub": "eve", "jti": "token-1", "sid": "session-1", "client_id": "app" });
    assert_eq!(edge.ask_as(&stranger.token(&claims), "GET /private/stranger", &[]).status, 401);
    let line = logging.one("/private/stranger");
    for (key, expected) in [
        ("rotogate.outcome", json!("unknown_issuer")),
        ("user.id", json!("eve")),
        ("session.id", json!("session-1")),
        ("rotogate.token.id", json!("token-1")),
        ("rotogate.issuer", json!(URL)),
        ("rotogate.token.unverified", json!(true)),
    ] {
        assert_eq!(line[key], expected, "{key}: {line:#}");
    }
    assert!(line["rotogate.token.kid"].is_string(), "{line:#}");
}

#[test]
fn o19_a_stream_has_a_line_when_it_begins_and_one_when_it_ends() {
    let logging = logging("");
    let edge = &logging.edge;
    let mut wire = edge.wire();
    wire.head("GET /public/parts", &["Host: gate.test"]);
    assert_eq!(wire.reply_head().status, 200);
    edge.stub.push(b"begun");
    assert_eq!(wire.chunk(), b"begun");
    assert!(logging.access("/public/parts").is_empty(), "it is written when the body has ended");
    edge.stub.push(b"");
    assert_eq!(wire.chunk(), b"");
    let line = logging.one("/public/parts");
    assert_eq!((&line["http.response.body.size"], &line["rotogate.end"]), (&json!(5), &json!("complete")));
    // A client that disconnects once its request is upstream.
    edge.stub.take();
    let mut wire = edge.wire();
    wire.head("GET /public/silent", &["Host: gate.test"]);
    while edge.stub.take().is_empty() {
        std::thread::yield_now();
    }
    drop(wire);
    let gone = || logging.access("/public/silent");
    while gone().is_empty() {
        std::thread::yield_now();
    }
    let line = gone().remove(0);
    assert_eq!((&line["rotogate.outcome"], &line["rotogate.end"]), (&json!("client_gone"), &json!("client_gone")));
    assert_eq!(line.get("http.response.status_code"), None);
    assert!(edge.metrics().contains("outcome=\"client_gone\",code=\"none\"} 1\n"));
}

#[test]
fn o20_each_refusal_is_one_event_whatever_refuses() {
    let logging = logging("");
    let edge = &logging.edge;
    let tokens = edge.login();
    let refused = |work: &dyn Fn()| {
        let count = || {
            let lines = logging.lines();
            let is_one = |line: &&Value| line["target"] == "rotogate::denial" && line["message"] == "refused";
            lines.iter().filter(is_one).map(|line| line["reason"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let before = count().len();
        work();
        count().split_off(before)
    };
    let form = |fields: &[(&str, &str)]| drop(edge.form("/connect/token", &[], fields));
    for (expected, work) in [
        ("no_credential", &(|| drop(edge.ask("GET /private", &[]))) as &dyn Fn()),
        ("malformed_token", &|| drop(edge.ask_as("nonsense", "GET /private", &[]))),
        ("near_miss", &|| drop(edge.ask("GET /Connect/Token", &[]))),
        ("method_not_allowed", &|| drop(edge.ask("DELETE /.well-known/jwks.json", &[]))),
        ("unknown_refresh_token", &|| drop(edge.refresh(&[], "rg1_nonsense"))),
        ("wrong_password", &|| drop(edge.try_login(&[], "demo", "wrong"))),
        ("invalid_client", &|| {
            form(&[("client_id", "nobody"), ("grant_type", "password"), ("username", "a"), ("password", "b")]);
        }),
        ("unsupported_grant_type", &|| form(&[("client_id", "web"), ("grant_type", "magic")])),
    ] {
        assert_eq!(refused(work), [expected]);
    }
    assert!(refused(&|| drop(edge.ask_as(&tokens.access, "GET /private", &[]))).is_empty());
}

#[test]
fn o21_a_request_has_an_id_everywhere_and_only_a_trusted_proxy_gives_one() {
    for (trusted, given, kept) in
        [(true, "from-the-proxy.1", true), (true, "no good", false), (false, "from-a-stranger", false)]
    {
        let logging = logging(if trusted { "trusted_proxies = [\"127.0.0.1\"]\n" } else { "" });
        let edge = &logging.edge;
        let header = format!("X-Request-Id: {given}");
        let passed = edge.ask("GET /public/x", &[&header]);
        let id = passed.header("x-request-id").to_owned();
        assert_eq!(id == given, kept, "{id}");
        assert!(kept || id.len() == 36 && id.as_bytes()[14] == b'7', "{id}");
        assert_eq!(edge.stub.one().all("x-request-id"), [id.as_str()]);
        assert_eq!(logging.one("/public/x")["http.request.id"], id.as_str());
        // In a refusal, in its document, and in what the application says of it.
        let refused = edge.ask("GET /private/x", &[&header]);
        let id = refused.header("x-request-id").to_owned();
        assert_eq!(refused.json()["request_id"], id.as_str());
        let lines = logging.lines();
        let event = lines.iter().find(|line| line["message"] == "refused" && line["http.request.id"] == id.as_str());
        assert!(event.is_some(), "{lines:#?}");
        // The same holds when the upstream fails.
        let failed = edge.ask("GET /public/reset", &[&header]);
        assert_eq!((failed.status, &failed.json()["request_id"]), (502, &json!(failed.header("x-request-id"))));
    }
}

#[test]
fn o24_a_standard_error_that_nobody_reads_stops_no_request() {
    let edge = Edge::with(
        &format!("{HEAD}{ROUTES}"),
        |_| {},
        |command| {
            command.stderr(std::process::Stdio::piped()).env("ROTOGATE_LOG", "debug");
        },
    );
    let mut wire = edge.wire();
    for number in 0..3000 {
        wire.head(&format!("GET /private/{number}"), &["Host: gate.test"]);
        assert_eq!(wire.reply().status, 401, "{number}");
    }
    let text = edge.metrics();
    let dropped = text.lines().filter(|line| line.starts_with("rotogate_log_dropped_lines_total"));
    assert!(dropped.count() == 3, "{text}");
}

#[test]
fn p37_o24_a_renamed_file_is_let_go_of_at_a_signal_and_no_line_is_lost_or_doubled() {
    for signal in ["USR1", "HUP"] {
        renamed(signal);
    }
}

fn renamed(signal: &str) {
    let config = format!("{HEAD}{ROUTES}\n[access_log]\nfor_tests.format = \"json\"\noutput = \"./access.log\"\n");
    let edge = Edge::with(&config, |_| {}, |_| {});
    let (now, old) = (edge.place.path("access.log"), edge.place.path("access.log.1"));
    let total = 200;
    for number in 0..total {
        if number == total / 2 {
            fs::rename(&now, &old).unwrap();
            edge.gate.signal(signal);
            while !now.exists() {
                std::thread::yield_now();
            }
        }
        assert_eq!(edge.ask(&format!("GET /public/{number}"), &[]).status, 200);
    }
    let Edge { gate, place, .. } = edge;
    assert_eq!(gate.stop(), Some(0));
    let paths = |file: &std::path::Path| -> Vec<String> {
        let lines = fs::read_to_string(file).unwrap();
        let path = |line: &str| serde_json::from_str::<Value>(line).unwrap()["url.path"].as_str().unwrap().to_owned();
        lines.lines().map(path).collect()
    };
    let (mut all, new) = (paths(&old), paths(&now));
    assert!(!all.is_empty() && !new.is_empty());
    all.extend(new);
    // Lines of one thread are in order.
    all.sort_by_key(|path| path.rsplit('/').next().unwrap().parse::<u32>().unwrap());
    assert_eq!(all, (0..total).map(|number| format!("/public/{number}")).collect::<Vec<_>>());
    drop(place);
}
